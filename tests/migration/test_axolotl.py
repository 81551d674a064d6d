"""Axolotl's keys and its types of rows."""

from __future__ import annotations

from typing import Any

import pytest

from migration.loss_keys import of_loss
from prefopt.config import ConfigError
from prefopt.migration import Migration, migrate

NEEDED = {"base_model": "m", "rl": "dpo", "datasets": [{"path": "d.jsonl", "ds_type": "json"}]}


def moved(**given: Any) -> Migration:
    return migrate({**NEEDED, **given})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"method": "dpo", "beta": 0.1}),
        ({"rl_beta": 0.3}, {"method": "dpo", "beta": 0.3}),
        ({"dpo_beta": 0.3}, {"method": "dpo", "beta": 0.3}),
        ({"trl": {"beta": 0.3}}, {"method": "dpo", "beta": 0.3}),
        ({"rl": "ipo", "rl_beta": 0.01}, {"method": "ipo", "beta": 0.01}),
        ({"dpo_label_smoothing": 0.1}, {"method": "dpo", "beta": 0.1, "label_smoothing": 0.1}),
        ({"dpo_norm_loss": True}, {"method": "dpo", "beta": 0.1, "margin": "average"}),
        ({"dpo_use_weighting": True}, {"method": "wpo", "beta": 0.1}),
        ({"dpo_loss_type": ["sigmoid", "sft"], "dpo_loss_weights": [1, 0.2]},
         {"method": "dpo+sft", "beta": 0.1, "loss_weights": [1, 0.2], "average": "batch"}),
        ({"rpo_alpha": 0.1}, {"method": "dpo+sft", "beta": 0.1, "loss_weights": [1.0, 0.1], "average": "batch"}),
        ({"rl": "orpo", "orpo_alpha": 0.2}, {"method": "orpo", "lambda": 0.2}),
        ({"rl": "simpo", "cpo_alpha": 0.0, "rl_beta": 2.0}, {"method": "simpo", "beta": 2.0, "gamma": 0.5}),
        ({"rl": "simpo", "simpo_gamma": 1.0},
         {"method": "simpo+sft", "beta": 0.1, "gamma": 1.0, "loss_weights": [1.0, 1.0], "average": "batch"}),
        ({"rl": "kto", "kto_undesirable_weight": 0.5}, {"method": "kto", "beta": 0.1, "undesirable_weight": 0.5}),
    ],
)  # fmt: skip
def test_losses(given, expected):
    assert of_loss(moved(**given).config) == expected


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"rl": "grpo"}, "rl: grpo is no training on comparisons"),
        ({"rl": None}, "supervised fine-tuning is no training on comparisons"),
        ({"datasets": [{"path": "a"}, {"path": "b"}]}, "a, b: prefopt trains on one source. Join them"),
        (
            {"datasets": [{"path": "json", "data_files": ["a", "b"]}]},
            "data_files: prefopt trains on one source",
        ),
        ({"adapter": "llama-adapter"}, "adapter: llama-adapter"),
        ({"unfrozen_parameters": ["lm_head"]}, "unfrozen_parameters"),
        (
            {"datasets": [{"path": "a", "type": "chat_template", "message_field_role": "who"}]},
            "messages have who and content",
        ),
    ],
)
def test_what_would_mean_something_else_is_refused(given, words):
    with pytest.raises(ConfigError, match=f"this cannot be migrated: .*{words}"):
        moved(**given)


@pytest.mark.parametrize(
    ("source", "expected", "checks"),
    [
        ({"path": "owner/name", "type": "chatml.intel"}, {"data": "owner/name"}, ["plain texts"]),
        ({"path": "owner/name", "type": "chatml.icr"}, {"data": "owner/name", "rename_columns": {"input": "prompt"}}, ["plain texts"]),
        ({"path": "owner/name", "type": "llama3.ultra"}, {"data": "owner/name"}, ["whether it is llama3 or not"]),
        ({"path": "owner/name", "type": "chatml.argilla_chat"}, {"data": "owner/name"}, ["whether it is chatml or not"]),
        ({"path": "json", "data_files": "rows.jsonl", "split": "train[:10%]"}, {"data": "rows.jsonl"}, ["is a slice"]),
        ({"path": "owner/name", "name": "en", "split": "prefs"}, {"data": "owner/name", "data_config": "en", "split": "prefs"}, []),
        ({"path": "a.jsonl", "type": "chat_template.default", "field_messages": "dialog", "field_chosen": "good"},
         {"data": "a.jsonl", "rename_columns": {"dialog": "messages", "good": "chosen"}}, []),
        ({"path": "a.jsonl", "type": {"field_prompt": "q", "field_chosen": "chosen", "prompt_format": "[INST]{prompt}"}},
         {"data": "a.jsonl", "rename_columns": {"q": "prompt"}}, ["write the format into the data"]),
        ({"path": "a.jsonl", "shards": 4}, {"data": "a.jsonl"}, ["shards"]),
    ],
)  # fmt: skip
def test_types_of_rows(source, expected, checks):
    found = moved(datasets=[source])
    assert {
        k: found.config[k] for k in ("data", "data_config", "split", "rename_columns") if k in found.config
    } == expected
    assert len(found.of("to check")) == len(checks)
    for line, words in zip(found.of("to check"), checks, strict=True):
        assert words in line.why


