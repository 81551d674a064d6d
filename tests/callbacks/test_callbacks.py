"""Callbacks hear what happens, may end a run, and remember over an interruption."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from transformers import EarlyStoppingCallback, TrainerCallback

import prefopt
from conftest import ROWS
from prefopt.callbacks import Callback, EarlyStopping, Evaluation, Run
from prefopt.config import ConfigError

OPTIONS: dict[str, Any] = {
    "max_steps": 6, "save_steps": 3, "eval_steps": 2, "logging_steps": 2, "eval_size": 2, "sample_prompts": 2,
    "sample_max_new_tokens": 3, "per_device_train_batch_size": 4, "learning_rate": 1e-3,
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), "utf-8")
    return path


def train(model: Path, data: Path, folder: Path, **more: Any) -> prefopt.TrainResult:
    return prefopt.train("dpo", model=model, data=data, output_dir=str(folder), **{**OPTIONS, **more})


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "record" / "manifest.json").read_text("utf-8"))


class Heard(Callback):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def on_start(self, run: Run) -> None:
        self.events.append(("start", run.step, run.steps, run.main))

    def on_step(self, run: Run) -> None:
        self.events.append(("step", run.step, run.logged is not None and "loss" in run.logged))

    def on_evaluate(self, run: Run, metrics: Mapping[str, float]) -> None:
        self.events.append(("evaluate", run.step, metrics["eval_loss"] > 0))

    def on_save(self, run: Run, checkpoint: Path) -> None:
        self.events.append(("save", run.step, (checkpoint / "state.json").exists()))

    def on_end(self, run: Run) -> None:
        self.events.append(("end", run.step, (run.output_dir / "model" / "config.json").exists()))


class OfATrainer(TrainerCallback):
    """The same for transformers' events."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.model: Any = None

    def on_train_begin(self, args, state, control, **kwargs):
        self.model = kwargs["model"]
        self.events.append(("train_begin", state.global_step, state.max_steps, args.learning_rate))

    def on_epoch_end(self, args, state, control, **kwargs):
        self.events.append(("epoch_end", state.global_step, state.epoch))

    def on_step_begin(self, args, state, control, **kwargs):
        self.events.append(("step_begin", state.global_step))

    def on_step_end(self, args, state, control, **kwargs):
        self.events.append(("step_end", state.global_step))
        control.should_save = state.global_step == 5  # at a step at which nothing is due
        return control

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.events.append(("log", state.global_step, "loss" in logs))

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        self.events.append(("evaluate", state.global_step, metrics["eval_loss"] > 0))

    def on_save(self, args, state, control, **kwargs):
        self.events.append(("save", state.global_step))

    def on_train_end(self, args, state, control, **kwargs):
        self.events.append(("train_end", state.global_step))

    def on_optimizer_step(self, args, state, control, **kwargs):
        raise AssertionError("there is no such event")


def test_what_callbacks_hear_and_what_metrics_are_computed(tiny_model, data, tmp_path):
    heard, theirs, seen = Heard(), OfATrainer(), []

    def compute_metrics(evaluation: Evaluation) -> dict[str, float]:
        seen.append(evaluation)
        return {"worst_margin": min(evaluation.margins["wins"]), "samples": len(evaluation.samples)}

    result = train(
        tiny_model, data, tmp_path / "run", callbacks=[heard, theirs], compute_metrics=compute_metrics
    )
    assert heard.events == [
        ("evaluate", 0, True), ("start", 0, 6, True), ("step", 1, True), ("step", 2, True), ("evaluate", 2, True),
        ("step", 3, False), ("save", 3, True), ("step", 4, True), ("evaluate", 4, True), ("step", 5, False), ("save", 5, True),
        ("step", 6, True), ("evaluate", 6, True), ("save", 6, True), ("end", 6, True),
    ]  # fmt: skip
    assert [e for e in theirs.events if e[0] != "step_begin"] == [
        ("train_begin", 0, 6, 1e-3), ("step_end", 1), ("log", 1, True), ("step_end", 2), ("log", 2, True), ("epoch_end", 2, 1.0),
        ("evaluate", 2, True), ("step_end", 3), ("save", 3), ("step_end", 4), ("log", 4, True), ("epoch_end", 4, 2.0),
        ("evaluate", 4, True), ("step_end", 5), ("save", 5), ("step_end", 6), ("log", 6, True), ("epoch_end", 6, 3.0),
        ("evaluate", 6, True), ("save", 6), ("train_end", 6),
    ]  # fmt: skip
    assert [e[1] for e in theirs.events if e[0] == "step_begin"] == [0, 1, 2, 3, 4, 5]
    assert type(theirs.model).__name__ == "LlamaForCausalLM"
    (told,) = (c["detail"] for c in manifest(tmp_path / "run")["checks"] if c["name"] == "callbacks")
    assert told.startswith("OfATrainer is never told of on_optimizer_step")
    assert [e.step for e in seen] == [0, 2, 4, 6]
    assert {"prompt", "text"} <= seen[-1].samples[0].keys()
    assert result.metrics["eval_worst_margin"] == min(seen[-1].margins["wins"])
    assert result.metrics["eval_samples"] == 2
    assert [line["eval_samples"] for line in result.history if line["split"] == "eval"] == [2] * 4


