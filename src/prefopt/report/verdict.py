"""What the judge said of the first example, in words."""

from __future__ import annotations

from prefopt.report.format import finite, items, percent
from prefopt.report.load import Run


def verdict(run: Run, single: bool = False) -> str:
    """The outcome of the first comparison.

    Args:
        run: of the page.
        single: whether it is about one labelled sample.
    """
    votes = [finite(v) for v in items(run.of("first_pair", "outcome"))]
    if len(votes) != 3 or None in votes:
        return "not given"
    if single:
        return {1.0: "desirable", 0.0: "undesirable"}.get(
            votes[0] or 0.0, f"{percent(votes[0], 0)} desirable"
        )
    names = ("the chosen side wins", "the rejected side wins", "a tie")
    verdict = next((name for name, v in zip(names, votes, strict=True) if v == 1), "")
    return verdict or "votes: " + ", ".join(
        f"{percent(v, 0)} {name}" for name, v in zip(("chosen", "rejected", "tie"), votes, strict=True)
    )
