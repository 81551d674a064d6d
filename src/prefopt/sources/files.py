"""Rows out of files: JSON lines, JSON, CSV, TSV, parquet, a folder of `datasets`, a hub id, or objects in memory.

Only the container is read here; what a row means is the business of its modality. Single files are
read by `readers.py`; `datasets` (seconds to import) loads only for folders and hub ids.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefopt.sources import memory
from prefopt.sources.chat_text import without_nones
from prefopt.sources.compression import ARCHIVES, OPENERS, content_suffix
from prefopt.sources.motion_folders import is_motion_folder, motion_rows, splits_in
from prefopt.sources.readers import READERS, names_files, read_lines

SUFFIXES = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet",
}  # fmt: skip

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one data set, in order.

    Attributes:
        source: where they come from, for messages and reports.
        kind: "jsonl", "json", "csv", "tsv", "parquet", "txt", "datasets", "motion_folder" or "memory".
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
        source: path of a .jsonl, .ndjson, .json, .csv, .tsv or .parquet file, also compressed; folder written by
            `save_to_disk`, or of data files; hub id (`owner/name`); list of rows; `datasets.Dataset` or `DatasetDict`;
            pandas frame; name of one of these in `sources.memory`.
        split: split to take. A single file, a list, a frame or a `Dataset` has only "train".
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
    if isinstance(source, str) and source.startswith(memory.PREFIX):
        source = memory.find(source)
    if isinstance(source, list):
        return _from_list(source, split)
    if isinstance(source, str | Path):
        return _from_name(source, split, config_name, lines)
    library = memory.library_of(source)
    if library == "datasets":
        return _from_dataset(source, split, "a datasets object in memory")
    if library == "pandas" and hasattr(source, "to_dict") and hasattr(source, "columns"):
        return _rows("a pandas frame in memory", "memory", _from_frame(source), split)
    if library == "polars" and hasattr(source, "columns"):
        return _rows("a polars frame in memory", "memory", _from_polars(source), split)
    raise TypeError(f"data is a {type(source).__name__}; needed a path, a hub id, {memory.KINDS}")


def _from_list(rows: list[dict[str, Any]], split: str) -> Rows:
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            raise TypeError(f"row {number} of the list is a {type(row).__name__}; needed a dict of columns")
    return _rows("a list of rows in memory", "memory", rows, split)


def _from_frame(frame: Any) -> list[dict[str, Any]]:
    """A pandas frame's rows; what pandas counts as missing is None, arrays (of a parquet file) are lists."""
    return [
        {str(name): _plain_cell(value) for name, value in row.items()} for row in frame.to_dict("records")
    ]


def _from_polars(frame: Any) -> list[dict[str, Any]]:
    """A polars frame's rows; structs have the keys of all, so that those without a value go."""
    whole = frame.collect() if hasattr(frame, "collect") else frame
    return [
        {name: without_nones(x) if isinstance(x, list | dict) else _plain_cell(x) for name, x in row.items()}
        for row in whole.to_dicts()
    ]


def _plain_cell(value: Any) -> Any:
    if isinstance(value, float):
        return None if value != value else value
    if type(value).__module__.startswith("pandas") and str(value) in ("<NA>", "NaT"):
        return None
    if type(value).__name__ == "ndarray" and value.dtype == object:
        # nested columns of a parquet file: Arrow gave each message the keys of all
        return without_nones(_lists(value))
    return value


def _lists(value: Any) -> Any:
    """A nested value with lists in place of arrays."""
    if isinstance(value, dict):
        return {key: _lists(x) for key, x in value.items()}
    if type(value).__name__ == "ndarray":
        return [_lists(x) for x in value.tolist()]
    return [_lists(x) for x in value] if isinstance(value, list) else value


