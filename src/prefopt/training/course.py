"""The course of a run around its loop: start or resume, log, evaluate, save, finish."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from prefopt.comparisons import Encoded
from prefopt.config import TRAINING_ROWS, ConfigError, TrainConfig
from prefopt.files import replace_folder
from prefopt.machine import memory
from prefopt.modalities.base import Probe, Setup
from prefopt.models.dtypes import in_dtype
from prefopt.runs.console import Console
from prefopt.runs.record import Record
from prefopt.runs.trackers import Trackers
from prefopt.training import checkpoint
from prefopt.training.checks import check_start_value, rehearse_longest
from prefopt.training.ending import finish
from prefopt.training.evaluate import evaluate
from prefopt.training.extending import check_length, go_on
from prefopt.training.leaving import leave
from prefopt.training.loop import Loop

# keys that a resumed run may change: they decide what is written, not what is learned
FREE_ON_RESUME = frozenset(
    {
        "output_dir", "run_name", "template_date", "report_to", "resume", "extend", "overwrite", "save_dtype", "logging_steps", "eval_steps", "save_steps",
        "save_total_limit", "token_metrics", "save_checkpoints", "per_device_eval_batch_size", "sample_prompts",
        "sample_max_new_tokens", "sample_temperature", "gradient_checkpointing",
        # these are known by what they come to: fingerprints, the number of steps and their size
        "model", "data", "eval_data", "max_steps", "num_train_epochs", "per_device_train_batch_size",
        "gradient_accumulation_steps",
    }
)  # fmt: skip


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
    """

    config: TrainConfig
    loop: Loop
    setup: Setup
    record: Record
    console: Console
    probe: Probe
    trackers: Trackers
    _began: float = field(default=0.0, init=False)
    _began_at: int = field(default=0, init=False)

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
        return {
            "data": self.setup.data.fingerprint,
            "steps": self.loop.feed.steps,
            "step_size": self.loop.feed.step_size,
            "objective": repr(self.loop.objective),
            **self.config.model_dump(mode="json", exclude=set(FREE_ON_RESUME)),
        }

    def run(self, resume_from: Path | None) -> None:
        """Start or resume, train to the end, and leave a finished folder."""
        loop, accelerator = self.loop, self.loop.accelerator
        if resume_from is None:
            self.start()
        else:
            self.resume(resume_from)
        loop.scorer.reference.policy_moved()
        self._began, self._began_at = time.perf_counter(), loop.step
        with self.console.bar(loop.feed.steps, loop.step):
            loop.fit(self.after_step)
        self.save_model(self.record.folder / "model")
        finish(
            self.record,
            self.console,
            duration_s=round(time.perf_counter() - self._began, 2),
            peak_memory_bytes=memory.peak(accelerator.device),
        )
        self.trackers.close()
        leave(accelerator)  # last: saving a sharded model needs the process group

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
        longer = check_length(self.config, self.record, before["steps"], identity["steps"])
        loop.step, loop.tokens = state["step"], state["tokens"]
        loop.updates = state.get("updates", loop.step)  # older checkpoints do not say
        loop.state = {k: v.to(loop.accelerator.device) for k, v in objective_state.items()}
        loop.feed.load_state(feed_state)
        if loop.scorer.reference.sync is not None:
            loop.scorer.reference.load_state(checkpoint.reference_of(source))
        # its functions of the step are rebuilt from the configuration, never stored
        functions = [None] * len(loop.scheduler.lr_lambdas)
        loop.scheduler.load_state_dict(state["scheduler"] | {"lr_lambdas": functions})
        for group, rate in zip(loop.optimizer.param_groups, state["learning_rates"], strict=True):
            group["lr"] = rate
        if longer:
            go_on(loop, self.record, before["steps"], self.console.say)
        self.record.rewind(loop.step)
        self.console.say(f"resumed after step {loop.step} from {source}")

    def after_step(self) -> None:
        """Log, evaluate and save where it is time to."""
        config, loop = self.config, self.loop
        steps, step = loop.feed.steps, loop.step
        done = step == steps
        if step % config.logging_steps == 0 or done or step == 1:
            self.log()
        else:
            self.console.tick(step)
        eval_steps = config.eval_steps or max(1, math.ceil(steps / 10))
        if (step % eval_steps == 0 or done) and (self.setup.data.held_out or done):
            self.evaluate("after" if done else f"step {step}")
        save_steps = config.save_steps or loop.feed.steps_per_epoch
        if config.save_checkpoints and (step % save_steps == 0 or done):
            loop.watch()
            self.save_checkpoint()

    def log(self) -> None:
        """One line of training metrics."""
        loop = self.loop
        accelerator = loop.accelerator
        loop.watch()
        tokens = torch.tensor(float(loop.tokens), device=accelerator.device)
        line = loop.train_metrics() | {"num_tokens": float(accelerator.reduce(tokens, "sum"))}
        if loop.rule.by_gradient:
            line |= {
                "grad_norm": loop.last_grad_norm,
                "learning_rate": loop.scheduler.get_last_lr()[0],
            }
        self.record.metrics(loop.step, loop.step / loop.feed.steps_per_epoch, "train", line)
        self.trackers.log(line, loop.step)
        pace = (time.perf_counter() - self._began) / (loop.step - self._began_at)
        self.console.training(loop.step, loop.feed.steps, line, pace)

    def evaluate(self, label: str) -> None:
        """Metrics of what is held out (of training rows, and called so, where nothing is), margins and samples."""
        loop = self.loop
        found: dict[str, float] = {}
        if self.judged:
            found, margins = evaluate(loop, self.judged)
            if label in ("before", "after"):
                self.record.margins(label, margins, self.judged_split)
        found |= self.probe.take(loop.step, label)
        split = "eval" if self.setup.data.not_held_out is None else TRAINING_ROWS
        line = {f"{split}_{k}": v for k, v in found.items()}
        self.record.metrics(loop.step, loop.step / loop.feed.steps_per_epoch, split, line)
        self.trackers.log(line, loop.step)
        self.console.evaluation(loop.step, found, self.judged_split)

    def save_checkpoint(self) -> None:
        """All that an exact resume needs."""
        loop = self.loop
        checkpoint.save(
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
                "scheduler": {k: v for k, v in loop.scheduler.state_dict().items() if k != "lr_lambdas"},
                "learning_rates": [g["lr"] for g in loop.optimizer.param_groups],
                "identity": self.identity(),
                "reference": loop.scorer.reference.fingerprint,
            },
            main=loop.accelerator.is_main_process,
            keep=self.config.save_total_limit,
            reference=loop.scorer.reference.state(),
        )

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
