"""Sections of the page on which figures move: the samples, the first pair; and what the data section says of motions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from prefopt.modalities.motion.report.takes import Player, player, shape_of
from prefopt.report.account import DataFacts, Drawn
from prefopt.report.changes import score_changes
from prefopt.report.format import finite, items
from prefopt.report.load import Run
from prefopt.report.page import Section, render
from prefopt.report.verdict import verdict

BYTE_BUDGET = 1_500_000  # of all samples of a page
SHOWN_PLAYERS = 4  # further ones are folded away
SHOWN_PICTURES = 4  # prompts of a card
LONGEST_PROMPT = 2_000  # characters
TOLD_SETTINGS = ("num_inference_steps", "guidance_scale")


def samples(run: Run) -> Markup:
    """Motions of the same prompts before and after training."""
    prompts = [p for p in items(run.of("samples", "prompts")) if isinstance(p, Mapping) and drawn(p)]
    if not prompts:
        return Markup("")
    settings = run.of("samples", "settings")
    shape = shape_of(settings)
    if shape is None:
        return render("unshaped", __package__, what="samples")
    seeds = items(run.of("samples", "settings", "seeds"))
    players: list[Player] = []
    used = between = 0
    for n, entry in enumerate(prompts):
        found = drawn(entry)
        ends = found[:1] + found[1:][-1:]
        recorded = [
            (name_of(g, k, len(ends)), "", g.get("motion"), finite(g.get("score")))
            for k, g in enumerate(ends)
        ]
        one = player(
            str(entry.get("prompt", ""))[:LONGEST_PROMPT],
            recorded,
            shape,
            seeds[n] if n < len(seeds) else None,
        )
        if one is None:
            continue
        used += one.weight
        if players and used > BYTE_BUDGET:
            break
        players.append(one)
        between = max(between, len(found) - len(ends))
    told = {k: settings[k] for k in TOLD_SETTINGS if k in settings} if isinstance(settings, Mapping) else {}
    return render(
        "samples",
        __package__,
        players=players,
        shown=SHOWN_PLAYERS,
        settings=told,
        sided=shape.sided,
        changes=score_changes([one.ends for one in players]),
        cut=len(prompts) - len(players),
        between=between,
    )


def drawn(entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What was drawn of a prompt, by step; the newest of each."""
    by_step = {
        finite(g.get("step")) or 0.0: g for g in items(entry.get("generations")) if isinstance(g, Mapping)
    }
    return [by_step[step] for step in sorted(by_step)]


def pictures(run: Run) -> list[Drawn]:
    """Poses of the first and of the newest motions, of files that are there."""
    found = []
    for entry in items(run.of("samples", "prompts")):
        ends = drawn(entry) if isinstance(entry, Mapping) else []
        paths = [path for g in (ends[:1] + ends[1:][-1:]) if (path := _there(run, g.get("poses")))]
        if len(paths) == 2:
            found.append(Drawn(str(entry.get("prompt", "")), *paths))
    return found[:SHOWN_PICTURES]


def _there(run: Run, path: Any) -> str:
    """The path if it is that of one of the run's pictures, else nothing."""
    plain = re.fullmatch(r"record/images/[\w.-]+", str(path)) and (run.folder / str(path)).is_file()
    return str(path) if plain else ""


def name_of(generation: Mapping[str, Any], place: int, of: int) -> str:
    """before, after, or the step."""
    label = generation.get("label")
    if label:
        return str(label)
    step = finite(generation.get("step"))
    return f"step {step:.0f}" if step is not None else ("before" if place == 0 and of > 1 else "sample")


def first_pair(run: Run) -> Section:
    """The first pair, or the one motion of a single; without a body where nothing was recorded."""
    sides = [side for side in items(run.of("first_pair", "sides")) if isinstance(side, Mapping)]
    single = len(sides) == 1
    what = "motion" if single else "pair"
    return Section(
        "first-pair", f"The first {what}, as the model sees it", _first(run, sides, single), f"First {what}"
    )


def _first(run: Run, sides: list[Mapping[str, Any]], single: bool) -> Markup:
    if not sides:
        return Markup("")
    shape = shape_of(run.first_pair)
    if shape is None:
        return render("unshaped", __package__, what="first pair")
    prompts = list(dict.fromkeys(str(side.get("prompt", ""))[:LONGEST_PROMPT] for side in sides))
    recorded = []
    for side in sides:
        name = str(side.get("name", ""))
        kind = "" if single or name not in ("chosen", "rejected") else name
        recorded.append(("motion" if single else name, kind, side.get("motion"), None))
    return render(
        "first_pair",
        __package__,
        id=run.of("first_pair", "id"),
        verdict=verdict(run, single),
        player=player(prompts[0], recorded, shape),
        sided=shape.sided,
        single=single,
    )


def data_facts(run: Run) -> DataFacts:
    """How many motions and captions, and how long they are."""
    motions = run.of("data", "motions")
    if not isinstance(motions, Mapping):
        return DataFacts()
    frames, fps = motions.get("frames"), finite(motions.get("fps"))
    rows = []
    if isinstance(frames, Mapping):
        rows.append(("motions, frames", frames))
        if fps:
            seconds = {k: None if (n := finite(v)) is None else round(n / fps, 2) for k, v in frames.items()}
            rows.append(("motions, seconds", seconds))
    facts = {name: finite(motions.get(name)) for name in ("count", "distinct", "captions")}
    facts |= {"fps": fps, "codec": motions.get("codec")}
    return DataFacts(render("facts", __package__, facts=facts), rows, "Lengths")
