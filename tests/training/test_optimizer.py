"""Optimizers by their names: the peer's class and arguments, and states that come back as they were."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

import prefopt
from conftest import ROWS
from prefopt.config import ConfigError, TrainConfig
from prefopt.config.keys.optimization import Optimizer
from prefopt.training.optimizer import make_optimizer, optimizer_class

OF_TRANSFORMERS = [name for name in get_args(Optimizer) if name != "adamw"]


def config(**given: Any) -> TrainConfig:
    return TrainConfig(method="dpo", model="m", data="d", **given)


@pytest.mark.parametrize("name", OF_TRANSFORMERS)
def test_a_name_means_what_it_means_to_a_trainer(name, tmp_path):
    """But where that is not what the name says: it gives `ademamix` and its kin AdamW."""
    from transformers import Trainer, TrainingArguments

    args = TrainingArguments(
        output_dir=str(tmp_path), optim=name, adam_beta2=0.97, adam_epsilon=1e-7, report_to="none"
    )
    theirs, their_arguments = Trainer.get_optimizer_cls_and_kwargs(args)
    ours, our_arguments = optimizer_class(config(optim=name, adam_beta2=0.97, adam_epsilon=1e-7))
    if "ademamix" in name:
        assert ours.__name__ == "AdEMAMix"
        assert our_arguments["is_paged"] == their_arguments["is_paged"]
        assert our_arguments["optim_bits"] == their_arguments["optim_bits"]
        return
    assert ours is theirs
    for key in ("betas", "optim_bits", "is_paged", "scale_parameter", "relative_step"):
        assert our_arguments.get(key) == their_arguments.get(key), key


@pytest.mark.parametrize("name", get_args(Optimizer))
def test_every_optimizer_takes_a_step(name):
    model = torch.nn.Linear(70, 70)
    before = model.weight.detach().clone()
    optimizer = make_optimizer(config(optim=name, learning_rate=1e-2), model)
    model(torch.ones(2, 70)).square().sum().backward()
    optimizer.step()
    assert torch.isfinite(model.weight).all()
    assert not torch.equal(model.weight, before)


def test_further_arguments_reach_the_optimizer_or_are_refused():
    model = torch.nn.Linear(2, 2)
    made = make_optimizer(config(optim="sgd", optim_args="momentum=0.9, nesterov=true"), model)
    assert made.param_groups[0]["momentum"] == 0.9
    assert made.param_groups[0]["nesterov"] is True
    with pytest.raises(ConfigError, match=r"optim=sgd.*momentun"):
        make_optimizer(config(optim="sgd", optim_args={"momentun": 0.9}), model)


@pytest.mark.parametrize("name", ["adafactor", "adamw_8bit", "ademamix_8bit"])
def test_states_of_other_shapes_come_back_bit_for_bit(name, tiny_model, rows_file, own_cache, tmp_path):
    """Factors of moments, eight-bit blocks with their scales, and steps that are plain numbers."""
    given: dict[str, Any] = {
        "model": tiny_model, "data": rows_file(ROWS), "optim": name, "learning_rate": 1e-3, "max_steps": 6, "save_steps": 3,
        "per_device_train_batch_size": 4, "sample_prompts": 0, "eval_size": 0, "output_dir": str(tmp_path / "run"),
    }  # fmt: skip
    run = Path(given["output_dir"])
    prefopt.train("dpo", **given)
    expected = (run / "model" / "model.safetensors").read_bytes()
    shutil.rmtree(run / "checkpoints" / "step-00000006")
    shutil.rmtree(run / "model")
    prefopt.train("dpo", resume=True, **given)
    assert (run / "model" / "model.safetensors").read_bytes() == expected
