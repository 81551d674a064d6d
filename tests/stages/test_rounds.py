"""Training in rounds: what each step leaves on disk, what it is made of, and what the methods have in common."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import prefopt
from prefopt.config import read_yaml
from prefopt.config.keys.rounds import RoundKeys
from prefopt.sources.worst_case import worst_case
from stages.staged_rig import ROUNDS, ROWS, Asked, longest, rows, train, weights, write

ARTEFACTS = {
    "prompts.jsonl",
    "answers.jsonl",
    "labels.jsonl",
    "pairs.jsonl",
    "round.json",
    "sampling.json",
    "run",
}


def logp_by_hand(folder: Path, prompt: str, answer: str, ended: bool) -> float:
    """log pi(answer, and its end if it has one | prompt), without any of prefopt."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    text = prompt + answer + tokenizer.eos_token * ended
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    first = len(tokenizer(prompt)["input_ids"])
    with torch.no_grad():
        logp_TV = model(ids).logits[0].log_softmax(-1)[first - 1 : -1]
    return float(logp_TV.gather(-1, ids[0, first:, None]).sum())


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write(tmp_path / "rows.jsonl", ROWS)


def test_ssapo_leaves_every_step_on_disk(tiny_model, data, own_cache, tmp_path, monkeypatch):
    asked = Asked(monkeypatch)
    folder = tmp_path / "run"
    result = train("ssapo", tiny_model, data, folder, beta=0.5, epsilon=0.2)

    assert {p.name for p in (folder / "stages").iterdir()} == {"data", "0", "1", "2"}
    labelled = rows(folder / "stages/data/labelled.jsonl")
    held_out = rows(folder / "stages/data/held_out.jsonl")
    assert (len(labelled), len(held_out)) == (4, 2)
    used = {row["prompt"] for row in (*labelled, *held_out)}
    reference = tiny_model
    for number in (1, 2):
        stage = folder / "stages" / str(number)
        assert {p.name for p in stage.iterdir()} == ARTEFACTS
        prompts = rows(stage / "prompts.jsonl")
        assert len(prompts) == 3
        assert not used & {row["prompt"] for row in prompts}, "a prompt serves once"
        used |= {row["prompt"] for row in prompts}
        answers = rows(stage / "answers.jsonl")[1:]
        assert len(answers) == 6
        policy = folder / "stages" / str(number - 1) / "run" / "model"
        by_id = {row["id"]: row for row in rows(stage / "labels.jsonl")}
        for prompt in prompts:
            found = by_id[prompt["id"]]
            said = {row["text"]: row["ended"] for row in answers if row["id"] == prompt["id"]}
            assert sorted(found["answers"]) == sorted(t for t in said if t.strip())
            for at, text in enumerate(found["answers"]):
                assert found["ended"][at] is said[text]
                for side, model in (("policy", policy), ("reference", reference)):
                    by_hand = logp_by_hand(model, prompt["prompt"], text, said[text])
                    assert found[f"logp_{side}"][at] == pytest.approx(by_hand, abs=2e-4)
        pairs = rows(stage / "pairs.jsonl")
        for pair in pairs:
            found = by_id[pair["id"]]
            reward = 0.5 * (np.array(found["logp_policy"]) - np.array(found["logp_reference"]))
            assert pair["chosen"] == found["answers"][reward.argmax()]
            assert pair["rejected"] == found["answers"][reward.argmin()]
            assert pair["xi"] == pytest.approx(reward.max() - reward.min())
            assert pair["chosen_ended"] is found["ended"][reward.argmax()]
            assert pair["rejected_ended"] is found["ended"][reward.argmin()]
        worst = worst_case([pair["xi"] for pair in pairs], epsilon=0.2)
        assert [pair["robust_moved"] for pair in pairs] == worst.moved_N.tolist()
        assert [pair["robust_shift"] for pair in pairs] == worst.shift_N.tolist()
        assert any(pair["robust_moved"] > 0 for pair in pairs)
        told = json.loads((stage / "round.json").read_text())
        assert told["pairs"] == len(pairs)
        assert told["worst_case"]["worst_value"] > told["worst_case"]["center_value"]
        lines = rows(stage / "run" / "metrics.jsonl")
        # the columns have reached the loss
        assert any(line.get("ssapo/moved", 0) > 0 for line in lines)

    assert len(asked.samples) == len(set(asked.samples)) == 2 * 3 * 2
    assert read_yaml(folder / "config.yaml")["epsilon"] == 0.2
    assert weights(folder) == weights(folder / "stages/2/run")
    page = result.report.read_text()
    assert "stages/1/run/report.html" in page
    model, tokenizer = result.load_model()
    assert tokenizer.decode(
        model.generate(**tokenizer("Sort: red", return_tensors="pt"), max_new_tokens=4)[0]
    )


