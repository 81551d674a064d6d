"""A fingerprint changes with whatever changes a score, and with nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import nn
from transformers import LlamaConfig

import prefopt
from conftest import ROWS
from prefopt.models.identity import fingerprint, saved_fingerprint
from prefopt.models.loading import LoraSettings, load_model


def holder(config: Any = None, **tensors: torch.Tensor) -> nn.Module:
    """A module of nothing but these tensors."""
    module = nn.Module()
    for name, tensor in tensors.items():
        module.register_buffer(name, tensor)
    if config is not None:
        module.config = config
    return module


def with_adapter(folder: Any) -> Any:
    model = load_model(str(folder), lora=LoraSettings(r=2)).model
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.fill_(0.1)
    return model


ZEROS = torch.zeros(2, 3)


@pytest.mark.parametrize(
    "other",
    [
        holder(a=torch.zeros(2, 3, dtype=torch.int32)),  # the same bytes
        holder(a=torch.zeros(3, 2)),
        holder(b=ZEROS),
        holder(a=ZEROS, b=torch.zeros(0)),
    ],
    ids=["dtype", "shape", "name", "one more"],
)
def test_tensors_are_told_apart(other):
    assert fingerprint(other) != fingerprint(holder(a=ZEROS))


def test_every_byte_counts():
    base = torch.arange(1000, dtype=torch.float32)
    prints = {fingerprint(holder(a=base))}
    for place in (0, 500, 999):
        changed = base.clone()
        changed[place] += 1e-3
        prints.add(fingerprint(holder(a=changed)))
    assert len(prints) == 4


def test_order_and_layout_do_not_count():
    one = holder(a=ZEROS, b=torch.arange(6.0).reshape(2, 3))
    strided = torch.arange(6.0).reshape(2, 3).t().contiguous().t()
    assert not strided.is_contiguous()
    assert fingerprint(one) == fingerprint(holder(b=strided, a=ZEROS))


def test_bfloat16_weights():
    assert fingerprint(holder(a=ZEROS.bfloat16())) != fingerprint(holder(a=ZEROS.bfloat16() + 1))


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({"rms_norm_eps": 1e-3}, False),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, False),
        ({"attention_dropout": 0.5}, True),
        ({"use_cache": False}, True),
        ({"id2label": {0: "a"}}, True),
        ({"name_or_path": "elsewhere"}, True),
    ],
)
def test_configuration_values_that_change_a_score(changed, same):
    start = fingerprint(holder(LlamaConfig(), a=ZEROS))
    assert (fingerprint(holder(LlamaConfig(**changed), a=ZEROS)) == start) is same


def test_adapters_count_while_they_act(tiny_model):
    base = fingerprint(load_model(str(tiny_model)).model)
    model = with_adapter(tiny_model)
    on = fingerprint(model)
    assert on != base
    with model.disable_adapter():
        assert fingerprint(model) == base
    assert fingerprint(model) == on


def test_an_inactive_adapter_does_not_count(tiny_model):
    model = with_adapter(tiny_model)
    before = fingerprint(model)
    # a name that is also part of the weights' names
    model.add_adapter("proj", LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    model.set_adapter("default")
    assert fingerprint(model) == before
    model.set_adapter("proj")
    assert fingerprint(model) != before


# -- what is no tensor -------------------------------------------------------------------------------------------


def adapter(folder: Any, place: Path, base: Any = None, **settings: Any) -> Path:
    """A trained adapter's folder; the same tensors whatever the settings, where these do not change their shapes."""
    from peft import get_peft_model

    config = LoraConfig(
        **{"r": 4, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM", **settings}
    )
    model = get_peft_model(load_model(str(folder)).model if base is None else base, config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            if "lora_" in name:
                p.copy_(torch.randn(p.shape, generator=generator) * 0.2)
    model.save_pretrained(place)
    return place


KINDS = [
    {"lora_alpha": 8},
    {"lora_alpha": 32},
    {"lora_alpha": 8, "use_rslora": True},
    {"lora_alpha": 8, "alpha_pattern": {"v_proj": 2}},
    {"lora_alpha": 8, "use_dora": True},
]


def test_settings_of_an_adapter_count(tiny_model, tmp_path):
    folders = [adapter(tiny_model, tmp_path / str(n), **kind) for n, kind in enumerate(KINDS)]
    prints = {fingerprint(load_model(str(folder), trainable=False).model) for folder in folders}
    assert len(prints) == len(KINDS)
    assert len({saved_fingerprint(folder) for folder in folders}) == len(KINDS)


def test_what_an_adapter_is_called_and_how_it_was_trained_does_not_count(tiny_model, tmp_path):
    one = adapter(tiny_model, tmp_path / "one", lora_alpha=8)
    other = adapter(tiny_model, tmp_path / "other", lora_alpha=8, lora_dropout=0.5)
    start = fingerprint(load_model(str(one), trainable=False).model)
    assert fingerprint(load_model(str(other), trainable=False).model) == start
    trained = load_model(str(one))
    with trained.as_reference():
        assert fingerprint(trained.model) == start  # the frozen copy goes by another name


def test_a_factor_set_afterwards_counts(tiny_model, tmp_path):
    from peft.helpers import rescale_adapter_scale

    model = load_model(str(adapter(tiny_model, tmp_path, lora_alpha=8)), trainable=False).model
    before = fingerprint(model)
    with rescale_adapter_scale(model, 0.5):
        assert fingerprint(model) != before
    assert fingerprint(model) == before


def test_several_adapters_at_once(tiny_model, tmp_path):
    model: Any = load_model(str(adapter(tiny_model, tmp_path / "a", lora_alpha=8)), trainable=False).model
    model.load_adapter(adapter(tiny_model, tmp_path / "b", lora_alpha=32), "second")
    prints = set()
    for active in (["default"], ["second"], ["default", "second"]):
        model.base_model.set_adapter(active)
        prints.add(fingerprint(model))
    assert len(prints) == 3


def test_a_module_of_the_model_that_is_called_like_an_adapter_counts(tiny_model):
    model = with_adapter(tiny_model)
    model.add_adapter("mlp", LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    model.set_adapter("default")
    before = fingerprint(model)
    with torch.no_grad():
        model.base_model.model.model.layers[0].mlp.up_proj.weight.add_(1)
    assert fingerprint(model) != before


def test_values_deep_inside_a_configuration():
    from transformers import LlavaConfig

    def of(**changed: Any) -> str:
        config = LlavaConfig(text_config=LlamaConfig(**changed).to_dict())
        return fingerprint(holder(config, a=ZEROS))

    start = of()
    assert of(attention_dropout=0.3) == start
    assert of(rms_norm_eps=1e-3) != start


def test_quantization_counts():
    from transformers import BitsAndBytesConfig

    def of(**settings: Any) -> str:
        config = LlamaConfig()
        config.quantization_config = BitsAndBytesConfig(load_in_4bit=True, **settings)
        return fingerprint(holder(config, a=ZEROS))

    assert of(bnb_4bit_compute_dtype=torch.bfloat16) == of(bnb_4bit_compute_dtype=torch.bfloat16)
    assert of(bnb_4bit_compute_dtype=torch.bfloat16) != of(bnb_4bit_compute_dtype=torch.float32)


def test_a_digest_is_the_same_in_every_process(tiny_model, tmp_path):
    """Sets have another order in every process, one of thousands where they have seven elements."""
    modules = [f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")]
    folder = adapter(tiny_model, tmp_path, lora_alpha=8, target_modules=modules)
    script = (
        "from prefopt.models.identity import *; from prefopt.models.loading import load_model; from pathlib import Path\n"
        f"print(fingerprint(load_model({str(folder)!r}, trainable=False).model), saved_fingerprint(Path({str(folder)!r})))"
    )
    done = subprocess.run([sys.executable, "-c", script], text=True, check=True, stdout=subprocess.PIPE)
    here = fingerprint(load_model(str(folder), trainable=False).model), saved_fingerprint(folder)
    assert done.stdout.split() == list(here)


def test_a_saved_adapter_is_known_with_its_base_model(tiny_model, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(tiny_model, base)
    folder = adapter(base, tmp_path / "adapter")
    before = saved_fingerprint(folder)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"use_cache": False}))
    assert saved_fingerprint(folder) == before
    (base / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-2}))
    assert saved_fingerprint(folder) != before


@pytest.mark.parametrize("changed", [{"lora_alpha": 32}, {"use_rslora": True}])
def test_each_adapter_has_its_own_reference_scores(changed, tiny_model, rows_file, own_cache, tmp_path):
    """Same tensors, same data, one cache: what is read from it is what the live reference says."""
    settings = [{"lora_alpha": 4}, {"lora_alpha": 4} | changed]
    folders = [adapter(tiny_model, tmp_path / f"a{n}", **kind) for n, kind in enumerate(settings)]
    found: dict[str, list[float]] = {"cached": [], "live": []}
    for kind, losses in found.items():
        for n, folder in enumerate(folders):
            result = prefopt.train(
                "dpo", model=tiny_model, reference_model=str(folder), reference=kind, data=rows_file(ROWS),
                output_dir=str(tmp_path / f"{kind}{n}"), max_steps=1, eval_size=4, sample_prompts=0,
                save_strategy="no",
            )  # fmt: skip
            losses.append(result.history[0]["eval_loss"])
    assert found["cached"] == pytest.approx(found["live"], abs=1e-5)
    assert abs(found["live"][0] - found["live"][1]) > 1e-3