def splits_of(source: Any, config_name: str | None = None) -> list[str]:
    """Names of a source's splits, without reading its rows; ["train"] of whatever has no splits.

    Raises:
        OSError, ValueError: the source cannot be found or read.
    """
    if isinstance(source, str) and source.startswith(memory.PREFIX):
        source = memory.find(source)
    if not isinstance(source, str | Path):
        return list(source) if isinstance(source, dict) else ["train"]
    path = Path(source).expanduser()
    if path.is_file() or (path / "state.json").exists():
        return ["train"]
    if is_motion_folder(path):
        return splits_in(path)
    if (path / "dataset_dict.json").exists():
        return list(json.loads((path / "dataset_dict.json").read_text("utf-8"))["splits"])
    if path.is_dir() and (metadata := _metadata_of(path)):
        return list(metadata)
    if not path.exists() and (content_suffix(path) in (*SUFFIXES, ".txt") or str(source).count("/") != 1):
        return ["train"]  # a misspelt file: reading it tells
    import datasets

    try:
        return [str(name) for name in datasets.get_dataset_split_names(str(source), config_name)]
    except (OSError, ValueError, datasets.exceptions.DatasetNotFoundError):
        return ["train"]


JUDGES = ("test", "validation", "valid", "val", "dev", "eval")
"""Splits to judge by, in this order."""


def evaluation_split(source: Any, config_name: str | None = None, trained: str | None = None) -> str:
    """The split of a source to judge by.

    Args:
        source: see `load_rows`.
        config_name: configuration of a hub data set.
        trained: the split of the same source that is trained on; None where another source is.

    Returns:
        Its test or validation split; else its only one, or "train".
    """
    there = splits_of(source, config_name)
    beside = [(trained or "").replace("train", name) for name in JUDGES] if trained else []
    wanted = [*beside, *JUDGES, *(name for judge in JUDGES for name in there if name.startswith(judge))]
    found = next((name for name in wanted if name in there and name != trained), None)
    return found or (there[0] if len(there) == 1 else "train")


def _from_name(source: str | Path, split: str, config_name: str | None, lines: str | None) -> Rows:
    path = Path(source).expanduser()
    try:
        if path.is_dir():
            return _from_folder(path, split, config_name)
        if not path.exists():
            return _from_hub(str(source), path, split, config_name)
        if not path.is_file():
            raise ValueError(
                f"{path} is a pipe or a device, which cannot be read twice: write it to a file first, and give that"
            )
        suffix = content_suffix(path)
        if lines is not None and suffix == ".txt":
            rows, numbers = read_lines(path, lines)
            return _rows(str(source), "txt", rows, split, numbers)
        kind = SUFFIXES.get(suffix)
        if kind is None:
            raise ValueError(f"{path}: {_unread(path)}")
        rows, numbers = READERS[kind](path)
    except PermissionError as error:
        raise PermissionError(
            f"no permission to read {error.filename or path}: ask its owner, or run `chmod u+r` on it"
        ) from error
    return _rows(str(source), kind, rows, split, numbers)


def _unread(path: Path) -> str:
    """Why a file of this name is not read, and what to do."""
    known = f"{', '.join(SUFFIXES)}, each also compressed ({', '.join(OPENERS)})"
    if any(suffix.lower() in ARCHIVES for suffix in path.suffixes):
        return f"an archive is not read: unpack it, and give the file inside. Needed one of {known}"
    if path.suffix.lower() == ".arrow":
        return "an Arrow file is a part of a folder written by save_to_disk: give the folder"
    if path.suffix.lower() == ".txt":
        return f"a text file has prompts alone; comparisons are needed, in one of {known}"
    ending = "".join(path.suffixes[-2:] if path.suffix.lower() in OPENERS else path.suffixes[-1:])
    return (
        f"files ending in {ending or 'no suffix'!r} are not read; needed one of {known}: rename the file if it is one "
        "of these, or write its rows as JSON lines"
    )


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
    # half a surrogate pair cannot be written anywhere, not even in a message
    columns = tuple(
        dict.fromkeys(name.encode("utf-8", "backslashreplace").decode() for row in rows for name in row)
    )
    return Rows(source, kind, rows, numbers or range(1, len(rows) + 1), columns)


# -- what datasets reads -------------------------------------------------------------------------------------


