"""What an objective is: a frozen set of hyper-parameters, called on log-ratios, giving one loss per comparison.

Objectives know nothing but tensors. They import torch and nothing else of the project, so they can be lifted into
any training loop:

    >>> import torch
    >>> from prefopt import objectives
    >>> dpo = objectives.get("dpo", beta=0.1)
    >>> dpo(rho_w=torch.tensor([1.0, 0.0]), rho_l=torch.tensor([-1.0, 0.0]))
    tensor([0.5981, 0.6931])

Symbols (the papers'), used in every file of this folder:
    rho     log-ratio of one sample: log pi_theta(y|x) - log pi_ref(y|x), summed over its tokens (nats). For an
            objective without a reference, log pi_ref is taken as 0 and rho is the policy's own log-probability.
    _w, _l  the winning (chosen) and the losing (rejected) side of a comparison
    m       margin rho_w - rho_l, or another estimate of it (`margins.py`)
    u       beta * m, the reward margin, dimensionless
Shape suffixes: E comparisons (edges), T token positions of the longest side.
"""

from __future__ import annotations

import difflib
import math
import types
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from prefopt.objectives.sides import Branch, Score, Sides

State = Mapping[str, Tensor]
"""Statistics an objective carries from step to step (running means); empty for most."""


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Base of all objectives: a frozen dataclass whose fields are the hyper-parameters.

    A new objective defines `win_loss`; one that has an opinion on ties also `tie_loss`. Everything else (soft
    votes, lost comparisons, running statistics, the call below) is here, once.
    """

    needs_reference: ClassVar[bool] = True
    """False for reference-free objectives: their rho is the policy's own log-probability."""
    has_tie_term: ClassVar[bool] = False
    unpaired: ClassVar[bool] = False
    """True where a row is one sample with a label instead of two samples (KTO, BCO)."""
    winner_alone: ClassVar[bool] = False
    """True where the loss reads the winner and nothing of the loser (SFT): single good samples will do as well as pairs."""
    reads_loser: ClassVar[bool] = True
    """False where the loss reads branches in place of the losing side, so that rows need not have one."""
    compares_logp: ClassVar[bool] = False
    """True where policy and reference are compared apart, so that the policy's log-probabilities are read for log-ratios."""
    batch_coupled: ClassVar[bool] = False
    """True where a row's loss depends on the other rows of the micro-batch (sorting, sampling); running
    statistics do not count, since they come in through the state."""
    state_of_rows: ClassVar[bool] = False
    """True where the state tells of the very rows that are judged, so that evaluations need one of their own."""
    wins_only: ClassVar[bool] = False
    """True where branches go with the winner as the winner, so that a comparison cannot be lost or split by votes."""
    required: ClassVar[frozenset[str]] = frozenset()
    """Hyper-parameters for which no value is known that could be a default: None until they are given."""
    needs: ClassVar[frozenset[str]] = frozenset()
    """Fields of `Sides` read besides rho_w and rho_l: among "length", "logp", "rho_tokens",
    "logp_tokens", "log_p2", "entropy", "top1", "logp_own", "consistency", "seen", "changed", "kl". What the policy's distribution gives (log_p2, entropy, top1) has no gradient."""
    branches: ClassVar[Mapping[str, Branch]] = {}
    """Further samples that are read with each comparison, by the names of their log-ratios behind `rho_`."""
    columns: ClassVar[Mapping[str, float]] = {}
    """Numbers of a comparison read where the data has them (`Sides.columns`), by name, with the value that stands for
    one that is absent. Unlike `needs` they are data, so nothing is computed for them."""

    def __post_init__(self) -> None:
        hints = _type_hints(type(self))  # type: ignore[arg-type]
        for f in fields(self):
            value = checked(f.name, getattr(self, f.name), hints[f.name])
            object.__setattr__(self, f.name, value)

    @property
    def reward_scale(self) -> float:
        """Factor from log-ratio to logged reward: `rewards/chosen` = reward_scale * rho_w."""
        return float(getattr(self, "beta", 1.0))

    def check_data(self, has_ties: bool) -> None:
        """Refuse data that this objective cannot use; called once before training and by `__call__`.

        Args:
            has_ties: whether any comparison has a share of ties (after `apply_ties_policy`).

        Raises:
            ValueError: there are ties and no tie term.
        """
        if has_ties and not self.has_tie_term:
            raise ValueError(
                f"{type(self).__name__} has no tie term, but some comparisons are ties. Choose what ties mean with "
                "objectives.apply_ties_policy(outcome, 'drop' | 'as_win' | 'soft_half'), or use an objective that "
                "models them: dpo_rk, dpo_d."
            )

    def check_given(self) -> None:
        """Refuse to be used before all of `required` are given; called before training and by losses that read them.

        Raises:
            ValueError: one is missing.
        """
        missing = sorted(name for name in self.required if getattr(self, name) is None)
        if missing:
            raise ValueError(
                f"{type(self).__name__} needs {' and '.join(missing)}, for which no default is known: "
                f"give {', '.join(f'{name}=...' for name in missing)}"
            )

    def column(self, sides: Sides, name: str) -> Tensor:
        """(E,) one of `columns` in the dtype of the log-ratios, without gradient."""
        if name not in sides.columns:
            return torch.full_like(sides.rho_w, self.columns[name], requires_grad=False)
        return sides.columns[name].detach().to(sides.rho_w.dtype)

    def __call__(
        self,
        rho_w: Tensor,
        rho_l: Tensor,
        outcome: Tensor | None = None,
        *,
        state: State | None = None,
        **columns: Tensor,
    ) -> Tensor:
        """One loss per comparison, unreduced.

        Args:
            rho_w: (E,) log-ratio of each comparison's first side, the winner unless `outcome` says otherwise; nats,
                any floating dtype (float32 or wider advised).
            rho_l: (E,) log-ratio of the other side.
            outcome: what the judge said. None: the first side won everywhere. (E,) boolean: True where the two
                sides tie. (E, 3) floats: shares of (win, lose, tie), summing to 1.
            state: running statistics as returned by `next_state`; computed from these rows alone if left out.
            columns: other fields of `Sides`, by name (`length_w=...`), those of branches (`rho_c=...`), and numbers named
                in `columns`.

        Returns:
            (E,) losses in the dtype of `rho_w`.

        Raises:
            ValueError: shapes differ, a needed column is missing, or there are ties and the objective has no
                tie term.

        Example:
            >>> from prefopt.objectives import get
            >>> rk = get("dpo_rk", beta=0.3, nu=3.0)
            >>> rk(torch.zeros(2), torch.zeros(2), torch.tensor([False, True]))
            tensor([1.3863, 0.6931])
        """
        sides = make_sides(self, rho_w, rho_l, columns)
        outcome_E3 = None if outcome is None else as_shares(outcome, like=rho_w)
        if outcome_E3 is not None:
            self.check_data(has_ties=bool((outcome_E3[:, 2] > 0).any()))
        if state is None:
            state = self.next_state(self.initial_state(), self.statistics(sides, outcome_E3))
        return self.losses(sides, outcome_E3, state)

    def losses(self, sides: Sides, outcome_E3: Tensor | None, state: State) -> Tensor:
        """(E,) losses of prepared sides; the training loop's entry, free of checks and host reads."""
        good_alone = self.winner_alone and sides.logp_l is None  # single good samples: there is no other side
        if outcome_E3 is None or good_alone:
            return self.win_loss(sides, state)
        if self.wins_only:
            if bool((outcome_E3[:, 1] > 0).any()):
                raise ValueError(
                    f"{type(self).__name__} compares the winner's answer or image with others of its row, so that "
                    "sides cannot be exchanged: it takes plain wins, and some comparisons are lost or split by votes. Turn the rows round, or leave out the votes"
                )
            win_E = outcome_E3[:, 0]
            return win_E * self.win_loss(sides.where(win_E > 0), state)
        total_E = torch.zeros_like(sides.rho_w)
        terms = [(0, sides, self.win_loss), (1, sides.swapped(), self.win_loss)]
        if self.has_tie_term:
            terms.append((2, sides, self.tie_loss))
        for k, seen, loss in terms:
            share_E = outcome_E3[:, k]
            total_E = total_E + share_E * loss(seen.where(share_E > 0), state)
        return total_E

    def win_loss(self, sides: Sides, state: State) -> Tensor:
        """(E,) loss of comparisons whose first side won."""
        raise NotImplementedError

    def tie_loss(self, sides: Sides, state: State) -> Tensor:
        """(E,) loss of comparisons that tie; only where `has_tie_term`."""
        raise NotImplementedError

    # -- running statistics: sums that the loop adds over processes, then one pure update ---------------------

    def initial_state(self) -> State:
        """Statistics before the first batch."""
        return {}

    def statistics(self, sides: Sides, outcome_E3: Tensor | None) -> State:
        """Sums and counts over these rows (additive over processes, detached) that `next_state` needs."""
        return {}

    def next_state(self, state: State, sums: State) -> State:
        """The state for the batch whose (summed) `statistics` are given; pure."""
        return state

    def diagnostics(self, sides: Sides, state: State) -> dict[str, Tensor]:
        """Named (E,) values worth logging (share of clipped pairs, weights, ...); NaN for rows that have none."""
        return {}

    def replace(self, **changes: Any) -> Objective:
        """A copy with other hyper-parameters."""
        return replace(self, **changes)


