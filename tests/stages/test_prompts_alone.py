"""Online methods on prompts without labels: what they leave on disk, and what it is made of."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

import prefopt
from prefopt.config import ConfigError
from prefopt.evaluation.reward_models import RewardModel
from stages.staged_rig import ROUNDS, WORDS, longest, rows, train, weights, write
from stages.test_rounds import logp_by_hand
from tiny_rewards import save_reward_model

PROMPTS = [{"prompt": f"Sort: {a} {b}"} for a in WORDS[:4] for b in WORDS[4:]]
ALONE = {"seed_pairs": 0, "eval_size": 4, "rounds": 1, "prompts_per_round": 4}
RULE = "def short(prompt, answer):\n    return -float(len(answer))\n"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write(tmp_path / "prompts.jsonl", PROMPTS)


@pytest.fixture(scope="module")
def reward_model(tiny_model: Path, tmp_path_factory) -> Path:
    return save_reward_model(
        tmp_path_factory.mktemp("rewards") / "helpful", AutoTokenizer.from_pretrained(tiny_model)
    )


def ended_of(stage: Path) -> dict[tuple[str, str], bool]:
    """Whether each answer of a round ended, by prompt's id and text."""
    lines = [
        row
        for name in ("answers", "opponents")
        if (stage / f"{name}.jsonl").exists()
        for row in rows(stage / f"{name}.jsonl")[1:]
    ]
    return {(row["id"], row["text"]): row["ended"] for row in lines}


