"""The trained weights of the best evaluation, kept on disk beside the checkpoints, as long as one of them may be gone on from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from prefopt.callbacks import Best, Run, listeners
from prefopt.config import ConfigError, TrainConfig
from prefopt.files import replace_folder
from prefopt.training.checkpoint import CheckpointError, copy_into, trained, whole
from prefopt.training.schedule import FOLLOWERS

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
        if self.since or self.value is None:
            return
        weights = {name: whole(p) for name, p in trained(self.model).items()}

        def fill(partial: Path) -> None:
            partial.mkdir()
            save_file(weights, partial / WEIGHTS)

        if run.main:
            replace_folder(self.place(run.step), fill, "the weights of the best evaluation")
            self.prune()

    def prune(self, finished: bool = False) -> None:
        """Remove what neither the present best nor a checkpoint that may be gone on from refers to.

        Args:
            finished: whether the run's model is saved, so that only checkpoints need any.
        """
        named = set() if finished else {self.step}
        for state in self.folder.glob("step-*/state.json"):
            kept: dict[str, Any] = json.loads(state.read_text()).get("callbacks", {}).get("best_model", {})
            named |= {kept["step"]} if "step" in kept else set()
        for path in self.folder.glob("best-*"):
            if path not in map(self.place, named):
                shutil.rmtree(path)

    def bring(self, folder: Path, main: bool) -> None:
        """Have the weights of the best evaluation that a checkpoint names, which may be another run's.

        Args:
            folder: of that run's checkpoints.
            main: whether this is the process that writes.

        Raises:
            CheckpointError: they are gone.
        """
        theirs = folder / self.place(self.step).name
        if self.value is None or self.place(self.step).exists():
            return
        if not (theirs / WEIGHTS).exists():
            raise CheckpointError(
                f"{theirs}, the weights of the best evaluation so far, has been removed: resume with load_best_model_at_end=false, "
                "which saves the last model, or start over with overwrite=true"
            )

        def fill(partial: Path) -> None:
            shutil.copytree(theirs, partial)

        if main:
            replace_folder(self.place(self.step), fill, "the weights of the best evaluation")

    def restore(self) -> None:
        """Put the best weights back into the model."""
        from safetensors.torch import load_file

        weights = load_file(self.place(self.step) / WEIGHTS)
        for name, p in trained(self.model).items():
            copy_into(p, weights[name].to(p.dtype))

    def told(self) -> str:
        """The best value, for a reader."""
        return f"{self.metric} {self.value:.4g}"


def check_read(config: TrainConfig) -> None:
    """Raise ConfigError for keys of the best evaluation that nobody looks at, or that have no evaluations to look at."""
    stops, follows = config.early_stopping_patience is not None, config.lr_scheduler_type in FOLLOWERS
    if not (stops or follows or config.load_best_model_at_end or listeners().callbacks):
        for key in ("metric_for_best_model", "greater_is_better"):
            if getattr(config, key) != TrainConfig.model_fields[key].default:
                raise ConfigError(
                    f"{key}={getattr(config, key)}: nobody looks at it. Set load_best_model_at_end=true, early_stopping_patience or "
                    "lr_scheduler_type=reduce_lr_on_plateau, or leave it out"
                )
    if config.eval_strategy == "no" and (stops or follows):
        key = "early_stopping_patience" if stops else f"lr_scheduler_type={config.lr_scheduler_type}"
        raise ConfigError(
            f"{key} looks at evaluations, and eval_strategy=no has none between start and end: leave one of them out"
        )
