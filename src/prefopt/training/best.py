"""The trained weights of the best evaluation, kept on disk beside the checkpoints until the run ends."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from prefopt.callbacks import Best, Run
from prefopt.files import replace_folder
from prefopt.training.checkpoint import CheckpointError, copy_into, trained, whole

WEIGHTS = "weights.safetensors"


class BestModel(Best):
    """Writes what is trained whenever an evaluation is the best so far; every process takes part.

    Args:
        model: the prepared policy.
        folder: of the checkpoints.
        metric, greater_is_better: see `Best`.
    """

    def __init__(
        self, model: nn.Module, folder: Path, metric: str = "eval_loss", greater_is_better: bool | None = None
    ) -> None:
        super().__init__(metric, greater_is_better)
        self.model, self.folder = model, folder

    def place(self, step: int) -> Path:
        """Folder of the weights after a step."""
        return self.folder / f"best-{step:08d}"

    def on_evaluate(self, run: Run, metrics: Mapping[str, float]) -> None:
        """Compare, and write."""
        from safetensors.torch import save_file

        super().on_evaluate(run, metrics)
        if self.since:
            return
        weights = {name: whole(p) for name, p in trained(self.model).items()}

        def fill(partial: Path) -> None:
            partial.mkdir()
            save_file(weights, partial / WEIGHTS)

        if run.main:
            replace_folder(self.place(run.step), fill, "the weights of the best evaluation")
            self.prune()

    def prune(self) -> None:
        """Remove what neither the present best nor a checkpoint that may be gone on from refers to."""
        named = {self.step}
        for state in self.folder.glob("step-*/state.json"):
            kept: dict[str, Any] = json.loads(state.read_text()).get("callbacks", {}).get("best_model", {})
            named |= {kept["step"]} if "step" in kept else set()
        for path in self.folder.glob("best-*"):
            if path not in map(self.place, named):
                shutil.rmtree(path)

    def restore(self) -> None:
        """Put the best weights back into the model.

        Raises:
            CheckpointError: they are gone.
        """
        from safetensors.torch import load_file

        path = self.place(self.step) / WEIGHTS
        if not path.exists():
            raise CheckpointError(
                f"{path}, the weights of the best evaluation, has been removed: the model of the last step is in the newest "
                "checkpoint; resume with load_best_model_at_end=false to save that"
            )
        weights = load_file(path)
        for name, p in trained(self.model).items():
            copy_into(p, weights[name].to(p.dtype))

    def told(self) -> str:
        """The best value, for a reader."""
        return f"{self.metric} {self.value:.4g}"

    def clear(self) -> None:
        """Remove all of them: the run's model is saved."""
        for path in self.folder.glob("best-*"):
            shutil.rmtree(path)
