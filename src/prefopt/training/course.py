"""The course of a run around its loop: start or resume, log, evaluate, save, finish."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from prefopt.callbacks import Best, Callback, EarlyStopping, Evaluation, listeners
from prefopt.callbacks import Run as RunSeen
from prefopt.callbacks.stopping import check_comparable, metric_of
from prefopt.comparisons import Encoded
from prefopt.config import TRAINING_ROWS, ConfigError, TrainConfig
from prefopt.files import replace_folder
from prefopt.machine import memory
from prefopt.modalities.base import Probe, Setup
from prefopt.modalities.splits import judged_sets
from prefopt.models.dtypes import in_dtype
from prefopt.models.identity import class_of
from prefopt.runs.console import Console
from prefopt.runs.record import Record
from prefopt.runs.trackers import Trackers
from prefopt.training import checkpoint
from prefopt.training.best import BestModel
from prefopt.training.checks import check_start_value, rehearse_longest
from prefopt.training.ending import finish, publish
from prefopt.training.evaluate import evaluate
from prefopt.training.extending import check_length, go_on
from prefopt.training.leaving import leave
from prefopt.training.loop import Loop
from prefopt.training.moments import Calendar

# keys that a resumed run may change: they decide what is written, not what is learned
FREE_ON_RESUME = frozenset(
    {
        "output_dir", "run_name", "template_date", "report_to", "resume", "extend", "overwrite", "push_to_hub", "hub_model_id", "hub_private_repo", "save_dtype", "logging_steps", "eval_steps", "save_steps",
        "logging_strategy", "eval_strategy", "save_strategy", "save_total_limit", "token_metrics", "per_device_eval_batch_size", "sample_prompts",
        "sample_max_new_tokens", "sample_temperature", "gradient_checkpointing",
        "gradient_checkpointing_kwargs", "load_best_model_at_end",
        # these are known by what they come to: fingerprints, the number of steps and their size
        "model", "data", "eval_data", "max_steps", "num_train_epochs", "per_device_train_batch_size",
        "gradient_accumulation_steps",
    }
)  # fmt: skip


def note(record: Record, console: Console, text: str) -> None:
    """A line of a callback's, for the terminal and the record.

    No method of the course: what the course holds would hold the course, and a finished run its model.
    """
    record.check("callbacks", "note", text)
    console.say(text)


@dataclass
class Course:
    """A run from its first check to its finished folder.

    Attributes:
        config: of the run.
        loop: trains.
        setup: what the modality brought.
        record: the run's folder.
        console: the terminal.
        probe: samples on fixed conditions, and the like.
        trackers: told what is logged.
        start_print: fingerprint of the model that training begins from.
    """

    config: TrainConfig
    loop: Loop
    setup: Setup
    record: Record
    console: Console
    probe: Probe
    trackers: Trackers
    start_print: str
    _began: float = field(default=0.0, init=False)
    _began_at: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        config, feed = self.config, self.loop.feed
        self.calendar = Calendar.of(config, feed.steps, feed.steps_per_epoch)
        self.sets = judged_sets(config, self.setup.data.held_out)
        self.run_seen = RunSeen(
            config,
            self.record.folder,
            self.setup.policy.model,
            feed.steps,
            feed.steps_per_epoch,
            held_out=0 if self.setup.data.not_held_out else len(self.setup.data.held_out),
            main=self.loop.accelerator.is_main_process,
            say=partial(note, self.record, self.console),
        )
        best = config.metric_for_best_model, config.greater_is_better
        self.best = BestModel(self.loop.model, self.record.folder / "checkpoints", *best)
        own: list[Callback] = [self.best] if config.load_best_model_at_end else []
        if config.early_stopping_patience is not None:
            own.append(EarlyStopping(config.early_stopping_patience, *best, config.early_stopping_threshold))
        if self.loop.learning_rate.follows:
            check_comparable(config.metric_for_best_model, config)
        self.callbacks: list[Callback] = [*own, *listeners().callbacks]

    @property
    def judged(self) -> Sequence[Encoded[Any]]:
        """What evaluations look at."""
        data = self.setup.data
        return data.held_out or data.train[: 4 * self.config.per_device_eval_batch_size]

    @property
    def judged_split(self) -> str:
        """Its name in the record."""
        return "held-out" if self.setup.data.not_held_out is None else "training"

    def identity(self) -> dict[str, Any]:
        """What a resumed run must share with the one it continues."""
        free = set(FREE_ON_RESUME)
        if self.loop.learning_rate.follows or self.config.early_stopping_patience is not None:
            free -= {"eval_steps", "eval_strategy"}  # evaluations decide what is learned
        elif not self.config.load_best_model_at_end:
            free |= {"metric_for_best_model", "greater_is_better"}
        return {
            "data": self.setup.data.fingerprint,
            "steps": self.loop.feed.steps,
            "step_size": self.loop.feed.step_size,
            "objective": repr(self.loop.objective),
            **self.config.model_dump(mode="json", exclude=free),
        }

    def run(self, resume_from: Path | None) -> None:
        """Start or resume, train to the end, and leave a finished folder."""
        loop, accelerator = self.loop, self.loop.accelerator
        if resume_from is not None:
            self.resume(resume_from)
        self.tell("on_start")
        if resume_from is None:
            self.start()
        loop.scorer.reference.policy_moved()
        self._began, self._began_at = time.perf_counter(), loop.step
        with self.console.bar(loop.feed.steps, loop.step):
            if self.run_seen.stopped is None:  # as it was before a resume
                loop.fit(self.after_step)
        best_step = self.keep_best()
        self.save_model(self.record.folder / "model")
        self.tell("on_end")
        stopped = self.run_seen.stopped
        finish(
            self.record,
            self.console,
            duration_s=round(time.perf_counter() - self._began, 2),
            peak_memory_bytes=memory.peak(accelerator.device),
            stopped_early=None if stopped is None else {"step": loop.step, "reason": stopped},
            best_step=best_step,
        )
        if self.run_seen.main:
            self.best.prune(finished=True)
        self.trackers.close()
        leave(accelerator)  # saving a sharded model needs the process group
        publish(self.record, self.console)  # last: nobody waits for it

    def start(self) -> None:
        """Checks, and the values before the first step."""
        check_start_value(self.loop, self.record)
        rehearse_longest(self.loop, self.record)
        self.evaluate("before")

    def resume(self, source: Path) -> None:
        """Put everything back as it was after the checkpoint's step.

        Raises:
            ConfigError: the checkpoint belongs to a run that was configured otherwise.
            CheckpointError: it is damaged or of another model.
        """
        loop = self.loop
        state, objective_state, feed_state = checkpoint.load(source, loop.model, loop.optimizer)
        identity = self.identity()
        # keys that are newer than the checkpoint had their default
        before = {k: f.default for k, f in TrainConfig.model_fields.items() if k in identity} | state[
            "identity"
        ]
        if changed := [k for k in identity if k != "steps" and before.get(k) != identity[k]]:
            raise ConfigError(
                f"{source} belongs to a run with other {', '.join(changed)}: resume with the configuration in "
                f"{self.record.folder / 'config.yaml'}, or start over with overwrite=true"
            )
        self.check_start(source, state.get("start"))
        stopped = state.get("stopped") is not None
        goes_on = check_length(self.config, self.record, before["steps"], identity["steps"], stopped)
        loop.step, loop.tokens = state["step"], state["tokens"]
        loop.updates = state.get("updates", loop.step)  # older checkpoints do not say
        loop.state = {k: v.to(loop.accelerator.device) for k, v in objective_state.items()}
        loop.feed.load_state(feed_state)
        if loop.scorer.reference.sync is not None:
            loop.scorer.reference.load_state(checkpoint.reference_of(source))
        loop.learning_rate.load_state(state["scheduler"])
        if loop.accelerator.scaler is not None and "scaler" in state:
            loop.accelerator.scaler.load_state_dict(state["scaler"])
        self.remind(state)
        for group, rate in zip(loop.optimizer.param_groups, state["learning_rates"], strict=True):
            group["lr"] = rate
        if self.best in self.callbacks:
            self.best.bring(source.parent, self.run_seen.main)
            loop.accelerator.wait_for_everyone()
        if goes_on:
            self.run_seen.stopped = None
            for callback in self.callbacks:
                if isinstance(callback, Best):
                    callback.since = 0
            go_on(loop, self.record, before["steps"], self.console.say)
        self.record.rewind(loop.step)
        self.console.say(f"resumed after step {loop.step} from {source}")

    def check_start(self, source: Path, start: Mapping[str, Any] | None) -> None:
        """Raise ConfigError where a checkpoint's run began from another model; older ones, and other libraries', do not say."""
        if start is None or start["class"] != class_of(self.setup.policy.model):
            return
        if start["fingerprint"] != self.start_print:
            raise ConfigError(
                f"{source} belongs to a run that began from another model than {self.config.model} is now: give the model that it "
                "began from, or start over with overwrite=true"
            )

    def remind(self, state: Mapping[str, Any]) -> None:
        """Give callbacks back what they remembered at a checkpoint."""
        memories = dict(state.get("callbacks", {}))
        for name, callback in self.named_callbacks().items():
            if name in memories:
                callback.load_state(memories.pop(name))
        if memories:
            self.console.say(
                f"note: the run had callbacks that it is resumed without: {', '.join(sorted(memories))}"
            )
        self.run_seen.stopped = state.get("stopped")

    def named_callbacks(self) -> dict[str, Callback]:
        """Callbacks by the names under which checkpoints hold their memory."""
        named: dict[str, Callback] = {}
        for callback in self.callbacks:
            inner = getattr(callback, "callback", callback)
            kind = "best_model" if callback is self.best else type(inner).__name__
            same = sum(name.partition("#")[0] == kind for name in named)
            named[kind if not same else f"{kind}#{same + 1}"] = callback
        return named

    def tell(self, event: str, *what: Any) -> None:
        """Call every callback's method for an event; then all processes agree on what they asked for."""
        seen, loop = self.run_seen, self.loop
        seen.step, seen.history = loop.step, self.record.history
        for callback in self.callbacks:
            getattr(callback, event)(seen, *what)
        if loop.accelerator.num_processes > 1 and self.callbacks:
            from accelerate.utils import broadcast_object_list

            seen.stopped, seen.asked = broadcast_object_list([seen.stopped, seen.asked])

    def after_step(self) -> bool:
        """Log, evaluate and save where it is time to, or where callbacks ask for it; True to end the run."""
        loop, seen = self.loop, self.run_seen
        step = loop.step
        done = step == loop.feed.steps
        seen.logged = self.log() if step in self.calendar.logging or done or step == 1 else None
        if seen.logged is None:
            self.console.tick(step)
        self.tell("on_step")
        if "log" in seen.asked and seen.logged is None:
            self.log()
        last = done or seen.stopped is not None
        due = step in self.calendar.evaluation or "evaluate" in seen.asked
        if last or (due and self.setup.data.held_out):
            self.evaluate("after" if last else f"step {step}")
        if seen.stopped is not None and not last:  # an evaluation has ended it, which so was the last one
            self.record.margins("after", self._margins, self.judged_split)
        last = done or seen.stopped is not None
        keeps = self.calendar.keeps_checkpoints and (step in self.calendar.saving or last)
        if keeps or "save" in seen.asked:
            loop.watch()
            self.save_checkpoint()
        seen.asked = set()
        if seen.stopped is not None and not done:
            self.console.say(f"stopped after step {step} of {loop.feed.steps}: {seen.stopped}")
        return last

    def keep_best(self) -> int | None:
        """Put the weights of the best evaluation back, and evaluate them, where the last ones are not the best.

        Returns:
            The step that they are of; None where the last model is kept.
        """
        best = self.best
        if best not in self.callbacks:
            return None
        if best.value is None:
            self.console.say(f"the last model is saved: {best.metric} was never a finite number")
            return None
        if best.step == self.loop.step:
            self.console.say(f"the last evaluation is the best: {best.told()}")
            return None
        best.restore()
        self.console.say(f"the model of step {best.step} is saved, the best: {best.told()}")
        self.evaluate("after", told=False)
        return best.step

    def log(self) -> dict[str, float]:
        """One line of training metrics."""
        loop = self.loop
        accelerator = loop.accelerator
        loop.watch()
        tokens = torch.tensor(float(loop.tokens), device=accelerator.device)
        line = loop.train_metrics() | {"num_tokens": float(accelerator.reduce(tokens, "sum"))}
        if loop.rule.by_gradient:
            line |= {
                "grad_norm": loop.last_grad_norm,
                "learning_rate": loop.learning_rate.latest(),
            }
        self.record.metrics(loop.step, loop.step / loop.feed.steps_per_epoch, "train", line)
        self.trackers.log(line, loop.step)
        pace = (time.perf_counter() - self._began) / (loop.step - self._began_at)
        self.console.training(loop.step, loop.feed.steps, line, pace)
        return line

    def evaluate(self, label: str, told: bool = True) -> None:
        """Metrics of what is held out (of training rows, and called so, where nothing is), margins and samples.

        Args:
            label: before, after, or the step.
            told: whether callbacks, and a schedule that follows a metric, hear of it.
        """
        loop = self.loop
        found: dict[str, float] = {}
        self._margins: dict[str, list[float]] = {}
        if self.judged:
            found, self._margins = evaluate(loop, self.judged, self.sets)
            if label in ("before", "after"):
                self.record.margins(label, self._margins, self.judged_split)
        found |= self.probe.take(loop.step, label)
        if compute_metrics := listeners().compute_metrics:
            found |= self.computed(compute_metrics, found)
        split = "eval" if self.setup.data.not_held_out is None else TRAINING_ROWS
        line = {f"{split}_{k}": v for k, v in found.items()}
        self.record.metrics(loop.step, loop.step / loop.feed.steps_per_epoch, split, line)
        self.trackers.log(line, loop.step)
        self.console.evaluation(loop.step, found, self.judged_split)
        if told:
            if loop.learning_rate.follows:
                value = metric_of(line, self.config.metric_for_best_model)  # there at the start, or never
                if loop.step:
                    loop.learning_rate.judged(value)
            self.tell("on_evaluate", line)

    def computed(
        self, compute_metrics: Callable[[Evaluation], Mapping[str, float]], found: Mapping[str, float]
    ) -> dict[str, float]:
        """Metrics of the user's own, computed by the main process and known to all.

        Raises:
            ConfigError: they are no numbers by name.
        """
        loop = self.loop
        shown = self.record.read("samples")["prompts"] if self.record.has("samples") else []
        samples = [
            {"prompt": entry["prompt"], **drawn}
            for entry in shown
            for drawn in entry["generations"]
            if drawn["step"] == loop.step
        ]
        values: Any = {}
        if loop.accelerator.is_main_process:
            values = compute_metrics(Evaluation(loop.step, found, self._margins, samples))
        if loop.accelerator.num_processes > 1:
            from accelerate.utils import broadcast_object_list

            (values,) = broadcast_object_list([values])
        if not isinstance(values, Mapping) or not all(
            isinstance(k, str) and isinstance(v, int | float) for k, v in values.items()
        ):
            raise ConfigError(
                f"compute_metrics must return numbers by name, {{'name': 0.5}}; given back {values!r}"[:300]
            )
        return {k: float(v) for k, v in values.items()}

    def save_checkpoint(self) -> None:
        """All that an exact resume needs."""
        loop = self.loop
        scaler = loop.accelerator.scaler
        written = checkpoint.save(
            self.record.folder / "checkpoints",
            loop.step,
            loop.model,
            loop.optimizer,
            loop.state,
            loop.feed.state(),
            {
                "tokens": loop.tokens,
                "updates": loop.updates,
                "template_date": self.record.date,
                "scheduler": loop.learning_rate.state(),
                "learning_rates": [g["lr"] for g in loop.optimizer.param_groups],
                "identity": self.identity(),
                "callbacks": {name: dict(c.state()) for name, c in self.named_callbacks().items()},
                "stopped": self.run_seen.stopped,
                **({} if scaler is None else {"scaler": scaler.state_dict()}),
                "start": {"fingerprint": self.start_print, "class": class_of(self.setup.policy.model)},
            },
            main=loop.accelerator.is_main_process,
            keep=self.config.save_total_limit,
            reference=loop.scorer.reference.state(),
        )
        self.tell("on_save", written)

    def save_model(self, folder: Path) -> None:
        """Write the trained model, whole or not at all."""
        model = self.setup.policy.model
        # the state dict, not the parameters: those of a root module are whole between a forward pass and the next
        held = model.state_dict()
        sharded = any(hasattr(value, "full_tensor") for value in held.values())
        state = {name: checkpoint.whole(value) for name, value in held.items()} if sharded else None
        if self.config.save_dtype != "auto":
            state = in_dtype(held if state is None else state, self.config.save_dtype)
        if not self.loop.accelerator.is_main_process:
            return
        replace_folder(folder, lambda place: self.setup.save(place, state), "the trained model")
