"""The folder of a method of several runs: one configuration, one folder a stage, nothing done twice."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from prefopt.config import (
    ONLINE_FIELDS,
    STAGED_FIELDS,
    ConfigError,
    TrainConfig,
    dump,
    read_yaml,
)
from prefopt.training import checkpoint, record
from prefopt.training.record import finished, last_metrics
from prefopt.training.run import RunOutcome, find_resume, run

Reward = Callable[[Any, Any], float]
# what a resumed method may change: nothing that is learned depends on it
FREE = frozenset({"resume", "overwrite", "output_dir", "run_name", "report_to"})
# the configuration goes last: while it is there, nothing is begun beside remains of another run
OURS = (*dict.fromkeys(("stages", "stages.json", *record.OURS[::-1], "config.yaml")),)
ONE_RUN: dict[str, Any] = {"columns": [], "max_examples": None, "split": "train"}
"""Keys that have been heeded when a stage's rows were written."""


class StagedFolder:
    """Where the stages of one method live.

    Args:
        config: of the whole method.
        hyper: the objective's hyper-parameters.

    Raises:
        ConfigError: the folder holds another run, or the run to resume was configured otherwise; nothing was touched.
    """

    def __init__(self, config: TrainConfig, hyper: Mapping[str, Any]) -> None:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ConfigError(
                f"{config.method} alternates sampling and training, and that runs in one process so far: start it "
                "without accelerate launch or torch.distributed.run"
            )
        if isinstance(config.resume, str) and config.resume not in ("true", "false"):
            raise ConfigError(
                f"{config.method} consists of several runs: resume it with resume=true and its output_dir, not from a "
                "single checkpoint"
            )
        name = config.output_dir.format(method=config.method, seed=config.seed)
        self.path = Path(name).expanduser()
        self.config, self.hyper = config, dict(hyper)
        self.resuming = config.resume in (True, "true")
        self._check()

    def _check(self) -> None:
        find_resume(self.config, self.path)  # refuses what an ordinary run refuses
        if not self.resuming:
            return
        # through JSON, since YAML knows no tuples
        before = read_yaml(self.path / "config.yaml")
        now = json.loads(json.dumps(self._values(), default=str))
        keys = (before.keys() | now.keys()) - FREE
        if changed := sorted(k for k in keys if before.get(k) != now.get(k)):
            raise ConfigError(
                f"{self.path} was begun with other {', '.join(changed)}: resume with its config.yaml, or start over "
                "with overwrite=true"
            )

    def _values(self) -> dict[str, Any]:
        import yaml

        values: dict[str, Any] = yaml.safe_load(dump(self.config, self.hyper))
        return values

    def open(self) -> None:
        """Make the folder; only now, and only with overwrite=true, what a former run wrote in it goes.

        Raises:
            ConfigError: it cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not self.resuming:
                for name in OURS if self.config.overwrite else ():
                    path = self.path / name
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
                write_whole(self.path / "config.yaml", dump(self.config, self.hyper))
            (self.path / "stages").mkdir(exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"cannot write to {self.path}: {error.strerror}. Give another output_dir, or fix its permissions"
            ) from error

    def stage(self, name: str) -> Path:
        """The folder of a stage."""
        path = self.path / "stages" / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def run(self, name: str, reward: Reward | None, hyper: Mapping[str, Any], **changes: Any) -> RunOutcome:
        """The run of a stage, `stages/NAME/run`: skipped if it has finished, gone on with if it has begun.

        Args:
            name: of the stage.
            reward: of samples.
            hyper: of its objective.
            changes: its configuration, where it differs from the method's.
        """
        folder = self.stage(name) / "run"
        if finished(folder):
            return outcome_of(folder)
        schema = TrainConfig.model_fields
        single = {k: schema[k].default for k in STAGED_FIELDS | ONLINE_FIELDS}
        # one that was killed before its first checkpoint starts over, without the lines that it had logged
        begun = checkpoint.newest(folder / "checkpoints") is not None
        given = {
            **self.config.model_dump(), **single, **ONE_RUN, **changes,
            "output_dir": str(folder), "resume": begun, "overwrite": not begun,
            "run_name": f"{self.config.run_name or self.path.name}, stage {name}",
        }  # fmt: skip
        return run(TrainConfig(**given), hyper, reward)

    def take_model(self, source: Path) -> None:
        """Make a stage's model the method's own: linked where the file system can, copied where it cannot."""
        partial, target = self.path / ".model.partial", self.path / "model"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(source, partial, copy_function=link_or_copy)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(partial, target)


def link_or_copy(source: str, target: str) -> str:
    """A hard link, or a copy where the file system has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def outcome_of(folder: Path) -> RunOutcome:
    """What a finished run left in its folder."""
    history = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    return RunOutcome(folder, last_metrics(history), history)


def write_whole(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    with partial.open("rb") as written:
        os.fsync(written.fileno())
    os.replace(partial, path)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """JSON lines, whole or not at all."""
    write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """JSON lines that `write_rows` wrote."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
