"""A disk that fills up, wherever that happens: one sentence, nothing lost, and the run goes on once there is room."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import prefopt
from conftest import ROWS
from modalities.image.image_runs import LORA, pair, weights
from prefopt.config import ConfigError
from prefopt.files import WriteError
from prefopt.references import Reference
from prefopt.runs.record import Record, finished
from prefopt.shards import ShardCache
from prefopt.training import ending
from prefopt.training.checkpoint import CheckpointError
from prefopt.training.course import Course
from stages import staged_rig

OPTIONS: dict[str, Any] = {
    "max_steps": 4, "save_steps": 2, "logging_steps": 1, "eval_steps": 2, "learning_rate": 1e-3, "sample_prompts": 0,
    "eval_size": 2, "per_device_train_batch_size": 2,
}  # fmt: skip
REFUSALS = (WriteError, CheckpointError, ConfigError)


def train(model: Path, data: Path, folder: Path, **more: Any) -> prefopt.TrainResult:
    return prefopt.train("dpo", model=model, data=data, output_dir=str(folder), **{**OPTIONS, **more})


@pytest.fixture(scope="module")
def straight(tiny_model, tmp_path_factory) -> Path:
    """A run that always had room, with a cache of its own: scores that another test left may differ in their last bit."""
    folder = tmp_path_factory.mktemp("straight")
    data = folder / "rows.jsonl"
    staged_rig.write(data, ROWS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFOPT_CACHE", str(folder / "cache"))
        train(tiny_model, data, folder / "run")
    return folder


class Disk:
    """A file system of its own, which can be filled to the brim."""

    def __init__(self, place: Path) -> None:
        self.place, self.ballast = place, place / "ballast"

    def fill(self, left: int) -> None:
        found = os.statvfs(self.place)
        with self.ballast.open("ab") as file:
            file.write(b"\0" * max(0, found.f_bavail * found.f_frsize - left))

    def make_room(self) -> None:
        self.ballast.unlink()

    def read_only(self) -> None:
        subprocess.run(["mount", "-o", "remount,ro", str(self.place)], check=True)


@pytest.fixture
def disk(tmp_path) -> Iterator[Disk]:
    place = tmp_path / "disk"
    place.mkdir()
    try:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(place)], capture_output=True
        )
    except FileNotFoundError:
        pytest.skip("needs the command mount")
    if mounted.returncode:
        pytest.skip(f"needs to mount a file system: {mounted.stderr.decode().strip()}")
    try:
        yield Disk(place)
    finally:
        subprocess.run(["umount", str(place)], check=True)


def same_end(folder: Path, straight: Path) -> bool:
    lines = [(f / "metrics.jsonl").read_text() for f in (folder, straight)]
    return weights(folder) == weights(straight) and lines[0] == lines[1] and (folder / "report.html").exists()


MOMENTS = {
    "opening": (Record, "open"),
    "a line": (Record, "metrics"),
    "checkpoint": (Course, "save_checkpoint"),
    "model": (Course, "save_model"),
    "pages": (ending, "pages"),
}


@pytest.mark.parametrize("left", [0, 5000])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_disk_that_is_full_from_a_moment_on(
    moment, left, disk, straight, tiny_model, own_cache, monkeypatch
):
    owner, name = MOMENTS[moment]
    method, run, full = getattr(owner, name), disk.place / "run", []

    def now_full(self: Any, *given: Any, **named: Any) -> Any:
        if not full:
            full.append(moment)
            disk.fill(left)
        return method(self, *given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, now_full)
        with pytest.raises(REFUSALS, match="No space left on device") as told:
            train(tiny_model, straight / "rows.jsonl", run)
    assert "\n" not in str(told.value)
    assert full == [moment]
    disk.make_room()
    train(tiny_model, straight / "rows.jsonl", run, resume=(run / "config.yaml").exists())
    assert same_end(run, straight / "run")
    assert not [p for p in run.rglob(".*") if "partial" in p.name or p.name.endswith(".old")]


def test_a_full_disk_takes_nothing_of_a_finished_run(disk, straight, tiny_model, own_cache):
    run = disk.place / "run"
    train(tiny_model, straight / "rows.jsonl", run)
    disk.fill(0)
    with pytest.raises(REFUSALS, match="No space left on device"):
        train(tiny_model, straight / "rows.jsonl", run, resume=True)
    disk.make_room()
    assert same_end(run, straight / "run")
    train(tiny_model, straight / "rows.jsonl", run, resume=True)
    assert same_end(run, straight / "run")


@pytest.mark.parametrize("trouble", ["full", "read-only"])
def test_a_cache_that_takes_nothing_is_found_before_the_work(
    trouble, disk, straight, tiny_model, tmp_path, monkeypatch
):
    monkeypatch.setenv("PREFOPT_CACHE", str(disk.place / "cache"))
    Path(disk.place / "cache").mkdir()
    if trouble == "full":
        disk.fill(0)
    else:
        disk.read_only()
    with monkeypatch.context() as patch:
        patch.setattr(Reference, "_score", lambda *given: pytest.fail("scored"))
        with pytest.raises(WriteError, match=r"references cache could not be written.*PREFOPT_CACHE"):
            train(tiny_model, straight / "rows.jsonl", tmp_path / "run")
    # the bundled world's model, too
    with pytest.raises(WriteError, match=r"the cache could not be written.*PREFOPT_CACHE"):
        prefopt.train(
            "dpo", model="world:text", data="world:text", output_dir=str(tmp_path / "w"), ties="drop"
        )


def test_a_cache_that_fills_up_keeps_what_it_has(disk, straight, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("PREFOPT_CACHE", str(disk.place / "cache"))
    add = ShardCache.add

    def full(self: ShardCache, vectors: Any) -> None:
        disk.fill(0)
        add(self, vectors)

    with monkeypatch.context() as patch:
        patch.setattr(ShardCache, "add", full)
        with pytest.raises(WriteError, match=r"references cache could not be written.*No space left"):
            train(tiny_model, straight / "rows.jsonl", tmp_path / "run")
    disk.make_room()
    train(tiny_model, straight / "rows.jsonl", tmp_path / "run", resume=True)
    assert same_end(tmp_path / "run", straight / "run")


def test_a_read_only_cache_that_has_everything_serves(disk, straight, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("PREFOPT_CACHE", str(disk.place / "cache"))
    train(tiny_model, straight / "rows.jsonl", tmp_path / "one")
    disk.read_only()
    train(tiny_model, straight / "rows.jsonl", tmp_path / "run")
    assert same_end(tmp_path / "run", straight / "run")


# ---- without mounting: every call that writes fails once, the nth


class Writes:
    """Counts whatever puts bytes on a disk, and lets one of them find it full."""

    def __init__(self, patch: pytest.MonkeyPatch, fails: int | None = None) -> None:
        import diffusers.models.modeling_utils
        import peft.peft_model
        import safetensors.torch
        import transformers.modeling_utils

        self.count, self.fails = 0, fails
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rust = safetensors.SafetensorError(
            f"Error while serializing: I/O error: {full.strerror} (os error 28)"
        )
        for name in ("fsync", "write"):
            patch.setattr(os, name, self.counted(getattr(os, name), full))
        save = self.counted(safetensors.torch.save_file, rust)
        patch.setattr(safetensors.torch, "save_file", save)
        patch.setattr(transformers.modeling_utils, "safe_save_file", save)
        patch.setattr(peft.peft_model, "safe_save_file", save)
        patch.setattr(diffusers.models.modeling_utils.safetensors.torch, "save_file", save)

    def counted(self, write: Callable[..., Any], error: Exception) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            self.count += 1
            if self.count == self.fails:
                raise error
            return write(*given, **named)

        return call


def interrupt_everywhere(go: Callable[[bool], None], folder: Path, tries: int, monkeypatch: Any) -> set[str]:
    """Run with one write failing, then go on, for `tries` places in the course of a run; returns what was said."""
    with monkeypatch.context() as patch:
        all_writes = Writes(patch)
        go(False)
    expected, said = weights(folder), set()
    for k in range(tries):
        subprocess.run(["rm", "-r", str(folder)], check=True)
        monkeypatch.setenv("PREFOPT_CACHE", str(folder.parent / f"cache-{k}"))
        with monkeypatch.context() as patch:
            Writes(patch, fails=1 + k * all_writes.count // tries)
            with pytest.raises(REFUSALS, match="No space left on device") as told:
                go(False)
        said.add(str(told.value).split(" could not")[0])
        go((folder / "config.yaml").exists())
        assert weights(folder) == expected, told.value
        assert finished(folder)
    return said


def test_no_room_at_any_moment_of_a_run(straight, tiny_model, own_cache, tmp_path, monkeypatch):
    def go(resume: bool) -> None:
        train(tiny_model, straight / "rows.jsonl", tmp_path / "run", resume=resume)

    said = interrupt_everywhere(go, tmp_path / "run", 10, monkeypatch)
    assert "the trained model" in said
    assert any("checkpoint of step" in x for x in said)


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, LORA])
def test_no_room_at_any_moment_of_a_run_on_images(more, sd, images_file, own_cache, tmp_path, monkeypatch):
    data = images_file([pair(n) for n in range(4)])

    def go(resume: bool) -> None:
        given = {**OPTIONS, "eval_size": 0, "sample_prompts": 1, "num_inference_steps": 2, **more}
        prefopt.train(
            "diffusion_dpo", model=sd, data=data, output_dir=str(tmp_path / "run"), resume=resume, **given
        )

    interrupt_everywhere(go, tmp_path / "run", 10, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spa", "compo"])
def test_no_room_at_any_moment_of_several_runs(method, tiny_model, own_cache, tmp_path, monkeypatch):
    data = staged_rig.write(tmp_path / "rows.jsonl", staged_rig.ROWS)

    def go(resume: bool) -> None:
        more = {"rounds": 1} if method == "spa" else {"noisy_pairs": 3}
        staged_rig.train(method, tiny_model, data, tmp_path / "run", resume=resume, **more)

    interrupt_everywhere(go, tmp_path / "run", 12, monkeypatch)
