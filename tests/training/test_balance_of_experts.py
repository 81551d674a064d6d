"""router_aux_loss_coef: the loss that keeps a mixture of experts in balance, against transformers' own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import prefopt
from conftest import ROWS, save_tiny_model
from prefopt.config import ConfigError
from training.test_processes import losses

OPTIONS = {
    "max_steps": 1, "per_device_train_batch_size": len(ROWS), "eval_size": 0, "sample_prompts": 0, "logging_steps": 1, "optim": "sgd",
    "learning_rate": 0.1, "lr_scheduler_type": "constant", "save_strategy": "no", "max_grad_norm": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def experts(tmp_path_factory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("experts") / "mixtral", "mixtral")


def train(model: Path, data: Path, folder: Path, **more: object) -> dict[str, torch.Tensor]:
    prefopt.train("dpo", model=model, data=data, output_dir=str(folder), **{**OPTIONS, **more})
    return dict(AutoModelForCausalLM.from_pretrained(folder / "model").named_parameters())


def balance_of(folder: Path, model: torch.nn.Module, ends: int) -> torch.Tensor:
    """transformers' loss on the chosen and the rejected rows of the batch, as TRL has it, without their last `ends` tokens."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [
        row["prompt"] + row[side] + tokenizer.eos_token for side in ("chosen", "rejected") for row in ROWS
    ]
    ids = [torch.tensor(tokenizer(text)["input_ids"]) for text in texts]
    ids = [row[: len(row) - ends] for row in ids]
    padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
    return model(padded, attention_mask=mask, output_router_logits=True).aux_loss


def test_logged_and_learned_as_transformers_has_it(experts, rows_file, own_cache, tmp_path):
    """Whatever the layout: the same number, and exactly its gradient times the coefficient is what is added."""
    data, coefficient = rows_file(ROWS), 0.5
    model = AutoModelForCausalLM.from_pretrained(experts)
    exact = balance_of(experts, model, ends=1)  # an item's last token predicts nothing and is not run
    exact.backward()
    without = train(experts, data, tmp_path / "without", router_aux_loss_coef=0)
    for layout in ("shared", "plain"):
        found = train(experts, data, tmp_path / layout, router_aux_loss_coef=coefficient, batch_layout=layout)
        assert losses(tmp_path / layout, "aux_loss") == pytest.approx([exact.item()], rel=1e-5)
        for name, p in model.named_parameters():
            if p.grad is not None:
                expected = -OPTIONS["learning_rate"] * coefficient * p.grad
                torch.testing.assert_close(
                    found[name] - without[name], expected, rtol=1e-3, atol=1e-6, msg=name
                )
    gate = next(name for name in found if "gate.weight" in name)
    assert (found[gate] - without[gate]).abs().max() > 1e-4
    assert not losses(tmp_path / "without", "aux_loss")
    whole = float(balance_of(experts, model, ends=0))
    assert exact.item() == pytest.approx(whole, rel=0.02)  # TRL's, which runs the last token, too


def test_what_the_checkpoint_says_stands_unless_given(experts, rows_file, own_cache, tmp_path):
    """And what is saved says what the checkpoint said."""
    data, asking = rows_file(ROWS), tmp_path / "asking"
    save_tiny_model(asking, "mixtral")
    config = json.loads((asking / "config.json").read_text())
    config |= {"output_router_logits": True, "router_aux_loss_coef": 0.3}
    (asking / "config.json").write_text(json.dumps(config))
    says = train(asking, data, tmp_path / "says")
    given = train(experts, data, tmp_path / "given", router_aux_loss_coef=0.3)
    none = train(asking, data, tmp_path / "none", router_aux_loss_coef=0)
    plain = train(experts, data, tmp_path / "plain")
    assert all(torch.equal(says[name], given[name]) and torch.equal(none[name], plain[name]) for name in says)
    assert any(not torch.equal(says[name], none[name]) for name in says)
    for folder, value in (("given", False), ("none", True)):
        assert (
            json.loads((tmp_path / folder / "model" / "config.json").read_text())["output_router_logits"]
            is value
        )


@pytest.mark.parametrize("more", [{"reference": "live"}, {"sample_prompts": 1, "sample_max_new_tokens": 4}])
def test_a_reference_that_balances_nothing_scores_as_it_would_alone(
    more, experts, rows_file, own_cache, tmp_path
):
    data = rows_file(ROWS)
    cached = train(experts, data, tmp_path / "cached", router_aux_loss_coef=0.5)
    found = train(experts, data, tmp_path / "run", router_aux_loss_coef=0.5, **more)
    assert all(torch.allclose(found[name], cached[name], rtol=1e-4, atol=1e-6) for name in found)
    assert losses(tmp_path / "run", "aux_loss")


def test_models_without_experts_refuse_it(tiny_model, rows_file, own_cache, tmp_path):
    told = "LlamaForCausalLM is no mixture of experts .* router_aux_loss_coef=0.001: leave it out"
    with pytest.raises(ConfigError, match=told):
        train(tiny_model, rows_file(ROWS), tmp_path / "run", router_aux_loss_coef=0.001)
    train(
        tiny_model, rows_file(ROWS), tmp_path / "off", router_aux_loss_coef=0
    )  # as TRL's configurations may say
