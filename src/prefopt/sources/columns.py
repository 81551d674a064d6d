"""Columns that mean something else in this data than prefopt takes them for: left out, or called otherwise."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from prefopt.sources.files import Rows
from prefopt.sources.readers import TextRow


@dataclass(frozen=True)
class ColumnsAs:
    """How to take a table's columns.

    Attributes:
        rename: new names by the names in the data.
        ignore: names in the data that are not read at all.
        where_there: pass over names that the table does not have, instead of calling them an error.

    Example:
        >>> from prefopt.sources.files import load_rows
        >>> rows = load_rows([{"query": "1 + 1 =", "chosen": " 2", "rejected": " 3", "label": 0}])
        >>> ColumnsAs({"query": "prompt"}, ["label"]).apply(rows).columns
        ('prompt', 'chosen', 'rejected')
    """

    rename: Mapping[str, str] = field(default_factory=dict)
    ignore: Sequence[str] = ()
    where_there: bool = False

    def apply(self, rows: Rows) -> Rows:
        """The rows under these names.

        Raises:
            ValueError: a column is not there, is named in both, or would be there twice.
        """
        if self.where_there:
            there = set(rows.columns)
            kept = {old: new for old, new in self.rename.items() if old in there and new not in there - {old}}
            return ColumnsAs(kept, [name for name in self.ignore if name in there]).apply(rows)
        if not self.rename and not self.ignore:
            return rows
        for key, names in (("rename_columns", self.rename), ("ignore_columns", self.ignore)):
            for name in names:
                if name not in rows.columns:
                    close = difflib.get_close_matches(name, rows.columns, n=1)
                    hint = f"; did you mean {close[0]!r}?" if close else ""
                    raise ValueError(
                        f"{key}: {rows.source} has no column {name!r}{hint} Its columns are {', '.join(rows.columns)}"
                    )
        if both := [name for name in self.rename if name in self.ignore]:
            raise ValueError(
                f"column {both[0]!r} is in rename_columns and in ignore_columns: leave it in one"
            )
        names = {name: self.rename.get(name, name) for name in rows.columns if name not in self.ignore}
        if twice := [name for name in names.values() if list(names.values()).count(name) > 1]:
            raise ValueError(
                f"rename_columns makes {twice[0]!r} the name of two columns of {rows.source}: put the other one into "
                f"ignore_columns=[{twice[0]}]"
            )
        return replace(rows, rows=_renamed(rows.rows, names), columns=tuple(names.values()))


def _renamed(rows: Any, names: Mapping[str, str]) -> Any:
    if isinstance(rows, list):
        return [
            row.renamed(names)
            if isinstance(row, TextRow)
            else {names[k]: v for k, v in row.items() if k in names}
            for row in rows
        ]
    # a datasets.Dataset, whose images stay on disk
    changed = {old: new for old, new in names.items() if old != new}
    return rows.select_columns(list(names)).rename_columns(changed)


AS_THEY_ARE = ColumnsAs()
