"""How well motions follow their texts and how they vary, by the embeddings of a judge of texts and motions.

    ranking         R-precision@k within pools, and MM-Dist
    matching_score  MM-Dist alone: distance of the matching pairs
    diversity       distance of motions of a set, by drawn pairs or exactly
    multimodality   distance of motions of one text, by drawn pairs or exactly
    mean_interval   mean of repetitions and the half width of its 95 % interval

The fifth number that the field reports, FID, is `frechet.frechet_distance` of the motions' embeddings.

Source: the protocol of HumanML3D (Guo et al. 2022), ranking motions for each text as everybody's code does; their prose says it
the other way round. All distances are Euclidean and taken in double precision.

Legend: N texts with their motions, E width of an embedding, K places, P pairs, T texts, R motions of each text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

POOL = 32
"""Motions that a text ranks. A part of the measure: numbers of other pools may not be compared with it."""
DIVERSITY_PAIRS, MULTIMODALITY_PAIRS = 300, 10
ROWS = 1024
"""Rows of a matrix of distances that are in memory at once."""


class Ranking(NamedTuple):
    """What `ranking` finds."""

    r_precision: list[float]
    """R-precision@1 to @K."""
    mm_dist: float
    """Mean distance of the matching pairs in the pools."""
    ranks_N: Tensor
    """Place of each text's motion, 0 for the nearest, in the order of the input; ties share the mean of their places. NaN for
    the rest that fills no pool."""
    used: int
    """Texts in pools."""


def ranking(
    text_NE: Tensor,
    motion_NE: Tensor,
    *,
    order: Sequence[int] | Tensor | None = None,
    seed: int | None = None,
    pool: int = POOL,
    top_k: int = 3,
) -> Ranking:
    """R-precision and MM-Dist: each text ranks the motions of its pool by distance, and its own should come first.

    Pools are consecutive runs of `pool` in `order`; the rest that fills none is left out of every average. A motion at exactly
    the distance of the right one shares its places, so that ties count by their expectation under random breaking: a judge
    that gives every motion the same embedding stands at chance, k / pool, rather than at 1.

    Args:
        text_NE, motion_NE: embeddings; row n of each belongs together.
        order: (N,) which pairs stand together; None: the given order, or a shuffled one where a seed is given.
        seed: of the shuffling.
        pool: motions that a text ranks.
        top_k: K.

    Raises:
        ValueError: other shapes, numbers that are not finite, fewer pairs than a pool, an order that is no permutation.

    Example:
        >>> ranking(torch.eye(4), torch.eye(4), pool=2, top_k=1).r_precision
        [1.0]
    """
    text_NE, motion_NE = _pairs(text_NE, motion_NE)
    count = len(text_NE)
    if not 1 <= top_k <= pool:
        raise ValueError(f"top_k={top_k} of a pool of {pool}: needed 1 to {pool}")
    if count < pool:
        raise ValueError(
            f"{count} texts and motions for pools of {pool}: needed {pool} or more (a smaller pool is another measure, whose "
            "numbers are higher)"
        )
    order_N = _order(count, order, seed).to(text_NE.device)
    used = count // pool * pool
    pools_GP = order_N[:used].reshape(-1, pool)
    distance_GPP = _distances(text_NE[pools_GP], motion_NE[pools_GP])
    own_GP1 = distance_GPP.diagonal(dim1=1, dim2=2)[..., None]
    nearer_GP = (distance_GPP < own_GP1).sum(-1).double()
    alike_GP = (distance_GPP == own_GP1).sum(-1).double()
    # of `alike` motions at one distance, each is equally likely to stand at each of the places behind `nearer`
    precision = [float(((k - nearer_GP) / alike_GP).clamp(0, 1).mean()) for k in range(1, top_k + 1)]
    ranks_N = torch.full((count,), torch.nan, dtype=torch.float64, device=text_NE.device)
    ranks_N[pools_GP.flatten()] = (nearer_GP + (alike_GP - 1) / 2).flatten()
    return Ranking(precision, float(own_GP1.mean()), ranks_N, used)


def matching_score(text_NE: Tensor, motion_NE: Tensor) -> float:
    """MM-Dist of all pairs: mean distance of each text and its motion.

    Raises:
        ValueError: other shapes, or numbers that are not finite.
    """
    text_NE, motion_NE = _pairs(text_NE, motion_NE)
    return float((text_NE - motion_NE).norm(dim=1).mean())


# -- variety -------------------------------------------------------------------------------------------------


def area_under_curve(matched_N: Tensor, shuffled_N: Tensor) -> float:
    """Share of pairs (one of each) in which the matched score is higher, equal ones counting one half: the area under the ROC curve.

    Example:
        >>> area_under_curve(torch.tensor([0.9, 0.8]), torch.tensor([0.1, 0.8]))
        0.875
    """
    order_N = shuffled_N.double().sort().values
    below_N, not_above_N = (
        torch.searchsorted(order_N, matched_N.double(), side=side) for side in ("left", "right")
    )
    return float((below_N + not_above_N).double().mean() / (2 * len(order_N)))


def draw_pairs(count: int, pairs: int, seed: int) -> tuple[Tensor, Tensor]:
    """Two sets of `pairs` indices below `count`, each without replacement, independent of each other: a pair may coincide.

    Raises:
        ValueError: not more to draw from than pairs.
    """
    if not 1 <= pairs < count:
        raise ValueError(
            f"{pairs} pairs of {count}: needed 1 or more pairs of more than {max(pairs, 1)}; the exact expectation needs no pairs"
        )
    generator = torch.Generator().manual_seed(seed)
    first_P, second_P = (torch.randperm(count, generator=generator)[:pairs] for _ in range(2))
    return first_P, second_P


def diversity(
    motion_NE: Tensor,
    pairs: tuple[Sequence[int] | Tensor, Sequence[int] | Tensor] | None = None,
    *,
    seed: int = 0,
) -> float:
    """Mean distance of drawn pairs of motions; closer to that of real motions is better, not higher.

    Args:
        motion_NE: embeddings of the motions of all texts.
        pairs: two index sets; None: 300 pairs, drawn by the seed.
        seed: of the drawing.

    Raises:
        ValueError: numbers that are not finite, indices out of range, or 300 motions or fewer to draw from.
    """
    motion_NE = _features(motion_NE, "motion")
    first_P, second_P = _drawn(len(motion_NE), pairs, DIVERSITY_PAIRS, seed, "motions, for Diversity")
    return float((motion_NE[first_P] - motion_NE[second_P]).norm(dim=-1).mean())


def expected_diversity(motion_NE: Tensor) -> float:
    """What `diversity` has as its mean over all drawings: the mean distance of all N^2 ordered pairs, a motion with itself too.

    Raises:
        ValueError: numbers that are not finite, or no motions.
    """
    motion_NE = _features(motion_NE, "motion")
    total = sum(float(_distances(rows, motion_NE).sum()) for rows in motion_NE.split(ROWS))
    return total / len(motion_NE) ** 2


def multimodality(
    motion_TRE: Tensor,
    pairs: tuple[Sequence[int] | Tensor, Sequence[int] | Tensor] | None = None,
    *,
    seed: int = 0,
) -> float:
    """Mean distance of drawn pairs of motions that were generated for the same text; the field takes 30 motions of 100 texts.

    Args:
        motion_TRE: embeddings, R motions of each of T texts.
        pairs: two sets of indices below R, the same for all texts; None: 10 pairs, drawn by the seed.
        seed: of the drawing.

    Raises:
        ValueError: other shapes, numbers that are not finite, indices out of range, or 10 motions of a text or fewer.
    """
    motion_TRE = _repeats(motion_TRE)
    first_P, second_P = _drawn(
        motion_TRE.shape[1], pairs, MULTIMODALITY_PAIRS, seed, "motions of each text, for MultiModality"
    )
    return float((motion_TRE[:, first_P] - motion_TRE[:, second_P]).norm(dim=-1).mean())


def expected_multimodality(motion_TRE: Tensor) -> float:
    """What `multimodality` has as its mean over all drawings: the mean distance of all R^2 ordered pairs of each text.

    Raises:
        ValueError: other shapes, or numbers that are not finite.
    """
    motion_TRE = _repeats(motion_TRE)
    return float(_distances(motion_TRE, motion_TRE).mean())


# -- repetitions ---------------------------------------------------------------------------------------------


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean of repetitions, and 1.96 std / sqrt(n) with the deviation of the population: half of the field's 95 % interval.

    Raises:
        ValueError: no values, or one that is not finite.

    Example:
        >>> mean_interval([1.0, 1.0])
        (1.0, 0.0)
    """
    values_N = torch.as_tensor(values, dtype=torch.float64)
    if values_N.numel() == 0 or not bool(values_N.isfinite().all()):
        raise ValueError(f"repetitions {list(values)}: needed one or more finite numbers")
    half = 1.96 * values_N.std(correction=0) / len(values_N) ** 0.5
    return float(values_N.mean()), float(half)


