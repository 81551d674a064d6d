"""Rows of two pictures and their answers: a contrast for each row, and whatever answers are missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prefopt.comparisons import UnusableItem
from prefopt.modalities.vision_language.building.album import Album, same_pixels
from prefopt.modalities.vision_language.building.answers import Scene, Writers, Written
from prefopt.modalities.vision_language.building.modes import Contrast, Found, Mode
from prefopt.modalities.vision_language.building.seeds import Seed, Seeds, in_form_of, text_of, written_prompt
from prefopt.modalities.vision_language.building.writing import write_build
from prefopt.sources.progress import with_bar
from prefopt.sources.report import Dropped

ALIKE = 0.999
"""Below this cosine two pictures are not looked at for equal pixels."""
NEEDED = (
    "an answer that is right for the contrast image is needed: a column contrast_chosen, --captioner, --answerer and --rewriter, "
    "or, where that image shows nothing (black, crop, noise, mask), --answer. The row's own answer must not stand in for it"
)


@dataclass(frozen=True)
class Built:
    """What came of a build.

    Attributes:
        path: of the rows.
        kept: number of them.
        dropped: rows that are not among them, by reason.
        without_rejected: rows kept that have no worse answer under their own picture.
        answers: by step, how many answers were needed, and how many were asked for now.
    """

    path: Path
    kept: int
    dropped: Counter[str]
    without_rejected: int
    answers: Mapping[str, Mapping[str, int]]


def build(
    seeds: Seeds,
    contrasts: Found,
    album: Album,
    mode: Mode,
    *,
    answer: str | None = None,
    writers: Writers | None = None,
    provenance: Mapping[str, Any],
) -> Built:
    """Write rows.jsonl, dropped.jsonl and build.json.

    Args:
        seeds: rows.
        contrasts: a contrast for each.
        album: folder of the result.
        mode: that made the contrasts.
        answer: right under every contrast; None: none is.
        writers: of answers that are missing.
        provenance: what was asked for, for the record.

    Raises:
        ValueError: no row is left; what `Writers.write` finds.
        OSError: something cannot be written; what is there stays.
    """
    dropped = list(seeds.dropped)
    pairs: list[tuple[Seed, Contrast]] = []
    for seed in with_bar(seeds.found, "comparing images"):
        found = contrasts[seed.id]
        why = found if isinstance(found, UnusableItem) else useless(seed, found)
        if why is not None:
            dropped.append(Dropped(seed.row, seed.id, why.reason, str(why)))
        else:
            assert isinstance(found, Contrast)
            pairs.append((seed, answered(seed, found, answer)))
    written = writers.write(list(scenes(pairs))) if writers is not None else {}
    rows = []
    for seed, contrast in pairs:
        made = completed(seed, contrast, written)
        if isinstance(made, UnusableItem):
            dropped.append(Dropped(seed.row, seed.id, made.reason, str(made)))
        else:
            rows.append(row_of(*made, album, mode))
    answers = writers.counts if writers is not None else {}
    bare = sum("rejected" not in row for row in rows)
    told = {
        **provenance, "rows": seeds.rows, "kept": len(rows), "without_rejected": bare, "answers": answers,
        **({"note": NOISE} if mode == "noise" else {}),
    }  # fmt: skip
    path, counts = write_build(album.folder, rows, dropped, told, seeds.rows)
    return Built(path, len(rows), counts, bare, answers)


NOISE = "noise of 8-bit files, cut off at black and white: training with contrast_image=noise noises the model's own input, exactly"


def useless(seed: Seed, contrast: Contrast) -> UnusableItem | None:
    """Why a contrast is none."""
    if contrast.similarity is not None and contrast.similarity < ALIKE:
        return None
    try:
        alike = all(same_pixels(*both) for both in zip(seed.pictures, contrast.pictures, strict=True))
    except UnusableItem as error:
        return error
    if alike:
        return UnusableItem(
            "image and contrast image look the same: there is no contrast", "identical_images"
        )
    return None


def answered(seed: Seed, contrast: Contrast, answer: str | None) -> Contrast:
    """A contrast with the answers that are there without anybody writing them.

    Answers in the row's own columns count unless they belong to a contrast image of its own.
    """
    own = (None, None) if seed.contrast else (seed.contrast_chosen, seed.contrast_rejected)
    chosen = contrast.chosen if contrast.chosen is not None else own[0]
    rejected = contrast.rejected if contrast.rejected is not None else own[1]
    if chosen is None and answer is not None:
        chosen = in_form_of(answer, seed)
    return replace(contrast, chosen=chosen, rejected=rejected)


def scenes(pairs: Sequence[tuple[Seed, Contrast]]) -> Iterator[Scene]:
    """What has to be written: answers under a row's own picture, and under its contrast."""
    for seed, contrast in pairs:
        if seed.chosen is None or seed.rejected is None:
            yield own_scene(seed)
        if contrast.chosen is None:
            yield contrast_scene(seed, contrast)


