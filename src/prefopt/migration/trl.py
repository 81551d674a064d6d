"""TRL 1.16: the flat YAML of `trl dpo` and `trl kto`, and dumped arguments (`DPOConfig(...).to_dict()` as JSON).

Unsloth's users give the same arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefopt.migration import arguments
from prefopt.migration.adapters import adapters
from prefopt.migration.arguments import training_arguments
from prefopt.migration.checkpoints import balance, configuration, has_experts, returns_balance, weights_type
from prefopt.migration.draft import ABSENT, Draft, Line, as_list
from prefopt.migration.losses import cpo, dpo, kto, orpo, simpo, tpo
from prefopt.migration.mixtures import data

TRAINERS = ("dpo", "kto", "cpo", "orpo", "tpo")
"""What `--trainer` may say; SimPO and AlphaPO are losses of cpo."""
OTHERS: Mapping[str, str] = {
    "num_generations": "GRPOConfig or RLOOConfig",
    "completion_only_loss": "SFTConfig",
    "assistant_only_loss": "SFTConfig",
    "center_rewards_coefficient": "RewardConfig",
    "reward_model_path": "OnlineDPOConfig (here: method online_dpo with a judge, see `prefopt methods online_dpo`)",
}
"""Arguments of trainers that learn from something else than comparisons in a file."""
ARGUMENTS: Mapping[str, Any] = {
    "learning_rate": 1e-6,
    "gradient_checkpointing": True,
    "bf16": True,
}
"""Defaults that TRL gives TrainingArguments."""
LORA: Mapping[str, Any] = {
    "lora_r": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.05,
    "bnb_4bit_quant_type": "nf4",
    "use_bnb_nested_quant": False,
}
DEFAULTS: Mapping[str, Any] = {**arguments.DEFAULTS, "precompute_ref_batch_size": None}
"""Of arguments that mean nothing here."""
BY_TRAINER: Mapping[str, str] = {"cpo": "auto", "orpo": "auto"}
"""dtype of trainers that leave it to transformers, whose default is the checkpoint's; the others' is float32."""
EXPERTS = (
    "in a mixture of experts TRL adds the loss that keeps them in balance, prefopt with router_aux_loss_coef"
)
CARRIED = ("max_length", "truncation_mode", "attn_implementation")
SYNC: Mapping[str, tuple[str, Any]] = {
    "sync_reference": ("sync_ref_model", False),
    "reference_mixup_alpha": ("ref_model_mixup_alpha", 0.6),
    "reference_sync_steps": ("ref_model_sync_steps", 512),
}


def translate(draft: Draft, trainer: str | None = None) -> None:
    """All of TRL's arguments as prefopt's keys.

    Args:
        draft: of the file.
        trainer: of `TRAINERS`; None: what the losses tell, dpo else.
    """
    for key, name in OTHERS.items():
        if key in draft.given:
            draft.refuse(
                f"{key} is an argument of {name}; prefopt reads configurations of {', '.join(TRAINERS)}"
            )
            return
    kind = trainer or trainer_of(draft)
    {"dpo": dpo, "kto": kto, "cpo": cpo, "orpo": orpo, "tpo": tpo, "simpo": simpo}[kind](draft)
    config = _model(draft, kind)
    data(draft)
    if "max_length" in draft.given and draft.given["max_length"] is None:
        draft.put("max_length", None, "max_length")
    for key in CARRIED:
        draft.carry(key, key, {"max_length": 1024, "truncation_mode": "keep_start"}.get(key, ABSENT))
    training_arguments(draft, {**ARGUMENTS, **({"learning_rate": 5e-7} if kind == "tpo" else {})})
    on = bool(draft.take("use_peft", False))
    adapters(draft, on, ("use_peft",), LORA, draft.take("disable_dropout", True) is not False)
    if draft.take("lora_task_type", "CAUSAL_LM") != "CAUSAL_LM":
        draft.refuse(f"lora_task_type: {draft.take('lora_task_type')}: policies are CAUSAL_LM")
    _reference(draft)
    if draft.take("disable_dropout", True) is False:
        draft.check(
            "dropout of the model is always off here, so that policy and reference agree at the start",
            "disable_dropout",
        )
    _experts(draft, kind, config)


def trainer_of(draft: Draft) -> str:
    """Which trainer a file is for. TRL's files do not say it themselves; some arguments tell."""
    given = set(draft.given)
    loss = [str(kind) for kind in as_list(draft.given.get("loss_type"))]
    if {"desirable_weight", "undesirable_weight"} & given or loss in (["kto"], ["apo_zero_unpaired"]):
        return "kto"
    if "gamma_beta_ratio" in given:
        return "simpo"
    if {"cpo_alpha", "simpo_gamma"} & given or loss in (["simpo"], ["alphapo"]):
        return "cpo"
    if {"tpo_alpha", "tpo_l_gamma"} & given:
        return "tpo"
    if "loss_type" not in given:
        # a dump of ORPOConfig has no loss; a file for people has a default
        if {"beta", "padding_value", "generate_during_eval"} <= given:
            return "orpo"
        draft.lines.append(
            Line(
                "to check",
                "",
                "",
                why="no loss_type is given: taken for DPO's. Another trainer's is read with --trainer kto, cpo, orpo or tpo",
            )
        )
    return "dpo"