@cache
def _type_hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def checked(name: str, value: Any, hint: Any) -> Any:
    """A hyper-parameter in the type its field declares; raises ValueError where it does not fit."""
    choices = get_args(hint) if get_origin(hint) in (types.UnionType, Literal) else (hint,)
    if value is None and (type(None) in choices or hint is None):
        return None
    if get_origin(hint) is Literal:
        if value not in choices:
            near = difflib.get_close_matches(str(value), [str(c) for c in choices], n=1)
            hint_text = f" (did you mean {near[0]}?)" if near else ""
            raise ValueError(
                f"{name} must be one of {', '.join(map(str, choices))}; given {value!r}{hint_text}"
            )
        return value
    if float in choices:
        try:  # strings too: YAML reads 1e-3 as one
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(f"{name} must be a finite number; given {value!r}")
        return number
    if hint is int and (isinstance(value, bool) or not isinstance(value, int)):
        raise ValueError(f"{name} must be an integer; given {value!r}")
    if hint is bool and not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false; given {value!r}")
    return value


def require(condition: bool, message: str) -> None:
    """Raise ValueError with `message` unless `condition`."""
    if not condition:
        raise ValueError(message)


def make_sides(objective: Objective, rho_w: Tensor, rho_l: Tensor, columns: Mapping[str, Tensor]) -> Sides:
    """Check shapes and presence of everything `objective` reads, and bundle it."""
    if rho_w.shape != rho_l.shape or rho_w.dim() != 1:
        raise ValueError(
            f"rho_w and rho_l must be vectors of the same length, one entry a comparison; "
            f"given {tuple(rho_w.shape)} and {tuple(rho_l.shape)}"
        )
    known = {f.name for f in fields(Sides)}
    of_branch = {f"{f.name}_{name}": (name, f.name) for name in objective.branches for f in fields(Score)}
    own = {name: value for name, value in columns.items() if name in known}
    rest = {name: value for name, value in columns.items() if name not in known | set(of_branch)}
    for name, value in columns.items():
        if value.shape[:1] != rho_w.shape:
            raise ValueError(
                f"column {name} has shape {tuple(value.shape)}, needed one entry for each of {len(rho_w)} comparisons"
            )
    for need in sorted(objective.needs):
        names = [need] if need in known else [f"{need}_w", f"{need}_l"]
        missing = [name for name in names if name not in own]
        if missing:
            raise ValueError(
                f"{type(objective).__name__} also needs {' and '.join(missing)}: "
                f"call it with {', '.join(f'{name}=...' for name in missing)}"
            )
    given: dict[str, dict[str, Tensor]] = {name: {} for name in objective.branches}
    for name, branch in objective.branches.items():
        read = f"rho_{name}" if branch.reference else f"logp_{name}"
        if read not in columns:
            raise ValueError(f"{type(objective).__name__} also needs {read}: call it with {read}=...")
    for name, (branch_name, part) in of_branch.items():
        if name in columns:
            given[branch_name][part] = columns[name]
    branches = {name: Score(**parts) for name, parts in given.items()}
    return Sides(rho_w=rho_w, rho_l=rho_l, columns=rest, branches=branches, **own)


