"""Ways of taking a step, each measured in a process of its own, in turn: what speed benchmarks have in common.

A script that is called with `--way WAY --folder FOLDER ...` measures that way, and prints what `per_step` gives, `peak_gb` added, as
JSON on its last line.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Measured = dict[str, float]


def clocks() -> tuple[float, float]:
    """Wall time and this process's processor time, in seconds."""
    return time.perf_counter(), time.process_time()


def steps_timed() -> list[float]:
    """Seconds of each step that `prefopt.train` takes from now on in this process, added as they are taken."""
    from prefopt.training.loop import Loop

    seconds: list[float] = []
    update = Loop.update

    def timed(self: Any, examples: Any) -> None:
        start = time.perf_counter()
        update(self, examples)
        seconds.append(time.perf_counter() - start)

    Loop.update = timed  # type: ignore[method-assign]
    return seconds


def per_step(began: tuple[float, float], ended: tuple[float, float], steps: int) -> Measured:
    """Differences of both clocks, a step."""
    return {
        "seconds": (ended[0] - began[0]) / steps,
        "processor_seconds": (ended[1] - began[1]) / steps,
    }


def peak() -> float:
    """The most memory that this process has held, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure(script: str, way: str, folder: Path, threads: int | None, options: Sequence[str]) -> Measured:
    """One way in a process of its own.

    Args:
        script: that measures.
        way: of it.
        folder: with model, rows and cache.
        threads: of the process; None for its own choice.
        options: of the script, besides.
    """
    command = [sys.executable, script, "--way", way, "--folder", str(folder), *options]
    environment = dict(os.environ, PREFOPT_CACHE=str(folder / "cache"))
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    out = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if out.returncode:
        raise SystemExit(out.stderr[-2000:])
    found: Measured = json.loads(out.stdout.splitlines()[-1])
    return found


def alternated(
    ways: Sequence[str], rounds: int, measured: Callable[[str], Measured]
) -> dict[str, list[Measured]]:
    """What was measured of each way, a number a round; a round goes through all ways."""
    runs: dict[str, list[Measured]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            runs[way].append(measured(way))
    return runs


def against(base: Sequence[Measured], rounds: Sequence[Measured]) -> list[str]:
    """For wall time and processor time: the median, and the base's over it, as median and range over rounds."""
    cells = []
    for clock in ("seconds", "processor_seconds"):
        ratios = sorted(a[clock] / b[clock] for a, b in zip(base, rounds, strict=True))
        median = statistics.median(r[clock] for r in rounds)
        cells += [f"{median:.2f}", f"{statistics.median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]"]
    return cells


def machine() -> str:
    """What this runs on."""
    import diffusers
    import torch

    return (
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; Python {platform.python_version()}, "
        f"torch {torch.__version__}, diffusers {diffusers.__version__}"
    )
