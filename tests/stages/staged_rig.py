"""Rows, settings and a judge for the tests of methods of several runs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import prefopt
from prefopt.generation.base import Request, Response, Settings
from prefopt.generation.local import LocalGenerator

WORDS = ("red", "blue", "fig", "pear", "one", "two", "apple")
ROWS = [
    {"prompt": f"Sort: {a} {b}", "chosen": f" {b} {a}", "rejected": f" {a} {b} {a}"}
    for a in WORDS[:4]
    for b in WORDS[4:]
]
QUIET: dict[str, Any] = {
    "eval_size": 2,
    "sample_prompts": 0,
    "learning_rate": 3e-3,
    "lr_scheduler_type": "constant",
    "warmup_ratio": 0.0,
    "logging_steps": 1,
    "per_device_train_batch_size": 2,
}
ROUNDS: dict[str, Any] = {
    **QUIET,
    "seed_pairs": 4,
    "rounds": 2,
    "prompts_per_round": 3,
    "response_tokens": 8,
    "response_temperature": 1.0,
    "per_device_eval_batch_size": 2,  # sequences at once while sampling
    "save_steps": 1,
}
ORACLE: dict[str, Any] = {
    **QUIET,
    "split_margin": 6.0,
    "perturbations": 40,
    "radius_relative": 0.03,
    "gate": 0.05,
    "step_size": 0.5,
    "keep_fraction": 0.5,
    "save_steps": 1,
}


def longest(prompt: Any, answer: str) -> float:
    """A judge that likes long answers."""
    return float(len(answer))


def train(method: str, model: Path, data: Path, folder: Path, **more: Any) -> prefopt.TrainResult:
    defaults = ORACLE if method == "compo" else ROUNDS
    return prefopt.train(method, model=model, data=data, output_dir=str(folder), **{**defaults, **more})


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def write(path: Path, lines: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in lines), "utf-8")
    return path


def weights(folder: Path) -> bytes:
    return (folder / "model" / "model.safetensors").read_bytes()


class Interrupted(BaseException):
    """Stands for Ctrl-C, which no `except Exception` may catch."""


class Asked:
    """Counts the samples that local generators are asked for, and can break off after some batches."""

    def __init__(self, monkeypatch: Any, stop_after: int | None = None) -> None:
        self.samples: list[tuple[str, str, int]] = []
        generate = LocalGenerator.generate

        def counted(
            generator: LocalGenerator, requests: Sequence[Request], settings: Settings
        ) -> Iterator[list[Response]]:
            self.samples += [(str(settings.seed), r.id, k) for r in requests for k in r.samples]
            for batches, batch in enumerate(generate(generator, requests, settings)):
                if batches == stop_after:
                    raise Interrupted
                yield batch

        monkeypatch.setattr(LocalGenerator, "generate", counted)


def start_and_kill(
    method: str, model: Path, data: Path, folder: Path, there: Callable[[], bool], **options: Any
) -> None:
    """The command line in a process of its own, SIGKILLed as soon as `there()` holds."""
    defaults = ORACLE if method == "compo" else ROUNDS
    given = [f"{k}={v}" for k, v in {**defaults, **options}.items()]
    process = subprocess.Popen(
        [sys.executable, "-m", "prefopt", "train", method, f"model={model}", f"data={data}", f"output_dir={folder}", *given],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    try:
        while not there():
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.002)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
