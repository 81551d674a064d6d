"""`transformers serve` in a process of its own."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextlib.contextmanager
def transformers_serve(log: Path, model: Path | None = None) -> Iterator[str]:
    """The address of a server on loopback; without a model it loads the one that a request names."""
    pytest.importorskip("fastapi", reason="transformers serve needs transformers[serving]")
    port = free_port()
    command = Path(sys.executable).with_name("transformers")
    with log.open("w") as file:
        process = subprocess.Popen(
            [command, "serve", *([model] if model else []), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"],
            stdout=file, stderr=file, env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        try:
            for _ in range(240):
                assert process.poll() is None, log.read_text()
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                    break
                except OSError:
                    time.sleep(0.25)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()
            process.wait()
