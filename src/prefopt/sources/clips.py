"""A stretch of a video as a value: where it is, which part of it is meant, and how rows write it down."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import pairwise
from numbers import Real
from pathlib import Path
from typing import Any

from prefopt.comparisons import UnusableItem
from prefopt.sources.cells import near, shown
from prefopt.sources.pictures import ImageRef, as_ref
from prefopt.sources.video_files import Source, content_digest

KEYS = ("source", "start_s", "end_s", "frames", "fps")


@dataclass(frozen=True)
class ClipRef:
    """A stretch of a video that is read when asked for.

    Attributes:
        source: the file's path, its bytes, or its frames as images, in order.
        start_s, end_s: the stretch in seconds, half-open; None: to the end.
        frames: indices of the chosen frames among those of the source, in order; None: not chosen yet.
        fps: frames a second of a source that is images (default 1); files know their own.
        name: what messages call it.
    """

    source: Path | bytes | tuple[ImageRef, ...]
    start_s: float = 0.0
    end_s: float | None = None
    frames: tuple[int, ...] | None = None
    fps: float | None = None
    name: str = field(default="video", compare=False)

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"ClipRef({self.name!r}, {self.start_s}, {self.end_s}, {self.frames})"

    @property
    def digest(self) -> str:
        """32 hexadecimal digits that name the content, the stretch and the chosen frames."""
        if isinstance(self.source, tuple):
            content = "".join(image.digest for image in self.source).encode()
        else:
            content = content_digest(Source(self.source, self.name))
        part = json.dumps([float(self.start_s), self.end_s, self.frames, self.fps])
        return blake2b(content + part.encode(), digest_size=16).hexdigest()


def as_clips(value: Any, name: str, folder: Path = Path()) -> tuple[ClipRef, ...]:
    """A row's value as the clips of one video, in order.

    Args:
        value: a path or bytes; {"source": path, bytes, or a list of images, "start_s", "end_s", "frames", "fps"}, of
            which all but the source may be absent; {"bytes": ..., "path": ...} as `datasets` stores videos; a list of
            these.
        name: of the column, for messages.
        folder: where relative paths start.

    Raises:
        UnusableItem: absent ("missing_value"); none of these, or values that make no stretch ("wrong_type").

    Example:
        >>> as_clips({"source": "a.mp4", "end_s": 4.0}, "video", Path("clips"))
        (ClipRef('a.mp4', 0.0, 4.0, None),)
    """
    if isinstance(value, list | tuple):
        if not value:
            raise UnusableItem(f"{name} is an empty list; needed at least one clip", "missing_value")
        return tuple(_clip(one, f"{name}[{place}]", folder) for place, one in enumerate(value))
    return (_clip(value, name, folder),)


def as_row(clip: ClipRef, folder: Path) -> dict[str, Any]:
    """A clip as the mapping that `as_clips` reads, its paths from the folder where the data file will lie.

    Raises:
        ValueError: it is held in memory, and no file.

    Example:
        >>> as_row(ClipRef(Path("data/clips/a.mp4"), end_s=4.0), Path("data"))
        {'source': 'clips/a.mp4', 'start_s': 0.0, 'end_s': 4.0}
    """
    sources = [frame.source for frame in clip.source] if isinstance(clip.source, tuple) else [clip.source]
    names = []
    for source in sources:
        if not isinstance(source, Path):
            raise ValueError(f"{clip.name} is held in memory: needed a file, which rows can name")
        names.append(Path(os.path.relpath(source.resolve(), folder.resolve())).as_posix())
    told = {
        "source": names if isinstance(clip.source, tuple) else names[0],
        "start_s": clip.start_s,
        "end_s": clip.end_s,
        "frames": None if clip.frames is None else list(clip.frames),
        "fps": clip.fps,
    }
    return {key: value for key, value in told.items() if value is not None}


def _clip(value: Any, name: str, folder: Path) -> ClipRef:
    if isinstance(value, ClipRef):
        return value
    if not isinstance(value, Mapping):
        return ClipRef(
            _source(value, name, folder), name=str(value) if isinstance(value, str | Path) else name
        )
    value = {key: one for key, one in value.items() if one is not None}  # tables fill absent keys with None
    if "source" not in value and ("bytes" in value or "path" in value):
        return _clip(value.get("bytes") or value.get("path"), name, folder)
    if unknown := [key for key in value if key not in KEYS]:
        raise UnusableItem(
            f"{name} has {unknown[0]!r}, which says nothing of a clip{near(str(unknown[0]), KEYS)}; known: "
            + ", ".join(KEYS),
            "wrong_type",
        )
    if "source" not in value:
        raise UnusableItem(f"{name} has no source: the path of its video", "missing_value")
    given = value["source"]
    source = _source(given, name, folder)
    start_s = _seconds(value.get("start_s", 0.0), f"{name}: start_s")
    end_s = None if "end_s" not in value else _seconds(value["end_s"], f"{name}: end_s")
    if end_s is not None and end_s <= start_s:
        raise UnusableItem(
            f"{name} ends at {end_s} s and starts at {start_s} s: nothing is between", "no_frames"
        )
    fps = None if "fps" not in value else _seconds(value["fps"], f"{name}: fps")
    if fps is not None and (not isinstance(source, tuple) or fps == 0):
        raise UnusableItem(
            f"{name} has fps={fps}; only of a list of images it is asked, and above 0: a file knows its own",
            "wrong_type",
        )
    called = str(given) if isinstance(given, str | Path) else name
    return ClipRef(source, start_s, end_s, _indices(value.get("frames"), f"{name}: frames"), fps, called)


def _source(value: Any, name: str, folder: Path) -> Path | bytes | tuple[ImageRef, ...]:
    if isinstance(value, Mapping):  # a video of `datasets`
        value = value.get("bytes") or value.get("path")
    if value is None or (isinstance(value, str | bytes) and not value):
        raise UnusableItem(f"{name} is absent", "missing_value")
    if isinstance(value, str) and "://" in value:
        raise UnusableItem(f"{name} is a web address; download the video and give its path", "wrong_type")
    if isinstance(value, str | Path):
        return folder / Path(value).expanduser()
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, list | tuple):
        if not value:
            raise UnusableItem(f"{name} is an empty list of images", "no_frames")
        return tuple(as_ref(image, f"{name}, image {place}", folder) for place, image in enumerate(value))
    raise UnusableItem(
        f"{name} is {shown(value)}; needed a video: a path, bytes, or"
        ' {"source": ...} with one of these or a list of images',
        "wrong_type",
    )


def _seconds(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < math.inf:
        raise UnusableItem(f"{name} is {shown(value)}; needed a number, 0 or more", "wrong_type")
    return float(value)


def _indices(value: Any, name: str) -> tuple[int, ...] | None:
    if value is None:
        return None
    if hasattr(value, "tolist"):
        value = value.tolist()
    if not isinstance(value, list | tuple) or not all(
        isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in value
    ):
        raise UnusableItem(f"{name} is {shown(value)}; needed a list of indices, 0 or more", "wrong_type")
    if any(later <= earlier for earlier, later in pairwise(value)):
        raise UnusableItem(f"{name} is {shown(value)}; needed ascending indices, none twice", "wrong_type")
    return tuple(int(one) for one in value)
