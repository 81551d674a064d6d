"""Where prefopt keeps what it can make again: bundled models, sampled candidates, reference scores.

`PREFOPT_CACHE` names the folder; otherwise it is `prefopt` in the user's cache folder. It may be deleted at any time, but for
the models in `given`, which a program had in memory and which runs and adapters may name.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from prefopt.files import check_room, writing

MANIFEST = "manifest.json"
ELSEWHERE = "free some space, or point PREFOPT_CACHE at a folder that can be written"


def cache_dir() -> Path:
    """The cache folder: `PREFOPT_CACHE`, else `XDG_CACHE_HOME/prefopt`, else `~/.cache/prefopt`. It may not exist yet."""
    if given := os.environ.get("PREFOPT_CACHE"):
        return Path(given).expanduser()
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given).expanduser() / "prefopt"
    return Path.home() / ".cache" / "prefopt"


def built_once(folder: Path, build: Callable[[Path], None]) -> Path:
    """`folder`, filled by `build` unless it is there already, whole and unchanged.

    `build` writes into a temporary folder beside it, which is renamed when complete, together with a manifest of the
    files' hashes: nobody ever sees half a folder, and a damaged one is built anew. When several processes build at
    once, the first to finish counts and the others use its result.

    Args:
        folder: the place; its name should hold a hash of everything the content depends on.
        build: fills the empty folder it is given.

    Raises:
        WriteError: nothing can be written there; found before anything is built.

    Example:
        >>> import tempfile
        >>> place = Path(tempfile.mkdtemp()) / "greeting"
        >>> _ = built_once(place, lambda folder: (folder / "hello.txt").write_text("hello"))
        >>> (place / "hello.txt").read_text()
        'hello'
    """
    if is_intact(folder):
        return folder
    # not tempfile.mkdtemp: its folders are private, and a cache may be shared
    temporary = folder.parent / f".{folder.name}-{uuid.uuid4().hex}"
    check_room(folder.parent, "the cache", ELSEWHERE)
    with writing("the cache", folder.parent, ELSEWHERE):
        try:
            temporary.mkdir()
            build(temporary)
            hashes = {
                str(p.relative_to(temporary)): _hash(p) for p in sorted(temporary.rglob("*")) if p.is_file()
            }
            (temporary / MANIFEST).write_text(json.dumps(hashes, indent=1), encoding="utf-8")
            _publish(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


def is_intact(folder: Path) -> bool:
    """Whether every file that the folder's manifest lists is there with the hash it was written with."""
    try:
        hashes = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return all(_hash(folder / name) == value for name, value in hashes.items())
    except (OSError, ValueError, AttributeError):
        return False


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _publish(temporary: Path, folder: Path) -> None:
    """Rename `temporary` to `folder`, unless an intact one appeared there meanwhile; a damaged one gives way."""
    for _ in range(3):
        try:
            temporary.rename(folder)
            return
        except OSError:
            if is_intact(folder):
                return
            if not folder.exists():
                raise
        # aside first, by one atomic step: deleting in place could hit a good folder that another process just put there
        damaged = folder.parent / f".damaged-{uuid.uuid4().hex}"
        with contextlib.suppress(FileNotFoundError):
            folder.rename(damaged)
            shutil.rmtree(damaged, ignore_errors=True)
    raise OSError(f"{folder} could not be replaced: something keeps writing to it. Delete it and run again")
