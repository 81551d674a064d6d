"""The first example: its sides as text, and what the judge said of it, in words."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

from prefopt.report.format import finite, items, percent
from prefopt.report.load import Run
from prefopt.report.page import Section, render


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


def first_sides(run: Run) -> Section:
    """The section of a first example whose sides were recorded as text; without a body where there is none."""
    sides = [side for side in items(run.of("first_pair", "sides")) if isinstance(side, Mapping)]
    body = (
        render("run/first_sides", id=run.of("first_pair", "id"), verdict=verdict(run), sides=sides)
        if sides
        else Markup("")
    )
    return Section("first-pair", "The first pair, as the model sees it", body, "First pair")
