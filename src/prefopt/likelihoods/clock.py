"""The date that chat templates print: a run's own, so that tomorrow its prompts are the same.

Templates ask for the date through `strftime_now`, a function that transformers gives them (Llama 3's does, among many).
Whether one asks is found by rendering. The date of a run is the day on which it began; who resumes takes that day.
"""

from __future__ import annotations

import contextlib
import datetime
import threading
from collections.abc import Iterator
from contextvars import ContextVar

_DAY: ContextVar[datetime.date | None] = ContextVar("day", default=None)
_RENDERING = threading.RLock()


def today() -> datetime.date:
    """The day of the run that this is part of, else of the calendar."""
    return _DAY.get() or calendar()


def calendar() -> datetime.date:
    """The machine's date."""
    return datetime.date.today()


@contextlib.contextmanager
def dated(day: datetime.date) -> Iterator[None]:
    """What is made within belongs to a run of this day.

    Example:
        >>> with dated(datetime.date(2026, 3, 1)):
        ...     str(today())
        '2026-03-01'
    """
    token = _DAY.set(day)
    try:
        yield
    finally:
        _DAY.reset(token)


class Clock:
    """A clock that stands still.

    Args:
        day: that it shows; `today()` by default.

    Attributes:
        asked: whether a template has looked at it.
    """

    def __init__(self, day: datetime.date | None = None) -> None:
        self.day = day or today()
        self.asked = False

    @property
    def told(self) -> str:
        """What a user should know of a template that prints the date; empty of another."""
        if not self.asked:
            return ""
        return f"the chat template prints the date: {self.day} here, and on whatever day a run goes on (template_date)"

    @contextlib.contextmanager
    def stands(self) -> Iterator[None]:
        """While open, templates of transformers see this clock instead of the machine's."""
        from transformers.utils import chat_template_utils as templates

        clock = self

        class Standing(datetime.datetime):
            @classmethod
            def now(cls, tz: datetime.tzinfo | None = None) -> Standing:
                clock.asked = True
                return cls(clock.day.year, clock.day.month, clock.day.day, tzinfo=tz)

        with _RENDERING:  # the name is the module's, so one at a time
            before = templates.datetime
            templates.datetime = Standing
            try:
                yield
            finally:
                templates.datetime = before
