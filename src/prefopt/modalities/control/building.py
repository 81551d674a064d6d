"""The losing condition of an image: what the model makes of the true one.

    x'  = a sample of the model under the prompt and the true condition c_w
    c_l = what a detector sees in x'                                    (arXiv 2511.04753, as released)

A natural hard negative: c_l is wrong where the model is. What has arrived stays in a journal, so that the same command
goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prefopt.comparisons import UnusableItem
from prefopt.files import write_lines, write_whole
from prefopt.generation.journal import Journal
from prefopt.metrics.segmentation import IGNORED
from prefopt.modalities.control.detectors import Detector, Labels, read
from prefopt.modalities.control.drawing import Artist, as_batch
from prefopt.modalities.control.rows import Conditioned, TrueConditions
from prefopt.modalities.control.store import as_control
from prefopt.png import as_levels, as_png
from prefopt.sources.pictures import ImageRef
from prefopt.sources.progress import with_bar
from prefopt.sources.report import Dropped, write_dropped

PICTURES = "pictures"
ROUNDING = 1e-6


@dataclass(frozen=True)
class Filter:
    """Which losing conditions are worth training on, by their agreement with the true one, in [0, 1].

    Attributes:
        least: below it the model did not follow at all; None for no bound.
        most: above it there is nothing to tell apart; None keeps all but what is identical.
    """

    least: float | None = None
    most: float | None = None

    def __post_init__(self) -> None:
        for name, bound in (("min_agreement", self.least), ("max_agreement", self.most)):
            if bound is not None and not 0 <= bound <= 1:
                raise ValueError(f"{name} is an agreement in [0, 1]; given {bound}")
        if self.least is not None and self.most is not None and self.least > self.most:
            raise ValueError(
                f"min_agreement is {self.least} and max_agreement {self.most}: nothing lies between"
            )

    def reason(self, agreement: float) -> tuple[str, str] | None:
        """Why a row is left out: a short name and a sentence; None where it is kept."""
        if agreement >= 1 - ROUNDING:
            return "identical", "the detector sees the true condition in the sample: nothing to tell apart"
        if self.least is not None and agreement < self.least:
            return "disagrees", f"agreement {agreement:.3f} is below min_agreement {self.least}"
        if self.most is not None and agreement > self.most:
            return "agrees", f"agreement {agreement:.3f} is above max_agreement {self.most}"
        return None


@dataclass(frozen=True)
class Built:
    """What came of a build.

    Attributes:
        path: of the rows.
        kept: number of them.
        dropped: rows that are not among them, with reasons.
        drawn: how many samples were drawn now, the others having been there.
    """

    path: Path
    kept: int
    dropped: Counter[str]
    drawn: int


def build(
    conditions: TrueConditions,
    artist: Artist,
    detector: Detector,
    folder: Path,
    *,
    keep: Filter,
    batch_size: int = 8,
    files: Mapping[str, str] | None = None,
    provenance: Mapping[str, Any],
) -> Built:
    """Write rows of two conditions for each image: the true one, and what the model made of it.

    Args:
        conditions: prompts, true conditions and images.
        artist: draws the samples.
        detector: reads them.
        folder: for rows.jsonl, dropped.jsonl, build.json, pictures and the journal.
        keep: filter of rows.
        batch_size: samples at a time.
        files: digests of the detector's files, see `detectors.files_of`.
        provenance: what was asked for, for the record.

    Raises:
        ValueError: rows without images; a journal of other settings; no row is left.
        OSError: something cannot be written; what is there stays.
    """
    if any(one.image is None for one in conditions.found):
        raise ValueError(
            f"{conditions.source} has no images: a comparison of conditions needs the image that they belong to. "
            "Add a column `image`"
        )
    header = {**artist.depends_on, "detector": detector.name, "detector_files": dict(files or {})}
    (folder / PICTURES).mkdir(parents=True, exist_ok=True)
    with Journal(folder / "journal.jsonl", header) as journal:
        there = {
            line["id"]: line
            for _, line in journal.lines
            if "reason" in line or (folder / line["rejected"]).is_file()
        }
        missing = [one for one in conditions.found if key_of(one) not in there]
        batches = [missing[start : start + batch_size] for start in range(0, len(missing), batch_size)]
        for batch in with_bar(batches, "drawing and detecting"):
            lines = list(made(batch, artist, detector, folder))
            journal.append(lines)
            there |= {line["id"]: line for line in lines}
    rows, dropped = [], list(conditions.dropped)
    for one in conditions.found:
        line = there[key_of(one)]
        why = (line["reason"], line["detail"]) if "reason" in line else keep.reason(line["agreement"])
        if why is None:
            rows.append(row_of(one, line, artist, folder, detector))
        else:
            dropped.append(Dropped(one.row, one.id, *why))
    counts = Counter(drop.reason for drop in dropped)
    write_dropped(dropped, folder / "dropped.jsonl")
    told = {**provenance, **header, "kept": len(rows), "dropped": dict(counts), "filter": asdict(keep)}
    write_whole(folder / "build.json", json.dumps(told, indent=1, default=str) + "\n")
    if not rows:
        (folder / "rows.jsonl").unlink(missing_ok=True)  # of another filter
        raise ValueError(
            f"no row is left of {len(conditions.found)}: {dict(counts)}; see {folder / 'dropped.jsonl'}"
        )
    write_lines(folder / "rows.jsonl", rows)
    return Built(folder / "rows.jsonl", len(rows), counts, len(missing))


def made(
    batch: Sequence[Conditioned], artist: Artist, detector: Detector, folder: Path
) -> Iterator[dict[str, Any]]:
    """A line of the journal for each of a batch, its losing condition written."""
    usable: list[Conditioned] = []
    controls: list[np.ndarray[Any, Any]] = []
    images: list[np.ndarray[Any, Any]] = []
    for one in batch:
        try:
            assert one.image is not None  # `build` looked
            sides = [
                as_control(ref, artist.how.resolution, artist.how.crop) for ref in (one.control, one.image)
            ]
        except UnusableItem as error:
            yield {"id": key_of(one), "reason": error.reason, "detail": str(error)}
        else:
            usable.append(one)
            controls.append(sides[0])
            images.append(sides[1])
    if not usable:
        return
    controls_BCHW = as_batch(controls)
    samples_BCHW = artist.draw(usable, controls_BCHW)
    true = true_labels(detector, usable, controls_BCHW, as_batch(images))
    found = without_ignored(true, detector.detect(samples_BCHW))
    agreement_B = detector.agreement(true, found)
    drawn_BCHW = detector.draw(found)
    check_reading(detector, agreement_B, drawn_BCHW, samples_BCHW)
    for one, agreement, drawn_CHW in zip(usable, agreement_B.tolist(), drawn_BCHW, strict=True):
        name = f"{PICTURES}/{key_of(one)}-rejected.png"
        write_whole(folder / name, as_png(as_levels(drawn_CHW)))
        yield {"id": key_of(one), "agreement": agreement, "rejected": name}


def check_reading(detector: Detector, agreement_B: Tensor, drawn_BCHW: Tensor, samples_BCHW: Tensor) -> None:
    """Raise ValueError for what cannot be taken for conditions and their agreement: a detector of the user's may give anything."""
    if tuple(drawn_BCHW.shape) != tuple(samples_BCHW.shape):
        raise ValueError(
            f"the detector {detector.name} draws {tuple(drawn_BCHW.shape)} of images {tuple(samples_BCHW.shape)}: needed control "
            "images of the same shape"
        )
    if tuple(agreement_B.shape) != (len(samples_BCHW),) or not bool(agreement_B.isfinite().all()):
        raise ValueError(
            f"the agreement of the detector {detector.name} is {agreement_B.tolist()} for {len(samples_BCHW)} images: needed a "
            "number in [0, 1] for each"
        )


