"""LLaMA-Factory: `stage: dpo` and `stage: kto`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefopt.config.foreign import TEMPLATE
from prefopt.migration import arguments
from prefopt.migration.adapters import adapters
from prefopt.migration.arguments import evaluation, training_arguments
from prefopt.migration.datasets import place_of, registered, registry
from prefopt.migration.draft import Draft, as_list

CALLED: Mapping[str, str] = {
    "lora_r": "lora_rank",
    "lora_target_modules": "lora_target",
    "lora_modules_to_save": "additional_target",
    "bnb_4bit_quant_type": "quantization_type",
    "use_bnb_nested_quant": "double_quantization",
    "early_stopping_patience": "early_stopping_steps",
}
"""TRL's and transformers' names, as they are spelt there."""
LOSSES: Mapping[str, str] = {
    "sigmoid": "dpo",
    "hinge": "hinge",
    "ipo": "ipo",
    "orpo": "orpo",
    "simpo": "simpo",
}
"""`pref_loss`."""
ATTENTION: Mapping[str, str] = {
    "fa2": "flash_attention_2",
    "fa3": "flash_attention_3",
    "sdpa": "sdpa",
    "disabled": "eager",
}
"""`flash_attn`."""
FREEZE: Mapping[str, tuple[str, bool]] = {
    "vision_tower": ("freeze_vision_tower", True),
    "projector": ("freeze_multi_modal_projector", True),
    "language_model": ("freeze_language_model", False),
}
DEFAULTS: Mapping[str, Any] = {
    **arguments.DEFAULTS,
    "buffer_size": 16384, "do_train": True, "ignore_pad_token_for_loss": True, "infer_backend": "huggingface",
    "infer_dtype": "auto", "init_special_tokens": "vocab_mean_noise", "loraplus_lr_embedding": 1e-6, "low_cpu_mem_usage": True,
    "mix_strategy": "concat", "offload_folder": "offload", "ppo_buffer_size": 1, "ppo_epochs": 4, "ppo_target": 6.0,
    "preprocessing_batch_size": 1000, "reward_model_type": "lora", "use_fast_tokenizer": True, "use_kv_cache": True,
    "use_reentrant_gc": True,
}  # fmt: skip
"""Of arguments that mean nothing here."""


def translate(draft: Draft, place: Path) -> None:
    """All of LLaMA-Factory's arguments as prefopt's keys.

    Args:
        draft: of the file.
        place: its folder.
    """
    draft.called = CALLED
    stage = draft.take("stage", "sft")
    if stage not in ("dpo", "kto"):
        draft.refuse(f"stage: {stage} is no training on comparisons: prefopt reads dpo and kto")
        return
    _kto(draft) if stage == "kto" else _dpo(draft)
    kind = draft.take("finetuning_type", "lora")
    if kind not in ("lora", "full"):
        draft.refuse(f"finetuning_type: {kind}: prefopt trains LoRA adapters (lora) or all weights (full)")
    lora = kind == "lora"
    _model(draft, lora)
    images = _data(draft, place)
    draft.carry(
        "max_length",
        "cutoff_len",
        2048,
        "prompts and answers are cut in proportion there; here an answer's end is",
    )
    draft.carry("max_examples", "max_samples")
    training_arguments(draft, {"gradient_checkpointing": True, "bf16": False})
    if draft.take("disable_gradient_checkpointing", False):
        draft.out.pop("gradient_checkpointing", None)
        draft.lines = [line for line in draft.lines if line.key != "gradient_checkpointing"]
        draft.put("gradient_checkpointing", False, "disable_gradient_checkpointing")
    rank = draft.number("lora_r", 8)
    adapters(
        draft,
        lora,
        ("finetuning_type",) if draft.has("finetuning_type") else (),
        {"lora_r": 8, "lora_alpha": 2 * rank},
    )
    if lora:
        _targets(draft)
        _quantization(draft)
    _reference(draft)
    _images(draft, images)
    draft.carry("router_aux_loss_coef", "moe_aux_loss_coef")
    if draft.take("disable_shuffling", False):
        draft.check("rows are always shuffled here, by the seed", "disable_shuffling")
    if draft.has("template"):
        draft.check(
            f"{TEMPLATE}. `prefopt check DATA --model MODEL` shows the first pair as the model reads it",
            "template",
        )


def _dpo(draft: Draft) -> None:
    kind = draft.word("pref_loss", "sigmoid")
    if kind not in LOSSES:
        draft.refuse(f"pref_loss: {kind}: prefopt knows {', '.join(LOSSES)}", "pref_beta", "pref_ftx")
        return
    method, ftx, ld = LOSSES[kind], draft.take("pref_ftx", 0.0), draft.take("ld_alpha")
    if ld is not None and kind != "sigmoid":
        draft.refuse(f"ld_alpha with pref_loss {kind}: prefopt has it with sigmoid, as ld_dpo")
        return
    if ld is not None:
        method = "ld_dpo"
        draft.put("a", ld, "ld_alpha")
        draft.check(
            "LLaMA-Factory weighs the policy's surplus tokens, and not the reference's; prefopt weighs both, as the paper does",
            "ld_alpha",
        )
    if draft.take("pref_bco_weight", 0.0):
        draft.refuse(
            "pref_bco_weight: prefopt's sums have no BCO term with a running shift beside pairs: leave it out, or use bco_pair"
        )
    origin = ["pref_loss"] if draft.has("pref_loss") else ["stage"]
    draft.put("method", f"{method}+sft" if ftx else method, *origin, *(["pref_ftx"] if ftx else []))
    if ftx:
        draft.put("loss_weights", [1.0, ftx], "pref_ftx")
    draft.explicit("lambda" if kind == "orpo" else "beta", "pref_beta", 0.1)
    if kind == "simpo":
        draft.explicit("gamma", "simpo_gamma", 0.5)
    elif draft.take("simpo_gamma", 0.5) != 0.5:
        draft.leave("this loss does not read it", "simpo_gamma")
    if epsilon := draft.take("dpo_label_smoothing", 0.0):
        if method == "dpo":
            draft.put("label_smoothing", epsilon, "dpo_label_smoothing", why="conservative DPO")
        else:
            draft.refuse(f"dpo_label_smoothing with pref_loss {kind}: it is sigmoid's alone")


def _kto(draft: Draft) -> None:
    draft.put("method", "kto", "stage")
    draft.explicit("beta", "pref_beta", 0.1)
    for ours, theirs in (
        ("desirable_weight", "kto_chosen_weight"),
        ("undesirable_weight", "kto_rejected_weight"),
    ):
        if draft.take(theirs, 1.0) != 1.0:
            draft.put(ours, draft.take(theirs), theirs)
        elif draft.has(theirs):
            draft.same.append(theirs)
    if draft.take("pref_ftx", 0.0):
        draft.refuse("pref_ftx with stage kto: prefopt's kto has no likelihood term")


def _model(draft: Draft, lora: bool) -> None:
    base, adapter = draft.take("model_name_or_path"), as_list(draft.take("adapter_name_or_path"))
    if len(adapter) > 1:
        draft.refuse(
            f"adapter_name_or_path: {', '.join(adapter)}: merge all but the last into the model, and give its folder"
        )
    elif adapter:
        draft.put("model", adapter[0], "adapter_name_or_path")
        draft.put(
            "reference_model",
            base,
            "model_name_or_path",
            why="the reference there is the model without adapters",
        )
    else:
        draft.carry("model", "model_name_or_path")
    if (attention := draft.word("flash_attn", "auto")) in ATTENTION:
        draft.put("attn_implementation", ATTENTION[attention], "flash_attn")
    elif draft.has("flash_attn"):
        draft.same.append("flash_attn")
    pure = draft.take("pure_bf16", False)
    if pure:
        draft.put("dtype", "bfloat16", "pure_bf16")
    elif lora and (draft.given.get("bf16") or draft.given.get("fp16")):
        half = "bfloat16" if draft.given.get("bf16") else "float16"
        draft.default(
            "dtype", half, f"{draft.tool} loads the model under adapters in the type that it computes in"
        )
    if draft.has("pure_bf16") and not pure:
        draft.same.append("pure_bf16")


def _data(draft: Draft, place: Path) -> bool:
    """The data set and what is held out; whether its rows have images."""
    found = registered(draft, "dataset", place)
    for key, value in found.items():
        draft.put(key, value, "dataset")
    images = "images" in str(found.get("rename_columns", "")) or _has_images(draft, place)
    held, origin = {}, {}
    if draft.has("eval_dataset"):
        other = registered(draft, "eval_dataset", place)
        if other and other.get("rename_columns", {}) != found.get("rename_columns", {}):
            draft.check(
                "its columns have other names than the training data's: rename them in the data",
                "eval_dataset",
            )
        held = {"eval_data": other.get("data")} | ({"eval_split": other["split"]} if "split" in other else {})
        origin = dict.fromkeys(held, ("eval_dataset",))
    elif draft.take("val_size", 0.0):
        held, origin = {"eval_size": draft.take("val_size")}, {"eval_size": ("val_size",)}
    evaluation(draft, held, origin)
    return images


def _has_images(draft: Draft, place: Path) -> bool:
    folder = place_of(draft, place)
    entries = {} if folder is None else registry(folder)
    names = [str(name) for name in as_list(draft.take("dataset"))]
    return any("images" in entries.get(name, {}).get("columns", {}) for name in names)


def _targets(draft: Draft) -> None:
    """`lora_target` and `additional_target`, which are names with commas there."""
    target = draft.take("lora_target_modules", "all")
    draft.lines = [
        line for line in draft.lines if line.key not in ("lora_target_modules", "lora_modules_to_save")
    ]
    value: Any = "all-linear" if target == "all" else as_list(target)
    draft.put(
        "lora_target_modules", value, *(["lora_target_modules"] if draft.has("lora_target_modules") else [])
    )
    if draft.has("lora_modules_to_save"):
        draft.put("lora_modules_to_save", as_list(draft.take("lora_modules_to_save")), "lora_modules_to_save")


def _quantization(draft: Draft) -> None:
    bits = draft.take("quantization_bit")
    how = str(draft.take("quantization_method", "bnb"))
    if bits is None:
        draft.same += [key for key in ("quantization_method",) if draft.has(key)]
        return
    if how not in ("bnb", "bitsandbytes") or bits not in (4, 8):
        draft.refuse(
            f"quantization_bit: {bits} by {how}: prefopt quantizes bases with bitsandbytes, in 4 or 8 bits"
        )
        return
    draft.put(f"load_in_{bits}bit", True, "quantization_bit")
    if bits == 4:
        draft.carry("bnb_4bit_quant_type", "bnb_4bit_quant_type", "nf4")
        draft.carry("bnb_4bit_use_double_quant", "use_bnb_nested_quant", True)


def _reference(draft: Draft) -> None:
    if draft.has("ref_model"):
        draft.put("reference_model", draft.take("ref_model"), "ref_model")
    if draft.has("ref_model_adapters"):
        draft.refuse(
            "ref_model_adapters: give the adapters' folder as reference_model; it names its base itself"
        )
    if draft.has("ref_model_quantization_bit"):
        draft.check("a reference is loaded as the policy's base is", "ref_model_quantization_bit")


def _images(draft: Draft, images: bool) -> None:
    flags = {part: draft.take(theirs, default) for part, (theirs, default) in FREEZE.items()}
    given = [theirs for theirs, _ in FREEZE.values() if draft.has(theirs)]
    if not images:
        draft.same += given  # read for vision-language models alone
        return
    frozen = sorted(part for part, on in flags.items() if on)
    draft.put("freeze", frozen, *given, why="" if given else f"{draft.tool}'s default")
