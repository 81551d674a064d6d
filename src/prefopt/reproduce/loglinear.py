"""A world whose every number is exact: prompts with K candidate responses and a log-linear policy.

    pi_w(y|x) proportional to pi_ref(y|x) exp(w . phi(x, y))

Utility, KL and entropy are sums over K candidates, so no sampling noise enters a frontier. All seeds are trained as
one tensor: the weights of different seeds never touch each other (their losses are summed, so each gradient is its
own), which turns minutes into seconds. For the same reason only optimisers that act on each number alone (Adam,
RMSProp, SGD) may be used, and a norm clip has to be taken per seed.

Shapes: S seeds, N prompts, K candidates, D features, E comparisons a seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from prefopt.objectives.base import Objective, apply_ties_policy, as_shares


@dataclass(frozen=True, slots=True)
class Candidates:
    """Prompts with K candidates each, for S seeds."""

    phi_SNKD: Tensor
    """Features."""
    utility_SNK: Tensor
    """True utility, in the world's own units."""
    log_ref_SNK: Tensor
    """log pi_ref, normalised over K."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Comparisons of two candidates of one prompt, E for each of S seeds."""

    prompt_SE: Tensor
    winner_SE: Tensor
    loser_SE: Tensor
    tie_SE: Tensor
    """Boolean; the order of a tie means nothing."""

    def cat(self, other: Pairs) -> Pairs:
        """Both sets of comparisons."""
        return Pairs(
            *(
                torch.cat([getattr(self, n), getattr(other, n)], dim=1)
                for n in ("prompt_SE", "winner_SE", "loser_SE", "tie_SE")
            )
        )

    def take(self, index_E: Tensor) -> Pairs:
        """The comparisons at these positions, for every seed."""
        return Pairs(
            self.prompt_SE[:, index_E],
            self.winner_SE[:, index_E],
            self.loser_SE[:, index_E],
            self.tie_SE[:, index_E],
        )


def log_policy(world: Candidates, w_SD: Tensor) -> Tensor:
    """(S, N, K) log pi_w."""
    return (scores(world.phi_SNKD, w_SD) + world.log_ref_SNK).log_softmax(-1)


def log_ratios(world: Candidates, pairs: Pairs, w_SD: Tensor) -> tuple[Tensor, Tensor]:
    """(S, E) rho of winners and of losers (nats)."""
    seed_S1 = torch.arange(len(w_SD))[:, None]
    prompt_SE, phi_SNKD, log_ref_SNK = pairs.prompt_SE, world.phi_SNKD, world.log_ref_SNK
    if 2 * prompt_SE.shape[1] < phi_SNKD.shape[1]:  # a small batch: score only its prompts
        phi_SNKD, log_ref_SNK = phi_SNKD[seed_S1, prompt_SE], log_ref_SNK[seed_S1, prompt_SE]
        prompt_SE = torch.arange(prompt_SE.shape[1]).expand_as(prompt_SE)
    rho_SNK = scores(phi_SNKD, w_SD)
    rho_SNK = rho_SNK - (rho_SNK + log_ref_SNK).logsumexp(-1, keepdim=True)
    rho_SM, start_SE = rho_SNK.flatten(1), prompt_SE * rho_SNK.shape[-1]
    return rho_SM.gather(1, start_SE + pairs.winner_SE), rho_SM.gather(1, start_SE + pairs.loser_SE)


def scores(phi_SNKD: Tensor, w_SD: Tensor) -> Tensor:
    """(S, N, K) w . phi; a loop, since a batched product with one column is ten times slower on a CPU."""
    rows = [phi_NKD.flatten(0, 1) @ w_D for phi_NKD, w_D in zip(phi_SNKD, w_SD, strict=True)]
    return torch.stack(rows).view(phi_SNKD.shape[:3])


def mean_loss(objective: Objective, world: Candidates, pairs: Pairs, w_SD: Tensor) -> Tensor:
    """(S,) mean loss over the E comparisons; an objective without a tie term counts ties as wins."""
    rho_w_SE, rho_l_SE = log_ratios(world, pairs, w_SD)
    outcome = None
    if bool(pairs.tie_SE.any()):
        outcome = as_shares(pairs.tie_SE.flatten(), like=rho_w_SE.flatten())
        if not objective.has_tie_term:
            outcome, _ = apply_ties_policy(outcome, "as_win")
    return objective(rho_w_SE.flatten(), rho_l_SE.flatten(), outcome).view_as(rho_w_SE).mean(-1)