def test_batches_and_epochs():
    found = moved(batch_size=32, micro_batch_size=4, num_epochs=3).config
    assert (found["per_device_train_batch_size"], found["gradient_accumulation_steps"]) == (4, 8)
    assert found["num_train_epochs"] == 3
    assert moved().config["per_device_train_batch_size"] == 1


def test_warmup_that_nobody_gave():
    assert moved().config["warmup_ratio"] == 0.03
    assert moved(warmup_steps=5).config["warmup_steps"] == 5
    assert "warmup_ratio" not in moved(warmup_steps=5).config
    assert "warmup_ratio" not in moved(lr_scheduler="constant").config


def test_a_schedule_without_warmup():
    """prefopt's `constant` would take one; transformers' does not."""
    found = moved(lr_scheduler="constant", warmup_ratio=0.1)
    assert "warmup_ratio" not in found.config
    assert [line.origin for line in found.of("left out")] == ["warmup_ratio"]


def test_how_often_and_on_what_is_evaluated():
    found = moved(test_datasets=[{"path": "held.jsonl", "split": "test"}], eval_steps=50).config
    assert (found["eval_data"], found["eval_split"], found["eval_steps"]) == ("held.jsonl", "test", 50)
    assert moved().config["eval_size"] == 0
    assert [line.origin for line in moved(evals_per_epoch=4).of("left out")] == ["evals_per_epoch"]


def test_a_name_on_the_hub_asks_for_an_upload():
    found = moved(hub_model_id="me/x").config
    assert {key: found[key] for key in found if "hub" in key} == {
        "hub_model_id": "me/x",
        "push_to_hub": True,
        "hub_private_repo": True,
    }
    assert not [key for key in moved(hub_model_id="").config if "hub" in key]


def test_adapters():
    found = moved(
        adapter="qlora", load_in_4bit=True, lora_r=32, lora_alpha=16, lora_target_modules=["q_proj"]
    ).config
    assert (found["use_peft"], found["load_in_4bit"], found["lora_r"], found["lora_alpha"]) == (
        True,
        True,
        32,
        16,
    )
    assert found["lora_target_modules"] == ["q_proj"]
    found = moved(
        adapter="lora", lora_model_dir="out", lora_target_linear=True, lora_target_modules=["q_proj"]
    )
    assert (found.config["model"], found.config["reference_model"]) == ("out", "m")
    assert found.config["lora_target_modules"] == "all-linear"
    assert "use_peft" not in moved(adapter=None, lora_r=8).config


def test_trackers():
    found = moved(wandb_project="p", wandb_name="n", use_tensorboard=True, wandb_entity="me")
    assert (found.config["report_to"], found.config["run_name"]) == (["wandb", "tensorboard"], "n")
    assert [line.origin for line in found.of("left out")] == ["wandb_entity"]
    assert "report_to" not in moved(wandb_project="", use_tensorboard=False).config


def test_tokens_and_templates():
    assert [line.origin for line in moved(special_tokens={"pad_token": "x"}).of("left out")] == [
        "special_tokens"
    ]
    assert [line.origin for line in moved(special_tokens={"eos_token": "x"}).of("to check")] == [
        "special_tokens"
    ]
    assert [line.origin for line in moved(chat_template="chatml").of("to check")] == ["chat_template"]
    assert not moved(chat_template="tokenizer_default").of("to check")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"saves_per_epoch": "two"}, "saves_per_epoch: needed a number; given two"),
        ({"num_epochs": 0, "saves_per_epoch": 2}, "num_epochs: needed a number above 0; given 0"),
        ({"optimizer": ["adamw"]}, "optimizer: needed a name such as adamw_torch"),
        ({"datasets": "d.jsonl"}, "datasets: needed a list of sources, each with a path; given d.jsonl"),
        ({"special_tokens": 3}, "special_tokens: needed names and values; given 3"),
    ],
)
def test_values_that_cannot_be(given, words):
    with pytest.raises(ConfigError, match=words):
        moved(**given)