def as_shares(outcome: Tensor, like: Tensor) -> Tensor:
    """Outcomes as (E, 3) shares of (win, lose, tie) in the dtype of `like`; checks their form."""
    if outcome.dtype == torch.bool and outcome.dim() == 1:
        tie = outcome.to(like.dtype)
        shares = torch.stack([1 - tie, torch.zeros_like(tie), tie], dim=-1)
    elif outcome.dim() == 2 and outcome.shape[-1] == 3 and outcome.is_floating_point():
        shares = outcome.to(like.dtype)
        if bool((shares < 0).any()) or bool(((shares.sum(-1) - 1).abs() > 1e-4).any()):
            raise ValueError("outcome shares (win, lose, tie) must be non-negative and sum to 1 in every row")
    else:
        raise ValueError(
            "outcome must be a boolean vector (True = tie) or floats of shape (E, 3) holding shares of "
            f"(win, lose, tie); given {outcome.dtype} of shape {tuple(outcome.shape)}"
        )
    if len(shares) != len(like):
        raise ValueError(f"outcome has {len(shares)} rows for {len(like)} comparisons")
    return shares


def apply_ties_policy(outcome_E3: Tensor, policy: str) -> tuple[Tensor, Tensor]:
    """Rewrite outcomes for an objective without a tie term.

    Args:
        outcome_E3: (E, 3) shares of (win, lose, tie).
        policy: "drop" removes tied mass (a pure tie gets keep = False), "as_win" counts it as a win of the
            first side, "soft_half" gives each side half of it.

    Returns:
        The new (E, 3) shares, without ties, and the (E,) boolean mask of the comparisons to keep.

    Raises:
        ValueError: unknown policy.
    """
    win, lose, tie = outcome_E3.unbind(-1)
    keep = torch.ones_like(tie, dtype=torch.bool)
    if policy == "drop":
        keep = (win + lose) > 0
        total = torch.where(keep, win + lose, torch.ones_like(win))
        win, lose = torch.where(keep, win / total, torch.ones_like(win)), lose / total
    elif policy == "as_win":
        win = win + tie
    elif policy == "soft_half":
        win, lose = win + tie / 2, lose + tie / 2
    else:
        raise ValueError(f"ties policy {policy!r} is not one of: drop, as_win, soft_half")
    return torch.stack([win, lose, torch.zeros_like(tie)], dim=-1), keep


