"""Code of a user's own that is told what happens in a run, and may end it.

    import prefopt
    from prefopt.callbacks import Callback, EarlyStopping

    prefopt.train("dpo", model=..., data=..., callbacks=[EarlyStopping(patience=3), MyCallback()])

`Callback` has the events, `Run` what a callback sees. transformers' `TrainerCallback`s are taken as well, for those of their
events that runs here have. `compute_metrics` is a function of an `Evaluation`.
"""

from prefopt.callbacks.base import Callback, Run
from prefopt.callbacks.listening import ComputeMetrics, Evaluation, as_callback, listeners, listening
from prefopt.callbacks.stopping import Best, EarlyStopping, better_when_greater

__all__ = [
    "Best",
    "Callback",
    "ComputeMetrics",
    "EarlyStopping",
    "Evaluation",
    "Run",
    "as_callback",
    "better_when_greater",
    "listeners",
    "listening",
]
