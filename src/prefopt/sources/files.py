"""Rows out of files: JSON lines, JSON, CSV, parquet, a folder of `datasets`, a hub id, or a list in memory.

Only the container is read here; what a row means is `rows.py`'s business. JSON lines, JSON, CSV and parquet are
read directly, which takes milliseconds to start and keeps line numbers for error messages; `datasets` (seconds to
import) loads only for folders and hub ids.
"""

from __future__ import annotations

import csv
import difflib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SUFFIXES = {".jsonl": "jsonl", ".json": "json", ".csv": "csv", ".parquet": "parquet"}

# CSV cells of these columns are text, whatever they look like; "[...]" is read as messages only if it is messages
TEXT_COLUMNS = frozenset({"prompt", "chosen", "rejected", "completion"})
PLAIN_COLUMNS = frozenset({"id", "source"})


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one data set, in order.

    Attributes:
        source: where they come from, for messages and reports.
        kind: "jsonl", "json", "csv", "parquet", "datasets" or "memory".
        rows: the rows; a list, or a `datasets.Dataset`.
        numbers: number of each row, counted from 1: its line in a JSON lines file, its place elsewhere.
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
        return "line" if self.kind == "jsonl" else "row"


def load_rows(
    source: str | Path | list[dict[str, Any]] | Any, split: str = "train", config_name: str | None = None
) -> Rows:
    """Read rows from wherever they are.

    Args:
        source: path of a .jsonl, .json, .csv or .parquet file; folder written by `save_to_disk`, or of data files;
            hub id (`owner/name`); list of rows; `datasets.Dataset` or `DatasetDict`.
        split: split to take. A single file, a list or a `Dataset` has only "train".
        config_name: configuration of a hub data set.

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
        return _from_name(source, split, config_name)
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


def _from_name(source: str | Path, split: str, config_name: str | None) -> Rows:
    path = Path(source).expanduser()
    try:
        if path.is_dir():
            return _from_folder(path, split, config_name)
        if not path.exists():
            return _from_hub(str(source), path, split, config_name)
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


# -- one reader a format: path -> rows, and their numbers where these are not 1, 2, 3, ... --------------------

Read = tuple[list[dict[str, Any]], list[int] | None]


def read_jsonl(path: Path) -> Read:
    """JSON lines; blank lines are skipped but counted."""
    rows: list[dict[str, Any]] = []
    numbers: list[int] = []
    # bytes, because text mode would also break lines at a lone carriage return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{where}: not UTF-8 at byte {error.start} of the line; save the file as UTF-8"
                ) from None
            except json.JSONDecodeError as error:
                at = f"{error.msg} at column {error.colno}"
                raise ValueError(
                    f"{where}: not valid JSON ({at}): {_excerpt(error.doc, error.pos)}. Each line must be one JSON object"
                ) from None
            if not isinstance(row, dict):
                raise ValueError(
                    f"{where}: a JSON {_json_type(row)}; each line must be one JSON object {{...}}"
                )
            rows.append(row)
            numbers.append(number)
    return rows, numbers


def read_json(path: Path) -> Read:
    """A JSON array of objects; a file that does not start with "[" is read as JSON lines."""
    with path.open("rb") as file:
        start = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
        if not start.startswith(b"["):
            rows, _ = read_jsonl(path)
            return rows, None
    try:
        content = json.loads(path.read_text("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}, line {error.lineno}: not valid JSON ({error.msg} at column {error.colno}): "
            f"{_excerpt(error.doc, error.pos)}"
        ) from None
    for number, row in enumerate(content, 1):
        if not isinstance(row, dict):
            raise ValueError(f"{path}, row {number}: a JSON {_json_type(row)}; needed an object {{...}}")
    return content, None


def read_csv(path: Path) -> Read:
    """CSV with a header line; messages, votes and other structured cells hold JSON, an empty cell is no value."""
    rows: list[dict[str, Any]] = []
    limit = csv.field_size_limit(
        min(sys.maxsize, 2**31 - 1)
    )  # the default of 128 KB is less than one long chat
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            try:
                header = list(reader.fieldnames or [])
                if twice := [name for name in header if header.count(name) > 1]:
                    raise ValueError(f"{path}, line 1: two columns are named {twice[0]!r}; rename one")
                for row in reader:
                    if None in row or None in row.values():
                        cells = sum(value is not None for name, value in row.items() if name is not None)
                        cells += len(row.get(None) or [])
                        raise ValueError(
                            f"{path}, line {reader.line_num}: {cells} cells under a header of "
                            f"{len(header)}; put text that holds commas or line breaks in double quotes"
                        )
                    rows.append({name: _cell(name, value) for name, value in row.items()})
            except csv.Error as error:
                raise ValueError(
                    f"{path}, after line {reader.line_num}: not valid CSV ({error}); is a double quote left open?"
                ) from None
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path}, after line {reader.line_num}: not UTF-8 ({error.reason}); save the file as UTF-8"
                ) from None
    finally:
        csv.field_size_limit(limit)
    return rows, None


def _cell(column: str, text: str) -> Any:
    """The value of a CSV cell."""
    if column in TEXT_COLUMNS:
        if text.lstrip().startswith("["):
            try:
                value = json.loads(text)
            except json.JSONDecodeError:
                return text
            if isinstance(value, list) and value and all(isinstance(m, dict) and "role" in m for m in value):
                return value
        return text
    if not text.strip():
        return None
    if column in PLAIN_COLUMNS:
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        if text.lower() in ("true", "false"):  # as pandas writes them
            return text.lower() == "true"
        try:
            return float(text)  # nan, inf, +1
        except ValueError:
            return text


def read_parquet(path: Path) -> Read:
    """Parquet, nested columns included."""
    import pyarrow
    import pyarrow.parquet

    if not path.stat().st_size:
        return [], None
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            return [row for batch in file.iter_batches() for row in batch.to_pylist()], None
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, PermissionError):
            raise
        raise ValueError(
            f"{path}: not a complete parquet file ({str(error).splitlines()[0]}); it may be cut short: "
            "compare its size with the original, and copy or write it again"
        ) from None


READERS = {"jsonl": read_jsonl, "json": read_json, "csv": read_csv, "parquet": read_parquet}


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
    return _load_dataset(str(path), split, config_name)


def _from_hub(name: str, path: Path, split: str, config_name: str | None) -> Rows:
    """A name that is no path here: a hub id if it can be one, else an error with the nearest names."""
    missing = f"no file or folder {path}{_whats_there(path)}"
    parts = name.split("/")
    if path.suffix.lower() in SUFFIXES or len(parts) > 2 or name.startswith((".", "~", "/")) or _near(path):
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
    return Rows(source, "datasets", dataset, range(1, len(dataset) + 1), tuple(dataset.column_names))


# -- words for messages --------------------------------------------------------------------------------------


def _excerpt(text: str, position: int) -> str:
    return repr(text[max(0, position - 20) : position + 20].strip())


def _json_type(value: Any) -> str:
    if isinstance(value, dict):
        return "object"
    if isinstance(value, list):
        return "array"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "string"
    return "null" if value is None else "number"
