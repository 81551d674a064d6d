"""Adapters and quantized bases, by TRL's names, which the other tools call otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefopt.migration.arguments import if_given
from prefopt.migration.draft import Draft

LORA = (
    "lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "lora_target_parameters", "lora_modules_to_save",
    "use_rslora", "use_dora", "load_in_8bit", "load_in_4bit", "bnb_4bit_quant_type", "use_bnb_nested_quant",
)  # fmt: skip
DROPOUT_OFF = (
    "dropout is switched off in preference training there (disable_dropout), that of the adapters too, whatever this says; so it "
    "is here by default"
)


def adapters(
    draft: Draft, on: bool, origin: tuple[str, ...], defaults: Mapping[str, Any], dropout_off: bool = True
) -> None:
    """LoRA.

    Args:
        draft: whose names are TRL's, or are called otherwise.
        on: whether adapters are trained.
        origin: the tool's arguments that say so.
        defaults: of the tool: `lora_r`, `lora_alpha`, and for quantized bases `bnb_4bit_quant_type` and
            `use_bnb_nested_quant`.
        dropout_off: whether the tool sets all dropout to zero before training.
    """
    if not on:
        given = [
            key
            for key in LORA
            if draft.take(key) not in (None, False) and draft.take(key) != defaults.get(key)
        ]
        draft.same += [draft.name(key) for key in LORA if draft.has(key) and key not in given]
        draft.leave("no adapters are trained there, so nothing reads it", *given)
        draft.same += [draft.name(key) for key in origin if draft.has(key)]
        return
    draft.put("use_peft", True, *origin)
    draft.carry("lora_r", "lora_r", defaults["lora_r"])
    draft.carry("lora_alpha", "lora_alpha", defaults["lora_alpha"])
    dropout = draft.take("lora_dropout", defaults.get("lora_dropout", 0.0))
    if dropout and dropout_off:
        draft.leave(DROPOUT_OFF, "lora_dropout")
    elif dropout:
        draft.carry("lora_dropout", "lora_dropout", defaults.get("lora_dropout", 0.0))
    elif draft.has("lora_dropout"):
        draft.same.append(draft.name("lora_dropout"))
    for key in (
        "lora_target_modules",
        "lora_target_parameters",
        "lora_modules_to_save",
        "use_rslora",
        "use_dora",
    ):
        if_given(draft, key)
    _quantization(draft, defaults)


def _quantization(draft: Draft, defaults: Mapping[str, Any]) -> None:
    if draft.take("load_in_4bit"):
        draft.put("load_in_4bit", True, "load_in_4bit")
        for key, theirs in (
            ("bnb_4bit_quant_type", "bnb_4bit_quant_type"),
            ("bnb_4bit_use_double_quant", "use_bnb_nested_quant"),
        ):
            if draft.has(theirs):
                draft.carry(key, theirs)
            elif theirs in defaults:
                draft.default(key, defaults[theirs])
    else:
        if_given(draft, "load_in_8bit")
        draft.same += [
            draft.name(key)
            for key in ("load_in_4bit", "bnb_4bit_quant_type", "use_bnb_nested_quant")
            if draft.take(key) is not None
        ]
