"""One schema for YAML, overrides and keywords; every refusal says what to write instead."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from prefopt import methods
from prefopt.config import (
    ALIASES,
    FIELD_NAMES,
    ConfigError,
    TrainConfig,
    dump,
    parse_overrides,
    read_yaml,
    resolve,
)

NEEDED = {"method": "dpo", "model": "m", "data": "d"}
# Public: scripts of users hold these. Adding one is fine; write it here. Renaming one needs an alias.
KEYS = [
    "method",
    "model",
    "data",
    "output_dir",
    "eval_data",
    "eval_size",
    "split",
    "eval_split",
    "rename_columns",
    "ignore_columns",
    "data_config",
    "max_length",
    "max_examples",
    "template_date",
    "ties",
    "columns",
    "label_noise",
    "dtype",
    "bf16",
    "attn_implementation",
    "batch_layout",
    "per_device_train_batch_tokens",
    "gradient_checkpointing",
    "torch_compile",
    "use_peft",
    "lora_r",
    "lora_alpha",
    "lora_dropout",
    "lora_target_modules",
    "load_in_4bit",
    "reference",
    "reference_model",
    "loss_weights",
    "learning_rate",
    "optim",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "weight_decay",
    "lr_scheduler_type",
    "warmup_steps",
    "warmup_ratio",
    "max_grad_norm",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "num_train_epochs",
    "max_steps",
    "seed",
    "per_device_eval_batch_size",
    "eval_steps",
    "logging_steps",
    "token_metrics",
    "save_steps",
    "save_total_limit",
    "save_checkpoints",
    "resume",
    "overwrite",
    "sample_prompts",
    "sample_max_new_tokens",
    "sample_temperature",
    "report_to",
    "run_name",
    "resolution",
    "crop",
    "prompt_dropout",
    "noise_epochs",
    "timestep_density",
    "error_weight",
    "guidance_scale",
    "num_inference_steps",
    "reward",
    "feature_scale",
    "text_projection",
    "shared_noise",
    "consistency",
    "judge",
    "prompts_per_step",
    "candidates",
    "threshold",
    "threshold_rule",
    "continue_from",
    "first_compared_step",
    "last_compared_step",
    "judge_timestep",
    "eta",
    "grad_scale",
    "temporal_weight",
    "average_noise",
    "anchor",
    "sampler",
    "ema_decay",
    "stage",
    "rounds",
    "seed_pairs",
    "seed_selection",
    "seed_epochs",
    "prompts",
    "prompts_per_round",
    "responses",
    "response_tokens",
    "response_temperature",
    "response_top_p",
    "generation_server",
    "accumulate",
    "train_reference",
    "epsilon",
    "group_size",
    "doubted_share",
    "split_margin",
    "split_rule",
    "noisy_pairs",
    "first",
    "perturbations",
    "radius",
    "radius_relative",
    "perturbed",
    "perturbation_sampler",
    "fast_sampling",
    "gate",
    "step_size",
    "keep_fraction",
    "lambda_g",
    "clip_sigma",
    "accept_check",
]


def test_public_keys():
    assert sorted(FIELD_NAMES) == sorted(KEYS)
    assert set(ALIASES.values()) <= set(KEYS) | {"lambda_"}


def test_no_objective_has_a_key_of_the_schema():
    """It would be taken for the schema's and never reach the objective."""
    from prefopt.objectives import names, registry

    clashes = {(n, k) for n in names() for k in registry.hyperparameter_names(n) if k in FIELD_NAMES}
    assert clashes == {("beta_dpo", "seed")}, "the run's seed, meant for both"


def test_later_layers_win():
    config, hyper = resolve(NEEDED, {"beta": 0.1, "seed": 1}, {"beta": 0.3})
    assert (hyper["beta"], config.seed) == (0.3, 1)


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


def test_dump_reads_back(tmp_path):
    config, hyper = resolve({**NEEDED, "method": "dpo_rk", "nu": 2.5, "lr": 1e-5, "columns": ["a"]})
    path = tmp_path / "config.yaml"
    path.write_text(dump(config, hyper))
    assert resolve(read_yaml(path)) == (config, hyper)


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


