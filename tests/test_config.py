"""One schema for YAML, overrides and keywords; every refusal says what to write instead."""

from __future__ import annotations

import pytest

from prefopt.config import ALIASES, FIELD_NAMES, ConfigError, dump, parse_overrides, read_yaml, resolve

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
    "data_config",
    "max_length",
    "max_examples",
    "ties",
    "columns",
    "label_noise",
    "dtype",
    "bf16",
    "attn_implementation",
    "gradient_checkpointing",
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
]


def test_public_keys():
    assert sorted(FIELD_NAMES) == sorted(KEYS)
    assert set(ALIASES.values()) <= set(KEYS) | {"lambda_"}


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
