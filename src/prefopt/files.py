"""Files that are there whole or not at all, and one sentence where there is no room for them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

GO_ON = "free some space or fix the permissions, and go on with resume=true"
AGAIN = "free some space or fix the permissions, and run the command again"
PAGES = "free some space or fix the permissions, and write the pages again with `prefopt report FOLDER`"


class WriteError(OSError):
    """Something that could not be written; the message says what, where and why, and that nothing was lost."""


@contextlib.contextmanager
def writing(what: str, place: Path, advice: str = AGAIN) -> Iterator[None]:
    """Turn a full disk, missing permissions and the like into one sentence.

    Args:
        what: is being written.
        place: where.
        advice: what to do about it.

    Raises:
        WriteError: instead of the operating system's errors, and of those that safetensors makes of them.
    """
    try:
        yield
    except WriteError:
        raise
    except Exception as error:
        reason = why_not_written(error)
        if reason is None:
            raise
        raise WriteError(
            f"{what} could not be written to {place} ({reason}). What was there before is intact: {advice}"
        ) from error


def why_not_written(error: BaseException) -> str | None:
    """The operating system's reason for an error while writing; None for an error of another kind."""
    if isinstance(error, shutil.Error):  # of copytree: a list of (source, target, reason)
        reasons = error.args[0] if error.args else []
        return str(reasons[0][2]) if isinstance(reasons, list) and reasons else str(error)
    if isinstance(error, OSError) and not isinstance(
        error, FileNotFoundError | ConnectionError | TimeoutError
    ):
        return error.strerror or str(error) or type(error).__name__
    # safetensors writes in Rust, and its error holds what the system said
    return str(error) if type(error).__name__ == "SafetensorError" and "os error" in str(error) else None


def write_whole(
    path: Path, content: str | bytes, what: str | None = None, advice: str = AGAIN, *, new: bool = False
) -> None:
    """Write a file, whole or not at all, even if the machine stops in the middle.

    Args:
        path: the file; an older one stays until the new one is on disk.
        content: text is written as UTF-8.
        what: the file is, for a reader; its name by default.
        advice: see `writing`.
        new: refuse to replace a file, also one that appeared meanwhile.

    Raises:
        WriteError: it cannot be written, or, with `new`, is there already.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "greeting.txt"
        >>> write_whole(path, "hello")
        >>> path.read_text()
        'hello'
    """
    data = content.encode() if isinstance(content, str) else content
    with writing(what or path.name, path.parent, advice), beside(path) as partial:
        with partial.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if new:
            _publish_new(partial, path)
        else:
            os.replace(partial, path)


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]], advice: str = AGAIN) -> None:
    """Write rows as JSON lines, whole or not at all; see `write_whole`."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_whole(path, text, advice=advice)


def _publish_new(partial: Path, path: Path) -> None:
    try:
        os.link(partial, path)  # unlike a rename, it fails where a file is
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        os.replace(partial, path)


@contextlib.contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A hidden name beside `path` that no other writer has; a file that bears it in the end is removed.

    Not `tempfile`: what it makes is private to its owner, and a cache may be shared.
    """
    partial = path.parent / f".{path.name[:120]}-{uuid.uuid4().hex}.partial"
    try:
        yield partial
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def append_whole(path: Path, text: str, what: str | None = None, advice: str = GO_ON) -> None:
    """Add text to the end of a file: all of it, or none.

    Raises:
        WriteError: it cannot be written; the file is as it was.
    """
    with writing(what or path.name, path.parent, advice):
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            append_to(handle, text.encode())
        finally:
            os.close(handle)


def append_to(handle: int, data: bytes) -> None:
    """Add bytes to the end of an open file; what a full disk took of them is cut off again.

    Raises:
        OSError: they do not fit.
    """
    before = os.fstat(handle).st_size
    try:
        while data:
            data = data[os.write(handle, data) :]
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(handle, before)
        raise


def replace_folder(folder: Path, fill: Callable[[Path], None], what: str, advice: str = GO_ON) -> None:
    """Fill a new folder beside `folder` and put it in its place; an older one goes only then.

    The hidden names beside it are always the same, so that what a killed process left is found; one process at a time.

    Args:
        folder: the place.
        fill: writes into the path it is given, which is not there yet.
        what: the folder is, for a reader.
        advice: see `writing`.

    Raises:
        WriteError: it cannot be written; the older one is as it was.
    """
    partial, aside = (folder.with_name(f".{folder.name}.{end}") for end in ("partial", "old"))
    with writing(what, folder.parent, advice):
        folder.parent.mkdir(parents=True, exist_ok=True)
        if aside.exists() and not folder.exists():
            os.replace(aside, folder)  # somebody died between the two steps below
        shutil.rmtree(partial, ignore_errors=True)
        try:
            fill(partial)
            for path in partial.rglob("*"):
                if path.is_file():
                    flush(path)
            shutil.rmtree(aside, ignore_errors=True)
            if folder.exists():
                os.replace(folder, aside)
            os.replace(partial, folder)
            flush(folder.parent)
        except BaseException:
            if aside.exists() and not folder.exists():
                os.replace(aside, folder)
            raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            if folder.exists():
                shutil.rmtree(aside, ignore_errors=True)


def link_or_copy(source: str, target: str) -> str:
    """A hard link, or a copy where the file system has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def digest_of(folder: Path) -> str:
    """Hex digest of all files of a folder, by name and content."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            held = hashlib.file_digest(file, "blake2b").hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()}|{held}|".encode())
    return digest.hexdigest()


def flush(path: Path) -> None:
    """Wait until the disk has a file, or the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_room(folder: Path, what: str, advice: str) -> None:
    """Find out before expensive work whether anything can be written into a folder.

    Raises:
        WriteError: it cannot.
    """
    with writing(what, folder, advice), beside(folder / "room") as trial:
        folder.mkdir(parents=True, exist_ok=True)
        trial.write_bytes(b"?" * 4096)
