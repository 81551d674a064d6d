"""Files as bytes, compressed or not; the last suffix tells (.gz, .bz2, .xz, .zst, .lz4)."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any


def _arrow(codec: str) -> Callable[[Path], Any]:
    def open_stream(path: Path) -> Any:
        import io

        import pyarrow

        # buffered: Arrow's streams have no lines of their own
        return io.BufferedReader(pyarrow.CompressedInputStream(str(path), codec))

    return open_stream


OPENERS: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _arrow("zstd"),
    ".lz4": _arrow("lz4"),
}
ARCHIVES = (".zip", ".tar", ".tgz", ".7z", ".rar")


def content_suffix(path: Path) -> str:
    """The suffix that says what is inside: `.jsonl` of `pairs.jsonl.gz`."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return (
        (suffixes[-2:-1] or [""])[0]
        if suffixes[-1:] and suffixes[-1] in OPENERS
        else (suffixes[-1:] or [""])[0]
    )


def size_of_plain(path: Path) -> int | None:
    """Bytes of a file that is not compressed; None of one that is."""
    return None if path.suffix.lower() in OPENERS else path.stat().st_size


@contextlib.contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The content of a file, to be read from its beginning.

    Raises:
        ValueError: a compressed file is damaged or cut short.
        OSError: it cannot be read.
    """
    opener = OPENERS.get(path.suffix.lower())
    if opener is None:
        with path.open("rb") as file:
            yield file
        return
    path.open("rb").close()  # a missing or forbidden file is told as such
    try:
        with opener(path) as file:
            yield file
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise ValueError(
            f"{path}: not a whole {path.suffix.lower()[1:]} file ({error}); it may be cut short, or be named wrongly: "
            "compare its size with the original, and copy it again"
        ) from error


def read_bytes(path: Path) -> bytes:
    """All of a file's content; raises as `opened` does."""
    with opened(path) as file:
        return file.read()
