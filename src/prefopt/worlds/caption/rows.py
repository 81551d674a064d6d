"""Rows of preference data of the caption world: two pictures that differ in one object, and captions of both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from prefopt.worlds.base import seed_of
from prefopt.worlds.caption.measures import f1, hallucinated
from prefopt.worlds.caption.model import prompt_messages
from prefopt.worlds.caption.task import Scenes, caption_of, objects_of, unused, with_companion
from prefopt.worlds.pixels import as_png

Row = dict[str, Any]


def answer(caption: str) -> list[dict[str, str]]:
    """A caption as what the assistant says."""
    return [{"role": "assistant", "content": caption}]


def worst(objects: Sequence[int], captions: Sequence[str], rng: np.random.Generator) -> str:
    """The caption that names most classes that are not there, the first of several.

    Where none names any: the exact caption with an absent companion; where no companion is absent, with any absent class
    at its end.
    """
    made_up = [len({mention.object for mention in hallucinated(objects, caption)}) for caption in captions]
    if any(made_up):
        return captions[made_up.index(max(made_up))]
    corrupted = with_companion(objects)
    if corrupted == tuple(objects):
        corrupted = (*objects, int(rng.choice(unused(objects))))
    return caption_of(corrupted)


def of_scenes(
    scenes: Scenes,
    contrasts: Scenes,
    captions: Sequence[Sequence[str]],
    contrast_captions: Sequence[Sequence[str]],
    split: str,
) -> list[Row]:
    """Rows of scenes and their edits.

    Args:
        scenes: the pictures m.
        contrasts: the pictures m', edit k of scene k.
        captions: of each picture m, drawn from a model; the worst is rejected.
        contrast_captions: of each picture m'.
        split: for the ids.
    """
    key = seed_of(f"rejected {split}")
    rows = []
    for k, (scene, contrast) in enumerate(zip(scenes.scenes, contrasts.scenes, strict=True)):
        rng = np.random.default_rng([key, k])
        objects, others = objects_of(scene), objects_of(contrast)
        rejected = worst(objects, captions[k], rng)
        rows.append(
            {
                "id": f"{split}-{k}",
                "prompt": prompt_messages(),
                "image": as_png(scenes.images_BCHW[k]),
                "contrast_image": as_png(contrasts.images_BCHW[k]),
                "chosen": answer(caption_of(objects)),
                "rejected": answer(rejected),
                "contrast_chosen": answer(caption_of(others)),
                "contrast_rejected": answer(worst(others, contrast_captions[k], rng)),
                "score_chosen": 1.0,
                "score_rejected": f1(objects, rejected),
                "source": "world:caption",
            }
        )
    return rows
