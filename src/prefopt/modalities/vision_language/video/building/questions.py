"""What models write, read: questions about one clip or several scenes, and why one cannot be used."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from prefopt.comparisons import UnusableItem
from prefopt.generation.base import Response

PLACES = re.compile(
    r"\b(first|beginning|begins?|last|end|ends|ending|frames?|timestamps?)\b"
    r"|\b\d{1,2}:\d{2}\b"
    r"|\b(\d+(\.\d+)?|one|two|three|four|five|six|seven|eight|nine|ten|twenty|thirty)[ -]?"
    r"(s|secs?|seconds?|mins?|minutes?|hours?)\b",
    re.IGNORECASE,
)
"""Words that place something in time: a clip among others has another time, and no beginning."""
NAMES_OF_SCENES = re.compile(r"\bcaptions?\b|\bscenes?\s*(#|no\.?|number|id)?\s*\d+|\[\d+\]", re.IGNORECASE)
"""Words by which a text shows that it was written from a list of captions."""


def whole(response: Response, what: str, max_new_tokens: int) -> str:
    """A text that its writer ended.

    Raises:
        UnusableItem: it is empty, or was cut off.
    """
    text = response.text.strip()
    if not text:
        raise UnusableItem(f"{what} is empty", f"empty_{what.split()[-1]}")
    if not response.ended:
        raise UnusableItem(
            f"{what} was cut off after {max_new_tokens} tokens: raise --max_new_tokens",
            f"cut_{what.split()[-1]}",
        )
    return text


def anchored_question(response: Response, max_new_tokens: int) -> str:
    """A question about what is in one clip, wherever that stands.

    Raises:
        UnusableItem: there is none, or it names a time or a place in the video.
    """
    text = whole(response, "the question", max_new_tokens).strip().strip("\"'“”").strip()
    if found := PLACES.search(text):
        raise UnusableItem(
            f"the question {text[:120]!r} says {found[0]!r}, which is not true of the clip once it stands among others",
            "names_a_time",
        )
    return text


class Question(NamedTuple):
    """A question over several scenes."""

    text: str
    answer: str
    scenes: tuple[int, ...]
    """Places of those that the answer needs, in order."""


def scenes_question(response: Response, scenes: int, max_new_tokens: int) -> Question:
    """A question, its answer and the scenes that it was made of, out of a reply with a JSON object in it.

    Args:
        response: of the writer.
        scenes: how many the film has; replies count them from 1.
        max_new_tokens: of a reply.

    Raises:
        UnusableItem: it cannot be read, names fewer than two scenes or scenes that are not there, or quotes the list that it was
            made from.

    Example:
        >>> reply = '{"question": "Who returns?", "answer": "The cat.", "scenes": [3, 1]}'
        >>> scenes_question(Response("a", 0, reply, 9, True), 4, 256)
        Question(text='Who returns?', answer='The cat.', scenes=(0, 2))
    """
    reply = whole(response, "the question", max_new_tokens)
    found = _object_in(reply, ("question", "answer", "scenes"))
    texts = None if found is None else (found["question"], found["answer"])
    if found is None or not all(isinstance(text, str) and text.strip() for text in texts or ()):
        raise UnusableItem(
            f"the question cannot be read: {reply[:80]!r}; needed a JSON object with question, answer and scenes",
            "unreadable_question",
        )
    question, answer = (text.strip() for text in (found["question"], found["answer"]))
    named = found["scenes"]
    if not isinstance(named, list) or not all(isinstance(n, int) and not isinstance(n, bool) for n in named):
        raise UnusableItem(f"scenes is {named!r}: needed a list of their numbers", "unreadable_question")
    if wrong := sorted({n for n in named if not 1 <= n <= scenes}):
        raise UnusableItem(
            f"the question names the scenes {wrong}, and there are 1 to {scenes}", "unknown_scenes"
        )
    if len(set(named)) < 2:
        raise UnusableItem(
            f"the question needs {len(set(named))} scene(s): needed two at least", "too_few_scenes"
        )
    for text in (question, answer):
        if quoted := NAMES_OF_SCENES.search(text):
            raise UnusableItem(
                f"{text[:120]!r} says {quoted[0]!r}: somebody who sees the film knows of no list of scenes",
                "quotes_scenes",
            )
    return Question(question, answer, tuple(sorted(n - 1 for n in set(named))))


def _object_in(reply: str, keys: Sequence[str]) -> dict[str, Any] | None:
    """The first JSON object with these keys in a reply, whatever stands around it."""
    decoder = json.JSONDecoder()
    for match in re.finditer(r"\{", reply):
        try:
            found, _ = decoder.raw_decode(reply, match.start())
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict) and set(keys) <= set(found):
            return found
    return None
