"""What transformers' `TrainingArguments` say, which TRL and LLaMA-Factory extend and Axolotl fills in.

Translators give the tool's own defaults: they are written out where prefopt's are others, so that the run trains as it
would have there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefopt.config.foreign import UPLOAD
from prefopt.migration.draft import ABSENT, GIVEN, Draft

ADAMW = frozenset(
    {"adamw", "adamw_hf", "adamw_torch", "adamw_torch_fused", "adamw_apex_fused", "adamw_torch_xla"}
)
"""Names of one and the same AdamW in float32."""
NO_WARMUP = frozenset({"constant", "reduce_lr_on_plateau", "greedy"})
"""Schedules that transformers starts at the peak."""
DEFAULTS: Mapping[str, Any] = {
    "accelerator_config": {
        "split_batches": False, "dispatch_batches": None, "even_batches": True, "use_seedable_sampler": True,
        "non_blocking": False, "gradient_accumulation_kwargs": None,
    },
    "average_tokens_across_devices": True,
    "dataloader_in_order": True,
    "dataloader_num_workers": 0,
    "dataloader_pin_memory": True,
    "ddp_timeout": 1800,
    "eval_delay": 0,
    "eval_do_concat_batches": True,
    "generation_max_length": None,
    "hub_strategy": "every_save",
    "hub_token": "<HUB_TOKEN>",
    "label_smoothing_factor": 0.0,
    "length_column_name": "length",
    "local_rank": -1,
    "log_level": "passive",
    "log_level_replica": "warning",
    "log_on_each_node": True,
    "logging_nan_inf_filter": True,
    "pad_token": "<PAD_TOKEN>",
    "pad_to_multiple_of": "auto",
    "padding_free": False,
    "project": "huggingface",
    "remove_unused_columns": True,
    "skip_memory_metrics": True,
    "train_sampling_strategy": "random",
    "use_cache": False,
}  # fmt: skip
"""Of arguments that mean nothing here, where it is not null, false or nothing."""
CARRIED = (
    "learning_rate", "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps", "weight_decay",
    "adam_beta1", "adam_beta2", "adam_epsilon", "lr_scheduler_type", "per_device_eval_batch_size", "seed",
)  # fmt: skip
"""Numbers and names that mean the same here."""
CARRIED_IF_GIVEN = (
    "output_dir", "lr_scheduler_kwargs", "optim_args", "run_name",
    "load_best_model_at_end", "metric_for_best_model", "greater_is_better", "gradient_checkpointing_kwargs", "torch_compile",
    "model_revision", "early_stopping_patience", "early_stopping_threshold",
)  # fmt: skip
"""Keys whose defaults switch nothing on, there as here."""


def training_arguments(draft: Draft, defaults: Mapping[str, Any]) -> None:
    """Optimization, precision, logging and checkpoints.

    Args:
        draft: whose names are transformers', or are called otherwise (`Draft.called`).
        defaults: of the tool, by transformers' names; those of `TrainingArguments` for others.
    """
    known: dict[str, Any] = {
        "learning_rate": 5e-5, "num_train_epochs": 3.0, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1,
        "weight_decay": 0.0, "adam_beta1": 0.9, "adam_beta2": 0.999, "adam_epsilon": 1e-8, "lr_scheduler_type": "linear",
        "per_device_eval_batch_size": 8, "seed": 42, "max_grad_norm": 1.0, "save_strategy": "steps", "save_steps": 500,
        "bf16": False, "gradient_checkpointing": False, **defaults,
    }  # fmt: skip
    draft.word("lr_scheduler_type", "linear")
    for key in CARRIED:
        draft.carry(key, key, known[key])
    clip = draft.take("max_grad_norm", known["max_grad_norm"])
    if clip == 0:
        draft.put("max_grad_norm", None, "max_grad_norm", why="0 is no clipping there")
    else:
        draft.carry("max_grad_norm", "max_grad_norm", known["max_grad_norm"])
    _length(draft)
    _warmup(draft, defaults.get("warmup_ratio"))
    _optimizer(draft)
    _precision(draft, known["bf16"])
    _checkpointing(draft, known["gradient_checkpointing"])
    _saving(draft, known)
    for key in CARRIED_IF_GIVEN:
        if_given(draft, key)
    _hub(draft, defaults.get("push_to_hub", False))
    _best(draft)
    _trackers(draft)
    _resume(draft)


def if_given(draft: Draft, key: str) -> None:
    """Write a key that is spelt alike, where the file gives it and it switches something on."""
    value = draft.take(key, ABSENT)
    if value is ABSENT:
        return
    if value in (False, "main", {}, "", {"use_reentrant": False}) or value == draft.usual(key):
        draft.same.append(draft.name(key))
    else:
        draft.put(key, value, key)


def _length(draft: Draft) -> None:
    steps = draft.take("max_steps", -1)
    if steps != -1:
        draft.put("max_steps", steps, "max_steps")
    elif draft.has("max_steps"):
        draft.same.append(draft.name("max_steps"))


def _warmup(draft: Draft, ratio: float | None) -> None:
    """`warmup_ratio` of older versions; in transformers 5, `warmup_steps` below 1 is a share of all steps."""
    steps, share = draft.number("warmup_steps", 0), draft.number("warmup_ratio", 0)
    if draft.out.get("lr_scheduler_type") in NO_WARMUP:
        draft.leave(
            "this schedule has no warm-up",
            *(key for key in ("warmup_steps", "warmup_ratio") if draft.take(key)),
        )
        return
    if steps and 0 < steps < 1:
        draft.put("warmup_ratio", steps, "warmup_steps", why="below 1 it is a share of all steps")
    elif steps:
        draft.put("warmup_steps", int(steps), "warmup_steps")
        if share:
            draft.leave("warmup_steps wins over it", "warmup_ratio")
    elif share:
        draft.put("warmup_ratio", share, "warmup_ratio")
    elif ratio and not (draft.has("warmup_steps") or draft.has("warmup_ratio")):
        draft.default("warmup_ratio", ratio)
    else:
        draft.same += [draft.name(key) for key in ("warmup_steps", "warmup_ratio") if draft.has(key)]


def _optimizer(draft: Draft) -> None:
    name = draft.word("optim", "adamw_torch")
    if name in ADAMW:
        if draft.has("optim"):
            draft.same.append(draft.name("optim"))
    else:
        draft.put("optim", name, "optim")


def _precision(draft: Draft, bf16: bool | str | None) -> None:
    """Autocast; left to itself, prefopt uses bfloat16 where the GPU has it."""
    half, given = draft.take("fp16", False), draft.take("bf16", ABSENT)
    if half:
        draft.put("fp16", True, "fp16")
        if given is not ABSENT:
            draft.same.append(draft.name("bf16"))
        return
    if draft.has("fp16"):
        draft.same.append(draft.name("fp16"))
    if given in ("auto", "full"):
        if given == "full":
            draft.put("bf16", True, "bf16")
        else:
            draft.same.append(draft.name("bf16"))
    elif given is not ABSENT:
        draft.put("bf16", bool(given), "bf16")
    elif isinstance(bf16, bool):
        draft.default("bf16", bf16, "prefopt's default is bfloat16 wherever the GPU has it")


def _checkpointing(draft: Draft, default: bool) -> None:
    """Recomputed activations, which change memory and time alone; transformers 5 calls them activation checkpointing."""
    new, old = draft.take("activation_checkpointing", ABSENT), draft.take("gradient_checkpointing", ABSENT)
    kwargs = draft.take("activation_checkpointing_kwargs")
    if kwargs:
        draft.put("gradient_checkpointing_kwargs", kwargs, "activation_checkpointing_kwargs")
    given = old if old is not ABSENT else new
    origin = "gradient_checkpointing" if old is not ABSENT else "activation_checkpointing"
    if given is ABSENT:
        draft.default("gradient_checkpointing", default)
    elif isinstance(given, str):
        draft.put("gradient_checkpointing", True, origin, why="without offloading")
    elif bool(given) == draft.usual("gradient_checkpointing"):
        draft.same.append(draft.name(origin))
    else:
        draft.put("gradient_checkpointing", bool(given), origin)


def _saving(draft: Draft, known: Mapping[str, Any]) -> None:
    strategy = draft.take("save_strategy", known["save_strategy"]) or "no"
    steps = draft.take("save_steps", known["save_steps"])
    origin = [key for key in ("save_strategy", "save_steps") if draft.has(key)]
    if strategy == "no":
        draft.put("save_strategy", "no", "save_strategy")
    elif strategy == "epoch":
        draft.same += [draft.name(key) for key in origin]  # prefopt saves at the end of every epoch
    elif strategy == "steps":
        if draft.has("save_steps") or not origin:
            draft.carry("save_steps", "save_steps", known["save_steps"])
        else:
            draft.put("save_steps", steps, *origin)
        if draft.has("save_strategy"):
            draft.same.append(draft.name("save_strategy"))
    else:
        draft.put("save_strategy", strategy, "save_strategy")
    limit = draft.take("save_total_limit", known.get("save_total_limit"))
    if limit:
        draft.carry("save_total_limit", "save_total_limit", known.get("save_total_limit", ABSENT))
    elif strategy != "no":
        draft.leave(
            "every checkpoint is kept there; here the newest 2 are, or as many as save_total_limit says",
            "save_total_limit",
        )
    steps = draft.take("logging_steps")
    if steps is not None and steps != (draft.usual("logging_steps") or 10):
        draft.put("logging_steps", steps, "logging_steps")
    elif steps is not None:
        draft.same.append(draft.name("logging_steps"))
    strategy = draft.take("logging_strategy")
    if strategy == "steps":
        draft.same.append(draft.name("logging_strategy"))
    elif strategy is not None:
        draft.put("logging_strategy", strategy, "logging_strategy")


def _best(draft: Draft) -> None:
    """`metric_for_best_model`, to which transformers adds the `eval_` that it may lack."""
    metric = draft.take("metric_for_best_model")
    if metric is not None:
        name = metric if str(metric).startswith("eval_") else f"eval_{metric}"
        draft.put("metric_for_best_model", name, "metric_for_best_model")


def _hub(draft: Draft, default: bool) -> None:
    """The upload behind the run."""
    if_given(draft, "push_to_hub")
    if draft.take("push_to_hub", default):  # where even the default means something
        draft.leave(UPLOAD, "hub_strategy")
    for key in ("hub_model_id", "hub_private_repo"):
        if draft.take("push_to_hub", default):
            if_given(draft, key)
        elif draft.take(key):
            draft.leave("read only with push_to_hub", key)


def _trackers(draft: Draft) -> None:
    value = draft.take("report_to")
    if value in (None, "none", [], ["none"], False):
        if draft.has("report_to"):
            draft.same.append(draft.name("report_to"))
    else:
        draft.put("report_to", [value] if isinstance(value, str) and value != "all" else value, "report_to")


def _resume(draft: Draft) -> None:
    if draft.take("resume_from_checkpoint"):
        draft.leave(
            "checkpoints of other tools cannot be gone on from: train from the model that they hold",
            "resume_from_checkpoint",
        )


def evaluation(
    draft: Draft,
    held_out: Mapping[str, Any] | None,
    origin: Mapping[str, tuple[str, ...]],
    why: str = "",
    every: tuple[float, str] | None = None,
) -> None:
    """How often is evaluated, and on what.

    Args:
        draft: with `eval_strategy` and `eval_steps`, or what the tool calls them.
        held_out: prefopt's keys that say what is held out; empty if nothing is, None if prefopt's own share is.
        origin: the tool's arguments that each of them comes from.
        why: what to say about what nobody gave.
        every: steps or share of them, and the argument, where that alone says how often.
    """
    if draft.overrides.keys() & {"eval_data", "eval_size"}:
        # a split of the file's own data means nothing of another's
        told = next(key for key in ("eval_data", "eval_size") if key in draft.overrides)
        draft.leave(
            GIVEN.format(key=told), *dict.fromkeys(name for names in origin.values() for name in names)
        )
        held_out = None
    for key, value in (held_out or {}).items():
        if value == draft.usual(key):
            draft.same += [draft.name(name) for name in origin.get(key, ()) if draft.has(name)]
        else:
            draft.put(key, value, *origin.get(key, ()), why="" if origin.get(key) else why)
    if held_out is not None and not held_out:
        draft.default(
            "eval_size", 0, why or f"{draft.tool} holds nothing out of its own accord; prefopt's share is 0.1"
        )
    older = "evaluation_strategy" if draft.has("evaluation_strategy") else "eval_strategy"
    strategy = draft.take(older, "no") or "no"  # YAML reads a bare no as false
    steps = draft.take("eval_steps")
    if every is not None:
        draft.put("eval_steps", every[0], every[1], why="a share of all steps" if every[0] < 1 else "")
        draft.same += [draft.name(older)] * draft.has(older)
    elif strategy == "no":
        if draft.has(older):
            draft.put("eval_strategy", "no", older)
        else:
            draft.default(
                "eval_strategy", "no", f"{draft.tool}'s default; prefopt's is ten evaluations a run"
            )
        if steps is not None:
            draft.leave("nothing is evaluated along the way there", "eval_steps")
    elif strategy == "steps":
        if steps is None:
            steps = draft.take("logging_steps", 500)
            draft.put("eval_steps", steps, older, why="without eval_steps it is logging_steps there")
        else:
            draft.put("eval_steps", steps, "eval_steps")
            draft.same.append(draft.name(older))
    else:
        draft.put("eval_strategy", strategy, older)
