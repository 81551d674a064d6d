"""What page and card of a run on control images say: what those on images say, and how a ControlNet is loaded."""

from __future__ import annotations

import json

from prefopt.modalities.control.report.loading import loading
from prefopt.modalities.image.report import ImageAccount
from prefopt.report.account import CardFront, Loading
from prefopt.report.load import Run


class ControlAccount(ImageAccount):
    """Images under control images."""

    def recognises(self, run: Run) -> bool:
        """Whether the saved pipeline has a ControlNet."""
        try:
            index = json.loads((run.folder / "model" / "model_index.json").read_text("utf-8"))
        except (OSError, ValueError):
            return False
        return isinstance(index, dict) and "controlnet" in index

    def loading(self, run: Run) -> Loading:
        """See `loading.py`."""
        return loading(run)

    def front(self, run: Run) -> CardFront:
        """What the hub knows how to draw with."""
        lora = ["lora"] if loading(run).adapter else []
        return CardFront("text-to-image", ["text-to-image", "diffusers", "controlnet", *lora])


ACCOUNT = ControlAccount()
