"""Scenes of long videos: shots between cuts (PySceneDetect), merged and split to a length that a question can be about."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prefopt.comparisons import UnusableItem
from prefopt.generation.journal import Journal
from prefopt.modalities.vision_language.video.building.clips import Clip, chosen
from prefopt.modalities.vision_language.video.frames import images_of
from prefopt.sources.progress import with_bar
from prefopt.sources.report import Dropped
from prefopt.sources.videos import ClipRef, probe

Stretch = tuple[float, float]
"""Beginning and end in seconds of the file."""


@dataclass(frozen=True)
class Film:
    """A long video and its scenes.

    Attributes:
        clip: the whole of it.
        scenes: its parts in order, without gaps, each with its frames chosen.
        seconds: length of each.
    """

    clip: Clip
    scenes: tuple[ClipRef, ...]
    seconds: tuple[float, ...]


@dataclass(frozen=True)
class Cutting:
    """How films are cut.

    Attributes:
        least_s, most_s: length of a scene: shorter ones are merged with what follows, longer ones split evenly.
        threshold: of the detector: how much more than its surroundings a frame must change to be a cut.
        frames: chosen of each scene.

    Raises:
        ValueError: lengths between which not every film can be cut.
    """

    least_s: float = 10.0
    most_s: float = 120.0
    threshold: float = 3.0
    frames: int = 8

    def __post_init__(self) -> None:
        if self.most_s < 2 * self.least_s:
            raise ValueError(
                f"min_scene is {self.least_s:g} and max_scene {self.most_s:g} seconds: needed twice as much at least, so that what "
                "is too long can be split"
            )


def films(clips: Sequence[Clip], cutting: Cutting, journal: Path) -> tuple[list[Film], list[Dropped]]:
    """Clips cut to scenes, kept in a journal as they are found, and those that cannot be.

    Args:
        clips: whole films.
        cutting: how.
        journal: of the scenes.

    Raises:
        ValueError: the package scenedetect is missing, or a journal of another detector.
        OSError: the journal cannot be written.
    """
    found, dropped = [], []
    header = {
        "detector": "AdaptiveDetector",
        "adaptive_threshold": cutting.threshold,
        "frames": cutting.frames,
    }
    with Journal(journal, header) as kept:
        there: dict[str, Mapping[str, Any]] = {line["film"]: line for _, line in kept.lines}
        for clip in with_bar(clips, "finding scenes"):
            key = f"{replace(clip.ref, frames=None).digest}/{cutting.least_s:g}-{cutting.most_s:g}"
            try:
                if key in there:
                    film = film_of(clip, there[key]["scenes"], cutting.frames)
                else:
                    scenes = fitted(cuts_of(clip, cutting.threshold), cutting.least_s, cutting.most_s)
                    film = film_of(clip, scenes, cutting.frames)
                    for scene in film.scenes:  # what cannot be decoded is found out before models are asked
                        images_of(scene)
                    there[key] = {"film": key, "scenes": [list(scene) for scene in scenes]}
                    kept.append([there[key]])
                found.append(film)
            except UnusableItem as error:
                dropped.append(Dropped(clip.row, clip.id, error.reason, str(error)))
    return found, dropped


def film_of(clip: Clip, scenes: Sequence[Sequence[float]], frames: int) -> Film:
    """A film with its scenes.

    Raises:
        UnusableItem: a scene has no frames.
    """
    refs, seconds = [], []
    for start, end in scenes:
        ref = replace(clip.ref, start_s=float(start), end_s=float(end), frames=None)
        footage = probe(ref)
        if not footage.frames:
            raise UnusableItem(f"{clip.id} has no frames from {start:g} to {end:g} s", "no_frames")
        refs.append(chosen(ref, footage, frames))
        seconds.append(float(end) - float(start))
    return Film(clip, tuple(refs), tuple(seconds))


def cuts_of(clip: Clip, threshold: float) -> list[Stretch]:
    """Shots of a film, from its beginning to its end; one where nothing is cut.

    Raises:
        UnusableItem: it is no file, or cannot be decoded.
        ValueError: the package scenedetect is missing.
    """
    try:
        from scenedetect import AdaptiveDetector, SceneManager, VideoOpenFailure
        from scenedetect.backends.pyav import VideoStreamAv
    except ImportError as error:
        raise ValueError(
            f"finding scenes needs the packages scenedetect and av ({error}): pip install 'prefopt[video]'"
        ) from None
    ref = clip.ref
    if not isinstance(ref.source, Path):
        raise UnusableItem(
            f"{clip.id} is held as single frames: scenes are found in files of videos alone", "no_video_file"
        )
    start, end = ref.start_s, ref.start_s + clip.footage.duration_s
    try:
        video = VideoStreamAv(str(ref.source))
        manager = SceneManager()
        manager.add_detector(AdaptiveDetector(adaptive_threshold=threshold))
        if start:
            video.seek(float(start))
        manager.detect_scenes(video=video, end_time=None if ref.end_s is None else float(ref.end_s))
        shots = manager.get_scene_list(start_in_scene=True)
    except (OSError, VideoOpenFailure) as error:
        raise UnusableItem(
            f"{clip.id} cannot be read: {error or type(error).__name__}", "broken_video"
        ) from None
    edges = [shot[0].seconds for shot in shots[1:]]
    inner = [edge for edge in edges if start < edge < end]
    return list(zip([start, *inner], [*inner, end], strict=True))


def fitted(shots: Sequence[Stretch], least_s: float, most_s: float) -> list[Stretch]:
    """Shots merged until each is long enough, then split evenly where one is too long.

    Args:
        shots: that follow each other without gaps.
        least_s: a shorter shot is joined with those behind it, the last one with that before; a film that is shorter is one.
        most_s: at least twice as much.

    Example:
        >>> fitted([(0, 4), (4, 12), (12, 15), (15, 60)], 10, 30)
        [(0, 12), (12, 36.0), (36.0, 60)]
    """
    merged: list[Stretch] = []
    for start, end in shots:
        if merged and merged[-1][1] - merged[-1][0] < least_s:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
    if len(merged) > 1 and merged[-1][1] - merged[-1][0] < least_s:
        _, end = merged.pop()
        merged[-1] = (merged[-1][0], end)
    out: list[Stretch] = []
    for start, end in merged:
        count = max(1, math.ceil((end - start) / most_s - 1e-6))
        edges = [start + n * (end - start) / count for n in range(1, count)]
        out.extend(zip([start, *edges], [*edges, end], strict=True))
    return out
