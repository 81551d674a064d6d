"""Who prefers which of the picture world's pictures: an annotator who errs, and the rows that are made of what is said.

Legend of shape suffixes: N rows, B = 2 N pictures, C = 3 channels, H = W = 16 rows and columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from prefopt.worlds.base import flipped, seed_of
from prefopt.worlds.pixels import as_png

GAPS = {"aesthetic_gap": "aesthetic", "clip_gap": "match", "vqa_gap": "soft_match"}
"""Columns of multi-preference filtering, and the rewards that stand for its predictors."""


class Told(NamedTuple):
    """What is said of each pair."""

    ties: list[bool]
    first_wins: list[bool]


def says(gap_N: Tensor, sharpness: float, stream: str) -> list[bool]:
    """A Bernoulli draw of sigmoid(sharpness x gap) for each row k, counted by k."""
    rng = np.random.default_rng(seed_of(stream))
    chance = torch.sigmoid((sharpness * gap_N).nan_to_num(0.0))  # infinitely sharp and no gap: a coin
    return [bool(u < p) for u, p in zip(rng.random(len(gap_N)), chance.tolist(), strict=True)]


def prefers(utility_B: Tensor, tie_margin: float, sharpness: float, label_noise: float, seed: int) -> Told:
    """What is said of pairs (2 k, 2 k + 1): a tie within the margin, else Bradley and Terry's coin, some then turned."""
    utility_N2 = utility_B.double().unflatten(0, (-1, 2))
    gap_N = utility_N2[:, 0] - utility_N2[:, 1]
    ties = (gap_N.abs() <= tie_margin).tolist()
    first_wins = says(gap_N, sharpness, f"annotator {seed}")
    for k in flipped((k for k, tie in enumerate(ties) if not tie), label_noise, seed):
        first_wins[k] = not first_wins[k]
    return Told(ties, first_wins)


def likes(gap_N: Tensor, sharpness: float, label_noise: float, seed: int) -> list[bool]:
    """What is said of single pictures, by how far their utility lies above the baseline; some then turned."""
    liked = says(gap_N, sharpness, f"singles annotator {seed}")
    for k in flipped(range(len(liked)), label_noise, seed):
        liked[k] = not liked[k]
    return liked


def preferences(
    prompts: Sequence[str], images_BCHW: Tensor, rewards: Mapping[str, Tensor], told: Told
) -> list[dict[str, Any]]:
    """Rows of two pictures a prompt; see `PictureWorld.comparisons`."""
    counts = Counter(prompts)
    rows = []
    for k, prompt in enumerate(prompts):
        chosen = 2 * k + (not told.first_wins[k])
        rejected = 4 * k + 1 - chosen
        rows.append(
            {
                "prompt": prompt,
                "chosen_image": as_png(images_BCHW[chosen]),
                "rejected_image": as_png(images_BCHW[rejected]),
                "label": "tie" if told.ties[k] else "win",
                "score_chosen": float(rewards["utility"][chosen]),
                "score_rejected": float(rewards["utility"][rejected]),
                **{
                    column: float(rewards[name][chosen] - rewards[name][rejected])
                    for column, name in GAPS.items()
                },
                "num_example_per_prompt": counts[prompt],
            }
        )
    return rows
