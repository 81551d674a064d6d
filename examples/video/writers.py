"""What models of text do for `prefopt build longvpo-1`, done by rule on the film world, whose captions are four words long.

    prefopt build longvpo-1 CLIPS -o runs/video/pairs --captioner world:film --prompts examples/video/prompts --clip_frames 4 \
        --writer examples/video/writers.py:question --reader examples/video/writers.py:reading \
        --embedder examples/video/writers.py:pixels

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


def pixels(images: Sequence[Any]) -> np.ndarray:
    """Frames as vectors that are alike where pixels are, the ground left out."""
    frames = np.stack([np.asarray(image.convert("RGB"), np.float32) for image in images])
    return (frames > 128).reshape(len(frames), -1) + 1e-3


def _caption(text: str) -> Any:
    found = [one for one in CAPTION.findall(text) if one[0] != "ask"]
    return found[-1] if found else None
