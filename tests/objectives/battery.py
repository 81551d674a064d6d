"""One row an objective: `test_battery.py` runs every check on every row.

A new objective enters with one line in `ROWS`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from prefopt import objectives
from prefopt.objectives import Objective, Score, Sides

E = 7
TOKENS = 9


@dataclass(frozen=True)
class Row:
    """What is expected of one objective.

    Attributes:
        name: for `objectives.get`.
        hyper: hyper-parameters.
        winner: what gradient descent does to rho_w at zero margin: "raise", "lower" or "keep".
        loser: the same of rho_l.
        finite_above: the loss is finite in float32 where every margin is above this (and below 1e4).
        why_infinite: reason for a `finite_above` above -1e4.
        smooth: the loss can be differentiated by finite differences (no detached factor).
        soft_votes: the loss is linear in the shares of win and lose.
        reward: reward of a log-ratio of 1, in units of beta.
        takes_beta_0: whether beta may be 0.
    """

    name: str
    hyper: dict[str, Any] = field(default_factory=dict)
    winner: Literal["raise", "lower", "keep"] = "raise"
    loser: Literal["raise", "lower", "keep"] = "lower"
    finite_above: float = -1e4
    why_infinite: str = ""
    smooth: bool = True
    soft_votes: bool = True
    reward: float = 1.0
    takes_beta_0: bool = False

    @property
    def id(self) -> str:
        return "-".join([self.name, *(f"{k}={v}" for k, v in self.hyper.items())])

    @property
    def objective(self) -> Objective:
        return objectives.get(self.name, **self.hyper)


EXPLODES = "its weight grows like a power of R on mislabelled pairs, which is what r_max is for"

ROWS = [
    Row("dpo"),
    Row("dpo", {"label_smoothing": 0.2}),
    Row("dpo", {"margin": "average"}),
    Row("cdpo"),
    Row("robust"),
    Row("ipo"),
    Row("ipo", {"length_normalize": False}),
    Row("hinge"),
    Row("exo"),
    *(Row("f_dpo", {"f": f}) for f in ("reverse_kl", "forward_kl", "js", "alpha", "chi2")),
    *(Row("f_po", {"f": f}) for f in ("forward_kl", "reverse_kl", "jeffrey", "js", "alpha", "hellinger")),
    *(
        Row("f_po", {"f": f, "label_smoothing": 0.0})
        for f in ("forward_kl", "jeffrey", "js", "alpha", "hellinger")
    ),
    Row("r_dpo"),
    Row("ld_dpo", smooth=False),  # rho enters through the tokens, which the check moves only here
    Row("wpo", smooth=False),
    Row("discopop", winner="lower", loser="raise"),  # not monotone around 0, as its docstring says
    Row("nca"),
    Row("sppo"),
    Row("apo_zero"),
    Row("apo_down", winner="keep"),
    Row("dpop"),
    Row("bco_pair"),
    Row("simpo"),
    Row("simpo", {"gamma": 0.0, "beta": 10.0}),
    Row("orpo"),
    Row("simpo", {"label_smoothing": 0.1}),
    Row("alpha_po"),
    Row("alpha_po", {"alpha": -0.5}),
    Row("alpha_po", {"alpha": 0.0, "label_smoothing": 0.2}),
    Row("contrastive_po"),
    Row("contrastive_po", {"label_smoothing": 0.2, "average": "batch"}, smooth=False),
    Row("contrastive_po", {"loss": "hinge"}),
    Row("contrastive_po", {"loss": "ipo"}),
    Row("slic"),
    Row("tpo"),
    Row("tpo", {"loss": "hinge", "beta": 0.2}),
    Row("tpo", {"loss": "ipo", "average": "batch"}, smooth=False),
    Row("tpo", {"loss": "tpo-l", "beta": 2.0, "label_smoothing": 0.1}),
    Row("tpo", {"tpo_alpha": 0.0}),
    Row("sft", loser="keep"),
    Row("sft", {"average": "batch"}, loser="keep", smooth=False),
    Row("longvpo", takes_beta_0=True),
    Row("longvpo", {"alpha": 0.0}, takes_beta_0=True),
    Row("longvpo", {"average": "batch"}, smooth=False, takes_beta_0=True),
    Row("longvpo", {"beta": 0.0}, loser="keep", takes_beta_0=True),
    Row("kto"),
    Row("apo_zero_unpaired"),
    Row("apo_zero_unpaired", {"desirable_weight": 1.3, "undesirable_weight": 0.7}),
    Row("nash_md"),
    Row("nash_md", {"beta": 0.008}),
    Row("xpo"),
    Row("xpo", {"alpha": 0.1, "label_smoothing": 0.1}),
    Row("bco", smooth=False),
    Row("aot", smooth=False, soft_votes=False),
    Row("aot", {"label_smoothing": 0.1}, smooth=False, soft_votes=False),
    Row("aot_unpaired", smooth=False, soft_votes=False),
    Row("beta_dpo", smooth=False, soft_votes=False),
    Row("dpo_rk"),
    Row("dpo_rk", {"nu": 1.2, "tie_weight": 0.5}),
    Row("dpo_rk", {"nu": 1.0}),
    Row("dpo_rk", {"margin": "average"}),
    Row("dpo_d"),
    Row("dpo_d", {"alpha": -2.5}),
    Row("dpo_d", {"nu": 0.0}),
    Row("bpo", {"h": "lr"}),
    Row("bpo", {"r_max": 30.0}),
    Row("bpo", {"lambda_": 1.2, "r_max": 30.0}),
    Row("bpo", {"lambda_": 1.2}, finite_above=-300, why_infinite=EXPLODES),
    Row("bpo", finite_above=-800, why_infinite=EXPLODES),
    Row("bpo", {"h": "ba", "lambda_": -0.9}, finite_above=-800, why_infinite=EXPLODES),
    Row("bpo", {"h": "kliep"}, finite_above=-800, why_infinite=EXPLODES),
    Row("bpo", {"h": "kliep", "r_max": 100.0}),
    Row("bpo", {"h": "lsif"}, finite_above=-400, why_infinite=EXPLODES),
    Row(
        "bpo", {"ratio": "simpo", "beta": 2.0, "gamma": 1.6, "mix_weight": 0.3, "r_min": 0.01, "r_max": 30.0}
    ),
    *(Row("bpo", {"ratio": "fdpo", "f": f, "r_max": 30.0}) for f in ("forward_kl", "js", "chi2")),
    *(
        Row("bpo", {"ratio": "fpo", "f": f, "r_max": 30.0})
        for f in ("forward_kl", "jeffrey", "js", "alpha", "hellinger")
    ),
    Row("dpo_rk", {"margin": "clipped"}),
    Row("diffusion_dpo", reward=0.5),
    Row("diffusion_dpo", {"beta": 0.2, "label_smoothing": 0.1}, reward=0.5),
    *(
        Row("diffusion_kto", {"utility": u, "beta": beta}, smooth=False)
        for u in ("sigmoid", "loss_averse", "risk_seeking")
        for beta in (0.1, 1000.0)
    ),
    Row("sopo"),
    Row("sopo", {"variant": "dsopo", "beta": 0.1}),
    Row("sopo", {"C": 1.0, "variant": "sopo_no_filter", "beta": 3.0}),
    Row("mapo"),
    Row("mapo", {"snr_value": 0.01, "num_train_timesteps": 10}),
    Row("step_dpo"),
    Row("step_dpo", {"clip_eps": None, "beta": 0.1}),
    Row("step_dpo", {"clip_eps": 0.9999, "beta": 0.1}),
    Row("lpo"),
    Row("condition_po", {"margin": 1e4, "beta": 0.2}, smooth=False, reward=0.5),
    Row("condition_po", {"form": "sigmoid", "beta": 0.2}, reward=0.5),
    Row("condition_po", {"form": "sigmoid", "beta": 0.2, "per_beta": False}, reward=0.5),
    Row("condition_po", {"form": "sigmoid", "beta": 0.2, "diffusion_draw": "pair"}, reward=0.5),
    Row("condition_po", {"form": "sigmoid", "beta": 0.2, "consistency_weight": 0.5}, reward=0.5),
    Row("controlnet_pp", loser="keep"),
    Row("controlnet_pp", {"consistency_weight": 0.0}, loser="keep"),
    Row("lrm"),
    Row("symmpo"),
    Row("symmpo", {"response_weight": 0.0, "margin_units": "reward"}, loser="keep"),
    Row("symmpo", {"dpo_on_contrast": True, "average": True}),
    Row("symmpo", {"pair_weight": 0.0, "margin_weight": 0.0, "anchor_delta": 0.5}),
    Row("mdpo"),
    Row("mdpo", {"image_weight": 0.0}),
    Row("svco", loser="keep"),
    Row("opa_dpo"),
    Row("vdpo", {"alpha": 0.5}),
    Row("vdpo", {"alpha": -0.5, "prior": "reference", "image_weight": 0.3}),
    Row("povid"),
    Row("povid", {"mix": 1.0}, loser="keep"),
    Row("ha_dpo"),
    Row("ha_dpo", {"auxiliary_weight": 0.5}),
    # rho enters through the tokens, which the check moves only here
    Row("ddpo", smooth=False),
    Row("ddpo", {"normalize": False, "gamma": 0.5}, smooth=False),
    Row("chip", smooth=False),
    Row("chip", {"combine": "separate", "kappa": 0.0}, smooth=False),
    Row("mpo"),
    Row("dpo+svco"),
    *(Row("ssapo", {"leader": leader}) for leader in ("shift", "dual", "weights", "prob_atoms")),
    Row("ssapo", {"leader": "prob_atoms", "floor": "clamp"}),
    Row("ssapo", {"leader": "prob_atoms", "pieces": 1, "beta": 1.0}),
    Row("spa"),
    Row("dpo+0.2*bco_pair+sft"),
    Row("ssapo+0.5*spa"),
    # rho enters through the tokens, which the check moves only here
    *(
        Row(name, {"ld_alpha": 0.3, **({} if name == "dpo+bco_pair" else {"rpo_alpha": 0.5})}, smooth=False)
        for name in ("ipo", "nca", "sppo", "dpo+bco_pair")
    ),
    Row("hinge", {"use_weighting": True, "ld_alpha": 0.0}, smooth=False),
    Row("dpo_rk", {"use_weighting": True}, smooth=False),
    Row("simpo", {"use_weighting": True, "rpo_alpha": 0.2, "average": "batch"}, smooth=False),
    Row("aot", {"ld_alpha": 0.5}, smooth=False, soft_votes=False),
    Row("dpo_rk+dpo_d"),
    Row("kto+0.5*bco", smooth=False),
]


BRANCHES = sorted({name for row in ROWS for name in row.objective.branches})


def sides(rho_w: Tensor, rho_l: Tensor, *, seed: int = 0, equal_lengths: bool = False) -> Sides:
    """Sides with every optional field, consistent with each other: token sums, lengths, log-probabilities."""
    g = torch.Generator().manual_seed(seed)
    like = {"generator": g, "dtype": torch.float64}
    n = len(rho_w)
    lengths = [torch.randint(3, TOKENS + 1, (n,), generator=g).to(rho_w) for _ in range(2)]
    if equal_lengths:
        lengths[1] = lengths[0]
    reference = [-3 * length * (0.5 + torch.rand(n, **like)).to(rho_w) for length in lengths]
    rho = [rho_w, rho_l]
    # a policy's log-probability is negative: a log-ratio far above 0 means a reference far below it
    logp = [r.clamp(max=0) + level for r, level in zip(rho, reference, strict=True)]
    return Sides(
        rho_w=rho_w,
        rho_l=rho_l,
        length_w=lengths[0],
        length_l=lengths[1],
        logp_w=logp[0],
        logp_l=logp[1],
        rho_tokens_w=tokens(rho[0], lengths[0]),
        rho_tokens_l=tokens(rho[1], lengths[1]),
        logp_tokens_w=tokens(logp[0], lengths[0]),
        logp_tokens_l=tokens(logp[1], lengths[1]),
        log_p2_w=1.2 * reference[0],
        log_p2_l=1.2 * reference[1],
        entropy_w=0.8 * lengths[0],
        entropy_l=0.8 * lengths[1],
        top1_w=(lengths[0] / 2).floor(),
        top1_l=(lengths[1] / 2).floor(),
        logp_own_w=0.9 * logp[0].detach(),
        logp_own_l=1.1 * logp[1].detach(),
        consistency_w=torch.rand(n, **like).to(rho_w),
        consistency_l=torch.rand(n, **like).to(rho_w),
        seen_w=(torch.arange(n) % 2).to(rho_w),
        seen_l=(torch.arange(n) % 3).clamp(max=1).to(rho_w),
        changed_w=(torch.arange(TOKENS) % 3 == 1).to(rho_w).expand(n, -1),
        changed_l=(torch.arange(TOKENS) % 2 == 1).to(rho_w).expand(n, -1),
        kl_w=torch.rand(n, **like).to(rho_w),
        kl_l=2 * torch.rand(n, **like).to(rho_w),
        branches={name: branch(n, like, rho_w) for name in BRANCHES},
        columns=columns(n, rho_w.dtype),
    )


def branch(n: int, like: dict[str, Any], rho_w: Tensor) -> Score:
    """One branch of n comparisons: what an objective may read of it."""
    length = torch.randint(3, TOKENS + 1, (n,), generator=like["generator"]).to(rho_w)
    rho = 3 * torch.randn(n, **like).to(rho_w)
    logp = -3 * length * (0.5 + torch.rand(n, **like)).to(rho_w)
    return Score(rho=rho, logp=logp, length=length, rho_tokens=tokens(rho, length))


def columns(n: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Whatever an objective names in `columns`; one comparison in four has the values of an absent one."""
    i = torch.arange(n, dtype=dtype)
    there = i % 4 != 3
    values = {
        "robust_moved": torch.where(there, (0.37 * i) % 0.9, 0.0),
        "robust_shift": torch.where(there, 0.1 + 0.1 * (i % 5), 0.0),
        "robust_lambda": torch.where(there, 0.4 + 0.1 * (i % 5), -1.0),
        "robust_low": torch.where(there, -1 - i % 3, 0.0),
        "spa_flag": (i % 2) * there,
        "min_similarity": torch.where(there, (0.23 * i) % 0.9, 0.0),
        "rejected_reward": torch.where(there, (0.07 * i) % 0.4, -torch.inf),
        "tau": torch.where(there, 0.45, torch.inf),
        # absent: they say which side is whose, whatever the outcome; test_self_play.py has them
        "probability": torch.full_like(i, -1.0),
        "reference_first": torch.full_like(i, -1.0),
    }
    assert set(values) == {name for row in ROWS for name in row.objective.columns}
    return {name: value.to(dtype) for name, value in values.items()}


