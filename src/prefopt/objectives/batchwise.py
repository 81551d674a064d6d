"""Losses in which rows meet: running references (KTO, BCO), sorting (AOT), sampling (beta-DPO).

What crosses processes goes through `statistics` alone: sums and counts, added over processes, then `next_state`.
Symbols and shapes: see `base.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from prefopt.objectives.base import Objective, State, Unpaired, require
from prefopt.objectives.pairwise import Pairwise, smoothed_logistic
from prefopt.objectives.sides import Branch, Sides
from prefopt.objectives.stable import softplus


@dataclass(frozen=True, kw_only=True)
class KTO(Unpaired):
    """Kahneman-Tversky optimization on single labelled samples (arXiv 2402.01306, eq. 8).

    Desirable: w_D [1 - sigma(beta (rho - z0))]; undesirable: w_U [1 - sigma(beta (z0 - rho))]. The reference point
    z0 = max(0, mean log-ratio of completions under other rows' prompts) estimates the KL divergence from the
    reference; it is averaged over all processes and carries no gradient.

    Attributes:
        beta: > 0.
        desirable_weight: w_D > 0; keep w_D n_D / (w_U n_U) within [1, 4/3].
        undesirable_weight: w_U > 0.

    >>> KTO()(torch.zeros(2), torch.tensor([True, False]), rho_mismatched=torch.zeros(2))
    tensor([0.5000, 0.5000])
    """

    branches: ClassVar[Mapping[str, Branch]] = {
        "mismatched": Branch(condition="own", sample="mismatched", gradient=False)
    }
    beta: float = 0.1
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("beta", "desirable_weight", "undesirable_weight"):
            require(getattr(self, name) > 0, f"{name} must be positive; given {getattr(self, name)}")

    def initial_state(self) -> State:
        """z0 = 0."""
        return {"z0": torch.zeros(())}

    def statistics(self, sides: Sides, outcome_E3: Tensor | None) -> State:
        """Sum and count of mismatched log-ratios."""
        rho = sides.rho("mismatched").detach()
        return {"sum": rho.sum(), "count": torch.ones_like(rho).sum()}

    def next_state(self, state: State, sums: State) -> State:
        """This batch's z0."""
        return {"z0": (sums["sum"] / sums["count"].clamp(min=1)).clamp(min=0)}

    def disutility(self, z: Tensor) -> Tensor:
        """(E,) 1 - sigma(z), z the distance from the reference point in the direction wanted."""
        return torch.sigmoid(-z)

    def desirable_loss(self, sides: Sides, state: State) -> Tensor:
        """(E,) losses."""
        return self.desirable_weight * self.disutility(self.beta * (sides.rho_w - state["z0"]))

    def undesirable_loss(self, sides: Sides, state: State) -> Tensor:
        """(E,) losses."""
        return self.undesirable_weight * self.disutility(self.beta * (state["z0"] - sides.rho_w))

    def diagnostics(self, sides: Sides, state: State) -> dict[str, Tensor]:
        """The reference point (TRL's "kl"; here that name is the KL of the policy's own samples)."""
        return {"kto/z0": state["z0"].to(sides.rho_w.dtype).expand_as(sides.rho_w)}


@dataclass(frozen=True, kw_only=True)
class APOZeroUnpaired(KTO):
    """Anchored preference optimization, zero, on single labelled samples: `KTO` around the reference itself, z0 = 0.

    arXiv 2408.06266, eq. 7, each of its two terms on a sample of its own: desirable w_D [1 - sigma(beta rho)], undesirable
    w_U sigma(beta rho). Nothing is estimated, so that no completions of other prompts are scored.

    >>> APOZeroUnpaired()(torch.zeros(2), torch.tensor([True, False]))
    tensor([0.5000, 0.5000])
    """

    branches: ClassVar[Mapping[str, Branch]] = {}

    def statistics(self, sides: Sides, outcome_E3: Tensor | None) -> State:
        """None."""
        return {}

    def next_state(self, state: State, sums: State) -> State:
        """z0 stays 0."""
        return state

    def diagnostics(self, sides: Sides, state: State) -> dict[str, Tensor]:
        """None."""
        return {}


@dataclass(frozen=True, kw_only=True)
class BCO(Unpaired):
    """Binary classifier optimization on single labelled samples (arXiv 2404.04656, eq. 13).

    Desirable: -log sigma(r - delta); undesirable: -log sigma(delta - r), with r = beta * rho. The shift delta is the
    midpoint of the two kinds' mean rewards since the start of the run, without gradient. Where the data has a column
    `density_ratio`, an undesirable sample's loss is multiplied by it: p(prompt | desirable) / p(prompt | undesirable),
    which a run may find itself (`density_ratio_weights`).

    Attributes:
        beta: > 0.
    """

    columns: ClassVar[Mapping[str, float]] = {"density_ratio": 1.0}
    beta: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.beta > 0, f"beta must be positive; given {self.beta}")

    def initial_state(self) -> State:
        """No reward seen yet."""
        return {name: torch.zeros(()) for name in ("sum_good", "count_good", "sum_bad", "count_bad")}

    def statistics(self, sides: Sides, outcome_E3: Tensor | None) -> State:
        """Sums and counts of rewards by label."""
        r = self.beta * sides.rho_w.detach()
        good = torch.ones_like(r) if outcome_E3 is None else outcome_E3[:, 0]
        bad = torch.zeros_like(r) if outcome_E3 is None else outcome_E3[:, 1]
        return {
            "sum_good": (good * r).sum(),
            "count_good": good.sum(),
            "sum_bad": (bad * r).sum(),
            "count_bad": bad.sum(),
        }

    def next_state(self, state: State, sums: State) -> State:
        """Sums since the start."""
        return {name: state[name].to(sums[name]) + sums[name] for name in sums}

    def delta(self, state: State) -> Tensor:
        """The shift: midpoint of the two means; the one mean there is while a kind has not been seen."""
        seen_good, seen_bad = state["count_good"] > 0, state["count_bad"] > 0
        mean_good = state["sum_good"] / state["count_good"].clamp(min=1e-6)
        mean_bad = state["sum_bad"] / state["count_bad"].clamp(min=1e-6)
        midpoint = (mean_good + mean_bad) / 2
        return torch.where(seen_good & seen_bad, midpoint, torch.where(seen_good, mean_good, mean_bad))

    def desirable_loss(self, sides: Sides, state: State) -> Tensor:
        """(E,) losses."""
        return softplus(self.delta(state) - self.beta * sides.rho_w)

    def undesirable_loss(self, sides: Sides, state: State) -> Tensor:
        """(E,) losses."""
        return self.column(sides, "density_ratio") * softplus(self.beta * sides.rho_w - self.delta(state))

    def diagnostics(self, sides: Sides, state: State) -> dict[str, Tensor]:
        """The shift."""
        return {"bco/delta": self.delta(state).to(sides.rho_w.dtype).expand_as(sides.rho_w)}


