"""Comparisons: where they are, how they are read, which of them are used."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from prefopt.config.keys.base import TEXT, Keys
from prefopt.config.values import name_pairs, names


class DataKeys(Keys):
    """Keys of the data; of every run."""

    eval_data: str | dict[str, str] | None = Field(
        None,
        description="held-out comparisons, or several sets by name, {easy: FILE, hard: FILE}, whose metrics are eval_NAME_... beside "
        "eval_... of all; else a share of `data` is held out",
    )
    eval_size: float = Field(
        0.1, ge=0, description="held out of `data`: a share below 1, or a number of rows"
    )
    split: str = Field("train", description="split of `data` to train on")
    eval_split: str | None = Field(
        None, description="split of eval_data; None: its test or validation split, or else its only one"
    )
    rename_columns: Annotated[dict[str, str], BeforeValidator(lambda given: name_pairs(given))] = Field(
        {}, description="columns under another name, new by old: {query: prompt, label: verdict}"
    )
    ignore_columns: Annotated[list[str], BeforeValidator(lambda given: names(given))] = Field(
        [], description="columns that mean something else here and are not read: [label, id]"
    )
    data_config: str | None = Field(None, description="configuration name of a hub data set")
    max_length: Annotated[int | None, TEXT] = Field(
        1024,
        description="most tokens of prompt and completion, at most the model's positions; truncation_mode says what is cut",
    )
    truncation_mode: Annotated[Literal["keep_start", "keep_end"], TEXT] = Field(
        "keep_start",
        description="of a longer row, keep the start and cut the completion's end, or keep the end and cut the prompt's start",
    )
    max_examples: int | None = Field(None, ge=1, description="use only the first rows")
    template_date: Annotated[date | None, TEXT] = Field(
        None,
        description="date, as 2026-03-01, for chat templates that print today's; None: the day the run began",
    )
    ties: Literal["drop", "as_win", "soft_half"] | None = Field(
        None, description="what ties mean to an objective without a tie term; required if there are any"
    )
    columns: list[str] = Field([], description="numeric columns passed on to the objective")
    label_noise: float = Field(
        0.0, ge=0, le=1, description="world data only: share of wins whose order is flipped"
    )
