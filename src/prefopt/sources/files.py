"""Rows out of files: JSON lines, JSON, CSV, parquet, a folder of `datasets`, a hub id, or a list in memory.

Only the container is read here; what a row means is the business of `rows.py` and `image_rows.py`. Single files are
read by `readers.py`; `datasets` (seconds to import) loads only for folders and hub ids.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefopt.sources.readers import FILE_COLUMNS, READERS, read_lines

SUFFIXES = {".jsonl": "jsonl", ".json": "json", ".csv": "csv", ".parquet": "parquet"}

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one data set, in order.

    Attributes:
        source: where they come from, for messages and reports.
        kind: "jsonl", "json", "csv", "parquet", "txt", "datasets" or "memory".
        rows: the rows; a list, or a `datasets.Dataset`.
        numbers: number of each row, counted from 1: its line in a JSON lines or text file, its place elsewhere.
        columns: every column that some row has, in order of first appearance.
    """

    source: str
    kind: str
    rows: Sequence[Mapping[str, Any]]
    numbers: Sequence[int]
    columns: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        return zip(self.numbers, self.rows, strict=True)

    @property
    def place(self) -> str:
        """What `numbers` count, for messages: "line" or "row"."""
        return "line" if self.kind in ("jsonl", "txt") else "row"

    @property
    def folder(self) -> Path:
        """Where paths that rows name start: the data file's folder, the data folder, or else the current one."""
        path = Path(self.source).expanduser()
        return path if path.is_dir() else path.parent if path.is_file() else Path()


def load_rows(
    source: str | Path | list[dict[str, Any]] | Any,
    split: str = "train",
    config_name: str | None = None,
    lines: str | None = None,
) -> Rows:
    """Read rows from wherever they are.

    Args:
        source: path of a .jsonl, .json, .csv or .parquet file; folder written by `save_to_disk`, or of data files;
            hub id (`owner/name`); list of rows; `datasets.Dataset` or `DatasetDict`.
        split: split to take. A single file, a list or a `Dataset` has only "train".
        config_name: configuration of a hub data set.
        lines: column to make of the lines of a .txt file; without it such files are refused.

    Returns:
        The rows with their numbers and columns.

    Raises:
        FileNotFoundError: no such file; names the nearest ones in its folder.
        PermissionError: the file may not be read.
        ValueError: corrupt content (with the line), no rows, unknown format, unknown split (with those there).
        TypeError: `source` is none of the above.

    Example:
        >>> load_rows([{"prompt": "1 + 1 =", "chosen": " 2", "rejected": " 3"}]).columns
        ('prompt', 'chosen', 'rejected')
    """
    if isinstance(source, list):
        return _from_list(source, split)
    if isinstance(source, str | Path):
        return _from_name(source, split, config_name, lines)
    # asking the module's name avoids importing datasets to find out that it is not one
    if type(source).__module__.partition(".")[0] == "datasets":
        return _from_dataset(source, split, "a datasets object in memory")
    raise TypeError(
        f"data is a {type(source).__name__}; needed a path, a hub id, a list of rows (dicts) or a datasets.Dataset"
    )


def _from_list(rows: list[dict[str, Any]], split: str) -> Rows:
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            raise TypeError(f"row {number} of the list is a {type(row).__name__}; needed a dict of columns")
    return _rows("a list of rows in memory", "memory", rows, split)


def _from_name(source: str | Path, split: str, config_name: str | None, lines: str | None) -> Rows:
    path = Path(source).expanduser()
    try:
        if path.is_dir():
            return _from_folder(path, split, config_name)
        if not path.exists():
            return _from_hub(str(source), path, split, config_name)
        if lines is not None and path.suffix.lower() == ".txt":
            rows, numbers = read_lines(path, lines)
            return _rows(str(source), "txt", rows, split, numbers)
        kind = SUFFIXES.get(path.suffix.lower())
        if kind is None:
            raise ValueError(
                f"{path}: files ending in {path.suffix or 'no suffix'!r} are not read; needed one of "
                f"{', '.join(SUFFIXES)}: convert or rename the file"
            )
        rows, numbers = READERS[kind](path)
    except PermissionError as error:
        raise PermissionError(
            f"no permission to read {error.filename or path}: ask its owner, or run `chmod u+r` on it"
        ) from error
    return _rows(str(source), kind, rows, split, numbers)


def _rows(
    source: str,
    kind: str,
    rows: Sequence[Mapping[str, Any]],
    split: str,
    numbers: Sequence[int] | None = None,
) -> Rows:
    """Bundle the rows of a source that has one split."""
    if split != "train":
        raise ValueError(f"unknown split {split!r}: {source} has one split, 'train'")
    if not len(rows):
        raise ValueError(f"{source} is empty: it holds no rows")
    columns = tuple(dict.fromkeys(name for row in rows for name in row))
    return Rows(source, kind, rows, numbers or range(1, len(rows) + 1), columns)


# -- what datasets reads -------------------------------------------------------------------------------------


