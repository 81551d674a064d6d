"""What every modality must do, on a tiny model and a few rows; `battery.py` has a row for each."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

import prefopt
from modalities.battery import BATTERY, Row, install_vectors
from prefopt import modalities
from prefopt.cli.check import command as check
from prefopt.config import ConfigError
from processes import distributed, kill_once_there, words

QUIET: dict[str, Any] = {
    "eval_size": 0, "sample_prompts": 2, "logging_steps": 1, "eval_steps": 20, "lr_scheduler_type": "constant",
    "weight_decay": 0.0, "max_steps": 20, "save_steps": 8, "per_device_train_batch_size": 2, "bf16": False,
}  # fmt: skip


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a model's folder, by the folder of its file within that and its name."""
    found = {}
    for file in sorted(folder.rglob("*.safetensors")):
        found |= {f"{file.parent.relative_to(folder)}/{k}": v for k, v in load_file(file).items()}
    return found


@dataclass(frozen=True)
class Tried:
    """A modality with its files."""

    row: Row
    model: Path
    data: Path
    place: Path

    def options(self, folder: str, **more: Any) -> dict[str, Any]:
        given = {**QUIET, **self.row.options, **more}
        if given.get("save_strategy") == "no":
            del given["save_steps"]
        return {"model": self.model, "data": self.data, "output_dir": self.place / folder, **given}

    def train(self, folder: str, **more: Any) -> prefopt.TrainResult:
        options = {k: str(v) if isinstance(v, Path) else v for k, v in self.options(folder, **more).items()}
        return prefopt.train("dpo", **options)

    def words(self, folder: str, **more: Any) -> list[str]:
        return words(self.options(folder, **more))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The modality of the page, as a package of its own, for this process and those that it starts."""
    folder = install_vectors(tmp_path_factory.mktemp("packages"))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv(
            "PYTHONPATH", os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
        )
        modalities.all_modalities.cache_clear()
        yield
    modalities.all_modalities.cache_clear()


@pytest.fixture(scope="module", params=BATTERY, ids=lambda row: row.name)
def tried(request: pytest.FixtureRequest, installed: None, tmp_path_factory: pytest.TempPathFactory) -> Tried:
    place = tmp_path_factory.mktemp(request.param.name)
    return Tried(request.param, request.param.model(place / "start"), request.param.data(place), place)


@pytest.fixture(scope="module")
def straight(tried: Tried) -> prefopt.TrainResult:
    """Twenty steps with everything as it comes."""
    return tried.train("straight")


def column(result: prefopt.TrainResult, name: str) -> list[float]:
    return [line[name] for line in result.history if name in line]


def weights(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "model").rglob("*.safetensors")}


def test_the_model_is_recognised(tried):
    assert modalities.of_model(str(tried.model)).name == tried.row.name


def test_it_starts_at_the_reference_and_learns(tried, straight):
    margins, losses = column(straight, "rewards/margins"), column(straight, "loss")
    assert column(straight, "train_rows_rewards/margins")[0] == pytest.approx(0, abs=1e-3)
    assert [losses[0], column(straight, "train_rows_loss")[0]] == pytest.approx([0.6931] * 2, abs=1e-3)
    assert len(losses) == 20
    epoch = 3  # steps; the same rows again
    assert sum(margins[-epoch:]) / epoch > sum(margins[:epoch]) / epoch + 0.01
    assert sum(losses[-epoch:]) < sum(losses[:epoch])


def test_page_card_and_record_are_drawn(tried, straight, monkeypatch):
    folder = straight.output_dir
    page, card = (folder / "report.html").read_text(), (folder / "README.md").read_text()
    assert "cannot be shown" not in page
    assert "Training curves" in page
    assert "Error" not in page
    assert json.loads((folder / "record" / "manifest.json").read_text())["modality"] == tried.row.name
    assert "| Accuracy" in card
    samples = json.loads((folder / "record" / "samples.json").read_text())
    assert [g["label"] for g in samples["prompts"][0]["generations"]] == ["before", "after"]
    code = card.partition("```python\n")[2].partition("```")[0]
    told = compile(code, "card", "exec")
    if "prefopt" in code:  # no other library loads it
        monkeypatch.chdir(folder.parent)
        loaded: dict[str, Any] = {}
        exec(told, loaded)
        assert (loaded.get("model") or loaded.get("pipe")) is not None
    assert straight.load_model() is not None


def test_rows_of_another_kind_are_refused_in_a_sentence(tried):
    other = tried.place / "other.jsonl"
    other.write_text('{"number": 1}\n' * 3)
    with pytest.raises(ValueError, match=r"other\.jsonl.* number"):
        prefopt.train("dpo", **tried.options("other", data=str(other)))


def test_a_killed_run_goes_on_to_the_same_bits(tried, straight):
    folder = tried.place / "killed"
    kill_once_there(folder / "checkpoints" / "step-00000008", "train", "dpo", *tried.words("killed"))
    result = tried.train("killed", resume=True)
    assert weights(folder) == weights(straight.output_dir)
    assert column(result, "loss") == column(straight, "loss")


def test_references_agree(tried, straight):
    live, cached = (
        column(tried.train(kind, reference=kind, sample_prompts=0), "loss") for kind in ("live", "cached")
    )
    assert cached == pytest.approx(live, rel=1e-3)
    assert column(straight, "loss") in (live, cached)


def test_its_own_library_loads_what_was_trained(tried, straight):
    """With the same scores: a run that starts from it begins where this one ended."""
    tried.row.again(straight.model_dir, tried.model, tried.place / "again")
    begun = tried.train("from-again", model=tried.place / "again", max_steps=1, save_strategy="no")
    for side in ("chosen", "rejected"):
        ended = column(straight, f"train_rows_logps/{side}")[-1]
        assert column(begun, f"train_rows_logps/{side}")[0] == pytest.approx(ended, rel=1e-4)


def test_adapters(tried):
    """Switched off they are the reference; loaded by their own library and merged they score as they did."""
    if not tried.row.adapters:
        pytest.skip("it takes no adapters, and refuses them: see the foreign keys")
    given = {"use_peft": True, "lora_r": 2, "lora_alpha": 8, "sample_prompts": 0, "save_strategy": "no"}
    given |= {
        "use_rslora": True,
        "use_dora": True,
        "max_steps": 8,
    }  # a scale, and a length of each row, that a file could lose
    given["learning_rate"] = 10 * tried.row.options["learning_rate"]
    off = tried.train("adapters", reference="adapter_off", **given)
    live = tried.train("adapters-live", reference="live", **given)
    assert column(off, "loss") == pytest.approx(column(live, "loss"), rel=1e-3)
    moved = column(off, "train_rows_logps/chosen")
    assert moved[-1] != pytest.approx(moved[0], rel=1e-4)
    tried.row.again(off.model_dir, tried.model, tried.place / "merged")
    merged = prefopt.merge(off.output_dir, tried.place / "by-prefopt")
    assert merged.difference < 1e-4
    assert tensors(merged.folder).keys() == tensors(tried.place / "merged").keys()
    for name, tensor in tensors(merged.folder).items():
        torch.testing.assert_close(tensor, tensors(tried.place / "merged")[name], rtol=0, atol=1e-5)
    begun = tried.train("from-merged", model=merged.folder, max_steps=1, save_strategy="no")
    for side in ("chosen", "rejected"):
        ended = column(off, f"train_rows_logps/{side}")[-1]
        assert column(begun, f"train_rows_logps/{side}")[0] == pytest.approx(ended, rel=1e-4)


def test_two_processes_are_one(tried):
    one = tried.train("one", max_steps=3, sample_prompts=0, save_strategy="no")
    given = {"max_steps": 3, "sample_prompts": 0, "save_strategy": "no", "per_device_train_batch_size": 1}
    distributed("-m", "prefopt", "train", "dpo", *tried.words("two", **given))
    lines = [json.loads(x) for x in (tried.place / "two" / "metrics.jsonl").read_text().splitlines()]
    assert [x["loss"] for x in lines if "loss" in x] == pytest.approx(column(one, "loss"), rel=1e-3)


class Listening(prefopt.Callback):
    """Keeps nothing of the run."""

    def on_step(self, run: Any) -> None:
        run.say("heard")


def test_a_finished_run_leaves_no_model_in_memory(tried):
    """The next one of a notebook finds the memory free at once, and not when Python looks for cycles."""
    gc.freeze()  # what is there already is not looked at, which takes seconds in a process of many tests
    gc.disable()
    try:
        tried.train("gone", max_steps=1, sample_prompts=1, save_strategy="no", callbacks=[Listening()],
                    compute_metrics=lambda evaluation: {"one": 1.0})  # fmt: skip
        left = [m for m in gc.get_objects() if isinstance(m, torch.nn.Module)]
    finally:
        gc.enable()
        gc.unfreeze()
    assert sum(p.numel() for m in left for p in m.parameters(recurse=False)) == 0, {type(m) for m in left}


def test_foreign_and_misspelt_keys_are_refused_at_once(tried):
    given, meant = tried.row.misspelt
    foreign = {key: value for key, (value, _) in tried.row.foreign.items()}
    with pytest.raises(ConfigError) as told:
        tried.train("refused", **foreign, **{given: 1})
    text = str(told.value)
    assert f"{given}: unknown; did you mean {meant!r}?" in text
    for key, (_, why) in tried.row.foreign.items():
        (line,) = (line for line in text.splitlines() if line.strip().startswith(f"{key}:"))
        assert why in line
    assert not (tried.place / "refused").exists()


def test_check_reads_its_rows(tried):
    done = CliRunner().invoke(check, [str(tried.data)])
    assert done.exit_code == 0, done.output
    assert f"pairs of {tried.row.form}" in done.output