def own_scene(seed: Seed) -> Scene:
    """The row's prompt under its own picture."""
    return Scene(seed.prompt, seed.pictures, seed.chosen is None, seed.rejected is None)


def contrast_scene(seed: Seed, contrast: Contrast) -> Scene:
    """The row's prompt under the contrast."""
    return Scene(seed.prompt, contrast.pictures, True, contrast.rejected is None)


def completed(
    seed: Seed, contrast: Contrast, written: Mapping[str, Written]
) -> tuple[Seed, Contrast] | UnusableItem:
    """A row with all of its answers, or why it cannot have them."""
    none = Written()
    if seed.chosen is None or seed.rejected is None:
        own = written.get(own_scene(seed).key, none)
        chosen = seed.chosen if seed.chosen is not None else formed(own.good, seed)
        rejected = seed.rejected if seed.rejected is not None else formed(own.bad, seed)
        for side in (chosen, *([rejected] if written else [])):
            if isinstance(side, UnusableItem):
                return side
        if chosen is None:
            return UnusableItem(
                "the row has no answer: give a column chosen, or --captioner, --answerer and --rewriter",
                "no_chosen",
            )
        seed = replace(seed, chosen=chosen, rejected=rejected)
    if contrast.chosen is None:
        other = written.get(contrast_scene(seed, contrast).key, none)
        good = formed(other.good, seed)
        if isinstance(good, UnusableItem):
            return good
        bad = formed(other.bad, seed) if contrast.rejected is None else contrast.rejected
        # a worse answer under the contrast is not needed: no objective reads it unless it is asked to
        contrast = replace(contrast, chosen=good, rejected=None if isinstance(bad, UnusableItem) else bad)
    if contrast.chosen is None:
        return UnusableItem(NEEDED, "no_contrast_chosen")
    if alike(seed.chosen, seed.rejected):
        return UnusableItem("chosen and rejected are the same: nothing to learn", "identical_sides")
    if alike(seed.chosen, contrast.chosen):
        return UnusableItem(
            "chosen and contrast_chosen are the same: the pair under the contrast image says nothing",
            "identical_answers",
        )
    if alike(contrast.chosen, contrast.rejected):
        contrast = replace(contrast, rejected=None)
    return seed, contrast


def formed(text: str | UnusableItem | None, seed: Seed) -> Any:
    """A written answer in the form of the row."""
    return in_form_of(text, seed) if isinstance(text, str) else text


def alike(first: Any, second: Any) -> bool:
    """Whether two answers have the same words; not where one is absent."""
    return first is not None and second is not None and text_of(first).strip() == text_of(second).strip()


def row_of(seed: Seed, contrast: Contrast, album: Album, mode: Mode) -> dict[str, Any]:
    """A row of the result, its pictures as paths from its folder; answers that are absent are left out."""
    told = {
        "id": seed.id,
        **seed.condition,
        "prompt": written_prompt(seed.prompt),
        "images": [album.path(picture) for picture in seed.pictures],
        "chosen": seed.chosen,
        "rejected": seed.rejected,
        "contrast_images": [album.path(picture) for picture in contrast.pictures],
        "contrast_chosen": contrast.chosen,
        "contrast_rejected": contrast.rejected,
    }
    meta = {"contrast": mode, "source": seed.source, "similarity": contrast.similarity}
    return {name: value for name, value in told.items() if value is not None} | {
        "meta": {name: value for name, value in meta.items() if value is not None}
    }
