"""Callbacks that were written for transformers' Trainer, told what this library's runs do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from prefopt.callbacks.base import Callback, Run
from prefopt.callbacks.stopping import Best

ABSENT = (
    "on_init_end",
    "on_pre_optimizer_step",
    "on_optimizer_step",
    "on_substep_end",
    "on_predict",
    "on_prediction_step",
    "on_push_begin",
)
"""Events of a Trainer that a run here does not have."""


class TransformersCallback(Callback):
    """A `transformers.TrainerCallback` behind this library's protocol.

    Its `state` and `control` are transformers' own; of its `args` those names that the configuration has, and `kwargs` hold
    the model. What it sets in `control` (stop, log, evaluate, save) is done after the step. The evaluation before the first step is
    kept from it, since a Trainer has none.

    Args:
        callback: for a Trainer.
    """

    def __init__(self, callback: Any) -> None:
        from transformers.trainer_callback import TrainerControl, TrainerState

        self.callback = callback
        self.given = dict(self.exported().get("attributes", {}))
        self.trainer = TrainerState()
        self.control = TrainerControl()
        self.best: Best | None = None
        self.remembered: Mapping[str, Any] | None = None
        self.last_epoch = 0

    def exported(self) -> Mapping[str, Any]:
        """What the callback says that a resumed run needs to know of it."""
        found: Mapping[str, Any] = self.callback.state() if hasattr(self.callback, "state") else {}
        return found

    def absent(self) -> list[str]:
        """Events that the callback defines and that never come."""
        from transformers import TrainerCallback

        return [
            name
            for name in ABSENT
            if getattr(type(self.callback), name, None) is not getattr(TrainerCallback, name)
            and hasattr(self.callback, name)
        ]

    def on_start(self, run: Run) -> None:
        """Training begins."""
        if absent := self.absent():
            run.say(
                f"{type(self.callback).__name__} is never told of {', '.join(absent)}: runs of prefopt have no such events"
            )
        config = run.config
        self.best = Best(config.metric_for_best_model, config.greater_is_better)
        if run.step == 0:
            self.begin_anew()
        elif self.remembered is not None:
            self.best.load_state(self.remembered)
        self.trainer.max_steps = run.steps
        self.trainer.num_train_epochs = -(-run.steps // run.steps_per_epoch)
        self.trainer.is_world_process_zero = self.trainer.is_local_process_zero = run.main
        self.last_epoch = run.step // run.steps_per_epoch
        self.tell("on_train_begin", run)
        self.tell("on_epoch_begin", run)
        self.tell("on_step_begin", run)

    def begin_anew(self) -> None:
        """Forget an earlier run of several: what the callback exports is again what it was given with."""
        from transformers.trainer_callback import TrainerControl, TrainerState

        self.trainer, self.control = TrainerState(), TrainerControl()
        for name, value in self.given.items():
            setattr(self.callback, name, value)

    def on_step(self, run: Run) -> None:
        """A step has ended, perhaps an epoch, and the next begins."""
        self.tell("on_step_end", run)
        if run.logged is not None:
            self.tell("on_log", run, logs=dict(run.logged))
        if run.step // run.steps_per_epoch > self.last_epoch:
            self.last_epoch = run.step // run.steps_per_epoch
            self.tell("on_epoch_end", run)
            if run.step < run.steps:
                self.tell("on_epoch_begin", run)
        if run.step < run.steps and run.stopped is None:
            self.tell("on_step_begin", run)

    def on_evaluate(self, run: Run, metrics: Mapping[str, float]) -> None:
        """The best metric is that before this evaluation; nothing where nothing is held out, as in a Trainer."""
        if run.step == 0 or not run.held_out:
            return
        assert self.best is not None
        self.trainer.best_metric, self.trainer.best_global_step = self.best.value, self.best.step
        self.tell("on_log", run, logs=dict(metrics))
        self.tell("on_evaluate", run, metrics=dict(metrics))
        if {self.best.metric, f"eval_{self.best.metric}"} & metrics.keys():
            self.best.on_evaluate(run, metrics)

    def on_save(self, run: Run, checkpoint: Path) -> None:
        """A checkpoint was written."""
        self.tell("on_save", run)

    def on_end(self, run: Run) -> None:
        """Training is over."""
        self.tell("on_train_end", run)

    def tell(self, event: str, run: Run, **more: Any) -> None:
        """Call one of the callback's methods, and do what it asks for."""
        method = getattr(self.callback, event, None)
        if method is None:
            return
        self.trainer.global_step, self.trainer.epoch = run.step, run.epoch
        self.trainer.log_history = [dict(line) for line in run.history]
        control = method(arguments(run), self.trainer, self.control, model=run.model, **more) or self.control
        if control.should_training_stop:
            run.stop(f"{type(self.callback).__name__} asked for it")
        for wish, what in (("should_evaluate", "evaluate"), ("should_save", "save"), ("should_log", "log")):
            if getattr(control, wish):
                run.asked.add(what)
                setattr(control, wish, False)
        control.should_training_stop = False
        self.control = control

    def state(self) -> Mapping[str, Any]:
        """What the callback exports, and the best metric."""
        return {"callback": self.exported(), "best": None if self.best is None else self.best.state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        for name, value in state["callback"].get("attributes", {}).items():
            setattr(self.callback, name, value)
        self.remembered = state["best"]


class Arguments(SimpleNamespace):
    """The configuration as callbacks of a Trainer read their arguments."""

    def to_dict(self) -> dict[str, Any]:
        """All of them by name."""
        return dict(vars(self))

    to_sanitized_dict = to_dict

    def to_json_string(self) -> str:
        """The same as text."""
        return json.dumps(self.to_dict(), indent=2, default=str)


def arguments(run: Run) -> Arguments:
    """The configuration under the names of `TrainingArguments`, and those that callbacks ask about by other names."""
    config = run.config
    return Arguments(
        **config.model_dump(exclude={"output_dir", "eval_strategy", "greater_is_better"}),
        output_dir=str(run.output_dir),
        logging_dir=str(run.output_dir / "trackers"),
        eval_strategy=config.eval_strategy or ("steps" if run.held_out else "no"),
        greater_is_better=Best(config.metric_for_best_model, config.greater_is_better).greater,
        train_batch_size=config.per_device_train_batch_size,
        eval_batch_size=config.per_device_eval_batch_size,
    )
