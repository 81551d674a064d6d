"""A step at the memory of a few items is the same step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import prefopt
from conftest import ROWS

QUIET = {
    "eval_size": 0, "sample_prompts": 0, "save_strategy": "no", "logging_steps": 1, "eval_steps": 1000, "max_steps": 3,
    "learning_rate": 0.05, "optim": "sgd", "per_device_train_batch_size": 4, "dtype": "float64",
}  # fmt: skip


def weights(name: str, model: Path, data: Path, folder: Path, **more: Any) -> dict[str, torch.Tensor]:
    prefopt.train(name, model=str(model), data=str(data), output_dir=str(folder), **QUIET, **more)
    (file,) = (folder / "model").glob("*.safetensors")
    return load_file(file)


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("dpo", {"per_device_train_batch_items": 3}),
        ("ld_dpo", {"per_device_train_batch_items": 1}),
        ("kto", {"per_device_train_batch_items": 2}),
        (
            "dpo",
            {
                "per_device_train_batch_items": 1,
                "use_peft": True,
                "lora_r": 2,
                "gradient_accumulation_steps": 2,
            },
        ),
    ],
)
def test_the_weights_are_those_of_whole_batches(name, more, tiny_model, rows_file, own_cache, tmp_path):
    data = rows_file(ROWS)
    size = more.pop("per_device_train_batch_items")
    pieces = weights(name, tiny_model, data, tmp_path / "pieces", per_device_train_batch_items=size, **more)
    whole = weights(name, tiny_model, data, tmp_path / "whole", **more)
    start = None if "use_peft" in more else load_file(tiny_model / "model.safetensors")
    for k in whole:
        torch.testing.assert_close(pieces[k], whole[k], rtol=1e-6, atol=2e-9, msg=k)
    if start is not None:
        assert any((start[k].double() - whole[k]).abs().max() > 1e-4 for k in whole)
