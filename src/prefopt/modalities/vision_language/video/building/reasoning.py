"""Stage 2, self-reasoning: questions over several scenes of a long video, made of a model's own captions.

    captioner    scene, captions of those before it    -> caption
    writer       captions, group by group              -> summary
    writer       captions and summary                  -> question, answer (chosen), scenes that it needs
    writer       question, some of these scenes alone  -> rejected: partial evidence
    writer       question, other scenes alone          -> rejected: irrelevant scenes
    writer       question alone                        -> whether it can be guessed

What arrives stays in journals, named by content, so that the same command goes on where it stopped.

Source: LongVPO (arXiv 2602.02341), section on stage 2; its prompts are not published, these are our own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from prefopt.comparisons import UnusableItem
from prefopt.generation.base import Request, sample_seed
from prefopt.modalities.vision_language.building.modes import digest_of
from prefopt.modalities.vision_language.building.steps import Steps, in_words, said
from prefopt.modalities.vision_language.building.wording import Templates, Wording, told
from prefopt.modalities.vision_language.generating import Speaker, request_about
from prefopt.modalities.vision_language.video.building.clips import chosen
from prefopt.modalities.vision_language.video.building.contexts import Contexts, stage2_contexts
from prefopt.modalities.vision_language.video.building.judging import Claim, Judge, alike, normalised
from prefopt.modalities.vision_language.video.building.questions import (
    NAMES_OF_SCENES,
    Question,
    scenes_question,
    whole,
)
from prefopt.modalities.vision_language.video.building.scenes import Film
from prefopt.modalities.vision_language.video.videos import Video
from prefopt.sources.report import Dropped
from prefopt.sources.videos import allocated, as_row, probe

Kind = Literal["partial", "irrelevant"]

TEMPLATES = Templates(
    "prefopt.modalities.vision_language.video.building",
    {
        "caption": told("before"),
        "summary": told("captions", "captions"),
        "question": told("scenes summary task_type", "scenes"),
        "answer": told("question scenes", "question scenes"),
        "judge": told("question answer right", "answer right"),
    },
    "templates/scenes",
)


@dataclass(frozen=True)
class Recipe:
    """How questions are made.

    Attributes:
        before: captions of preceding scenes that a scene is captioned with.
        fan_in: texts that are summed up together.
        task_types: kinds of questions, in the writer's words.
        questions: of each kind and film.
        temperature: of questions; all else is asked for greedily.
        frame_budget: of a whole film, split over its scenes by their length.
        max_new_tokens: of a caption, summary, question or answer.
        seed: of all that is drawn.
    """

    before: int = 2
    fan_in: int = 8
    task_types: tuple[str, ...] = ("order", "cause", "summary")
    questions: int = 1
    temperature: float = 0.7
    frame_budget: int = 128
    max_new_tokens: int = 512
    seed: int = 0


@dataclass
class Team:
    """Who is asked; the judge may be nobody."""

    captioner: Speaker
    writer: Speaker
    judge: Judge

    def check(self) -> None:
        """Look at all models before the first is asked.

        Raises:
            ValueError, OSError: one cannot be used.
        """
        for speaker in (self.captioner, self.writer, self.judge.speaker):
            if speaker is not None:
                speaker.check()

    @property
    def identities(self) -> dict[str, str]:
        """For the record."""
        return {
            "captioner": self.captioner.identity,
            "writer": self.writer.identity,
            "judge": self.judge.identity,
        }


@dataclass
class Draft:
    """A row in the making.

    Attributes:
        id: of the row.
        film: place of the film.
        task_type: kind of the question.
        asked: question, chosen answer and evidence.
        contexts: scenes that wrong answers may come from.
        kind: of the rejected answer.
        rejected: the answer.
        guess: answer to the question of somebody who saw nothing.
    """

    id: str
    film: int
    task_type: str
    asked: Question
    contexts: Contexts
    kind: Kind = "partial"
    rejected: str = ""
    guess: str = ""

    @property
    def shown(self) -> list[int]:
        """Scenes that the rejected answer comes from."""
        return getattr(self.contexts, self.kind) or []


@dataclass
class Reasoning:
    """Rows of stage 2.

    Args:
        films: with their scenes.
        recipe: how questions are made.
        team: who is asked.
        wording: what they are asked, `TEMPLATES`.
        steps: journals.

    Attributes set by `rows`:
        dropped: films without rows and questions that are none, with reasons.
    """

    films: Sequence[Film]
    recipe: Recipe
    team: Team
    wording: Wording
    steps: Steps
    dropped: list[Dropped] = field(default_factory=list)

    def rows(self, folder: Path) -> list[dict[str, Any]]:
        """Everything, from captions to rows whose paths start at a folder; there may be none.

        Raises:
            ValueError: a journal of other models or settings.
            OSError: a server cannot be reached, or nothing can be written; what had arrived stays.
        """
        captions = self.captions(self.long_enough())
        summaries = self.summaries(captions)
        drafts = self.questions(captions, summaries)
        drafts = self.answers(drafts, captions)
        drafts = self.wrongly_answered(drafts)
        return [self.row(draft, folder) for draft in drafts]

    def long_enough(self) -> list[int]:
        """Films of at least two scenes, and of no more than the budget has frames for."""
        kept = []
        for n, film in enumerate(self.films):
            count = len(film.scenes)
            if count < 2:
                self.drop(n, UnusableItem("the film is a single scene: a question needs two", "one_scene"))
            elif count > self.recipe.frame_budget:
                self.drop(
                    n,
                    UnusableItem(
                        f"{count} scenes for {self.recipe.frame_budget} frames: raise --frame_budget or --min_scene",
                        "too_many_scenes",
                    ),
                )
            else:
                kept.append(n)
        return kept

    def captions(self, films: Sequence[int]) -> dict[int, list[str]]:
        """Of each film's scenes, one after the other: each is told what came before."""
        written: dict[int, list[str]] = {n: [] for n in films}
        while going := [n for n in written if len(written[n]) < len(self.films[n].scenes)]:
            requests = {}
            for n in going:
                before = written[n][-self.recipe.before :] if self.recipe.before else []
                asked = self.wording.of("caption", before=before)
                video = Video((self.films[n].scenes[len(written[n])],))
                requests[n, 0] = request_about(digest_of(video.digest, asked), said(asked), (video,))
            for (n, _), text in self.texts("captions", self.team.captioner, requests).items():
                written[n].append(text)
            written = self.complete(written, "caption")
        self.team.captioner.release()
        return written

    def summaries(self, captions: Mapping[int, list[str]]) -> dict[int, str]:
        """Of each film: groups of captions are summed up, then groups of summaries, until one is left."""
        texts = dict(captions)
        while going := [n for n in texts if len(texts[n]) > 1]:
            requests = {}
            for n in going:
                for place in range(0, len(texts[n]), self.recipe.fan_in):
                    group = texts[n][place : place + self.recipe.fan_in]
                    requests[n, place] = in_words(self.wording.of("summary", captions=group))
            for n in going:
                texts[n] = []
            for (n, _), text in self.texts("summaries", self.team.writer, requests).items():
                texts[n].append(text)
            texts = self.complete(texts, "summary")
        return {n: only for n, (only,) in texts.items()}

    def texts(
        self, step: str, speaker: Speaker, requests: Mapping[tuple[int, int], Request]
    ) -> dict[tuple[int, int], str]:
        """Replies by film and place."""
        found = self.steps.ask(step, speaker, requests.values(), self.recipe.max_new_tokens)
        return {key: found[request.id][0].text.strip() for key, request in requests.items()}

    def complete(self, texts: dict[int, list[str]], what: str) -> dict[int, list[str]]:
        """Films of which nothing is missing; the others are dropped."""
        for n in [n for n in texts if not all(texts[n])]:
            del texts[n]
            self.drop(n, UnusableItem(f"the {what} of a scene is empty", f"no_{what}"))
        return texts

    def questions(self, captions: Mapping[int, list[str]], summaries: Mapping[int, str]) -> list[Draft]:
        """Questions that need several scenes, and scenes from which they cannot be answered."""
        recipe = self.recipe
        requests = {
            (n, kind): replace(
                in_words(self.wording.of("question", scenes=captions[n], summary=summary, task_type=kind)),
                n=recipe.questions,
            )
            for n, summary in summaries.items()
            for kind in recipe.task_types
        }
        found = self.steps.ask(
            "questions",
            self.team.writer,
            requests.values(),
            recipe.max_new_tokens,
            recipe.temperature,
            recipe.seed,
        )
        drafts, seen = [], set()
        for (n, kind), request in requests.items():
            for response in found[request.id]:
                name = f"{self.films[n].clip.id}/{kind}" + f"/{response.sample + 1}" * (recipe.questions > 1)
                try:
                    asked = scenes_question(response, len(captions[n]), recipe.max_new_tokens)
                    if (n, normalised(asked.text)) in seen:
                        raise UnusableItem("the film has that question already", "repeated_question")
                except UnusableItem as error:
                    self.drop(n, error, name)
                    continue
                seen.add((n, normalised(asked.text)))
                drafts.append(Draft(name, n, kind, asked, self.contexts(name, len(captions[n]), asked)))
        balance(drafts, recipe.seed)
        return drafts

    def contexts(self, name: str, scenes: int, asked: Question) -> Contexts:
        """Scenes to answer wrongly from: some of the evidence, and as many others."""
        draw = np.random.default_rng(sample_seed(self.recipe.seed, f"scenes of {name}", 0))
        count = int(draw.integers(1, len(asked.scenes)))
        return stage2_contexts(scenes, asked.scenes, count, draw.permutation(scenes).tolist())

    def answers(self, drafts: Sequence[Draft], captions: Mapping[int, list[str]]) -> list[Draft]:
        """Drafts with a rejected answer that can be used, and a guess."""

        def asking(draft: Draft, shown: Sequence[int]) -> Request:
            scenes = [captions[draft.film][n] for n in shown]
            return in_words(self.wording.of("answer", question=draft.asked.text, scenes=scenes))

        most = self.recipe.max_new_tokens
        pairs = [(asking(draft, draft.shown), asking(draft, [])) for draft in drafts]
        found = self.steps.ask("answers", self.team.writer, [one for two in pairs for one in two], most)
        self.team.writer.release()
        kept = []
        for draft, (wrong, blind) in zip(drafts, pairs, strict=True):
            try:
                draft.rejected = whole(found[wrong.id][0], "the rejected answer", most)
                if alike(draft.rejected, draft.asked.answer):
                    raise UnusableItem(
                        "chosen and rejected say the same: nothing to learn", "identical_answers"
                    )
                if NAMES_OF_SCENES.search(draft.rejected):
                    raise UnusableItem("the rejected answer speaks of scenes or captions", "quotes_scenes")
            except UnusableItem as error:
                self.drop(draft.film, error, draft.id)
            else:
                draft.guess = found[blind.id][0].text
                kept.append(draft)
        return kept

    def wrongly_answered(self, drafts: Sequence[Draft]) -> list[Draft]:
        """Drafts whose rejected answer is wrong, and whose question cannot be guessed."""
        claims = [
            Claim(draft.asked.text, answer, draft.asked.answer)
            for draft in drafts
            for answer in (draft.rejected, draft.guess)
        ]
        verdicts = iter(self.team.judge.same(claims))
        kept = []
        for draft in drafts:
            wrong_is_right, blind_is_right = next(verdicts), next(verdicts)
            if None in (wrong_is_right, blind_is_right):
                reason = "unreadable_judgement"
            else:
                reason = "rejected_is_right" if wrong_is_right else "blind_leak" if blind_is_right else ""
            if reason:
                texts = {
                    "blind": draft.guess[:80],
                    "rejected": draft.rejected[:80],
                    "chosen": draft.asked.answer[:80],
                }
                self.drop(draft.film, UnusableItem(WHY[reason].format(**texts), reason), draft.id)
            else:
                kept.append(draft)
        return kept

    def row(self, draft: Draft, folder: Path) -> dict[str, Any]:
        """One row, as training reads it."""
        film = self.films[draft.film]
        shares = allocated(film.seconds, self.recipe.frame_budget)
        stretches = [replace(scene, frames=None) for scene in film.scenes]
        refs = [chosen(ref, probe(ref), count) for ref, count in zip(stretches, shares, strict=True)]
        return {
            "id": draft.id,
            "video": [as_row(ref, folder) for ref in refs],
            "prompt": [{"role": "user", "content": draft.asked.text}],
            "chosen": [{"role": "assistant", "content": draft.asked.answer}],
            "rejected": [{"role": "assistant", "content": draft.rejected}],
            "evidence": [as_row(stretches[n], folder) for n in draft.asked.scenes],
            "reference_context": "full",
            "stage": 2,
            "task_type": draft.task_type,
            "rejected_kind": draft.kind,
            "provenance": {
                **self.team.identities,
                "prompts": self.wording.digests,
                "scenes": list(draft.asked.scenes),
                "rejected_from": draft.shown,
                "seed": self.recipe.seed,
            },
        }

    def drop(self, film: int, error: UnusableItem, name: str | None = None) -> None:
        """List a film, or a question about it, as one of which there is no row."""
        clip = self.films[film].clip
        self.dropped.append(Dropped(clip.row, name or clip.id, error.reason, str(error)))


WHY = {
    "blind_leak": "somebody who knows nothing says {blind!r}, and chosen is {chosen!r}",
    "rejected_is_right": "the judge calls the rejected answer {rejected!r} right, beside {chosen!r}",
    "unreadable_judgement": "a reply of the judge says neither yes nor no",
}


def balance(drafts: Sequence[Draft], seed: int) -> None:
    """Decide what each rejected answer comes from: both kinds as often, as far as there are scenes for both.

    Args:
        drafts: whose `kind` is set.
        seed: of the order in which they are gone through.
    """
    free = [draft for draft in drafts if draft.contexts.irrelevant is not None]
    counts = Counter({"partial": len(drafts) - len(free), "irrelevant": 0})
    for draft in sorted(free, key=lambda draft: (sample_seed(seed, f"kind of {draft.id}", 0), draft.id)):
        draft.kind = "partial" if counts["partial"] <= counts["irrelevant"] else "irrelevant"
        counts[draft.kind] += 1
