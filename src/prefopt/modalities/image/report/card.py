"""What the model card of a run on images measures and shows."""

from __future__ import annotations

import re
from collections.abc import Mapping

from prefopt.report.account import Measure
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


def pictures(run: Run) -> list[tuple[str, str, str]]:
    """(prompt, path before, path after) within the run folder, of images that are there."""
    prompts = run.of("samples", "prompts")
    rows = []
    for entry in prompts if isinstance(prompts, list) else []:
        drawn = entry.get("generations") if isinstance(entry, Mapping) else None
        paths = (
            [str(g.get("image")) for g in drawn or [] if isinstance(g, Mapping)]
            if isinstance(drawn, list)
            else []
        )
        plain_paths = [
            p for p in paths if re.fullmatch(r"record/images/[\w.-]+", p) and (run.folder / p).is_file()
        ]
        if len(plain_paths) > 1:
            rows.append((str(entry.get("prompt", "")), plain_paths[0], plain_paths[-1]))
    return rows[:SHOWN_SAMPLES]
