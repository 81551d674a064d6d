"""How closely models follow true conditions: samples of each, what a detector sees in them, and their quality.

Samples are files, so that the same command goes on where it stopped, and so that everything is measured on what is shown.

Legend: B images, H W in pixels, D width of features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prefopt.comparisons import UnusableItem
from prefopt.files import write_whole
from prefopt.generation.journal import Journal
from prefopt.metrics.control import error_rate_reduction
from prefopt.metrics.frechet import frechet_distance
from prefopt.modalities.control.building import key_of, true_labels, without_ignored
from prefopt.modalities.control.detectors import HEADLINE, Detector, Labels, fidelity
from prefopt.modalities.control.drawing import Artist, as_batch
from prefopt.modalities.control.rows import Conditioned
from prefopt.modalities.control.store import as_control
from prefopt.png import as_levels, as_png
from prefopt.sources.progress import with_bar
from prefopt.sources.report import Dropped

Features = Callable[[Tensor], Tensor]
"""(B, 3, H, W) images in [0, 1] -> (B, D)."""


@dataclass(frozen=True)
class Measures:
    """What is measured beside fidelity.

    Attributes:
        features: of images, for the Frechet distance to the real ones; None for none.
        match: (prompts, images) -> scores of text and image, such as CLIP's; None for none.
    """

    features: Features | None = None
    match: Callable[[Sequence[str], Tensor], Tensor] | None = None


@dataclass(frozen=True)
class Usable:
    """Conditions whose pictures can be decoded, as models and detectors see them."""

    wanted: list[Conditioned]
    controls: list[np.ndarray[Any, Any]]
    images: list[np.ndarray[Any, Any]]
    """Real images, none where rows have none."""
    dropped: list[Dropped]


def usable(found: Sequence[Conditioned], how: Any, known: Sequence[Dropped]) -> Usable:
    """Decode, and leave out what is damaged.

    Raises:
        ValueError: nothing is left.
    """
    kept = Usable([], [], [], list(known))
    for one in found:
        try:
            control = as_control(one.control, how.resolution, how.crop)
            image = None if one.image is None else as_control(one.image, how.resolution, how.crop)
        except UnusableItem as error:
            kept.dropped.append(Dropped(one.row, one.id, error.reason, str(error)))
            continue
        kept.wanted.append(one)
        kept.controls.append(control)
        if image is not None:
            kept.images.append(image)
    if not kept.wanted:
        raise ValueError(f"none of the {len(found)} conditions can be decoded: {kept.dropped[0].detail}")
    return kept


def samples(
    artist: Artist, data: Usable, folder: Path, number: int, batch_size: int
) -> list[np.ndarray[Any, Any]]:
    """One sample a condition, (3, H, W) 8-bit, those in the folder not drawn again.

    Raises:
        ValueError: the folder holds samples of another model or of other settings.
    """
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    with Journal(folder / "journal.jsonl", artist.depends_on) as journal:
        there = {line["file"] for _, line in journal.lines if (folder / line["file"]).is_file()}
        names = [f"{key_of(one)}-{number}.png" for one in data.wanted]
        missing = [k for k, name in enumerate(names) if name not in there]
        batches = [missing[start : start + batch_size] for start in range(0, len(missing), batch_size)]
        for batch in with_bar(batches, "drawing"):
            controls_BCHW = as_batch([data.controls[k] for k in batch])
            drawn_BCHW = artist.draw([data.wanted[k] for k in batch], controls_BCHW, number)
            for k, drawn_CHW in zip(batch, drawn_BCHW, strict=True):
                write_whole(folder / names[k], as_png(as_levels(drawn_CHW)))
            journal.append([{"file": names[k]} for k in batch])
    return [np.array(Image.open(folder / name).convert("RGB")).transpose(2, 0, 1) for name in names]


def detected(
    detector: Detector, pictures: Sequence[np.ndarray[Any, Any]], batch_size: int = 32
) -> list[Labels]:
    """Labels of pictures, in batches."""
    batches = [pictures[start : start + batch_size] for start in range(0, len(pictures), batch_size)]
    return [detector.detect(as_batch(batch)) for batch in with_bar(batches, "detecting")]


def judged(
    data: Usable,
    true: Sequence[Labels],
    groups: Sequence[Sequence[np.ndarray[Any, Any]]],
    detector: Detector,
    measures: Measures,
    batch_size: int = 32,
) -> dict[str, Any]:
    """What is measured of a model's samples: a mean over groups, each with one sample a condition.

    Args:
        data: conditions, and real images.
        true: labels of the conditions, in batches.
        groups: samples.
        detector: reads them.
        measures: what else is measured.
        batch_size: of `true`.

    Returns:
        Numbers of `fidelity`; `agreement`, its mean over samples with a 95 % interval over conditions; `frechet` and `match`,
        where measured.
    """
    found: list[dict[str, float]] = []
    agreement_GB: list[list[float]] = []
    for pictures in groups:
        labels = [
            without_ignored(a, b) for a, b in zip(true, detected(detector, pictures, batch_size), strict=True)
        ]
        one = fidelity(detector.metric, joined(true), joined(labels))
        agreement_GB.append(
            [x for a, b in zip(true, labels, strict=True) for x in detector.agreement(a, b).tolist()]
        )
        if measures.features is not None and len(data.images) > 1:
            real, drawn = (features_of(measures.features, some) for some in (data.images, pictures))
            one["frechet"] = frechet_distance(real, drawn)
        if measures.match is not None:
            prompts = [wanted.prompt for wanted in data.wanted]
            one["match"] = float(measures.match(prompts, as_batch(pictures)).mean())
        found.append(one)
    mean_B = [fmean(values) for values in zip(*agreement_GB, strict=True)]
    return {
        **{name: fmean(one[name] for one in found) for name in found[0]},
        "agreement": interval(mean_B),
        "agreement_of_each": mean_B,
    }


def interval(values: Sequence[float]) -> dict[str, float | None]:
    """A mean with its 95 % interval (normal, over the values), whose ends are None of a single value."""
    mean = fmean(values)
    if len(values) == 1:
        return {"mean": mean, "low": None, "high": None}
    half = 1.96 * stdev(values) / math.sqrt(len(values))
    return {"mean": mean, "low": mean - half, "high": mean + half}


def joined(batches: Sequence[Labels]) -> Any:
    """The labels of all batches, one an image."""
    return [label for batch in batches for label in batch]


def features_of(features: Features, pictures: Sequence[np.ndarray[Any, Any]], batch_size: int = 32) -> Tensor:
    """(B, D) features of 8-bit pictures."""
    starts = range(0, len(pictures), batch_size)
    return torch.cat([features(as_batch(pictures[s : s + batch_size])).float().cpu() for s in starts])


def true_of(detector: Detector, data: Usable, batch_size: int = 32) -> list[Labels]:
    """Labels of the true conditions, in batches.

    Raises:
        ValueError: a condition that the detector cannot read; poses without real images.
    """
    if detector.metric == "pose" and len(data.images) < len(data.wanted):
        raise ValueError("poses are found in the real images, and these rows have none: add a column `image`")
    found = []
    for start in range(0, len(data.wanted), batch_size):
        some = slice(start, start + batch_size)
        images = as_batch(data.images[some]) if data.images else torch.zeros(0)
        found.append(true_labels(detector, data.wanted[some], as_batch(data.controls[some]), images))
    return found


def summary(
    sides: Mapping[str, Mapping[str, Any]], detector: Detector, oracle: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What is told of a model and of its baseline, where there is one.

    Args:
        sides: of `judged`, "model" and perhaps "baseline".
        detector: that judged.
        oracle: of the real images: where the detector itself ends.
    """
    name, higher = HEADLINE[detector.metric]
    told: dict[str, Any] = {
        "detector": detector.name,
        "metric": name,
        "higher_is_better": higher,
        **{
            side: {k: v for k, v in found.items() if k != "agreement_of_each"}
            for side, found in sides.items()
        },
    }
    if oracle is not None:
        told["oracle"] = {k: v for k, v in oracle.items() if k != "agreement_of_each"}
    if "baseline" in sides:
        pairs = zip(sides["model"]["agreement_of_each"], sides["baseline"]["agreement_of_each"], strict=True)
        told["agreement_gain"] = interval([a - b for a, b in pairs])
        if oracle is not None and oracle[name] != sides["baseline"][name]:
            told["error_rate_reduction"] = error_rate_reduction(
                sides["model"][name], sides["baseline"][name], oracle[name]
            )
    return told
