"""Answers from captions alone, which tell whether a question can be answered without seeing what it is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from prefopt.modalities.vision_language.building.steps import Steps, in_words
from prefopt.modalities.vision_language.building.wording import Wording
from prefopt.modalities.vision_language.generating import Speaker
from prefopt.modalities.vision_language.video.building.judging import Claim, Judge


class Case(NamedTuple):
    """A question that is to be answered from one caption after the other."""

    question: str
    right: str
    """The answer that it is compared with."""
    captions: Sequence[str]
    """Each alone; an empty one for nothing at all."""


class Reading(NamedTuple):
    """An answer from a caption."""

    text: str
    right: bool | None
    """Whether it says the same as the right answer; None where the judge's reply cannot be read."""


@dataclass
class Reader:
    """Somebody who answers from captions, and is judged.

    Attributes:
        steps: whose journal `readings` is kept in.
        speaker: who answers.
        judge: of the answers.
        wording: with a template `reading`.
        max_new_tokens: of an answer.
    """

    steps: Steps
    speaker: Speaker
    judge: Judge
    wording: Wording
    max_new_tokens: int

    def tells(self, cases: Sequence[Case]) -> list[list[Reading]]:
        """What is answered from each caption of each case.

        Raises:
            ValueError, OSError: see `Steps.ask`.
        """
        requests = [
            in_words(self.wording.of("reading", question=case.question, caption=caption))
            for case in cases
            for caption in case.captions
        ]
        found = self.steps.ask("readings", self.speaker, requests, self.max_new_tokens)
        self.speaker.release()
        answers = iter([found[request.id][0].text for request in requests])
        claims = [Claim(case.question, next(answers), case.right) for case in cases for _ in case.captions]
        verdicts = self.judge.same(claims)
        readings = iter([Reading(one.answer, right) for one, right in zip(claims, verdicts, strict=True)])
        return [[next(readings) for _ in case.captions] for case in cases]