def test_online_dpo_on_prompts_by_a_sum_of_rewards(
    tiny_model, data, reward_model, own_cache, tmp_path, capfd
):
    (tmp_path / "rules.py").write_text(RULE)
    judge = f"0.5*reward:{reward_model}+0.25*{tmp_path / 'rules.py'}:short"
    folder = tmp_path / "run"
    result = train(
        "online_dpo",
        tiny_model,
        data,
        folder,
        **ALONE,
        judge=judge,
        missing_eos_penalty=2.0,
        response_tokens=12,
        sample_prompts=2,
        sample_max_new_tokens=8,
    )
    assert {p.name for p in (folder / "stages").iterdir()} == {"data", "1"}
    stage, start = folder / "stages/1", folder / "stages/data"
    prompts = {
        row["id"]: row["prompt"]
        for row in (*rows(stage / "prompts.jsonl"), *rows(start / "held_prompts.jsonl"))
    }
    assert len(prompts) == 8
    reward = RewardModel(str(reward_model))
    for place in (start, stage):
        ended = ended_of(place)
        labels = rows(place / "labels.jsonl")
        assert len(labels) == 4
        for row in labels:
            texts, prompt = row["answers"], prompts[row["id"]]
            parts = row["rewards"]
            by_model = reward.scores([prompt] * len(texts), texts, row["ended"])
            assert parts["helpful"] == pytest.approx(by_model, abs=1e-5)
            assert parts["short"] == [-len(text) for text in texts]
            assert row["ended"] == [ended[row["id"], text] for text in texts]
            by_hand = [
                0.5 * a + 0.25 * b - 2.0 * (not done)
                for a, b, done in zip(parts["helpful"], parts["short"], row["ended"], strict=True)
            ]
            assert row["score"] == pytest.approx(by_hand)
        scored = {row["id"]: dict(zip(row["answers"], row["score"], strict=True)) for row in labels}
        pairs = rows(place / ("pairs.jsonl" if place == stage else "held_out.jsonl"))
        assert pairs
        for pair in pairs:
            assert scored[pair["id"]][pair["chosen"]] == max(scored[pair["id"]].values())
            assert scored[pair["id"]][pair["rejected"]] == min(scored[pair["id"]].values())
            for side in ("chosen", "rejected"):
                assert pair[f"{side}_ended"] is ended[pair["id"], pair[side]]
    found = json.loads((stage / "round.json").read_text())
    assert found["reward/short"] == pytest.approx(
        sum(sum(row["rewards"]["short"]) for row in rows(stage / "labels.jsonl")) / 8
    )

    # the starting model is the reference, and where training begins
    lines = rows(folder / "metrics.jsonl")
    assert lines[1]["eval_loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert {"eval_reward", "eval_reward/helpful", "eval_reward/short"} <= lines[1].keys()
    mixed = 0.5 * lines[1]["eval_reward/helpful"] + 0.25 * lines[1]["eval_reward/short"]
    assert lines[1]["eval_reward"] == pytest.approx(mixed)

    # how fast the answers came, and how the judge likes the model on held-out prompts
    pace, last = lines[0], lines[-1]
    assert (pace["split"], pace["stage"], pace["step"]) == ("generation", "1", 0)
    tokens = sum(row["tokens"] for row in rows(stage / "answers.jsonl")[1:])
    assert pace["sampled_tokens"] == tokens
    assert pace["tokens_per_second"] == pytest.approx(tokens / pace["sampling_seconds"], rel=0.1)
    assert pace["waited_seconds"] >= pace["sampling_seconds"] + pace["judging_seconds"] - 0.01
    assert f"round 1: {tokens} tokens sampled" in capfd.readouterr().err
    first = {row["id"]: row for row in rows(start / "answers.jsonl")[1:] if row["sample"] == 0}
    later = {row["id"]: row for row in rows(stage / "held_out_answers.jsonl")[1:]}
    assert not all(row["ended"] for row in (*first.values(), *later.values()))
    score = {
        side: [
            0.5 * reward.scores([prompts[name]], [told[name]["text"]], [told[name]["ended"]])[0]
            - 0.25 * len(told[name]["text"])
            for name in first
        ]
        for side, told in (("start", first), ("model", later))
    }
    wins = [(b > a) + 0.5 * (a == b) for a, b in zip(score["start"], score["model"], strict=True)]
    assert last["eval_win_rate"] == pytest.approx(sum(wins) / 4)
    assert last["eval_judged_reward"] == pytest.approx(sum(score["model"]) / 4, abs=1e-4)
    assert result.metrics["eval_win_rate"] == last["eval_win_rate"]
    row = json.loads((folder / "record/manifest.json").read_text())["stages"]["runs"][0]
    assert 0 < row["waited_share"] < 1
    page = result.report.read_text()
    assert all(head in page for head in ("wins against the start", "tokens a second", "share of the time"))
    assert weights(folder) == weights(stage / "run")


def test_nash_md_plays_a_mixture_and_learns_its_chances(tiny_model, data, own_cache, tmp_path):
    folder = tmp_path / "run"
    given = {
        **ALONE,
        "eval_size": 0,
        "rounds": 2,
        "prompts_per_round": 2,
        "responses": 4,
        "mixture_coef": 0.25,
    }
    train("nash_md", tiny_model, data, folder, reward=longest, beta=0.2, **given)
    policy = folder / "stages/1/run/model"
    for number in (1, 2):
        stage = folder / "stages" / str(number)
        ours, theirs = (rows(stage / f"{name}.jsonl")[1:] for name in ("answers", "opponents"))
        assert {row["sample"] for row in ours} == {0, 1}
        assert {row["sample"] for row in theirs} == {2, 3}
        texts = {(row["id"], row["sample"]): row["text"] for row in (*ours, *theirs)}
        pairs = rows(stage / "pairs.jsonl")
        assert len(pairs) == 4
        assert all(row["completion"] != row["opponent"] for row in pairs)
        for row in pairs:
            name, k = row["id"].rsplit("/", 1)
            assert row["completion"] == texts[name, int(k)]
            assert row["opponent"] == texts[name, int(k) + 2]
            assert row["completion_ended"] is ended_of(stage)[name, row["completion"]]
            gap = len(row["completion"]) - len(row["opponent"])
            assert row["probability"] == pytest.approx(1 / (1 + math.exp(-gap)))
            assert row["label"] == (gap >= 0)
        # the first step's loss, of the model that wrote the answers: by hand
        step = next(line for line in rows(stage / "run/metrics.jsonl") if line["split"] == "train")
        assert -0.01 < step["nash_md/probability"] < 1.01
        if number == 1:
            assert step["loss"] == pytest.approx(0, abs=1e-5)
    rho = {
        row["id"]: logp_by_hand(policy, row["prompt"], row["completion"], row["completion_ended"])
        - logp_by_hand(tiny_model, row["prompt"], row["completion"], row["completion_ended"])
        for row in pairs
    }
    losses = {
        row["id"]: 0.1 * rho[row["id"]] ** 2 - (row["probability"] - 0.5) * rho[row["id"]] for row in pairs
    }
    start = next(line for line in rows(stage / "run/metrics.jsonl") if line["split"] == "train")
    two = sorted(losses.values())
    assert any(start["loss"] == pytest.approx((a + b) / 2, abs=1e-4) for a in two for b in two if a != b)
    assert weights(folder) != weights(folder / "stages/1/run")


@pytest.mark.slow
def test_xpo_pairs_the_policy_with_the_reference(tiny_model, data, own_cache, tmp_path):
    given = {**ALONE, "rounds": 2, "prompts_per_round": 3, "eval_size": 0}
    train("xpo", tiny_model, data, tmp_path / "run", reward=longest, alpha=0.3, **given)
    train("xpo", tiny_model, data, tmp_path / "plain", reward=longest, alpha=0.0, **given)
    stage = tmp_path / "run/stages/2"
    theirs = {row["id"]: row["text"] for row in rows(stage / "opponents.jsonl")[1:]}
    headers = {name: rows(stage / f"{name}.jsonl")[0]["model"] for name in ("answers", "opponents")}
    assert headers["opponents"] == rows(tmp_path / "run/stages/1/opponents.jsonl")[0]["model"], (
        "the starting model's"
    )
    assert headers["answers"] != headers["opponents"]
    for pair in rows(stage / "pairs.jsonl"):
        assert pair["reference_first"] == float(pair["chosen"] == theirs[pair["id"]])
        assert theirs[pair["id"]] in (pair["chosen"], pair["rejected"])
    found = json.loads((stage / "round.json").read_text())
    assert 0 <= found["probability"] <= 1
    first = tmp_path / "run/stages/1/pairs.jsonl"
    assert first.read_bytes() == (tmp_path / "plain/stages/1/pairs.jsonl").read_bytes()
    assert weights(tmp_path / "run") != weights(tmp_path / "plain")


@pytest.mark.slow
def test_the_command_line_takes_conversations_adapters_and_a_reward(
    template_model, reward_model, own_cache, tmp_path
):
    said = [{"prompt": [{"role": "user", "content": f"Sort {n}"}]} for n in range(6)]
    bytes_reward = save_reward_model(tmp_path / "rm", AutoTokenizer.from_pretrained(template_model))
    folder = tmp_path / "run"
    given = {
        **ROUNDS, **ALONE, "eval_size": 2, "prompts_per_round": 2, "use_peft": "true", "lora_r": 2, "sample_prompts": 2,
        "judge": f"reward:{bytes_reward}", "reward": f"2*reward:{bytes_reward}",
    }  # fmt: skip
    found = subprocess.run(
        [sys.executable, "-m", "prefopt", "train", "online_dpo", f"model={template_model}",
         f"data={write(tmp_path / 'said.jsonl', said)}", f"output_dir={folder}", *(f"{k}={v}" for k, v in given.items())],
        capture_output=True, text=True, env=os.environ | {"PREFOPT_CACHE": str(own_cache)}, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert (folder / "model/adapter_config.json").exists()
    pair = rows(folder / "stages/1/pairs.jsonl")[0]
    assert pair["chosen"][0]["role"] == "assistant"
    assert any("eval_reward/rm" in line for line in rows(folder / "metrics.jsonl"))


@pytest.mark.slow
def test_a_labelled_file_gives_prompts_and_held_out_pairs(tiny_model, own_cache, tmp_path):
    labelled = [{**row, "chosen": " fig", "rejected": " pear"} for row in PROMPTS]
    folder = tmp_path / "run"
    train("online_dpo", tiny_model, write(tmp_path / "rows.jsonl", labelled), folder, reward=longest, **ALONE)
    assert {p.name for p in (folder / "stages").iterdir()} == {"data", "1"}
    assert {row["chosen"] for row in rows(folder / "stages/data/held_out.jsonl")} == {" fig"}
    assert not (folder / "stages/data/held_prompts.jsonl").exists()
    assert not any("eval_win_rate" in line for line in rows(folder / "metrics.jsonl"))


def test_a_reward_that_is_no_number_stops_before_labels_are_written(tiny_model, data, own_cache, tmp_path):
    folder, given = tmp_path / "run", ALONE | {"eval_size": 0}
    with pytest.raises(
        ValueError, match=r"reward gives the score nan to the answer .* to 'Sort: .*needed a finite number"
    ):
        train("online_dpo", tiny_model, data, folder, reward=lambda prompt, answer: math.nan, **given)
    (tmp_path / "broken.py").write_text("def broken(prompt, answer):\n    return float('inf')\n")
    judge = f"world:text+{tmp_path / 'broken.py'}:broken"
    with pytest.raises(ValueError, match="broken gives the score inf"):
        train("online_dpo", tiny_model, data, tmp_path / "sum", judge=judge, **given)
    train("online_dpo", tiny_model, data, folder, reward=longest, resume=True, **given)
    assert weights(folder)


@pytest.mark.parametrize("method", ["nash_md", "xpo"])
def test_methods_with_an_opponent_learn_from_no_label(method, tiny_model, own_cache, tmp_path):
    labelled = [{**row, "chosen": " fig", "rejected": " pear"} for row in PROMPTS]
    options = {**ROUNDS, **ALONE, "reward": longest, "output_dir": str(tmp_path / "run")}
    del options["seed_pairs"]  # whose default other methods begin with
    prefopt.train(method, model=tiny_model, data=write(tmp_path / "rows.jsonl", labelled), **options)
    assert {p.name for p in (tmp_path / "run/stages").iterdir()} == {"data", "1"}
    assert not rows(tmp_path / "run/stages/data/labelled.jsonl")
    asked = {row["prompt"] for row in rows(tmp_path / "run/stages/1/prompts.jsonl")}
    held = {row["prompt"] for row in rows(tmp_path / "run/stages/data/held_out.jsonl")}
    assert (len(asked), len(held)) == (4, 4)
    assert not asked & held


@pytest.mark.slow
def test_an_interrupted_run_goes_on_to_the_same_model(tiny_model, data, own_cache, tmp_path, monkeypatch):
    from prefopt.stages.rounds import Rounds

    given = {**ALONE, "rounds": 2, "prompts_per_round": 3, "reward": longest}
    train("nash_md", tiny_model, data, tmp_path / "whole", **given)
    compare = Rounds.compare

    def broken(self, stage, model):
        raise KeyboardInterrupt

    monkeypatch.setattr(Rounds, "compare", broken)
    with pytest.raises(KeyboardInterrupt):
        train("nash_md", tiny_model, data, tmp_path / "run", **given)
    monkeypatch.setattr(Rounds, "compare", compare)
    train("nash_md", tiny_model, data, tmp_path / "run", resume=True, **given)
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")
    lines = [
        [(line["stage"], line["split"], line["step"]) for line in rows(tmp_path / name / "metrics.jsonl")]
        for name in ("run", "whole")
    ]
    assert lines[0] == lines[1]
    AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")


REFUSED = {
    "ssapo": ("ssapo", {"seed_pairs": 4}, "holds prompts alone .*; or with a judge use online_dpo"),
    "spa without seeds": ("spa", {"labelled": True}, "seed_pairs=0 leaves it nothing"),
    "seeds of prompts": ("online_dpo", {"seed_pairs": 5}, "seed_pairs=5, but .* holds prompts alone"),
    "other prompts": ("online_dpo", {"prompts": "x.jsonl"}, "give one of them, as data"),
    "no rounds": ("online_dpo", {"rounds": 0}, "rounds=0 leaves nothing to train on"),
    "too few": ("online_dpo", {"prompts_per_round": 50}, "holds 12 prompts, of which 8 are new.*needed 1 rounds of 50"),
    "all held out": ("online_dpo", {"eval_size": 12}, "would hold out all 12 prompts"),
    "seeds of nash_md": ("nash_md", {"seed_pairs": 5, "labelled": True}, "nash_md begins with prompts"),
    "odd": ("xpo", {"responses": 3}, "responses=3: xpo samples half"),
    "assistant last": ("online_dpo", {"said": "assistant"}, "ends with the assistant's turn"),
    "no judge": ("nash_md", {"reward": None}, "nash_md needs a judge of answers: set judge=reward:DIR"),
    "two rewards": ("online_dpo", {"config_reward": True}, "reward is given as a function and by its name"),
    "unknown reward": ("dpo", {"named": "reward:nothing/at/all"}, "no model folder at nothing/at/all"),
    "penalty of verdicts": ("online_dpo", {"judge": "openai:j@http://127.0.0.1:9/v1", "missing_eos_penalty": 1.0}, "gives preferences: leave it out"),
    "reload without server": ("online_dpo", {"generation_reload": "lora"}, "there is none: give generation_server"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_anything_is_touched(case, tiny_model, own_cache, tmp_path, monkeypatch):
    method, options, message = REFUSED[case]
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", None)
    options = {**ALONE, "reward": longest, **options}
    lines = PROMPTS
    if options.pop("labelled", False):
        lines = [{**row, "chosen": " fig", "rejected": " pear"} for row in PROMPTS]
    if role := options.pop("said", None):
        lines = [{"prompt": [{"role": role, "content": "x"}]}] * 9
    data = write(tmp_path / "rows.jsonl", lines)
    if options.pop("config_reward", False):
        (tmp_path / "c.yaml").write_text("reward: world:text\n")
        options["config"] = tmp_path / "c.yaml"
    if named := options.pop("named", None):
        data = write(
            tmp_path / "rows.jsonl", [{**row, "chosen": " fig", "rejected": " pear"} for row in PROMPTS]
        )
        options = {"reward": named}
    elif method != "dpo":
        options = {**ROUNDS, **options}
    with pytest.raises((ConfigError, FileNotFoundError), match=message):
        prefopt.train(method, model=tiny_model, data=data, output_dir=str(tmp_path / "run"), **options)
    assert not (tmp_path / "run/stages").exists()
