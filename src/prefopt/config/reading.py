"""Configurations as users write them: YAML files, and overrides on a command line."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prefopt.config.errors import ConfigError
from prefopt.config.schema import ALIASES, FIELD_NAMES, FLAGS


def read_yaml(path: Path) -> dict[str, Any]:
    """A flat mapping from a YAML file."""
    import yaml

    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ConfigError(f"{path} is a pipe or a device: write the configuration to a file, and give that")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(values, dict) or not all(isinstance(k, str) for k in values):
        raise ConfigError(f"{path} must hold `key: value` lines at its top level")
    return values


def parse_overrides(arguments: Iterable[str]) -> dict[str, Any]:
    """`key=value`, `--key=value` and `--key value` as a mapping; values are read as YAML (numbers, lists, null)."""
    import yaml

    values: dict[str, Any] = {}
    waiting: str | None = None

    def put(key: str, value: Any) -> None:
        if key in values:
            raise ConfigError(f"{key} is given twice")
        values[key] = value

    for argument in arguments:
        left = argument.partition("=")[0].replace("-", "_") if "=" in argument else ""
        # a bare flag may stand before key=value: `--use_peft lora_r=4`
        another = left.isidentifier() and (left in FIELD_NAMES or left in ALIASES or waiting in FLAGS)
        if waiting is not None and not argument.startswith("--") and not another:
            key, text = waiting, argument
            waiting = None
        else:
            if waiting is not None:
                put(waiting, True)  # a bare --flag
                waiting = None
            key, equals, text = argument.removeprefix("--").partition("=")
            key = key.replace("-", "_")
            if not equals:
                if not argument.startswith("--"):
                    raise ConfigError(
                        f"{argument!r} is not an override; write key=value, for example beta=0.3"
                    )
                waiting = key
                continue
        try:
            put(key, yaml.safe_load(text) if text else "")
        except yaml.YAMLError as error:
            raise ConfigError(f"the value of {key}, {text!r}, cannot be read: {error}") from error
    if waiting is not None:
        put(waiting, True)
    return values
