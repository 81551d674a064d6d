"""The section of the first pair: its pictures, and both sides decoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from prefopt.modalities.text.report.first_pair import first_pair as sides
from prefopt.report.format import items
from prefopt.report.load import Run
from prefopt.report.page import Section, render
from prefopt.report.pictures import embed

SIDE = 320  # pixels


def first_pair(run: Run) -> Section:
    """The section; without a body where nothing was recorded."""
    section = sides(run)
    pictures = [
        {"name": str(one.get("name", "")), "picture": embed(run.folder, one.get("path"), SIDE)}
        for one in items(run.of("first_pair", "pictures"))
        if isinstance(one, Mapping)
    ]
    if not section.body or not pictures:
        return section
    return replace(section, body=render("pictures", __package__, pictures=pictures) + section.body)