def true_labels(
    detector: Detector, rows: Sequence[Conditioned], controls_BCHW: Tensor, images_BCHW: Tensor
) -> Labels:
    """What true conditions say: read from them, or found in the real images where a drawing does not hold it (poses).

    Raises:
        ValueError: a condition that the detector cannot read, naming its row.
    """
    if detector.metric == "pose":
        return detector.detect(images_BCHW)
    return read(detector, [f"row {one.id}" for one in rows], controls_BCHW)


def without_ignored(true: Labels, found: Labels) -> Labels:
    """What was found, nothing where the true class map says nothing."""
    if isinstance(true, Tensor) and isinstance(found, Tensor) and true.dtype == torch.int64:
        return torch.where(true == IGNORED, true, found)
    return found


def row_of(
    one: Conditioned, line: Mapping[str, Any], artist: Artist, folder: Path, detector: Detector
) -> dict[str, Any]:
    """A row of the result, its pictures as paths from its folder.

    Image and true condition stay where they are if they are square files, as the losing condition is; else what the model
    sees of them is written.
    """
    assert one.image is not None  # `build` looked
    pictures = {}
    for column, ref in (("image", one.image), ("chosen_condition", one.control)):
        if isinstance(ref.source, Path) and ref.size[0] == ref.size[1]:
            pictures[column] = os.path.relpath(ref.source.resolve(), folder.resolve())
            continue
        name = f"{PICTURES}/{key_of(one)}-{column.removesuffix('_condition')}.png"
        if not (folder / name).exists():
            levels = as_control(ref, artist.how.resolution, artist.how.crop).transpose(1, 2, 0)
            write_whole(folder / name, as_png(levels))
        pictures[column] = name
    return {
        "id": one.id,
        "prompt": one.prompt,
        **pictures,
        "rejected_condition": line["rejected"],
        "score": line["agreement"],
        "source": f"build conditions, {detector.name}",
    }


def key_of(one: Conditioned) -> str:
    """What names a row's pictures: its id where a file can be called so, with a digest of its content."""
    control, image = one.control, one.image
    plain = "".join(c if c.isalnum() or c in "-_." else "-" for c in one.id)[:60]
    content = f"{one.id}|{one.prompt}|{control.digest}|{image.digest if isinstance(image, ImageRef) else ''}"
    return f"{plain}-{digest_of(content)}"


def digest_of(text: str) -> str:
    """Eight hexadecimal digits."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
