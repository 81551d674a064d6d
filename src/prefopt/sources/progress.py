"""A progress bar for loops that may or may not be long."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

SECONDS_BEFORE_BAR = 2.0

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class SizedIterable(Protocol[T_co]):
    """Anything with a length to iterate over."""

    def __iter__(self) -> Iterator[T_co]: ...

    def __len__(self) -> int: ...


def with_bar(items: SizedIterable[T], text: str, progress: bool = True) -> Iterator[T]:
    """The items, with a progress bar on stderr once two seconds have passed."""
    if not progress:
        yield from items
        return
    begin = time.monotonic()
    iterator: Iterator[T] = iter(items)
    for n, item in enumerate(iterator):
        yield item
        if time.monotonic() - begin > SECONDS_BEFORE_BAR:
            yield from _barred(iterator, text, n + 1, len(items))


def _barred(items: Iterable[T], text: str, done: int, total: int) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(text, total=total, completed=done)
        for item in items:
            yield item
            bar.advance(task)
