"""The folder of a method of several runs: that of one run at its top, and what lies between the stages."""

from __future__ import annotations

import contextlib
import datetime
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from prefopt.config import ConfigError, TrainConfig, dump, read_yaml, run_folder, staged_keys
from prefopt.files import GO_ON, link_or_copy, replace_folder, write_lines, writing
from prefopt.hub import check_push
from prefopt.likelihoods.clock import dated, today
from prefopt.locking import FolderLock
from prefopt.modalities import of_model
from prefopt.runs.console import Console
from prefopt.runs.record import Record, finished
from prefopt.runs.trackers import trackers_meant
from prefopt.stages.whole import Whole
from prefopt.training import checkpoint
from prefopt.training.ending import finish, noted_if_stopped, publish
from prefopt.training.run import RunOutcome, describe_method, find_resume, run

Reward = Callable[[Any, Any], float]
# what a resumed method may change: nothing that is learned depends on it
FREE = frozenset({
    "resume", "overwrite", "output_dir", "run_name", "report_to", "push_to_hub", "hub_model_id", "hub_private_repo",
})  # fmt: skip
ONE_RUN: dict[str, Any] = {
    "columns": [], "max_examples": None, "split": "train", "eval_split": None, "rename_columns": {}, "ignore_columns": [],
    "push_to_hub": False, "hub_model_id": None, "hub_private_repo": False,
}  # fmt: skip
"""Keys that have been heeded when a stage's rows were written, or are when all stages have finished."""


class StagedFolder:
    """Where the stages of one method live; held against other runs while entered.

    Args:
        config: of the whole method.
        hyper: the objective's hyper-parameters.

    Raises:
        ConfigError, ValueError: on entering: the folder holds another run, or one is at work there, or the run to resume
            was configured otherwise; nothing was touched.
    """

    def __init__(self, config: TrainConfig, hyper: Mapping[str, Any]) -> None:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ConfigError(
                f"{config.method} alternates sampling and training, and that runs in one process so far: start it "
                "without accelerate launch or torch.distributed.run"
            )
        trackers_meant(config.report_to)
        check_push(config)
        if isinstance(config.resume, str) and config.resume not in ("true", "false"):
            raise ConfigError(
                f"{config.method} consists of several runs: resume it with resume=true and its output_dir, not from a "
                "single checkpoint"
            )
        self.path = run_folder(config)
        self.config, self.hyper = config, dict(hyper)
        self.resuming = config.resume in (True, "true")
        self.lock = FolderLock(self.path)

    def __enter__(self) -> Self:
        self._began = time.perf_counter()
        with contextlib.ExitStack() as stack:
            stack.callback(self.lock.release)
            if self.path.exists():
                self.lock.take()
            before = self._check()
            # one date for all stages, also for those of a later day
            began = before.get("template_date")
            day = self.config.template_date or (
                today() if began is None else datetime.date.fromisoformat(str(began))
            )
            self.config = self.config.model_copy(update={"template_date": day})
            self.record = Record(self.path, self.config, self.hyper, True, self.resuming, self.lock)
            stack.enter_context(noted_if_stopped(self.record))
            stack.enter_context(dated(day))
            self._held = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.__exit__(kind, error, trace)

    def _check(self) -> dict[str, Any]:
        """Refuse what cannot be gone on with; returns the configuration that the method was begun with."""
        find_resume(self.config, self.path)  # refuses what an ordinary run refuses
        if not self.resuming:
            return {}
        # through JSON, since YAML knows no tuples
        before: dict[str, Any] = json.loads(json.dumps(read_yaml(self.path / "config.yaml"), default=str))
        now = json.loads(json.dumps(self._values(), default=str))
        free = FREE if self.config.template_date is not None else FREE | {"template_date"}
        keys = (before.keys() | now.keys()) - free
        if changed := sorted(k for k in keys if before.get(k) != now.get(k)):
            raise ConfigError(
                f"{self.path} was begun with other {', '.join(changed)}: resume with its config.yaml, or start over "
                "with overwrite=true"
            )
        return before

    def _values(self) -> dict[str, Any]:
        import yaml

        values: dict[str, Any] = yaml.safe_load(dump(self.config, self.hyper))
        return values

    def open(self) -> None:
        """Make the folder; only now, and only with overwrite=true, what a former run wrote in it goes.

        Raises:
            ConfigError, ValueError: another run has or had it meanwhile.
            WriteError: it cannot be written.
        """
        self.record.claim()
        self.record.open()
        self.record.manifest(**describe_method(self.config, of_model(self.config.model)))
        if self.resuming:
            self.record.rewind(math.inf)

    def begin(self, told: str, examples: int) -> None:
        """All is ready for the stages.

        Args:
            told: a sentence or two on what they are.
            examples: rows of the data that are trained on.
        """
        self.whole = Whole(self.record, told, examples, self.path / "stages" / "data" / "dropped.jsonl")

    def stage(self, name: str) -> Path:
        """The folder of a stage."""
        path = self.path / "stages" / name
        with writing(f"stage {name}", path, GO_ON):
            path.mkdir(parents=True, exist_ok=True)
        return path

    def run(
        self,
        name: str,
        reward: Reward | None,
        hyper: Mapping[str, Any],
        found: Mapping[str, Any],
        **changes: Any,
    ) -> Path:
        """The run of a stage, `stages/NAME/run`: skipped if it has finished, gone on with if it has begun.

        Args:
            name: of the stage.
            reward: of samples.
            hyper: of its objective.
            found: what is known of the stage, for its row in the manifest.
            changes: its configuration, where it differs from the method's.

        Returns:
            The folder of its model.
        """
        folder = self.stage(name) / "run"
        stage = self.whole.begin(name, folder, found)
        if finished(folder):
            stage.replay()
            return folder / "model"
        schema = TrainConfig.model_fields
        single = {k: schema[k].default for k in staged_keys()}
        # one that was killed before its first checkpoint starts over, without the lines that it had logged
        begun = checkpoint.newest(folder / "checkpoints") is not None
        given = {
            **self.config.model_dump(), **single, **ONE_RUN, **changes,
            "output_dir": str(folder), "resume": begun, "overwrite": not begun,
            "run_name": f"{self.config.run_name or self.path.name}, stage {name}",
        }  # fmt: skip
        return run(TrainConfig(**given), hyper, reward, follower=stage).output_dir / "model"

    def finish(self, model: Path) -> RunOutcome:
        """All stages are there: the model of the last is the method's own, linked where the file system can."""

        def fill(place: Path) -> None:
            shutil.copytree(model, place, copy_function=link_or_copy)

        replace_folder(self.path / "model", fill, "the trained model")
        elapsed = time.perf_counter() - self._began
        finish(self.record, Console(main=True), duration_s=round(max(elapsed, self.whole.seconds), 2))
        publish(self.record, Console(main=True))
        return RunOutcome(self.path, self.record.last_metrics(), self.record.history)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """JSON lines, whole or not at all."""
    write_lines(path, rows, advice=GO_ON)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """JSON lines that `write_rows` wrote."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
