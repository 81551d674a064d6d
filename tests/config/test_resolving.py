"""One schema for YAML, overrides and keywords; every refusal says what to write instead."""

from __future__ import annotations

import pytest
import yaml

from prefopt import methods
from prefopt.config import ConfigError, TrainConfig, dump, read_yaml, resolve, run_folder
from prefopt.config.applying import GROUPS

NEEDED = {"method": "dpo", "model": "m", "data": "d"}


def test_later_layers_win():
    config, hyper = resolve(NEEDED, {"beta": 0.1, "seed": 1}, {"beta": 0.3})
    assert (hyper["beta"], config.seed) == (0.3, 1)


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([{**NEEDED, "betta": 1}], "betta.*did you mean 'beta'"),
        ([{**NEEDED, "learning_rte": 1}], "did you mean 'learning_rate'"),
        ([{**NEEDED, "method": "dpoo"}], "dpo"),
        ([{**NEEDED, "learning_rate": -1}], "learning_rate: .*greater than 0.*given -1"),
        ([{**NEEDED, "optim": "lion"}], "optim: .*adamw"),
        ([{"model": "m", "data": "d"}], "no method"),
        ([{"method": "dpo", "data": "d"}], "no model"),
        ([{"method": "dpo", "model": "m"}], "no data"),
        ([{**NEEDED, "lr": 1, "learning_rate": 1}], "both given"),
    ],
)
def test_refusals(layers, words):
    with pytest.raises(ConfigError, match=words):
        resolve(*layers)


def test_dump_reads_back(tmp_path):
    config, hyper = resolve({**NEEDED, "method": "dpo_rk", "nu": 2.5, "lr": 1e-5, "columns": ["a"]})
    path = tmp_path / "config.yaml"
    path.write_text(dump(config, hyper))
    assert resolve(read_yaml(path)) == (config, hyper)


def test_keys_of_some_runs_are_saved_where_they_are_set():
    """Elsewhere they would be refused when the file is read back; keys of single models among the others always stand."""
    always = [key for key in TrainConfig.model_fields if not GROUPS[key].where]
    plain = yaml.safe_load(dump(*resolve({**NEEDED, "beta": 0.3})))
    assert list(plain) == [*always, "beta"]
    assert {"max_length", "seed"} <= plain.keys()
    assert not {"resolution", "rounds", "judge", "stage"} & plain.keys()
    given = {"resolution": 64, "candidates": 9, "crop": "center"}
    told = yaml.safe_load(dump(*resolve({**NEEDED, "method": "spo", **given})))
    assert list(told)[: len(always)] == always
    assert (told["candidates"], told["resolution"]) == (9, 64)
    assert not {"crop", "anchor", "rounds"} & told.keys()


def test_trl_names():
    config, _ = resolve(
        {
            "loss_type": ["sigmoid", "sft"],
            "model_name_or_path": "m",
            "dataset_name": "d",
            "loss_weights": [1, 0.2],
        }
    )
    assert (config.method, config.model, config.data) == ("sigmoid+sft", "m", "d")


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        ({"epochs": 2}, "num_train_epochs", 2),
        ({"lr": 0.1}, "learning_rate", 0.1),
        ({"lr_scheduler": "cosine"}, "lr_scheduler_type", "cosine"),
        ({"batch_size": 3}, "per_device_train_batch_size", 3),
        ({"per_device_batch_size": 3}, "per_device_train_batch_size", 3),
        ({"dataset_config": "c"}, "data_config", "c"),
        ({"dataset_config_name": "c"}, "data_config", "c"),
        ({"dataset_split": "s"}, "split", "s"),
        ({"dataset_train_split": "s"}, "split", "s"),
        ({"output": "o"}, "output_dir", "o"),
        ({"resume_from_checkpoint": "r"}, "resume", "r"),
        ({"attn": "eager"}, "attn_implementation", "eager"),
    ],
)
def test_other_names(given, name, value):
    config, _ = resolve(NEEDED, given)
    assert getattr(config, name) == value


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"max_steps": -1}, {"max_steps": None}),
        ({"max_steps": "-1"}, {"max_steps": None}),
        ({"resume_from_checkpoint": None}, {"resume": False}),
        ({"report_to": None}, {"report_to": []}),
        ({"report_to": "none"}, {"report_to": []}),
        ({"report_to": ["none"]}, {"report_to": []}),
        ({"report_to": False}, {"report_to": []}),
        ({"report_to": "wandb"}, {"report_to": ["wandb"]}),
        ({"report_to": "wandb, tensorboard"}, {"report_to": ["wandb", "tensorboard"]}),
        ({"report_to": ["wandb", "wandb"]}, {"report_to": ["wandb"]}),
    ],
)
def test_what_other_libraries_write_for_off(given, expected):
    config, _ = resolve(NEEDED, given)
    assert {key: getattr(config, key) for key in expected} == expected


@pytest.mark.parametrize("key", ["max_steps", "lora_r", "save_steps", "num_train_epochs"])
@pytest.mark.parametrize("value", [True, False])
def test_a_switch_is_no_number(key, value):
    """`--max_steps` without a value must not mean one step."""
    with pytest.raises(ConfigError, match=f"^{key} is no switch"):
        resolve(NEEDED, {key: value})


def test_method_defaults_stand_below_everything(monkeypatch):
    monkeypatch.setattr(methods, "defaults", lambda name: {"lr": 0.5, "beta": 7.0})
    config, hyper = resolve(NEEDED)
    assert (config.learning_rate, hyper["beta"]) == (0.5, 7.0)
    config, hyper = resolve(NEEDED, {"learning_rate": 0.1, "beta": 2.0})
    assert (config.learning_rate, hyper["beta"]) == (0.1, 2.0)


def test_other_names_are_suggested_too():
    with pytest.raises(ConfigError, match="did you mean 'model_name_or_path'"):
        resolve(NEEDED, {"model_name_or_pth": "m"})


def test_braces_in_a_folders_name():
    keys = {"method": "dpo+0.2*sft", "model": "m", "data": "d"}
    assert run_folder(resolve(keys | {"output_dir": "r/{method}-{seed}"})[0]).as_posix() == "r/dpo-0.2*sft-0"
    for name in ("r/{foo}", "r/{0}", "r/{"):
        with pytest.raises(ConfigError, match=r"output_dir=.*only \{method\} and \{seed\} are filled in"):
            run_folder(resolve(keys | {"output_dir": name})[0])