def test_command_line_goes_through_the_rounds(tiny_model, data, own_cache, tmp_path):
    given = [f"{k}={v}" for k, v in {**ROUNDS, "rounds": 1}.items()]
    found = subprocess.run(
        [sys.executable, "-m", "prefopt", "train", "spa", f"model={tiny_model}", f"data={data}",
         f"output_dir={tmp_path / 'run'}", "doubted_share=0.5", *given],
        capture_output=True, text=True, env=os.environ | {"PREFOPT_CACHE": str(own_cache)}, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    pairs = rows(tmp_path / "run/stages/1/pairs.jsonl")
    assert {pair["spa_flag"] for pair in pairs} <= {0.0, 1.0}
    assert sum(pair["spa_flag"] for pair in pairs) == len(pairs) // 2
    AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")


def test_online_dpo_pairs_what_the_judge_says(tiny_model, data, own_cache, tmp_path):
    told: list[tuple[str, str]] = []

    def judge(prompt, answer):
        told.append((prompt, answer))
        return longest(prompt, answer)

    folder = tmp_path / "run"
    train("online_dpo", tiny_model, data, folder, reward=judge, rounds=1, responses=3, judge=None)
    found = rows(folder / "stages/1/labels.jsonl")
    assert [row["score"] for row in found] == [[float(len(a)) for a in row["answers"]] for row in found]
    for pair in rows(folder / "stages/1/pairs.jsonl"):
        assert pair["chosen"] == max(by_id(found, pair["id"])["answers"], key=len)
        assert len(pair["rejected"]) == min(len(a) for a in by_id(found, pair["id"])["answers"])
    assert told[0][0].startswith("Sort: ")
    assert len(told) == 9
    assert "label_accuracy" not in json.loads((folder / "stages/1/round.json").read_text())


def by_id(found, name):
    return next(row for row in found if row["id"] == name)


def test_labels_are_compared_with_a_true_reward_and_not_made_of_it(tiny_model, data, own_cache, tmp_path):
    told = train("spa", tiny_model, data, tmp_path / "told", reward=longest, rounds=1)
    train("spa", tiny_model, data, tmp_path / "alone", rounds=1)
    assert weights(tmp_path / "told") == weights(tmp_path / "alone")
    right = [
        0.5 if len(p["chosen"]) == len(p["rejected"]) else float(len(p["chosen"]) > len(p["rejected"]))
        for p in rows(tmp_path / "told/stages/1/pairs.jsonl")
    ]
    found = json.loads((told.output_dir / "stages/1/round.json").read_text())
    assert found["label_accuracy"] == pytest.approx(np.mean(right))


def test_without_adversary_and_without_smoothing_both_are_iterative_dpo(
    tiny_model, data, own_cache, tmp_path
):
    train("ssapo", tiny_model, data, tmp_path / "ssapo", epsilon=0)
    train("spa", tiny_model, data, tmp_path / "spa", alpha=0.0)
    assert weights(tmp_path / "ssapo") == weights(tmp_path / "spa")
    # the same by hand: DPO on the pairs that the last round left, from the model that began it
    dpo = {k: v for k, v in ROUNDS.items() if k not in RoundKeys.model_fields}
    prefopt.train(
        "dpo", model=tmp_path / "spa/stages/1/run/model", data=tmp_path / "spa/stages/2/pairs.jsonl",
        reference_model=str(tiny_model), output_dir=str(tmp_path / "dpo"),
        **{**dpo, "eval_size": 0, "beta": 0.1, "lr_scheduler_type": "constant"},
    )  # fmt: skip
    assert weights(tmp_path / "dpo") == weights(tmp_path / "spa")


def test_an_adversary_and_smoothing_change_the_weights(tiny_model, data, own_cache, tmp_path):
    options = {"rounds": 1, "beta": 0.5}
    train("spa", tiny_model, data, tmp_path / "plain", alpha=0.0, **options)
    train("ssapo", tiny_model, data, tmp_path / "ssapo", epsilon=0.5, **options)
    train("spa", tiny_model, data, tmp_path / "spa", alpha=0.4, doubted_share=0.9, **options)
    assert len({weights(tmp_path / name) for name in ("plain", "ssapo", "spa")}) == 3


def test_accumulate_keeps_labelled_and_earlier_pairs(tiny_model, data, own_cache, tmp_path):
    folder = tmp_path / "run"
    # ids of the prompts that are those of labelled rows must not clash
    prompts = [
        {"id": f"row-{n + 1}", "prompt": f"Count: {w}"}
        for n, w in enumerate(("red fig", "one", "two two", "pear", "fig", "blue"))
    ]
    given = {
        "prompts": str(write(tmp_path / "prompts.jsonl", prompts)),
        "prompts_per_round": None,
        "rounds": 2,
    }
    train("ssapo", tiny_model, data, folder, accumulate=True, max_examples=8, **given)
    first, second = (rows(folder / f"stages/{n}/pairs.jsonl") for n in (1, 2))
    labelled = rows(folder / "stages/data/labelled.jsonl")
    assert len(labelled) == 4
    assert [row["chosen"] for row in first[:4]] == [row["chosen"] for row in labelled]
    assert all((row["robust_moved"], row["robust_lambda"]) == (0.0, -1.0) for row in first[:4])
    assert second[: len(first)] == first
    assert len(second) > len(first) > 4
    # all of them are trained on, though max_examples has already been heeded
    manifest = json.loads((folder / "stages/2/run/record/manifest.json").read_text())
    assert manifest["data"]["examples"] == len(second)


def test_previous_model_as_reference(tiny_model, data, own_cache, tmp_path):
    folder = tmp_path / "run"
    train("spa", tiny_model, data, folder, train_reference="previous")
    lines = rows(folder / "stages/2/run/metrics.jsonl")
    start = next(line for line in lines if line["split"] == "train")
    assert start["rewards/margins"] == pytest.approx(0, abs=1e-4)


def test_prompts_of_their_own_conversations_and_doubles(tmp_path, own_cache, data, tiny_model):
    said = [{"prompt": f"Count: {w}"} for w in ("red", "red", "blue", "fig fig")] + [
        {"prompt": ROWS[0]["prompt"]}
    ]
    folder = tmp_path / "run"
    given = {"prompts": str(write(tmp_path / "prompts.jsonl", said)), "prompts_per_round": None}
    # all rows are labelled now: `seed_pairs` is more than there are
    train("ssapo", tiny_model, data, folder, rounds=1, seed_pairs=500, eval_size=0, **given)
    assert len(rows(folder / "stages/data/labelled.jsonl")) == len(ROWS)
    asked = [row["prompt"] for row in rows(folder / "stages/1/prompts.jsonl")]
    assert asked == ["Count: red", "Count: blue", "Count: fig fig"]


def test_adapters_are_trained_on_from_round_to_round(tiny_model, data, own_cache, tmp_path):
    result = train("ssapo", tiny_model, data, tmp_path / "run", rounds=2, use_peft=True, lora_r=2)
    assert (result.model_dir / "adapter_config.json").exists()
    assert weights_of_adapter(tmp_path / "run/stages/0/run") != weights_of_adapter(tmp_path / "run")
    lines = rows(tmp_path / "run/stages/2/run/metrics.jsonl")
    # against the bare starting model, as the labels are
    assert abs(next(line for line in lines if line["split"] == "train")["rewards/margins"]) > 1e-3


def weights_of_adapter(folder: Path) -> bytes:
    return (folder / "model" / "adapter_model.safetensors").read_bytes()


def test_empty_answers_and_long_prompts_are_left_out_and_told(
    tiny_model, data, own_cache, tmp_path, monkeypatch
):
    from prefopt.modalities.text import answers as asked

    sample = asked.sample

    def some_empty(config, model, prompts, journal, number):
        answers = sample(config, model, prompts, journal, number)
        answers[0][0] = " "
        return answers

    monkeypatch.setattr(asked, "sample", some_empty)
    said = [{"prompt": f"Count: {w}"} for w in ("red", "blue", "fig fig", "red " * 200)]
    given = {"prompts": str(write(tmp_path / "prompts.jsonl", said)), "prompts_per_round": None}
    folder = tmp_path / "run"
    result = train("ssapo", tiny_model, data, folder, rounds=1, **given)
    assert [row["reason"] for row in rows(folder / "stages/data/dropped.jsonl")] == ["prompt_length"]
    told = json.loads((folder / "stages/1/round.json").read_text())
    assert told["dropped"]["empty_answers"] == 1
    assert told["prompts"] == 3
    assert "left out; stages/data/dropped.jsonl" in result.report.read_text()
