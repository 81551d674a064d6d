"""Caption files of HumanML3D and KIT-ML: a line `caption#word/POS word/POS ...#from#to` a caption, times in seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from prefopt.motion.arrays import MotionFileError


@dataclass(frozen=True, slots=True)
class Caption:
    """What is said of a motion, or of a part of it.

    Attributes:
        text: the caption.
        tokens: its words with their parts of speech, "walk/VERB", as the T2M evaluator reads them; empty where there are none.
        start_s, end_s: the part in seconds; both 0: the whole motion.
        line: of the file, from 1.
    """

    text: str
    tokens: tuple[str, ...]
    start_s: float
    end_s: float
    line: int


def read_captions(path: Path) -> tuple[list[Caption], list[tuple[int, MotionFileError]]]:
    """The captions of a file, and what is wrong with its other lines, by their numbers.

    A line without "#" is a caption of the whole motion, as is one of captions and words alone; blank lines are skipped.

    Raises:
        MotionFileError: no such file ("missing_text"), not UTF-8 ("broken_text"), nothing in it ("no_caption").
    """
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise MotionFileError(f"{path} is not there", "missing_text") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise MotionFileError(
            f"{path}, line {line}: not UTF-8 ({error.reason}); save the file as UTF-8", "broken_text"
        ) from None
    captions, wrong = [], []
    # not splitlines, which also breaks at characters that a caption may hold
    for number, content_line in enumerate(content.split("\n"), 1):
        if not content_line.strip():
            continue
        try:
            captions.append(_caption(content_line.strip(), number))
        except MotionFileError as error:
            wrong.append((number, MotionFileError(f"{path}, line {number}: {error}", error.reason)))
    if not captions and not wrong:
        raise MotionFileError(f"{path} is empty: needed one caption a line", "no_caption")
    return captions, wrong


def _caption(line: str, number: int) -> Caption:
    fields = line.split("#")
    if len(fields) == 3 or len(fields) > 4:
        raise MotionFileError(
            f"{len(fields)} parts between '#', needed caption#words#from#to: {line[:80]!r}", "broken_text"
        )
    text, words, start, end = [*fields, *["", "0", "0"][len(fields) - 1 :]] if len(fields) < 4 else fields
    if not text.strip():
        raise MotionFileError("the caption is empty", "no_caption")
    start_s, end_s = _seconds(start), _seconds(end)
    if start_s < 0 or end_s < 0:
        raise MotionFileError(
            f"the part from {start_s:g} s to {end_s:g} s begins before the motion", "wrong_span"
        )
    if end_s <= start_s and (start_s, end_s) != (0, 0):
        raise MotionFileError(f"the part from {start_s:g} s to {end_s:g} s has no length", "wrong_span")
    return Caption(text.strip(), tuple(words.split()), start_s, end_s, number)


def _seconds(field: str) -> float:
    try:
        value = float(field)
    except ValueError:
        raise MotionFileError(f"{field.strip()!r} is no time in seconds", "broken_text") from None
    if math.isinf(value):
        raise MotionFileError(f"{field.strip()!r} is no time in seconds", "broken_text")
    return 0.0 if math.isnan(value) else value  # HumanML3D has "nan" for "not said"
