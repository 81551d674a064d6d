"""Weighted sums of objectives, such as MPO's 0.8 dpo + 0.2 bco_pair + sft (arXiv 2411.10442).

Symbols and shapes: see `base.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from prefopt.objectives.base import Objective, State, Unpaired, checked, require
from prefopt.objectives.combining import why_not
from prefopt.objectives.margins import desensitized
from prefopt.objectives.pairwise import DPO, ON_POLICY, on_policy_weight
from prefopt.objectives.pointwise import BCOPair
from prefopt.objectives.reference_free import SFT
from prefopt.objectives.sides import Branch, Sides


@dataclass(frozen=True, kw_only=True)
class Mixture(Objective):
    """Sum of (weight, objective) terms.

    Needs what any term needs, and a reference if any term does; terms without one then read the policy's
    log-probabilities. Ties need a tie term in every term. Paired and unpaired terms do not mix.

    Attributes:
        terms: (weight, objective) pairs, weights positive.
        ld_alpha: how often tokens beyond the shorter side's length count, in [0, 1], in every log-ratio; None: once, as all.
        use_weighting: multiply the sum by how likely the policy would write both sides itself.

    >>> from prefopt.objectives import get
    >>> get("dpo+0.2*bco_pair", beta=0.1)(torch.zeros(1), torch.zeros(1))  # log 2 + 0.2 * 2 log 2
    tensor([0.9704])
    """

    terms: tuple[tuple[float, Objective], ...]
    ld_alpha: float | None = None
    use_weighting: bool = False

    def __post_init__(self) -> None:
        terms = tuple((float(weight), objective) for weight, objective in self.terms)
        object.__setattr__(self, "terms", terms)
        require(len(terms) > 0, "a mixture needs at least one term")
        for weight, objective in terms:
            require(
                0 < weight < float("inf"),
                f"weights must be positive; {type(objective).__name__} has {weight}",
            )
        kinds = {objective.unpaired for _, objective in terms}
        if len(kinds) > 1:
            single = ", ".join(type(o).__name__ for _, o in terms if o.unpaired)
            pairs = ", ".join(type(o).__name__ for _, o in terms if not o.unpaired)
            raise ValueError(
                f"{single} takes single labelled samples and {pairs} takes pairs; one data set cannot feed both. "
                "For pairs use bco_pair instead of bco"
            )
        meant: dict[str, Branch] = {}
        for _, objective in terms:
            for name, branch in objective.branches.items():
                require(
                    meant.setdefault(name, branch) == branch,
                    f"two terms of the sum mean different things by {name}, so they cannot be added",
                )
        self._check_combined()

    def _check_combined(self) -> None:
        """Refuse `ld_alpha` and `use_weighting` where a term has no place for them."""
        object.__setattr__(self, "ld_alpha", checked("ld_alpha", self.ld_alpha, float | None))
        checked("use_weighting", self.use_weighting, bool)
        require(
            self.ld_alpha is None or 0 <= self.ld_alpha <= 1,
            f"ld_alpha must lie in [0, 1]; given {self.ld_alpha}",
        )
        for key, given in (("ld_alpha", self.ld_alpha is not None), ("use_weighting", self.use_weighting)):
            if not given:
                continue
            for _, objective in self.terms:
                reason = why_not(key, objective)
                require(reason is None, f"{key}: {type(objective).__name__} {reason}. Leave it out")
            require(not self.winner_alone, f"{key}: the loss reads no loser to compare with. Leave it out")

    @property
    def needs_reference(self) -> bool:  # type: ignore[override]
        """Whether any term does."""
        return any(objective.needs_reference for _, objective in self.terms)

    @property
    def unpaired(self) -> bool:  # type: ignore[override]
        """Whether the terms take single samples."""
        return self.terms[0][1].unpaired

    @property
    def has_tie_term(self) -> bool:  # type: ignore[override]
        """Whether all terms do."""
        return all(objective.has_tie_term for _, objective in self.terms)

    @property
    def batch_coupled(self) -> bool:  # type: ignore[override]
        """Whether any term is."""
        return any(objective.batch_coupled for _, objective in self.terms)

    @property
    def state_of_rows(self) -> bool:  # type: ignore[override]
        """Whether any term's state is."""
        return any(objective.state_of_rows for _, objective in self.terms)

    @property
    def reads_loser(self) -> bool:  # type: ignore[override]
        """Whether any term does."""
        return any(objective.reads_loser for _, objective in self.terms)

    @property
    def wins_only(self) -> bool:  # type: ignore[override]
        """Whether any term does not take votes."""
        return any(objective.wins_only for _, objective in self.terms)

    @property
    def reward_scale(self) -> float:
        """The first term's."""
        return self.terms[0][1].reward_scale

    @property
    def winner_alone(self) -> bool:  # type: ignore[override]
        """Whether no term looks at the loser."""
        return all(objective.winner_alone for _, objective in self.terms)

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """Union over terms, and what is done to them; logp too where terms with and without a reference meet."""
        union: frozenset[str] = frozenset().union(*(objective.needs for _, objective in self.terms))
        if len({objective.needs_reference for _, objective in self.terms}) > 1:
            union |= {"logp"}
        if self.ld_alpha is not None:
            union |= {"length", "rho_tokens"}
            union |= {"logp_tokens"} if any(objective.compares_logp for _, objective in self.terms) else set()
        return union | ON_POLICY if self.use_weighting else union

    @property
    def branches(self) -> Mapping[str, Branch]:  # type: ignore[override]
        """Those of all terms, each once."""
        return {name: branch for _, objective in self.terms for name, branch in objective.branches.items()}

    @property
    def columns(self) -> Mapping[str, float]:  # type: ignore[override]
        """Those of all terms."""
        return {name: value for _, objective in self.terms for name, value in objective.columns.items()}

    def check_data(self, has_ties: bool) -> None:
        """Refuse data that any term cannot use."""
        for _, objective in self.terms:
            objective.check_data(has_ties)

    def check_given(self) -> None:
        """Refuse to be used before every term has what it requires."""
        for _, objective in self.terms:
            objective.check_given()

    def _each(self, sides: Sides, state: State) -> Iterator[tuple[str, float, Objective, Sides, State]]:
        """Every term with its prefix and with sides and state as it wants them."""
        for index, (weight, objective) in enumerate(self.terms):
            prefix = f"{index}."
            seen = sides
            if self.needs_reference and not objective.needs_reference:
                assert sides.logp_w is not None  # guaranteed by `needs`
                rho_l = torch.zeros_like(sides.logp_w) if sides.logp_l is None else sides.logp_l
                seen = replace(sides, rho_w=sides.logp_w, rho_l=rho_l)
            elif self.ld_alpha is not None and not objective.winner_alone:
                seen = self._desensitized(sides, self.ld_alpha, objective)
            yield prefix, weight, objective, seen, _own(state, prefix)

    @staticmethod
    def _desensitized(sides: Sides, a: float, objective: Objective) -> Sides:
        """Sides whose sums count tokens beyond the shorter one's length `a` times."""
        rho_w, rho_l = desensitized(sides, "rho_tokens", a)
        seen = replace(sides, rho_w=rho_w, rho_l=rho_l)
        if not objective.compares_logp:
            return seen
        logp_w, logp_l = desensitized(sides, "logp_tokens", a)
        return replace(seen, logp_w=logp_w, logp_l=logp_l)

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """As its terms are called: pairs, or (rho, desirable) for unpaired terms."""
        return (Unpaired if self.unpaired else Objective).__call__(self, *args, **kwargs)

    def losses(self, sides: Sides, outcome_E3: Tensor | None, state: State) -> Tensor:
        """(E,) weighted sums."""
        total_E = torch.zeros_like(sides.rho_w)
        for _, weight, objective, seen, own in self._each(sides, state):
            total_E = total_E + weight * objective.losses(seen, outcome_E3, own)
        return on_policy_weight(sides) * total_E if self.use_weighting else total_E

    def initial_state(self) -> State:
        """The terms' states, each name prefixed by the term's index."""
        return {
            f"{index}.{name}": value
            for index, (_, objective) in enumerate(self.terms)
            for name, value in objective.initial_state().items()
        }

    def statistics(self, sides: Sides, outcome_E3: Tensor | None) -> State:
        """The terms' statistics, prefixed."""
        return {
            prefix + name: value
            for prefix, _, objective, seen, _ in self._each(sides, {})
            for name, value in objective.statistics(seen, outcome_E3).items()
        }

    def next_state(self, state: State, sums: State) -> State:
        """The terms' next states, prefixed."""
        out: dict[str, Tensor] = {}
        for index, (_, objective) in enumerate(self.terms):
            prefix = f"{index}."
            after = objective.next_state(_own(state, prefix), _own(sums, prefix))
            out |= {prefix + name: value for name, value in after.items()}
        return out

    def diagnostics(self, sides: Sides, state: State) -> dict[str, Tensor]:
        """Every term's."""
        out: dict[str, Tensor] = {}
        for _, _, objective, seen, own in self._each(sides, state):
            out |= objective.diagnostics(seen, own)
        if self.use_weighting:
            out["wpo/weight"] = on_policy_weight(sides)
        return out


