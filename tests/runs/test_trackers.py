"""Trackers are told what a run is and does, are opened before it costs anything, and never take a run down."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from accelerate import tracking

import prefopt
from conftest import ROWS
from modalities.image.image_runs import pair
from prefopt.config import ConfigError, resolve
from prefopt.references import Reference
from prefopt.runs import trackers
from stages import staged_rig

OPTIONS: dict[str, Any] = {
    "max_steps": 3, "learning_rate": 1e-3, "sample_prompts": 0, "eval_size": 2, "logging_steps": 1, "eval_steps": 2,
    "per_device_train_batch_size": 2, "save_strategy": "no",
}  # fmt: skip


class Told(tracking.GeneralTracker):
    """A tracker that takes what Accelerate promises to give, and nothing else."""

    name = "told"
    requires_logging_directory = False
    opened: list[Told]
    refuses = False
    breaks_at: int | None = None

    def __init__(self, run_name: str, **options: Any) -> None:
        super().__init__()
        self.run_name, self.config, self.lines, self.finished = run_name, {}, [], 0

    def start(self) -> None:
        if self.refuses:
            raise RuntimeError("no account\nfor you")
        self.run = self
        Told.opened.append(self)

    @property
    def tracker(self) -> Any:
        return self.run

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        for key, value in values.items():
            assert isinstance(value, bool | int | float | str), (key, value)
        self.config = values

    def log(self, values: dict[str, Any], step: int | None = None, **options: Any) -> None:
        if step == self.breaks_at:
            raise OSError(28, "No space left on device")
        assert all(isinstance(v, int | float) for v in values.values())
        self.lines.append((step, values))

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Told]]:
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "told", Told)
    monkeypatch.setattr(Told, "opened", [], raising=False)
    return Told


def train(model: Path, data: Path, folder: Path, **more: Any) -> prefopt.TrainResult:
    return prefopt.train("dpo", model=model, data=data, output_dir=str(folder), **{**OPTIONS, **more})


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """All scalars of TensorBoard's files in a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder)).Reload()
    return {name: [(e.step, e.value) for e in found.Scalars(name)] for name in found.Tags()["scalars"]}


@pytest.mark.parametrize("report_to", ["tensorboard", "all"])
def test_tensorboard_has_what_metrics_jsonl_has(report_to, tiny_model, rows_file, own_cache, tmp_path):
    """With a null and a list among the settings, as always."""
    result = train(tiny_model, rows_file(ROWS), tmp_path / "run", report_to=report_to)
    found = scalars(tmp_path / "run" / "trackers" / "prefopt")
    for name in ("loss", "eval_loss", "rewards/margins"):
        expected = [(line["step"], line[name]) for line in result.history if name in line]
        assert len(expected) == 3
        assert [step for step, _ in found[name]] == [step for step, _ in expected]
        assert [v for _, v in found[name]] == pytest.approx([v for _, v in expected], rel=1e-6)


def test_a_tracker_is_told_everything_in_plain_values(told, tiny_model, rows_file, own_cache, tmp_path):
    result = train(
        tiny_model, rows_file(ROWS), tmp_path / "run", report_to="told", beta=0.25, run_name="mine"
    )
    (one,) = told.opened
    assert one.run_name == "mine"
    assert one.config["beta"] == 0.25
    assert one.config["learning_rate"] == 1e-3
    assert (one.config["columns"], one.config["bf16"], one.config["use_peft"]) == ("[]", "null", False)
    assert [step for step, _ in one.lines] == [line["step"] for line in result.history]
    assert one.finished == 1


def test_images(told, sd, images_file, own_cache, tmp_path):
    data = images_file([pair(n) for n in range(4)])
    options = {**OPTIONS, "eval_size": 0, "report_to": ["told", "tensorboard"]}
    prefopt.train("diffusion_dpo", model=sd, data=data, output_dir=str(tmp_path / "run"), **options)
    (one,) = told.opened
    assert len([step for step, values in one.lines if "loss" in values]) == 3
    assert len(scalars(tmp_path / "run" / "trackers" / "prefopt")["loss"]) == 3


