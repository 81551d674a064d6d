"""Yes or no: what a free answer to a yes/no question says."""

from __future__ import annotations

import re
from typing import Literal

Polarity = Literal["yes", "no", "unclear"]

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def yes_or_no(answer: str) -> Polarity:
    """What the first sentence of an answer says.

    A yes at its start decides; otherwise a negation (no, not, none, cannot, -n't) makes it no, and a later yes makes it yes. An answer with none of these is unclear: a benchmark says what becomes of it.

    Example:
        >>> [yes_or_no(a) for a in ("Yes.", "yes, there is", "There isn't a dog.", "A dog runs.", "")]
        ['yes', 'yes', 'no', 'unclear', 'unclear']
    """
    sentences = (WORD.findall(part.lower().replace("’", "'")) for part in re.split(r"[.!?]", answer))
    words = next((found for found in sentences if found), [])
    if words[:1] == ["yes"]:
        return "yes"
    if any(word in ("no", "not", "none", "cannot") or word.endswith("n't") for word in words):
        return "no"
    return "yes" if "yes" in words else "unclear"
