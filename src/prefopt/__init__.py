"""prefopt: preference optimization, from a table of comparisons to a better model.

Two doors:

    prefopt.train("dpo_rk", model="path/or/hub-id", data="pairs.jsonl", beta=0.3)   # a whole run
    prefopt.objectives.get("dpo_rk", beta=0.3, nu=3.0)                              # one loss, for your own loop

Importing this package is cheap; heavy libraries load when they are first needed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from prefopt.version import __version__

if TYPE_CHECKING:
    from prefopt import objectives
    from prefopt.api import TrainResult, train
    from prefopt.callbacks import Callback, EarlyStopping
    from prefopt.modalities.image.models.latent_reward import LatentRewardModel
    from prefopt.modalities.merging import merge

__all__ = [
    "Callback",
    "EarlyStopping",
    "LatentRewardModel",
    "TrainResult",
    "__version__",
    "merge",
    "objectives",
    "train",
]
ELSEWHERE = {
    "train": "prefopt.api",
    "TrainResult": "prefopt.api",
    "merge": "prefopt.modalities.merging",
    "Callback": "prefopt.callbacks",
    "EarlyStopping": "prefopt.callbacks",
    "LatentRewardModel": "prefopt.modalities.image.models.latent_reward",
}


def __getattr__(name: str) -> Any:
    if name in ELSEWHERE:
        return getattr(importlib.import_module(ELSEWHERE[name]), name)
    if name == "objectives":
        return importlib.import_module("prefopt.objectives")
    raise AttributeError(f"module 'prefopt' has no attribute {name!r}")
