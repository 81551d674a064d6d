"""Denoising error under a control image.

Both items of a row that share an image share its sample of the VAE's posterior, noise and timestep too, so that everything
which does not depend on the condition cancels from their difference; and so that it is computed once, see `network.py`.

Legend: N items, W of them won, S of them looked at by a detector; C channels, H W of the latents.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from prefopt.comparisons import Encoded
from prefopt.likelihoods.base import ItemScores, one_part
from prefopt.likelihoods.denoising import DenoisingLikelihood, DenoisingPlan
from prefopt.likelihoods.latents import EncodedLatent, LatentStore
from prefopt.modalities.control.consistency import Consistency
from prefopt.modalities.control.network import States


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedControl(EncodedLatent):
    """One image under one prompt and one control image.

    Attributes:
        control: content key of the control image; the empty one is a black image, which stands for no condition.
        won: whether votes favour it, so that terms beside the comparison may ask for it.
    """

    control: str
    won: bool = False


class ControlStore(LatentStore, Protocol):
    """Latents, prompt embeddings and control images by key."""

    def controls(self, keys: Sequence[str]) -> Tensor:
        """(N, 3, H, W) in [0, 1], as the pipeline takes them."""
        ...


@dataclass(frozen=True, slots=True)
class ControlPlan(DenoisingPlan):
    """Which items share noised latent, timestep, prompt and sizes, besides.

    Attributes:
        state_N: number of each item's state.
        states: made anew for every plan, so that features never outlive the timesteps that they belong to.
    """

    state_N: tuple[int, ...]
    won_N: Tensor
    """(N,) bool, on the CPU."""
    own: ControlPlan | None = None
    """The same items that won, under noise of their own."""
    states: States = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "states", States(self.state_N, self.x0_NCHW.device))

    def to(self, device: torch.device) -> ControlPlan:
        """The same plan on another device."""
        moved = super(ControlPlan, self).to(device)
        assert isinstance(moved, ControlPlan)
        return moved if self.own is None else replace(moved, own=self.own.to(device))


@dataclass(frozen=True, kw_only=True)
class ControlLikelihood(DenoisingLikelihood):
    """Minus the denoising error of latents under a control image; see `DenoisingLikelihood`.

    Attributes:
        network: `denoise_controlled` of a family.
        consistency: what the reward of consistency asks, where an objective needs it.
        own_draws: whether items that won are also scored under noise of their own.
        condition_dropout: share of these that see no control image.
    """

    network: Callable[..., Tensor]
    store: ControlStore
    consistency: Consistency | None = None
    own_draws: bool = False
    condition_dropout: float = 0.0

    version = 2

    def at(self, example: Encoded[EncodedLatent], epoch: int) -> Encoded[EncodedLatent]:
        """As for images, and which items votes favour."""
        named = super().at(example, epoch)
        won = {edge.first for edge in example.comparisons if edge.outcome.win > 0}
        won |= {
            edge.second for edge in example.comparisons if edge.outcome.lose > 0 and edge.second is not None
        }
        items = (
            replace(item, won=slot in won) if isinstance(item, EncodedControl) else item
            for slot, item in enumerate(named.items)
        )
        return replace(named, items=tuple(items))

    def key(self, item: EncodedLatent) -> str:
        """Digest of latents, prompt, draw and control image."""
        assert isinstance(item, EncodedControl)
        text = f"{super().key(item)} under {item.control}"
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def conditions(self, items: Sequence[EncodedLatent], prompts: Sequence[str]) -> dict[str, Tensor]:
        """What the base network is given, and `control`."""
        keys = [item.control for item in items if isinstance(item, EncodedControl)]
        return super().conditions(items, prompts) | {"control": self.store.controls(keys)}

    def family(self, item: EncodedLatent) -> tuple[str, int, int]:
        """Items of one image and its noise: half of the base network is computed once for them."""
        return item.example, item.slot, item.epoch

    def timesteps(self, uniform_N: Tensor) -> Tensor:
        """As for images, but for t = 0, where there is nothing to tell apart: the release leaves it out of its mean."""
        if self.density != "uniform":
            return super().timesteps(uniform_N)
        n = self.process.n_train_timesteps
        return super().timesteps((1 + uniform_N.double() * (n - 1)) / n)

    def drawn_anew(self, item: EncodedControl) -> EncodedControl:
        """An item under noise, timestep and dropouts that no other item shares: all of it follows from the row's name."""
        again = replace(item, example=f"own draw of {item.example}/{item.slot}")
        share = self.condition_dropout
        dropped = share > 0 and item.epoch >= 0 and self.stream("control", again, (1,))[0] < share
        return replace(again, control="") if dropped else again

    def plan(self, items: Sequence[EncodedLatent]) -> ControlPlan:
        """As for images, which items differ in their control images alone, and own draws of those that won."""
        plan = self.laid_out(items)
        won = [item for item in items if isinstance(item, EncodedControl) and item.won]
        if not self.own_draws or not won:
            return plan
        return replace(plan, own=self.laid_out([self.drawn_anew(item) for item in won]))

    def laid_out(self, items: Sequence[EncodedLatent]) -> ControlPlan:
        """The plan of these items alone."""
        plan = super().plan(items)
        states: dict[Any, int] = {}
        state_N = tuple(
            states.setdefault((i.latent, i.example, i.slot, i.epoch, i.sizes, self.prompt_of(i)), len(states))
            for i in items
        )
        won_N = torch.tensor([isinstance(item, EncodedControl) and item.won for item in items])
        return ControlPlan(plan.x0_NCHW, plan.noise_NCHW, plan.t_N, plan.conditions, state_N, won_N)

    def score(self, model: nn.Module, plan: DenoisingPlan, extras: Collection[str] = ()) -> ItemScores:
        """(N, 1) minus the error, and of items that won what else is asked for; see `DenoisingLikelihood.score`."""
        assert isinstance(plan, ControlPlan)
        predicted = self.predict(model, plan)
        scores = one_part(self.of_output(plan, predicted.output_NCHW))
        if "logp_own" in extras:
            own_N = torch.zeros_like(scores.logp_N)
            if plan.own is not None:
                own_W = self.of_output(plan.own, self.predict(model, plan.own).output_NCHW)
                own_N = own_N.index_copy(0, plan.won_N.nonzero()[:, 0].to(own_N.device), own_W)
            scores = replace(scores, logp_own_N=own_N)
        if "consistency" in extras:
            assert self.consistency is not None  # `set_up` asks for a detector
            seen_N = plan.won_N & (plan.t_N <= self.consistency.last_timestep)
            loss_N = torch.zeros_like(scores.logp_N)
            if bool(seen_N.any()):
                seen_S = seen_N.nonzero()[:, 0]
                place = seen_S.to(loss_N.device)
                x_SCHW, output_SCHW = (value[place].float() for value in predicted)
                x0_SCHW = self.process.x0(output_SCHW, x_SCHW, plan.t_N[seen_S])
                loss_S = self.consistency.loss(x0_SCHW, plan.conditions["control"][place])
                loss_N = loss_N.index_copy(0, place, loss_S.to(loss_N.dtype))
            scores = replace(scores, consistency_N=loss_N, seen_N=seen_N.to(loss_N))
        return scores

    def output(self, model: nn.Module, x_NCHW: Tensor, plan: DenoisingPlan) -> Tensor:
        """The network's, which computes once what items share."""
        assert isinstance(plan, ControlPlan)
        t_N = self.process.model_timestep(plan.t_N)
        return self.network(model, x_NCHW, t_N, plan.conditions, states=plan.states)
