"""What page and card of a run on control images say: what those on images say, and whether images follow their conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from typing import ClassVar

from markupsafe import Markup

from prefopt.modalities.control.report import card, sheets, summary
from prefopt.modalities.control.report.curves import groups
from prefopt.modalities.control.report.deltas import delta_figures
from prefopt.modalities.control.report.fidelity import scored_by_agreement
from prefopt.modalities.control.report.findings import quality
from prefopt.modalities.control.report.first import first_pair
from prefopt.modalities.control.report.loading import loading
from prefopt.modalities.image.report import ImageAccount
from prefopt.modalities.image.report.loading import is_lora
from prefopt.report.account import CardFront, Loading, Measure
from prefopt.report.curves import Groups
from prefopt.report.facts import Figure, Finding
from prefopt.report.load import Run
from prefopt.report.loading import read_json
from prefopt.report.page import Section


class ControlAccount(ImageAccount):
    """Images under control images."""

    samples_title = "What the model draws under its conditions"
    records: ClassVar[Mapping[str, str]] = {
        **ImageAccount.records,
        "fidelity": "the agreement of each image with its condition",
    }
    hyper_parameters: ClassVar[Sequence[str]] = (
        *ImageAccount.hyper_parameters, "controlnet", "form", "margin", "losing_condition", "detector", "condition_dropout",
        "diffusion_weight", "consistency_weight", "consistency_timestep",
    )  # fmt: skip

    def recognises(self, run: Run) -> bool:
        """Whether the saved pipeline has a ControlNet."""
        return "controlnet" in read_json(run.folder / "model" / "model_index.json")

    def prepared(self, run: Run) -> Run:
        """Without a reward that is nothing but the agreement, which has a name."""
        run = super().prepared(run)
        same = scored_by_agreement(run)
        return replace(run, metrics=run.metrics.without(frozenset({"reward"}))) if same else run

    def own_style(self) -> str:
        """See `style.css` among the templates."""
        return (files(__name__) / "templates" / "style.css").read_text("utf-8")

    def curves(self, run: Run) -> Groups:
        """See `curves.py`."""
        return groups(run)

    def samples(self, run: Run) -> Markup:
        """See `sheets.py`."""
        return sheets.samples(run)

    def first_pair(self, run: Run) -> Section:
        """See `first.py`."""
        return first_pair(run)

    def own_sections(self, run: Run) -> list[Section]:
        """Delta, and what image runs show by noise level."""
        return [
            Section("deltas", "Delta by noise level", delta_figures(run), "Delta"),
            *super().own_sections(run),
        ]

    def figures(self, run: Run) -> list[Figure]:
        """See `summary.py`."""
        return summary.figures(run)

    def claim(self, run: Run) -> str:
        """What accuracy says."""
        return summary.preference(run)

    def sentence(self, run: Run) -> str:
        """Whether images follow their conditions, and what happened to the errors."""
        return summary.sentence(run)

    def quality(self, run: Run) -> list[Finding]:
        """See `findings.py`."""
        return quality(run)

    def measures(self, run: Run, split: str, place: str) -> list[Measure]:
        """See `card.py`."""
        return card.measures(run, split, place)

    def loading(self, run: Run) -> Loading:
        """See `loading.py`."""
        return loading(run)

    def front(self, run: Run) -> CardFront:
        """What the hub knows how to draw with."""
        lora = ["lora"] if is_lora(run) else []
        return CardFront("text-to-image", ["text-to-image", "diffusers", "controlnet", *lora])


ACCOUNT = ControlAccount()
