"""Models as users have them: full checkpoints, adapter folders, wrong folders; dropout is off in all of them."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import prefopt
from conftest import ROWS
from prefopt.models.loading import (
    REFERENCE_ADAPTER,
    LoraSettings,
    add_adapters,
    load_model,
    load_tokenizer,
    resolve_dtype,
    trainable_parameters,
)

IDS = torch.arange(24).reshape(2, 12)


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def move_adapter(model: nn.Module, name: str, by: float) -> None:
    with torch.no_grad():
        for key, p in model.named_parameters():
            if f".{name}." in key:
                p.add_(by)


@pytest.fixture(scope="module")
def adapter(tiny_model, tmp_path_factory) -> Path:
    """A trained adapter's folder, without a tokenizer, as `save_pretrained` of peft leaves it."""
    folder = tmp_path_factory.mktemp("adapter")
    model = load_model(str(tiny_model), lora=LoraSettings(r=2, dropout=0.5)).model
    move_adapter(model, "default", 0.05)
    model.save_pretrained(folder)
    return folder


def test_full_model(tiny_model):
    loaded = load_model(str(tiny_model))
    assert (loaded.source, loaded.adapter, loaded.reference_adapter) == (str(tiny_model), None, None)
    assert not loaded.model.training
    assert len(trainable_parameters(loaded.model)) == len(list(loaded.model.parameters()))
    expected = AutoModelForCausalLM.from_pretrained(tiny_model)
    assert torch.equal(logits(loaded.model), logits(expected))
    with pytest.raises(ValueError, match="without adapters"), loaded.as_reference():
        pass


def test_frozen_model(tiny_model, adapter):
    for source in (tiny_model, adapter):
        loaded = load_model(str(source), trainable=False)
        assert not trainable_parameters(loaded.model)
        assert loaded.reference_adapter is None


def test_dtype(tiny_model, tmp_path):
    AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16).save_pretrained(tmp_path)
    for name, expected in (("auto", torch.bfloat16), ("float32", torch.float32), ("float64", torch.float64)):
        model = load_model(str(tmp_path), dtype=name).model
        assert {p.dtype for p in model.parameters()} == {expected}
    with pytest.raises(ValueError, match=r"'fp8' is not one of: auto, float32"):
        resolve_dtype("fp8")


def test_attention_is_passed_on(tiny_model):
    assert (
        load_model(str(tiny_model), attn_implementation="eager").model.config._attn_implementation == "eager"
    )
    assert load_model(str(tiny_model)).model.config._attn_implementation == "sdpa"


# -- new adapters ------------------------------------------------------------------------------------------------


def test_lora_defaults(tiny_model):
    loaded = load_model(str(tiny_model), lora=LoraSettings())
    config = loaded.model.peft_config["default"]
    assert (config.r, config.lora_alpha, config.lora_dropout) == (16, 32, 0.0)
    assert set(config.target_modules) == {"q_proj", "v_proj"}  # peft's for Llama
    assert (loaded.adapter, loaded.reference_adapter) == ("default", None)
    names = [name for name, p in loaded.model.named_parameters() if p.requires_grad]
    assert names
    assert all("lora_" in name for name in names)
    assert torch.equal(logits(loaded.model), logits(load_model(str(tiny_model)).model))  # B starts at zero


def test_lora_settings(tiny_model):
    model = load_model(str(tiny_model), lora=LoraSettings(r=2, alpha=8, target_modules=["k_proj"])).model
    layer = model.base_model.model.model.layers[0].self_attn
    assert layer.k_proj.scaling == {"default": 4.0}
    assert layer.k_proj.lora_A["default"].weight.shape == (2, 32)
    assert not hasattr(layer.q_proj, "lora_A")


def test_unknown_architectures_get_adapters_on_all_linear_layers(tiny_model):
    model = load_model(str(tiny_model)).model
    linear = {name for name, m in model.named_modules() if isinstance(m, nn.Linear)} - {"lm_head"}
    model.config.model_type = "unheard_of"
    wrapped = add_adapters(model, LoraSettings(r=2))
    adapted = {
        name.removeprefix("base_model.model.") for name, m in wrapped.named_modules() if hasattr(m, "lora_A")
    }
    assert adapted == linear
    assert len(linear) == 14  # 7 in each of two layers


def test_adapters_off_is_the_reference(tiny_model):
    loaded = load_model(str(tiny_model), lora=LoraSettings(r=2))
    start = logits(loaded.model)
    move_adapter(loaded.model, "default", 0.05)
    moved = logits(loaded.model)
    assert (moved - start).abs().max() > 1e-3
    with loaded.as_reference():
        assert torch.equal(logits(loaded.model), start)
    assert torch.equal(logits(loaded.model), moved)


# -- adapters that go on -----------------------------------------------------------------------------------------


