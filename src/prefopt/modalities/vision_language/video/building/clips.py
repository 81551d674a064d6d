"""Clips that a build starts from: a folder of video files, or a file that lists stretches of them.

A row of such a file names one clip: {"source": "a.mp4", "start_s": 3.0, "end_s": 9.0}, or the same under "video". It may have
an `id`, and an `origin` where several files were cut from one film. Files that hold no video that can be read are left out,
each with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from prefopt.comparisons import UnusableItem
from prefopt.modalities.vision_language.video.videos import Video
from prefopt.sources.clips import KEYS
from prefopt.sources.collecting import named
from prefopt.sources.files import load_rows
from prefopt.sources.progress import with_bar
from prefopt.sources.report import Dropped
from prefopt.sources.videos import ClipRef, Footage, as_clips, probe, sampled

SUFFIXES = (
    ".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".vob", ".webm", ".wmv",
)  # fmt: skip
"""Of files that a folder is searched for."""


@dataclass(frozen=True)
class Clip:
    """A stretch of a video.

    Attributes:
        row: number of the file or row that it comes from, counted from 1.
        id: its name.
        origin: what it was cut from: clips with the same origin are never distractors of each other.
        ref: the stretch, its frames chosen.
        footage: what is known of the stretch.
    """

    row: int
    id: str
    origin: str
    ref: ClipRef
    footage: Footage

    @property
    def video(self) -> Video:
        """As a model is shown it."""
        return Video((self.ref,))

    def with_frames(self, count: int) -> ClipRef:
        """The stretch with so many frames chosen, or all that it has."""
        return chosen(replace(self.ref, frames=None), self.footage, count)


@dataclass
class Clips:
    """What was found.

    Attributes:
        source: folder or file.
        found: clips that can be used.
        dropped: files and rows that cannot, with reasons.
        files: how many were looked at.
    """

    source: str
    found: list[Clip] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    files: int = 0


def load_clips(source: str, frames: int, longest_s: float | None, limit: int | None = None) -> Clips:
    """Find clips, look at each, and cut what is too long.

    Args:
        source: a folder, searched with those within it, or a file of rows.
        frames: chosen of each clip, or all that it has.
        longest_s: longer stretches are cut to equal ones of at most so many seconds; None: nothing is cut. One whose frames
            are named is not cut.
        limit: take only the first so many files or rows.

    Raises:
        OSError: it cannot be found or read.
        ValueError: it holds no video that can be used.
    """
    clips = Clips(source)
    for number, name, given in with_bar(list(_named(source, limit)), "looking at videos"):
        clips.files += 1
        try:
            if isinstance(given, UnusableItem):
                raise given
            ref, origin = given
            footage = probe(ref)
            if not footage.frames:
                raise UnusableItem(f"{ref.name} has no frames in that stretch", "no_frames")
            stretches = cut(ref, footage, longest_s)
            for part in stretches:
                own = footage if part is ref else probe(part)
                clip_name = name if len(stretches) == 1 else f"{name}@{part.start_s:g}-{part.end_s:g}"
                clips.found.append(Clip(number, clip_name, origin, chosen(part, own, frames), own))
        except UnusableItem as error:
            clips.dropped.append(Dropped(number, name, error.reason, str(error)))
    if not clips.found:
        first = f" ({clips.dropped[0].id}: {clips.dropped[0].detail})" if clips.dropped else ""
        raise ValueError(
            f"{source} holds {clips.files} videos, of which none can be used{first}: needed a folder of video files "
            f"({', '.join(SUFFIXES)}), or JSON lines with a `source` each"
        )
    return clips


def chosen(ref: ClipRef, footage: Footage, count: int) -> ClipRef:
    """A stretch with so many frames chosen, or all that it has; those that a row names stand."""
    return ref if ref.frames is not None else sampled(ref, count=min(count, footage.frames))


def cut(ref: ClipRef, footage: Footage, longest_s: float | None) -> list[ClipRef]:
    """Equal stretches of at most so many seconds; one that is short enough stays whole."""
    count = (
        1 if longest_s is None or ref.frames is not None else math.ceil(footage.duration_s / longest_s - 1e-6)
    )
    if count < 2:
        return [ref]
    step = footage.duration_s / count
    edges = [ref.start_s + n * step for n in range(count)]
    return [
        replace(ref, start_s=start, end_s=end)
        for start, end in zip(edges, [*edges[1:], ref.end_s or ref.start_s + footage.duration_s], strict=True)
    ]


def _named(source: str, limit: int | None) -> Iterator[tuple[int, str, tuple[ClipRef, str] | UnusableItem]]:
    """Number, name, and the whole of what a file or row names, or why it names nothing."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        files = sorted(
            path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()
        )
        for number, path in enumerate(files[:limit], 1):
            name = path.relative_to(folder).as_posix()
            yield number, name, (ClipRef(path, name=name), str(path.resolve()))
        return
    rows = load_rows(source)
    for count, (number, row, name, _) in enumerate(named(rows)):
        if limit is not None and count >= limit:
            return
        try:
            yield number, name, _of_row(row, rows.folder)
        except UnusableItem as error:
            yield number, name, error


def _of_row(row: Mapping[str, Any], folder: Path) -> tuple[ClipRef, str]:
    given = row.get("video")
    if given is None:
        given = {key: row[key] for key in KEYS if row.get(key) is not None}
    if not given:
        raise UnusableItem("the row names no source: needed the path of a video", "missing_value")
    found = as_clips(given, "video", folder)
    if len(found) != 1:
        raise UnusableItem(f"the row names {len(found)} clips: needed one", "several_clips")
    origin = row.get("origin")
    return found[0], origin if isinstance(origin, str) and origin else origin_of(found[0])


def origin_of(ref: ClipRef) -> str:
    """What a clip was cut from, where nobody says: its file, or the folder of its frames."""
    if isinstance(ref.source, Path):
        return str(ref.source.resolve())
    if isinstance(ref.source, tuple) and ref.source and isinstance(ref.source[0].source, Path):
        return str(ref.source[0].source.resolve().parent)
    return ref.digest
