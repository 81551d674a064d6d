"""Evaluation, logging, checkpoints and samples along the way."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from prefopt.config.keys.base import TEXT, Keys
from prefopt.config.values import steps_or_share

Strategy = Literal["no", "steps", "epoch"] | None
Every = Annotated[int | float | None, BeforeValidator(steps_or_share)]


class CourseKeys(Keys):
    """Keys of a run's course; of every run."""

    per_device_eval_batch_size: int = Field(16, ge=1)
    eval_strategy: Strategy = Field(
        None,
        description="when to evaluate between start and end: no, every eval_steps steps, at the end of every epoch; None: steps",
    )
    eval_steps: Every = Field(
        None,
        description="optimizer steps from one evaluation to the next, or below 1 that share of the run; None: ten times a run",
    )
    logging_strategy: Strategy = Field(
        None, description="when to log between first and last step: no, steps, epoch; None: steps"
    )
    logging_steps: Every = Field(
        None,
        description="optimizer steps from one line of metrics to the next, or below 1 that share of the run; None: 10",
    )
    token_metrics: Annotated[bool, TEXT] = Field(
        False, description="log entropy and mean_token_accuracy of scored tokens"
    )
    save_strategy: Strategy = Field(
        None,
        description="when to write checkpoints: no (none at all), steps, epoch; None: epoch, or steps where save_steps is given",
    )
    save_steps: Every = Field(
        None,
        description="optimizer steps from one checkpoint to the next, or below 1 that share of the run; None: at the end of every epoch",
    )
    save_total_limit: int = Field(2, ge=1, description="newest checkpoints to keep")
    metric_for_best_model: str = Field(
        "eval_loss",
        description="what early stopping, load_best_model_at_end and schedules that follow a metric look at: a metric of evaluations",
    )
    greater_is_better: bool | None = Field(
        None, description="of metric_for_best_model; None: unless its name ends in loss"
    )
    load_best_model_at_end: bool = Field(
        False, description="save the model of the best evaluation, the one before the first step included"
    )
    early_stopping_patience: int | None = Field(
        None, ge=1, description="stop after so many evaluations in a row without a new best; None: never"
    )
    early_stopping_threshold: float = Field(
        0.0, ge=0, description="how much better than the best so far an evaluation must be"
    )
    resume: bool | str = Field(
        False, description="true: from the newest checkpoint of output_dir; or a checkpoint folder"
    )
    extend: bool = Field(
        False,
        description="with resume: go on to a larger max_steps or num_train_epochs than the run was begun with, also after its end",
    )
    overwrite: bool = Field(False, description="replace a finished or unfinished run in output_dir")
    sample_prompts: int = Field(
        8, ge=0, description="fixed prompts to generate on, for samples and KL; 0 for none"
    )
    sample_max_new_tokens: Annotated[int, TEXT] = Field(
        64, ge=1, description="of a sample; at most half of the model's positions"
    )
    sample_temperature: Annotated[float, TEXT] = Field(1.0, gt=0)
    report_to: list[str] = Field(
        [],
        description="trackers by Accelerate's names, one or a list: tensorboard, wandb, ...; none for none; all for those that are installed",
    )
    run_name: str | None = None