def test_an_adapter_goes_on_and_its_start_stays(tiny_model, adapter):
    loaded = load_model(str(adapter))
    assert (loaded.adapter, loaded.reference_adapter) == ("default", REFERENCE_ADAPTER)
    start = logits(loaded.model)
    assert (
        start - logits(load_model(str(tiny_model)).model)
    ).abs().max() > 1e-3  # the base is no reference here
    move_adapter(loaded.model, "default", 0.05)
    moved = logits(loaded.model)
    assert (moved - start).abs().max() > 1e-3

    def trained() -> set[str]:
        return {name for name, p in loaded.model.named_parameters() if p.requires_grad}

    before = trained()
    assert before
    assert all(".default." in name for name in before)
    with loaded.as_reference():
        torch.testing.assert_close(logits(loaded.model), start, rtol=0, atol=1e-6)
    assert trained() == before
    assert loaded.model.active_adapters == ["default"]
    assert torch.equal(logits(loaded.model), moved)


def test_a_run_goes_on_from_an_adapter(adapter, tiny_model, rows_file, own_cache, tmp_path):
    folder = tmp_path / "start"
    shutil.copytree(adapter, folder)
    result = prefopt.train(
        "dpo", model=folder, data=rows_file(ROWS), output_dir=str(tmp_path / "run"), max_steps=2, eval_size=2,
        sample_prompts=0, save_strategy="no", learning_rate=1e-2,
    )  # fmt: skip
    assert result.history[0]["eval_loss"] == pytest.approx(
        math.log(2), abs=1e-6
    )  # the reference is the start
    saved = load_model(str(tmp_path / "run" / "model"), trainable=False).model
    assert list(saved.peft_config) == ["default"]  # the frozen copy is not saved
    assert not torch.equal(logits(saved), logits(load_model(str(folder), trainable=False).model))


def test_no_new_adapter_over_an_adapter(adapter):
    with pytest.raises(ValueError, match=r"already an adapter.*merge"):
        load_model(str(adapter), lora=LoraSettings())


def test_an_adapter_with_whole_modules_has_its_files_as_reference(tiny_model, tmp_path):
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    config = LoraConfig(r=2, modules_to_save=["lm_head"], task_type="CAUSAL_LM")
    get_peft_model(base, config).save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path))
    assert loaded.reference_adapter is None
    with (
        pytest.raises(ValueError, match="one copy is held, so that no frozen starting adapter"),
        loaded.as_reference(),
    ):
        pass


def test_the_tokenizer_of_an_adapter_is_its_base_models(adapter, tiny_model):
    assert load_tokenizer(str(adapter)).get_vocab() == load_tokenizer(str(tiny_model)).get_vocab()


# -- what cannot be loaded ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["./nowhere", "/no/where", "~/nowhere-at-all", "runs/dpo/model"])
def test_no_folder(source):
    for load in (load_model, load_tokenizer):
        with pytest.raises(FileNotFoundError, match=f"no model folder at {source}"):
            load(source)


def test_empty_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"needed config.json .* found nothing"):
        load_model(str(tmp_path))
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(FileNotFoundError, match=r"found notes\.txt"):
        load_model(str(tmp_path))


def test_pickled_weights_are_refused(tiny_model, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match=r"model\.safetensors"):
        load_model(str(tmp_path))


# -- dropout -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_dropout_is_off(architecture, tmp_path):
    if architecture == "llama":
        sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        model = LlamaForCausalLM(LlamaConfig(vocab_size=32, attention_dropout=0.5, **sizes))
    else:
        rates = {"attn_pdrop": 0.5, "resid_pdrop": 0.5, "embd_pdrop": 0.5}
        model = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=16, n_layer=1, n_head=2, **rates))
    model.save_pretrained(tmp_path)
    kept = AutoModelForCausalLM.from_pretrained(tmp_path).train()
    assert not torch.equal(logits(kept), logits(kept))  # there is something to switch off
    loaded = load_model(str(tmp_path)).model.train()
    assert torch.equal(logits(loaded), logits(loaded.eval()))
    rates = ("attention_dropout", "attn_pdrop", "resid_pdrop", "embd_pdrop")
    assert not any(getattr(loaded.config, rate, 0.0) for rate in rates)


def rates(model: nn.Module) -> set[float]:
    """Dropout probabilities found in a model."""
    return {m.p for m in model.modules() if isinstance(m, nn.Dropout)}


def test_dropout_of_new_adapters_is_the_users(tiny_model):
    model = load_model(str(tiny_model), lora=LoraSettings(r=2, dropout=0.5)).model
    assert 0.5 in rates(model)
    assert torch.equal(logits(model), logits(load_model(str(tiny_model)).model))  # not in evaluation


def test_an_adapter_goes_on_without_dropout(adapter):
    """Policy and reference must agree at the start, whatever the adapter was trained with."""
    assert rates(load_model(str(adapter)).model) <= {0.0}
