"""What a run settles before its first step: the dtype of the weights, and whether there is anything to train."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import prefopt
from conftest import ROWS
from prefopt.config import ConfigError, resolve
from prefopt.modalities import text
from prefopt.models.loading import LoraSettings, load_model, load_tokenizer

OPTIONS = {"max_steps": 1, "eval_size": 0, "sample_prompts": 0, "save_checkpoints": False}


def train(model: Path, data: Path, folder: Path, **more: Any) -> dict[str, Any]:
    prefopt.train("dpo", model=model, data=data, output_dir=str(folder), **{**OPTIONS, **more})
    return json.loads((folder / "record" / "manifest.json").read_text())


@pytest.fixture(scope="module")
def half_model(tiny_model, tmp_path_factory) -> Path:
    """The tiny model saved in bfloat16."""
    folder = tmp_path_factory.mktemp("half")
    AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16).save_pretrained(folder)
    load_tokenizer(str(tiny_model)).save_pretrained(folder)
    return folder


def test_full_fine_tuning_is_in_float32(half_model, rows_file, own_cache, tmp_path):
    """Updates at usual learning rates vanish in bf16 weights."""
    data = rows_file(ROWS)
    assert train(half_model, data, tmp_path / "a")["model"]["dtype"] == "float32"
    saved = load_file(tmp_path / "a" / "model" / "model.safetensors")
    assert {t.dtype for t in saved.values()} == {torch.float32}
    assert train(half_model, data, tmp_path / "b", dtype="bfloat16")["model"]["dtype"] == "bfloat16"


def test_adapters_leave_the_weights_in_their_dtype(half_model, rows_file, own_cache, tmp_path):
    found = train(half_model, rows_file(ROWS), tmp_path / "a", use_peft=True, lora_r=2)
    assert found["model"]["dtype"] == "bfloat16"


def test_adapters_are_as_configured():
    given = {"method": "dpo", "model": "m", "data": "d", "lora_r": 3, "lora_alpha": 5, "lora_dropout": 0.25,
             "lora_target_modules": ["k_proj"]}  # fmt: skip
    assert text.lora_settings(resolve(given)[0]) is None
    found = text.lora_settings(resolve(given, {"use_peft": True})[0])
    assert found == LoraSettings(r=3, alpha=5, dropout=0.25, target_modules=["k_proj"])


def test_nothing_to_train(tiny_model, rows_file, own_cache, tmp_path, monkeypatch):
    monkeypatch.setattr(text, "load_model", lambda source, **given: load_model(source, trainable=False))
    with pytest.raises(ConfigError, match="nothing is trainable"):
        train(tiny_model, rows_file(ROWS), tmp_path / "a")


@pytest.mark.parametrize("order", [(True, False), (False, True)])
def test_two_precisions_in_one_process(tiny_model, rows_file, own_cache, tmp_path, order):
    """Accelerate keeps the first run's precision in the process unless told otherwise."""
    data = rows_file(ROWS)
    for bf16 in order:
        train(tiny_model, data, tmp_path / str(bf16), bf16=bf16)
