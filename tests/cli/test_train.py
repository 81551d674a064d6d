"""`prefopt train` as a user runs it: in a process of its own, judged by exit code, output and the run's folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from conftest import ROWS
from processes import assert_plain_error, prefopt

SHORT = ["max_steps=2", "sample_prompts=0", "learning_rate=1e-3", "eval_size=2"]


def generates(model: torch.nn.Module, folder: Path) -> bool:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("Sort: fig", return_tensors="pt")["input_ids"]
    return model.generate(input_ids=ids, max_new_tokens=3, do_sample=False).shape[1] > ids.shape[1]


def test_help_is_quick_and_light(tmp_path):
    code = (
        "import sys\nfrom prefopt.cli.main import main\n"
        "try:\n    main(['--help'])\n"
        "finally:\n    print([m for m in ('torch', 'transformers', 'datasets', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "train" in done.stdout
    assert done.stdout.rstrip().endswith("[]"), done.stdout


def test_misspelt_command(tmp_path):
    assert_plain_error(prefopt(tmp_path, "trian"), "trian", "Did you mean 'train'?")


def test_misspelt_key(tmp_path):
    (tmp_path / "cfg.yaml").write_text("method: dpo\nmodel: m\ndata: d.jsonl\n")
    done = prefopt(tmp_path, "train", "cfg.yaml", "betta=0.3")
    assert done.returncode == 1
    assert_plain_error(done, "'betta'", "did you mean 'beta'?")


def test_a_method_and_a_file_for_all_else(tmp_path):
    (tmp_path / "cfg.yaml").write_text("method: kto\nmodel: ./nowhere\ndata: d.jsonl\nbeta: 0.2\n")
    assert_plain_error(
        prefopt(tmp_path, "train", "dpo", "cfg.yaml", "betta=0.3"), "'betta'", "dpo takes average, beta"
    )
    for words in (["dpo", "cfg.yaml", "beta=0.3"], ["dpo", "--config", "cfg.yaml"], ["--config=cfg.yaml"]):
        assert_plain_error(prefopt(tmp_path, "train", *words), "no model folder at ./nowhere")
    assert_plain_error(prefopt(tmp_path, "train", "cfg.yaml", "--config", "cfg.yaml"), "a run has one file")
    assert_plain_error(prefopt(tmp_path, "train", "dpo", "--config"), "--config needs a YAML file")


def test_missing_model_and_data(tiny_model, rows_file, tmp_path):
    data = rows_file(ROWS)
    done = prefopt(tmp_path, "train", "dpo", "--model", "./nowhere", "--data", data)
    assert_plain_error(done, "no model folder at ./nowhere")
    done = prefopt(tmp_path, "train", "dpo", "--model", tiny_model, "--data", "./nothing.jsonl")
    assert_plain_error(done, "nothing.jsonl")
    assert not (tmp_path / "runs" / "dpo" / "model").exists()


def test_train_load_generate_refuse_overwrite(tiny_model, rows_file, own_cache, tmp_path):
    rows = [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "chosen": [{"role": "assistant", "content": row["chosen"].strip()}],
            "rejected": [{"role": "assistant", "content": row["rejected"].strip()}],
        }
        for row in ROWS
    ]  # TRL's conversational form
    given = ["train", "dpo", "--model", tiny_model, "--data", rows_file(rows), *SHORT]
    done = prefopt(tmp_path, *given)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / "dpo"
    for name in ("config.yaml", "metrics.jsonl", "report.html", "README.md", "model", "checkpoints"):
        assert (folder / name).exists(), name
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    start = AutoModelForCausalLM.from_pretrained(tiny_model)
    assert not torch.equal(model.lm_head.weight, start.lm_head.weight)
    assert generates(model, folder / "model")

    assert_plain_error(prefopt(tmp_path, *given), "already holds a run", "overwrite=true")
    (folder / "notes.txt").write_text("mine")
    before = (folder / "metrics.jsonl").read_text()
    done = prefopt(tmp_path, *given, "overwrite=true")
    assert done.returncode == 0, done.stderr
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "metrics.jsonl").read_text() == before  # the same run again, not appended to


def test_the_saved_configuration_repeats_the_run(tiny_model, rows_file, own_cache, tmp_path):
    done = prefopt(
        tmp_path, "train", "dpo_rk", f"model={tiny_model}", f"data={rows_file(ROWS)}", *SHORT, "beta=0.7"
    )
    assert done.returncode == 0, done.stderr
    first = tmp_path / "runs" / "dpo_rk"
    done = prefopt(tmp_path, "train", first / "config.yaml", "--output_dir", "again")
    assert done.returncode == 0, done.stderr
    same = [f / "model" / "model.safetensors" for f in (first, tmp_path / "again")]
    assert same[0].read_bytes() == same[1].read_bytes()


def test_lora_loads_through_peft(tiny_model, rows_file, own_cache, tmp_path):
    from peft import AutoPeftModelForCausalLM

    done = prefopt(
        tmp_path,
        "train",
        "dpo",
        f"model={tiny_model}",
        f"data={rows_file(ROWS)}",
        *SHORT,
        "use_peft=true",
        "lora_r=4",
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / "dpo" / "model"
    assert not (folder / "model.safetensors").exists()
    model = AutoPeftModelForCausalLM.from_pretrained(folder)
    assert any(p.abs().max() > 0 for name, p in model.named_parameters() if "lora_B" in name)
    assert generates(model, folder)


@pytest.mark.parametrize("ending", ["ties"])
def test_ties_without_a_policy_are_explained(tiny_model, rows_file, own_cache, tmp_path, ending):
    rows = [*ROWS, {**ROWS[0], "label": "tie"}]
    done = prefopt(tmp_path, "train", "dpo", f"model={tiny_model}", f"data={rows_file(rows)}", *SHORT)
    assert_plain_error(done, "drop", "as_win", "soft_half")


def test_max_steps_of_a_dumped_configuration_means_by_epochs(tiny_model, rows_file, own_cache, tmp_path):
    """-1, which every configuration of transformers and TRL holds."""
    data = rows_file(ROWS)
    given = ["train", "dpo", f"model={tiny_model}", f"data={data}", "sample_prompts=0", "eval_size=2",
             "per_device_train_batch_size=3", "num_train_epochs=2"]  # fmt: skip
    done = prefopt(tmp_path, *given, "max_steps=-1", "output_dir=run")
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "run" / "record" / "manifest.json").read_text())
    assert (manifest["steps"], manifest["epochs"]) == (6, 2)  # 8 rows in threes, twice
    for wrong in ("0", "-2"):
        done = prefopt(tmp_path, *given, f"max_steps={wrong}", "output_dir=none")
        assert_plain_error(done, "max_steps", f"given {wrong}", "-1: by num_train_epochs")
    assert not (tmp_path / "none").exists()
