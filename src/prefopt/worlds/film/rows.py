"""Rows of preference data of the film world: long films of clips that are files, a question, a right answer and a wrong one.

Stage 1. The question is about one clip, the anchor; the rejected answer is another clip's, the pinned distractor.
Stage 2. The question is which of two objects comes first; the rejected answer knows half of it, or looks elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from prefopt.worlds.base import Split, seed_of
from prefopt.worlds.film.task import (
    ANSWERS,
    FRAMES,
    MOTIONS,
    OBJECTS,
    Clip,
    asked,
    asked_order,
    draw_film,
    order_answer,
    right_answer,
)

Row = dict[str, Any]
Place = Callable[[Clip, np.random.Generator], dict[str, Any]]
"""A clip of the pool as rows have it: a mapping with its file."""
Slot = Literal["random", "first", "last"]

SOURCE = "world:film"


def mapping_of(file: str) -> dict[str, Any]:
    """A clip's file as rows have it, with all of its frames."""
    return {"source": file, "frames": list(range(FRAMES))}


def prompt_messages(question: str) -> list[dict[str, Any]]:
    """A film and a question about it."""
    return [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]}]


def answer(text: str) -> list[dict[str, str]]:
    """A text as what the assistant says."""
    return [{"role": "assistant", "content": text}]


def slot_of(slot: Slot, clips: int, rng: np.random.Generator) -> int:
    """Where the anchor stands."""
    return {"random": int(rng.integers(clips)), "first": 0, "last": clips - 1}[slot]


def anchored(
    n: int, split: Split, key: str, place: Place, *, clips: int, slot: Slot, spare: int, ambiguous: float
) -> list[Row]:
    """Rows of stage 1.

    Args:
        n: rows.
        split: for the ids.
        key: row k depends on (`key`, k) and the other arguments alone, not on `n`.
        place: the file of a clip.
        clips: of each film.
        slot: of the anchor.
        spare: clips of other objects that may take the place of distractors, at most.
        ambiguous: share of the films in which the pinned distractor has the anchor's own object, doing something else, and in which
            its answer is the chosen one and the anchor's the rejected: what a filter that fails lets through.
    """
    rows = []
    for k in range(n):
        rng = np.random.default_rng([seed_of(f"{key} stage 1"), k])
        film = draw_film(rng, clips)
        anchor = slot_of(slot, clips, rng)
        others = [i for i in range(clips) if i != anchor and film[i].answer != film[anchor].answer]
        # every distractor does what the anchor does: then one of them does something else
        pinned = int(rng.choice(others)) if others else int((anchor + 1) % clips)
        twin = bool(rng.random() < ambiguous)
        if twin or not others:
            other = (film[anchor].answer + int(rng.integers(1, len(ANSWERS)))) % len(ANSWERS)
            film[pinned] = Clip(film[anchor].object if twin else film[pinned].object, other)
        shown = [place(clip, rng) for clip in film]
        free = [o for o in rng.permutation(len(OBJECTS)) if o not in {clip.object for clip in film}]
        pool = [place(Clip(int(o), int(rng.integers(len(ANSWERS)))), rng) for o in free[:spare]]
        chosen, rejected = (pinned, anchor) if twin else (anchor, pinned)
        rows.append(
            {
                "id": f"{split}-{k}",
                "prompt": prompt_messages(asked(film[anchor])),
                "video": shown,
                "chosen": answer(film[chosen].said),
                "rejected": answer(film[rejected].said),
                "anchor": anchor,
                "pinned": pinned,
                "pool": pool,
                "evidence": [anchor],
                "reference_context": "anchor",
                "stage": 1,
                "task_type": "detail",
                "rejected_kind": "distractor",
                "score_chosen": float(not twin),
                "score_rejected": float(twin),
                "provenance": {"ambiguous": twin},
                "source": SOURCE,
            }
        )
    return rows


def ordered(n: int, split: Split, key: str, place: Place, *, clips: int, caption_errors: float) -> list[Row]:
    """Rows of stage 2: a question and an answer made of two clips' captions, as a language model would that saw only those.

    Half of the rejected answers are made of partial evidence (the later of the two objects, the only one that was looked for), half
    of irrelevant scenes (the right object, going where that of a third clip goes).

    Args:
        n: rows.
        split: for the ids.
        key: row k depends on (`key`, k) and the other arguments alone, not on `n`.
        place: the file of a clip.
        clips: of each film.
        caption_errors: share of the captions that say a wrong direction.
    """
    rows = []
    for k in range(n):
        rng = np.random.default_rng([seed_of(f"{key} stage 2"), k])
        film = draw_film(rng, clips)
        first, second = sorted(int(i) for i in rng.permutation(clips)[:2])
        told = [misread(film[i], rng) if rng.random() < caption_errors else film[i] for i in (first, second)]
        pair = told if rng.random() < 0.5 else told[::-1]
        right, partial = order_answer(told[0]), bool(k % 2)
        elsewhere = [m for m in MOTIONS if m != told[0].motion]
        seen = [
            clip.motion
            for i, clip in enumerate(film)
            if i not in (first, second) and clip.motion in elsewhere
        ]
        wrong = order_answer(told[1]) if partial else f"{told[0].name} {rng.choice(seen or elsewhere)}"
        shown = [place(clip, rng) for clip in film]
        question = asked_order(*pair)
        rows.append(
            {
                "id": f"{split}-order-{k}",
                "prompt": prompt_messages(question),
                "video": shown,
                "chosen": answer(right),
                "rejected": answer(wrong),
                "evidence": [shown[first], shown[second]],
                "reference_context": "full",
                "stage": 2,
                "task_type": "order",
                "rejected_kind": "partial" if partial else "irrelevant",
                "score_chosen": float(right == right_answer(film, question)),
                "score_rejected": float(wrong == right_answer(film, question)),
                "provenance": {"captions": [clip.caption for clip in told]},
                "source": SOURCE,
            }
        )
    return rows


def misread(clip: Clip, rng: np.random.Generator) -> Clip:
    """A clip whose direction a caption got wrong."""
    wrong: Sequence[int] = [
        k for k, said in enumerate(ANSWERS) if said.split()[0] != clip.motion and said.split()[1] == clip.said.split()[1]
    ]  # fmt: skip
    return Clip(clip.object, int(rng.choice(wrong)))
