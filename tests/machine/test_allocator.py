"""Memory of a CPU run is kept between steps and given back after it."""

from __future__ import annotations

import contextlib
import platform
import subprocess
import sys

import pytest

import prefopt
from conftest import ROWS
from prefopt.training import run as runs
from prefopt.training.loop import Loop

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator alone is told")

# in a process of its own: what a test session holds would hide what is given back
PROGRAM = """
import resource
from pathlib import Path
from prefopt.machine.allocator import kept_memory

def resident():  # MiB
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20

def step(size, number):
    for _ in range(3):
        blocks = [bytearray(size * 2**20) for _ in range(number)]
        del blocks

start = resident()
with kept_memory({device!r}):
    step(8, 20)
    small = resident() - start
    step(64, 4)
    large = resident() - start - small
print(small, large, resident() - start)
"""


def run(device="cpu", **environment):
    """MiB kept of freed blocks of 8 MiB, then of 64 MiB; MiB kept afterwards."""
    sizes = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(device=device)],
        capture_output=True, text=True, check=True, env={"PATH": "", **environment},
    ).stdout.split()  # fmt: skip
    return [float(size) for size in sizes]


@glibc
def test_blocks_up_to_32_mib_are_kept_and_given_back_at_the_end():
    small, large, after = run()
    assert small > 150
    assert large < 32
    assert after < 32


@glibc
@pytest.mark.parametrize(
    ("device", "environment"),
    [
        ("cuda", {}),
        ("cpu", {"MALLOC_ARENA_MAX": "1"}),
        ("cpu", {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}),
    ],
)
def test_left_alone(device, environment):
    small, _, _ = run(device, **environment)
    assert small < 32


def test_a_run_keeps_its_memory(tiny_model, rows_file, own_cache, monkeypatch, tmp_path):
    """The loop runs within it, and leaves it."""
    seen = []

    @contextlib.contextmanager
    def watched(device):
        seen.append(device)
        yield
        seen.append("left")

    monkeypatch.setattr(runs, "kept_memory", watched)
    update = Loop.update
    monkeypatch.setattr(Loop, "update", lambda self, examples: seen.append("step") or update(self, examples))
    options = {"max_steps": 2, "eval_size": 0, "sample_prompts": 0, "save_strategy": "no"}
    prefopt.train("dpo", model=tiny_model, data=rows_file(ROWS), output_dir=str(tmp_path / "run"), **options)
    assert seen == ["cpu", "step", "step", "left"]
