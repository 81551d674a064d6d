"""Stage 1, anchored cues: a question about one clip, which stands among others that look different.

    captioner    clip                                  -> caption
    writer       the anchor's caption                  -> question
    answerer     question, the anchor alone            -> chosen
    answerer     question, one distractor alone        -> rejected: fluent, and wrong for the anchor
    reader       question; a caption alone, or nothing -> whether the question is about the anchor alone

What arrives stays in journals, named by content, so that the same command goes on where it stopped.

Source: LongVPO (arXiv 2602.02341), section on stage 1; its prompts and thresholds are not published, these are our own.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from prefopt.comparisons import UnusableItem
from prefopt.generation.base import sample_seed
from prefopt.modalities.vision_language.building.modes import digest_of
from prefopt.modalities.vision_language.building.steps import Steps, in_words, said
from prefopt.modalities.vision_language.building.wording import Templates, Wording, told
from prefopt.modalities.vision_language.generating import Speaker, request_about
from prefopt.modalities.vision_language.video.building.clips import Clip
from prefopt.modalities.vision_language.video.building.filters import (
    Pooling,
    Similarities,
    calibrated,
    selected,
    unfit,
    unspecific,
)
from prefopt.modalities.vision_language.video.building.judging import Claim, Judge, alike
from prefopt.modalities.vision_language.video.building.questions import anchored_question, whole
from prefopt.modalities.vision_language.video.building.reading import Case, Reader
from prefopt.modalities.vision_language.video.interleaving import interleaved, stratified_slots
from prefopt.sources.report import Dropped
from prefopt.sources.videos import allocated, as_row

TEMPLATES = Templates(
    "prefopt.modalities.vision_language.video.building",
    {
        "caption": told(),
        "question": told("caption", "caption"),
        "answer": told("question", "question"),
        "reading": told("question caption", "question caption"),
        "judge": told("question answer right", "answer right"),
    },
    "templates/anchored",
)


@dataclass(frozen=True)
class Recipe:
    """How pseudo-long videos are put together.

    Attributes:
        distractors: clips beside the anchor.
        least: of them; an anchor with fewer is left out.
        pool: further clips that training may draw in the places of those that are not pinned.
        max_similarity: of a distractor to the anchor; None: calibrated on the clips.
        min_similarity: for hard negatives; None: none is too different.
        pooling: of the similarity of frames.
        max_leaks: distractors that may give the answer away.
        frame_budget: of a whole video, split over its clips by their length; None: each keeps its frames.
        max_new_tokens: of a caption, question or answer.
        seed: of all that is drawn.

    Raises:
        ValueError: numbers that make no sense together.
    """

    distractors: int = 7
    least: int = 7
    pool: int = 8
    max_similarity: float | None = 0.8
    min_similarity: float | None = None
    pooling: Pooling = "mean"
    max_leaks: int = 0
    frame_budget: int | None = None
    max_new_tokens: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.distractors:
            raise ValueError(
                f"min_distractors is {self.least} and distractors {self.distractors}: needed 1 to as many"
            )
        if self.frame_budget is not None:
            if self.frame_budget < self.distractors + 1:
                raise ValueError(
                    f"frame_budget is {self.frame_budget} for {self.distractors + 1} clips: needed a frame of each at least"
                )
            if self.pool:
                raise ValueError(
                    "frame_budget splits the frames of one video over its own clips, so that no others can take their places: "
                    "give --pool 0 too"
                )


@dataclass
class Team:
    """Who is asked; the judge may be nobody."""

    captioner: Speaker
    writer: Speaker
    answerer: Speaker
    reader: Speaker
    judge: Judge

    def check(self) -> None:
        """Look at all models before the first is asked.

        Raises:
            ValueError, OSError: one cannot be used.
        """
        for speaker in (self.captioner, self.writer, self.answerer, self.reader, self.judge.speaker):
            if speaker is not None:
                speaker.check()

    @property
    def identities(self) -> dict[str, str]:
        """For the record."""
        roles = ("captioner", "writer", "answerer", "reader")
        own = {name: getattr(self, name).identity for name in roles}
        return {**own, "judge": self.judge.identity}


@dataclass
class Draft:
    """A row in the making.

    Attributes:
        anchor: place of its clip.
        others: places of the distractors, in their order.
        pinned: place of the one that gives the rejected answer; one of `others`.
        pool: places of further clips.
        similarity: of these clips to the anchor, by place.
        question: about the anchor.
        chosen, rejected: answers to it.
    """

    anchor: int
    others: list[int]
    pinned: int
    pool: list[int]
    similarity: dict[int, float]
    question: str = ""
    chosen: str = ""
    rejected: str = ""


@dataclass
class Anchored:
    """Rows of stage 1.

    Args:
        clips: that can be decoded.
        vectors: (F, D) embeddings of each clip's frames.
        recipe: how videos are put together.
        team: who is asked.
        wording: what they are asked, `TEMPLATES`.
        steps: journals.

    Attributes set by `rows`:
        dropped: clips about which there is no row, with reasons.
        threshold: the similarity that distractors stay below.
        short: rows that have fewer distractors than wanted.
    """

    clips: Sequence[Clip]
    vectors: Sequence[np.ndarray[Any, Any]]
    recipe: Recipe
    team: Team
    wording: Wording
    steps: Steps
    dropped: list[Dropped] = field(default_factory=list)
    threshold: float = 0.0
    short: int = 0

    def rows(self, folder: Path) -> list[dict[str, Any]]:
        """Everything, from captions to rows whose paths start at a folder; there may be none.

        Raises:
            ValueError: a journal of other models or settings; embeddings of which nothing can be said.
            OSError: a server cannot be reached, or nothing can be written; what had arrived stays.
        """
        captions = self.captions()
        drafts = self.drafts(captions)
        drafts = self.questions(drafts, captions)
        drafts = self.answers(drafts)
        drafts = self.specific(drafts, captions)
        return self.interleaved(drafts, folder)

    def captions(self) -> list[str]:
        """Of each clip; empty where there is none."""
        asked = self.wording.of("caption")
        requests = [
            request_about(digest_of(clip.video.digest, asked), said(asked), (clip.video,))
            for clip in self.clips
        ]
        found = self.steps.ask("captions", self.team.captioner, requests, self.recipe.max_new_tokens)
        self.team.captioner.release()
        return [found[request.id][0].text.strip() for request in requests]

    def drafts(self, captions: Sequence[str]) -> list[Draft]:
        """An anchor and clips that may stand beside it, wherever there are enough of them."""
        recipe = self.recipe
        similarities = Similarities(self.vectors, recipe.pooling)
        sources = [clip.origin for clip in self.clips]
        self.threshold = (
            calibrated(similarities, sources, recipe.seed)
            if recipe.max_similarity is None
            else recipe.max_similarity
        )
        found = []
        for n, clip in enumerate(self.clips):
            if not captions[n]:
                self.drop(n, UnusableItem("the captioner gave an empty caption", "no_caption"))
                continue
            near_N = similarities.to(n)
            reasons = unfit(near_N, sources, clip.origin, self.threshold, recipe.min_similarity)
            silent = [reason or (None if captions[m] else "no_caption") for m, reason in enumerate(reasons)]
            draw = np.random.default_rng(sample_seed(recipe.seed, f"distractors of {clip.id}", 0))
            priority = draw.permutation(len(self.clips)).tolist()
            several = selected(silent, priority, recipe.distractors + recipe.pool)
            others, pool = several[: recipe.distractors], several[recipe.distractors :]
            if len(others) < recipe.least:
                told_why = ", ".join(
                    f"{count} {why}" for why, count in sorted(Counter(filter(None, silent)).items())
                )
                self.drop(
                    n,
                    UnusableItem(
                        f"{len(others)} clips may stand beside it, and {recipe.least} are needed ({told_why})",
                        "too_few_distractors",
                    ),
                )
                continue
            near = {m: round(float(near_N[m]), 6) for m in several}
            found.append(Draft(n, others, int(draw.choice(others)), pool, near))
        return found

    def questions(self, drafts: Sequence[Draft], captions: Sequence[str]) -> list[Draft]:
        """Drafts with a question that holds wherever the anchor stands."""
        texts = [self.wording.of("question", caption=captions[draft.anchor]) for draft in drafts]
        requests = [in_words(text) for text in texts]
        found = self.steps.ask("questions", self.team.writer, requests, self.recipe.max_new_tokens)
        self.team.writer.release()
        kept = []
        for draft, request in zip(drafts, requests, strict=True):
            try:
                draft.question = anchored_question(found[request.id][0], self.recipe.max_new_tokens)
            except UnusableItem as error:
                self.drop(draft.anchor, error)
            else:
                kept.append(draft)
        return kept

    def prompt(self, draft: Draft) -> str:
        """What the model is asked, here and in training."""
        return self.wording.of("answer", question=draft.question)

    def answers(self, drafts: Sequence[Draft]) -> list[Draft]:
        """Drafts with both answers, which say different things."""
        pairs = []
        for draft in drafts:
            prompt = self.prompt(draft)
            videos = (self.clips[draft.anchor].video, self.clips[draft.pinned].video)
            pairs.append(
                [request_about(digest_of(prompt, video.digest), said(prompt), (video,)) for video in videos]
            )
        most = self.recipe.max_new_tokens
        found = self.steps.ask("answers", self.team.answerer, [one for two in pairs for one in two], most)
        kept = []
        for draft, (own, other) in zip(drafts, pairs, strict=True):
            try:
                draft.chosen = whole(found[own.id][0], "the chosen answer", most)
                draft.rejected = whole(found[other.id][0], "the rejected answer", most)
                if alike(draft.chosen, draft.rejected):
                    raise UnusableItem(
                        "chosen and rejected say the same: nothing to learn", "identical_answers"
                    )
            except UnusableItem as error:
                self.drop(draft.anchor, error)
            else:
                kept.append(draft)
        return kept

    def specific(self, drafts: Sequence[Draft], captions: Sequence[str]) -> list[Draft]:
        """Drafts whose question needs the anchor, and whose rejected answer is wrong.

        Clips of the pool that give the answer away leave it; distractors that do so are leaks.
        """
        team = self.team
        reader = Reader(self.steps, team.reader, team.judge, self.wording, self.recipe.max_new_tokens)
        known = reader.tells([Case(d.question, d.chosen, [captions[d.anchor], ""]) for d in drafts])
        wrong = team.judge.same([Claim(d.question, d.rejected, d.chosen) for d in drafts])
        kept = []
        for draft, rejected, (anchor, blind) in zip(drafts, wrong, known, strict=True):
            reason = unspecific(bool(anchor.right), bool(blind.right), [])
            reason = "rejected_is_right" if rejected else reason
            if None in (rejected, anchor.right, blind.right):
                reason = "unreadable_judgement"
            if self.stands(draft, reason, (blind if reason == "blind_leak" else anchor).text):
                kept.append(draft)
        beside = [Case(d.question, d.chosen, [captions[n] for n in (*d.others, *d.pool)]) for d in kept]
        found = []
        for draft, leaks in zip(kept, reader.tells(beside), strict=True):
            count = len(draft.others)
            own = [leak.right for leak in leaks[:count]]
            draft.pool = [n for n, leak in zip(draft.pool, leaks[count:], strict=True) if leak.right is False]
            reason = unspecific(True, False, list(map(bool, own)), self.recipe.max_leaks)
            reason = "unreadable_judgement" if None in own else reason
            leaking = next((leak.text for leak in leaks[:count] if leak.right), "")
            if self.stands(draft, reason, leaking):
                found.append(draft)
        return found

    def stands(self, draft: Draft, reason: str | None, said: str) -> bool:
        """Whether nothing speaks against a draft; it is dropped otherwise, and what somebody said is told."""
        if reason is not None:
            detail = WHY[reason].format(
                said=said[:80], chosen=draft.chosen[:80], rejected=draft.rejected[:80]
            )
            if reason == "anchor_wrong" and self.team.judge.speaker is None:
                detail += ": without --judge, answers are the same only if their words are"
            self.drop(draft.anchor, UnusableItem(detail, reason))
        return reason is None

    def interleaved(self, drafts: Sequence[Draft], folder: Path) -> list[dict[str, Any]]:
        """Rows, in which each slot is used as often as any other."""
        slots: dict[str, int] = {}
        by_count: dict[int, list[str]] = defaultdict(list)
        for draft in drafts:
            by_count[len(draft.others)].append(self.clips[draft.anchor].id)
        for count, names in by_count.items():
            slots |= stratified_slots(names, count + 1, self.recipe.seed)
        self.short = sum(len(draft.others) < self.recipe.distractors for draft in drafts)
        return [self.row(draft, slots[self.clips[draft.anchor].id], folder) for draft in drafts]

    def row(self, draft: Draft, slot: int, folder: Path) -> dict[str, Any]:
        """One row, as training reads it."""
        order = interleaved(draft.anchor, draft.others, slot)
        refs = [self.clips[n].ref for n in order]
        if self.recipe.frame_budget is not None:
            shares = allocated([self.clips[n].footage.duration_s for n in order], self.recipe.frame_budget)
            refs = [self.clips[n].with_frames(count) for n, count in zip(order, shares, strict=True)]
        row: dict[str, Any] = {
            "id": self.clips[draft.anchor].id,
            "video": [as_row(ref, folder) for ref in refs],
            "prompt": [{"role": "user", "content": self.prompt(draft)}],
            "chosen": [{"role": "assistant", "content": draft.chosen}],
            "rejected": [{"role": "assistant", "content": draft.rejected}],
            "anchor": slot,
            "pinned": order.index(draft.pinned),
        }
        if draft.pool:
            row["pool"] = [as_row(self.clips[n].ref, folder) for n in draft.pool]
        return row | {
            "evidence": [slot],
            "reference_context": "anchor",
            "stage": 1,
            "task_type": "detail",
            "rejected_kind": "distractor",
            "provenance": {
                **self.team.identities,
                "prompts": self.wording.digests,
                "question": draft.question,
                "max_similarity": self.threshold,
                "min_similarity": self.recipe.min_similarity,
                "pooling": self.recipe.pooling,
                "max_leaks": self.recipe.max_leaks,
                "similarity": [draft.similarity.get(n) for n in order],
                "seed": self.recipe.seed,
            },
        }

    def drop(self, clip: int, error: UnusableItem) -> None:
        """List a clip as one about which there is no row."""
        self.dropped.append(Dropped(self.clips[clip].row, self.clips[clip].id, error.reason, str(error)))


WHY = {
    "anchor_wrong": "somebody who knows the anchor's caption alone says {said!r}, and chosen is {chosen!r}",
    "blind_leak": "somebody who knows nothing says {said!r}, and chosen is {chosen!r}",
    "distractor_leak": "somebody who knows a distractor's caption alone says {said!r}, and chosen is {chosen!r}",
    "rejected_is_right": "the judge calls the rejected answer {rejected!r} right, beside {chosen!r}",
    "unreadable_judgement": "a reply of the judge says neither yes nor no",
}
