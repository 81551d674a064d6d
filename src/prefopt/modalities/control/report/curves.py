"""Curves that only runs on control images have: whether images follow their conditions, and how unlike each other they are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from prefopt.modalities.control.report.fidelity import AGREEMENT, MEASURES
from prefopt.modalities.control.report.first import compares_conditions
from prefopt.modalities.image.report import curves
from prefopt.report.curves import STILL_GOOD, Curve, Groups, one
from prefopt.report.load import Run

FOLLOWS = "Does it follow its conditions?"
NOTE = "A detector reads what the model draws under the same conditions from the same noise each time, and what it reads is held against them."
AGREES = Curve(
    title="Agreement with the condition", metrics=one(AGREEMENT), unit="mean over images; 1: whole agreement",
    look_for="A rise, beside a loss that falls: what is learned of given images reaches those that are drawn.",
    trouble="Falling or flat while accuracy rises: the model tells conditions apart and draws no more faithfully for it.",
)  # fmt: skip
DIVERSITY = Curve(
    title="Distance between samples", metrics=one("sample_diversity"), y_range=(0.0, 0.0),
    unit="root mean square, mean over pairs of images",
    look_for="About the level it had.",
    trouble="A fall while agreement rises: images become flat or alike, which is easy to read and not what was asked for.",
)  # fmt: skip
OF_CONDITIONS: dict[str, dict[str, Any]] = {
    "Accuracy": {
        "trouble": "Near 100% at once: losing conditions are too far from the true ones to teach anything fine.",
    },
    "Denoising error of both sides": {
        "look_for": "Under the true condition it falls or holds its level; under the losing one it rises away from it.",
        "trouble": "Both rise: the known failure of this family. The model denoises worse under either condition, merely faster "
        "under the losing one.",
    },
    "Displacement": {
        "look_for": "Low. It is the share of pairs in which the error under the true condition is larger now than under the "
        "reference.",
    },
}
"""What image runs say of two images, by the title of a curve."""


def groups(run: Run) -> Groups:
    """Those of runs on images, and whether images follow their conditions in front of them."""
    own = [_measure(name) for name in MEASURES]
    found: Groups = [(FOLLOWS, NOTE, [*own, AGREES])]
    words = OF_CONDITIONS if compares_conditions(run) else {}
    for heading, note, shown in curves.groups(run):
        told = [replace(curve, **words.get(curve.title, {})) for curve in shown]
        found.append((heading, note, [*told, DIVERSITY] if heading == STILL_GOOD else told))
    return found


def _measure(name: str) -> Curve:
    measure = MEASURES[name]
    better, worse = ("rise", "fall") if measure.higher_is_better else ("fall", "rise")
    return Curve(
        title=f"{measure.name[0].upper()}{measure.name[1:]} of samples",
        metrics=one(f"fidelity_{name}"),
        unit=f"over all samples; {'higher' if measure.higher_is_better else 'lower'} is better",
        look_for=f"A {better} that slows down.",
        trouble=f"A {worse}, or a peak in the middle: keep the checkpoint of the peak.",
    )
