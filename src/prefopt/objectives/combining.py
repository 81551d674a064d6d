"""What papers do to a loss beside changing it, as hyper-parameters of any loss that has a place for them.

The names are TRL's. `Mixture` does what they say, with the formulas of `ld_dpo`, `wpo` and `sft`.
"""

from __future__ import annotations

from collections.abc import Mapping

from prefopt.objectives.base import Objective
from prefopt.objectives.pairwise import WPO

COMBINED: Mapping[str, str] = {
    "ld_alpha": (
        "how often tokens beyond the shorter side's length count, in [0, 1], in every log-ratio: `ld_dpo`'s a for another "
        "loss; unset: as all others (arXiv 2409.06411)"
    ),
    "use_weighting": (
        "true: multiply the loss by how likely the policy would write both sides itself: `wpo`'s weights before another "
        "loss (arXiv 2406.11827)"
    ),
    "rpo_alpha": (
        "weight > 0 of the winner's negative log-likelihood, `sft`, that is added: its mean over an answer's tokens, or with "
        "`average=batch` over all of the batch's, as TRL had it; a sum with `sft` says the same (arXiv 2404.19733)"
    ),
}
"""Name and meaning."""


def why_not(key: str, term: Objective) -> str | None:
    """Why a loss has no place for one of `COMBINED`, as the end of a sentence about it; None where it has one.

    Args:
        key: one of `COMBINED`.
        term: a loss, or one term of a sum.
    """
    if term.unpaired:
        return "takes single labelled samples, and these belong to pairs"
    if term.columns:
        return f"reads {', '.join(term.columns)} of every row, which its own runs write for the plain loss"
    if key == "rpo_alpha":
        return "is that term already: give it a weight in the sum" if term.winner_alone else None
    if term.winner_alone:
        return None  # a likelihood beside a pair loss: its sums stay as they are, and its rows have the pair's weight
    if term.branches:
        return f"reads {', '.join(term.branches)} beside the pair"
    if key == "use_weighting":
        if isinstance(term, WPO):
            return "has these weights already"
        return "compares rows with each other, which have no weight in common" if term.batch_coupled else None
    if "rho_tokens" in term.needs:
        return "weighs tokens itself"
    return None if term.needs_reference else "has no log-ratios of pairs to a reference"


__all__ = ["COMBINED", "why_not"]
