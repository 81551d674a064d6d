"""`prefopt migrate` as a user runs it, on files of other tools as people have them; `prefopt train` on what it wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import prefopt
from conftest import ROWS
from processes import assert_plain_error
from processes import prefopt as command

FILES = Path(__file__).parents[1] / "data" / "migration"
TRL = {
    "gradient_checkpointing": True,
    "seed": 42,
    "per_device_eval_batch_size": 8,
}
"""Defaults that prefopt does not share."""
FACTORY = {"gradient_checkpointing": True, "seed": 42}
AXOLOTL = {"seed": 42, "dtype": "bfloat16", "save_total_limit": 4, "lr_scheduler_type": "cosine"}
NOTHING_HELD_OUT = {"eval_size": 0, "eval_strategy": "no"}

EXPECTED: dict[str, dict[str, Any]] = {
    "trl_recipe.yaml": {
        **TRL,
        "method": "dpo", "beta": 0.01, "model": "alignment-handbook/zephyr-7b-sft-full", "dtype": "bfloat16",
        "attn_implementation": "flash_attention_2", "data": "HuggingFaceH4/ultrafeedback_binarized", "split": "train_prefs",
        "eval_data": "HuggingFaceH4/ultrafeedback_binarized", "eval_split": "test_prefs", "eval_steps": 100,
        "learning_rate": 5e-7, "num_train_epochs": 1, "gradient_accumulation_steps": 2, "lr_scheduler_type": "cosine",
        "warmup_ratio": 0.1, "bf16": True, "save_steps": 100, "save_total_limit": 1, "report_to": ["wandb"],
        "run_name": "zephyr-dpo", "output_dir": "data/zephyr-7b-dpo-full",
    },
    "trl_lora.yaml": {
        **TRL, **NOTHING_HELD_OUT,
        "method": "dpo+bco_pair+sft", "loss_weights": [0.8, 0.2, 1.0], "average": "batch", "beta": 0.1,
        "model": "Qwen/Qwen2.5-0.5B-Instruct", "dtype": "float32", "data": "trl-lib/ultrafeedback_binarized", "max_length": None,
        "learning_rate": 5e-6, "num_train_epochs": 3, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 8,
        "max_steps": 200, "bf16": True, "save_steps": 500, "logging_steps": 25, "output_dir": "Qwen2.5-0.5B-DPO",
        "use_peft": True, "lora_r": 32, "lora_alpha": 16, "lora_target_modules": ["q_proj", "v_proj"],
    },
    "handbook_qlora.yaml": {
        **TRL,
        "method": "dpo", "beta": 0.01, "model": "HuggingFaceH4/mistral-7b-sft-beta", "dtype": "bfloat16",
        "attn_implementation": "flash_attention_2", "data": "HuggingFaceH4/ultrafeedback_binarized", "split": "train_prefs",
        "eval_data": "HuggingFaceH4/ultrafeedback_binarized", "eval_split": "test_prefs", "eval_steps": 200,
        "learning_rate": 5e-6, "num_train_epochs": 1, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 4,
        "lr_scheduler_type": "cosine", "warmup_ratio": 0.1, "optim": "paged_adamw_32bit", "bf16": True, "save_steps": 100,
        "save_total_limit": 1, "output_dir": "data/mistral-7b-dpo-qlora", "use_peft": True, "lora_alpha": 16,
        "lora_target_modules": ["q_proj", "v_proj"], "load_in_4bit": True, "bnb_4bit_compute_dtype": "bfloat16",
        "bnb_4bit_use_double_quant": False,
    },
    "trl_dump.json": {
        **TRL, **NOTHING_HELD_OUT,
        "method": "robust", "beta": 0.3, "label_smoothing": 0.1, "learning_rate": 3e-6, "num_train_epochs": 2, "seed": 7,
        "warmup_ratio": 0.1, "bf16": False, "output_dir": "outputs/dpo", "model": "m", "data": "d",
    },
    "llamafactory/dpo_lora.yaml": {
        **FACTORY, **NOTHING_HELD_OUT,
        "method": "dpo+sft", "loss_weights": [1.0, 0.2], "beta": 0.1, "model": "Qwen/Qwen3-4B-Instruct-2507", "dtype": "bfloat16",
        "data": "data/dpo_en_demo.json", "max_length": 2048, "max_examples": 1000, "learning_rate": 5e-6, "num_train_epochs": 3,
        "per_device_train_batch_size": 1, "gradient_accumulation_steps": 8, "lr_scheduler_type": "cosine",
        "per_device_eval_batch_size": 8, "warmup_ratio": 0.1, "bf16": True, "save_steps": 500,
        "output_dir": "saves/qwen3-4b/lora/dpo", "use_peft": True, "lora_r": 8, "lora_alpha": 16, "lora_target_modules": "all-linear",
    },
    "llamafactory/kto.yaml": {
        **FACTORY,
        "method": "kto", "beta": 0.2, "undesirable_weight": 1.33, "model": "meta-llama/Meta-Llama-3-8B-Instruct",
        "data": "argilla/ultrafeedback-binarized-preferences-cleaned-kto", "eval_size": 0.05, "eval_steps": 200,
        "learning_rate": 5e-6, "num_train_epochs": 1, "max_length": 1024, "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 8, "per_device_eval_batch_size": 1, "warmup_steps": 20, "bf16": False, "save_steps": 500,
        "output_dir": "saves/llama3-8b/lora/kto", "use_peft": True, "lora_r": 16, "lora_alpha": 16,
        "lora_target_modules": ["q_proj", "v_proj"], "load_in_4bit": True,
    },
    "llamafactory/full_simpo_ds3.yaml": {
        **NOTHING_HELD_OUT,
        "seed": 42, "gradient_checkpointing": False,
        "method": "simpo", "beta": 2.5, "gamma": 1.4, "model": "meta-llama/Meta-Llama-3-8B-Instruct",
        "attn_implementation": "flash_attention_2", "data": "llamafactory/ultrafeedback_binarized",
        "rename_columns": {"better": "chosen", "worse": "rejected"}, "max_length": 2048, "learning_rate": 1e-6,
        "num_train_epochs": 1, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 16, "lr_scheduler_type": "cosine",
        "per_device_eval_batch_size": 8, "max_grad_norm": None, "warmup_ratio": 0.1, "bf16": True,
        "output_dir": "saves/llama3-8b/full/simpo",
    },
    "axolotl_dpo.yaml": {
        **AXOLOTL,
        "method": "dpo", "beta": 0.05, "model": "meta-llama/Meta-Llama-3-8B-Instruct", "data": "data/dpo_test.jsonl",
        "rename_columns": {"conversation": "messages"}, "eval_size": 0.05, "eval_steps": 0.0625, "max_length": 4096,
        "learning_rate": 2e-4, "num_train_epochs": 4, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 4,
        "per_device_eval_batch_size": 2, "warmup_steps": 10, "gradient_checkpointing": True, "logging_steps": 1,
        "output_dir": "./outputs/lora-out", "run_name": "llama3-dpo", "use_peft": True, "lora_r": 32, "lora_alpha": 16,
        "lora_target_modules": "all-linear", "attn_implementation": "flash_attention_2", "report_to": ["wandb"],
    },
    "axolotl_simpo.yaml": {
        **AXOLOTL, **NOTHING_HELD_OUT,
        "method": "simpo", "beta": 2.5, "gamma": 1.0, "model": "NousResearch/Meta-Llama-3-8B",
        "data": "argilla/distilabel-capybara-dpo-7k-binarized", "max_length": 2048, "gradient_accumulation_steps": 4,
        "learning_rate": 8e-7, "per_device_train_batch_size": 4, "per_device_eval_batch_size": 4, "warmup_ratio": 0.03, "bf16": True,
        "output_dir": "./outputs/simpo-out", "save_steps": 0.5, "report_to": ["tensorboard"],
    },
    "axolotl_kto.yaml": {
        **AXOLOTL, **NOTHING_HELD_OUT,
        "method": "kto", "beta": 0.5, "desirable_weight": 0.2, "model": "meta-llama/Llama-3.2-1B",
        "data": "argilla/ultrafeedback-binarized-preferences-cleaned-kto", "max_length": 2048, "learning_rate": 2e-4,
        "per_device_train_batch_size": 2, "per_device_eval_batch_size": 2, "warmup_steps": 20, "optim": "adamw_bnb_8bit",
        "gradient_checkpointing": True, "logging_steps": 1, "output_dir": "./outputs/qlora-out", "use_peft": True, "lora_r": 32,
        "lora_alpha": 64, "load_in_4bit": True, "lora_target_modules": "all-linear", "attn_implementation": "flash_attention_2",
    },
}  # fmt: skip
"""Every key that is written, by file."""
SAID: dict[str, list[str]] = {
    "trl_recipe.yaml": ["renamed", "dataset_num_proc: 12", "one process", "max_prompt_length: 512", "use_liger_kernel", "--trainer"],
    "trl_lora.yaml": [
        "default made explicit", "prefopt's is 1.0", "trust_remote_code: true", "never run", "accelerate launch", "(not shown)",
    ],
    "handbook_qlora.yaml": ["a configuration of TRL", "preprocessing_num_workers: 8", "empty system message", "dataset_mixer"],
    "trl_dump.json": ["renamed", "loss_type: ['robust']", "keys say what prefopt does by itself"],
    "llamafactory/dpo_lora.yaml": ["pref_ftx: 0.2", "lora_target: all", "template: qwen3_nothink", "prefopt's is 32", "to check"],
    "llamafactory/kto.yaml": ["kto_rejected_weight: 1.33", "plain texts", "lora_dropout: 0.05", "that of the adapters too"],
    "llamafactory/full_simpo_ds3.yaml": ["deepspeed", "0 is no clipping there", "disable_gradient_checkpointing"],
    "axolotl_dpo.yaml": ["lora_target_linear: true", "a share of all steps", "chat_template: llama3", "pad_to_sequence_len"],
    "axolotl_simpo.yaml": ["16 rows a step, 4 at a time", "use_tensorboard: true", "deepspeed"],
    "axolotl_kto.yaml": ["kto_desirable_weight: 0.2", "plain texts", "adamw_bnb_8bit"],
}  # fmt: skip
"""Words of the table, by file."""


def migrated(name: str, folder: Path, *more: object) -> tuple[Path, str]:
    """A file's migration and what the command said; the command runs in the file's folder."""
    source, out = FILES / name, folder / "prefopt.yaml"
    given = ("model=m", "data=d") if name == "trl_dump.json" else ()
    done = command(source.parent, "migrate", source.name, "--output", out, *given, *more)
    assert done.returncode == 0, done.stderr
    return out, done.stdout


@pytest.mark.parametrize("name", EXPECTED)
def test_files_as_people_have_them(name, tmp_path):
    out, said = migrated(name, tmp_path)
    text = out.read_text("utf-8")
    assert yaml.safe_load(text) == EXPECTED[name]
    for words in SAID[name]:
        assert words in said, said
    assert "hf_not_for_the_table" not in text + said


def as_messages(row: dict[str, str]) -> dict[str, Any]:
    """A row of tests/conftest.py as a conversation and two answers."""
    return {
        "prompt": [{"role": "user", "content": row["prompt"]}],
        "chosen": [{"role": "assistant", "content": row["chosen"].strip()}],
        "rejected": [{"role": "assistant", "content": row["rejected"].strip()}],
    }


def as_sharegpt(row: dict[str, str]) -> dict[str, Any]:
    """The same as LLaMA-Factory has it."""
    return {
        "conversations": [{"from": "human", "value": row["prompt"]}],
        "chosen": {"from": "gpt", "value": row["chosen"].strip()},
        "rejected": {"from": "gpt", "value": row["rejected"].strip()},
    }


def as_conversation(row: dict[str, str]) -> dict[str, Any]:
    """The same in the columns of `axolotl_dpo.yaml`."""
    messages = as_messages(row)
    return {
        "conversation": messages["prompt"],
        "chosen": messages["chosen"][0],
        "rejected": messages["rejected"][0],
    }


@pytest.mark.parametrize(
    ("name", "shape", "adapted"),
    [
        ("trl_lora.yaml", as_messages, 4),
        ("llamafactory/dpo_lora.yaml", as_sharegpt, 14),
        ("axolotl_dpo.yaml", as_conversation, 14),
    ],
)
def test_what_was_written_trains(name, shape, adapted, template_model, rows_file, own_cache, tmp_path):
    """With a tiny model and its own rows in place of the real ones, and nothing else of what decides the numbers changed."""
    out, _ = migrated(name, tmp_path)
    result = prefopt.train(
        config=out, model=str(template_model), data=str(rows_file([shape(row) for row in ROWS])), max_steps=2,
        output_dir=str(tmp_path / "run"), sample_prompts=0, attn_implementation=None, report_to=[], bf16=False, dtype="float32",
        gradient_accumulation_steps=1,
    )  # fmt: skip
    weights = json.loads((tmp_path / "run" / "model" / "adapter_config.json").read_text("utf-8"))
    assert weights["r"] == EXPECTED[name]["lora_r"]
    assert weights["lora_alpha"] == EXPECTED[name]["lora_alpha"]
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text("utf-8"))
    for key in ("method", "beta", "learning_rate", "max_length", "lora_r", "seed"):
        assert saved[key] == EXPECTED[name][key]
    assert result.history[-1]["step"] == 2
    from safetensors import safe_open

    with safe_open(tmp_path / "run" / "model" / "adapter_model.safetensors", "pt") as file:
        assert len(file.keys()) == 2 * adapted


def test_refusals_are_plain(tmp_path):
    (tmp_path / "sft.yaml").write_text(
        "base_model: m\nmicro_batch_size: 1\ndatasets: [{path: a}, {path: b}]\n"
    )
    assert_plain_error(
        command(tmp_path, "migrate", "sft.yaml"), "supervised fine-tuning is no training on comparisons"
    )
    (tmp_path / "training_args.bin").write_bytes(b"\x80\x04")
    assert_plain_error(command(tmp_path, "migrate", "training_args.bin"), "is a pickle", "to_dict()")
    (tmp_path / "dpo.yaml").write_text("loss_type: sigmoid\nbeta: 0.1\n")
    assert_plain_error(command(tmp_path, "migrate", "dpo.yaml"), "no model and no data", "model=... data=...")
    assert not list(tmp_path.glob("*.prefopt.yaml"))
    done = command(tmp_path, "migrate", "dpo.yaml", "model=m", "data=d")
    assert done.returncode == 0, done.stderr
    assert_plain_error(command(tmp_path, "migrate", "dpo.yaml", "model=m", "data=d"), "exists", "--overwrite")


def test_values_of_several_lines_stay_in_comments(tmp_path):
    """A line of a template must not become a key of what is written."""
    template = "{% set x = 1 %}\n  num_train_epochs: 9\r\n{{ x }}\u2028seed: 8\x85{% endif %}\n"
    given = {
        "base_model": "m", "rl": "dpo", "datasets": [{"path": "x"}], "chat_template_jinja": template, "learning_rate": 1e-5,
        "tokens": [template],
    }  # fmt: skip
    (tmp_path / "ax.yaml").write_text(yaml.safe_dump(given), "utf-8")
    done = command(tmp_path, "migrate", "ax.yaml")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "ax.prefopt.yaml").read_text("utf-8")
    assert not {"num_train_epochs"} & set(yaml.safe_load(text))
    assert "#   chat_template_jinja: {% set x = 1 %}   num_train_epochs: 9" in text
    del given["chat_template_jinja"], given["tokens"]
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump(given), "utf-8")
    assert command(tmp_path, "migrate", "plain.yaml").returncode == 0
    plain = (tmp_path / "plain.prefopt.yaml").read_text("utf-8")
    assert yaml.safe_load(plain) == yaml.safe_load(text)


def test_what_cannot_be_written_is_plain(tmp_path, monkeypatch):
    from click.testing import CliRunner

    from prefopt.cli.migrate import command as migrate

    monkeypatch.setattr("prefopt.migration.written", lambda *_: "method: [dpo")
    (tmp_path / "dpo.yaml").write_text("loss_type: sigmoid\n", "utf-8")
    done = CliRunner().invoke(migrate, [str(tmp_path / "dpo.yaml"), "model=m", "data=d"])
    assert done.exit_code == 1
    assert "cannot be written as YAML, so nothing was written" in done.output
    assert not (tmp_path / "dpo.prefopt.yaml").exists()


def test_train_names_every_foreign_key_and_the_command(tmp_path):
    (tmp_path / "axolotl.yaml").write_text((FILES / "axolotl_dpo.yaml").read_text("utf-8"), "utf-8")
    done = command(tmp_path, "train", "dpo", "axolotl.yaml", "model=m", "data=d")
    assert_plain_error(
        done, "base_model: Axolotl's name of `model`", "flash_attention: write `attn_implementation: flash_attention_2`", "`prefopt migrate FILE`",
        "pad_to_sequence_len: prefopt shares prompts", "Is this a configuration of Axolotl?",
    )  # fmt: skip
    assert_plain_error(
        command(tmp_path, "train", "axolotl.yaml"),
        "no method is given",
        "Is this a configuration of Axolotl?",
    )