def relative_change(baseline: float, value: float, *, higher_is_better: bool) -> float:
    """How much better a value is than the baseline, in percent of it: positive is better, whichever way the measure points.

    For Diversity, whose best is that of real motions, give the distances to it and `higher_is_better=False`.

    Raises:
        ValueError: a baseline of 0.

    Example:
        >>> relative_change(0.5, 0.25, higher_is_better=False)
        50.0
    """
    if baseline == 0:
        raise ValueError(f"no change of {value} relative to a baseline of 0: give the difference instead")
    change = 100 * (value - baseline) / abs(baseline)
    return change if higher_is_better else -change


# -- what is given -------------------------------------------------------------------------------------------


def _distances(a_BNE: Tensor, b_BME: Tensor) -> Tensor:
    # by differences: the shortcut by a product loses half of the digits, and equal rows their equal distances
    return torch.cdist(a_BNE, b_BME, compute_mode="donot_use_mm_for_euclid_dist")


def _features(x_NE: Tensor, what: str) -> Tensor:
    if x_NE.ndim != 2 or len(x_NE) == 0:
        raise ValueError(f"{what} embeddings of the shape {tuple(x_NE.shape)}: needed (samples, width)")
    bad = (~x_NE.isfinite().all(-1)).nonzero().flatten().tolist()
    if bad:
        raise ValueError(
            f"{what} embeddings {', '.join(map(str, bad[:8]))}{' ...' if len(bad) > 8 else ''} ({len(bad)} of {len(x_NE)}) hold "
            "numbers that are not finite: look for what made them"
        )
    return x_NE.double()


