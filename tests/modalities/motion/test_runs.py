"""SoPo on motions through the doors that users take: courses, calibration, exact resume, adapters, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import prefopt
import tiny_motions
from prefopt.config import ConfigError
from processes import distributed, words

QUIET: dict[str, Any] = {
    "eval_size": 0, "sample_prompts": 2, "logging_steps": 1, "eval_steps": 50, "lr_scheduler_type": "constant",
    "max_steps": 4, "per_device_train_batch_size": 2, "bf16": False, "num_inference_steps": 3, "learning_rate": 1e-3,
    "candidate_steps": 3, "guidance_scale": 1.0, "overwrite": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_motions.tiny_mdm(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return tiny_motions.stick_rows(8)


def height(prompt: str, features: torch.Tensor) -> float:
    """A judge that anyone could write: how high the root stands, in metres."""
    return float(features[:, 3].mean())


@pytest.fixture(scope="module")
def judge(tmp_path_factory) -> str:
    """Encoders of texts and motions that have learned nothing."""
    from prefopt.motion.pipeline import MotionPipeline

    pipe = MotionPipeline.from_pretrained(tiny_motions.tiny_mdm(tmp_path_factory.mktemp("j") / "m"))
    folder = tiny_motions.save_judge(tmp_path_factory.mktemp("judge") / "encoders", pipe)
    return f"retrieval:{folder}"


def train(
    model: Path, data: Any, given: str, folder: Path, method: str = "sopo", **more: Any
) -> prefopt.TrainResult:
    options = QUIET | {"judge": given} | more if method == "sopo" else QUIET | more
    options = {k: v for k, v in options.items() if method == "sopo" or not k.startswith("candidate")}
    return prefopt.train(method, model=str(model), data=data, output_dir=str(folder), **options)


def column(result: prefopt.TrainResult, name: str) -> list[float]:
    return [line[name] for line in result.history if name in line]


def weights(result: prefopt.TrainResult) -> dict[str, torch.Tensor]:
    return result.load_model().denoiser.state_dict()


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@pytest.fixture(scope="module")
def straight(model, rows, judge, tmp_path_factory):
    return train(model, rows, judge, tmp_path_factory.mktemp("runs") / "straight")


def test_it_starts_at_log_2_whatever_is_weighed_or_vetoed(straight):
    assert column(straight, "loss")[0] == pytest.approx(np.log(2), abs=1e-5)
    assert column(straight, "sopo/slope")[0] == pytest.approx(0.5, abs=1e-5)
    calibration = json.loads((straight.output_dir / "record" / "calibration.json").read_text())
    assert calibration["share"] == 0.5
    assert 0 < calibration["tau"] < 1
    assert all(1 <= w <= 2 for w in column(straight, "sopo/weight"))  # C - S with S in [0, 1]
    for name in ("collect/kept", "collect/rejected_reward", "collect/similarity"):
        assert all(0 <= value <= 1 for value in column(straight, name))
    assert column(straight, "collect/network_calls") == [6.0] * 4  # two candidates of three steps


def test_a_killed_run_resumes_to_the_same_bits(straight, model, rows, judge, tmp_path):
    train(model, rows, judge, tmp_path / "r", max_steps=4, save_steps=2, save_total_limit=5)
    import shutil

    folder = tmp_path / "r"
    shutil.rmtree(folder / "checkpoints" / "step-00000004")
    options = QUIET | {"judge": judge, "save_steps": 2, "resume": True}
    del options["overwrite"]
    again = prefopt.train("sopo", model=str(model), data=rows, output_dir=str(folder), **options)
    assert_same(weights(again), weights(straight))


def test_single_motions_will_do(straight, model, rows, judge, tmp_path):
    singles = [{"id": r["id"], "prompt": r["prompt"], "motion": r["chosen_motion"]} for r in rows]
    alone = train(model, singles, judge, tmp_path / "s")
    assert_same(weights(alone), weights(straight))


@pytest.mark.parametrize("pairs", ["online", "offline", "offline_data", "naive"])
def test_other_courses_train(pairs, model, rows, judge, tmp_path):
    found = train(model, rows, judge, tmp_path / pairs, pairs=pairs, variant="dsopo", max_steps=2)
    assert column(found, "loss")[0] == pytest.approx(np.log(2), abs=1e-5)
    assert column(found, "loss")[1] != column(found, "loss")[0]
    expected = {"online": 6.0, "offline": 0.0, "offline_data": 0.0, "naive": 3.0}[pairs]
    assert column(found, "collect/network_calls")[0] == expected


def test_reused_candidates_are_updates_of_one_step(model, rows, judge, tmp_path):
    found = train(model, rows, judge, tmp_path / "n", reuse_candidates=3, max_steps=2, logging_steps=1)
    once = train(model, rows, judge, tmp_path / "o", max_steps=2, logging_steps=1)
    assert len(column(found, "loss")) == len(column(once, "loss"))
    moved = sum(
        float((a - b).abs().sum())
        for a, b in zip(weights(found).values(), weights(once).values(), strict=True)
    )
    assert moved > 0
    assert column(found, "collect/network_calls") == column(once, "collect/network_calls")


def test_two_processes_are_one(model, rows, judge, tmp_path):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = tmp_path / "rows.jsonl"
    one = train(model, str(data), judge, tmp_path / "one", per_device_train_batch_size=4, max_steps=3)
    options = QUIET | {"judge": judge, "max_steps": 3, "per_device_train_batch_size": 2}
    options |= {"model": model, "data": data, "output_dir": tmp_path / "two"}
    distributed("-m", "prefopt", "train", "sopo", *words(options))
    lines = [json.loads(line) for line in (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()]
    for name in ("loss", "collect/kept", "collect/rejected_reward", "sopo/weight"):
        told = [line[name] for line in lines if name in line]
        assert told == pytest.approx(column(one, name), rel=1e-3), name


def test_adapters_are_the_policy_and_the_reference(model, rows, judge, tmp_path):
    found = train(model, rows, judge, tmp_path / "lora", use_peft=True, lora_r=4, lora_alpha=4)
    assert column(found, "loss")[0] == pytest.approx(np.log(2), abs=1e-5)
    pipe = found.load_model()
    pipe.set_progress_bar_config(disable=True)
    assert pipe(["a person walks"], [32]).features[0].shape == (32, 36)
    assert (found.output_dir / "model" / "motion_lora_weights.safetensors").is_file()


def test_everything_vetoed_is_weighted_fine_tuning(model, rows, judge, tmp_path):
    found = train(model, rows, judge, tmp_path / "v", tau=-1.0)
    calibration = json.loads((found.output_dir / "record" / "calibration.json").read_text())
    assert (calibration["tau"], calibration.get("share")) == (-1.0, None)
    assert column(found, "sopo/kept") == [0.0] * 4
    assert all(value < 1.0 for value in column(found, "loss"))


def test_the_control_is_sft_on_the_same_rows(model, rows, judge, tmp_path):
    singles = [{"prompt": r["prompt"], "motion": r["chosen_motion"]} for r in rows]
    found = train(model, singles, judge, tmp_path / "sft", method="sft")
    assert len(column(found, "loss")) == 4


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"pairs": "online"}, "add variant=dsopo"),
        ({"reference": "cached"}, "reference=cached is of no use to sopo"),
        ({"C": 0.5}, "C must be 1 or more"),
        ({"judge": "clip:somewhere"}, "no scorer of motions is called 'clip:somewhere'"),
        ({"prompts_per_step": 4}, "prompts_per_step: for methods that sample while training"),
        ({"threshold": 0.1}, "threshold"),
    ],
)
def test_settings_that_contradict_each_other(more, sentence, model, rows, judge, tmp_path):
    with pytest.raises((ConfigError, ValueError), match=sentence):
        train(model, rows, judge, tmp_path / "x", **more)


def test_without_a_judge_it_says_what_is_needed(model, rows, tmp_path):
    with pytest.raises(ConfigError, match="sopo needs a judge of motions"):
        prefopt.train("sopo", model=str(model), data=rows, output_dir=str(tmp_path / "x"), **QUIET)


def test_other_models_are_told_what_it_trains(tmp_path):
    from conftest import save_tiny_model

    with pytest.raises(ConfigError, match="sopo trains"):
        prefopt.train(
            "sopo", model=str(save_tiny_model(tmp_path / "t")), data=[], output_dir=str(tmp_path / "x")
        )
