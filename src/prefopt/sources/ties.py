"""What a tie means to a method that has no term for it: a choice that only the user can make."""

from __future__ import annotations

from dataclasses import replace

from prefopt.comparisons import Outcome
from prefopt.sources.collecting import Comparisons
from prefopt.sources.hints import recount
from prefopt.sources.report import Dropped

TIES_POLICIES = ("drop", "as_win", "soft_half")


def outcome_without_tie(outcome: Outcome, policy: str) -> Outcome | None:
    """Vote shares under a ties policy; None for a pure tie that is dropped.

    The same rule as `objectives.base.apply_ties_policy`, which works on tensors.
    """
    win, lose, tie = outcome
    match policy:
        case "drop":
            return Outcome(win / (win + lose), lose / (win + lose), 0.0) if win + lose > 0 else None
        case "as_win":
            return Outcome(win + tie, lose, 0.0)
        case "soft_half":
            return Outcome(win + tie / 2, lose + tie / 2, 0.0)
    raise ValueError(f"ties policy {policy!r} is not one of: {', '.join(TIES_POLICIES)}")


def apply_ties_policy(comparisons: Comparisons, policy: str | None) -> Comparisons:
    """Rewrite comparisons so that none is a tie, wholly or in part.

    Args:
        comparisons: any.
        policy: "drop" removes ties; "as_win" counts a tie as a win of the chosen side; "soft_half" as half a win of
            each side. None is fine as long as there are no ties.

    Returns:
        The rewritten comparisons; dropped ties are listed in `dropped` with the reason "tie".

    Raises:
        ValueError: there are ties and no policy, the policy is unknown, or nothing but ties was there to drop.
    """
    if policy is not None and policy not in TIES_POLICIES:
        raise ValueError(f"ties policy {policy!r} is not one of: {', '.join(TIES_POLICIES)}")
    tied = sum(edge.outcome.tie > 0 for example in comparisons for edge in example.comparisons)
    if not tied:
        return comparisons
    if policy is None:
        raise ValueError(
            f"{tied} of {sum(len(e.comparisons) for e in comparisons)} comparisons of {comparisons.report.source} are "
            "ties, wholly or in part, and the method has no term for ties. Choose what they mean: ties=drop removes "
            "them, ties=as_win counts each as a win of its chosen side, ties=soft_half as half a win of each side; or "
            "use a method that models ties: dpo_rk, dpo_d"
        )
    examples, dropped = [], list(comparisons.dropped)
    for example in comparisons:
        edges = [
            replace(edge, outcome=outcome)
            for edge in example.comparisons
            if (outcome := outcome_without_tie(edge.outcome, policy)) is not None
        ]
        if edges:
            examples.append(replace(example, comparisons=tuple(edges)))
        else:
            row = comparisons.origins[example.id].row
            dropped.append(Dropped(row, example.id, "tie", "a tie, under ties=drop"))
    if not examples:
        raise ValueError(
            f"all {tied} comparisons of {comparisons.report.source} are ties: ties=drop leaves nothing"
        )
    report = recount(comparisons.report, examples, dropped)
    return replace(comparisons, examples=examples, dropped=dropped, report=report)
