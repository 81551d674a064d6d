"""Trackers (TensorBoard, Weights & Biases, ...) by way of Accelerate: opened before anything expensive, never in the way.

A run's own record is metrics.jsonl. What a tracker is told is a copy, so one that fails in the middle of a run is
dropped with a warning and the run goes on; one that cannot be opened stops the run before it has cost anything.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prefopt.config import ConfigError, TrainConfig, dump

FOLDER = "trackers"
"""In the run's folder: what trackers write that keep files of their own."""


def trackers_meant(names: Sequence[str]) -> list[str]:
    """Names of trackers, `all` replaced by those of Accelerate's that are installed.

    Raises:
        ConfigError: one that Accelerate does not know or that is not installed; none for `all`.
    """
    if not names:
        return []
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    known = sorted(map(str, LOGGER_TYPE_TO_CLASS))
    here = sorted({str(x) for x in get_available_trackers()})
    told = f"Known: {', '.join(known)}; installed here: {', '.join(here) or 'none'}"
    for name in names:
        if name == "all":
            if not here:
                raise ConfigError(f"report_to=all: none is installed. {told}")
            continue
        if name not in known:
            raise ConfigError(f"report_to={name} is no tracker that Accelerate knows. {told}")
        if name not in here and is_accelerates(name):
            raise ConfigError(
                f"report_to={name}: {name} is not installed. Run `pip install {name}`, or leave it out. {told}"
            )
    return list(dict.fromkeys(x for name in names for x in (here if name == "all" else [name])))


def is_accelerates(name: str) -> bool:
    """Whether a tracker is one of Accelerate's own, which need a package; the user may have registered others."""
    from accelerate.utils import LoggerType

    return name in {str(x.value) for x in LoggerType}


def told_to_trackers(config: TrainConfig, hyper: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """The configuration as trackers take it: one level of plain values. Lists and nulls become their text.

    Example:
        >>> config = TrainConfig(method="dpo", model="m", data="d")
        >>> told = told_to_trackers(config, {"beta": 0.1})
        >>> told["beta"], told["columns"], told["max_steps"]
        (0.1, '[]', 'null')
    """
    import yaml

    values: dict[str, Any] = yaml.safe_load(dump(config, hyper))
    values.pop("report_to", None)
    return {
        k: v if isinstance(v, bool | int | float | str) else json.dumps(v, default=str)
        for k, v in values.items()
    }


class Trackers:
    """The trackers of one run.

    Args:
        config: `report_to` names them, `run_name` the project.
        hyper: the objective's hyper-parameters, for their record.
        accelerator: made with `log_with`; its main process alone writes.
        folder: of the run.
        resuming: what trackers wrote in the run's folder stays.
        say: told what a user should know.
    """

    def __init__(
        self,
        config: TrainConfig,
        hyper: Mapping[str, Any],
        accelerator: Any,
        folder: Path,
        resuming: bool,
        say: Callable[[str], None],
    ) -> None:
        self.config, self.hyper, self.accelerator = config, hyper, accelerator
        self.folder, self.resuming, self.say = folder / FOLDER, resuming, say
        self.running: list[Any] = []

    def open(self) -> None:
        """Start every tracker, and tell it the configuration.

        Raises:
            ConfigError: one cannot be started (no account, no server, no disk space).
        """
        if self.accelerator.is_main_process and not self.resuming and self.config.overwrite:
            shutil.rmtree(self.folder, ignore_errors=True)  # curves of the run that is replaced
        if not self.config.report_to:
            return
        try:
            self.accelerator.init_trackers(
                self.config.run_name or "prefopt",
                config=told_to_trackers(self.config, self.hyper),
                init_kwargs={"dvclive": {"dir": str(self.folder / "dvclive"), "resume": self.resuming}},
            )
        except Exception as error:
            self.running = [t for t in self.accelerator.trackers if started(t)]
            self.close(failed=True)
            raise ConfigError(
                f"report_to={','.join(self.config.report_to)} could not be opened "
                f"({one_line(error)}). Mend it, or leave report_to out"
            ) from error
        self.running = list(self.accelerator.trackers)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Tell every tracker; one that cannot take it is dropped, and that is said."""
        for tracker in list(self.running):
            try:
                tracker.log(dict(values), step=step)
            except Exception as error:
                self.running.remove(tracker)
                self.say(
                    f"warning: {tracker.name} took no metrics at step {step} ({one_line(error)}): it is told nothing "
                    "more. The run goes on, and metrics.jsonl has everything"
                )

    def close(self, failed: bool = False) -> None:
        """Finish what is running, as failed where a tracker can tell the difference."""
        running, self.running, self.accelerator.trackers = self.running, [], []
        for tracker in running:
            try:
                finish(tracker, failed and self.accelerator.is_main_process)
            except Exception as error:
                self.say(f"warning: {tracker.name} could not be finished ({one_line(error)})")


def started(tracker: Any) -> bool:
    """Whether a tracker got as far as having something to finish."""
    try:
        return tracker.tracker is not None
    except AttributeError:
        return False


def finish(tracker: Any, failed: bool) -> None:
    """End a tracker's run; Accelerate's way of ending says that all is well."""
    if failed and tracker.name == "wandb":
        tracker.tracker.finish(exit_code=1)
    elif failed and tracker.name == "mlflow":
        import mlflow

        mlflow.end_run("FAILED")
    else:
        tracker.finish()


def one_line(error: BaseException) -> str:
    """An error's message on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
