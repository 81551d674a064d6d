"""A fingerprint changes with whatever changes a score, and with nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import nn
from transformers import LlamaConfig

from prefopt.models.identity import fingerprint
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
