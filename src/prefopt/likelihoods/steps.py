"""Scores of single reverse steps: states that the sampler went through, and the samples it drew from them.

Two likelihoods share one forward pass a state, however many samples left it (winner and loser of a pair share the mean
exactly, since dropout is off):

    TransitionLikelihood   log N(x_t'; mu_theta(x_t), sigma_t^2) / D, the step's Gaussian
    GuidedTarget           -mean_d (eps_theta(x_t) - target)^2, target = eps_anchor - k_t n (GradSPO)

Classifier-free guidance is part of the policy: gradients flow through both of its branches.

Legend: N items, P distinct states, C channels, H W latent height and width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from prefopt.comparisons import Encoded
from prefopt.likelihoods.base import ItemScores, one_part
from prefopt.likelihoods.denoising import Network
from prefopt.likelihoods.process import Process, over_samples
from prefopt.likelihoods.transition import GaussianTransition, ddim_transition, flow_transition, guided

Conditions = Callable[[Sequence[str]], Mapping[str, Tensor]]
"""What the network is given of prompts, by name."""
TimeWeight = Literal["sqrt_one_minus_abar", "uniform", "spo"]


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """A state of the sampler under one prompt.

    Attributes:
        x_CHW: x_t, float32 on the CPU.
        t, t_prev: this and the next, less noisy time: train timesteps, or noise levels of a flow.
        prompt: text.
        anchor_CHW: the sampler's own prediction of the noise here, where it is kept.
    """

    x_CHW: Tensor
    t: float
    t_prev: float
    prompt: str
    anchor_CHW: Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class EncodedStep:
    """One sample drawn from a state.

    Attributes:
        state: shared, by identity, with the other samples drawn from it.
        sample_CHW: x_t', or for GradSPO the direction n.
    """

    state: State
    sample_CHW: Tensor


@dataclass(slots=True)
class StepPlan:
    """States once each, and which state each sample left."""

    x_PCHW: Tensor
    t_P: Tensor
    t_prev_P: Tensor
    """Both kept on the CPU."""
    state_N: Tensor
    sample_NCHW: Tensor
    conditions: dict[str, Tensor]
    anchor_PCHW: Tensor | None = None
    """Filled in by the first model that scores the plan, for likelihoods with a live anchor."""

    def to(self, device: torch.device) -> StepPlan:
        """The same plan on another device."""

        def move(x: Tensor) -> Tensor:
            return x.to(device, non_blocking=True)

        return StepPlan(
            x_PCHW=move(self.x_PCHW),
            t_P=self.t_P,
            t_prev_P=self.t_prev_P,
            state_N=move(self.state_N),
            sample_NCHW=move(self.sample_NCHW),
            conditions={name: move(value) for name, value in self.conditions.items()},
            anchor_PCHW=None if self.anchor_PCHW is None else move(self.anchor_PCHW),
        )


@dataclass(frozen=True, kw_only=True)
class GuidedNetwork:
    """A network with classifier-free guidance: empty and given prompt in one forward pass.

    Attributes:
        process: of the model's scheduler.
        network: calls the model.
        conditions: of prompts; the empty text stands for no condition.
        scale: of the guidance; 1 leaves out the empty prompt.
    """

    process: Process
    network: Network
    conditions: Conditions
    scale: float = 1.0

    def prepare(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Conditions of a call: for guidance, those of the empty prompt first."""
        return dict(self.conditions([*[""] * len(prompts), *prompts] if self.scale != 1 else prompts))

    def __call__(
        self, model: nn.Module, x_BCHW: Tensor, t_B: Tensor, conditions: Mapping[str, Tensor]
    ) -> Tensor:
        """(B, C, H, W) output under guidance, in float32 or wider."""
        time_B = self.process.model_timestep(t_B)
        if self.scale == 1:
            return guided(self.network(model, x_BCHW, time_B, conditions), None, 1)
        doubled = self.network(model, torch.cat([x_BCHW, x_BCHW]), torch.cat([time_B, time_B]), conditions)
        uncond_BCHW, cond_BCHW = doubled.chunk(2)
        return guided(cond_BCHW, uncond_BCHW, self.scale)


def transition(
    process: Process, output_BCHW: Tensor, x_BCHW: Tensor, t_B: Tensor, t_prev_B: Tensor, eta: float
) -> GaussianTransition:
    """One reverse step of either kind of process."""
    step = flow_transition if process.kind == "flow" else ddim_transition
    return step(process, output_BCHW, x_BCHW, t_B, t_prev_B, eta)