def oriented(sides: Sides, outcome_E3: Tensor | None) -> tuple[Sides, Tensor | float]:
    """Turn every comparison so that the side with more votes is the winner.

    Losses that mix rows cannot weigh a comparison and its mirror image one by one: the mirror would disturb the others.

    Returns:
        The turned sides, and the (E,) share of votes against the winner.
    """
    if outcome_E3 is None:
        return sides, 0.0
    win, lose = outcome_E3[:, 0], outcome_E3[:, 1]
    turn, mirrored = lose > win, sides.swapped()

    def pick(here: Tensor | None, there: Tensor | None) -> Tensor | None:
        if here is None or there is None:
            return None
        return torch.where(turn.reshape(-1, *[1] * (here.dim() - 1)), there, here)

    names = [name for f in fields(Sides) if (name := f.name).endswith(("_w", "_l"))]
    turned: dict[str, Any] = {name: pick(getattr(sides, name), getattr(mirrored, name)) for name in names}
    return replace(sides, **turned), torch.minimum(win, lose)


@dataclass(frozen=True, kw_only=True)
class AOT(Objective):
    """Alignment by optimal transport, paired: DPO between order statistics (arXiv 2406.05882, eq. 8).

    log pi(y_w) - log pi(y_l) and its reference counterpart are sorted separately over the micro-batch; the k-th
    difference is the margin of the row that holds the policy's k-th value. The loss depends on the micro-batch size,
    and at size 1 is DPO.

    Attributes:
        beta: > 0.
        label_smoothing: e in [0, 0.5).
    """

    batch_coupled: ClassVar[bool] = True
    compares_logp: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"logp"})
    beta: float = 0.01
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.beta > 0, f"beta must be positive; given {self.beta}")
        require(
            0 <= self.label_smoothing < 0.5,
            f"label_smoothing must lie in [0, 0.5); given {self.label_smoothing}",
        )

    def quantities(self, sides: Sides) -> tuple[Tensor, Tensor]:
        """The two (E,) quantities whose distributions are compared."""
        logp_w, logp_l = sides.both("logp")
        policy = logp_w - logp_l
        return policy, (policy - (sides.rho_w - sides.rho_l)).detach()

    def losses(self, sides: Sides, outcome_E3: Tensor | None, state: State) -> Tensor:
        """(E,) losses, each on the row that holds the first quantity."""
        sides, against = oriented(sides, outcome_E3)
        first, second = self.quantities(sides)
        order = first.argsort(stable=True)
        u = torch.zeros_like(first).index_put((order,), self.beta * (first[order] - second.sort().values))
        loss = smoothed_logistic(u, self.label_smoothing)
        if outcome_E3 is None:
            return loss
        return (outcome_E3[:, 0] + outcome_E3[:, 1] - against) * loss + against * smoothed_logistic(
            -u, self.label_smoothing
        )


@dataclass(frozen=True, kw_only=True)
class AOTUnpaired(AOT):
    """Alignment by optimal transport, unpaired: log-ratios of winners and of losers are sorted separately.

    arXiv 2406.05882, eq. 6. It takes pairs, but does not use who was compared with whom. A margin belongs to the row
    that holds the winner.
    """

    compares_logp: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset()

    def quantities(self, sides: Sides) -> tuple[Tensor, Tensor]:
        """Winners' and losers' log-ratios."""
        return sides.rho_w, sides.rho_l


