"""Right and wrong answers about pictures, written by models: claims sorted by a caption, and put together again.

    captioner    picture                              -> caption
    answerer     prompt, picture                      -> candidate answers, drawn
    rewriter     prompt, caption, candidates          -> claims that agree with the caption, claims in conflict with it
    rewriter     prompt, claims of one kind           -> an answer that makes them, in the style of the candidates

Source: SymMPO (arXiv 2506.11712), whose prompts are not published: these are our own. What arrives stays in four journals,
named by content, so that the same command goes on where it stopped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from prefopt.comparisons import UnusableItem
from prefopt.generation.base import Request, Response
from prefopt.modalities.vision_language.building.modes import digest_of
from prefopt.modalities.vision_language.building.seeds import words_of
from prefopt.modalities.vision_language.building.steps import Steps, in_words, said
from prefopt.modalities.vision_language.building.wording import Wording
from prefopt.modalities.vision_language.contrasts import Picture
from prefopt.modalities.vision_language.generating import Speaker, request_about

STYLE = 3
"""Candidates that are shown as examples of style."""


@dataclass(frozen=True)
class Scene:
    """A prompt under its pictures, and the answers that are wanted.

    Attributes:
        prompt: text or messages, pictures in their places.
        pictures: as many.
        good: whether an answer of the consistent claims is wanted.
        bad: whether one of the conflicting claims is.
    """

    prompt: Any
    pictures: tuple[Picture, ...]
    good: bool = True
    bad: bool = True

    @property
    def key(self) -> str:
        """Names prompt and pictures by their content."""
        return digest_of(
            json.dumps(self.prompt, sort_keys=True), *(picture.digest for picture in self.pictures)
        )


@dataclass
class Written:
    """What was written for a scene; an answer that is missing says why."""

    good: str | UnusableItem | None = None
    bad: str | UnusableItem | None = None


@dataclass
class Writers:
    """Who writes, and how.

    Attributes:
        captioner, answerer, rewriter: models.
        wording: what they are asked.
        folder: of the journals.
        samples: candidates of a scene.
        temperature: of the candidates; all else is asked for greedily.
        max_new_tokens: of a caption, candidate or answer; lists of claims may have twice as many.
        seed: of the candidates.
    """

    captioner: Speaker
    answerer: Speaker
    rewriter: Speaker
    wording: Wording
    folder: Path
    samples: int = 10
    temperature: float = 0.7
    max_new_tokens: int = 512
    seed: int = 0

    @cached_property
    def steps(self) -> Steps:
        """The journals."""
        return Steps(self.folder)

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Answers that each step needed, and how many of them came now."""
        return self.steps.counts

    def check(self) -> None:
        """Look at all three models before the first is asked; not again once they have begun.

        Raises:
            ValueError, OSError: one cannot be used.
        """
        if not self.steps.journal("answers").exists():
            for speaker in (self.captioner, self.answerer, self.rewriter):
                speaker.check()

    def write(self, scenes: Sequence[Scene]) -> dict[str, Written]:
        """Answers by the key of their scene; each scene once.

        Raises:
            ValueError: a journal of other models or settings.
            OSError: a server cannot be reached, or nothing can be written; what had arrived stays.
        """
        wanted: dict[str, Scene] = {}
        for scene in scenes:
            before = wanted.get(scene.key, Scene(scene.prompt, scene.pictures, False, False))
            wanted[scene.key] = Scene(
                scene.prompt, scene.pictures, before.good or scene.good, before.bad or scene.bad
            )
        captions = self.captions(wanted)
        candidates = self.candidates(wanted)
        claims = self.claims(wanted, captions, candidates)
        return self.composed(wanted, candidates, claims)

    def captions(self, scenes: Mapping[str, Scene]) -> dict[str, str]:
        """A caption of each scene, empty where one is; pictures are captioned one by one, and each once."""
        asked = self.wording.of("caption")
        pictures = {p.digest: p for scene in scenes.values() for p in scene.pictures}
        requests = {
            digest: request_about(digest_of(digest, asked), said(asked), (picture,))
            for digest, picture in pictures.items()
        }
        found = self._asked("captions", self.captioner, list(requests.values()), 0.0, self.max_new_tokens)
        told = {digest: found[request.id][0].text.strip() for digest, request in requests.items()}
        return {key: joined([told[p.digest] for p in scene.pictures]) for key, scene in scenes.items()}

    def candidates(self, scenes: Mapping[str, Scene]) -> dict[str, list[str]]:
        """Different answers of the answerer to each scene, in the order in which they were drawn."""
        requests = [
            request_about(key, said(scene.prompt), scene.pictures, self.samples)
            for key, scene in scenes.items()
        ]
        found = self._asked("candidates", self.answerer, requests, self.temperature, self.max_new_tokens)
        return {
            key: list(
                dict.fromkeys(response.text.strip() for response in found[key] if response.text.strip())
            )
            for key in scenes
        }

    def claims(
        self, scenes: Mapping[str, Scene], captions: Mapping[str, str], candidates: Mapping[str, list[str]]
    ) -> dict[str, tuple[list[str], list[str]] | UnusableItem]:
        """Claims of the candidates that agree with the caption, and those in conflict with it."""
        asked = {
            key: self.wording.of(
                "claims", prompt=words_of(scene.prompt), caption=captions[key], answers=candidates[key]
            )
            for key, scene in scenes.items()
            if candidates[key] and captions[key]
        }
        requests = [in_words(text) for text in asked.values()]
        found = self._asked("claims", self.rewriter, requests, 0.0, 2 * self.max_new_tokens)
        silent = UnusableItem("the answerer gave no answer with text in it", "no_candidates")
        blind = UnusableItem("the captioner gave an empty caption", "no_caption")

        def read(key: str) -> tuple[list[str], list[str]] | UnusableItem:
            if key in asked:
                return read_claims(found[digest_of(asked[key])][0].text)
            return silent if captions[key] else blind

        return {key: read(key) for key in scenes}

    def composed(
        self,
        scenes: Mapping[str, Scene],
        candidates: Mapping[str, list[str]],
        claims: Mapping[str, tuple[list[str], list[str]] | UnusableItem],
    ) -> dict[str, Written]:
        """Answers made of claims of one kind."""
        written = {key: Written() for key in scenes}
        asked: dict[tuple[str, str], str] = {}
        for key, scene in scenes.items():
            for n, (side, wanted) in enumerate((("good", scene.good), ("bad", scene.bad))):
                sorted_claims = claims[key]
                if not wanted:
                    continue
                if isinstance(sorted_claims, UnusableItem):
                    setattr(written[key], side, sorted_claims)
                elif not sorted_claims[n]:
                    kind = ("consistent", "conflicting")[n]
                    why = f"no claim of the candidates is {'in conflict' if n else 'consistent'} with the caption"
                    setattr(written[key], side, UnusableItem(why, f"no_{kind}_claims"))
                else:
                    asked[key, side] = self.wording.of(
                        "compose",
                        prompt=words_of(scene.prompt),
                        claims=sorted_claims[n],
                        answers=candidates[key][:STYLE],
                    )
        requests = [in_words(text) for text in asked.values()]
        found = self._asked("answers", self.rewriter, requests, 0.0, self.max_new_tokens)
        self.rewriter.release()
        for (key, side), text in asked.items():
            setattr(written[key], side, read_answer(found[digest_of(text)][0], self.max_new_tokens))
        return written

    def _asked(
        self,
        step: str,
        speaker: Speaker,
        requests: Sequence[Request],
        temperature: float,
        max_new_tokens: int,
    ) -> dict[str, list[Response]]:
        """Responses by id, of which those in the journal are not asked for again."""
        found = self.steps.ask(step, speaker, requests, max_new_tokens, temperature, self.seed)
        if speaker is not self.rewriter:
            speaker.release()
        return found


