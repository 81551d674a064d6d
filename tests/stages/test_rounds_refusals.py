"""What cannot work is refused before anything is written or loaded."""

from __future__ import annotations

import pytest

import prefopt
from prefopt.config import ConfigError
from stages.staged_rig import QUIET, ROWS, longest, train, write

TOOLS = [{"type": "function", "function": {"name": "f", "description": "", "parameters": {}}}]
TIES = [{**row, "label": "tie"} for row in ROWS[:4]] + ROWS[4:]
SINGLES = [{"prompt": r["prompt"], "completion": r["chosen"], "label": True} for r in ROWS]

REFUSED = {
    "too few rows": ("ssapo", ROWS, {"seed_pairs": 9}, "leave 1 new prompts for 2 rounds of prompts_per_round=3"),
    "no prompt left": ("ssapo", ROWS, {"seed_pairs": 10, "prompts_per_round": None}, "lower rounds or seed_pairs"),
    "single samples": ("ssapo", SINGLES, {}, "holds single labelled samples"),
    "ties": ("ssapo", TIES, {}, "ties"),
    "tools": ("spa", [{**row, "tools": TOOLS} for row in ROWS], {}, "prompts carry tools"),
    "answers longer than the model": ("ssapo", ROWS, {"response_tokens": 128}, "lower response_tokens"),
    "no judge": ("online_dpo", ROWS, {}, "online_dpo needs a judge of answers"),
    "unknown judge": ("online_dpo", ROWS, {"judge": "clip:DIR"}, "no judge of texts is called 'clip:DIR'"),
    "judge of a method that labels": ("ssapo", ROWS, {"judge": "world:text"}, "judge: for methods that ask a judge .*which ssapo does not"),
    "keys of image methods": ("ssapo", ROWS, {"candidates": 3}, "candidates: for diffusion models"),
    "another's keys": ("spa", ROWS, {"epsilon": 0.5}, "epsilon: for ssapo's adversary"),
    "doubts of another": ("ssapo", ROWS, {"doubted_share": 0.5}, "doubted_share: for spa"),
    "oracle's keys": ("ssapo", ROWS, {"perturbations": 3}, "perturbations: for comparison oracles"),
    "oracle's stage": ("ssapo", ROWS, {"stage": "oracle"}, "stage=oracle belongs to compo"),
    "shifts of another reference": ("ssapo", ROWS, {"train_reference": "previous"}, "or set epsilon=0"),
    "adapter as reference": ("ssapo", ROWS, {"reference": "adapter_off", "use_peft": True}, "adapter_off"),
    "everything doubted": ("spa", ROWS, {"doubted_share": 1.0}, "doubted_share=1"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_anything_is_touched(case, tiny_model, own_cache, tmp_path, monkeypatch):
    method, lines, options, message = REFUSED[case]
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", None)
    with pytest.raises(ValueError, match=message):
        train(method, tiny_model, write(tmp_path / "rows.jsonl", lines), tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_several_processes_are_refused(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    data = write(tmp_path / "rows.jsonl", ROWS)
    for method in ("ssapo", "compo"):
        with pytest.raises(ConfigError, match="without accelerate launch"):
            train(method, tiny_model, data, tmp_path / "run")


def test_ids_of_prompts_must_be_unique(tiny_model, tmp_path):
    said = [{"id": "a", "prompt": "Count: red"}, {"id": "a", "prompt": "Count: blue"}]
    given = {"prompts": str(write(tmp_path / "prompts.jsonl", said)), "prompts_per_round": None}
    with pytest.raises(ConfigError, match="the id 'a' is there twice"):
        train("ssapo", tiny_model, write(tmp_path / "rows.jsonl", ROWS), tmp_path / "run", **given)


def test_prompts_file_must_hold_prompts(tiny_model, tmp_path):
    data = write(tmp_path / "rows.jsonl", ROWS)
    for lines, message in (
        ([{"text": "a"}], "has the columns text; needed prompt"),
        ([{"prompt": ""}], "line 1"),
    ):
        given = {"prompts": str(write(tmp_path / "prompts.jsonl", lines))}
        with pytest.raises(ConfigError, match=message):
            train("ssapo", tiny_model, data, tmp_path / "run", **given)


@pytest.mark.parametrize("options", [{"rounds": 1}, {"stage": "all", "seed_pairs": 3}, {"gate": 0.1}])
def test_methods_of_one_run_refuse_stages(options, tiny_model, tmp_path):
    data = write(tmp_path / "rows.jsonl", ROWS)
    with pytest.raises(ConfigError, match="for methods of several runs, and dpo is one run"):
        prefopt.train(
            "dpo", model=tiny_model, data=data, output_dir=str(tmp_path / "run"), **QUIET, **options
        )


def test_a_loss_alone_refuses_rounds(tiny_model, tmp_path):
    data = write(tmp_path / "rows.jsonl", ROWS)
    with pytest.raises(ConfigError, match="stage=gradient is a single run"):
        train("ssapo", tiny_model, data, tmp_path / "run", stage="gradient")


def test_image_models_are_refused(tmp_path):
    data = write(tmp_path / "rows.jsonl", ROWS)
    (tmp_path / "pipe").mkdir()
    (tmp_path / "pipe" / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    with pytest.raises(
        ConfigError,
        match="ssapo trains text models",
    ):
        train("ssapo", tmp_path / "pipe", data, tmp_path / "run")


def test_a_judge_that_finds_all_answers_equal_stops_the_round(tiny_model, own_cache, tmp_path):
    data = write(tmp_path / "rows.jsonl", ROWS)
    with pytest.raises(ValueError, match="no pair came of 3 prompts"):
        train("online_dpo", tiny_model, data, tmp_path / "run", reward=lambda prompt, answer: 0.0)
    # what was sampled is there for another try with a better judge
    found = train("online_dpo", tiny_model, data, tmp_path / "run", reward=longest, overwrite=True, rounds=0)
    assert found.model_dir.exists()
