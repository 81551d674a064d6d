"""From layers of given keys to one configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from prefopt import methods
from prefopt.config.applying import Kind
from prefopt.config.checking import check_keys, objective_keys, refusal, refused_terms
from prefopt.config.conventions import conventional
from prefopt.config.errors import ConfigError
from prefopt.config.foreign import migration_hint
from prefopt.config.schema import ALIASES, FIELD_NAMES, FLAGS, TrainConfig
from prefopt.config.values import briefly

REQUIRED = ("model", "data")
"""Keys without a default; the method is asked for before."""


def resolve(
    *layers: Mapping[str, Any], kind_of: Callable[[TrainConfig], Kind] | None = None
) -> tuple[TrainConfig, dict[str, Any]]:
    """Merge layers (later wins) over the method's defaults into a configuration and objective hyper-parameters.

    Args:
        layers: keys and values.
        kind_of: what a configuration trains: `prefopt.modalities.fit.kind_for`. Without it, keys
            that mean nothing in this run are left to the run to refuse.

    Returns:
        The validated configuration, and the hyper-parameters given for the objective (already known to be its
        fields; their values are checked when it is built).

    Raises:
        ConfigError: keys that are unknown or misspelt, or mean nothing in this run (all of them, naming the nearest); wrong
            type or range; missing method, model or data.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        merged |= canonical(layer, "configuration")
    if "method" not in merged:
        hint = migration_hint(key for layer in layers for key in layer)
        raise ConfigError(
            "no method is given: write `method: dpo_rk` in the file, or `prefopt train dpo_rk ...`"
            + (f". {hint}" if hint else "")
        )
    merged["method"] = method = str(merged["method"])
    try:
        own = objective_keys(method, merged.get("first"))
    except (KeyError, ValueError) as error:
        raise ConfigError(str(error.args[0])) from error
    usual = canonical(methods.defaults(method), "method defaults")
    if "warmup_ratio" in merged:  # said in another way than the method's own
        usual.pop("warmup_steps", None)
    merged = {**usual, **merged}
    training = {k: v for k, v in merged.items() if k in FIELD_NAMES}
    rest = {k: v for k, v in merged.items() if k not in FIELD_NAMES}
    refused = refused_terms(method, rest)
    unknown = [key for key in rest if key not in own and key not in refused]
    if any(key not in training for key in REQUIRED) and (unknown or refused):
        raise refusal(method, own, unknown, refused)  # what is missing may come of a misspelt key
    values: list[str] = []
    try:
        config = validated(training)
    except WrongValues as error:  # the other keys are looked at all the same: all that is wrong in one go
        values = [str(error)]
        config = validated({k: v for k, v in training.items() if k not in error.keys})
    try:
        if kind_of is not None:
            check_keys(config, kind_of(config), unknown, rest)
        elif unknown or refused:
            raise refusal(method, own, unknown, refused)
    except (ConfigError, OSError) as error:
        if not values:
            raise
        # where even the model is not there, nothing is known of keys
        raise ConfigError("\n".join([str(error), *values])) from None
    if values:
        raise ConfigError(values[0])
    return config, rest


class WrongValues(ConfigError):
    """Values that keys cannot have.

    Attributes:
        keys: whose; never one that a run cannot do without.
    """

    def __init__(self, text: str, keys: set[str]) -> None:
        super().__init__(text)
        self.keys = keys


def validated(training: Mapping[str, Any]) -> TrainConfig:
    """The configuration of these keys.

    Raises:
        WrongValues: some have values that they cannot have.
        ConfigError: one is missing, or has no value without which nothing can be said of the others.
    """
    for key in REQUIRED:
        if key not in training:
            raise ConfigError(
                f"no {key} is given: add `{key}: ...` to the file, or {key}=... on the command line"
            )
    try:
        return TrainConfig(**conventional(training, FLAGS))
    except ValidationError as error:
        wrong = {str(e["loc"][0]) for e in error.errors()}
        text = "; ".join(map(said, error.errors()))
        raise (
            ConfigError(text) if wrong & {*REQUIRED, "method", "stage"} else WrongValues(text, wrong)
        ) from error
    except ValueError as error:
        raise ConfigError(str(error)) from error


def canonical(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Replace aliases by the names used here; an alias beside its name is an error."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        name = ALIASES.get(key, key)
        if name in out:
            raise ConfigError(f"{where}: {key} and its other name {name} are both given")
        out[name] = value
    if isinstance(out.get("method"), list):  # TRL's loss_type is a list
        out["method"] = "+".join(map(str, out["method"]))
    return out


def said(error: Mapping[str, Any]) -> str:
    """One of pydantic's errors as a sentence: the key, what is wrong with its value, and what the key means."""
    key, problem = error["loc"][0], error["msg"]
    place = ".".join(map(str, error["loc"]))
    meaning = TrainConfig.model_fields[key].description if key in FIELD_NAMES else None
    text = f"{place}: {problem[0].lower()}{problem[1:]} (given {briefly(error['input'])})"
    return text if meaning is None else f"{text}. {key}: {meaning.replace('None', 'null')}"
