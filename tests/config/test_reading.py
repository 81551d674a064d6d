"""Files and command lines, as users write them."""

from __future__ import annotations

import pytest

from prefopt.config import ConfigError, parse_overrides, read_yaml, resolve

NEEDED = {"method": "dpo", "model": "m", "data": "d"}


def test_overrides_are_read_as_yaml():
    given = parse_overrides(
        ["beta=0.3", "--lr", "1e-5", "--report_to=[tensorboard]", "--use-peft", "--eval_data=null"]
    )
    assert given["beta"] == 0.3
    assert given["report_to"] == ["tensorboard"]
    assert given["use_peft"] is True
    assert given["eval_data"] is None
    config, _ = resolve(NEEDED, given)
    assert config.learning_rate == 1e-5


def test_negative_value_after_a_space():
    assert parse_overrides(["--nu", "-1"]) == {"nu": -1}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["beta"], "key=value"), (["a=1", "--a", "2"], "twice"), (["a=[1"], "cannot be read")],
)
def test_refused_overrides(arguments, words):
    with pytest.raises(ConfigError, match=words):
        parse_overrides(arguments)


def test_files(tmp_path):
    with pytest.raises(ConfigError, match="cannot read"):
        read_yaml(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- a\n")
    with pytest.raises(ConfigError, match="key: value"):
        read_yaml(tmp_path / "list.yaml")
    (tmp_path / "bad.yaml").write_text("a: [\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        read_yaml(tmp_path / "bad.yaml")


def test_a_bare_flag_before_an_override():
    assert parse_overrides(["--use-peft", "lora_r=4"]) == {"use_peft": True, "lora_r": 4}
    assert parse_overrides(["--use-peft", "nu=4"]) == {"use_peft": True, "nu": 4}
    assert parse_overrides(["--data", "a=b.jsonl"]) == {"data": "a=b.jsonl"}
    assert parse_overrides(["--use_peft", "--seed", "1"]) == {"use_peft": True, "seed": 1}


def test_bare_flags_and_empty_values():
    given = parse_overrides(["--overwrite", "--run_name=", "--use-peft"])
    assert given == {"overwrite": True, "run_name": "", "use_peft": True}


def test_keys_of_a_file_are_text(tmp_path):
    (tmp_path / "a.yaml").write_text("1: 2\n")
    with pytest.raises(ConfigError, match="key: value"):
        read_yaml(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--use-peft", "lora_r=4"], {"use_peft": True, "lora_r": 4}),
        (["--use-peft", "lora-r=4"], {"use_peft": True, "lora_r": 4}),
        (["--use-peft", "beta=0.3"], {"use_peft": True, "beta": 0.3}),  # an objective's
        (["--use-peft", "lr=1", "--overwrite"], {"use_peft": True, "lr": 1, "overwrite": True}),
        (["--bf16", "beta=0.3"], {"bf16": True, "beta": 0.3}),
        (["--bf16", "lr=1"], {"bf16": True, "lr": 1}),
        (["--use-peft", "true", "lora_r=4"], {"use_peft": True, "lora_r": 4}),
        (["--run_name", "night=3"], {"run_name": "night=3"}),  # no key: a value that holds =
        (["--data", "s3://bucket?lr=1"], {"data": "s3://bucket?lr=1"}),
    ],
)
def test_a_flag_before_an_override(arguments, expected):
    assert parse_overrides(arguments) == expected


@pytest.mark.parametrize("arguments", [["seed=1", "--seed"], ["--seed", "--seed"]])
def test_a_flag_given_twice(arguments):
    with pytest.raises(ConfigError, match="seed is given twice"):
        parse_overrides(arguments)
