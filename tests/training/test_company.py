"""Company in one folder: a second run is refused and told by whom, a dead one is in nobody's way, caches are shared."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import prefopt
from conftest import ROWS
from modalities.image.image_runs import weights
from prefopt.cli.main import main
from prefopt.locking import FolderInUseError, FolderLock
from prefopt.training.course import Course
from processes import start, words
from stages import staged_rig

OPTIONS: dict[str, Any] = {
    "max_steps": 4, "save_steps": 2, "logging_steps": 1, "learning_rate": 1e-3, "sample_prompts": 0, "eval_size": 2,
    "per_device_train_batch_size": 2,
}  # fmt: skip
HOLDS = """
import sys, time
from pathlib import Path
from prefopt.locking import FolderLock
lock = FolderLock(Path(sys.argv[1]))
lock.take()
print("held", flush=True)
time.sleep(100)
"""


def train(model: Path, data: Path, folder: Path, **more: Any) -> prefopt.TrainResult:
    return prefopt.train("dpo", model=model, data=data, output_dir=str(folder), **{**OPTIONS, **more})


@pytest.fixture
def other():
    """Starts a process that holds a folder's lock; killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def start(folder: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDS, str(folder)], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_second_run_is_refused_and_told_by_whom(other, tiny_model, rows_file, own_cache, tmp_path):
    data, folder = rows_file(ROWS), tmp_path / "run"
    train(tiny_model, data, folder)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".lock")}
    process = other(folder)
    for more in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(
            FolderInUseError,
            match=rf"in use by another run \(process {process.pid} on {socket.gethostname()}, started ",
        ):
            train(tiny_model, data, folder, **more)
    for method in ("spa", "compo"):
        with pytest.raises(FolderInUseError, match=str(process.pid)):
            staged_rig.train(method, tiny_model, data, folder, overwrite=True)
    after = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".lock")}
    assert after == before
    process.kill()
    process.wait()
    train(tiny_model, data, folder, overwrite=True)  # a dead process's lock is none


@pytest.mark.parametrize("method", ["dpo", "spa"])
def test_two_at_once_one_wins(method, tiny_model, own_cache, tmp_path):
    """Both find no folder; the second to open it is refused. One finishes as if it had been alone."""
    data = staged_rig.write(tmp_path / "rows.jsonl", staged_rig.ROWS)
    options = OPTIONS if method == "dpo" else {**staged_rig.ROUNDS, "rounds": 1}
    given = ["-m", "prefopt", "train", method, *words({"model": tiny_model, "data": data, **options})]
    pair = [start(*given, f"output_dir={tmp_path / 'run'}") for _ in range(2)]
    done = [running.finish() for running in pair]
    codes, told = [process.returncode for process in done], [process.stderr for process in done]
    assert sorted(codes) == [0, 1], told
    (refusal,) = (text for text, code in zip(told, codes, strict=True) if code)
    assert "Traceback" not in refusal
    assert (
        "in use by another run" in refusal
        or "another run has just written" in refusal
        or "already holds" in refusal
    )
    assert start(*given, f"output_dir={tmp_path / 'alone'}").finish().returncode == 0
    assert weights(tmp_path / "run") == weights(tmp_path / "alone")


def test_a_killed_run_blocks_nobody(tiny_model, rows_file, own_cache, tmp_path):
    data, folder = rows_file(ROWS), tmp_path / "run"
    given = {"model": tiny_model, "data": data, "output_dir": folder, **OPTIONS, "max_steps": 4000}
    process = start("-m", "prefopt", "train", "dpo", *words(given))
    while not (folder / "checkpoints" / "step-00000002").exists():
        assert not process.ended, process.read("stderr")
        time.sleep(0.01)
    with pytest.raises(FolderInUseError, match=f"process {process.pid} "):
        train(tiny_model, data, folder, resume=True)
    process.kill()
    assert (folder / ".lock.json").exists()  # the note outlives it, the lock does not
    FolderLock(folder).look()
    train(tiny_model, data, folder, overwrite=True)
    train(tiny_model, data, tmp_path / "alone")
    assert weights(folder) == weights(tmp_path / "alone")


def test_a_run_within_this_process_is_company_too(tiny_model, rows_file, own_cache, tmp_path, monkeypatch):
    """A run from a second thread; and once the first is over, or has failed, the folder is free."""
    data, folder, told = rows_file(ROWS), tmp_path / "run", []
    after_step = Course.after_step

    def second(course: Course) -> None:
        def attempt() -> None:
            with pytest.raises(FolderInUseError, match=f"process {os.getpid()} "):
                train(tiny_model, data, folder, overwrite=True)
            told.append(1)

        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
        after_step(course)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Course, "after_step", second)
        with pytest.raises(KeyboardInterrupt):
            train(tiny_model, data, folder)
    assert told == [1]
    train(tiny_model, data, folder, overwrite=True)


def test_comparisons_and_evaluations_are_held_too(other, tmp_path):
    from click.testing import CliRunner

    process = other(tmp_path / "out")
    compare = ["compare", "dpo:ties=drop", "--model", "world:text", "--data", "world:text"]
    evaluate = ["evaluate", "m", "--baseline", "world:text", "--data", "world:text", "--judge", "world:text"]
    for command, what in ((compare, "comparison"), (evaluate, "evaluation")):
        done = CliRunner().invoke(main, [*command, "--output", str(tmp_path / "out")])
        assert done.exit_code == 1
        assert f"in use by another {what} (process {process.pid}" in " ".join(done.output.split())
        assert "another --output" in " ".join(done.output.split())


def test_two_runs_fill_one_cache(tiny_model, rows_file, tmp_path, monkeypatch):
    """At the same time, and both are as if they had been alone."""
    data = rows_file(ROWS)
    monkeypatch.setenv("PREFOPT_CACHE", str(tmp_path / "alone-cache"))
    train(tiny_model, data, tmp_path / "alone")
    monkeypatch.setenv("PREFOPT_CACHE", str(tmp_path / "cache"))
    given = ["-m", "prefopt", "train", "dpo", *words({"model": tiny_model, "data": data, **OPTIONS})]
    runs = [tmp_path / name for name in ("one", "two")]
    pair = [start(*given, f"output_dir={run}") for run in runs]
    assert [running.finish().returncode for running in pair] == [0, 0]
    for run in runs:
        assert weights(run) == weights(tmp_path / "alone")
        assert (run / "metrics.jsonl").read_text() == (tmp_path / "alone" / "metrics.jsonl").read_text()


def test_a_lock_goes_with_its_process(other, tmp_path):
    process = other(tmp_path)
    with pytest.raises(FolderInUseError):
        FolderLock(tmp_path).look()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    began = time.monotonic()
    with FolderLock(tmp_path) as lock:
        assert lock.held
    assert time.monotonic() - began < 1
    assert not (tmp_path / ".lock.json").exists()