def _pairs(text_NE: Tensor, motion_NE: Tensor) -> tuple[Tensor, Tensor]:
    if text_NE.shape != motion_NE.shape:
        raise ValueError(
            f"embeddings of texts {tuple(text_NE.shape)} and of motions {tuple(motion_NE.shape)}: needed as many, of one width"
        )
    return _features(text_NE, "text"), _features(motion_NE, "motion")


def _repeats(motion_TRE: Tensor) -> Tensor:
    if motion_TRE.ndim != 3:
        raise ValueError(
            f"motion embeddings of the shape {tuple(motion_TRE.shape)}: needed (texts, motions of each, width)"
        )
    return _features(motion_TRE.flatten(0, 1), "motion").reshape(motion_TRE.shape)


def _order(count: int, order: Sequence[int] | Tensor | None, seed: int | None) -> Tensor:
    if order is not None and seed is not None:
        raise ValueError(f"an order and the seed {seed}: give one of them")
    if seed is not None:
        return torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    if order is None:
        return torch.arange(count)
    order_N = torch.as_tensor(order, dtype=torch.int64)
    if sorted(order_N.tolist()) != list(range(count)):
        raise ValueError(
            f"an order of {len(order_N)} for {count} pairs: needed each of 0 to {count - 1} once"
        )
    return order_N


def _drawn(
    count: int,
    pairs: tuple[Sequence[int] | Tensor, Sequence[int] | Tensor] | None,
    default: int,
    seed: int,
    what: str,
) -> tuple[Tensor, Tensor]:
    if pairs is None:
        if count <= default:
            raise ValueError(
                f"{count} {what}: needed more than {default} to draw {default} pairs from; the exact expectation takes any number"
            )
        return draw_pairs(count, default, seed)
    first_P, second_P = (torch.as_tensor(indices, dtype=torch.int64) for indices in pairs)
    both = torch.cat([first_P.flatten(), second_P.flatten()])
    if first_P.shape != second_P.shape or first_P.ndim != 1 or not len(first_P):
        raise ValueError(
            f"pairs of {tuple(first_P.shape)} and {tuple(second_P.shape)} indices: needed as many of each, in one row"
        )
    if bool(((both < 0) | (both >= count)).any()):
        raise ValueError(f"pairs of indices {int(both.min())} to {int(both.max())} for {count} {what}")
    return first_P, second_P