Watch = Callable[[int, Tensor, Tensor], None]
"""Called before each step with its number, the weights and their gradients, both (S, D)."""


def fit(
    objective: Objective,
    world: Candidates,
    pairs: Pairs,
    *,
    steps: int,
    optimizer: Callable[[list[Tensor]], torch.optim.Optimizer],
    batch: int | None = None,
    warmup: int = 0,
    clip_norm: float | None = None,
    watch: Watch | None = None,
) -> Tensor:
    """Train from w = 0 (policy = reference).

    Args:
        objective: from `prefopt.objectives.get`.
        world: candidates of the training prompts.
        pairs: comparisons among them.
        steps: optimiser steps.
        optimizer: makes an element-wise optimiser from the list of parameters.
        batch: comparisons a step, in an order drawn once an epoch; None takes all of them.
        warmup: steps over which the learning rate rises linearly from 0. torch's RMSProp has no bias correction: its
            first steps are ten times the learning rate, which losses with exploding weights do not survive.
        clip_norm: largest gradient norm of each seed's weights.
        watch: sees weights and gradients before each step.

    Returns:
        (S, D) weights.

    Raises:
        FloatingPointError: weights stopped being finite.
    """
    seeds, dim = world.phi_SNKD.shape[0], world.phi_SNKD.shape[-1]
    w_SD = torch.zeros(seeds, dim, dtype=world.phi_SNKD.dtype, requires_grad=True)
    opt = optimizer([w_SD])
    rate = opt.param_groups[0]["lr"]
    order = torch.Generator().manual_seed(0)
    total = pairs.prompt_SE.shape[1]
    queue = torch.empty(0, dtype=torch.long)
    for step in range(steps):
        chosen = pairs
        if batch is not None:
            if len(queue) < batch:
                queue = torch.randperm(total, generator=order)
            chosen, queue = pairs.take(queue[:batch]), queue[batch:]
        (grad_SD,) = torch.autograd.grad(mean_loss(objective, world, chosen, w_SD).sum(), w_SD)
        if clip_norm is not None:
            norm_S1 = grad_SD.norm(dim=-1, keepdim=True)
            grad_SD = grad_SD * (clip_norm / norm_S1.clamp(min=clip_norm))
        if watch is not None:
            watch(step, w_SD.detach(), grad_SD)
        w_SD.grad = grad_SD
        for group in opt.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / max(1, warmup))
        opt.step()
    if not bool(w_SD.isfinite().all()):
        raise FloatingPointError(f"{objective} made the weights infinite within {steps} steps")
    return w_SD.detach()


def expected_utility(world: Candidates, w_SD: Tensor) -> Tensor:
    """(S,) exact expected utility of a response drawn from the policy."""
    return (log_policy(world, w_SD).exp() * world.utility_SNK).sum(-1).mean(-1)


def kl(world: Candidates, w_SD: Tensor) -> Tensor:
    """(S,) exact KL(policy || reference), nats a prompt."""
    log_p_SNK = log_policy(world, w_SD)
    return (log_p_SNK.exp() * (log_p_SNK - world.log_ref_SNK)).sum(-1).mean(-1)


def entropy(world: Candidates, w_SD: Tensor) -> Tensor:
    """(S,) exact entropy of the policy, nats a prompt."""
    log_p_SNK = log_policy(world, w_SD)
    return -(log_p_SNK.exp() * log_p_SNK).sum(-1).mean(-1)


def win_rate(world: Candidates, w_SD: Tensor) -> Tensor:
    """(S,) exact probability that a policy response has higher utility than a reference response, equal = 1/2."""
    p_SNK, ref_SNK = log_policy(world, w_SD).exp(), world.log_ref_SNK.exp()
    gap_SNKK = world.utility_SNK[..., :, None] - world.utility_SNK[..., None, :]
    beats_SNKK = (gap_SNKK > 0).to(p_SNK.dtype) + 0.5 * (gap_SNKK == 0).to(p_SNK.dtype)
    return torch.einsum("snk,snkl,snl->sn", p_SNK, beats_SNKK, ref_SNK).mean(-1)