@dataclass(frozen=True, kw_only=True)
class BetaDPO(Pairwise):
    """beta-DPO: DPO with a beta set by the batch, on a sampled part of its rows (arXiv 2407.08639, eqs. 6 to 8).

    M0 and S0 are running means of the margins' mean and standard deviation over the global batch, set by the first
    batch (the authors' code starts them at 0). Of a micro-batch's N rows, floor((1 - drop) N) are drawn without
    replacement with weights exp(-(m - M0)^2 / (2 S0^2)), and beta_b = max(0.001, beta (1 + a (mean of their m - M0))).
    Rows not drawn have loss 0, the others are scaled up by N / kept, so the mean over N is the mean over those kept.

    The draw depends on `seed` and the state's step counter alone, so a resumed run repeats it; reading the counter
    waits for the device once a micro-batch.

    Attributes:
        a: how strongly beta follows the batch, >= 0; beta = 0.1 times 1 + a (gap in nats).
        drop: share of rows left out, in [0, 1).
        momentum: of M0 and S0, in [0, 1).
        seed: of the draw.
    """

    batch_coupled: ClassVar[bool] = True
    a: float = 0.6
    drop: float = 0.2
    momentum: float = 0.9
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.a >= 0, f"a must be at least 0; given {self.a}")
        require(0 <= self.drop < 1, f"drop must lie in [0, 1); given {self.drop}")
        require(0 <= self.momentum < 1, f"momentum must lie in [0, 1); given {self.momentum}")

    def initial_state(self) -> State:
        """No batch seen yet."""
        return {"M0": torch.zeros(()), "S0": torch.zeros(()), "step": torch.zeros((), dtype=torch.int64)}

    def statistics(self, sides: Sides, outcome_E3: Tensor | None) -> State:
        """Sum, sum of squares and count of the margins."""
        m = self.margin(oriented(sides, outcome_E3)[0]).detach()
        return {"sum": m.sum(), "squares": (m * m).sum(), "count": torch.ones_like(m).sum()}

    def next_state(self, state: State, sums: State) -> State:
        """Moments moved towards this batch's, and one more step."""
        count = sums["count"].clamp(min=1)
        mean = sums["sum"] / count
        std = (sums["squares"] / count - mean**2).clamp(min=0).sqrt()
        first = state["step"].to(mean.device) == 0

        def moved(old: Tensor, new: Tensor) -> Tensor:
            return torch.where(first, new, self.momentum * old.to(new) + (1 - self.momentum) * new)

        return {
            "M0": moved(state["M0"], mean),
            "S0": moved(state["S0"], std),
            "step": state["step"] + 1,
        }

    def losses(self, sides: Sides, outcome_E3: Tensor | None, state: State) -> Tensor:
        """(E,) losses, 0 for rows not drawn."""
        sides, against = oriented(sides, outcome_E3)
        m = self.margin(sides)
        kept = self.kept(m.detach(), state)
        share = kept.to(m.dtype) / kept.sum().clamp(min=1)
        u = self.batch_beta(m.detach(), share, state) * m
        loss = softplus(-u)
        if outcome_E3 is not None:
            loss = (outcome_E3[:, 0] + outcome_E3[:, 1] - against) * loss + against * softplus(u)
        # rows left out must not send NaN gradients through 0 * inf
        return torch.where(kept, loss, torch.zeros_like(loss)) * (share.max() * len(m))

    def kept(self, m: Tensor, state: State) -> Tensor:
        """(E,) True for the rows drawn, by the Gumbel trick: the largest log-weights plus counted noise."""
        keep = max(1, math.floor((1 - self.drop) * len(m) + 1e-9))
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + int(state["step"])) % 2**63)
        uniform = torch.rand(len(m), generator=generator, dtype=torch.float64).clamp(min=1e-300)
        gumbel = -torch.log(-torch.log(uniform).clamp(max=-1e-300))
        log_weight = -((m - state["M0"]) ** 2) / (2 * state["S0"].clamp(min=1e-6) ** 2)
        chosen = (log_weight + gumbel.to(m)).topk(keep).indices
        return torch.zeros_like(m, dtype=torch.bool).index_fill(0, chosen, True)

    def batch_beta(self, m: Tensor, share: Tensor, state: State) -> Tensor:
        """The micro-batch's beta."""
        return (self.beta * (1 + self.a * ((share * m).sum() - state["M0"]))).clamp(min=1e-3)

    def diagnostics(self, sides: Sides, state: State) -> dict[str, Tensor]:
        """This micro-batch's beta, margins as given."""
        m = self.margin(sides).detach()
        kept = self.kept(m, state)
        beta = self.batch_beta(m, kept.to(m.dtype) / kept.sum(), state)
        return {"beta_dpo/beta": beta.expand_as(m), "beta_dpo/kept": kept.to(m.dtype)}


__all__ = ["AOT", "BCO", "KTO", "AOTUnpaired", "APOZeroUnpaired", "BetaDPO", "oriented"]
