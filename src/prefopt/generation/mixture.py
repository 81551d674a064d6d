"""Answers of a geometric mixture of two models: at each token pi_mix(v) is proportional to pi(v)^(1-c) pi_ref(v)^c.

That is the softmax of (1-c) z + c z_ref of both models' logits z, one token at a time, as Nash-MD samples its opponent
(arXiv 2312.00886, section 7). The mixture of whole answers, normalised over all of them, is another distribution.

Legend: B rows of a batch, T places, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from prefopt.generation.base import Settings
from prefopt.generation.local import LocalGenerator
from prefopt.likelihoods.flex import generating
from prefopt.likelihoods.rotary import forgetful


class GeometricMixture(LogitsProcessor):
    """Replaces a model's logits by those of its mixture with another, which reads the same rows along the way.

    Args:
        reference: the other model; one vocabulary for both.
        coef: c, its weight in [0, 1].
        lengths: of the prompts in tokens; rows are padded on the left.

    Raises:
        ValueError: `coef` outside [0, 1].

    Example:
        >>> mixing = GeometricMixture(reference, 0.5, [3, 5])                     # doctest: +SKIP
        >>> model.generate(ids, logits_processor=LogitsProcessorList([mixing]))   # doctest: +SKIP
    """

    def __init__(self, reference: Any, coef: float, lengths: Sequence[int]) -> None:
        if not 0 <= coef <= 1:
            raise ValueError(f"mixture_coef is the reference's weight, in [0, 1]; given {coef}")
        self.reference, self.coef, self.lengths = reference, coef, list(lengths)
        self._cache: Any = None
        self._mask_BT: Tensor | None = None
        self._places = "position_ids" in inspect.signature(reference.forward).parameters

    @torch.no_grad()
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """(B, V) logits of the mixture, from those of the model.

        Raises:
            ValueError: the models' vocabularies differ in size.
        """
        device = input_ids.device
        if self._mask_BT is None:
            width = input_ids.shape[1]
            start_B1 = torch.tensor([width - n for n in self.lengths], device=device)[:, None]
            self._mask_BT = (torch.arange(width, device=device) >= start_B1).long()
            fresh_BT = input_ids
        else:
            self._mask_BT = torch.cat([self._mask_BT, self._mask_BT.new_ones(len(input_ids), 1)], dim=1)
            fresh_BT = input_ids[:, -1:]
        options: dict[str, Any] = {}
        if self._places:
            places_BT = (self._mask_BT.cumsum(-1) - 1).clamp(min=0)
            options["position_ids"] = places_BT[:, -fresh_BT.shape[1] :]
        with generating(self.reference), forgetful(self.reference):
            out = self.reference(
                input_ids=fresh_BT,
                attention_mask=self._mask_BT,
                past_key_values=self._cache,
                use_cache=True,
                **options,
            )
        self._cache = out.past_key_values
        reference_BV = out.logits[:, -1].to(scores.dtype)
        if reference_BV.shape != scores.shape:
            raise ValueError(
                f"the policy has {scores.shape[-1]} logits a token and the reference {reference_BV.shape[-1]}; a mixture needs "
                "as many: resize the embeddings of one of them"
            )
        return torch.lerp(scores, reference_BV, self.coef)


class MixtureGenerator(LocalGenerator):
    """A `LocalGenerator` that draws from the mixture of its model and a reference.

    Args:
        model, tokenizer, batch_size, identity: see `LocalGenerator`.
        reference: the other model, on the same device.
        coef: its weight in [0, 1].
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        reference: Any,
        coef: float,
        batch_size: int = 64,
        identity: str = "",
    ) -> None:
        super().__init__(model, tokenizer, batch_size, identity)
        self.reference, self.coef = reference, coef

    def processors(
        self, rows: Sequence[tuple[str, int]], lengths: Sequence[int], settings: Settings
    ) -> list[LogitsProcessor]:
        """The mixture first, then what draws from it."""
        mixing = GeometricMixture(self.reference, self.coef, lengths)
        return [mixing, *super().processors(rows, lengths, settings)]
