"""Processes of their own, for what is killed, done twice at once, or judged by its exit code and what it prints.

A fresh interpreter spends five seconds on imports, which are the same for every test. These are forked off a server that
has done them once (`multiprocessing`'s); what is left of a user's process is its exit code, output, folder and environment.
Tests of importing itself, and one run of each command, start an interpreter.
"""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.connection
import os
import pkgutil
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import prefopt as package

# what commands import while they run, and the whole package
IMPORTED = [
    "accelerate.utils",
    "bitsandbytes",
    "diffusers.loaders.lora_pipeline",
    "diffusers.models.autoencoders.autoencoder_kl",
    "diffusers.models.unets.unet_2d_condition",
    "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion",
    "peft",
    "rich.progress",
    "scipy.stats",
    "torch._dynamo",
    "transformers.models.clip.modeling_clip",
    "transformers.models.llama.modeling_llama",
    "transformers.optimization",
    *(
        module.name
        for module in pkgutil.walk_packages(package.__path__, "prefopt.")
        if not module.name.endswith("__main__")
    ),
]
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(IMPORTED)
LONGEST = 200  # seconds


def as_interpreter(arguments: list[str], folder: str, environment: dict[str, str], said: str) -> None:
    """What `python *arguments` does, in a forked process: `-m module`, `-c code` or a script, each with its arguments."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, name in ((1, "stdout"), (2, "stderr")):
        with open(Path(said) / name, "wb") as file:
            os.dup2(file.fileno(), number)
        setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
    kind, *rest = arguments
    if kind == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = arguments
        runpy.run_path(kind, run_name="__main__")


class Running:
    """A process that has been started."""

    def __init__(self, arguments: tuple[object, ...], folder: Path, more: Mapping[str, str]) -> None:
        self.arguments = [str(a) for a in arguments]
        self._said = TemporaryDirectory()
        environment = {**os.environ, **more}
        self.process: ForkServerProcess = CONTEXT.Process(
            target=as_interpreter, args=(self.arguments, str(folder), environment, self._said.name)
        )
        self.process.start()

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self.process.pid is not None
        return self.process.pid

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return not self.process.is_alive()

    def read(self, name: str) -> str:
        """What it has written so far: `stdout` or `stderr`."""
        path = Path(self._said.name) / name
        return path.read_text("utf-8", "replace") if path.exists() else ""

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self.process.kill()
        self.process.join()

    def finish(self) -> subprocess.CompletedProcess[str]:
        """Wait for the end."""
        self.process.join(LONGEST)
        if not self.ended:
            self.kill()
            raise subprocess.TimeoutExpired(self.arguments, LONGEST, self.read("stdout"), self.read("stderr"))
        assert self.process.exitcode is not None
        return subprocess.CompletedProcess(
            self.arguments, self.process.exitcode, self.read("stdout"), self.read("stderr")
        )


def start(*arguments: object, folder: Path = Path(), **environment: str) -> Running:
    """Start `python *arguments` in a folder, with more in the environment."""
    return Running(arguments, folder, environment)


def prefopt(folder: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """`prefopt *arguments`, to its end."""
    return start("-m", "prefopt", *arguments, folder=folder, COLUMNS="200", **environment).finish()


def fresh_prefopt(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The same by an interpreter of its own, which imports what it needs and nothing else."""
    return subprocess.run(
        [sys.executable, "-m", "prefopt", *map(str, arguments)],
        cwd=folder, capture_output=True, text=True, timeout=LONGEST, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip


def assert_plain_error(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Failed, in a sentence with these words."""
    assert done.returncode in (1, 2), done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


def words(options: Mapping[str, Any]) -> list[str]:
    """Keys of a configuration for the command line."""
    return [f"{k}={json.dumps(v) if isinstance(v, bool | list | dict) else v}" for k, v in options.items()]


def kill_once_there(path: Path, *arguments: object) -> None:
    """SIGKILL `prefopt *arguments` as soon as the path exists."""
    running = start("-m", "prefopt", *arguments)
    deadline = time.monotonic() + LONGEST
    try:
        while not path.exists():
            assert not running.ended, running.read("stderr")
            assert time.monotonic() < deadline
            time.sleep(0.002)
    finally:
        running.kill()
    assert running.process.exitcode == -signal.SIGKILL


def free_port() -> int:
    """For the processes of one run to meet at."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def distributed(*arguments: object, count: int = 2) -> None:
    """One run of several processes, each with the environment that torch's launcher gives it."""
    place = {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count),
        "ACCELERATE_USE_CPU": "true",
    }  # fmt: skip
    ranks = [start(*arguments, RANK=str(n), LOCAL_RANK=str(n), **place) for n in range(count)]
    try:
        waiting = list(ranks)
        while waiting:
            multiprocessing.connection.wait([r.process.sentinel for r in waiting], LONGEST)
            ended = [r for r in waiting if r.ended]
            assert ended, "nothing came of it"
            waiting = [r for r in waiting if r not in ended]
            for running in ended:
                assert running.process.exitcode == 0, running.read("stderr")[-4000:]
    finally:
        for running in ranks:
            running.kill()
