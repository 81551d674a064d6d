"""What models of text do for `prefopt build longvpo-1`, done by rule on the film world, whose captions are four words long.

    CLIPS=$(python -c "from prefopt.worlds import get_world; print(get_world('film').clip_files())")
    prefopt build longvpo-1 $CLIPS -o runs/video/pairs --captioner world:film --prompts examples/video/prompts --clip_frames 4 \
        --writer examples/video/writers.py:question --reader examples/video/writers.py:reading \
        --embedder examples/video/writers.py:objects --max_new_tokens 8 --batch_size 64

    prefopt train longvpo examples/video/longvpo.yaml data=runs/video/pairs/rows.jsonl stage2_data=null eval_size=256

A caption is `red square left early`: an object, where it goes, and when there is a flash.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

CAPTION = re.compile(r"^(\w+) (\w+) (\w+ \w+)$", re.M)
QUESTION = re.compile(r"^ask (\w+) (\w+)$", re.M)


def question(text: str) -> str:
    """A question about the clip whose caption the text tells."""
    colour, shape, _ = _caption(text)
    return f"ask {colour} {shape}"


def reading(text: str) -> str:
    """The answer to the question in a text, as far as the caption in it tells."""
    asked = QUESTION.search(text)
    caption = _caption(text)
    if asked is None or caption is None or asked.groups() != caption[:2]:
        return "nothing is known"
    return caption[2]


def objects(images: Sequence[Any]) -> np.ndarray:
    """Frames as vectors that are alike where the same object is shown, wherever it is and whatever it does."""
    return np.stack([_object(np.asarray(image.convert("RGB")) > 128) for image in images])


def _object(bright_HW3: np.ndarray) -> np.ndarray:
    """Colour, one of eight, times shape, 5 x 5; white is a flash, and no object."""
    white_HW = bright_HW3.all(-1)
    shown_HW = bright_HW3.any(-1) & ~white_HW
    rows, columns = (np.flatnonzero(shown_HW.any(axis)) for axis in (1, 0))
    if not rows.size:
        return np.full(8 * 25, 1e-3, np.float32)
    top, left = rows[0], columns[0]
    shape = np.zeros((5, 5), np.float32)
    part = shown_HW[top : top + 5, left : left + 5]
    shape[: part.shape[0], : part.shape[1]] = part
    colour = np.zeros(8, np.float32)
    colour[bright_HW3[shown_HW].mean(0).round().astype(int) @ (4, 2, 1)] = 1
    return np.outer(colour, shape).ravel() + 1e-3


def _caption(text: str) -> Any:
    found = [one for one in CAPTION.findall(text) if one[0] != "ask"]
    return found[-1] if found else None
