"""The first comparison: what both sides share, both sides, and where two conditions differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefopt.modalities.control.report.departures import COLOURS, departures
from prefopt.modalities.image.report.sections import FIRST_SIDE
from prefopt.modalities.image.report.sections import first_pair as image_pair
from prefopt.report.format import items
from prefopt.report.load import Run
from prefopt.report.page import Section, render
from prefopt.report.pictures import embed
from prefopt.report.verdict import verdict


def compares_conditions(run: Run) -> bool:
    """Whether pairs are two conditions of one image, rather than two images under one condition."""
    return bool(run.of("first_pair", "shared", "name") == "image")


def first_pair(run: Run) -> Section:
    """The section; that of image runs where it is not known what the sides share."""
    shared = run.of("first_pair", "shared")
    sides = [side for side in items(run.of("first_pair", "sides")) if isinstance(side, Mapping)]
    if not isinstance(shared, Mapping) or not sides:
        return image_pair(run)
    single = len(sides) == 1
    what = "example" if single else "pair"
    of_conditions = compares_conditions(run)
    kind = "condition" if of_conditions else "image"
    made = run.of("first_pair", "made") is True
    shown = [_shown(run, str(shared.get("name", "")), shared.get("image"))]
    shown += [
        _shown(run, kind if single and not made else f"{side.get('name', '')} {kind}", side.get("image"))
        for side in sides
    ]
    kinds = set()
    if of_conditions and not single:
        marked, found = departures(run.folder, sides[0].get("image"), sides[1].get("image"), FIRST_SIDE)
        if found is not None:
            shown.append({"name": "where they differ", "side": "", "picture": marked})
            kinds = {found}
    prompts = list(dict.fromkeys(str(side["prompt"]) for side in sides if side.get("prompt") is not None))
    body = render(
        "first_pair",
        __package__,
        id=run.of("first_pair", "id"),
        verdict="" if made else verdict(run, single),
        shown=shown,
        prompts=prompts,
        made=made,
        of_conditions=of_conditions,
        single=single,
        kinds=kinds,
        colours=COLOURS,
    )
    return Section("first-pair", f"The first {what}, as the model sees it", body, f"First {what}")


def _shown(run: Run, name: str, path: Any) -> dict[str, Any]:
    side = next((s for s in ("chosen", "rejected") if name.startswith(s)), "")
    return {"name": name, "side": side, "picture": embed(run.folder, path, FIRST_SIDE)}