@dataclass(frozen=True, kw_only=True)
class TransitionLikelihood:
    """Log-density of reverse steps, a mean over latent elements.

    Attributes:
        guided: the network.
        eta: noise of a step.
    """

    guided: GuidedNetwork
    eta: float = 1.0

    version = 1

    def settings(self) -> dict[str, Any]:
        """Process, guidance and noise."""
        return {
            "process": self.guided.process.settings(),
            "guidance": self.guided.scale,
            "eta": self.eta,
        }

    def at(self, example: Encoded[EncodedStep], epoch: int) -> Encoded[EncodedStep]:
        """A step is what it is."""
        return example

    def renewed(self, example: Encoded[EncodedStep]) -> bool:
        """A step is what it is."""
        return False

    def seen_by_reference(self, item: EncodedStep) -> EncodedStep:
        """The same."""
        return item

    def key(self, item: EncodedStep) -> str:
        """Digest of state and sample."""
        state = item.state
        digest = hashlib.blake2b(f"{state.t}|{state.t_prev}|{state.prompt}".encode(), digest_size=16)
        for x in (state.x_CHW, item.sample_CHW):
            digest.update(x.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def family(self, item: EncodedStep) -> None:
        """Nothing is gained by scoring some items together rather than others."""

    def width(self, item: EncodedStep) -> int:
        """Places of a latent."""
        return item.sample_CHW[0].numel()

    def plan(self, items: Sequence[EncodedStep]) -> StepPlan:
        """Each state once."""
        states = {id(item.state): item.state for item in items}
        place = {key: p for p, key in enumerate(states)}
        found = list(states.values())
        time = torch.float64 if self.guided.process.kind == "flow" else torch.int64
        anchors = [state.anchor_CHW for state in found]
        kept = [x for x in anchors if x is not None]
        return StepPlan(
            x_PCHW=torch.stack([state.x_CHW for state in found]),
            t_P=torch.tensor([state.t for state in found], dtype=time),
            t_prev_P=torch.tensor([state.t_prev for state in found], dtype=time),
            state_N=torch.tensor([place[id(item.state)] for item in items]),
            sample_NCHW=torch.stack([item.sample_CHW for item in items]),
            conditions=self.guided.prepare([state.prompt for state in found]),
            anchor_PCHW=torch.stack(kept) if len(kept) == len(anchors) else None,
        )

    def score(self, model: nn.Module, plan: StepPlan, extras: Collection[str] = ()) -> ItemScores:
        """(N, 1) log-densities in float32, with gradients."""
        output_PCHW = self.guided(model, plan.x_PCHW, plan.t_P, plan.conditions)
        step = transition(self.guided.process, output_PCHW, plan.x_PCHW, plan.t_P, plan.t_prev_P, self.eta)
        std_N = step.std_B[plan.state_N.to(step.std_B.device)]
        of_each = GaussianTransition(step.mean_BCHW[plan.state_N], std_N)
        return one_part(of_each.log_prob(plan.sample_NCHW))


@dataclass(frozen=True, kw_only=True)
class GuidedTarget(TransitionLikelihood):
    """GradSPO's score: minus the squared distance to a target guided along a direction.

    target = eps_anchor - k_t n, k_t = grad_scale times a weight of the timestep (released code of GradSPO, NeurIPS
    2025). Without an active clip the anchor cancels from every margin.

    Attributes:
        grad_scale: g.
        temporal_weight: "sqrt_one_minus_abar" (released code), "uniform" 1, "spo" |b_t| / (2 sigma_t), which
            makes the margin SPO's at g = 1.
        anchor: (model, plan) -> predicted noise of the anchor's weights, without gradient; None takes what the states
            bring.
    """

    grad_scale: float = 0.5
    temporal_weight: TimeWeight = "sqrt_one_minus_abar"
    anchor: Callable[[nn.Module, StepPlan], Tensor] | None = field(default=None, compare=False)

    def settings(self) -> dict[str, Any]:
        """As for transitions, with the target's."""
        target = {"grad_scale": self.grad_scale, "temporal_weight": self.temporal_weight}
        return super().settings() | target

    def time_weight(self, plan: StepPlan) -> Tensor:
        """(P,) k_t / g, float64 on the CPU."""
        process, t_P = self.guided.process, plan.t_P
        alpha_P, sigma_P = process.alpha(t_P), process.sigma(t_P)
        match self.temporal_weight:
            case "uniform":
                return torch.ones_like(sigma_P)
            case "sqrt_one_minus_abar":
                return sigma_P  # of a variance-preserving process; of a flow, its noise level
            case "spo":
                zero = torch.zeros(len(t_P), 1)
                step = transition(process, zero, zero, t_P, plan.t_prev_P, self.eta)
                alpha_to_P, sigma_to_P = process.alpha(plan.t_prev_P), process.sigma(plan.t_prev_P)
                rest_P = (sigma_to_P.square() - step.std_B.square()).clamp(min=0).sqrt()
                return (rest_P - alpha_to_P * sigma_P / alpha_P).abs() / (2 * step.std_B)

    def score(self, model: nn.Module, plan: StepPlan, extras: Collection[str] = ()) -> ItemScores:
        """(N, 1) minus mean squared distances in float32, with gradients to the prediction alone."""
        if plan.anchor_PCHW is None:
            if self.anchor is None:
                raise ValueError(
                    "the states carry no anchor and the likelihood has none: give one of the two"
                )
            with torch.no_grad():
                plan.anchor_PCHW = self.anchor(model, plan)
        eps_PCHW = predicted_noise(self.guided, model, plan)
        k_P = self.grad_scale * over_samples(self.time_weight(plan), plan.x_PCHW)
        target_NCHW = plan.anchor_PCHW[plan.state_N] - k_P[plan.state_N] * plan.sample_NCHW
        return one_part(-(eps_PCHW[plan.state_N] - target_NCHW).square().flatten(1).mean(1))


def predicted_noise(network: GuidedNetwork, model: nn.Module, plan: StepPlan) -> Tensor:
    """(P, C, H, W) noise that the guided network sees in the plan's states."""
    output_PCHW = network(model, plan.x_PCHW, plan.t_P, plan.conditions)
    return network.process.epsilon(output_PCHW, plan.x_PCHW, plan.t_P)