def test_a_bare_flag_before_an_override():
    assert parse_overrides(["--use-peft", "lora_r=4"]) == {"use_peft": True, "lora_r": 4}
    assert parse_overrides(["--use-peft", "nu=4"]) == {"use_peft": True, "nu": 4}
    assert parse_overrides(["--data", "a=b.jsonl"]) == {"data": "a=b.jsonl"}
    assert parse_overrides(["--use_peft", "--seed", "1"]) == {"use_peft": True, "seed": 1}


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


def test_defaults_that_results_depend_on():
    config = TrainConfig(**NEEDED)  # before a method's own defaults
    expected = {
        "max_length": 1024, "eval_size": 0.1, "learning_rate": 1e-6, "optim": "adamw", "adam_beta1": 0.9,
        "adam_beta2": 0.999, "adam_epsilon": 1e-8, "weight_decay": 0.0, "lr_scheduler_type": "linear",
        "warmup_steps": 0, "warmup_ratio": 0.0, "max_grad_norm": 1.0, "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 1, "num_train_epochs": 1.0, "max_steps": None, "seed": 0, "ties": None,
        "label_noise": 0.0, "dtype": "auto", "lora_r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "reference": "auto",
    }  # fmt: skip
    assert {key: getattr(config, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("eval_size", -0.1),
        ("label_noise", 1.1),
        ("label_noise", -0.1),
        ("max_examples", 0),
        ("lora_r", 0),
        ("lora_dropout", 1.0),
        ("adam_beta1", 1.0),
        ("adam_beta2", 1.0),
        ("adam_epsilon", 0),
        ("weight_decay", -1),
        ("warmup_ratio", 1.5),
        ("max_grad_norm", 0),
        ("per_device_train_batch_size", 0),
        ("gradient_accumulation_steps", 0),
        ("num_train_epochs", 0),
        ("save_total_limit", 0),
        ("sample_temperature", 0),
        ("ties", "keep"),
    ],
)
def test_values_out_of_range(key, value):
    with pytest.raises(ConfigError, match=f"^{key}: .*given {value!r}"):
        resolve(NEEDED, {key: value})


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


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("max_steps", 0, "or -1: by num_train_epochs"),
        ("max_steps", -2, "or -1: by num_train_epochs"),
        ("max_steps", 0.5, "valid integer"),
        ("eval_steps", 0, "null: ten times a run"),
        ("eval_steps", 0.2, "optimizer steps from one evaluation"),
        ("save_steps", 0, "null: at the end of every epoch"),
        ("save_steps", 0.5, "optimizer steps from one checkpoint"),
        ("logging_steps", 0, "optimizer steps from one line"),
        ("logging_steps", 0.1, "optimizer steps from one line"),
        ("save_total_limit", None, "newest checkpoints to keep"),
        ("num_train_epochs", -1, "greater than 0"),
        ("num_train_epochs", float("inf"), "finite"),
        ("num_train_epochs", float("nan"), "finite"),
        ("max_grad_norm", 0, "null: no clipping"),
        ("per_device_train_batch_tokens", 0, "greater than or equal to 1"),
        ("per_device_train_batch_tokens", -1, "greater than or equal to 1"),
        ("warmup_steps", 0.1, "valid integer"),
        ("rounds", -1, "greater than or equal to 0"),
        ("seed_epochs", 0, "greater than 0"),
    ],
)
def test_values_that_would_do_nothing(key, value, words):
    with pytest.raises(ConfigError, match=rf"^{key}\b.*{words}"):
        resolve(NEEDED, {key: value})


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


def test_schema_is_strict_and_frozen():
    config, _ = resolve(NEEDED)
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 1
    with pytest.raises(ValidationError, match="betta"):
        TrainConfig(**NEEDED, betta=1)


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


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_that_no_generator_takes(seed):
    with pytest.raises(ConfigError, match=rf"seed: input should be (greater|less) than .*given {seed}"):
        resolve(NEEDED, {"seed": seed})


def test_braces_in_a_folders_name():
    from prefopt.config import run_folder

    keys = {"method": "dpo+0.2*sft", "model": "m", "data": "d"}
    assert run_folder(resolve(keys | {"output_dir": "r/{method}-{seed}"})[0]).as_posix() == "r/dpo-0.2*sft-0"
    for name in ("r/{foo}", "r/{0}", "r/{"):
        with pytest.raises(ConfigError, match=r"output_dir=.*only \{method\} and \{seed\} are filled in"):
            run_folder(resolve(keys | {"output_dir": name})[0])
