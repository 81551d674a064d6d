"""Films that models are examined with: at every length the same questions, with more and more other clips around the answer.

Legend of shape suffixes: K films, M clips of the longest, N clips of one length, F = 4 frames, H = W = 12 rows and columns, C = 3 channels,
V = 2 N visual tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

from prefopt.worlds.base import seed_of
from prefopt.worlds.film.measures import Answered
from prefopt.worlds.film.task import Clip, asked, asked_order, check_length, draw_film, paint

Kind = Literal["detail", "order"]
ANSWER_TOKENS = {"detail": 3, "order": 4}
"""Of a right answer, its end included; a longer one is wrong whatever follows."""
BATCH = 512
"""Films answered at once."""


class Exam:
    """Films of all lengths.

    Args:
        n: films of each length; film k does not depend on it.
        most: clips of the longest.
        stream: what all that is random depends on.
        noise: of the pixels.
    """

    def __init__(self, n: int, most: int, stream: str, noise: float) -> None:
        check_length(most)
        self._key = seed_of(f"film exam {stream}")
        rngs = [np.random.default_rng([self._key, k]) for k in range(n)]
        self._clips = [draw_film(rng, most) for rng in rngs]
        """Of each film the clip that a detail is asked of, then those that are put around it."""
        self.pixels_KMFHWC = np.stack(
            [paint(np.array(clips), noise, rng) for clips, rng in zip(self._clips, rngs, strict=True)]
        )

    def places(self, length: int) -> np.ndarray:
        """(K, N) which of a film's clips stands where."""
        around = np.arange(1, length)
        return np.stack([np.insert(around, k % length, 0) for k in range(len(self._clips))])

    def questions(self, length: int, kind: Kind) -> list[tuple[list[Clip], int, str]]:
        """Of each film its clips, the slot that the answer is in, and a question."""
        found = []
        for k, (clips, places) in enumerate(zip(self._clips, self.places(length), strict=True)):
            film = [clips[i] for i in places]
            if kind == "detail":
                slot = k % length
                found.append((film, slot, asked(film[slot])))
            else:
                rng = np.random.default_rng([self._key, k, length])
                pair = rng.permutation(length)[:2]
                found.append((film, int(min(pair)), asked_order(*(film[i] for i in pair))))
        return found

    @torch.inference_mode()
    def answered(
        self, model: Any, tokenizer: Any, lengths: Sequence[int], kind: Kind
    ) -> dict[int, list[Answered]]:
        """What a model answers, greedy, by the clips of a film.

        Args:
            model: the world's, or one trained from it, on any device; left in the mode it is in.
            tokenizer: of the model.
            lengths: clips of a film.
            kind: of question.
        """
        from prefopt.worlds.film.model import answered, features_of

        was_training = model.training
        model.eval()
        try:
            found: dict[int, list[Answered]] = {length: [] for length in lengths}
            for begin in range(0, len(self._clips), BATCH):
                part = slice(begin, begin + BATCH)
                pixels = self.pixels_KMFHWC[part, : max(lengths)]
                features_KMVD = features_of(model, pixels.reshape(-1, *pixels.shape[2:])).unflatten(
                    0, pixels.shape[:2]
                )
                for length in lengths:
                    places_KN = torch.from_numpy(self.places(length)[part])
                    rows_K1 = torch.arange(len(places_KN))[:, None]
                    features_KVD = features_KMVD[rows_K1, places_KN].flatten(1, 2)
                    asked_of = self.questions(length, kind)[part]
                    said = answered(
                        model,
                        tokenizer,
                        features_KVD,
                        length,
                        [question for _, _, question in asked_of],
                        ANSWER_TOKENS[kind],
                    )
                    found[length] += [Answered(*one, text) for one, text in zip(asked_of, said, strict=True)]
        finally:
            model.train(was_training)
        return found
