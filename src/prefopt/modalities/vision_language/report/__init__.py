"""What page and card of a run on images and text say: what those on text say, with the pictures."""

from __future__ import annotations

from prefopt.modalities.text.report import TextAccount
from prefopt.modalities.vision_language.report.loading import loading
from prefopt.report.account import CardFront, Loading
from prefopt.report.load import Run


class VisionLanguageAccount(TextAccount):
    """Answers to prompts with pictures."""

    def loading(self, run: Run) -> Loading:
        """See `loading.py`."""
        return loading(run)

    def front(self, run: Run) -> CardFront:
        """Models that the hub knows how to show images to."""
        return CardFront("image-text-to-text")


ACCOUNT = VisionLanguageAccount()
