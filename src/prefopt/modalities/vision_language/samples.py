"""Answers of the policy to fixed prompts with pictures."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from prefopt.generation.base import Request
from prefopt.generation.local import LocalGenerator
from prefopt.likelihoods.plan import EncodedText
from prefopt.modalities.text.samples import TextSamples
from prefopt.modalities.vision_language.likelihood import EncodedPictured, PicturedLikelihood, pictures_of
from prefopt.modalities.vision_language.prompts import shown


class PicturedGenerator(LocalGenerator):
    """Answers to prompts whose template holds `pictures`; its likelihood is one of pictures."""

    def inputs(self, requests: Sequence[Request], ids_BT: Tensor) -> dict[str, Tensor]:
        """Pictures of these requests, in their order, and the kinds of tokens where the model is told them."""
        assert isinstance(self.likelihood, PicturedLikelihood)
        return self.likelihood.generation_inputs(
            [pictures_of(request.template) for request in requests], ids_BT, self.model
        )


class PicturedSamples(TextSamples):
    """One answer a prompt; arguments as of `TextSamples`, the likelihood one of pictures."""

    generator = PicturedGenerator

    def item(self, request: Request, ids: Sequence[int], start: int) -> EncodedText:
        """A prompt with its pictures, and the answer."""
        return EncodedPictured(array("i", ids), start, pictures=pictures_of(request.template))

    def entries(self, drawn: Any, step: int) -> list[dict[str, Any]]:
        """Text and length of each answer."""
        return [{**entry, "text": shown(entry["text"])} for entry in super().entries(drawn, step)]
