"""The section of the first pair: both sides decoded, scored tokens marked."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

from prefopt.report.format import items
from prefopt.report.load import Run
from prefopt.report.page import Section, render
from prefopt.report.verdict import verdict

LONGEST_SIDE = 40_000  # characters of a decoded side


def first_pair(run: Run) -> Section:
    """The section; without a body where nothing was recorded."""
    return Section("first-pair", "The first pair, as the model sees it", _body(run), "First pair")


def _body(run: Run) -> Markup:
    sides = []
    for side in (s for s in items(run.of("first_pair", "sides")) if isinstance(s, Mapping)):
        segments, room = [], LONGEST_SIDE
        for segment in (x for x in items(side.get("segments")) if isinstance(x, Mapping)):
            text = str(segment.get("text", ""))
            if room > 0:
                segments.append(
                    (text[:room], len(text) > room, bool(segment.get("scored")), segment.get("token_count"))
                )
            room -= len(text)
        sides.append({**side, "segments": segments})
    if not sides:
        return Markup("")
    return render("first_pair", __package__, id=run.of("first_pair", "id"), verdict=verdict(run), sides=sides)
