"""However a step is cut into micro-batches, it is the same step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import prefopt

ROWS = [
    {"prompt": f"Sort: {a} {b}", "chosen": f" {b} {a}", "rejected": " ".join(["", a, b, *[a] * extra])}
    for a in ("red", "blue", "fig", "pear")
    for extra, b in enumerate(("one", "two", "apple"))
] + [{"prompt": "Count: red", "chosen": " red one", "rejected": " one red", "label": "tie"}]
OPTIONS = {
    "max_steps": 4,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "constant",
    "sample_prompts": 0,
    "eval_size": 0,
    "logging_steps": 1,
    "save_steps": 2,
    "bf16": False,
}


def losses(folder: Path, name: str = "loss") -> list[float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line[name] for line in lines if name in line]


def final(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def single(method: str, model: Path, data: Path, folder: Path, **more: object) -> Path:
    prefopt.train(method, model=model, data=data, output_dir=str(folder), **{**OPTIONS, **more})
    return folder


def assert_same_run(one: Path, other: Path) -> None:
    assert losses(one) == pytest.approx(losses(other), rel=1e-5)
    assert losses(one, "grad_norm") == pytest.approx(losses(other, "grad_norm"), rel=1e-4)
    assert losses(one, "num_tokens") == losses(other, "num_tokens")
    assert losses(one, "eval_loss") == pytest.approx(losses(other, "eval_loss"), rel=1e-5)
    a, b = final(one), final(other)
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=2e-5)


# 13 rows: the second step of a pass is smaller than a batch of 8, and with 2 a micro-batch the last is of one
@pytest.mark.parametrize("method", ["dpo_rk", "dpo_d", "sft"])
def test_accumulation(method, tiny_model, rows_file, own_cache, tmp_path):
    data = rows_file(ROWS)
    ties = {} if method.startswith("dpo_") else {"ties": "as_win"}
    whole = single(method, tiny_model, data, tmp_path / "8", per_device_train_batch_size=8, **ties)
    cut = single(method, tiny_model, data, tmp_path / "2", per_device_train_batch_size=2,
                 gradient_accumulation_steps=4, **ties)  # fmt: skip
    assert_same_run(whole, cut)
