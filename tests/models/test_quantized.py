"""QLoRA: adapters on weights of 4 bits. It trains, starts at a zero margin, and scores alike in training and evaluation."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoTokenizer

import prefopt
from conftest import ROWS, save_tiny_model
from prefopt.config import ConfigError
from prefopt.likelihoods.tokens import TokenLikelihood
from prefopt.models.identity import fingerprint
from prefopt.models.loading import LoraSettings, load_model, load_tokenizer
from prefopt.models.quantized import Quantization, four_bit_layers

needed = pytest.mark.skipif(
    __import__("importlib.util").util.find_spec("bitsandbytes") is None,
    reason="needs bitsandbytes (the qlora extra)",
)
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing")


def tiny(folder: Path, architecture: str) -> Path:
    if architecture != "gpt_neox":
        return save_tiny_model(folder, architecture)
    save_tiny_model(folder)
    config = transformers.GPTNeoXConfig(
        vocab_size=len(AutoTokenizer.from_pretrained(folder)), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=128, initializer_range=0.1,
    )  # fmt: skip
    transformers.GPTNeoXForCausalLM(config).save_pretrained(folder)
    return folder


def score(model: Any, likelihood: TokenLikelihood) -> torch.Tensor:
    from prefopt.comparisons import Item

    items = [likelihood.encode(Item({"prompt": row["prompt"]}, row["chosen"])) for row in ROWS]
    return likelihood.score(model, likelihood.plan(items)).logp_N


def run(model: Path, rows: Path, output: Path, **more: Any) -> Any:
    given = {
        "use_peft": True,
        "lora_r": 4,
        "max_steps": 3,
        "learning_rate": 1e-2,
        "save_strategy": "no",
    } | more
    given = {"load_in_4bit": "load_in_8bit" not in more} | given
    return prefopt.train(
        "dpo", model=model, data=rows, output_dir=str(output), eval_size=2, sample_prompts=2, sample_max_new_tokens=4,
        logging_steps=1, **given,
    )  # fmt: skip


@needed
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_gradients_pass_whatever_was_called_before(architecture, tmp_path):
    """On some CPUs a call without gradient packs weights for calls that give none."""
    folder = tiny(tmp_path / architecture, architecture)
    model: Any = load_model(str(folder), lora=LoraSettings(r=2), quantization=Quantization()).model
    likelihood = TokenLikelihood(load_tokenizer(str(folder)))
    assert len(list(four_bit_layers(model))) >= 8
    before = fingerprint(model)
    with torch.no_grad():
        calm = score(model.eval(), likelihood)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(generator=torch.Generator().manual_seed(0))
    scores = score(model.train(), likelihood)
    scores.sum().backward()
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    assert all(g is not None and float(g.abs().sum()) > 0 for g in gradients)
    with torch.no_grad():
        torch.testing.assert_close(score(model.eval(), likelihood), scores, rtol=0, atol=1e-4)
        with model.disable_adapter():
            torch.testing.assert_close(score(model, likelihood), calm, rtol=0, atol=1e-4)
            assert fingerprint(model) != before  # the adapter counts
    # quantization itself is a small change, and no more than that
    exact = score(load_model(str(folder)).model, likelihood)
    assert 0 < float((calm - exact).abs().max()) < 0.3 * float(exact.abs().max())


@needed
def test_the_fast_path_agrees_with_the_plain_one(tmp_path):
    folder = tiny(tmp_path / "llama", "llama")
    likelihood = TokenLikelihood(load_tokenizer(str(folder)))
    model = load_model(str(folder), lora=LoraSettings(r=2), quantization=Quantization()).model
    with torch.no_grad():
        plain = score(model, likelihood)
        found = likelihood.adapt(model)
        assert (found.sharing, found.own_head, found.reasons) == ("shared", True, ())
        torch.testing.assert_close(score(model, likelihood), plain, rtol=0, atol=1e-4)


@needed
def test_the_reference_by_switching_is_the_live_one(tmp_path, rows_file, own_cache):
    folder = tiny(tmp_path / "llama", "llama")
    ends = {}
    for kind in ("adapter_off", "live", "cached"):
        history = run(folder, rows_file(ROWS), tmp_path / kind, reference=kind).history
        assert history[0]["eval_loss"] == pytest.approx(math.log(2), abs=1e-5)
        ends[kind] = history[-1]["eval_loss"]
        checks = json.loads((tmp_path / kind / "record" / "manifest.json").read_text())["checks"]
        start = next(c for c in checks if c["name"] == "start value")
        assert start["status"] == "pass"
    assert abs(ends["live"] - math.log(2)) > 1e-3
    assert ends["adapter_off"] == pytest.approx(ends["live"], abs=1e-5)
    assert ends["cached"] == pytest.approx(ends["live"], abs=1e-5)


@needed
@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt2", "gpt_neox", "bloom", "mixtral"])
def test_qlora_trains(architecture, dtype, rows_file, own_cache, tmp_path):
    folder = tiny(tmp_path / "model", architecture)
    history = run(folder, rows_file(ROWS), tmp_path / "run", dtype=dtype, gradient_checkpointing=True).history
    steps = [line for line in history if "grad_norm" in line]
    assert history[0]["eval_loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert steps[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert all(line["grad_norm"] > 1e-3 for line in steps)
    assert steps[-1]["loss"] < steps[0]["loss"] - 1e-3
    saved = tmp_path / "run" / "model"
    assert "quantization_config" not in (saved / "adapter_config.json").read_text()
    assert load_model(str(saved)).adapter == "default"  # on the weights as they are, and on 4 bits again
    again = run(saved, rows_file(ROWS), tmp_path / "again", use_peft=False, lora_r=16, max_steps=1).history
    assert again[0]["eval_loss"] == pytest.approx(math.log(2), abs=1e-5)


KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "8 bits": ("llama", {"load_in_8bit": True}),
    "fp4": ("llama", {"bnb_4bit_quant_type": "fp4", "bnb_4bit_use_double_quant": False, "bnb_4bit_compute_dtype": "bfloat16"}),
    "turned layers": ("gpt2", {"load_in_8bit": True}),
    "experts": ("mixtral", {"load_in_8bit": True}),
    "whole head": ("llama", {"use_dora": True, "lora_modules_to_save": ["lm_head"]}),
    "another kind": ("llama", {"peft": {"peft_type": "IA3"}, "lora_r": 16}),
}  # fmt: skip


@needed
@pytest.mark.parametrize(
    "name", [n if n == "8 bits" else pytest.param(n, marks=pytest.mark.slow) for n in KINDS]
)
def test_few_bits_resume_go_on_and_merge(name, rows_file, own_cache, tmp_path):
    """The merged model is the one that was trained: base weights of few bits written out, and the adapter in them."""
    architecture, more = KINDS[name]
    folder, rows = tiny(tmp_path / "model", architecture), rows_file(ROWS)
    history = run(folder, rows, tmp_path / "run", save_strategy="steps", save_steps=2, **more).history
    losses = [line["loss"] for line in history if "loss" in line]
    assert history[0]["eval_loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert losses[-1] < losses[0] - 1e-4
    weights = tmp_path / "run" / "model" / "adapter_model.safetensors"
    before = weights.read_bytes()
    shutil.rmtree(weights.parent)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000003")
    run(folder, rows, tmp_path / "run", save_strategy="steps", save_steps=2, resume=True, **more)
    assert weights.read_bytes() == before
    merged = prefopt.merge(tmp_path / "run")
    assert merged.difference < 1e-4
    assert "written out as numbers" in merged.notes[0]
    whole = transformers.AutoModelForCausalLM.from_pretrained(merged.folder)
    assert not hasattr(whole.config, "quantization_config")
    quantization = Quantization.of({"load_in_4bit": "load_in_8bit" not in more} | more)
    trained = load_model(str(weights.parent), quantization=quantization, trainable=False).model
    ids = torch.arange(24).reshape(2, 12)
    with torch.no_grad():
        off = float((whole(ids).logits - trained(ids).logits).abs().max())
    assert off < (0.3 if "8bit" in str(more) or "bfloat16" in str(more) else 1e-4)
    if name != "8 bits":
        bits = {k: v for k, v in more.items() if "bit" in k or "bnb" in k}
        again = run(
            weights.parent, rows, tmp_path / "again", use_peft=False, lora_r=16, max_steps=1, **bits
        ).history
        assert again[0]["eval_loss"] == pytest.approx(math.log(2), abs=1e-5)


@pytest.mark.parametrize(("given", "words"), [
    ({"load_in_4bit": True, "load_in_8bit": True}, "load_in_4bit and load_in_8bit exclude each other"),
    ({"load_in_8bit": True, "bnb_4bit_quant_type": "fp4"}, "bnb_4bit_quant_type: for weights of 4 bits"),
    ({"load_in_8bit": True, "use_peft": False, "lora_r": 16}, "load_in_8bit=true quantizes the weights"),
])  # fmt: skip
def test_keys_that_contradict_each_other(given, words, tiny_model, rows_file, tmp_path):
    with pytest.raises(ConfigError, match=words):
        run(tiny_model, rows_file(ROWS), tmp_path / "run", **given)


def test_quantized_weights_alone_cannot_be_trained(tiny_model, rows_file, tmp_path):
    with pytest.raises(ConfigError, match="set use_peft=true, which trains adapters on them"):
        run(tiny_model, rows_file(ROWS), tmp_path / "run", use_peft=False, lora_r=16)


def test_without_bitsandbytes(tiny_model, rows_file, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'not installed: pip install "prefopt\[qlora\]"'):
        run(tiny_model, rows_file(ROWS), tmp_path / "run")
