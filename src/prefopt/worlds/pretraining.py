"""What the models of worlds are made with: seeds put back as they were, optimizer and step, a bar, libraries that hold their tongue."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

MAX_THREADS = 4
"""More only wait for each other on tensors this small."""


@contextlib.contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """torch's global generators seeded inside the block and put back as they were after it."""
    devices = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


@contextlib.contextmanager
def few_threads() -> Iterator[None]:
    """At most `MAX_THREADS` inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(before, MAX_THREADS))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def cosine(angle: float) -> float:
    """Falls from 1 at angle 0 to 0 at pi."""
    return 0.5 + 0.5 * math.cos(angle)


def adamw(
    parameters: Iterable[Any],
    learning_rate: float,
    steps: int,
    beta2: float = 0.99,
    decay: Callable[[float], float] = cosine,
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW and its schedule: a linear warm-up over 5 % of the steps, then a decay.

    Args:
        parameters: to train.
        learning_rate: peak.
        steps: in all.
        beta2: of the squared gradients' average.
        decay: share of the peak, by an angle that grows from 0 to pi.
    """
    optimizer = torch.optim.AdamW(
        parameters, lr=learning_rate, betas=(0.9, beta2), weight_decay=0.01, fused=True
    )
    warmup = max(1, steps // 20)

    def rate(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return decay(math.pi * (step - warmup) / max(1, steps - warmup))

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, rate)


def descend(
    loss: Tensor,
    parameters: Iterable[Any],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> None:
    """One step of gradients clipped at norm 1."""
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    schedule.step()


@contextlib.contextmanager
def progress_bar(label: str, total: int, shown: bool) -> Iterator[Callable[[str], None]]:
    """A bar on standard error if that is a terminal; yields a function that advances it by one, with a note."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=Console(stderr=True), disable=not (shown and sys.stderr.isatty()), transient=True
    ) as bar:
        task = bar.add_task(label, total=total, note="")
        yield lambda note: bar.update(task, advance=1, note=note)


@contextlib.contextmanager
def no_bars(logging: Any) -> Iterator[None]:
    """No bars of a library for what takes a moment.

    Args:
        logging: the library's module of that name: `transformers.utils.logging`, `diffusers.utils.logging`.
    """
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
