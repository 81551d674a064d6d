"""Columns of pictures: those of a table on disk stay there until a picture is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from prefopt.comparisons import UnusableItem
from prefopt.sources.files import Rows
from prefopt.sources.pictures import Cell, ImageRef, as_ref, problem

PictureOf = Callable[[int, Mapping[str, Any], str, bool], ImageRef]
"""(row number, row, column, whether to decode it now) -> the picture."""


PicturesOf = Callable[[int, Mapping[str, Any], str], tuple[ImageRef, ...]]
"""(row number, row, column) -> its pictures, in order; none where the cell is empty."""


def picture_columns(rows: Rows, names: Sequence[str]) -> tuple[Rows, PictureOf]:
    """The rows without the pictures that stay on disk until they are asked for, and how to get any picture of a row.

    What it gives is looked at: it raises `UnusableItem` where a picture cannot be used.
    """
    tables = _tables(rows, names)
    rows, folder = without(rows, tables), rows.folder

    def picture(number: int, row: Mapping[str, Any], column: str, thorough: bool) -> ImageRef:
        if column in tables:
            ref = ImageRef(Cell(tables[column], number - 1, column, folder), column)
        else:
            ref = as_ref(row.get(column), column, folder)
        return looked_at(ref, column, thorough)

    return rows, picture


def columns_of_pictures(rows: Rows, names: Sequence[str]) -> tuple[Rows, PicturesOf]:
    """The same where a cell may hold several pictures, or none."""
    tables = _tables(rows, names)
    rows, folder = without(rows, tables), rows.folder

    def pictures(number: int, row: Mapping[str, Any], column: str) -> tuple[ImageRef, ...]:
        if column in tables:
            table = tables[column]
            value = table[number - 1][column]
            if isinstance(value, list | tuple):
                refs = [
                    ImageRef(Cell(table, number - 1, column, folder, n), column) for n in range(len(value))
                ]
            else:
                refs = [] if value is None else [ImageRef(Cell(table, number - 1, column, folder), column)]
        else:
            value = row.get(column)
            if value is None or (isinstance(value, str | list | tuple) and not value):
                return ()
            values = value if isinstance(value, list | tuple) else [value]
            refs = [as_ref(one, column, folder) for one in values]
        return tuple(looked_at(ref, column) for ref in refs)

    return rows, pictures


def looked_at(ref: ImageRef, column: str, thorough: bool = False) -> ImageRef:
    """The picture, if it can be used; raises `UnusableItem` otherwise."""
    if error := problem(ref, thorough):
        raise error if ref.name == column else UnusableItem(f"{column}: {error}", error.reason)
    return ref


def without(rows: Rows, tables: Mapping[str, Any]) -> Rows:
    """The rows less some columns of their table."""
    if not tables:
        return rows
    return replace(rows, rows=rows.rows.remove_columns(list(tables)))  # type: ignore[attr-defined]


def _tables(rows: Rows, names: Sequence[str]) -> dict[str, Any]:
    """The image columns that stay on disk until an image is asked for, each as a table of its own."""
    if rows.kind != "datasets":
        return {}
    table: Any = rows.rows
    # strings are paths; they may come with the row
    return {
        name: table.select_columns([name]).with_format(None)
        for name in names
        if name in table.features and holds_pictures(table.features[name])
    }


def holds_pictures(feature: Any) -> bool:
    """Whether a column of a table holds images or their bytes, one or several a cell."""
    one = getattr(feature, "feature", feature)  # of a list
    return type(one).__name__ == "Image" or "binary" in str(getattr(one, "dtype", ""))
