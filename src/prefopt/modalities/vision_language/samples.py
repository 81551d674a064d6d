"""Answers of the policy to fixed prompts with pictures."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from prefopt.generation.base import Request, Response
from prefopt.generation.local import LocalGenerator
from prefopt.likelihoods.plan import EncodedText
from prefopt.modalities.text.samples import TextSamples
from prefopt.modalities.vision_language.likelihood import PicturedLikelihood
from prefopt.modalities.vision_language.media import pictures_of
from prefopt.modalities.vision_language.plan import EncodedPictured
from prefopt.modalities.vision_language.prompts import readable, shown
from prefopt.modalities.vision_language.video.strips import strip_of
from prefopt.modalities.vision_language.video.videos import Video
from prefopt.runs.record import Record


class PicturedGenerator(LocalGenerator):
    """Answers to prompts whose template holds `pictures`; its likelihood is one of pictures."""

    def inputs(self, requests: Sequence[Request], ids_BT: Tensor) -> dict[str, Tensor]:
        """Pictures of these requests, in their order, and the kinds of tokens where the model is told them."""
        assert isinstance(self.likelihood, PicturedLikelihood)
        return self.likelihood.generation_inputs(
            [pictures_of(request.template) for request in requests], ids_BT, self.model
        )


Marker = Callable[[Mapping[str, Any], str], Sequence[tuple[int, int, str]]]
"""(condition, answer) -> stretches of the answer that are wrong, each with the reason."""


class PicturedSamples(TextSamples):
    """One answer a prompt; arguments as of `TextSamples`, the likelihood one of pictures.

    Args:
        record: where the prompts' pictures go.
        marker: of what is known to be wrong; None where nothing is.
    """

    generator = PicturedGenerator

    def __init__(self, *args: Any, record: Record, marker: Marker | None = None) -> None:
        super().__init__(*args)
        self.prompts = [readable(request.prompt) for request in self._requests]
        self._marker = marker
        self._pictures = [
            [
                record.picture_file(
                    f"prompt-{n}-{k}", strip_of(medium) if isinstance(medium, Video) else medium.image()
                )
                for k, medium in enumerate(pictures_of(request.template))
            ]
            for n, request in enumerate(self._requests)
        ]

    def item(self, request: Request, ids: Sequence[int], start: int) -> EncodedText:
        """A prompt with its pictures, and the answer."""
        return EncodedPictured(array("i", ids), start, pictures=pictures_of(request.template))

    def entries(self, drawn: Any, step: int) -> list[dict[str, Any]]:
        """Text and length of each answer, the pictures of its prompt, and what is wrong."""
        found = []
        for entry, request, pictures in zip(
            super().entries(drawn, step), self._requests, self._pictures, strict=True
        ):
            more: dict[str, Any] = {"pictures": pictures} if pictures else {}
            if self._marker is not None:
                marks = self._marker({"prompt": request.prompt, **request.template}, entry["text"])
                more["marks"] = [list(mark) for mark in marks]
            found.append({**entry, "text": shown(entry["text"]), **more})
        return found

    def rewards(self, drawn: Sequence[Response]) -> list[float | None]:
        """The reward of each answer to a prompt with its pictures: of (condition, answer)."""
        if self._reward is None:
            return [None for _ in drawn]
        reward: Any = self._reward
        return [
            reward({"prompt": request.prompt, **request.template}, answer.text.strip())
            for request, answer in zip(self._requests, drawn, strict=True)
        ]
