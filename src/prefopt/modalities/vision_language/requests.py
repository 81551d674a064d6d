"""What a vision-language model is asked: images and a prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prefopt.sources.pictures import ImageRef


@dataclass(frozen=True)
class Request:
    """One question, answered by itself.

    Attributes:
        images: shown before the prompt; none for a question of text alone.
        prompt: the user's words, without placeholders of images.
    """

    images: list[ImageRef]
    prompt: str


Answerer = Callable[[Sequence[Request]], list[str]]
"""Answers to requests, in their order."""
