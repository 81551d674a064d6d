"""Denoising error of motions of different lengths, under one of their captions.

An epoch shows one caption of a row, and of each motion a stretch whose length is a multiple of the model's unit (HumanML3D's
rules: a unit less in one of three, anywhere in the motion); evaluations show the first caption and the beginning. Frames behind a
motion's end count nowhere.

Legend: N items, F frames, D features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from prefopt.comparisons import Encoded
from prefopt.likelihoods.denoising import DenoisingLikelihood, DenoisingPlan
from prefopt.likelihoods.latents import EncodedLatent
from prefopt.likelihoods.process import counted_noise
from prefopt.modalities.motion.store import MotionStore
from prefopt.motion.clips import crop


@dataclass(frozen=True, slots=True)
class EncodedMotion(EncodedLatent):
    """A motion under a caption.

    Attributes:
        captions: of which an epoch shows one; empty once one is chosen.
        frames: of the whole motion.
        start: first frame of the stretch that is shown.
        length: frames of the stretch.
    """

    captions: tuple[str, ...] = ()
    frames: int = 0
    start: int = 0
    length: int = 0


@dataclass(frozen=True, kw_only=True)
class MotionLikelihood(DenoisingLikelihood):
    """Minus the denoising error of motions, a mean over their frames and features.

    Attributes:
        store: motions and text embeddings.
        unit: lengths are multiples of it.
        masked: whether the network is kept from seeing frames behind a motion's end.
    """

    store: MotionStore
    unit: int = 4
    masked: bool = True

    def settings(self) -> dict[str, Any]:
        """As for any latents, with the rule of lengths."""
        return super().settings() | {"unit": self.unit, "masked": self.masked}

    def shown(self, example: Encoded[Any], epoch: int) -> Encoded[Any]:
        """The caption and the stretches of an epoch; the beginning under the first caption in evaluations."""
        random = epoch >= 0
        items = []
        for slot, item in enumerate(example.items):
            if item.drawn is not None:
                items.append(item)
                continue
            u_caption = draw(self.seed, f"caption of {example.id}", epoch) if random else 0.0
            captions = item.captions or (item.prompt,)
            start, length = crop(
                item.frames,
                seed=self.seed,
                id=f"{slot} of {example.id}",
                epoch=epoch if random else None,
                unit=self.unit,
                longest=self.store.shape[0] // self.unit * self.unit,
            )
            prompt = captions[int(u_caption * len(captions))]
            items.append(replace(item, prompt=prompt, captions=(), start=start, length=length))
        return replace(example, items=tuple(items))

    def key(self, item: EncodedLatent) -> str:
        """Digest of motion, stretch, caption and draw."""
        assert isinstance(item, EncodedMotion)
        text = repr((super().key(item), item.start, item.length, item.captions))
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def width(self, item: EncodedLatent) -> int:
        """Frames."""
        return length_of(item)

    def extent(self, items: Sequence[EncodedLatent]) -> tuple[int, ...]:
        """As many frames as the longest has, where the network does not look at those behind an end."""
        if not self.masked:
            return self.store.shape
        return (max(map(length_of, items)), self.store.shape[1])

    def plan(self, items: Sequence[EncodedLatent]) -> DenoisingPlan:
        """Motions and noise, no longer than they need to be."""
        plan = super().plan(items)
        frames = self.extent(items)[0]
        return replace(plan, x0_NCHW=plan.x0_NCHW[:, :frames], noise_NCHW=plan.noise_NCHW[:, :frames])

    def stored(self, items: Sequence[EncodedLatent]) -> Tensor:
        """(N, F, D) z-scores of the stretches."""
        found_NFD = torch.zeros(len(items), *self.store.shape)
        for n, item in enumerate(items):
            assert isinstance(item, EncodedMotion)
            z_FD = self.store.normalize(self.store.motion(item.latent)[item.start : item.start + item.length])
            found_NFD[n, : len(z_FD)] = z_FD
        return found_NFD

    def conditions(self, items: Sequence[EncodedLatent], prompts: Sequence[str]) -> dict[str, Tensor]:
        """Embeddings of the texts, and lengths."""
        return {
            **self.store.conditions(prompts),
            "length": torch.tensor([length_of(item) for item in items]),
        }

    def error(self, plan: DenoisingPlan, output_NCHW: Tensor) -> Tensor:
        """(N,) mean squared errors over the frames of each motion."""
        target_NFD = self.process.target(plan.x0_NCHW, plan.noise_NCHW, plan.t_N)
        error_NF = (output_NCHW.float() - target_NFD).square().mean(-1)
        length_N = plan.conditions["length"]
        inside_NF = torch.arange(error_NF.shape[1], device=error_NF.device) < length_N[:, None]
        # where, not a product: what a network makes of padding may be anything
        return torch.where(inside_NF, error_NF, 0.0).sum(1) / length_N

    def elements(self, plan: DenoisingPlan) -> Tensor:
        """(N,) frames times features."""
        return plan.conditions["length"].float() * plan.x0_NCHW.shape[-1]


def length_of(item: EncodedLatent) -> int:
    """Frames of the stretch that is shown."""
    assert isinstance(item, EncodedMotion)
    return item.length


def draw(seed: int, name: str, epoch: int) -> float:
    """A uniform number in [0, 1) of its own."""
    return counted_noise(seed, name, epoch, (1,))[0]


def shown_part(frames: int, most: int, unit: int) -> int:
    """Frames of a motion that evaluations and samples have."""
    return crop(frames, seed=0, id="", epoch=None, unit=unit, longest=most // unit * unit)[1]