def tokens(rho: Tensor, length: Tensor) -> Tensor:
    """(E, TOKENS) equal shares of rho over the first `length` positions."""
    within = torch.arange(TOKENS) < length[:, None]
    return torch.where(within, (rho / length)[:, None], 0.0)


def random_sides(
    seed: int = 0, dtype: torch.dtype = torch.float64, n: int = E, requires_grad: bool = False
) -> Sides:
    """Log-ratios of a few nats."""
    g = torch.Generator().manual_seed(seed + 100)
    rho = [4 * torch.randn(n, generator=g, dtype=torch.float64) for _ in range(2)]
    # reference-free losses read rho as a log-probability, which is negative
    rho = [(r - 12).to(dtype).requires_grad_(requires_grad) for r in rho]
    return sides(rho[0], rho[1], seed=seed)


def at(s: Sides, rows: Tensor) -> Sides:
    """Some of the comparisons."""
    taken = {
        name: getattr(s, name)[rows] for name in s.__dataclass_fields__ if name not in ("columns", "branches")
    }
    branches = {
        name: Score(**{part: getattr(score, part)[rows] for part in Score.__dataclass_fields__})
        for name, score in s.branches.items()
    }
    return replace(
        s, columns={name: value[rows] for name, value in s.columns.items()}, branches=branches, **taken
    )


