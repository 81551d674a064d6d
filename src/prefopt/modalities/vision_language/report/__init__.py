"""What page and card of a run on images and text say: what those on text say, with the pictures."""

from __future__ import annotations

from prefopt.modalities.text.report import TextAccount
from prefopt.modalities.vision_language.report.curves import PICTURED_GROUPS
from prefopt.modalities.vision_language.report.first_pair import first_pair
from prefopt.modalities.vision_language.report.loading import loading
from prefopt.report.account import CardFront, Loading
from prefopt.report.curves import Groups
from prefopt.report.load import Run
from prefopt.report.page import Section


class VisionLanguageAccount(TextAccount):
    """Answers to prompts with pictures."""

    def curves(self, run: Run) -> Groups:
        """See `curves.py`."""
        return PICTURED_GROUPS

    def first_pair(self, run: Run) -> Section:
        """See `first_pair.py`."""
        return first_pair(run)

    def loading(self, run: Run) -> Loading:
        """See `loading.py`."""
        return loading(run)

    def front(self, run: Run) -> CardFront:
        """Models that the hub knows how to show images to."""
        return CardFront("image-text-to-text")


ACCOUNT = VisionLanguageAccount()
