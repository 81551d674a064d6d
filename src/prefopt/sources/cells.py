"""Single values of a row: checked, and brought into one form. Each raises `UnusableItem` with a reason."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

from prefopt.comparisons import LOSE, TIE, WIN, Outcome, UnusableItem
from prefopt.sources.chat_text import is_broken_json, is_python_repr, messages_in, with_role, without_nones
from prefopt.sources.report import message_texts

TAKEN = frozenset(
    {
        *("label", "is_tie", "votes", "target", "weight", "id", "score_chosen", "score_rejected"),
        *("tools", "chat_template_kwargs"),
    }
)
OUTCOMES = {"win": WIN, "lose": LOSE, "tie": TIE}


class NotText(ValueError):
    """Something other than text where only text is handled; an error, not a dropped row."""


def near(name: str, names: Iterable[str]) -> str:
    """A clause naming the nearest of `names`, or nothing."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def nearest(absent: Iterable[str], names: Sequence[str]) -> str:
    """For each column that is absent, a clause naming the nearest that is there."""
    return "".join(near(name, names).replace("did you mean", f"for {name}, did you mean") for name in absent)


# -- numbers and labels --------------------------------------------------------------------------------------


def unless(column: str) -> str:
    """What to do where a column that is read without being asked for means something else in this data."""
    if column not in TAKEN:
        return ""
    return f" (if {column} means something else here: ignore_columns=[{column}])"


def as_number(value: Any, column: str, reason: str = "wrong_type") -> float:
    """A finite number; anything that is no number at all is of the wrong type."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise UnusableItem(f"{column} is {shown(value)}; needed a number{unless(column)}", "wrong_type")
    try:
        number = float(value)
    except OverflowError:  # an integer of hundreds of digits
        number = math.inf
    if not math.isfinite(number):
        raise UnusableItem(f"{column} is {number}; needed a finite number", reason)
    return number


def as_weight(value: Any) -> float:
    """A weight, 1 where absent."""
    weight = 1.0 if value is None else as_number(value, "weight", "bad_weight")
    if weight <= 0:
        raise UnusableItem(
            f"weight is {weight:g}; needed a positive number: leave out rows that should not count",
            "bad_weight",
        )
    return weight


def as_flag(value: Any, column: str) -> bool:
    """A boolean; 0 and 1 are taken as well."""
    if value is True or value is False:
        return value
    if not isinstance(value, str) and value in (0, 1):
        return bool(value)
    reason = "unknown_label" if column == "label" else "wrong_type"
    raise UnusableItem(f"{column} is {shown(value)}; needed true or false{unless(column)}", reason)


def as_votes(value: Any) -> Outcome:
    """Vote counts [win, lose, tie] as shares."""
    counts = _three(value, "votes")
    total = sum(counts)
    if total <= 0:
        raise UnusableItem("votes are all zero: nobody voted", "bad_votes")
    return Outcome(*(count / total for count in counts))


def as_target(value: Any) -> Outcome:
    """Shares [win, lose, tie] that sum to 1 already."""
    shares = _three(value, "target")
    total = sum(shares)
    if abs(total - 1) > 1e-4:
        raise UnusableItem(
            f"target {shares} sums to {total:g}; needed shares that sum to 1 (use votes for counts){unless('target')}",
            "bad_target",
        )
    return Outcome(*(share / total for share in shares))


def _three(value: Any, column: str) -> list[float]:
    value = value.tolist() if hasattr(value, "tolist") else value  # numpy
    if not isinstance(value, list | tuple):
        raise UnusableItem(
            f"{column} is {shown(value)}; needed three numbers [win, lose, tie]{unless(column)}", "wrong_type"
        )
    reason = f"bad_{column}"
    if len(value) != 3:
        raise UnusableItem(
            f"{column} has {len(value)} numbers; needed three: [win, lose, tie]{unless(column)}", reason
        )
    numbers = [as_number(x, column, reason) for x in value]
    if min(numbers) < 0:
        raise UnusableItem(f"{column} {numbers} holds a negative number", reason)
    return numbers


def as_outcome(row: Mapping[str, Any]) -> Outcome:
    """What a row of a pair says about it: `target`, else `votes`, else `label` and `is_tie`, else a win."""
    label, is_tie = row.get("label"), row.get("is_tie")
    tie = None if is_tie is None else as_flag(is_tie, "is_tie")
    if label is not None and (not isinstance(label, str) or label not in OUTCOMES):
        # "chosen" is no misspelt "lose": only what is nearly a word of ours is taken for one
        close = (
            difflib.get_close_matches(label.lower(), OUTCOMES, n=1, cutoff=0.75)
            if isinstance(label, str)
            else []
        )
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise UnusableItem(
            f"label is {shown(label)}; needed 'win', 'tie' or 'lose'{hint}{unless('label')}", "unknown_label"
        )
    if label is not None and tie is not None and tie != (label == "tie"):
        raise UnusableItem(f"label is {label!r} but is_tie is {tie}", "contradicting_labels")
    if row.get("target") is not None:
        return as_target(row["target"])
    if row.get("votes") is not None:
        return as_votes(row["votes"])
    return OUTCOMES[label] if label is not None else TIE if tie else WIN


# -- text and messages ---------------------------------------------------------------------------------------


def as_text(value: str, column: str) -> str:
    """A text that can be written down: half of a surrogate pair, as cut emojis leave it, cannot."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise UnusableItem(
            f"{column} holds half of a surrogate pair, which is no character; was an emoji cut in two?",
            "bad_text",
        ) from None
    return value


