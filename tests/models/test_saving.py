"""What is saved has the checkpoint's own configuration: what a run changes for itself is put back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import prefopt
from conftest import ROWS, save_tiny_model
from likelihoods.architectures import ARCHITECTURES, build
from prefopt.likelihoods.capability import check_looks_back
from prefopt.models.loading import load_model
from prefopt.models.saving import save_model

CHANGED = {
    "llama": {"attention_dropout": 0.1, "use_cache": True, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
    "gpt2": {"attn_pdrop": 0.2, "resid_pdrop": 0.3, "embd_pdrop": 0.4, "summary_first_dropout": 0.5, "tie_word_embeddings": True},
    "mixtral": {"attention_dropout": 0.1, "output_router_logits": True, "router_aux_loss_coef": 0.03, "router_jitter_noise": 0.2},
    "bloom": {"hidden_dropout": 0.1, "attention_dropout": 0.2, "use_cache": False},
    "qwen2": {"attention_dropout": 0.1, "attn_implementation": "eager", "an_unheard_of_key": [1, {"a": None}]},
}  # fmt: skip


def read(folder: Path, name: str = "config.json") -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / name).read_text())
    return values


def change(folder: Path, name: str = "config.json", **values: Any) -> None:
    (folder / name).write_text(json.dumps(read(folder, name) | values))


def trained(model: Path, rows: Path, output: Path, **more: Any) -> Path:
    prefopt.train(
        more.pop("method", "dpo"), model=model, data=rows, output_dir=str(output), max_steps=1, eval_size=2,
        sample_prompts=1, save_strategy="no", **more,
    )  # fmt: skip
    return output / "model"


@pytest.mark.parametrize("architecture", CHANGED)
def test_config_json(architecture, rows_file, own_cache, tmp_path):
    source = save_tiny_model(tmp_path / "source", architecture)
    change(source, **CHANGED[architecture])
    change(
        source, "generation_config.json", temperature=0.6, repetition_penalty=1.3
    )  # which transformers will not save
    saved = trained(source, rows_file(ROWS), tmp_path / "run", gradient_checkpointing=True)
    assert read(saved) == read(source)
    assert read(saved, "generation_config.json") == read(source, "generation_config.json")
    kept = AutoModelForCausalLM.from_pretrained(saved)
    for name, value in CHANGED[architecture].items():
        if "dropout" in name or "pdrop" in name:
            assert getattr(kept.config, name) == value


def test_the_dtype_is_that_of_the_weights(tiny_model, rows_file, own_cache, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(tiny_model, source)
    AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16).save_pretrained(source)
    saved = trained(source, rows_file(ROWS), tmp_path / "run")
    assert read(source)["dtype"] == "bfloat16"
    assert read(saved) == read(source) | {"dtype": "float32"}
    assert AutoModelForCausalLM.from_pretrained(saved, dtype="auto").dtype == torch.float32


def test_code_of_its_own_is_not_named(tiny_model, rows_file, own_cache, tmp_path):
    """The files are not copied, and were not run."""
    source = tmp_path / "source"
    shutil.copytree(tiny_model, source)
    change(source, auto_map={"AutoModelForCausalLM": "modeling.Own"})
    assert read(trained(source, rows_file(ROWS), tmp_path / "run")) == read(tiny_model)


def test_a_head_that_was_untied(rows_file, own_cache, tmp_path):
    source = save_tiny_model(tmp_path / "source", "gpt2")
    change(source, embd_pdrop=0.3)
    saved = trained(
        source, rows_file(ROWS), tmp_path / "run", method="compo", stage="oracle", perturbations=2
    )
    assert read(saved) == read(source) | {"tie_word_embeddings": False}
    model = AutoModelForCausalLM.from_pretrained(saved)
    assert model.lm_head.weight is not model.transformer.wte.weight


def test_a_run_from_an_adapter_saves_its_settings(tiny_model, rows_file, own_cache, tmp_path):
    source = tmp_path / "adapter"
    config = LoraConfig(
        r=2, lora_alpha=6, lora_dropout=0.25, use_rslora=True, target_modules=["o_proj", "k_proj"], task_type="CAUSAL_LM"
    )  # fmt: skip
    get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), config).save_pretrained(source)
    saved = trained(source, rows_file(ROWS), tmp_path / "run")
    before, after = read(source, "adapter_config.json"), read(saved, "adapter_config.json")
    for values in (before, after):
        values["target_modules"].sort()
    assert after == before


def test_a_new_adapter_is_found_from_any_folder(tiny_model, rows_file, own_cache, tmp_path, monkeypatch):
    shutil.copytree(tiny_model, tmp_path / "here" / "base")
    rows = rows_file(ROWS)
    monkeypatch.chdir(tmp_path / "here")
    saved = trained(Path("base"), rows, tmp_path / "run", use_peft=True, lora_r=2)
    monkeypatch.chdir(tmp_path)
    assert load_model(str(saved)).adapter == "default"
    assert AutoModelForCausalLM.from_pretrained(saved) is not None  # transformers finds it too


def test_dropout_is_off_wherever_a_class_keeps_it(tmp_path):
    """Also where a forward pass reads a float, and layers that are left out at random."""
    sizes: dict[str, Any] = {
        "vocab_size": 50,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    config = transformers.OPTConfig(
        **sizes, ffn_dim=32, word_embed_proj_dim=32, dropout=0.5, attention_dropout=0.5, layerdrop=0.5
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "opt")
    config = transformers.GPTNeoXConfig(
        **sizes, intermediate_size=32, hidden_dropout=0.5, attention_dropout=0.5
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "neox")
    ids = torch.arange(20)[None]
    for name in ("opt", "neox"):
        model: Any = load_model(str(tmp_path / name)).model.train()
        with torch.no_grad():
            assert torch.equal(model(ids).logits, model(ids).logits)
            assert torch.equal(model(ids).logits, model.eval()(ids).logits)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_class_is_saved_as_it_came(name, tiny_model, tmp_path):
    source, saved = tmp_path / "source", tmp_path / "saved"
    model: Any = build(name, torch.float32)
    check_looks_back(model)
    model.save_pretrained(source)
    save_model(saved, load_model(str(source)), AutoTokenizer.from_pretrained(tiny_model), None)
    assert read(saved) == read(source)
    before, after = (load_file(folder / "model.safetensors") for folder in (source, saved))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
