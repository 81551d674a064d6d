"""What only a CUDA device can show: bf16 runs, the reference cache, sharding and quantized weights."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

import prefopt
from conftest import ROWS
from prefopt.comparisons import Item
from prefopt.likelihoods.tokens import TokenLikelihood
from prefopt.models.loading import load_model, load_tokenizer
from prefopt.models.quantized import Quantization
from prefopt.references import Reference

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and torch sees none"),
]
OPTIONS = {
    "max_steps": 4,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "constant",
    "per_device_train_batch_size": 4,
    "sample_prompts": 2,
    "sample_max_new_tokens": 3,
    "eval_size": 2,
    "logging_steps": 1,
    "save_steps": 2,
}


def train(method: str, model: Path, data: Path, folder: Path, **more: Any) -> prefopt.TrainResult:
    return prefopt.train(method, model=model, data=data, output_dir=str(folder), **{**OPTIONS, **more})


def column(result: prefopt.TrainResult, name: str) -> list[float]:
    return [line[name] for line in result.history if name in line]


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "record" / "manifest.json").read_text())


def test_bf16_run(tiny_model, rows_file, own_cache, tmp_path):
    """Autocast is on by itself; master weights, losses and what is saved stay float32."""
    if not torch.cuda.is_bf16_supported():
        pytest.skip("needs a CUDA device with bf16")
    result = train("dpo_rk", tiny_model, rows_file(ROWS), tmp_path / "run", max_steps=10)
    losses = column(result, "loss")
    assert len(losses) == 10
    assert all(map(math.isfinite, losses))
    assert losses[-1] < losses[0]
    written = manifest(tmp_path / "run")
    assert written["machine"]["device"].startswith("cuda")
    assert written["machine"]["gpu"]
    assert written["peak_memory_bytes"] > written["model"]["parameters"] * 4
    saved = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert {t.dtype for t in saved.values()} == {torch.float32}
    # float32 says what bf16 rounds: the same start within the precision of bf16
    exact = train("dpo_rk", tiny_model, rows_file(ROWS), tmp_path / "exact", max_steps=1, bf16=False)
    assert column(result, "eval_loss")[0] == pytest.approx(column(exact, "eval_loss")[0], rel=0.05)


def test_resume(tiny_model, rows_file, own_cache, tmp_path):
    """Optimizer state goes back to the device; the run ends where an uninterrupted one does."""
    data = rows_file(ROWS)
    straight = train("dpo", tiny_model, data, tmp_path / "straight", bf16=False)
    train("dpo", tiny_model, data, tmp_path / "cut", bf16=False)
    for name in ("step-00000004",):
        for path in (tmp_path / "cut" / "checkpoints" / name).iterdir():
            path.unlink()
    resumed = train("dpo", tiny_model, data, tmp_path / "cut", bf16=False, resume=True)
    assert column(resumed, "loss")[-1] == pytest.approx(column(straight, "loss")[-1], rel=1e-5)


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_cached_equals_live(tiny_model, tmp_path, precision):
    """Scores do not depend on which other rows are in the batch, beyond rounding."""
    device = torch.device("cuda")
    likelihood = TokenLikelihood(load_tokenizer(str(tiny_model)))
    policy = load_model(str(tiny_model))
    policy.model.to(device)
    items = [
        likelihood.encode(Item({"prompt": r["prompt"]}, r[s])) for r in ROWS for s in ("chosen", "rejected")
    ]
    found = []
    for kind in ("cached", "live"):
        reference = Reference(
            kind, policy=policy, likelihood=likelihood, same_as_policy=True, device=device, precision=precision,
            load=lambda: load_model(str(tiny_model), trainable=False).model,
        )  # fmt: skip
        reference.prepare(items, batch_size=64, cache_root=tmp_path)
        scores = reference.scores(items, likelihood.plan(items).to(device))
        assert (scores.device.type, scores.dtype) == ("cuda", torch.float32)
        found.append(scores)
    tolerance = 1e-4 if precision == "no" else 0.05
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=tolerance)


def test_cached_and_live_runs_agree(tiny_model, rows_file, own_cache, tmp_path):
    data = rows_file(ROWS)
    cached = train("dpo", tiny_model, data, tmp_path / "cached", bf16=False)
    live = train("dpo", tiny_model, data, tmp_path / "live", bf16=False, reference="live")
    assert column(cached, "loss") == pytest.approx(column(live, "loss"), rel=1e-4)
    assert column(cached, "eval_loss")[0] == pytest.approx(math.log(2), abs=1e-4)


def test_fsdp2_in_one_process(tiny_model, rows_file, own_cache, tmp_path):
    """Sharding by `accelerate launch`: the same steps and the same saved model as without it."""
    data = rows_file(ROWS)
    plain = train("dpo", tiny_model, data, tmp_path / "plain", bf16=False, sample_prompts=0)
    given = {**OPTIONS, "bf16": False, "sample_prompts": 0, "model": tiny_model, "data": data,
             "output_dir": tmp_path / "sharded"}  # fmt: skip
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    done = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1", "--num_machines", "1",
         "--mixed_precision", "no", "--main_process_port", str(port), "--use_fsdp", "--fsdp_version", "2",
         "--fsdp_auto_wrap_policy", "TRANSFORMER_BASED_WRAP",
         "--fsdp_transformer_layer_cls_to_wrap", "LlamaDecoderLayer",
         "-m", "prefopt", "train", "dpo", *(f"{k}={v}" for k, v in given.items())],
        capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    lines = (tmp_path / "sharded" / "metrics.jsonl").read_text().splitlines()
    losses = [line["loss"] for line in map(json.loads, lines) if "loss" in line]
    assert losses == pytest.approx(column(plain, "loss"), rel=1e-4)
    a, b = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("plain", "sharded"))
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=2e-5)


@pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes (the qlora extra)"
)
def test_qlora(tiny_model, rows_file, own_cache, tmp_path):
    """Quantized base weights stay as they are; the adapter learns and is what is saved."""
    more = {"load_in_4bit": True, "use_peft": True, "lora_r": 4, "learning_rate": 1e-2, "max_steps": 6}
    result = train("dpo", tiny_model, rows_file(ROWS), tmp_path / "run", **more)
    losses = column(result, "loss")
    assert all(map(math.isfinite, losses))
    assert losses[-1] < losses[0]
    # policy and reference are the same quantized model, whose adapter starts at zero
    assert column(result, "eval_loss")[0] == pytest.approx(math.log(2), abs=0.05)
    saved = load_file(tmp_path / "run" / "model" / "adapter_model.safetensors")
    assert all("lora_" in name for name in saved)
    assert any(t.abs().max() > 0 for name, t in saved.items() if "lora_B" in name)
    assert not (tmp_path / "run" / "model" / "model.safetensors").exists()
    loaded = load_model(str(tiny_model), quantization=Quantization()).model
    assert {type(m).__name__ for m in loaded.modules() if "Linear4bit" in type(m).__name__} == {"Linear4bit"}


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_flex_attention_by_trial(tiny_model, precision):
    """Taken by itself where its kernels serve (heads of 16 numbers or more), with the scores of the SDPA mask."""
    torch.manual_seed(0)
    device = torch.device("cuda")
    likelihood = TokenLikelihood(load_tokenizer(str(tiny_model)))
    config = LlamaConfig(
        vocab_size=len(likelihood.tokenizer), hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=1024, initializer_range=0.1,
    )  # fmt: skip
    model = LlamaForCausalLM(config).to(device)
    items = [
        likelihood.encode(Item({"prompt": r["prompt"]}, r[s])) for r in ROWS for s in ("chosen", "rejected")
    ]
    assert likelihood.adapt(model).sharing == "shared"
    plan = likelihood.plan(items).to(device)
    found = []
    with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
        for name in ("sdpa", "flex_attention"):
            if name == "flex_attention":
                chosen = likelihood.attention(model)
                assert (chosen.name, chosen.reason) == (name, None)
            assert model.config._attn_implementation == name
            model.zero_grad()
            scores = likelihood.score(model, plan).logp_N
            scores.sum().backward()
            found.append((scores.detach(), model.model.embed_tokens.weight.grad.clone()))
    tolerance = 1e-3 if precision == "no" else 0.02
    for theirs, ours in zip(*found, strict=True):
        assert (ours - theirs).norm() <= tolerance * theirs.norm()


def test_run_on_a_model_that_flex_attention_may_not_serve(tiny_model, rows_file, own_cache, tmp_path):
    """Whatever the trial says (its heads have 8 numbers), the run trains, and is that of the SDPA mask."""
    data = rows_file(ROWS)
    own = train("dpo", tiny_model, data, tmp_path / "own", bf16=False)
    sdpa = train("dpo", tiny_model, data, tmp_path / "sdpa", bf16=False, attn_implementation="sdpa")
    assert column(own, "loss") == pytest.approx(column(sdpa, "loss"), rel=1e-3)
