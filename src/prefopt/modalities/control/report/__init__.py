"""What page and card of a run on control images say: what those on images say, and how a ControlNet is loaded."""

from __future__ import annotations

from prefopt.modalities.control.report.loading import loading
from prefopt.modalities.image.report import ImageAccount
from prefopt.modalities.image.report.loading import is_lora
from prefopt.report.account import CardFront, Loading
from prefopt.report.load import Run
from prefopt.report.loading import read_json


class ControlAccount(ImageAccount):
    """Images under control images."""

    def recognises(self, run: Run) -> bool:
        """Whether the saved pipeline has a ControlNet."""
        return "controlnet" in read_json(run.folder / "model" / "model_index.json")

    def loading(self, run: Run) -> Loading:
        """See `loading.py`."""
        return loading(run)

    def front(self, run: Run) -> CardFront:
        """What the hub knows how to draw with."""
        lora = ["lora"] if is_lora(run) else []
        return CardFront("text-to-image", ["text-to-image", "diffusers", "controlnet", *lora])


ACCOUNT = ControlAccount()
