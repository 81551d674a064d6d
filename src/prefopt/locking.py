"""One writer of a folder at a time.

The operating system holds the lock, so that it goes when its process does, however that ends: a killed run is in
nobody's way. Beside it lies a note for whoever is refused: which process, where, since when.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import socket
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from prefopt.files import write_whole, writing

LOCK, NOTE = ".lock", ".lock.json"
PATIENCE = 1.0  # seconds: other processes that merely look hold it for an instant


class FolderInUseError(ValueError):
    """Another process writes into the folder; the message names it."""


class FolderLock:
    """The right to write into a folder.

    Args:
        folder: need not be there yet.
        what: is done there, for a reader.
        instead: what whoever is refused may do.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with FolderLock(folder):
        ...     FolderLock(folder).look()  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        prefopt.locking.FolderInUseError: ... is in use by another run (process ..., started ...): ...
        >>> FolderLock(folder).look()
    """

    def __init__(self, folder: Path, what: str = "run", instead: str = "give another output_dir") -> None:
        self.folder, self.what, self.instead = folder, what, instead
        self._lock: Any = None

    @property
    def held(self) -> bool:
        """Whether it is taken by this object."""
        return self._lock is not None

    def look(self) -> None:
        """Raise FolderInUseError if another holds the lock; takes nothing."""
        if not self.held and (self.folder / LOCK).exists():
            self._acquire().release()

    def take(self) -> None:
        """Make the folder if need be, and hold it until `release` or the end of this process.

        Raises:
            FolderInUseError: another does.
            WriteError: nothing can be written there.
        """
        if self.held:
            return
        with writing(
            f"the {self.what}", self.folder, f"{self.instead}, free some space or fix the permissions"
        ):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = self._acquire()
            try:
                write_whole(self.folder / NOTE, json.dumps(this_process()), "a note of who is at work")
            except OSError:
                self.release()
                raise

    def release(self) -> None:
        """Let go."""
        if self._lock is None:
            return
        with contextlib.suppress(OSError):
            (self.folder / NOTE).unlink(missing_ok=True)
        self._lock.release()
        self._lock = None

    def _acquire(self) -> Any:
        from filelock import FileLock, Timeout

        lock = FileLock(self.folder / LOCK, timeout=PATIENCE, thread_local=False)
        try:
            lock.acquire(poll_interval=0.02)
        except Timeout:
            raise FolderInUseError(
                f"{self.folder} is in use by another {self.what} ({self._holder()}): wait for its end, or {self.instead}"
            ) from None
        return lock

    def _holder(self) -> str:
        """Who holds it, as far as the note says."""
        try:
            note = json.loads((self.folder / NOTE).read_text("utf-8"))
            return f"process {note['pid']} on {note['host']}, started {note['started']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "which has just begun"

    def __enter__(self) -> Self:
        self.take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def this_process() -> dict[str, Any]:
    """What another is told of this process."""
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": socket.gethostname(), "started": started}
