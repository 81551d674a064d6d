"""What TRL's files, and alignment-handbook's, say of data: one source, and rows that are not trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prefopt.config import ConfigError
from prefopt.migration import Migration, migrate, read

FILES = Path(__file__).parents[1] / "data" / "migration"
DATA = (
    "data",
    "data_config",
    "split",
    "eval_data",
    "eval_split",
    "eval_size",
    "eval_steps",
    "eval_strategy",
    "rename_columns",
)
STEPS = {"eval_strategy": "steps", "eval_steps": 10}


def moved(overrides: dict[str, Any] | None = None, **given: Any) -> Migration:
    return migrate({"loss_type": "sigmoid", **given}, "trl", None, {"model": "m", **(overrides or {})})


def of_data(found: Migration) -> dict[str, Any]:
    return {key: found.config[key] for key in DATA if key in found.config}


def source(**more: Any) -> list[dict[str, Any]]:
    return [{"path": "owner/name", **more}]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"datasets": source(), "test_split_size": 0.2}, {"data": "owner/name", "eval_size": 0.2, "eval_strategy": "no"}),
        ({"datasets": source(), "test_split_size": 50, **STEPS}, {"data": "owner/name", "eval_size": 50, "eval_steps": 10}),
        ({"datasets": source(split="prefs", fraction=0.3), "dataset_name": "x", "dataset_train_split": "y"},
         {"data": "owner/name", "split": "prefs", "eval_size": 0, "eval_strategy": "no"}),
        ({"datasets": [{"path": "json", "data_files": {"train": "a.jsonl", "test": "b.jsonl"}}], **STEPS},
         {"data": "a.jsonl", "eval_data": "b.jsonl", "eval_steps": 10}),
        ({"datasets": [{"path": "json", "data_files": {"train": ["a.jsonl"], "test": "b.jsonl"}}]},
         {"data": "a.jsonl", "eval_size": 0, "eval_strategy": "no"}),
        ({"dataset_name": "owner/name", "test_split_size": 0.2}, {"data": "owner/name", "eval_size": 0, "eval_strategy": "no"}),
        ({"dataset_mixer": {"owner/name": 1.0}, **STEPS},
         {"data": "owner/name", "eval_data": "owner/name", "eval_split": "test", "eval_steps": 10}),
        ({"dataset_mixer": {"owner/name": 1}, "dataset_splits": ["train_prefs", "test_prefs"], "dataset_configs": ["en"]},
         {"data": "owner/name", "data_config": "en", "split": "train_prefs", "eval_size": 0, "eval_strategy": "no"}),
        ({"dataset_mixture": {"datasets": [{"id": "owner/name", "config": "en", "split": "prefs"}], "test_split_size": 0.1}, **STEPS},
         {"data": "owner/name", "data_config": "en", "split": "prefs", "eval_steps": 10}),
    ],
)  # fmt: skip
def test_one_source(given, expected):
    """TRL splits rows off by `test_split_size` whether it evaluates or not; of one source, a fraction is all of it."""
    assert of_data(moved(**given)) == expected


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"dataset_mixer": {"a": 1.0, "b": 0.5}}, "one split of one source, and there are 2 sources"),
        (
            {"dataset_mixer": {"a": 1.0}, "dataset_splits": ["train_sft", "train_prefs"]},
            "the splits train_sft, train_prefs",
        ),
        (
            {"dataset_mixture": {"datasets": [{"id": "a"}, {"id": "a", "split": "test"}]}},
            "dataset_mixture: prefopt trains on one source, and there are 2. Join them .* data=FILE",
        ),
        ({"datasets": source(data_files={"validation": "a"})}, "data_files has no train; it has validation"),
        ({"datasets": source(data_files=["a", "b"])}, "join the 2 files"),
        ({"datasets": source(), **STEPS}, "nothing to evaluate on without test_split_size"),
        ({"dataset_mixer": {"a": 1.0}, "dataset_splits": ["train"], **STEPS}, "names none to evaluate on"),
    ],
)
def test_what_cannot_be_told_is_refused(given, words):
    with pytest.raises(ConfigError, match=f"cannot be migrated: .*{words}"):
        moved(**given)


def test_shares_are_told():
    for given in (
        {"dataset_mixer": {"a": 0.5}},
        {"dataset_mixture": {"datasets": [{"id": "a", "weight": 0.5}]}},
    ):
        assert any("a share of 0.5" in line.why for line in moved(**given).of("to check"))
        assert not any("a share" in line.why for line in moved({"max_examples": 9}, **given).of("to check"))


@pytest.mark.parametrize(
    ("tool", "given"),
    [
        ("trl", {"loss_type": "sigmoid", "datasets": [{"path": "a"}, {"path": "b"}]}),
        (
            "trl",
            {
                "loss_type": "sigmoid",
                "dataset_name": "a",
                "dataset_config": "en",
                "dataset_train_split": "prefs",
            },
        ),
        ("trl", {"loss_type": "sigmoid", "dataset_mixer": {"a": 1, "b": 1}}),
        ("llamafactory", {"stage": "dpo", "finetuning_type": "lora", "dataset": "a,b"}),
        ("llamafactory", {"stage": "dpo", "finetuning_type": "lora", "dataset": "a"}),
        ("axolotl", {"rl": "dpo", "datasets": [{"path": "a"}, {"path": "b"}]}),
        ("axolotl", {"rl": "dpo", "datasets": [{"path": "a", "split": "prefs", "name": "en"}]}),
    ],
)
def test_data_on_the_command_line_is_all_of_it(tool, given):
    """No split, configuration or name of a column of the file's own data stays beside it."""
    found = migrate(given, tool, None, {"model": "m", "data": "all.parquet"})
    assert of_data(found) == {"data": "all.parquet", "eval_size": 0, "eval_strategy": "no"}
    assert any(line.why == "data is given on the command line" for line in found.of("left out"))


