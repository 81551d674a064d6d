"""What page and card of a run on images and text say: what those on text say, with the pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from prefopt.modalities.text.report import TextAccount
from prefopt.modalities.vision_language.report.curves import PICTURED_GROUPS
from prefopt.modalities.vision_language.report.first_pair import first_pair
from prefopt.modalities.vision_language.report.loading import loading
from prefopt.modalities.vision_language.report.positions import position_sections
from prefopt.report.account import CardFront, DataFacts, Loading
from prefopt.report.curves import Groups
from prefopt.report.facts import Finding
from prefopt.report.format import finite, items
from prefopt.report.load import Run
from prefopt.report.page import Section, render

OTHER_SIGHT = Finding(
    "note",
    "The reference is shown the clip that holds the answer, the policy the whole video.",
    "So accuracy, margins and displacement compare two sights of it: accuracy starts near zero, displacement near one, and neither need "
    "reach the other end. Judge by accuracy by position, by the samples, and against beta=0.",
)


def anchored(run: Run) -> bool:
    """Whether the reference sees something else than the policy."""
    checks = items(run.of("manifest", "checks"))
    return any(isinstance(one, Mapping) and one.get("name") == "start margin" for one in checks)


class VisionLanguageAccount(TextAccount):
    """Answers to prompts with pictures."""

    def curves(self, run: Run) -> Groups:
        """See `curves.py`."""
        return PICTURED_GROUPS

    def first_pair(self, run: Run) -> Section:
        """See `first_pair.py`."""
        return first_pair(run)

    records: ClassVar[Mapping[str, str]] = {
        "positions": "accuracy by the position of the evidence",
        "build": "what a builder of rows kept and left out",
    }

    def claim(self, run: Run) -> str:
        """What accuracy says; where the reference sees something else, no more than that."""
        if anchored(run):
            return "The policy, shown the whole video, tells answers apart better than the reference that is shown the place"
        return super().claim(run)

    def quality(self, run: Run) -> list[Finding]:
        """As of text; displacement means something else where the reference sees something else."""
        found = super().quality(run)
        if not anchored(run):
            return found
        return [OTHER_SIGHT, *(one for one in found if "displacement" not in one.text)]

    def own_sections(self, run: Run) -> list[Section]:
        """See `positions.py`."""
        return [*super().own_sections(run), *position_sections(run)]

    def data_facts(self, run: Run) -> DataFacts:
        """What the builder of the rows left out, and why."""
        dropped = run.of("build", "dropped")
        if not isinstance(dropped, Mapping):
            return super().data_facts(run)
        reasons = sorted(
            ((str(reason), count) for reason, n in dropped.items() if (count := finite(n)) is not None),
            key=lambda one: (-one[1], one[0]),
        )
        return DataFacts(render("filters", __package__, kept=run.of("build", "kept"), reasons=reasons))

    def loading(self, run: Run) -> Loading:
        """See `loading.py`."""
        return loading(run)

    def front(self, run: Run) -> CardFront:
        """Models that the hub knows how to show images to."""
        return CardFront("image-text-to-text")


ACCOUNT = VisionLanguageAccount()
