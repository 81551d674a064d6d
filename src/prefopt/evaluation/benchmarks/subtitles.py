"""Subtitles of videos: those that are shown while one of a few frames is."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

TAG = re.compile(r"<[^<>]*>")
TIMES = re.compile(r"(\d+:\d+:\d+[.,]\d+)\s*-->\s*(\d+:\d+:\d+[.,]\d+)")


class Line(NamedTuple):
    """A subtitle."""

    start_s: float
    end_s: float
    text: str


def read_subtitles(path: Path) -> list[Line]:
    """Read .srt (Video-MME), or .json with `start`, `end`, `line` or `timestamp`, `text` (LongVideoBench).

    Markup within lines is left out.

    Raises:
        ValueError: neither.
        OSError: it cannot be read.
    """
    text = path.read_text("utf-8-sig", errors="replace")
    try:
        if path.suffix == ".json":
            return [_of_json(row) for row in json.loads(text)]
        return list(_of_srt(text))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} holds no subtitles ({type(error).__name__}: {error}); needed .srt, or a JSON list of start, end and line"
        ) from None


def shown_at(lines: Sequence[Line], seconds: Iterable[float]) -> str:
    """The text of the lines that are shown at one of the times, each once, in order.

    Example:
        >>> shown_at([Line(0, 2, "Hello."), Line(2, 4, "World.")], [2.5, 3.0])
        'World.'
    """
    times = list(seconds)
    return "\n".join(line.text for line in lines if any(line.start_s <= time < line.end_s for time in times))


def _of_srt(text: str) -> Iterable[Line]:
    for block in re.split(r"\n\s*\n", text.replace("\r\n", "\n")):
        times = TIMES.search(block)
        if times is not None:
            said = " ".join(TAG.sub("", block[times.end() :]).split())
            if said:
                yield Line(_seconds(times[1]), _seconds(times[2]), said)


def _of_json(row: dict[str, Any]) -> Line:
    start, end = row["timestamp"] if "timestamp" in row else (row["start"], row["end"])
    said = " ".join(TAG.sub("", str(row.get("text") or row.get("line") or "")).split())
    return Line(_seconds(start), math.inf if end is None else _seconds(end), said)


def _seconds(value: Any) -> float:
    """Of a number, or of hours:minutes:seconds."""
    if isinstance(value, int | float):
        return float(value)
    return sum(
        float(part) * 60**n for n, part in enumerate(reversed(str(value).replace(",", ".").split(":")))
    )
