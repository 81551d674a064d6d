"""The best evaluation so far, and stopping when none has been better for a while."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from prefopt.callbacks.base import Callback, Run
from prefopt.config import ConfigError, TrainConfig


class Best(Callback):
    """Remembers the best value of a metric over a run's evaluations.

    Args:
        metric: by its name in metrics.jsonl.
        greater_is_better: direction; None: greater, unless the name ends in "loss".
        threshold: how much better than the best so far a value must be.
    """

    def __init__(
        self, metric: str = "eval_loss", greater_is_better: bool | None = None, threshold: float = 0.0
    ) -> None:
        self.metric = metric
        self.greater = better_when_greater(metric, greater_is_better)
        self.threshold = threshold
        self.value: float | None = None
        self.step = 0
        self.since = 0
        """Evaluations since the best one."""

    def on_start(self, run: Run) -> None:
        """Forget an earlier run, which another of several stages is, too.

        Raises:
            ConfigError: values of the metric are not comparable along this run.
        """
        check_comparable(self.metric, run.config)
        if run.step == 0:
            self.value, self.step, self.since = None, 0, 0

    def on_evaluate(self, run: Run, metrics: Mapping[str, float]) -> None:
        """Compare; a value that is no finite number is never the best.

        Raises:
            ConfigError: evaluations have no such metric.
        """
        value = metric_of(metrics, self.metric)
        gain = None if self.value is None else (value - self.value) * (1 if self.greater else -1)
        if math.isfinite(value) and (gain is None or gain > self.threshold):
            self.value, self.step, self.since = value, run.step, 0
        else:
            self.since += 1

    def state(self) -> Mapping[str, Any]:
        """The best so far."""
        return {"value": self.value, "step": self.step, "since": self.since}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.value, self.step, self.since = state["value"], state["step"], state["since"]


class EarlyStopping(Best):
    """Stops a run after some evaluations in a row without a new best.

    Args:
        patience: how many.
        metric: by its name in metrics.jsonl.
        greater_is_better: direction; None: greater, unless the name ends in "loss".
        threshold: how much better than the best so far a value must be.

    Example:
        >>> prefopt.train("dpo", model=folder, data=rows, callbacks=[EarlyStopping(3)])    # doctest: +SKIP
    """

    def __init__(
        self,
        patience: int,
        metric: str = "eval_loss",
        greater_is_better: bool | None = None,
        threshold: float = 0.0,
    ) -> None:
        if patience < 1:
            raise ConfigError(f"patience is a number of evaluations, at least 1; given {patience}")
        super().__init__(metric, greater_is_better, threshold)
        self.patience = patience

    def on_evaluate(self, run: Run, metrics: Mapping[str, float]) -> None:
        """Compare, and stop."""
        super().on_evaluate(run, metrics)
        if self.since >= self.patience:
            past = (
                "a finite number"
                if self.value is None
                else f"better than its {self.value:.4g} after step {self.step}"
            )
            run.stop(f"{self.metric} has not been {past} for {self.since} evaluations")


def check_comparable(metric: str, config: TrainConfig) -> None:
    """Refuse a metric that a moving reference throws back.

    Raises:
        ConfigError: it is relative to a reference that follows the policy, so that later values are no worse for being so.
    """
    relative = metric.endswith(("loss", "margins", "kl_to_reference")) or "rewards/" in metric
    if config.sync_reference and relative:
        raise ConfigError(
            f"{metric} is relative to the reference, which sync_reference moves: after each move it begins anew, and its best value is "
            "no sign of the best model. Set metric_for_best_model (of an EarlyStopping, metric) to one that is not: eval_kl, "
            "eval_logps/chosen, eval_reward, or a metric of compute_metrics"
        )


def better_when_greater(metric: str, said: bool | None = None) -> bool:
    """Whether greater values of a metric are better: as said, or unless it is a loss."""
    return said if said is not None else not metric.endswith("loss")


def metric_of(metrics: Mapping[str, float], name: str) -> float:
    """A metric of an evaluation by its name, with or without `eval_`.

    Raises:
        ConfigError: there is none.
    """
    for known in (name, f"eval_{name}"):
        if known in metrics:
            return metrics[known]
    from prefopt.config import nearest

    raise ConfigError(
        f"metric_for_best_model={name} is no metric of this run's evaluations{nearest(name, metrics)}; there are "
        f"{', '.join(sorted(metrics)) or 'none: nothing is held out'}"
    )
