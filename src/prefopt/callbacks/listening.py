"""The callbacks and metrics that a program brings to the runs it starts, for as long as it starts them.

A configuration is text, and so is what methods of several runs hand from one run to the next. Callbacks are neither: they
lie here while `prefopt.train` works, and every run that begins meanwhile tells them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from prefopt.callbacks.base import Callback


@dataclass(frozen=True)
class Evaluation:
    """What `compute_metrics` is given: one evaluation, as the main process sees it.

    Attributes:
        step: after which it took place.
        metrics: of the evaluation so far, without `eval_`.
        margins: reward margins of held-out comparisons: "wins" (positive where the policy agrees with the label) and "ties".
        samples: drawn samples, a mapping each with its "prompt"; text has "text", and "score" where there is a reward.
    """

    step: int
    metrics: Mapping[str, float]
    margins: Mapping[str, Sequence[float]]
    samples: Sequence[Mapping[str, Any]]


ComputeMetrics = Callable[[Evaluation], Mapping[str, float]]


@dataclass(frozen=True)
class Listeners:
    """Who is told of runs."""

    callbacks: Sequence[Callback] = ()
    compute_metrics: ComputeMetrics | None = None


NOBODY = Listeners()
_present: ContextVar[Listeners] = ContextVar("listeners", default=NOBODY)


@contextlib.contextmanager
def listening(callbacks: Sequence[Any], compute_metrics: ComputeMetrics | None) -> Iterator[None]:
    """While open, runs tell these.

    Args:
        callbacks: of prefopt's or transformers' kind.
        compute_metrics: more metrics of evaluations.

    Raises:
        TypeError: something that is no callback.
    """
    token = _present.set(Listeners([as_callback(c) for c in callbacks], compute_metrics))
    try:
        yield
    finally:
        _present.reset(token)


def listeners() -> Listeners:
    """Who is to be told of a run that begins now."""
    return _present.get()


def as_callback(given: Any) -> Callback:
    """A callback as it is, or transformers' behind an adapter.

    Raises:
        TypeError: neither.
    """
    if isinstance(given, Callback):
        return given
    if isinstance(given, type) and issubclass(given, Callback):
        raise TypeError(
            f"callbacks holds the class {given.__name__}: give an instance, {given.__name__}(...)"
        )
    if any(hasattr(given, event) for event in ("on_train_begin", "on_step_end", "on_train_end")):
        from prefopt.callbacks.transformers import TransformersCallback

        return TransformersCallback(given)
    raise TypeError(
        f"callbacks holds a {type(given).__name__}; needed a prefopt.Callback or a transformers.TrainerCallback"
    )
