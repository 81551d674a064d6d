"""What the model card of a run on control images measures beside that of images."""

from __future__ import annotations

from prefopt.modalities.control.report.fidelity import AGREEMENT, MEASURES
from prefopt.modalities.image.report import card
from prefopt.report.account import Measure
from prefopt.report.format import number
from prefopt.report.load import Run


def measures(run: Run, split: str, place: str) -> list[Measure]:
    """Lines of the table of results; see `Account.measures`."""
    own: list[Measure] = [
        (
            f"fidelity_{name}",
            "eval",
            f"{measure.name[0].upper()}{measure.name[1:]} of sampled images against their conditions"
            + ("" if measure.higher_is_better else " (lower is better)"),
            number,
        )
        for name, measure in MEASURES.items()
    ]
    own.append((AGREEMENT, "eval", "Agreement of a sampled image with its condition, mean", number))
    return [
        *own,
        *card.measures(run, split, place),
        ("sample_diversity", "eval", "Distance between sampled images", number),
    ]