def as_sample(value: Any, column: str, strip_nones: bool) -> str | list[dict[str, Any]]:
    """Text or messages as they are, after a check; one message becomes a list of one, and JSON text its messages.

    Args:
        value: a row's value.
        column: its name, for messages.
        strip_nones: drop keys without a value at any depth: Arrow tables give every message the keys of all.
    """
    if isinstance(value, str):
        spelled = messages_in(value)
        if spelled is None:
            if is_python_repr(value):
                raise UnusableItem(
                    f"{column} is a list of messages as Python prints it, {shown(value)}, which cannot be read for "
                    "certain: write it with json.dumps",
                    "python_repr",
                )
            if is_broken_json(value):
                raise UnusableItem(
                    f"{column} begins as messages in JSON do, {shown(value)}, and cannot be read as JSON: was it cut?",
                    "broken_json",
                )
            return as_text(value, column)
        value, strip_nones = spelled, False  # who writes JSON wrote the nulls too
    if value is None:
        raise UnusableItem(f"{column} is absent", "missing_value")
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, Sequence):
        raise UnusableItem(f"{column} is {shown(value)}; needed text or a list of messages", "wrong_type")
    return [_message(with_role(message), f"{column}[{n}]", strip_nones) for n, message in enumerate(value)]


def _message(message: Any, where: str, strip_nones: bool) -> dict[str, Any]:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise UnusableItem(
            f'{where} is {shown(message)}; needed a message {{"role": ..., "content": ...}}', "wrong_type"
        )
    content = message.get("content")
    if isinstance(content, list):
        for part in content:
            kind = part.get("type") if isinstance(part, Mapping) else None
            if isinstance(kind, str) and kind != "text":
                raise NotText(f"{where} holds a part of type {kind!r}")
            if kind is None or not isinstance(part.get("text"), str):
                raise UnusableItem(f"{where} holds the part {shown(part)}; needed a text part", "wrong_type")
            as_text(part["text"], where)
    elif content is not None and not isinstance(content, str):
        raise UnusableItem(f"{where} has content {shown(content)}; needed text", "wrong_type")
    elif content is None and not message.get("tool_calls"):
        raise UnusableItem(f"{where} has no content", "wrong_type")
    for key, x in message.items():
        if isinstance(x, str):
            as_text(x, f"{where}.{key}")
    # templates look a missing content up without asking whether it is there
    kept = {key: x for key, x in message.items() if x is not None or key == "content"}
    return without_nones(kept) | {"content": kept.get("content")} if strip_nones else kept


def as_answer(value: Any, name: str, like: Any, arrow: bool) -> Any:
    """A further answer of a row, in the form that its chosen one has."""
    if value is None:
        raise UnusableItem(f"{name} is absent", "missing_value")
    found = as_sample(value, name, arrow)
    if is_empty(found):
        raise UnusableItem(f"{name} is empty", "empty_side")
    if isinstance(like, list) and isinstance(found, str):
        return [{"role": "assistant", "content": found}]
    if isinstance(like, str) and not isinstance(found, str):
        raise UnusableItem(f"{name} is a list of messages, and chosen is text", "wrong_type")
    return found


def is_empty(sample: str | list[dict[str, Any]]) -> bool:
    """Whether there is nothing to read: only white space, or only messages without text and tool calls."""
    if isinstance(sample, str):
        return not sample.strip()
    return not any(map(str.strip, message_texts(sample))) and not any(m.get("tool_calls") for m in sample)


def shared_start(chosen: Sequence[Any], rejected: Sequence[Any]) -> int:
    """Length of the prompt that two sides share: characters or messages, as TRL's `extract_prompt` counts them.

    Both sides keep something: where one continues the other, the last piece of the shorter stays out of the
    prompt. A space at the end of a shared text goes to the sides, where tokenizers want it.
    """
    shortest = min(len(chosen), len(rejected))
    for n in range(shortest):
        if chosen[n] != rejected[n]:
            # at n = 0 TRL looks at the *last* character here
            return n - 1 if n and chosen[n - 1] == " " else n
    return max(shortest - 1, 0)


def as_json(value: Any, column: str, kind: type, strip_nones: bool) -> Any:
    """A structured value, given as such or as JSON text; None where absent or empty.

    Args:
        value: a row's value.
        column: its name, for messages.
        kind: list or dict.
        strip_nones: drop keys without a value, which Arrow adds; those in a JSON text were written by its author.
    """
    if isinstance(value, str):
        strip_nones = False
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise UnusableItem(
                f"{column} is not valid JSON ({error}){unless(column)}", "wrong_type"
            ) from None
    if value is not None and not isinstance(value, kind):
        raise UnusableItem(
            f"{column} is {shown(value)}; needed a {kind.__name__}{unless(column)}", "wrong_type"
        )
    if column == "tools" and isinstance(value, list) and not all(isinstance(x, Mapping) for x in value):
        raise UnusableItem(
            f"tools is {shown(value)}; needed a list of JSON schemas{unless(column)}", "wrong_type"
        )
    if value:
        as_text(json.dumps(value, ensure_ascii=False, default=str), column)
    return (without_nones(value) if strip_nones else value) or None


def shown(value: Any) -> str:
    """A value and its type, short enough for a message."""
    if value is None:
        return "absent"
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # integers of thousands of digits; nesting
        text = "..."
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
