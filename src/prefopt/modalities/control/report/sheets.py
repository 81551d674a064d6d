"""The contact sheet of control runs: a row a condition; of each moment the image, and what a detector reads in it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from prefopt.modalities.control.report.departures import COLOURS, Kind, departures
from prefopt.modalities.image.report.sections import SHOWN_ROWS, sampled_by
from prefopt.modalities.image.report.sheets import SIDE, Cell, sheet_of
from prefopt.report.changes import score_changes
from prefopt.report.format import finite
from prefopt.report.load import Run
from prefopt.report.page import render
from prefopt.report.pictures import Picture, embed

SAME = 1e-4  # a score this near the agreement is the agreement: one of them is rounded


@dataclass(frozen=True)
class ReadCell(Cell):
    """An image under a condition; its score is the agreement where a detector looked, else its reward."""

    given: Picture
    read: Picture | None
    kind: Kind | None
    reward: float | None

    @property
    def weight(self) -> int:
        """Bytes of its own pictures in the page; the condition is shown once a row."""
        return len(self.picture.uri) + (0 if self.read is None else len(self.read.uri))


def cell(run: Run, drawn: Mapping[str, Any]) -> ReadCell:
    """One image of the record."""
    score, agreement = finite(drawn.get("score")), finite(drawn.get("agreement"))
    given = embed(run.folder, drawn.get("given"), SIDE)
    read, kind = (
        departures(run.folder, drawn["given"], drawn["read"], SIDE)
        if drawn.get("read") and given.uri
        else (None, None)
    )
    reward = None if score is None or agreement is None else score
    if reward is not None and agreement is not None and math.isclose(reward, agreement, abs_tol=SAME):
        reward = None
    picture = embed(run.folder, drawn.get("image"), SIDE)
    return ReadCell(picture, score if agreement is None else agreement, given, read, kind, reward)


def samples(run: Run) -> Markup:
    """The contact sheet; empty where nothing was drawn."""

    def empty(first: Mapping[str, Any]) -> ReadCell:
        given = embed(run.folder, first.get("given"), SIDE)
        return ReadCell(Picture(problem="not drawn"), None, given, None, None, None)

    sheet = sheet_of(run, cell, empty)
    if not sheet.rows:
        return Markup("")
    cells = [one for row in sheet.rows for one in row.cells]
    return render(
        "sheet",
        __package__,
        sheet=sheet,
        shown=SHOWN_ROWS,
        changes=score_changes([row.ends for row in sheet.rows]),
        settings=sampled_by(run),
        scored="agreement"
        if any(one.read is not None and one.score is not None for one in cells)
        else "reward",
        detector=run.of("fidelity", "detector"),
        read=any(one.read is not None for one in cells),
        kinds={one.kind for one in cells} - {None},
        colours=COLOURS,
    )
