"""A run that goes on for longer than it was begun for: a decision that one has to state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prefopt.config import ConfigError, TrainConfig
from prefopt.runs.record import Record
from prefopt.training.loop import Loop

KEYS = "max_steps or num_train_epochs"


def check_length(config: TrainConfig, record: Record, before: int, now: int, stopped: bool) -> bool:
    """Whether a resumed run goes on past where it was to end, or past where it was stopped.

    Args:
        config: of the resumed run.
        record: its folder.
        before: steps that the checkpoint's run had.
        now: steps that are asked for.
        stopped: whether a callback or early stopping ended it before.

    Raises:
        ConfigError: nobody said that it may, or it would become shorter, or nothing is longer.
    """
    noted = any(e["to"] == now for e in extensions(record))
    if now < before:
        raise ConfigError(
            f"the run has {before} steps, and {now} are asked for: a run that goes on cannot become shorter, since its learning "
            f"rate followed {before}. Leave {KEYS} as they were, or start over with overwrite=true"
        )
    if now > before and not config.extend and not noted:
        raise ConfigError(
            f"the run was begun with {before} steps, and {now} are asked for. extend=true goes on to {now}, with the learning rate "
            f"of a run of {now} steps from there on; or leave {KEYS} as they were"
        )
    if now == before and config.extend and not stopped and not noted:
        raise ConfigError(
            f"extend=true, and the run has {now} steps as before: give a larger {KEYS}, or leave out extend"
        )
    return now > before or (config.extend and stopped)


def extensions(record: Record) -> list[dict[str, Any]]:
    """How often the run was made longer: steps `from` and `to`, and the step that it went on `after`."""
    manifest = record.read("manifest") if record.has("manifest") else {}
    found: list[dict[str, Any]] = manifest.get("extended", [])
    return found


def go_on(loop: Loop, record: Record, before: int, say: Callable[[str], None]) -> None:
    """Give the learning rate that the longer run has at this step, and note the extension.

    The order of examples is a function of seed and epoch, so that nothing else follows from the length.

    Args:
        loop: put back as it was after the checkpoint's step.
        record: the run's folder.
        before: steps that the run had.
        say: tells the user.
    """
    before_it = loop.optimizer.param_groups[0]["lr"]
    loop.learning_rate.move_to(loop.step)
    now = loop.feed.steps
    if now == before:
        say(f"goes on after step {loop.step}, where it was stopped, to {now}")
        return
    step = {"from": before, "to": now, "after": loop.step}
    if step not in extensions(record):  # unless it was interrupted before its first checkpoint
        record.manifest(extended=[*extensions(record), step])
    record.reconfigure()
    say(
        f"extended from {before} to {now} steps: after step {loop.step} the learning rate goes on as in a run of {now} steps "
        f"({loop.learning_rate.latest():.3g}; it was {before_it:.3g})"
    )
