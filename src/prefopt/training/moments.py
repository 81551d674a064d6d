"""When a run logs, evaluates and writes checkpoints: every so many steps, every epoch, or only where it must."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from prefopt.config import ConfigError, TrainConfig

Strategy = Literal["no", "steps", "epoch"]


@dataclass(frozen=True)
class Moments:
    """Steps at which one thing is done.

    Attributes:
        strategy: no, steps or epoch.
        every: steps from one to the next.
        per_epoch: steps of an epoch.
    """

    strategy: Strategy
    every: int
    per_epoch: int

    @classmethod
    def of(
        cls,
        what: str,
        strategy: Strategy | None,
        given: float | None,
        *,
        usual: Strategy,
        otherwise: int,
        steps: int,
        per_epoch: int,
    ) -> Moments:
        """Read the two keys of one thing.

        Args:
            what: first word of both keys.
            strategy, given: their values.
            usual: strategy where neither is given.
            otherwise: steps where `given` is None.
            steps, per_epoch: of the run, and of an epoch.

        Raises:
            ConfigError: steps that the strategy does not read.
        """
        if given is not None and strategy in ("no", "epoch"):
            raise ConfigError(
                f"{what}_steps={given} means nothing with {what}_strategy={strategy}: leave one of them out"
            )
        chosen = strategy or (usual if given is None else "steps")
        every = otherwise if given is None else math.ceil(given * steps) if given < 1 else int(given)
        return cls(chosen, max(1, every), per_epoch)

    def __contains__(self, step: int) -> bool:
        """Whether it is done after this step."""
        match self.strategy:
            case "no":
                return False
            case "epoch":
                return step % self.per_epoch == 0
        return step % self.every == 0


@dataclass(frozen=True)
class Calendar:
    """All of a run's moments between its first and its last step.

    Attributes:
        logging, evaluation, saving: see `Moments`.
        keeps_checkpoints: False where none is ever written, the last step included.
    """

    logging: Moments
    evaluation: Moments
    saving: Moments
    keeps_checkpoints: bool

    @classmethod
    def of(cls, config: TrainConfig, steps: int, per_epoch: int) -> Calendar:
        """As configured.

        Raises:
            ConfigError: steps beside a strategy that does not read them.
        """
        return cls(
            Moments.of(
                "logging", config.logging_strategy, config.logging_steps,
                usual="steps", otherwise=10, steps=steps, per_epoch=per_epoch,
            ),
            Moments.of(
                "eval", config.eval_strategy, config.eval_steps,
                usual="steps", otherwise=math.ceil(steps / 10), steps=steps, per_epoch=per_epoch,
            ),
            Moments.of(
                "save", config.save_strategy, config.save_steps,
                usual="epoch", otherwise=per_epoch, steps=steps, per_epoch=per_epoch,
            ),
            config.save_strategy != "no",
        )  # fmt: skip
