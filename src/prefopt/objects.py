"""Objects that a program gives to `prefopt.train`, put into words that a configuration can hold."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefopt.config import ALIASES, ConfigError
from prefopt.sources import memory


def rows_under_a_name(key: str, given: Any, stack: contextlib.ExitStack) -> Any:
    """Rows in memory by a name that lasts as long as the stack; names of sources, and sets of either, as they are.

    Args:
        key: data or eval_data.
        given: its value.
        stack: of the run.

    Raises:
        ConfigError: neither a source nor rows.
    """
    if given is None or isinstance(given, str | Path):
        return given if given is None else str(given)
    if memory.is_object(given):
        return stack.enter_context(memory.held(key, given))
    if isinstance(given, Mapping) and key == "eval_data":
        return {str(name): rows_under_a_name(f"{key}.{name}", part, stack) for name, part in given.items()}
    sets = " or, by name, a mapping of several of these," if key == "eval_data" else ""
    columns = (
        "; a mapping of columns is datasets.Dataset.from_dict(...)" if isinstance(given, Mapping) else ""
    )
    raise ConfigError(
        f"{key} is a {type(given).__name__}; needed a path, a hub id,{sets} {memory.KINDS}{columns}"
    )


def take_models(given: dict[str, Any], file: Mapping[str, Any], tokenizer: Any, processor: Any) -> None:
    """Replace models in memory by their sources, and set the dtype and the bits of those that adapters are trained on.

    Args:
        given: keys of `prefopt.train`, changed in place.
        file: keys of its configuration file.
        tokenizer, processor: of such a model.

    Raises:
        ConfigError: a model that has no source and cannot be given one; a tokenizer without a model in memory; keys that
            say something else than the model's quantization.
    """
    beside = processor if processor is not None else tokenizer
    if tokenizer is not None and processor is not None:
        raise ConfigError(
            "tokenizer and processor are both given: a processor has a tokenizer in it; give that alone"
        )
    taken = False
    for key in ("model", "reference_model"):
        value = given.get(key)
        if value is None or isinstance(value, str | Path):
            continue
        from prefopt.models import given as models

        if not models.is_model(value):
            raise ConfigError(
                f"{key} is a {type(value).__name__}; needed a folder, a hub id, a PreTrainedModel, a PeftModel or a pipeline of "
                "diffusers"
            )
        try:
            found = models.source_of(value, beside)
        except ValueError as error:
            raise ConfigError(f"{key}: {error}") from None
        taken = True
        given[key] = found.source
        settled = {ALIASES.get(k, k): v for k, v in [*file.items(), *given.items()]}
        wrong = {
            k: v for k, v in found.quantization.items() if settled.get(k, v if key == "model" else None) != v
        }
        if wrong:
            told = ", ".join(f"{k}={str(v).lower()}" for k, v in wrong.items())
            raise ConfigError(
                f"{key} is a model in memory that was loaded with {told}, and the run's keys say otherwise: give the same, or leave "
                "them out (a reference is quantized as the model is)"
            )
        if key != "model":
            continue
        given |= {k: v for k, v in found.quantization.items() if k not in settled}
        adapters = found.adapter or settled.get("use_peft") or "peft" in settled
        if found.dtype is not None and adapters and "dtype" not in settled:
            given["dtype"] = found.dtype
    if beside is not None and not taken:
        raise ConfigError(
            "tokenizer (or processor) is given, but no model in memory to which it could belong: a folder or hub id has its own"
        )


def take_peft_config(given: dict[str, Any], peft_config: Any) -> None:
    """Put a configuration object of peft into the keys `use_peft` and `peft`.

    Args:
        given: keys of `prefopt.train`, changed in place.
        peft_config: the object, or None.

    Raises:
        ConfigError: one of a kind that cannot be trained here, or beside keys that say the same.
    """
    if peft_config is None:
        return
    from prefopt.models.peft_settings import peft_settings

    double = sorted(k for k in given if k == "peft" or k.startswith("lora_"))
    if double:
        raise ConfigError(f"peft_config and {', '.join(double)} are both given: leave one of them out")
    try:
        given["peft"] = peft_settings(peft_config)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"peft_config: {error}") from None
    given.setdefault("use_peft", True)
