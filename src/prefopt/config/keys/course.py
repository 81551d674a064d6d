"""Evaluation, logging, checkpoints and samples along the way."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from prefopt.config.keys.base import TEXT, Keys


class CourseKeys(Keys):
    """Keys of a run's course; of every run."""

    per_device_eval_batch_size: int = Field(16, ge=1)
    eval_steps: int | None = Field(
        None, ge=1, description="optimizer steps from one evaluation to the next; None: ten times a run"
    )
    logging_steps: int = Field(10, ge=1, description="optimizer steps from one line of metrics to the next")
    token_metrics: Annotated[bool, TEXT] = Field(
        False, description="log entropy and mean_token_accuracy of scored tokens"
    )
    save_steps: int | None = Field(
        None,
        ge=1,
        description="optimizer steps from one checkpoint to the next; None: at the end of every epoch",
    )
    save_total_limit: int = Field(2, ge=1, description="newest checkpoints to keep")
    save_checkpoints: bool = True
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
        description="trackers by Accelerate's names, one or a list: tensorboard, wandb, ...; none for none",
    )
    run_name: str | None = None
