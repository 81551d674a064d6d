"""What is trained, how, on what, and where it goes."""

from __future__ import annotations

from pydantic import Field

from prefopt.config.keys.base import Keys


class WhatKeys(Keys):
    """What every run needs to be told."""

    method: str = Field(description="method or objective name; several joined by + are summed (dpo+0.2*sft)")
    model: str = Field(description="model folder or hub id; world:text for the bundled world's model")
    data: str = Field(description="comparisons: JSONL, parquet, CSV, datasets folder, hub id, or world:text")
    output_dir: str = Field(
        "runs/{method}", description="folder of the run; {method} and {seed} are filled in"
    )