def test_a_share_is_held_out_of_other_data_too():
    """As `test_split_size` is of all sources together."""
    several = [{"path": "a"}, {"path": "b"}]
    for given in (
        {"datasets": several, "test_split_size": 0.2},
        {"dataset_mixture": {"datasets": several, "test_split_size": 0.2}},
    ):
        expected = {"data": "all.parquet", "eval_size": 0.2}
        assert of_data(moved({"data": "all.parquet"}, **given)) == {**expected, "eval_strategy": "no"}
        assert of_data(moved({"data": "all.parquet"}, **given, **STEPS)) == {**expected, "eval_steps": 10}
        assert of_data(moved({"data": "d", "eval_size": 3}, **given, **STEPS))["eval_size"] == 3


def test_a_registry_is_not_asked_for_other_data(tmp_path):
    entry = {
        "file_name": "x.json",
        "formatting": "sharegpt",
        "columns": {"messages": "talk", "chosen": "better"},
    }
    (tmp_path / "dataset_info.json").write_text(json.dumps({"demo": entry}), "utf-8")
    given = {"stage": "dpo", "finetuning_type": "lora", "dataset": "demo", "dataset_dir": str(tmp_path)}
    assert migrate(given, overrides={"model": "m"}).config["rename_columns"]
    assert "rename_columns" not in migrate(given, overrides={"model": "m", "data": "d"}).config


def test_a_split_of_other_data_is_not_evaluated_on():
    """A dump that evaluates says nothing of the data, so what is held out is told loudly."""
    found = moved({"data": "rows.jsonl"}, dataset_test_split="test", **STEPS)
    assert of_data(found) == {"data": "rows.jsonl", "eval_steps": 10}
    assert "a tenth of its rows is held out" in found.of("to check")[0].why
    for given, expected in (
        ({"eval_data": "held.jsonl"}, {"eval_data": "held.jsonl"}),
        ({"eval_size": 5}, {"eval_size": 5}),
        ({"eval_split": "prefs"}, {"eval_data": "rows.jsonl", "eval_split": "prefs"}),
    ):
        found = moved({"data": "rows.jsonl", **given}, dataset_test_split="test", **STEPS)
        assert of_data(found) == {"data": "rows.jsonl", "eval_steps": 10, **expected}
        assert not any("is held out" in line.why for line in found.of("to check"))
    found = moved({"eval_data": "held.jsonl"}, dataset_name="d", dataset_test_split="test", **STEPS)
    assert of_data(found) == {"data": "d", "eval_data": "held.jsonl", "eval_steps": 10}


def test_other_keys_on_the_command_line_win():
    found = moved({"data": "d", "beta": 0.5, "lr": 1e-3}, beta=0.2, learning_rate=2e-6)
    assert (found.config["beta"], found.config["learning_rate"]) == (0.5, 1e-3)
    assert {line.origin for line in found.of("left out")} >= {"beta", "learning_rate"}
    with pytest.raises(ConfigError, match="dpoo"):
        moved({"data": "d", "method": "dpoo"})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("qlora", {"method": "dpo", "split": "train_prefs", "eval_split": "test_prefs", "optim": "paged_adamw_32bit"}),
        ("mixture", {"method": "dpo", "split": "train_prefs", "eval_size": 1000, "data_config": "default"}),
        ("simpo", {"method": "simpo", "beta": 2.5, "gamma_beta_ratio": 0.55, "eval_split": "test"}),
    ],
)  # fmt: skip
def test_alignment_handbooks_files(name, expected):
    """They are TRL's, `preprocessing_num_workers` or not."""
    found = migrate(read(FILES / f"handbook_{name}.yaml"))
    assert found.tool == "TRL"
    assert {key: found.config.get(key) for key in expected} == expected
    assert not any("knows no such argument" in line.why for line in found.lines)
    told = any("an empty system message" in line.why for line in found.of("to check"))
    assert told == (name != "mixture")
