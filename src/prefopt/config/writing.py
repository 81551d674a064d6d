"""What a resolved configuration leaves: its file, and the folder of its run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefopt.config.applying import SPECIAL
from prefopt.config.errors import ConfigError
from prefopt.config.schema import TrainConfig


def dump(config: TrainConfig, hyper: Mapping[str, Any]) -> str:
    """The resolved configuration as YAML, readable back by `prefopt train`."""
    import yaml

    values = config.model_dump()
    own = {k: v for k, v in values.items() if k not in SPECIAL}
    # keys that belong to some runs only appear where they differ: elsewhere giving them is an error
    schema = TrainConfig.model_fields
    special = {k: v for k, v in values.items() if k in SPECIAL and getattr(config, k) != schema[k].default}
    objective = json.loads(json.dumps(hyper, default=str))
    return yaml.safe_dump({**own, **special, **objective}, sort_keys=False)


def run_folder(config: TrainConfig) -> Path:
    """The folder that `output_dir` names, method and seed filled in.

    Raises:
        ConfigError: something else stands in braces.
    """
    try:
        name = config.output_dir.format(method=config.method.replace("+", "-"), seed=config.seed)
    except (KeyError, IndexError, ValueError) as error:
        raise ConfigError(
            f"output_dir={config.output_dir}: only {{method}} and {{seed}} are filled in, and {error} is neither; write "
            "other braces twice"
        ) from None
    return Path(name).expanduser()
