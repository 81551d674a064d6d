"""One reader a file format: JSON lines, JSON, CSV, TSV, parquet -> rows, and their numbers where these are not 1, 2, 3, ...

Read directly and not through `datasets`, which takes seconds to import and loses line numbers for messages. Every file
may be compressed (`compression.py`).
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from prefopt.sources.chat_text import messages_in
from prefopt.sources.compression import opened, read_bytes, size_of_plain

# CSV cells of these columns are text, whatever they look like, unless they spell messages
TEXT_COLUMNS = frozenset(
    {
        *("prompt", "caption", "text", "chosen", "rejected", "completion"),
        *("instruction", "input", "question", "conversations", "messages", "system", "system_prompt"),
    }
)
PLAIN_COLUMNS = frozenset({"id", "source"})
FILES = re.compile(r"(\w+_)?(file_name|image|video|audio|motion)")

TOO_DEEP = "lists or objects nested too deeply to be read; flatten them, or leave the row out"

Read = tuple[list[dict[str, Any]], list[int] | None]


def names_files(column: str) -> bool:
    """Whether a column names files: its last word is a medium, or `datasets` makes one of it ("*file_name").

    Example:
        >>> [names_files(c) for c in ("image", "chosen_image", "rejected_file_name", "images", "prompt")]
        [True, True, True, False, False]
    """
    return FILES.fullmatch(column) is not None


def read_jsonl(path: Path) -> Read:
    """JSON lines; blank lines are skipped but counted."""
    rows: list[dict[str, Any]] = []
    numbers: list[int] = []
    # bytes, because text mode would also break lines at a lone carriage return
    with opened(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except RecursionError:
                raise ValueError(f"{where}: {TOO_DEEP}") from None
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{where}: not UTF-8 at byte {error.start} of the line; save the file as UTF-8"
                ) from None
            except json.JSONDecodeError as error:
                at = f"{error.msg} at column {error.colno}"
                raise ValueError(
                    f"{where}: not valid JSON ({at}): {_excerpt(error.doc, error.pos)}. Each line must be one JSON object"
                ) from None
            except ValueError as error:  # an integer of thousands of digits
                raise ValueError(f"{where}: {error}") from None
            if not isinstance(row, dict):
                raise ValueError(
                    f"{where}: a JSON {_json_type(row)}; each line must be one JSON object {{...}}"
                )
            rows.append(row)
            numbers.append(number)
    return rows, numbers


def read_json(path: Path) -> Read:
    """A JSON array of objects; a file that does not start with "[" is read as JSON lines."""
    with opened(path) as file:
        start = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
        if not start.startswith(b"["):
            rows, _ = read_jsonl(path)
            return rows, None
    try:
        content = json.loads(read_bytes(path).decode("utf-8-sig"))
    except RecursionError:
        raise ValueError(f"{path}: {TOO_DEEP}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}, line {error.lineno}: not valid JSON ({error.msg} at column {error.colno}): "
            f"{_excerpt(error.doc, error.pos)}"
        ) from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    for number, row in enumerate(content, 1):
        if not isinstance(row, dict):
            raise ValueError(f"{path}, row {number}: a JSON {_json_type(row)}; needed an object {{...}}")
    return content, None


def read_csv(path: Path, delimiter: str = ",") -> Read:
    """CSV or TSV with a header line; messages, votes and other structured cells hold JSON, an empty cell is no value."""
    rows: list[dict[str, Any]] = []
    limit = csv.field_size_limit(
        min(sys.maxsize, 2**31 - 1)
    )  # the default of 128 KB is less than one long chat
    try:
        with opened(path) as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True, delimiter=delimiter)
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
                    rows.append(TextRow(row))
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


class TextRow(dict[str, Any]):
    """A row of a CSV file: values as their columns' names suggest them, and the texts, for columns that are renamed."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        super().__init__({name: _cell(name, text) for name, text in texts.items()})
        self.texts = texts

    def renamed(self, names: Mapping[str, str]) -> TextRow:
        """The row with these columns, under their new names."""
        return TextRow({names[name]: text for name, text in self.texts.items() if name in names})


def _cell(column: str, text: str) -> Any:
    """The value of a CSV cell."""
    if column in TEXT_COLUMNS:
        return messages_in(text) or text
    if not text.strip():
        return None
    if column in PLAIN_COLUMNS or names_files(column):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
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

    size = size_of_plain(path)
    if size == 0:
        return [], None
    source = path if size is not None else pyarrow.BufferReader(read_bytes(path))
    try:
        with pyarrow.parquet.ParquetFile(source) as file:
            return [row for batch in file.iter_batches() for row in batch.to_pylist()], None
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        if isinstance(error, PermissionError):
            raise
        raise ValueError(
            f"{path}: not a complete parquet file ({str(error).splitlines()[0]}); it may be cut short: "
            "compare its size with the original, and copy or write it again"
        ) from None


def read_lines(path: Path, column: str) -> Read:
    """Plain text, one value of `column` a line; blank lines are skipped but counted."""
    try:
        # not splitlines, which also breaks at characters that a prompt may hold
        lines = read_bytes(path).decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8") from None
    found = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    return [{column: line} for _, line in found], [number for number, _ in found]


READERS: dict[str, Callable[[Path], Read]] = {
    "jsonl": read_jsonl,
    "json": read_json,
    "csv": read_csv,
    "tsv": partial(read_csv, delimiter="\t"),
    "parquet": read_parquet,
}


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
