"""What a run tells callbacks, and what they may ask of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from prefopt.config import TrainConfig


@dataclass
class Run:
    """A run as callbacks see it.

    Attributes:
        config: resolved configuration.
        output_dir: the run's folder.
        model: the policy, without wrappers of distributed training.
        steps: optimizer steps of the whole run.
        steps_per_epoch: of one pass over the data.
        held_out: comparisons that evaluations look at; 0 where nothing is held out, and training rows stand in.
        main: whether this is the process that writes.
        step: steps taken so far.
        history: lines of metrics.jsonl so far.
        logged: the line of training metrics that was written after this step; None where none was.
        stopped: why the run is to end early; None where it goes on.
        say: puts a line on the terminal, and into the record.
    """

    config: TrainConfig
    output_dir: Path
    model: nn.Module
    steps: int
    steps_per_epoch: int
    held_out: int = 0
    main: bool = True
    step: int = 0
    history: Sequence[Mapping[str, Any]] = ()
    logged: Mapping[str, float] | None = None
    stopped: str | None = None
    say: Callable[[str], None] = print
    asked: set[str] = field(default_factory=set)
    """What is to be done after this step although it is not its time: "log", "evaluate", "save"."""

    @property
    def epoch(self) -> float:
        """Passes over the data so far."""
        return self.step / self.steps_per_epoch

    def stop(self, reason: str) -> None:
        """End the run after this step: it evaluates, saves its model and finishes as after its last step.

        Args:
            reason: for the record.
        """
        self.stopped = self.stopped or reason

    def evaluate(self) -> None:
        """Ask for an evaluation after this step, where something is held out."""
        self.asked.add("evaluate")

    def save(self) -> None:
        """Ask for a checkpoint after this step."""
        self.asked.add("save")


class Callback:
    """Told what happens in a run; define the methods that you need.

    Every process of a distributed run calls them, with the same metrics; write files where `run.main`. What a callback must
    remember over an interruption it gives as `state`, plain JSON, which is part of every checkpoint.

    Example:
        >>> class Patience(Callback):
        ...     def on_evaluate(self, run, metrics):
        ...         if metrics["eval_kl"] > 20:
        ...             run.stop("too far from the reference")
        >>> prefopt.train("dpo", model=folder, data=rows, callbacks=[Patience()])    # doctest: +SKIP
    """

    def on_start(self, run: Run) -> None:
        """Before the first evaluation and step, or the first step after a resume; each of several runs has its own."""

    def on_step(self, run: Run) -> None:
        """After an optimizer step."""

    def on_evaluate(self, run: Run, metrics: Mapping[str, float]) -> None:
        """After an evaluation, also that before the first step; metrics by their names in metrics.jsonl (`eval_loss`, ...)."""

    def on_save(self, run: Run, checkpoint: Path) -> None:
        """After a checkpoint was written."""

    def on_end(self, run: Run) -> None:
        """After the trained model was written to `run.output_dir / "model"`."""

    def state(self) -> Mapping[str, Any]:
        """What a resumed run needs to know again."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