def _model(draft: Draft, kind: str) -> dict[str, Any] | None:
    """What model is trained, and its config.json where that is here."""
    inner = draft.mapping("model_init_kwargs")
    if draft.has("model_init_kwargs") and not inner:
        draft.same.append("model_init_kwargs")
    draft.carry("model", "model_name_or_path")
    origin = next((key for key in ("dtype", "torch_dtype") if key in draft.given), "")
    dtype = draft.take(origin) if origin else BY_TRAINER.get(kind, "float32")
    for key in ("dtype", "torch_dtype"):
        if key in inner:
            dtype, origin = inner.pop(key), "model_init_kwargs"
    if "revision" in inner:
        draft.put("model_revision", inner.pop("revision"), "model_init_kwargs")
    if draft.take("use_flash_attention_2", False):
        draft.put("attn_implementation", "flash_attention_2", "use_flash_attention_2")
    if "attn_implementation" in inner:
        draft.put("attn_implementation", inner.pop("attn_implementation"), "model_init_kwargs")
    if inner:
        draft.leave(f"of it, {', '.join(inner)} have no counterpart", "model_init_kwargs")
    revision = draft.so_far("model_revision") or draft.given.get("model_revision")
    config = configuration(str(draft.so_far("model") or ""), revision)
    known = _dtype(draft, str(dtype).rpartition(".")[-1], origin, config)
    if draft.given.get("load_in_4bit") and known:
        draft.default("bnb_4bit_compute_dtype", known, "TRL computes in the model's dtype")
    return config


def _dtype(draft: Draft, dtype: str, origin: str, config: Mapping[str, Any] | None) -> str | None:
    """What weights are loaded in.

    Returns:
        It, where it can be told.
    """
    adapters_alone = draft.overrides.get("use_peft", draft.given.get("use_peft"))
    same = [origin] if origin in draft.given else []
    if dtype != "auto":
        dtype = "float32" if dtype == "None" else dtype
        if dtype == "float32" and not adapters_alone:
            draft.same += same  # prefopt's auto is float32 where all weights are trained
        elif same:
            draft.put("dtype", dtype, origin)
        else:
            draft.default(
                "dtype",
                dtype,
                "TRL loads models in float32 unless told otherwise; prefopt's adapters, in their own type",
            )
        return dtype
    known = None if config is None else weights_type(config)
    if adapters_alone or known == "float32" or "dtype" in draft.overrides:
        draft.same += same  # under adapters prefopt's auto is the checkpoint's, too
    elif known:
        draft.put("dtype", known, *same, why="the checkpoint's, by its config.json")
    else:
        there = "is not on this machine" if config is None else "does not name its type"
        draft.check(
            f"weights are loaded in the checkpoint's type there (auto), and in float32 here where all of them are trained. The model's "
            f"config.json {there}: add dtype: bfloat16 or float16 if that is its type",
            *same,
        )
    return known


def _experts(draft: Draft, kind: str, config: Mapping[str, Any] | None) -> None:
    """The loss that keeps experts in balance: DPO and KTO of TRL add it by themselves, the others where the model says so."""
    coefficient = draft.take("router_aux_loss_coef")
    if coefficient == 0:
        draft.same.append("router_aux_loss_coef")
        return
    if (
        coefficient is not None
        or kind not in ("dpo", "kto", "cpo", "orpo")
        or "router_aux_loss_coef" in draft.overrides
    ):
        draft.carry("router_aux_loss_coef", "router_aux_loss_coef")
        return
    if config is None:
        if kind in ("dpo", "kto"):
            draft.check(
                f"{EXPERTS}. Whether this model is one cannot be told here: add router_aux_loss_coef, by its config.json, if it is"
            )
    elif has_experts(config) and (kind in ("dpo", "kto") or returns_balance(config)):
        if (usual := balance(config)) is None:
            draft.check(
                f"{EXPERTS}. This model is one, whose config.json names no coefficient: add router_aux_loss_coef"
            )
        elif usual:
            draft.put(
                "router_aux_loss_coef",
                usual,
                why="TRL adds this loss by itself; the coefficient of the model's config.json",
            )


def _reference(draft: Draft) -> None:
    if draft.take("precompute_ref_log_probs", False):
        draft.put("reference", "cached", "precompute_ref_log_probs")
    else:
        draft.same += ["precompute_ref_log_probs"] * draft.has("precompute_ref_log_probs")
    on = draft.take("sync_ref_model", False)
    for ours, (theirs, default) in SYNC.items():
        if on:
            draft.carry(ours, theirs, default)
        elif draft.take(theirs, default) == default:
            draft.same += [theirs] * draft.has(theirs)
        else:
            draft.leave("read only with sync_ref_model", theirs)
