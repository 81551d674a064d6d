"""The task of the text world: small rewrites of word lists, demonstrations with human-like faults, an exact score.

    Sort: pear fig apple           ->  apple fig pear
    Reverse: pear fig apple        ->  apple fig pear
    Unique: fig pear fig fig       ->  fig pear

Pure Python: everything here is a function of its arguments and of the `random.Random` it is given.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Sequence

_WORDS = (
    "ant apple bat bear bee berry cat cherry cow crow date deer dog duck elk fig "
    "fox frog goat grape hen horse kiwi lemon lime lion mango melon mouse olive pear plum"
)
LEXICON = tuple(_WORDS.split())
TASKS = ("Sort", "Reverse", "Unique")
PREAMBLES = ("sure:", "here you go:", "here you go:")
SIGN_OFF = "hope this helps"
FAULTS = {"preamble": 0.6, "sign_off": 0.3, "stop": 0.4, "echo": 0.1, "swap": 0.05, "replace": 0.05}
"""Probability of each fault in a demonstration at fault rate 1: wordiness, giving up early, not doing the task, slips."""

_TOKEN = re.compile(r"[^\W_]+")
_PROMPT = re.compile(rf"\s*({'|'.join(TASKS)})\s*:\s*(\S.*?)\s*", re.DOTALL)


def words_of(text: str) -> list[str]:
    """The words and numbers of a text, lower case; punctuation is only a matter of style.

    >>> words_of("Apple, fig.")
    ['apple', 'fig']
    """
    return _TOKEN.findall(text.lower())


def parse_prompt(prompt: str) -> tuple[str, list[str]]:
    """Task name and word list of a prompt; raises ValueError if it is not one of this world's."""
    match = _PROMPT.fullmatch(prompt)
    if match is None or not words_of(match[2]):
        raise ValueError(
            f"not a prompt of the text world: {prompt!r}. Needed: one of {', '.join(TASKS)}, a colon and a list of "
            'words, for example "Sort: pear fig apple"'
        )
    return match[1], words_of(match[2])


def solve(task: str, words: Sequence[str]) -> list[str]:
    """The one right answer, as words.

    >>> solve("Unique", ["fig", "pear", "fig"])
    ['fig', 'pear']
    """
    match task:
        case "Sort":
            return sorted(words)
        case "Reverse":
            return list(reversed(words))
        case "Unique":
            return list(dict.fromkeys(words))
    raise ValueError(f"task {task!r} is not one of: {', '.join(TASKS)}")


def edit_distance(a: Sequence[str], b: Sequence[str]) -> int:
    """Fewest insertions, deletions and replacements of words that turn `a` into `b` (Levenshtein)."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


def score(prompt: str, completion: str) -> float:
    """Normalised edit similarity with the right answer: 1 - edits / max(words of either).

    Each missing, superfluous or wrong word is one edit; case and punctuation are free. So 1 means right, in
    whatever style; an empty answer scores 0; scores of lists of n words lie on a coarse grid and often tie.
    """
    answer = solve(*parse_prompt(prompt))
    given = words_of(completion)
    return 1 - edit_distance(answer, given) / max(len(answer), len(given))


def draw_prompt(rng: random.Random, lexicon: Sequence[str], min_words: int, max_words: int) -> str:
    """One random prompt. Sort and Reverse get distinct words, Unique at least one repetition."""
    task = rng.choice(TASKS)
    n = rng.randint(min_words, max_words)
    if task in ("Sort", "Reverse"):
        words = rng.sample(lexicon, n)
    else:
        distinct = rng.sample(lexicon, rng.randint(max(1, n // 2), n - 1))
        words = distinct + rng.choices(distinct, k=n - len(distinct))
        rng.shuffle(words)
    return f"{task}: {' '.join(words)}"


def split_of(prompt: str) -> str:
    """Where a prompt belongs, by a hash of its text: "test" for one prompt in eight, else "train"."""
    return "test" if hashlib.sha256(prompt.encode()).digest()[0] < 32 else "train"


def demonstrate(rng: random.Random, prompt: str, lexicon: Sequence[str], fault_rate: float) -> str:
    """An answer as a hurried writer gives it, in some style, with each fault of `FAULTS` at `fault_rate` times its share.

    A perfect writer is `fault_rate=0`:

    >>> words_of(demonstrate(random.Random(0), "Sort: pear fig apple", LEXICON, 0.0))
    ['apple', 'fig', 'pear']
    """
    task, words = parse_prompt(prompt)
    answer = solve(task, words)

    def slips(fault: str) -> bool:
        return rng.random() < fault_rate * FAULTS[fault]

    if slips("echo"):
        answer = list(words)
    if slips("swap") and len(answer) > 1:
        at = rng.randrange(len(answer) - 1)
        answer[at : at + 2] = [answer[at + 1], answer[at]]
    if slips("replace"):
        answer[rng.randrange(len(answer))] = rng.choice(lexicon)
    if slips("stop") and len(answer) > 1:
        answer = answer[: rng.randint(1, len(answer) - 1)]
    text = rng.choice((" ", " ", " ", ", ")).join(answer) + rng.choice(("", "", "."))
    if slips("preamble"):
        text = f"{rng.choice(PREAMBLES)} {text}"
    if slips("sign_off"):
        text = f"{text} {SIGN_OFF}"
    return text
