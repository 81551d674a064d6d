"""Learning rates along a run, against transformers' own; and when a run logs, evaluates and saves."""

from __future__ import annotations

import shutil
from typing import Any, get_args

import pytest
import torch
from transformers import get_scheduler

import prefopt
from conftest import ROWS
from prefopt.config import ConfigError, TrainConfig
from prefopt.config.keys.optimization import Schedule
from prefopt.training.moments import Calendar
from prefopt.training.schedule import FOLLOWERS, make_learning_rate

ARGUMENTS: dict[str, dict[str, Any]] = {
    "cosine_with_restarts": {"num_cycles": 2},
    "cosine_with_min_lr": {"min_lr_rate": 0.1},
    "cosine_warmup_with_min_lr": {"min_lr_rate": 0.1},
    "polynomial": {"power": 2.0, "lr_end": 1e-4},
    "warmup_stable_decay": {"num_decay_steps": 5},
}


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01)


def config(**given: Any) -> TrainConfig:
    return TrainConfig(method="dpo", model="m", data="d", **given)


@pytest.mark.parametrize("warmup", [{"warmup_steps": 4}, {"warmup_steps": 0.2}, {"warmup_ratio": 0.2}])
@pytest.mark.parametrize("name", [name for name in get_args(Schedule) if name not in FOLLOWERS])
def test_a_schedule_is_that_of_transformers(name, warmup):
    given = ARGUMENTS.get(name, {})
    ours = make_learning_rate(
        config(lr_scheduler_type=name, lr_scheduler_kwargs=given, **warmup), optimizer(), 20, False
    )
    named = "constant_with_warmup" if name == "constant" else name  # a warm-up that is asked for
    theirs = get_scheduler(named, optimizer(), 4, 20, given)
    for _ in range(20):
        assert ours.latest() == theirs.get_last_lr()[0]
        ours.schedule.optimizer.step()
        theirs.optimizer.step()
        ours.step()
        theirs.step()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"cycles": 2}},
            "lr_scheduler_type=cosine.*cycles",
        ),
        ({"lr_scheduler_type": "constant", "lr_scheduler_kwargs": {"a": 2}}, "constant takes no"),
        ({"lr_scheduler_type": "warmup_stable_decay"}, "num_decay_steps"),
        ({"lr_scheduler_type": "greedy", "warmup_steps": 3}, "greedy has no warm-up"),
        ({"warmup_steps": 3, "warmup_ratio": 0.1}, "both given"),
    ],
)
def test_what_a_schedule_cannot_use_is_refused(given, words):
    with pytest.raises(ConfigError, match=words):
        make_learning_rate(config(**given), optimizer(), 20, False)


def test_a_schedule_on_a_plateau_follows_evaluations_and_resumes(tiny_model, rows_file, own_cache, tmp_path):
    """Rewards on held-out rows are at a plateau by decree: no gain is as large as the threshold."""
    given: dict[str, Any] = {
        "model": tiny_model, "data": rows_file(ROWS), "max_steps": 6, "save_steps": 2, "save_total_limit": 3, "eval_size": 2,
        "logging_steps": 1, "eval_steps": 1, "sample_prompts": 0, "per_device_train_batch_size": 4, "learning_rate": 1e-3,
        "lr_scheduler_type": "reduce_lr_on_plateau", "lr_scheduler_kwargs": {"patience": 1, "factor": 0.5, "threshold": 10.0},
        "metric_for_best_model": "rewards/margins", "output_dir": str(tmp_path / "run"),
    }  # fmt: skip

    def rates(result: prefopt.TrainResult) -> list[float]:
        return [line["learning_rate"] for line in result.history if line["split"] == "train"]

    first = prefopt.train("dpo", **given)
    assert rates(first) == [1e-3, 1e-3, 1e-3, 5e-4, 5e-4, 2.5e-4]
    expected = (first.model_dir / "model.safetensors").read_bytes()
    for step in (4, 6):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / f"step-{step:08d}")
    again = prefopt.train("dpo", resume=True, **given)
    assert rates(again) == rates(first)
    assert (again.model_dir / "model.safetensors").read_bytes() == expected
    with pytest.raises(ConfigError, match="other eval_steps"):
        prefopt.train("dpo", resume=True, **{**given, "eval_steps": 2})


@pytest.mark.parametrize(
    ("given", "log", "judge", "save", "keeps"),
    [
        ({}, {10, 20}, {2, 4, 6, 8, 10, 12, 14, 16, 18, 20}, {5, 10, 15, 20}, True),
        ({"logging_steps": 0.25, "eval_steps": 0.3, "save_steps": 7}, {5, 10, 15, 20}, {6, 12, 18}, {7, 14}, True),
        (
            {"logging_strategy": "epoch", "eval_strategy": "epoch", "save_strategy": "epoch"},
            {5, 10, 15, 20}, {5, 10, 15, 20}, {5, 10, 15, 20}, True,
        ),
        ({"logging_strategy": "no", "eval_strategy": False, "save_strategy": "no"}, set(), set(), set(), False),
        ({"save_strategy": "steps", "save_steps": 500.0}, {10, 20}, set(range(2, 21, 2)), set(), True),
    ],
)  # fmt: skip
def test_when_things_are_done(given, log, judge, save, keeps):
    from prefopt.config import resolve

    resolved, _ = resolve({"method": "dpo", "model": "m", "data": "d", **given})
    calendar = Calendar.of(resolved, steps=20, per_epoch=5)
    times = [
        {s for s in range(1, 21) if s in m} for m in (calendar.logging, calendar.evaluation, calendar.saving)
    ]
    assert times == [log, judge, save]
    assert calendar.keeps_checkpoints is keeps


@pytest.mark.parametrize("what", ["eval", "save", "logging"])
def test_steps_beside_a_strategy_without_steps_are_refused(what):
    given = {f"{what}_steps": 5, f"{what}_strategy": "epoch"}
    with pytest.raises(ConfigError, match=f"{what}_steps=5 means nothing with {what}_strategy=epoch"):
        Calendar.of(config(**given), 20, 5)
