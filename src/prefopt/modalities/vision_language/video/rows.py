"""Columns of videos, as videos whose frames are chosen; what the reference sees of them, and what may be drawn anew.

    video, videos, chosen_video(s), rejected_video(s)   a path, a clip, or a list of clips in order; see `sources/videos.py`
    anchor                                              index of the clip that holds the answer
    pinned                                              index, or several, of distractors that stay
    pool                                                clips of which the other distractors may be drawn
    evidence                                            indices of clips, or clips, that the answer rests on
    reference_context                                   anchor, evidence or full: what the reference sees

Source: LongVPO (arXiv 2602.02341), sections on both stages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from prefopt.comparisons import Item, UnusableItem
from prefopt.modalities.vision_language.media import pictures_of
from prefopt.modalities.vision_language.video.redrawing import Redraw
from prefopt.modalities.vision_language.video.videos import Sampling, Video
from prefopt.sources import cells
from prefopt.sources.files import Rows
from prefopt.sources.videos import ClipRef, as_clips

BASES = ("video", "chosen_video", "rejected_video")
VIDEOS = tuple(name for base in BASES for name in (base, f"{base}s"))
AROUND = ("anchor", "pinned", "pool", "evidence", "reference_context")
FOR_THE_RECORD = ("stage", "task_type", "rejected_kind", "provenance")
"""Columns that builders write and training does not read."""
Context = Literal["row", "anchor", "evidence", "full"]


@dataclass(frozen=True)
class VideoColumns:
    """Reads the videos of rows.

    Attributes:
        folder: where relative paths start.
        sampling: how frames are chosen.
        context: what the reference sees; "row": what the row says.
        redraw: whether videos around an anchor are put together anew each epoch.
    """

    folder: Path = Path()
    sampling: Sampling = field(default_factory=Sampling)
    context: Context = "row"
    redraw: bool = True

    def of(self, row: Mapping[str, Any], base: str) -> tuple[Video, ...]:
        """Videos of a row under a name, in its singular or plural column."""
        found = []
        for name in (base, f"{base}s"):
            value = row.get(name)
            if value is None or (isinstance(value, str | list | tuple) and not value):
                continue
            several = value if name.endswith("s") and isinstance(value, list | tuple) else [value]
            found += [self.video(one, name) for one in several]
        return tuple(found)

    def video(self, value: Any, name: str) -> Video:
        """A value as a video.

        Raises:
            UnusableItem: it is none, or cannot be read.
        """
        clips = as_clips(value, name, self.folder)
        if not clips:
            raise UnusableItem(f"{name} is a list without clips", "no_frames")
        return Video(tuple(map(self.sampling.of, clips)))

    def around(self, item: Item, row: Mapping[str, Any]) -> Item:
        """An item with what the reference sees in place of its video, and what its video may be drawn from.

        Raises:
            UnusableItem: the row names clips that are not there, or lacks those that are asked for.
        """
        context = row.get("reference_context") if self.context == "row" else self.context
        if context not in (None, "anchor", "evidence", "full"):
            raise UnusableItem(
                f"reference_context is {cells.shown(context)}; needed anchor, evidence or full",
                "reference_context",
            )
        shown = pictures_of(item.condition)
        videos = [medium for medium in shown if isinstance(medium, Video)]
        if not videos or (context in (None, "full") and row.get("anchor") is None):
            return item
        if len(videos) > 1:
            raise UnusableItem("the row has several videos, and an anchor is a clip of one", "anchor")
        video = videos[0]
        seen: tuple[ClipRef, ...] | None = None
        if context == "anchor":
            seen = (self.anchor(row, video),)
        elif context == "evidence":
            seen = self.evidence(row, video)
        if seen is not None:
            inside = tuple(Video(seen) if medium is video else medium for medium in shown)
            item = replace(item, reference_condition={**item.condition, "pictures": inside})
        if self.redraw and row.get("anchor") is not None and len(video.clips) > 1 and len(shown) == 1:
            item = replace(item, condition={**item.condition, "redraw": self.drawn_from(row, video)})
        return item

    def anchor(self, row: Mapping[str, Any], video: Video) -> ClipRef:
        """The clip that holds the answer."""
        (place,) = places(row.get("anchor"), "anchor", len(video.clips), most=1)
        return video.clips[place]

    def evidence(self, row: Mapping[str, Any], video: Video) -> tuple[ClipRef, ...]:
        """The clips that the answer rests on."""
        value = row.get("evidence")
        if isinstance(value, list | tuple) and value and not isinstance(value[0], int):
            return tuple(map(self.sampling.of, as_clips(value, "evidence", self.folder)))
        return tuple(video.clips[k] for k in places(value, "evidence", len(video.clips)))

    def drawn_from(self, row: Mapping[str, Any], video: Video) -> Redraw:
        """The anchor, and the clips that may stand beside it."""
        (place,) = places(row.get("anchor"), "anchor", len(video.clips), most=1)
        staying = [] if row.get("pinned") is None else places(row["pinned"], "pinned", len(video.clips))
        if place in staying:
            raise UnusableItem("the anchor is pinned as a distractor, too", "anchor")
        rest = [clip for k, clip in enumerate(video.clips) if k not in (place, *staying)]
        pool = row.get("pool")
        if pool:
            more = map(self.sampling.of, as_clips(list(pool), "pool", self.folder))
            rest += [clip for clip in more if clip not in video.clips]
        pinned = tuple(video.clips[k] for k in staying)
        return Redraw(video.clips[place], pinned, tuple(dict.fromkeys(rest)), len(video.clips) - 1)


def places(value: Any, name: str, clips: int, most: int | None = None) -> list[int]:
    """Indices of clips.

    Raises:
        UnusableItem: absent, no whole numbers, or of clips that are not there.
    """
    if value is None:
        raise UnusableItem(f"{name} is absent: it says which clip of the video is meant", "anchor")
    found = list(value) if isinstance(value, list | tuple) else [value]
    if not found or (most is not None and len(found) > most):
        raise UnusableItem(
            f"{name} is {cells.shown(value)}; needed {most or 'one or more'} indices of clips", "anchor"
        )
    for place in found:
        if isinstance(place, bool) or not isinstance(place, int) or not 0 <= place < clips:
            raise UnusableItem(
                f"{name} is {cells.shown(value)}, and the video has {clips} clips: needed 0 to {clips - 1}",
                "anchor",
            )
    return found


def undecoded(rows: Rows) -> Rows:
    """Rows of a table whose columns of videos give files, not decoders."""
    if rows.kind != "datasets":
        return rows
    table: Any = rows.rows
    from datasets import List
    from datasets import Video as Column

    for name in VIDEOS:
        feature = table.features.get(name)
        if type(feature).__name__ == "Video":
            table = table.cast_column(name, Column(decode=False))
        elif type(getattr(feature, "feature", None)).__name__ == "Video":
            table = table.cast_column(name, List(Column(decode=False)))
    return replace(rows, rows=table)
