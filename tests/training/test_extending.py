"""A run that goes on for longer than it was begun for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

import prefopt
from conftest import ROWS
from prefopt.config import ConfigError
from training.test_processes import losses, manifest

OPTIONS = {
    "max_steps": 3, "save_steps": 2, "per_device_train_batch_size": 2, "learning_rate": 1e-3, "lr_scheduler_type": "constant",
    "sample_prompts": 0, "eval_size": 2, "logging_steps": 1,
}  # fmt: skip


def train(model: Path, data: Path, folder: Path, **more: object) -> prefopt.TrainResult:
    return prefopt.train("kto", model=model, data=data, output_dir=str(folder), **{**OPTIONS, **more})


@pytest.fixture(scope="module")
def done(tiny_model, tmp_path_factory) -> Path:
    """A finished run of three steps, in the folder `run`."""
    folder = tmp_path_factory.mktemp("extending")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    train(tiny_model, folder / "rows.jsonl", folder / "run")
    return folder


def test_extended_is_the_longer_run(done, tiny_model, own_cache, tmp_path):
    """Bit for bit, where the learning rate does not depend on the length; and once more, by epochs."""
    data, run = done / "rows.jsonl", shutil.copytree(done / "run", tmp_path / "run")
    straight = train(tiny_model, data, tmp_path / "straight", max_steps=6)
    train(tiny_model, data, run, max_steps=6, resume=True, extend=True)
    name = "model.safetensors"
    assert (run / "model" / name).read_bytes() == (straight.model_dir / name).read_bytes()
    assert losses(run) == losses(tmp_path / "straight")
    told = manifest(run)
    assert told["extended"] == [{"from": 3, "to": 6, "after": 3}]
    assert (told["steps"], told["status"]) == (6, "finished")
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert (config["max_steps"], config["resume"], config["extend"]) == (6, False, False)
    # the file that the extended run left is what it is resumed with, and no longer extends anything
    prefopt.train(config=run / "config.yaml", resume=True)
    # the command that extended it may be given again, as after a crash
    shutil.rmtree(run / "checkpoints" / "step-00000006")
    train(tiny_model, data, run, max_steps=6, resume=True, extend=True)
    assert (run / "model" / name).read_bytes() == (straight.model_dir / name).read_bytes()
    train(tiny_model, data, run, max_steps=None, num_train_epochs=2, resume=True, extend=True)
    assert manifest(run)["extended"][1:] == [{"from": 6, "to": 16, "after": 6}]


def test_the_rate_goes_on_as_that_of_the_longer_run(done, tiny_model, own_cache, tmp_path):
    """A linear schedule that had come to its end."""
    given = {"lr_scheduler_type": "linear", "learning_rate": 8e-4}
    data = done / "rows.jsonl"
    train(tiny_model, data, tmp_path / "run", **given)
    train(tiny_model, data, tmp_path / "run", **given, max_steps=8, resume=True, extend=True)
    # as it is logged: the rate of the step that follows
    assert losses(tmp_path / "run", "learning_rate") == pytest.approx(
        [k * 1e-4 for k in (16 / 3, 8 / 3, 0, 4, 3, 2, 1, 0)]
    )


REFUSED = {
    "nobody said so": ({"max_steps": 6, "resume": True}, "begun with 3 steps, and 6 are asked for. extend=true goes on to 6"),
    "shorter": ({"max_steps": 2, "resume": True, "extend": True}, "the run has 3 steps, and 2 are asked for"),
    "shorter, nobody said so": ({"max_steps": 2, "resume": True}, "cannot become shorter"),
    "nothing longer": ({"resume": True, "extend": True}, "extend=true, and the run has 3 steps as before"),
    "without resume": ({"extend": True, "overwrite": True}, "^extend: for a run that goes on, which resume=true asks for"),
    "another run": ({"max_steps": 6, "resume": True, "extend": True, "seed": 1}, "run with other .*seed"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_and_nothing_is_touched(name, done, tiny_model, own_cache):
    more, told = REFUSED[name]
    kept = {p: p.read_bytes() for p in (done / "run").rglob("*.safetensors")}
    before = (done / "run" / "config.yaml").read_bytes()
    with pytest.raises(ConfigError, match=told):
        train(tiny_model, done / "rows.jsonl", done / "run", **more)
    assert {p: p.read_bytes() for p in (done / "run").rglob("*.safetensors")} == kept
    assert (done / "run" / "config.yaml").read_bytes() == before


def test_no_checkpoint_and_several_runs(done, tiny_model, own_cache, tmp_path):
    run = shutil.copytree(done / "run", tmp_path / "run")
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(ConfigError, match="no checkpoint to go on from: leave out extend"):
        train(tiny_model, done / "rows.jsonl", run, max_steps=6, resume=True, extend=True)
    with pytest.raises(ConfigError, match=r"^extend: for a single run, and spa is several"):
        prefopt.train(
            "spa", model=tiny_model, data=done / "rows.jsonl", resume=True, extend=True, output_dir=str(run)
        )


def test_a_checkpoint_from_before_a_key(done, tiny_model, own_cache, tmp_path):
    """Had it at its default."""
    run = shutil.copytree(done / "run", tmp_path / "run")
    for path in (run / "checkpoints").glob("*/state.json"):
        state = json.loads(path.read_text())
        del state["identity"]["sync_reference"]
        path.write_text(json.dumps(state))
    train(tiny_model, done / "rows.jsonl", run, resume=True)
    given = {"sync_reference": True, "reference_sync_steps": 1}
    with pytest.raises(ConfigError, match=r"run with other .*sync_reference"):
        train(tiny_model, done / "rows.jsonl", run, resume=True, **given)
