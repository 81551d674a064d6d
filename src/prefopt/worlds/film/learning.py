"""Pretraining of the film world's model from nothing, on short films."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from prefopt.worlds.base import seed_of
from prefopt.worlds.film.model import (
    TOKENS,
    build_model,
    build_tokenizer,
    features_of,
    loss_of,
    processor_files,
    texts_of,
)
from prefopt.worlds.film.task import DESCRIBE, SHAPES, Clip, asked, draw_film, paint
from prefopt.worlds.pretraining import adamw, descend, few_threads, no_bars, progress_bar, seeded

LEARNING_RATE = 2e-3
CAPTIONS = 3
"""Every third step of the pretraining is captions of one clip; without them shapes are hardly told apart."""
SHARES = {1: 0.2, 2: 0.72, 4: 0.08}
"""Of the other steps, by the clips of their films. The few of four are there because models that had never seen a third clip answered
films of sixteen, with some seeds, in words that are no answer at all."""
ALIKE = 0.5
"""Share of the films of two clips in which both objects have the same colour: only their shapes tell them apart."""


def pretrain(
    folder: Path,
    *,
    seed: int,
    noise: float,
    width: int,
    layers: int,
    steps: int,
    batch_size: int,
    progress: bool = True,
) -> None:
    """Train the model from nothing on short films; save it with its processor's files.

    Plain next-token cross-entropy on the answer's tokens and its end. Every third step is captions of one clip; of the others most
    show two clips. Depends on nothing but the arguments: the global random state is neither read nor changed.

    Args:
        folder: an existing folder.
        seed: of the weights, the films and their noise.
        noise: standard deviation of the pixels' noise.
        width: see `build_model`.
        layers: see `build_model`.
        steps: optimizer steps.
        batch_size: films a step.
        progress: show a bar if standard error is a terminal.
    """
    from transformers.utils import logging

    tokenizer = build_tokenizer()
    with seeded(seed):
        model = build_model(tokenizer, width, layers)
    rng = np.random.default_rng(seed_of(f"film pretraining {seed}"))
    optimizer, schedule = adamw(model.parameters(), LEARNING_RATE, steps)
    model.train()
    with few_threads(), progress_bar("pretraining the film world's model", steps, progress) as advance:
        for step in range(steps):
            describe = step % CAPTIONS == 0
            clips = 1 if describe else int(rng.choice(list(SHARES), p=list(SHARES.values())))
            films = [draw_film(rng, clips) for _ in range(batch_size)]
            if clips == 2:
                films = [alike(film, rng) if rng.random() < ALIKE else film for film in films]
            shown_N2 = np.array([clip for film in films for clip in film])
            features_BVD = features_of(model, paint(shown_N2, noise, rng)).reshape(
                batch_size, TOKENS * clips, -1
            )
            about = [film[rng.integers(clips)] for film in films]
            prompts = [DESCRIBE if describe else asked(clip) for clip in about]
            answers = [clip.caption if describe else clip.said for clip in about]
            loss = loss_of(model, texts_of(tokenizer, clips, prompts, answers), features_BVD)
            descend(loss, model.parameters(), optimizer, schedule)
            advance(f"loss {loss.item():.2f}")
    model.eval()
    with no_bars(logging):
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    for name, content in processor_files().items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def alike(film: Sequence[Clip], rng: np.random.Generator) -> list[Clip]:
    """A film of two clips whose second object has the first one's colour, and another shape."""
    first, second = film
    colour, shape = divmod(first.object, len(SHAPES))
    other = (shape + int(rng.integers(1, len(SHAPES)))) % len(SHAPES)
    return [first, Clip(colour * len(SHAPES) + other, second.answer)]
