"""LLaMA-Factory's arguments and its registry of data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from migration.loss_keys import of_loss
from prefopt.config import ConfigError
from prefopt.migration import Migration, migrate

NEEDED = {"model_name_or_path": "m", "stage": "dpo", "finetuning_type": "full"}


def moved(place: Path = Path(), data: str | None = "d", **given: Any) -> Migration:
    return migrate({**NEEDED, **given}, None, None, {"data": data} if data else {}, place)


def registry(folder: Path, **entries: dict[str, Any]) -> Path:
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / "dataset_info.json").write_text(json.dumps(entries), "utf-8")
    return folder


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"method": "dpo", "beta": 0.1}),
        ({"pref_loss": "sigmoid", "dpo_label_smoothing": 0.1}, {"method": "dpo", "beta": 0.1, "label_smoothing": 0.1}),
        ({"pref_loss": "ipo", "pref_beta": 0.01}, {"method": "ipo", "beta": 0.01}),
        ({"pref_loss": "orpo", "pref_beta": 0.2}, {"method": "orpo", "lambda": 0.2}),
        ({"pref_loss": "simpo", "pref_beta": 2.0}, {"method": "simpo", "beta": 2.0, "gamma": 0.5}),
        ({"pref_ftx": 0.1}, {"method": "dpo+sft", "loss_weights": [1.0, 0.1], "beta": 0.1}),
        ({"ld_alpha": 0.4}, {"method": "ld_dpo", "a": 0.4, "beta": 0.1}),
        ({"stage": "kto", "kto_chosen_weight": 1.5}, {"method": "kto", "beta": 0.1, "desirable_weight": 1.5}),
    ],
)  # fmt: skip
def test_losses(given, expected):
    """Its likelihood terms are means over each answer, like prefopt's: no `average` is written."""
    assert of_loss(moved(**given).config) == expected


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"stage": "sft"}, "stage: sft is no training on comparisons"),
        ({"pref_loss": "kto_pair"}, "kto_pair: prefopt knows sigmoid, hinge"),
        ({"finetuning_type": "freeze"}, "finetuning_type: freeze"),
        ({"pref_bco_weight": 0.5}, "pref_bco_weight"),
        ({"stage": "kto", "pref_ftx": 0.5}, "pref_ftx with stage kto"),
        ({"finetuning_type": "lora", "quantization_bit": 3}, "quantization_bit: 3"),
        ({"ref_model_adapters": "a"}, "reference_model"),
        ({"adapter_name_or_path": "a,b"}, "merge all but the last"),
    ],
)
def test_what_would_mean_something_else_is_refused(given, words):
    with pytest.raises(ConfigError, match=f"this cannot be migrated: .*{words}"):
        moved(**given)


def test_adapters():
    found = moved(finetuning_type="lora", lora_rank=4).config
    assert (found["lora_r"], found["lora_alpha"], found["lora_target_modules"]) == (4, 8, "all-linear")
    found = moved(finetuning_type="lora", lora_target="q_proj, v_proj", lora_alpha=7).config
    assert (found["lora_r"], found["lora_alpha"], found["lora_target_modules"]) == (
        8,
        7,
        ["q_proj", "v_proj"],
    )
    assert "use_peft" not in moved(lora_rank=4).config
    # left out, it is lora there
    assert migrate(
        {"model_name_or_path": "m", "stage": "dpo", "cutoff_len": 9}, overrides={"data": "d"}
    ).config["use_peft"]


def test_an_adapter_to_go_on_from():
    found = moved(finetuning_type="lora", adapter_name_or_path="saves/sft").config
    assert (found["model"], found["reference_model"]) == ("saves/sft", "m")


def test_names_of_data_sets(tmp_path):
    columns = {"messages": "dialog", "chosen": "good", "rejected": "rejected", "images": "pictures"}
    place = registry(
        tmp_path,
        one={"file_name": "one.json", "formatting": "sharegpt", "ranking": True, "columns": columns},
        two={"hf_hub_url": "owner/two", "subset": "en", "split": "train_sft", "columns": {"prompt": "query", "query": "context"}},
        held={"hf_hub_url": "owner/two", "split": "test"},
    )  # fmt: skip
    found = moved(place, None, dataset="one")
    assert found.config["data"] == str(place / "data" / "one.json")
    assert found.config["rename_columns"] == {"dialog": "messages", "good": "chosen", "pictures": "images"}
    assert found.config["freeze"] == ["projector", "vision_tower"]
    assert not found.of("to check")
    found = moved(place, None, dataset="two", eval_dataset="held", eval_strategy="steps", eval_steps=50)
    assert {k: found.config[k] for k in ("data", "data_config", "split", "eval_data", "eval_split", "eval_steps")} == {
        "data": "owner/two", "data_config": "en", "split": "train_sft", "eval_data": "owner/two", "eval_split": "test",
        "eval_steps": 50,
    }  # fmt: skip
    assert found.config["rename_columns"] == {"query": "instruction", "context": "input"}
    assert {line.origin for line in found.of("to check")} == {"dataset", "eval_dataset"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"dataset": "one,two"}, "one, two: prefopt trains on one source. Join them"),
        ({"dataset": "three"}, "has no entry 'three'; it has one, odd, script"),
        ({"dataset": "script"}, "comes by script_url"),
        ({"dataset": "odd"}, "user_tag: USER"),
        ({"dataset": "one", "dataset_dir": "elsewhere"}, "neither in elsewhere nor in"),
    ],
)
def test_data_sets_that_cannot_be_told(given, words, tmp_path):
    place = registry(
        tmp_path, one={"file_name": "one.json", "formatting": "sharegpt"},
        odd={"file_name": "odd.json", "formatting": "sharegpt", "tags": {"user_tag": "USER"}}, script={"script_url": "x"},
    )  # fmt: skip
    with pytest.raises(ConfigError, match=words):
        moved(place, None, **given)


def test_precision():
    """Left to itself it computes in float32, where prefopt would take bfloat16."""
    assert moved().config["bf16"] is False
    assert moved(bf16=True).config["bf16"] is True
    assert moved(pure_bf16=True, bf16=True).config["dtype"] == "bfloat16"
    assert moved(finetuning_type="lora", bf16=True).config["dtype"] == "bfloat16"
    assert "dtype" not in moved(bf16=True).config


def test_what_is_held_out():
    assert moved().config["eval_size"] == 0
    assert moved(val_size=0.1).config.get("eval_size", 0.1) == 0.1
    assert moved(val_size=100).config["eval_size"] == 100
