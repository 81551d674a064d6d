"""What is told of videos before a run: how long they are in tokens, and which had to be shown in fewer frames."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from prefopt.comparisons import Encoded
from prefopt.likelihoods.plan import EncodedText
from prefopt.modalities.vision_language.plan import EncodedPictured
from prefopt.modalities.vision_language.video.videos import videos_of
from prefopt.sources.report import Hint

if TYPE_CHECKING:
    from prefopt.modalities.vision_language.likelihood import PicturedLikelihood


def sparser_hints(likelihood: PicturedLikelihood) -> list[Hint]:
    """How many rows were shown in fewer frames, so that they fit."""
    if not likelihood.sparser:
        return []
    return [
        Hint(
            "warn",
            f"{likelihood.sparser} row(s) hold videos that are too long for {likelihood.limit}: fewer frames of each clip are "
            "shown. To see more, raise max_length, or lower video_frames for all rows alike",
        )
    ]


def token_hints(examples: Iterable[Encoded[EncodedText]], likelihood: PicturedLikelihood) -> list[Hint]:
    """Frames and tokens of a video, as the model reads it and as the reference does."""
    if not likelihood.expander.shows_videos:
        return []
    frames: list[int] = []
    tokens: list[int] = []
    seen: list[int] = []
    for example in examples:
        for item in example.items[:1]:
            if not isinstance(item, EncodedPictured) or not (videos := videos_of(item.pictures)):
                continue
            frames += [video.frames for video in videos]
            tokens += [sum(map(likelihood.expander.tokens, likelihood.expander.units([v]))) for v in videos]
            if isinstance(item.reference, EncodedPictured):
                inside = videos_of(item.reference.pictures)
                seen.append(sum(likelihood.expander.tokens(u) for u in likelihood.expander.units(inside)))
    if not tokens:
        return []
    told = f"videos: {spread(frames)} frames, {spread(tokens)} tokens of features each"
    if seen:
        told += f"; the reference sees {spread(seen)}"
    return [Hint("note", told)]


def spread(values: list[int]) -> str:
    """Smallest, mean and largest, or the one that they all are.

    >>> spread([8, 8]), spread([1, 2, 6])
    ('8', '1 to 6 (mean 3)')
    """
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high} (mean {sum(values) / len(values):.3g})"
