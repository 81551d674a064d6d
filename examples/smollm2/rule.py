"""What a good answer is, as a rule that a program can check: the only judge of this example.

    prefopt evaluate MODEL ... --judge examples/smollm2/rule.py:score

It sees form, and whether the sentence is about the package at all. Whether it is true, it does not see.
"""

from __future__ import annotations

import re

MARKUP = re.compile(r"[*#`_|\[\]{}<>]|^\s*([-+]|\d+[.)])\s")
WORD = re.compile(r"[a-z][a-z0-9+]{4,}")


def score(prompt: str, answer: str) -> float:
    """The share of five things that hold of an answer to `prompt`; 1 is a good one.

    Example:
        >>> score("curl: command line tool for transferring data", "A command line tool for transferring files.")
        1.0
        >>> score("curl: command line tool for transferring data", "**curl** is great\\n- fast")
        0.2
    """
    text, about = answer.strip(), prompt.partition("\n\n")[2] or prompt  # the question itself says nothing
    shared = set(WORD.findall(about.lower())) & set(WORD.findall(text.lower()))
    held = [
        4 <= len(text.split()) <= 25,
        "\n" not in text,
        text.endswith("."),
        bool(text) and not MARKUP.search(text),
        len(shared) >= 2,
    ]
    return sum(held) / len(held)
