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
from prefopt.training.checkpoint import CheckpointError

OPTIONS: dict[str, Any] = {
    "max_steps": 6, "save_steps": 3, "eval_steps": 2, "logging_steps": 2, "eval_size": 2, "sample_prompts": 2,
    "sample_max_new_tokens": 3, "per_device_train_batch_size": 4, "learning_rate": 1e-3,
}  # fmt: skip


OVERSHOOTS: dict[str, Any] = {
    "learning_rate": 0.05, "lr_scheduler_type": "constant", "eval_steps": 1, "save_steps": 1, "save_total_limit": 9, "max_steps": 4,
    "sample_prompts": 0, "metric_for_best_model": "eval_logps/chosen",
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
        ("start", 0, 6, True), ("evaluate", 0, True), ("step", 1, True), ("step", 2, True), ("evaluate", 2, True),
        ("step", 3, False), ("save", 3, True), ("step", 4, True), ("evaluate", 4, True), ("step", 5, False), ("save", 5, True),
        ("step", 6, True), ("evaluate", 6, True), ("save", 6, True), ("end", 6, True),
    ]  # fmt: skip
    assert [e for e in theirs.events if e[0] != "step_begin"] == [
        ("train_begin", 0, 6, 1e-3), ("step_end", 1), ("log", 1, True), ("step_end", 2), ("log", 2, True), ("epoch_end", 2, 1.0),
        ("log", 2, False), ("evaluate", 2, True), ("step_end", 3), ("save", 3), ("step_end", 4), ("log", 4, True),
        ("epoch_end", 4, 2.0), ("log", 4, False), ("evaluate", 4, True), ("step_end", 5), ("save", 5), ("step_end", 6),
        ("log", 6, True), ("epoch_end", 6, 3.0), ("log", 6, False), ("evaluate", 6, True), ("save", 6), ("train_end", 6),
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
    result = train(tiny_model, data, tmp_path / "run", load_best_model_at_end=True, **OVERSHOOTS)
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


def test_the_best_model_outlives_the_run_as_long_as_its_checkpoints(tiny_model, data, tmp_path):
    """A finished run is resumed and extended to the same model; without the weights it says so before it trains."""
    given = {**OVERSHOOTS, "load_best_model_at_end": True}
    run = tmp_path / "run"
    first = train(tiny_model, data, run, **given)
    best = manifest(run)["best_step"]
    saved = (first.model_dir / "model.safetensors").read_bytes()
    no_checkpoints = {**given, "save_steps": None, "save_strategy": "no"}
    folder = train(tiny_model, data, tmp_path / "none", **no_checkpoints).output_dir
    assert not list((folder / "checkpoints").glob("best-*"))
    again = train(tiny_model, data, run, resume=True, **given)
    assert (again.model_dir / "model.safetensors").read_bytes() == saved
    elsewhere = train(
        tiny_model, data, tmp_path / "other", resume=str(run / "checkpoints" / "step-00000004"), **given
    )
    assert (elsewhere.model_dir / "model.safetensors").read_bytes() == saved
    plain = {k: v for k, v in given.items() if k not in ("load_best_model_at_end", "metric_for_best_model")}
    last = train(tiny_model, data, run, resume=True, **plain)
    assert manifest(run)["best_step"] is None
    assert (last.model_dir / "model.safetensors").read_bytes() != saved
    extended = train(tiny_model, data, run, resume=True, extend=True, **{**given, "max_steps": 5})
    assert manifest(run)["best_step"] in (best, None)
    assert [line["step"] for line in extended.history if line["split"] == "eval"][-1] == 5
    for path in (run / "checkpoints").glob("best-*"):
        shutil.rmtree(path)
    lines = (run / "metrics.jsonl").read_text()
    with pytest.raises(CheckpointError, match="the weights of the best evaluation so far, has been removed"):
        train(tiny_model, data, run, resume=True, extend=True, **{**given, "max_steps": 6})
    assert (run / "metrics.jsonl").read_text() == lines


def test_one_object_serves_several_runs(tiny_model, data, tmp_path):
    """What an earlier run used up of its patience is not missed by the next one."""
    stopping = EarlyStopping(2, threshold=10.0)
    given = {"eval_steps": 1, "sample_prompts": 0, "save_strategy": "no", "callbacks": [stopping]}
    for name in ("a", "b"):
        train(tiny_model, data, tmp_path / name, **given, save_steps=None)
        assert manifest(tmp_path / name)["stopped_early"]["step"] == 2


def test_a_stopped_run_goes_on_where_that_is_said(tiny_model, data, tmp_path):
    """To its end, with all of its patience."""
    given = {
        "eval_steps": 1,
        "sample_prompts": 0,
        "save_steps": 1,
        "early_stopping_patience": 3,
        "early_stopping_threshold": 10.0,
        "max_steps": 5,
        "logging_steps": 1,
    }
    train(tiny_model, data, tmp_path / "run", **given)
    assert manifest(tmp_path / "run")["stopped_early"]["step"] == 3
    on = train(tiny_model, data, tmp_path / "run", resume=True, extend=True, **given)
    assert [line["step"] for line in on.history if line["split"] == "train"] == [1, 2, 3, 4, 5]
    assert manifest(tmp_path / "run")["stopped_early"] is None
    assert "extended" not in manifest(tmp_path / "run")


@pytest.mark.parametrize("first", [float("nan"), float("inf")])
def test_what_is_no_number_is_never_the_best(first, tiny_model, data, tmp_path):
    values = iter([first, 0.1, 0.3, 0.2])
    train(
        tiny_model, data, tmp_path / "run", compute_metrics=lambda evaluation: {"q": next(values, 0.0)},
        metric_for_best_model="eval_q", load_best_model_at_end=True, sample_prompts=0,
    )  # fmt: skip
    assert manifest(tmp_path / "run")["best_step"] == 4


def test_without_held_out_rows_a_callback_for_a_trainer_ends_well(tiny_model, data, tmp_path):
    theirs = OfATrainer()
    result = train(tiny_model, data, tmp_path / "run", callbacks=[theirs], eval_size=0, sample_prompts=0)
    assert manifest(tmp_path / "run")["status"] == "finished"
    assert (result.model_dir / "config.json").exists()
    assert theirs.events[-1] == ("train_end", 6)


def test_a_callback_for_a_trainer_knows_the_best_after_a_resume(tiny_model, data, tmp_path):
    class Best(TrainerCallback):
        def on_train_end(self, args, state, control, **kwargs):
            self.found = state.best_metric, state.best_global_step
            self.told = args.to_json_string()  # as trackers do

    given = {
        "metric_for_best_model": "eval_logps/chosen",
        "greater_is_better": False,
        "sample_prompts": 0,
        "save_total_limit": 9,
    }
    whole, resumed = Best(), Best()
    train(tiny_model, data, tmp_path / "run", callbacks=[whole], **given)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000006")
    train(tiny_model, data, tmp_path / "run", callbacks=[resumed], resume=True, **given)
    assert resumed.found == whole.found
    assert json.loads(whole.told)["learning_rate"] == 1e-3


@pytest.mark.parametrize("kind", ["key", "object", "schedule"])
def test_a_reference_that_moves_has_no_best_loss(kind, tiny_model, data, tmp_path):
    """Each move throws losses and rewards back to where they began."""
    given: dict[str, Any] = {
        "key": {"early_stopping_patience": 2},
        "object": {"callbacks": [EarlyStopping(2, metric="eval_rewards/margins")]},
        "schedule": {"lr_scheduler_type": "reduce_lr_on_plateau"},
    }[kind]
    with pytest.raises(ConfigError, match="is relative to the reference, which sync_reference moves"):
        train(tiny_model, data, tmp_path / "run", sync_reference=True, reference_sync_steps=2, **given)


def test_a_schedule_that_follows_a_metric_is_refused_before_the_first_step(tiny_model, data, tmp_path):
    with pytest.raises(
        ConfigError, match="metric_for_best_model=eval_loss is no metric of this run's evaluations"
    ):
        train(tiny_model, data, tmp_path / "run", lr_scheduler_type="reduce_lr_on_plateau", eval_size=0)
    assert '"train"' not in (tmp_path / "run" / "metrics.jsonl").read_text()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"metric_for_best_model": "eval_kl"}, "metric_for_best_model=eval_kl: nobody looks at it"),
        ({"greater_is_better": True}, "greater_is_better=True: nobody looks at it"),
        ({"early_stopping_patience": 2, "eval_strategy": "no"}, "early_stopping_patience looks at evaluations, and eval_strategy=no"),
        ({"early_stopping_threshold": 0.1}, "early_stopping_threshold: for early stopping"),
    ],
)  # fmt: skip
def test_keys_that_nobody_would_look_at(given, words, tiny_model, data, tmp_path):
    with pytest.raises(ConfigError, match=words):
        train(
            tiny_model,
            data,
            tmp_path / "run",
            **{k: v for k, v in OPTIONS.items() if k != "eval_steps"} | given,
        )


def test_a_run_is_not_resumed_on_another_model(tiny_model, data, tmp_path):
    from transformers import AutoModelForCausalLM

    train(tiny_model, data, tmp_path / "run", sample_prompts=0)
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    model.lm_head.weight.data.mul_(1.5)
    model.save_pretrained(other)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000006")
    with pytest.raises(ConfigError, match="belongs to a run that began from another model"):
        train(other, data, tmp_path / "run", resume=True, sample_prompts=0)