@dataclass(frozen=True, kw_only=True)
class Unpaired(Objective):
    """Base of objectives on single labelled samples; `losses` reads rho_w only.

    In the items-and-edges picture an unpaired row is a comparison of its sample with a *baseline* outside the
    batch: desirable = it won, undesirable = it lost.
    """

    unpaired: ClassVar[bool] = True

    def __call__(  # type: ignore[override]
        self, rho: Tensor, desirable: Tensor, *, state: State | None = None, **columns: Tensor
    ) -> Tensor:
        """One loss per labelled sample.

        Args:
            rho: (E,) log-ratio of each sample.
            desirable: (E,) boolean label.
            state: running statistics; computed from these rows alone if left out.
            columns: further fields of `Sides` that the objective needs.

        Returns:
            (E,) losses.
        """
        sides = make_sides(self, rho, torch.zeros_like(rho), columns)
        if desirable.dtype != torch.bool or desirable.shape != rho.shape:
            raise ValueError(
                f"desirable must be a boolean vector of {len(rho)} labels; "
                f"given {desirable.dtype} of shape {tuple(desirable.shape)}"
            )
        good = desirable.to(rho.dtype)
        outcome_E3 = torch.stack([good, 1 - good, torch.zeros_like(good)], dim=-1)
        if state is None:
            state = self.next_state(self.initial_state(), self.statistics(sides, outcome_E3))
        return self.losses(sides, outcome_E3, state)

    def losses(self, sides: Sides, outcome_E3: Tensor | None, state: State) -> Tensor:
        """(E,) losses; the share of `lose` is the share of undesirable."""
        if outcome_E3 is None:
            return self.desirable_loss(sides, state)
        return outcome_E3[:, 0] * self.desirable_loss(sides, state) + outcome_E3[
            :, 1
        ] * self.undesirable_loss(sides, state)

    def desirable_loss(self, sides: Sides, state: State) -> Tensor:
        """(E,) loss of samples labelled good."""
        raise NotImplementedError

    def undesirable_loss(self, sides: Sides, state: State) -> Tensor:
        """(E,) loss of samples labelled bad."""
        raise NotImplementedError