def test_a_run_ends_early_as_it_would_have_at_its_last_step(tiny_model, data, tmp_path):
    class Enough(Callback):
        def on_step(self, run: Run) -> None:
            if run.step == 3:
                run.stop("that is enough")

    result = train(tiny_model, data, tmp_path / "run", callbacks=[Enough()])
    assert manifest(tmp_path / "run")["status"] == "finished"
    assert manifest(tmp_path / "run")["stopped_early"] == {"step": 3, "reason": "that is enough"}
    assert [line["step"] for line in result.history if line["split"] == "eval"] == [0, 2, 3]
    margins = json.loads((tmp_path / "run" / "record" / "margins.json").read_text())
    assert len(margins["after"]["wins"]) == 2
    assert (result.model_dir / "config.json").exists()
    page = result.report.read_text("utf-8")
    assert "The run ended after step 3 of 6: that is enough." in page
    assert "after 6 steps" not in page
    again = train(tiny_model, data, tmp_path / "run", resume=True)  # it has ended, and stays so
    assert manifest(tmp_path / "run")["stopped_early"]["step"] == 3
    assert [line["step"] for line in again.history] == [line["step"] for line in result.history]


def test_early_stopping_resumes_with_what_it_has_seen(tiny_model, data, tmp_path):
    """Nothing is ever a gain of 10 nats: it ends after the patience, also where an interruption lies between."""
    given = {
        "eval_steps": 1, "sample_prompts": 0, "save_steps": 1, "save_total_limit": 9, "early_stopping_patience": 4,
        "early_stopping_threshold": 10.0, "max_steps": 9,
    }  # fmt: skip
    result = train(tiny_model, data, tmp_path / "run", **given)
    assert manifest(tmp_path / "run")["stopped_early"]["step"] == 4
    assert (
        "eval_loss has not been better than its 0.6931 after step 0 for 4 evaluations"
        in (manifest(tmp_path / "run")["stopped_early"]["reason"])
    )
    expected = (result.model_dir / "model.safetensors").read_bytes()
    for step in (3, 4):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / f"step-{step:08d}")
    again = train(tiny_model, data, tmp_path / "run", resume=True, **given)
    assert manifest(tmp_path / "run")["stopped_early"]["step"] == 4
    assert (again.model_dir / "model.safetensors").read_bytes() == expected


def test_the_best_model_is_saved(tiny_model, data, tmp_path):
    """Of a run at a rate that overshoots: the best evaluation is not the last, and the model is that of its step."""
    given = {
        "learning_rate": 0.05, "lr_scheduler_type": "constant", "eval_steps": 1, "save_steps": 1, "save_total_limit": 9, "max_steps": 4,
        "sample_prompts": 0, "metric_for_best_model": "eval_logps/chosen",
    }  # fmt: skip
    result = train(tiny_model, data, tmp_path / "run", load_best_model_at_end=True, **given)
    lines = [line for line in result.history if line["split"] == "eval"]
    values = [line["eval_logps/chosen"] for line in lines]
    best = max(range(5), key=lambda step: values[step])
    assert best < 4
    assert lines[5]["eval_logps/chosen"] == pytest.approx(values[best], rel=1e-5)
    assert result.metrics["eval_logps/chosen"] == pytest.approx(values[best], rel=1e-5)
    assert manifest(tmp_path / "run")["best_step"] == best
    assert f"that of step {best}, the best evaluation by eval_logps/chosen" in result.report.read_text(
        "utf-8"
    )
    saved = load_file(result.model_dir / "model.safetensors")
    if best:
        kept = load_file(tmp_path / "run" / "checkpoints" / f"step-{best:08d}" / "weights.safetensors")
    else:
        kept = load_file(tiny_model / "model.safetensors")
    assert all((saved[name] == value).all() for name, value in kept.items() if name in saved)
    assert not list((tmp_path / "run" / "checkpoints").glob("best-*"))


def test_transformers_early_stopping_stops(tiny_model, data, tmp_path):
    given = {
        "eval_steps": 1,
        "sample_prompts": 0,
        "metric_for_best_model": "eval_displacement",
        "max_steps": 9,
    }
    stopping = EarlyStoppingCallback(early_stopping_patience=3, early_stopping_threshold=10.0)
    train(tiny_model, data, tmp_path / "run", greater_is_better=False, callbacks=[stopping], **given)
    # the first evaluation that it hears of is its best one
    assert manifest(tmp_path / "run")["stopped_early"] == {
        "step": 4, "reason": "EarlyStoppingCallback asked for it",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"callbacks": [object()]}, "callbacks holds a object"),
        ({"callbacks": [EarlyStopping]}, "the class EarlyStopping: give an instance"),
    ],
)
def test_what_is_no_callback_is_refused(given, words, tiny_model, data, tmp_path):
    with pytest.raises(TypeError, match=words):
        train(tiny_model, data, tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()


def test_a_metric_that_there_is_not_is_refused_by_name(tiny_model, data, tmp_path):
    with pytest.raises(ConfigError, match=r"metric_for_best_model=eval_los .*did you mean 'eval_loss'"):
        train(tiny_model, data, tmp_path / "run", early_stopping_patience=1, metric_for_best_model="eval_los")


def test_computed_metrics_must_be_numbers(tiny_model, data, tmp_path):
    with pytest.raises(ConfigError, match="compute_metrics must return numbers by name"):
        train(tiny_model, data, tmp_path / "run", compute_metrics=lambda evaluation: [1.0])