def _from_folder(path: Path, split: str, config_name: str | None) -> Rows:
    if not any(path.iterdir()):
        raise ValueError(f"{path} is an empty folder: needed data files, or a folder written by save_to_disk")
    import datasets

    if (path / "state.json").exists() or (path / "dataset_dict.json").exists():
        try:
            return _from_dataset(datasets.load_from_disk(str(path)), split, str(path))
        except (OSError, json.JSONDecodeError) as error:
            raise ValueError(
                f"{path}: datasets could not read the folder ({error}); write it again"
            ) from error
    if (rows := _from_image_folder(path, split)) is not None:
        return rows
    return _load_dataset(str(path), split, config_name)


def _from_image_folder(path: Path, split: str) -> Rows | None:
    """The rows of an image folder's metadata file, in the layout of `datasets`; None if this is no such folder.

    Read here and not by `datasets`, which stops at the first file that is missing and copies what it finds.
    """
    metadata = {
        folder.name if folder != path else "train": file
        for folder in (*(entry for entry in sorted(path.iterdir()) if entry.is_dir()), path)
        for name in METADATA
        if (file := folder / name).is_file()
    }
    if not metadata:
        return None
    file = metadata.get(split) or next(iter(metadata.values()))
    kind = SUFFIXES[file.suffix]
    read, numbers = READERS[kind](file)
    rows = _rows(str(file), kind, read, "train", numbers)
    if not FILE_COLUMNS & set(rows.columns):
        return None
    if split not in metadata:
        raise ValueError(f"unknown split {split!r}: {path} has {', '.join(map(repr, sorted(metadata)))}")
    return rows


def _from_hub(name: str, path: Path, split: str, config_name: str | None) -> Rows:
    """A name that is no path here: a hub id if it can be one, else an error with the nearest names."""
    missing = f"no file or folder {path}{_whats_there(path)}"
    parts = name.split("/")
    if (
        path.suffix.lower() in (*SUFFIXES, ".txt")
        or len(parts) > 2
        or name.startswith((".", "~", "/"))
        or _near(path)
    ):
        raise FileNotFoundError(missing)
    try:
        return _load_dataset(name, split, config_name)
    except (OSError, ValueError) as error:
        if "unknown split" in str(error):
            raise
        raise FileNotFoundError(
            f"{missing}; as a hub data set it could not be loaded either: {error}"
        ) from error


def _near(path: Path) -> list[str]:
    """Names in the folder of `path` that resemble it."""
    if not path.parent.is_dir():
        return []
    names = sorted(entry.name for entry in path.parent.iterdir())
    stems = difflib.get_close_matches(path.stem, {Path(name).stem for name in names}, n=3, cutoff=0.6)
    return [name for stem in stems for name in names if Path(name).stem == stem]


def _whats_there(path: Path) -> str:
    """A clause for the message about a missing path."""
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    if folder != path.parent:
        return f": {folder.resolve()} has no {path.relative_to(folder).parts[0]!r} in it"
    if near := _near(path):
        return f"; did you mean {' or '.join(str(folder / name) for name in near[:3])}?"
    files = sorted(entry.name for entry in folder.iterdir() if entry.suffix.lower() in SUFFIXES)
    return f"; the data files there are {', '.join(files[:5])}{', ...' * (len(files) > 5)}" if files else ""


def _load_dataset(name: str, split: str, config_name: str | None) -> Rows:
    import datasets

    try:
        dataset = datasets.load_dataset(name, config_name, split=split)
    except ValueError as error:
        if "split" not in str(error).lower():
            raise
        try:
            there = sorted(datasets.load_dataset(name, config_name))
        except (ValueError, OSError):
            raise error from None
        raise ValueError(f"unknown split {split!r}: {name} has {', '.join(map(repr, there))}") from None
    except (datasets.exceptions.DatasetGenerationError, datasets.exceptions.DatasetNotFoundError) as error:
        raise ValueError(f"{name}: datasets could not read it ({error.__cause__ or error})") from error
    return _bundle(dataset, name)


def _from_dataset(dataset: Any, split: str, source: str) -> Rows:
    if isinstance(dataset, dict):  # DatasetDict
        if split not in dataset:
            raise ValueError(f"unknown split {split!r}: {source} has {', '.join(map(repr, sorted(dataset)))}")
        return _bundle(dataset[split], source)
    if not hasattr(dataset, "__len__"):
        raise TypeError(
            f"{source} is a streaming {type(dataset).__name__}; needed one with a length: load it without streaming"
        )
    if split != "train" and str(dataset.split) != split:
        raise ValueError(
            f"unknown split {split!r}: {source} has one split, {str(dataset.split or 'train')!r}"
        )
    return _bundle(dataset, source)


def _bundle(dataset: Any, source: str) -> Rows:
    if not len(dataset):
        raise ValueError(f"{source} is empty: it holds no rows")
    import datasets  # made by it, so it is loaded

    for name, feature in (dataset.features or {}).items():
        if isinstance(feature, datasets.Image):
            # as stored: decoding is dear, and one broken image would end the loop over all rows
            dataset = dataset.cast_column(name, datasets.Image(decode=False))
            if name in ("chosen", "rejected"):  # an image folder's "chosen_file_name"
                dataset = dataset.rename_column(name, f"{name}_image")
    return Rows(source, "datasets", dataset, range(1, len(dataset) + 1), tuple(dataset.column_names))
