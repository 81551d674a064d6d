"""Axolotl: `rl: dpo`, `ipo`, `kto`, `orpo` and `simpo`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefopt.config.foreign import TEMPLATE, TOKENS
from prefopt.migration import arguments
from prefopt.migration.adapters import adapters
from prefopt.migration.arguments import evaluation, training_arguments
from prefopt.migration.datasets import sources
from prefopt.migration.draft import Draft
from prefopt.migration.losses import cpo, dpo, kto, orpo

CALLED: Mapping[str, str] = {
    "num_train_epochs": "num_epochs",
    "per_device_train_batch_size": "micro_batch_size",
    "per_device_eval_batch_size": "eval_batch_size",
    "lr_scheduler_type": "lr_scheduler",
    "optim": "optimizer",
    "model_revision": "revision_of_model",
    "run_name": "wandb_name",
    "use_dora": "peft_use_dora",
    "use_rslora": "peft_use_rslora",
    "loss_type": "dpo_loss_type",
    "loss_weights": "dpo_loss_weights",
    "label_smoothing": "dpo_label_smoothing",
    "use_weighting": "dpo_use_weighting",
    "beta": "rl_beta",
    "desirable_weight": "kto_desirable_weight",
    "undesirable_weight": "kto_undesirable_weight",
}
"""TRL's and transformers' names, as they are spelt there."""
ATTENTION: Mapping[str, str] = {
    "flash_attention": "flash_attention_2",
    "sdp_attention": "sdpa",
    "flex_attention": "flex_attention",
    "eager_attention": "eager",
}
TRACKERS: Mapping[str, tuple[str, ...]] = {
    "wandb": ("use_wandb", "wandb_project"),
    "tensorboard": ("use_tensorboard",),
    "mlflow": ("use_mlflow", "mlflow_tracking_uri"),
    "comet_ml": ("use_comet", "comet_project_name"),
}
ARGUMENTS: Mapping[str, Any] = {
    "num_train_epochs": 1.0,
    "per_device_train_batch_size": 1,
    "lr_scheduler_type": "cosine",
    "warmup_ratio": 0.03,
    "save_strategy": "epoch",
    "save_total_limit": 4,
    "bf16": "auto",
}
"""Defaults that Axolotl gives TrainingArguments."""
LORA: Mapping[str, Any] = {
    "lora_r": 8,
    "lora_alpha": 8,
    "bnb_4bit_quant_type": "nf4",
    "use_bnb_nested_quant": True,
}
DEFAULTS: Mapping[str, Any] = {
    **arguments.DEFAULTS,
    "loraplus_lr_embedding": 1e-6, "remove_unused_columns": False, "shuffle_merged_datasets": True, "save_safetensors": True,
    "merge_method": "memory_efficient",
}  # fmt: skip
PEFT = (
    "peft_layers_to_transform",
    "peft_layers_pattern",
    "peft_init_lora_weights",
    "peft_layer_replication",
    "peft_trainable_token_indices",
)


def translate(draft: Draft) -> None:
    """All of Axolotl's keys as prefopt's."""
    draft.called = CALLED if draft.given.get("rl_beta") is not None else {**CALLED, "beta": "dpo_beta"}
    if not _loss(draft):
        return
    draft.carry("model", "base_model")
    for key, value in (found := sources(draft, "datasets")).items():
        draft.put(key, value, "datasets")
    _held_out(draft, found)
    draft.carry("max_length", "sequence_len", 512)
    _batches(draft)
    steps = draft.take("micro_batch_size", 1)
    training_arguments(
        draft,
        {**ARGUMENTS, "per_device_eval_batch_size": steps, "push_to_hub": bool(draft.take("hub_model_id"))},
    )
    _saves(draft)
    _precision(draft)
    _adapters(draft)
    _attention(draft)
    _trackers(draft)
    if draft.take("hub_model_id"):
        draft.default("push_to_hub", True, "a hub_model_id says so there")
        draft.default("hub_private_repo", True, "so it is there")
    if draft.take("precompute_ref_log_probs", False):
        draft.put("reference", "cached", "precompute_ref_log_probs")
    if draft.has("unfrozen_parameters"):
        draft.refuse("unfrozen_parameters: prefopt trains all weights, or adapters")
    _tokenizer(draft)


def _loss(draft: Draft) -> bool:
    kind = draft.take("rl")
    trl = draft.mapping("trl")
    if trl.get("beta") is not None:
        draft.called = {**draft.called, "beta": "trl.beta"}
        draft.given = {**draft.given, "trl.beta": trl["beta"]}
    if kind in ("dpo", "ipo"):
        if draft.take("dpo_norm_loss", False):
            draft.put("margin", "average", "dpo_norm_loss")
        dpo(draft, ("ipo",) if kind == "ipo" else ("sigmoid",))
    elif kind == "kto":
        kto(draft)
    elif kind == "orpo":
        if draft.has("orpo_alpha"):
            draft.called = {**draft.called, "beta": "orpo_alpha"}
        orpo(draft)
    elif kind == "simpo":
        cpo(draft, "simpo")
    else:
        what = "supervised fine-tuning" if kind is None else f"rl: {kind}"
        draft.refuse(f"{what} is no training on comparisons: prefopt reads rl: dpo, ipo, kto, orpo and simpo")
        return False
    # the method is named by rl, whatever loss goes with it
    draft.lines = [
        line if line.key != "method" or line.origin else _named(line, str(kind)) for line in draft.lines
    ]
    return True


def _named(line: Any, kind: str) -> Any:
    from dataclasses import replace

    fate = "renamed" if line.value == kind else "value changed"
    return replace(line, fate=fate, origin="rl", given=kind)


def _held_out(draft: Draft, trained: Mapping[str, Any]) -> None:
    held: dict[str, Any] = {}
    origin: dict[str, tuple[str, ...]] = {}
    if draft.has("test_datasets"):
        other = sources(draft, "test_datasets")
        if other and other.get("rename_columns", {}) != trained.get("rename_columns", {}):
            draft.check(
                "its columns have other names than the training data's: rename them in the data",
                "test_datasets",
            )
        held = {"eval_data": other.get("data"), "eval_split": other.get("split", "train")}
        origin = dict.fromkeys(held, ("test_datasets",))
    elif draft.take("val_set_size", 0):
        held, origin = {"eval_size": draft.take("val_set_size")}, {"eval_size": ("val_set_size",)}
    every: tuple[float, str] | None = None
    if per := draft.number("evals_per_epoch", 0):
        if held:
            every = (_share(draft, per), "evals_per_epoch")
        else:
            draft.leave("nothing is held out", "evals_per_epoch")
    elif draft.has("eval_steps") and held:
        every = (draft.take("eval_steps"), "eval_steps")
    draft.same += ["evals_per_epoch"] * (draft.given.get("evals_per_epoch") == 0)
    evaluation(draft, held, origin, every=every)


def _share(draft: Draft, times: float) -> float:
    """So often an epoch, as a share of all steps."""
    return round(1 / (times * draft.number("num_epochs", 1.0, 0)), 6)


def _batches(draft: Draft) -> None:
    """`batch_size` is that of a step on one device there."""
    if total := draft.number("batch_size", 0):
        micro = draft.number("micro_batch_size", 1, 0)
        draft.put(
            "gradient_accumulation_steps",
            max(1, total // micro),
            "batch_size",
            why=f"{total} rows a step, {micro} at a time",
        )


def _saves(draft: Draft) -> None:
    per = draft.number("saves_per_epoch", 0)
    if per and per != 1:
        draft.put("save_steps", _share(draft, per), "saves_per_epoch", why="a share of all steps")
    elif draft.has("saves_per_epoch"):
        draft.same.append("saves_per_epoch")


def _precision(draft: Draft) -> None:
    """Weights are loaded in the type that is computed in, also where all of them are trained."""
    bf16, half = draft.given.get("bf16", "auto"), draft.take("float16", False) or draft.given.get("fp16")
    if draft.take("bfloat16", False) or (bf16 and bf16 is not None):
        draft.default(
            "dtype",
            "bfloat16",
            "weights are loaded in bfloat16 there, also where all of them are trained (needs a GPU that has it)",
        )
    elif half:
        draft.default("dtype", "float16", "weights are loaded in float16 there")
    elif draft.has("adapter"):
        draft.default("dtype", "float32", "weights are loaded in float32 there")
    draft.same += [key for key in ("float32", "bfloat16", "float16") if draft.has(key)]


def _adapters(draft: Draft) -> None:
    kind = draft.take("adapter")
    if kind not in (None, "", "lora", "qlora"):
        draft.refuse(
            f"adapter: {kind}: prefopt reads lora and qlora; other kinds are `peft: {{peft_type: ...}}`"
        )
        return
    linear = draft.take("lora_target_linear", False)
    adapters(draft, bool(kind), ("adapter",), LORA)
    if kind and linear:
        named = draft.take("lora_target_modules")
        if named:
            draft.leave("lora_target_linear names all of them", "lora_target_modules")
        draft.put("lora_target_modules", "all-linear", "lora_target_linear")
    if given := [key for key in PEFT if draft.has(key)]:
        draft.put("peft", {key.removeprefix("peft_"): draft.take(key) for key in given}, *given)
    if draft.has("lora_model_dir"):
        draft.put("model", draft.take("lora_model_dir"), "lora_model_dir")
        draft.put(
            "reference_model",
            draft.take("base_model"),
            "base_model",
            why="the reference there is the model without adapters",
        )
    if draft.has("bnb_config_kwargs"):
        draft.check(
            "write them as bnb_4bit_quant_type, bnb_4bit_use_double_quant, bnb_4bit_compute_dtype",
            "bnb_config_kwargs",
        )


def _attention(draft: Draft) -> None:
    for theirs, ours in ATTENTION.items():
        if draft.take(theirs):
            draft.put("attn_implementation", ours, theirs)
        elif draft.has(theirs):
            draft.same.append(theirs)
    if draft.has("attn_implementation"):
        draft.carry("attn_implementation", "attn_implementation")


def _trackers(draft: Draft) -> None:
    found = {name: [key for key in keys if draft.take(key)] for name, keys in TRACKERS.items()}
    used = [name for name, keys in found.items() if keys]
    if used:
        draft.put(
            "report_to",
            used,
            *(key for name in used for key in found[name]),
            why="projects are named by their own environment variables",
        )
    draft.same += [
        key for keys in TRACKERS.values() for key in keys if draft.has(key) and not draft.take(key)
    ]


def _tokenizer(draft: Draft) -> None:
    tokens = draft.mapping("special_tokens")
    if set(tokens) - {"pad_token"}:
        draft.check(TOKENS, "special_tokens")
    elif tokens:
        draft.leave("padding is never looked at, whatever token it is", "special_tokens")
    for key in ("tokens", "added_tokens_overrides"):
        if draft.take(key):
            draft.check(TOKENS, key)
    template = draft.take("chat_template")
    if template and template != "tokenizer_default":
        draft.check(
            f"{TEMPLATE}. `prefopt check DATA --model MODEL` shows the first pair as the model reads it",
            "chat_template",
        )
    elif template:
        draft.same.append("chat_template")
