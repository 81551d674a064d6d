"""Optimizer, batches, how long, and the seed."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from prefopt.config.keys.base import TEXT, Keys
from prefopt.config.values import settings, steps_or_share

Optimizer = Literal[
    "adamw", "adamw_torch", "adamw_torch_fused", "adafactor", "adagrad", "rmsprop", "sgd",
    "adamw_8bit", "adamw_bnb_8bit", "paged_adamw_8bit", "paged_adamw_32bit",
    "ademamix", "ademamix_8bit", "paged_ademamix_8bit", "paged_ademamix_32bit",
    "lion_8bit", "lion_32bit", "paged_lion_8bit", "paged_lion_32bit",
    "rmsprop_bnb", "rmsprop_bnb_8bit", "rmsprop_bnb_32bit",
]  # fmt: skip
Schedule = Literal[
    "linear", "cosine", "constant", "constant_with_warmup", "cosine_with_restarts", "polynomial", "inverse_sqrt",
    "cosine_with_min_lr", "cosine_warmup_with_min_lr", "warmup_stable_decay", "reduce_lr_on_plateau", "greedy",
]  # fmt: skip

ADAMS = ("adam_beta1", "adam_beta2", "adam_epsilon")


def adams_settings(optim: str) -> tuple[str, ...]:
    """Which of `ADAMS` an optimizer reads."""
    if "adamw" in optim or "ademamix" in optim:
        return ADAMS
    if "lion" in optim:
        return ADAMS[:2]
    return ADAMS[2:] if optim == "rmsprop" else ()


class OptimizationKeys(Keys):
    """Keys of the optimization; of every run."""

    learning_rate: float = Field(1e-6, gt=0)
    optim: Optimizer = Field(
        "adamw",
        description="by transformers' names: of torch (adamw, rmsprop, sgd, adagrad), adafactor, or of bitsandbytes "
        "(adamw_8bit, paged_adamw_8bit, lion_8bit, ...; needs the qlora extra)",
    )
    optim_args: Annotated[dict[str, Any], BeforeValidator(settings)] = Field(
        {}, description="further arguments of the optimizer: momentum=0.9, or {momentum: 0.9}"
    )
    adam_beta1: float = Field(0.9, ge=0, lt=1)
    adam_beta2: float = Field(0.999, ge=0, lt=1)
    adam_epsilon: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    lr_scheduler_type: Schedule = Field(
        "linear",
        description="schedules of transformers; reduce_lr_on_plateau and greedy follow metric_for_best_model",
    )
    lr_scheduler_kwargs: Annotated[dict[str, Any], BeforeValidator(settings)] = Field(
        {}, description="what the schedule takes: {num_cycles: 2}, {min_lr_rate: 0.1}, {num_decay_steps: 100}"
    )
    warmup_steps: Annotated[int | float, BeforeValidator(lambda v: 0 if v == 0 else steps_or_share(v))] = (
        Field(0, description="a number of steps, or below 1 a share of the run")
    )
    warmup_ratio: float = Field(0.0, ge=0, le=1)
    max_grad_norm: float | None = Field(1.0, gt=0, description="None: no clipping")
    per_device_train_batch_size: int = Field(
        8, ge=1, description="examples in one forward pass on one device"
    )
    per_device_train_batch_tokens: Annotated[Annotated[int, Field(ge=1)] | Literal["auto"] | None, TEXT] = (
        Field(
            None,
            description="cut a step's examples into forward passes of at most so many tokens, longest first, instead of "
            "per_device_train_batch_size examples; auto: what fits into memory. The step's examples stay the same",
        )
    )
    per_device_train_batch_items: Annotated[Annotated[int, Field(ge=1)] | None, TEXT] = Field(
        None,
        description="hold the activations of so many items (answers under one prompt and its images) at a time, whatever belongs "
        "to one example: the same gradient, for one more forward pass; None: all of a forward pass at once",
    )
    gradient_accumulation_steps: int = Field(1, ge=1)
    num_train_epochs: float = Field(1.0, gt=0)
    max_steps: int | None = Field(
        None,
        ge=1,
        description="stop after so many optimizer steps; overrides epochs. None, or -1: by num_train_epochs",
    )
    seed: int = Field(0, ge=0, lt=2**32, description="of data order, hold-out, samples and initial adapters")