def joined(captions: Sequence[str]) -> str:
    """Captions of one scene's pictures as one; empty where one is."""
    if len(captions) == 1 or not all(captions):
        return captions[0] if len(captions) == 1 else ""
    return "\n\n".join(f"Picture {n}: {caption}" for n, caption in enumerate(captions, 1))


def read_claims(reply: str) -> tuple[list[str], list[str]] | UnusableItem:
    """Consistent and conflicting claims out of a reply, whatever stands around its JSON object.

    Example:
        >>> read_claims('Here: {"consistent": ["A cat."], "conflicting": []}')
        (['A cat.'], [])
    """
    decoder = json.JSONDecoder()
    for start in (match.start() for match in re.finditer(r"\{", reply)):
        try:
            found, _ = decoder.raw_decode(reply, start)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict) and {"consistent", "conflicting"} <= set(found):
            lists = (found["consistent"], found["conflicting"])
            if all(isinstance(one, list) and all(isinstance(claim, str) for claim in one) for one in lists):
                first, second = ([claim.strip() for claim in one if claim.strip()] for one in lists)
                return first, second
    return UnusableItem(
        f"the rewriter's list of claims cannot be read: {reply[:80]!r}; needed a JSON object with lists consistent and "
        "conflicting (a list that was cut off: raise --max_new_tokens)",
        "unreadable_claims",
    )


def read_answer(response: Response, max_new_tokens: int) -> str | UnusableItem:
    """A written answer, if it is whole."""
    text = response.text.strip()
    if not text:
        return UnusableItem("the rewriter wrote an empty answer", "empty_answer")
    if not response.ended:
        return UnusableItem(
            f"the rewriter's answer was cut off after {max_new_tokens} tokens: raise --max_new_tokens",
            "cut_answer",
        )
    return text
