"""Which folder or hub id a model in memory is, and what is written where it is none: always the same model."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from conftest import save_tiny_model
from prefopt.models.adapters import some_logits
from prefopt.models.given import source_of, told_of
from prefopt.models.loading import load_model
from prefopt.models.unchanged import described

bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes (the qlora extra)"
)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("given")
        patch.setenv("PREFOPT_CACHE", str(folder))
        yield folder / "given"


def model_of(folder: Path, **more: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, **more)


def adapted(folder: Path, beginning: Any) -> Any:
    settings = LoraConfig(
        r=4, init_lora_weights=beginning, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"
    )
    return get_peft_model(model_of(folder), settings)


def gap(one: Any, other: Any) -> float:
    return float((some_logits(one) - some_logits(other)).abs().max())


@pytest.mark.parametrize("beginning", ["pissa", "pissa_niter_2", "olora", "mica", True])
def test_an_adapter_that_took_a_part_of_its_base(beginning, tiny_model, cache):
    model = adapted(tiny_model, beginning)
    before = model.peft_config["default"].to_dict()
    found = source_of(model)
    assert gap(load_model(found.source).model, model) < 1e-5
    plain = PeftModel.from_pretrained(
        model_of(
            json.loads((Path(found.source) / "adapter_config.json").read_text())["base_model_name_or_path"]
        ),
        found.source,
    )
    assert gap(plain, model) < 1e-5
    assert model.peft_config["default"].to_dict() == before
    told = told_of(found.source)
    if beginning in ("mica", True):
        assert told == f"the adapter in memory is kept in {found.source}, on {tiny_model}"
    else:
        assert "adapters trained on it name and need" in told


def test_an_adapter_that_trains_tokens(tiny_model):
    settings = LoraConfig(
        r=2, trainable_token_indices=[3, 4], target_modules=["q_proj"], task_type="CAUSAL_LM"
    )
    model = get_peft_model(model_of(tiny_model), settings)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "trainable_tokens_delta" in name:
                parameter.add_(0.1)
    found = source_of(model)
    assert gap(load_model(found.source).model, model) < 1e-5
    assert told_of(found.source) == f"the adapter in memory is kept in {found.source}, on {tiny_model}"


def test_an_adapter_whose_factor_was_changed_is_refused(tiny_model):
    model = adapted(tiny_model, True)
    with torch.no_grad():
        for module in model.modules():
            if hasattr(module, "lora_B"):
                module.scaling["default"] = 3.0
    with pytest.raises(
        ValueError, match="loaded again, 1 of its parts would be others, among them the factors"
    ):
        source_of(model)


def test_settings_of_padding_make_no_copy(tiny_model):
    model, tokenizer = model_of(tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.pad_token, tokenizer.padding_side = tokenizer.eos_token, "left"
    tokenizer(["a", "a b"], padding=True)
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.eos_token_id
    model.config.use_cache = False
    assert source_of(model, tokenizer).source == str(tiny_model)


def test_another_tokenizer_makes_a_folder_with_links(tiny_model):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = "{{ messages[0]['content'] }}{{ pad_token }}"
    kept = Path(source_of(model_of(tiny_model), tokenizer).source)
    assert kept != tiny_model
    assert (kept / "model.safetensors").samefile(tiny_model / "model.safetensors")
    assert AutoTokenizer.from_pretrained(kept).chat_template == tokenizer.chat_template
    assert gap(model_of(kept), model_of(tiny_model)) == 0
    assert f"has the weights of {tiny_model} with other settings" in told_of(str(kept))
    before = described(tokenizer, padding=False)
    tokenizer.pad_token = tokenizer.eos_token  # which this template writes
    assert described(tokenizer, padding=False) != before


def test_each_object_has_its_own_settings(tmp_path):
    folder = save_tiny_model(tmp_path / "experts", "mixtral")
    assert source_of(model_of(folder)).source == str(folder)
    found = []
    for coefficient in (0.002, 5.0):
        model = model_of(folder)
        model.config.router_aux_loss_coef = coefficient
        found.append(Path(source_of(model).source))
        held = json.loads((found[-1] / "config.json").read_text())
        assert (held["router_aux_loss_coef"], held["architectures"]) == (coefficient, ["MixtralForCausalLM"])
        assert gap(model_of(found[-1]), model) == 0
    model = model_of(folder)
    model.generation_config.eos_token_id, model.generation_config.temperature = [1, 7], 0.3
    found.append(Path(source_of(model).source))
    assert model_of(found[-1]).generation_config.eos_token_id == [1, 7]
    assert len(set(found)) == 3
    with torch.no_grad():
        model.lm_head.weight.mul_(2)
    whole = model_of(source_of(model).source)
    assert gap(whole, model) == 0
    assert (whole.generation_config.eos_token_id, whole.generation_config.temperature) == ([1, 7], 0.3)


@bitsandbytes
def test_few_bits_are_their_source_and_keys(tiny_model):
    four = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    )
    model = model_of(tiny_model, quantization_config=four, dtype=torch.bfloat16)
    found = source_of(model)
    assert (found.source, found.dtype) == (str(tiny_model), "bfloat16")
    assert found.quantization == {
        "load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": False,
        "bnb_4bit_compute_dtype": "bfloat16",
    }  # fmt: skip
    eight = model_of(tiny_model, quantization_config=BitsAndBytesConfig(load_in_8bit=True))
    assert source_of(eight).quantization == {"load_in_8bit": True}
    with torch.no_grad():
        model.model.norm.weight.mul_(2)
    with pytest.raises(ValueError, match=r"quantized weights that are not those of .*, loaded anew"):
        source_of(model)
    odd = BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=3.0)
    with pytest.raises(ValueError, match=r"no key of a run says \(llm_int8_threshold\)"):
        source_of(model_of(tiny_model, quantization_config=odd))


@bitsandbytes
def test_an_adapter_on_few_bits(tiny_model):
    from peft import prepare_model_for_kbit_training

    four = BitsAndBytesConfig(load_in_4bit=True)
    base = prepare_model_for_kbit_training(
        model_of(tiny_model, quantization_config=four, dtype=torch.bfloat16)
    )
    found = source_of(get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")))
    held = json.loads((Path(found.source) / "adapter_config.json").read_text())
    assert held["base_model_name_or_path"] == str(tiny_model)
    assert found.quantization["bnb_4bit_quant_type"] == "fp4"
    assert found.adapter


def test_a_pipeline_as_its_folder_has_it(sd):
    from diffusers import DiffusionPipeline, EulerDiscreteScheduler

    pipe = DiffusionPipeline.from_pretrained(sd, safety_checker=None)
    assert source_of(pipe).source == str(sd)
    scheduler = pipe.scheduler
    pipe.scheduler = EulerDiscreteScheduler.from_config(scheduler.config)
    assert source_of(pipe).source != str(sd)
    pipe.scheduler = scheduler
    with torch.no_grad():
        next(pipe.text_encoder.parameters()).add_(0.1)
    kept = Path(source_of(pipe).source)
    assert kept.name.startswith("StableDiffusionPipeline-")
    assert "it is kept in" in told_of(str(kept))
