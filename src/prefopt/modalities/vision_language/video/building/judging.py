"""Whether an answer says the same as another: by its words, or by a model that is asked yes or no."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from prefopt.modalities.vision_language.building.steps import Steps, in_words
from prefopt.modalities.vision_language.building.wording import Wording
from prefopt.modalities.vision_language.generating import Speaker

ARTICLES = re.compile(r"\b(a|an|the)\b")
TOKENS = 16
"""Of a judge's yes or no, with what it may say before."""


class Claim(NamedTuple):
    """An answer that is compared with the right one."""

    question: str
    answer: str
    right: str


def normalised(text: str) -> str:
    """Words of a text: lower case, without articles, punctuation and double spaces.

    Example:
        >>> normalised("The red  car.")
        'red car'
    """
    plain = unicodedata.normalize("NFKC", text).casefold()
    plain = "".join(" " if unicodedata.category(c)[0] in "PSZC" else c for c in plain)
    return " ".join(ARTICLES.sub(" ", plain).split()) or " ".join(plain.split())


def alike(first: str, second: str) -> bool:
    """Whether two texts have the same words."""
    return normalised(first) == normalised(second)


@dataclass
class Judge:
    """Who compares answers.

    Attributes:
        steps: whose journal `judgements` is kept in.
        wording: with a template `judge`.
        speaker: a model; None: the words decide.
    """

    steps: Steps
    wording: Wording
    speaker: Speaker | None = None

    @property
    def identity(self) -> str:
        """For the record."""
        return "exact" if self.speaker is None else self.speaker.identity

    def same(self, claims: Sequence[Claim]) -> list[bool | None]:
        """Whether each answer says the same as the right one; None where the judge's reply cannot be read.

        Answers of the same words are never asked about, nor is an empty one, which says nothing.

        Raises:
            ValueError, OSError: see `Steps.ask`.
        """
        found: list[bool | None] = [alike(claim.answer, claim.right) for claim in claims]
        if self.speaker is None:
            return found
        asked = {
            n: self.wording.of("judge", **claim._asdict())
            for n, claim in enumerate(claims)
            if not found[n] and claim.answer.strip()
        }
        requests = {n: in_words(text) for n, text in asked.items()}
        replies = self.steps.ask("judgements", self.speaker, requests.values(), TOKENS)
        for n, request in requests.items():
            found[n] = verdict(replies[request.id][0].text)
        self.speaker.release()
        return found


def verdict(reply: str) -> bool | None:
    """Yes or no, whichever a reply says alone; None where it says neither or both.

    Example:
        >>> verdict("No, they differ."), verdict("Perhaps.")
        (False, None)
    """
    words = normalised(reply).split()
    said = {word for word in words if word in ("yes", "no")}
    if words and words[0] in said:
        return words[0] == "yes"
    return said == {"yes"} if len(said) == 1 else None
