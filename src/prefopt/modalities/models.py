"""Which model a configuration means, its dtype, and the adapters that it asks for: the same for every modality."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefopt.config import ConfigError, TrainConfig
from prefopt.methods import defaults
from prefopt.models.peft_settings import LORA, LoraSettings, check_fields, field_names, kind_of
from prefopt.models.quantized import Quantization
from prefopt.models.revisions import at_revision, hub_name
from prefopt.models.sources import adapter_base
from prefopt.worlds import world_of

ADAPTER_FIELDS = {
    "lora_r": "r",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "use_rslora": "use_rslora",
    "use_dora": "use_dora",
    "lora_target_parameters": "target_parameters",
    "lora_target_modules": "target_modules",
    "lora_modules_to_save": "modules_to_save",
}
"""Keys of the configuration, and what peft calls them."""
OF_ALL_KINDS = ("lora_target_modules", "lora_modules_to_save")
"""Those of them that say something to other kinds than LoRA."""


def at_its_revision(config: TrainConfig) -> TrainConfig:
    """The configuration with the folder of the model's version in place of its hub id, where a version is named.

    Raises:
        ConfigError: the model has no versions, or not this one.
        OSError: it cannot be had.
    """
    if config.model_revision is None or hub_name(Path(config.model)) is not None:
        return config
    try:
        folder = at_revision(config.model, config.model_revision)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return config.model_copy(update={"model": str(folder)})


def lora_settings(config: TrainConfig) -> LoraSettings | None:
    """Adapters as configured: the keys of LoRA and what the mapping `peft` says beside them.

    Raises:
        ConfigError: keys of adapters without adapters; a kind or field that cannot be had, or that contradicts a key.
    """
    schema = TrainConfig.model_fields
    given = {key: value for key in ADAPTER_FIELDS if (value := getattr(config, key)) != schema[key].default}
    if not config.use_peft:
        check_no_adapters(config, given)
        return None
    mapping = dict(config.peft or {})
    try:
        kind = kind_of(mapping)
        fields = {name: value for name, value in mapping.items() if name != "peft_type"}
        check_fields(kind, fields)
        if kind != LORA and (foreign := [key for key in given if key not in OF_ALL_KINDS]):
            key = foreign[0]
            raise ValueError(
                f"{key} is LoRA's, and peft_type={kind} was asked for: leave it out, and write what {kind} takes into peft "
                f"({', '.join(field_names(kind))})"
            )
        for key, value in given.items():
            name = ADAPTER_FIELDS[key]
            if name in fields and fields[name] != value:
                raise ValueError(
                    f"{key}={value} and peft: {{{name}: {fields[name]}}} say different things: leave one of them out"
                )
            if name not in field_names(kind):
                raise ValueError(
                    f"{key}: peft_type={kind} has no {name}; it takes {', '.join(field_names(kind))}"
                )
            fields[name] = value
        check_fields(kind, fields)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    low_rank = LoraSettings()
    return LoraSettings(
        r=fields.pop("r", low_rank.r) if kind == LORA else low_rank.r,
        alpha=fields.pop("lora_alpha", low_rank.alpha) if kind == LORA else low_rank.alpha,
        dropout=fields.pop("lora_dropout", 0.0) if kind == LORA else 0.0,
        target_modules=fields.pop("target_modules", None),
        kind=kind,
        fields=fields,
    )


def check_no_adapters(config: TrainConfig, given: Mapping[str, Any]) -> None:
    """Raise ConfigError for keys of new adapters in a run that makes none."""
    usual = defaults(config.method)
    idle = [key for key, value in given.items() if usual.get(key) != value]
    idle += ["peft"] if config.peft else []
    if not idle:
        return
    if adapter_base(folder_of(config.model)) is not None:
        raise ConfigError(
            f"{', '.join(idle)}: {config.model} is an adapter already, and is trained further as it is. Leave it out, or merge "
            "the adapter first (prefopt merge) and set use_peft=true"
        )
    raise ConfigError(
        f"{', '.join(idle)}: for adapters, and this run trains the weights themselves. Set use_peft=true, or leave it out"
    )


def without_adapters() -> dict[str, Any]:
    """Values of the keys of new adapters that ask for none."""
    return {key: TrainConfig.model_fields[key].default for key in ("use_peft", "peft", *ADAPTER_FIELDS)}


def check_low_rank(config: TrainConfig) -> None:
    """Refuse what adapters on networks of diffusers cannot be, before anything is read.

    Raises:
        ConfigError: another kind than LoRA; a field that files of LoRA's weights cannot hold, or that moves other weights.
    """
    lora = lora_settings(config)
    if lora is None:
        return
    why = None
    if lora.kind != LORA:
        why = f"peft_type={lora.kind}: files of adapters for models that denoise hold LoRA's weights alone"
    for name, value in lora.fields.items():
        if name == "init_lora_weights" and value in (True, "gaussian"):
            continue
        if name not in NETWORK_FIELDS and value not in (None, False, "none", [], {}):
            why = f"{name}: files of adapters for models that denoise hold LoRA's weights alone, and not this"
    if why is not None:
        raise ConfigError(
            f"{why}. Beside r, lora_alpha and target_modules there are {', '.join(NETWORK_FIELDS)}"
        )


NETWORK_FIELDS = (
    "use_rslora", "use_dora", "exclude_modules", "layers_to_transform", "layers_pattern", "alpha_pattern",
)  # fmt: skip
"""What adapters on networks of diffusers can be told beside rank, scale and layers."""


def quantization(config: TrainConfig) -> Quantization | None:
    """How base weights are quantized, as configured.

    Raises:
        ConfigError: both numbers of bits, or keys of 4 bits without these.
    """
    if config.load_in_4bit and config.load_in_8bit:
        raise ConfigError("load_in_4bit and load_in_8bit exclude each other: leave one of them out")
    schema = TrainConfig.model_fields
    names = [name for name in schema if name.startswith("bnb_4bit_")]
    idle = [name for name in names if getattr(config, name) != schema[name].default]
    if idle and not config.load_in_4bit:
        raise ConfigError(f"{', '.join(idle)}: for weights of 4 bits. Set load_in_4bit=true, or leave it out")
    return Quantization.of(config.model_dump())


def weight_dtype(config: TrainConfig) -> str:
    """bf16 weights round away updates at usual learning rates: full fine-tuning keeps float32."""
    return config.dtype if config.dtype != "auto" or config.use_peft else "float32"


def folder_of(source: str) -> str:
    """A model's source, a world replaced by the folder of its model."""
    world = world_of(source)
    return str(world.model_dir()) if world is not None else source


def model_folder(source: str, accelerator: Any) -> str:
    """The same for the processes of a run, of which the first makes the world's model; folders are spelled out."""
    world = world_of(source)
    if world is None:
        return str(Path(source).expanduser()) if Path(source).expanduser().is_dir() else source
    with accelerator.main_process_first():
        return str(world.model_dir(progress=accelerator.is_main_process))


def check_denoiser_settings(config: TrainConfig) -> None:
    """Raise ConfigError for settings that no denoiser is trained with, before anything is read."""
    if config.dtype == "float16" and not config.use_peft:
        raise ConfigError(
            "dtype=float16 is not possible when all weights are trained: small gradients and Adam's epsilon round to 0, "
            "and the network diverges. Leave dtype out (float32, whatever the files hold), or set use_peft=true"
        )
    if config.gradient_checkpointing == "auto":
        raise ConfigError("gradient_checkpointing=auto is for text models: set true or false")
    check_low_rank(config)