def test_every_run_of_a_method_of_several(told, tiny_model, own_cache, tmp_path):
    data = staged_rig.write(tmp_path / "rows.jsonl", staged_rig.ROWS)
    staged_rig.train("spa", tiny_model, data, tmp_path / "run", rounds=1, report_to="told")
    assert [one.run_name for one in told.opened] == ["run, stage 0", "run, stage 1"]
    assert all(one.finished == 1 and one.lines for one in told.opened)


@pytest.mark.parametrize(
    ("report_to", "words"),
    [
        ("tensorbord", "tensorbord is no tracker.*tensorboard"),
        ("wandb", "wandb is not installed.*pip install wandb"),
    ],
)
def test_trackers_that_are_not_there(
    report_to, words, tiny_model, rows_file, own_cache, tmp_path, monkeypatch
):
    available = [x for x in tracking.get_available_trackers() if str(x) != "wandb"]
    monkeypatch.setattr(tracking, "_available_trackers", available)
    data = rows_file(ROWS)
    with pytest.raises(ConfigError, match=words):
        train(tiny_model, data, tmp_path / "run", report_to=report_to)
    with pytest.raises(ConfigError, match=words):
        staged_rig.train("spa", tiny_model, data, tmp_path / "run", report_to=report_to)
    assert not (tmp_path / "run").exists()


def test_a_tracker_that_cannot_be_opened_costs_nothing(
    told, tiny_model, rows_file, own_cache, tmp_path, monkeypatch
):
    data = rows_file(ROWS)
    train(tiny_model, data, tmp_path / "run")
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    monkeypatch.setattr(told, "refuses", True)
    monkeypatch.setattr(Reference, "prepare", lambda *given, **named: pytest.fail("the reference was scored"))
    with pytest.raises(
        ConfigError, match=r"report_to=told could not be opened \(RuntimeError: no account for you\)"
    ):
        train(tiny_model, data, tmp_path / "run", report_to="told", overwrite=True)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


def test_a_tracker_that_fails_later_is_left_behind(
    told, tiny_model, rows_file, own_cache, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(told, "breaks_at", 2)
    result = train(tiny_model, rows_file(ROWS), tmp_path / "run", report_to=["told", "tensorboard"])
    (one,) = told.opened
    assert [step for step, _ in one.lines] == [0, 1]
    said = capsys.readouterr().err
    assert said.count("warning: told took no metrics at step 2") == 1
    assert "No space left on device" in said
    assert len(scalars(tmp_path / "run" / "trackers" / "prefopt")["loss"]) == 3
    assert result.metrics["step"] == 3


def test_a_run_that_fails_ends_its_trackers(told, tiny_model, rows_file, own_cache, tmp_path, monkeypatch):
    monkeypatch.setattr(Reference, "prepare", lambda *given, **named: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(tiny_model, rows_file(ROWS), tmp_path / "run", report_to="told")
    (one,) = told.opened
    assert one.finished == 1


def test_overwriting_leaves_no_old_curves(tiny_model, rows_file, own_cache, tmp_path):
    data = rows_file(ROWS)
    for _ in range(2):
        train(tiny_model, data, tmp_path / "run", report_to="tensorboard", overwrite=True)
    assert len(scalars(tmp_path / "run" / "trackers" / "prefopt")["loss"]) == 3


def test_nothing_is_imported_that_was_not_asked_for(tiny_model, rows_file, own_cache, tmp_path, monkeypatch):
    monkeypatch.setattr(trackers.Trackers, "log", lambda self, values, step: None)
    train(tiny_model, rows_file(ROWS), tmp_path / "run", report_to="none")
    assert "wandb" not in sys.modules


def test_the_configuration_holds_what_trackers_cannot_take():
    """Else the tests above would say nothing."""
    config, hyper = resolve({"method": "dpo", "model": "m", "data": "d"})
    values = config.model_dump().values()
    assert any(v is None for v in values)
    assert any(isinstance(v, list) for v in values)
    assert all(
        isinstance(v, bool | int | float | str) for v in trackers.told_to_trackers(config, hyper).values()
    )
