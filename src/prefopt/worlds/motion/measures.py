"""How well motions do what captions say: by the world's rules, and as the field measures it, by an evaluator.

Legend of shape suffixes: N motions, F frames, D features, E width of an embedding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from prefopt.metrics.frechet import frechet_distance
from prefopt.metrics.retrieval import POOL, expected_diversity, ranking
from prefopt.worlds.motion.kinematics import Motions
from prefopt.worlds.motion.task import (
    Program,
    caption_of,
    has_sides,
    neighbours,
    parse_caption,
    swapped,
)
from prefopt.worlds.motion.verify import WORDS, verdicts


class Measures(NamedTuple):
    """Of motions for captions; NaN where there is nothing to take a mean of.

    Attributes:
        passed: share of the motions that do all that their captions say, by the rules.
        attr: mean share of what a caption says that its motion does.
        words: share of right verdicts by word, see `verify.py`: `side` (which arm), `direction`, ...
        right_way: share of the motions which the evaluator finds nearer to their captions than to those with sides and
            directions exchanged, of the captions that have any.
        r_precision: R-precision@1 to @3, in pools of 32 motions of different programs.
        mm_dist: MM-Dist of all motions.
        fid: Frechet distance to true motions.
        diversity: exact.
        reward: mean of the reward.
        motions: how many.
    """

    passed: float
    attr: float
    words: dict[str, float]
    right_way: float
    r_precision: tuple[float, float, float]
    mm_dist: float
    fid: float
    diversity: float
    reward: float
    motions: int


def measures(
    captions: Sequence[str], features_NFD: Tensor, truth: Motions, evaluator: Any, reward: Any
) -> Measures:
    """The measures of motions of one length.

    Args:
        captions: what was asked for.
        features_NFD: what was made of it, in physical units.
        truth: true motions, for FID: as many, since FID depends on how many there are.
        evaluator, reward: `MotionTextModel`s.

    Raises:
        ValueError: numbers that are not finite, or what the rules refuse.
    """
    found = verdicts([parse_caption(caption) for caption in captions], features_NFD)
    lengths_N = torch.full((len(features_NFD),), features_NFD.shape[1])
    text_NE, motion_NE = evaluator.encode_texts(captions), evaluator.encode_motions(features_NFD, lengths_N)
    distance_N = (text_NE - motion_NE).norm(dim=1)
    sided = [k for k, caption in enumerate(captions) if has_sides(caption)]
    other_NE = evaluator.encode_texts([swapped(captions[k]) for k in sided])
    pooled = pools([parse_caption(caption) for caption in captions])
    precision = ranking(text_NE[pooled], motion_NE[pooled]).r_precision if pooled else [math.nan] * 3
    true_NE = evaluator.encode_motions(truth.features_BFD, truth.lengths_B)
    return Measures(
        passed=float(found["pass"].mean()),
        attr=float(found["attr"].mean()),
        words={word: float(found[word].nanmean()) for word in WORDS},
        right_way=float((distance_N[sided] < (other_NE - motion_NE[sided]).norm(dim=1)).float().mean()),
        r_precision=(precision[0], precision[1], precision[2]),
        mm_dist=float(distance_N.mean()),
        fid=frechet_distance(motion_NE, true_NE),
        diversity=expected_diversity(motion_NE),
        reward=float(reward.score(captions, features_NFD, lengths_N).mean()),
        motions=len(captions),
    )


class Accuracy(NamedTuple):
    """Of a scorer on true motions; NaN where there is nothing to take a mean of.

    Attributes:
        matched: mean score with the right caption.
        mismatched: mean score with the caption of another program.
        swapped: share of the motions that score higher with their captions than with those with sides and directions
            exchanged, of the captions that have any. Experiments on sides are void where it is low.
        words: the same with captions in which one word is another: `side`, `count`, `direction` or `speed`.
        motions: how many.
    """

    matched: float
    mismatched: float
    swapped: float
    words: dict[str, float]
    motions: int


def accuracy(scorer: Any, truth: Motions) -> Accuracy:
    """How surely a scorer tells right captions from wrong ones.

    Args:
        scorer: a `MotionTextModel`, or another with its `score`.
        truth: motions that do what their captions say.
    """
    programs = [parse_caption(caption) for caption in truth.captions]
    captions = truth.captions
    scores_N = scorer.score(captions, truth.features_BFD, truth.lengths_B)

    def against(said: Sequence[tuple[int, str]]) -> tuple[float, float]:
        """Of motions (places) with other captions: the share that score lower, and the mean score."""
        if not said:
            return math.nan, math.nan
        places = [place for place, _ in said]
        other_M = scorer.score(
            [caption for _, caption in said], truth.features_BFD[places], truth.lengths_B[places]
        )
        return float((scores_N[places] > other_M).float().mean()), float(other_M.mean())

    turned = [(k + len(captions) // 2) % len(captions) for k in range(len(captions))]
    others = [(k, captions[j]) for k, j in enumerate(turned) if programs[k] != programs[j]]
    exchanged = [(k, swapped(caption)) for k, caption in enumerate(captions) if has_sides(caption)]
    by_word: dict[str, list[tuple[int, str]]] = {"side": [], "count": [], "direction": [], "speed": []}
    for k, program in enumerate(programs):
        near = neighbours(program)
        for word, said in by_word.items():
            said += [(k, caption_of(other)) for other in near.get(word, ())]
    return Accuracy(
        matched=float(scores_N.mean()),
        mismatched=against(others)[1],
        swapped=against(exchanged)[0],
        words={word: against(said)[0] for word, said in by_word.items()},
        motions=len(captions),
    )


def pools(programs: Sequence[Program], size: int = POOL) -> list[int]:
    """Places of captions, pool after pool, such that no pool has a program (speed aside) twice; what fills none is left out.

    >>> pools([Program("stand"), Program("stand"), Program("left"), Program("right"), Program("left")], 2)
    [0, 2, 1, 3]
    """
    filling: list[dict[Program, int]] = []
    for place, program in enumerate(programs):
        program = program._replace(speed="")
        for pool in filling:
            if len(pool) < size and program not in pool:
                pool[program] = place
                break
        else:
            filling.append({program: place})
    return [place for pool in filling if len(pool) == size for place in pool.values()]
