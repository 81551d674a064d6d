"""What a run settles before its first step: the dtype of the weights, and whether there is anything to train."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import prefopt
from conftest import ROWS
from modalities.image.image_runs import pair
from prefopt.config import ConfigError, resolve
from prefopt.modalities.image import offline as image_offline
from prefopt.modalities.image.models.pipelines import load_pipeline
from prefopt.modalities.text import setup as text
from prefopt.models.loading import LoraSettings, load_model, load_tokenizer
from prefopt.objectives.sides import Sides
from prefopt.training.checks import rounding
from prefopt.training.loop import StopRun

OPTIONS = {"max_steps": 1, "eval_size": 0, "sample_prompts": 0, "save_strategy": "no"}


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
    with pytest.raises(ConfigError, match=r"lora_r, .*: for adapters, .* Set use_peft=true"):
        text.lora_settings(resolve(given)[0])
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


# ---- policy equals reference


def nudged(load: Callable[..., Any], layer: str, share: float) -> Callable[..., Any]:
    """Loads the policy, and not the reference, with the weights of a layer scaled."""

    def load_nudged(source: str, **given: Any) -> Any:
        loaded = load(source, **given)
        if given.get("trainable", True):
            with torch.no_grad():
                loaded.model.get_submodule(layer).weight.mul_(1 + share)
        return loaded

    return load_nudged


def start_value(folder: Path) -> tuple[str, float]:
    """Status, and the largest log-ratio that it tells."""
    manifest = json.loads((folder / "record" / "manifest.json").read_text())
    (found,) = (c for c in manifest["checks"] if c["name"] == "start value")
    return found["status"], float(re.findall(r"(?:log-ratio|differ by) ([\d.e+-]+\d)", found["detail"])[0])


@pytest.mark.parametrize(
    ("share", "status", "least", "most", "reference"),
    [
        (0.0, "pass", 0, 2e-6, "live"),
        (0.0, "pass", 0, 2e-6, "cached"),
        (2e-6, "pass", 1e-7, 9e-6, "live"),
        (1e-4, "warn", 1.5e-5, 9e-4, "live"),
        (1e-2, "fail", 1.5e-3, 1, "live"),
    ],
)
def test_images_that_start_a_little_off(
    share, status, least, most, reference, sd, images_file, own_cache, tmp_path, monkeypatch
):
    """1e-3, the tolerance of texts, times a beta of 2000 is no zero margin."""
    monkeypatch.setattr(image_offline, "load_pipeline", nudged(load_pipeline, "conv_out", share))
    given = {"model": sd, "data": images_file([pair(0), pair(1)]), "output_dir": str(tmp_path / "run")}
    with pytest.raises(StopRun, match="differ by") if status == "fail" else nullcontext():
        prefopt.train("diffusion_dpo", **given, **OPTIONS, reference=reference)
    found, worst = start_value(tmp_path / "run")
    assert found == status
    assert least <= worst <= most


@pytest.mark.parametrize(("score", "expected"), [(-0.3, 1e-5), (-50.0, 5e-4), (-1e6, 1e-3)])
def test_larger_errors_round_more(score, expected):
    """Of weighted errors, for example, up to the tolerance at which a run stops."""
    one, zero = torch.ones(2), torch.zeros(2)
    sides = Sides(rho_w=zero, rho_l=zero, length_w=one, length_l=one, logp_w=-one, logp_l=score * one)
    assert rounding(sides) == pytest.approx(expected)


def test_texts_are_sums_of_many_tokens(tiny_model, rows_file, own_cache, tmp_path, monkeypatch):
    monkeypatch.setattr(text, "load_model", nudged(load_model, "lm_head", 1e-4))
    train(tiny_model, rows_file(ROWS), tmp_path / "run", reference="live")
    status, worst = start_value(tmp_path / "run")
    assert status == "pass"
    assert 5e-5 < worst < 1e-3


def test_weights_that_are_not_numbers(tiny_model, rows_file, own_cache, tmp_path):
    folder = tmp_path / "nan"
    shutil.copytree(tiny_model, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"][:] = math.nan
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ValueError, match=r"no finite number \(NaN or infinite\): look for NaN in its weights"
    ):
        prefopt.train(
            "dpo", model=folder, data=rows_file(ROWS), output_dir=str(tmp_path / "run"), sample_prompts=0
        )