def _from_folder(path: Path, split: str, config_name: str | None) -> Rows:
    if not any(path.iterdir()):
        raise ValueError(f"{path} is an empty folder: needed data files, or a folder written by save_to_disk")
    if is_motion_folder(path):
        return _rows(str(path), "motion_folder", motion_rows(path, split), "train")
    import datasets

    if (path / "state.json").exists() or (path / "dataset_dict.json").exists():
        try:
            return _from_dataset(datasets.load_from_disk(str(path)), split, str(path))
        except (OSError, json.JSONDecodeError) as error:
            raise ValueError(
                f"{path}: datasets could not read the folder ({error}); write it again"
            ) from error
    if (rows := _from_media_folder(path, split)) is not None:
        return rows
    return _load_dataset(str(path), split, config_name)


def _from_media_folder(path: Path, split: str) -> Rows | None:
    """The rows of an image folder's metadata file, in the layout of `datasets`; None if this is no such folder.

    Read here and not by `datasets`, which stops at the first file that is missing and copies what it finds.
    """
    metadata = _metadata_of(path)
    if not metadata:
        return None
    file = metadata.get(split) or next(iter(metadata.values()))
    kind = SUFFIXES[file.suffix]
    read, numbers = READERS[kind](file)
    rows = _rows(str(file), kind, read, "train", numbers)
    if not any(map(names_files, rows.columns)):
        return None
    if split not in metadata:
        raise ValueError(f"unknown split {split!r}: {path} has {', '.join(map(repr, sorted(metadata)))}")
    return rows


def _metadata_of(path: Path) -> dict[str, Path]:
    """The metadata files of an image folder, by split."""
    return {
        folder.name if folder != path else "train": file
        for folder in (*(entry for entry in sorted(path.iterdir()) if entry.is_dir()), path)
        for name in METADATA
        if (file := folder / name).is_file()
    }


def _from_hub(name: str, path: Path, split: str, config_name: str | None) -> Rows:
    """A name that is no path here: a hub id if it can be one, else an error with the nearest names."""
    missing = f"no file or folder {path}{_whats_there(path)}"
    parts = name.split("/")
    if (
        content_suffix(path) in (*SUFFIXES, ".txt")
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
    files = sorted(entry.name for entry in folder.iterdir() if content_suffix(entry) in SUFFIXES)
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
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
        raise ValueError(
            f"{name} makes its rows by Python code of its own, which neither datasets nor prefopt run: save the rows once, "
            "as JSONL or parquet, and give that file; of data sets on the hub there often is a copy as parquet files"
        ) from None
    except (datasets.exceptions.DatasetGenerationError, datasets.exceptions.DatasetNotFoundError) as error:
        raise ValueError(f"{name}: datasets could not read it ({error.__cause__ or error})") from error
    return _bundle(dataset, name)


def _from_dataset(dataset: Any, split: str, source: str) -> Rows:
    if isinstance(dataset, dict):  # DatasetDict
        if split not in dataset:
            raise ValueError(
                f"unknown split {split!r}: {source} has {', '.join(map(repr, sorted(dataset)))}. Name one of them: split=NAME "
                "(of eval_data: eval_split=NAME)"
            )
        return _bundle(dataset[split], source)
    if split != "train" and str(dataset.split) != split:
        raise ValueError(
            f"unknown split {split!r}: {source} has one split, {str(dataset.split or 'train')!r}"
        )
    return _bundle(dataset, source)


def _bundle(dataset: Any, source: str) -> Rows:
    import datasets  # made by it, so it is loaded

    if hasattr(dataset, "__len__") and not len(dataset):
        raise ValueError(f"{source} is empty: it holds no rows")
    for name, feature in (dataset.features or {}).items():
        if isinstance(feature, datasets.Image):
            # as stored: decoding is dear, and one broken image would end the loop over all rows
            dataset = dataset.cast_column(name, datasets.Image(decode=False))
            if name in ("chosen", "rejected"):  # an image folder's "chosen_file_name"
                dataset = dataset.rename_column(name, f"{name}_image")
    if not hasattr(dataset, "__len__"):  # streaming: all of it is needed, to hold rows out and to shuffle
        return _rows(f"{source}, streamed", "datasets", list(dataset), "train")
    return Rows(source, "datasets", dataset, range(1, len(dataset) + 1), tuple(dataset.column_names))