def cast(s: Sides, dtype: torch.dtype) -> Sides:
    own = {n: getattr(s, n).to(dtype) for n in s.__dataclass_fields__ if n not in ("columns", "branches")}
    parts = Score.__dataclass_fields__
    branches = {
        name: Score(**{part: getattr(score, part).to(dtype) for part in parts})
        for name, score in s.branches.items()
    }
    return replace(
        s, columns={name: value.to(dtype) for name, value in s.columns.items()}, branches=branches, **own
    )


def call(objective: Objective, s: Sides, outcome: Tensor | None = None, state: Any = None) -> Tensor:
    """The objective through its public door, with the columns it says it needs and no others."""
    columns = {name: s.columns[name] for name in objective.columns if name in s.columns}
    for need in objective.needs:
        for name in [need] if need in s.__dataclass_fields__ else [f"{need}_w", f"{need}_l"]:
            columns[name] = getattr(s, name)
    for name in objective.branches:
        columns |= {f"{part}_{name}": getattr(s.branches[name], part) for part in Score.__dataclass_fields__}
    if objective.unpaired:
        desirable = torch.ones(len(s.rho_w), dtype=torch.bool) if outcome is None else outcome
        return objective(s.rho_w, desirable, state=state, **columns)
    return objective(s.rho_w, s.rho_l, outcome, state=state, **columns)