@dataclass(frozen=True, kw_only=True)
class MPO(Objective):
    """Mixed preference optimization: preference, quality and generation (arXiv 2411.10442, section 4.2).

        w_p dpo + w_q bco_pair + w_g sft

    The paper's quality term moves its threshold with a running mean of rewards; this one and TRL's hold it at 0.

    Attributes:
        beta: > 0, of `dpo` and `bco_pair`.
        preference_weight: w_p > 0.
        quality_weight: w_q > 0.
        generation_weight: w_g > 0, of the winner's negative log-likelihood a token.

    >>> four = torch.tensor([-4.0])
    >>> MPO()(torch.zeros(1), torch.zeros(1), logp_w=four, logp_l=four, length_w=-four, length_l=-four)
    tensor([1.8318])
    """

    needs: ClassVar[frozenset[str]] = frozenset({"logp", "length"})
    beta: float = 0.1
    preference_weight: float = 0.8
    quality_weight: float = 0.2
    generation_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("beta", "preference_weight", "quality_weight", "generation_weight"):
            require(getattr(self, name) > 0, f"{name} must be positive; given {getattr(self, name)}")

    @property
    def sum(self) -> Mixture:
        """The three terms."""
        return Mixture(
            terms=(
                (self.preference_weight, DPO(beta=self.beta)),
                (self.quality_weight, BCOPair(beta=self.beta)),
                (self.generation_weight, SFT()),
            )
        )

    def win_loss(self, sides: Sides, state: State) -> Tensor:
        """(E,) losses."""
        return self.sum.losses(sides, None, state)


def _own(state: State, prefix: str) -> State:
    """One term's part of the state."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


__all__ = ["MPO", "Mixture"]
