"""Optimizer, batches, how long, and the seed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from prefopt.config.keys.base import TEXT, Keys


class OptimizationKeys(Keys):
    """Keys of the optimization; of every run."""

    learning_rate: float = Field(1e-6, gt=0)
    optim: Literal["adamw", "rmsprop", "sgd"] = "adamw"
    adam_beta1: float = Field(0.9, ge=0, lt=1)
    adam_beta2: float = Field(0.999, ge=0, lt=1)
    adam_epsilon: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "linear"
    warmup_steps: int = Field(0, ge=0)
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
