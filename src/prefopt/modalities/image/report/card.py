"""What the model card of a run on images measures and shows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from prefopt.report.account import Drawn, Measure
from prefopt.report.format import number, percent
from prefopt.report.load import Run

SHOWN_SAMPLES = 4  # prompts with images before and after


def measures(run: Run, split: str, place: str) -> list[Measure]:
    """Lines of the table of results; see `Account.measures`."""
    steady = split == "eval"  # errors of training batches depend on the noise level more than on the model
    side = "chosen steps less likely" if run.online else "chosen images with more error"
    return [
        ("reward", "eval", "Reward of sampled images", number),
        *([("errors/chosen", split, f"Denoising error of chosen images, {place}", number),
           ("errors/rejected", split, f"Denoising error of rejected images, {place}", number)] if steady else []),
        ("loss", split, f"Loss, {place}", number),
        ("rewards/margins", split, f"Reward margin, {place}", number),
        ("displacement", split, f"Displacement (share of {side} than under the reference)", percent),
        ("collect/score", "train", "Judge's score of candidates", number),
        ("collect/kept", "train", "Share of candidates' pairs that passed the judge's threshold", percent),
        ("step_dpo/clipped_both", "train", "Share of pairs without gradient, outside the clip", percent),
        ("sample_change", "eval", "Change of sampled images, root mean square", number),
        ("sample_saturation", "eval", "Saturation of sampled images", number),
    ]  # fmt: skip


def pictures(run: Run) -> list[Drawn]:
    """Images before and after, and the pictures that they were drawn under, of files that are there."""
    prompts = run.of("samples", "prompts")
    rows = []
    for entry in prompts if isinstance(prompts, list) else []:
        raw = entry.get("generations") if isinstance(entry, Mapping) else None
        drawn = [g for g in raw if isinstance(g, Mapping)] if isinstance(raw, list) else []
        images = [path for g in drawn if (path := _there(run, g.get("image")))]
        if len(images) > 1:
            given = _there(run, drawn[0].get("given"))
            rows.append(Drawn(str(entry.get("prompt", "")), images[0], images[-1], given))
    return rows[:SHOWN_SAMPLES]


def _there(run: Run, path: Any) -> str:
    """The path if it is that of one of the run's pictures, else nothing."""
    plain = re.fullmatch(r"record/images/[\w.-]+", str(path)) and (run.folder / str(path)).is_file()
    return str(path) if plain else ""
