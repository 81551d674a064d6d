"""Whether right answers depend on where the evidence stands in a long input, and on how long the input is.

    accuracy_by_position    accuracy of each part of the input, the worst, their spread, what is lost in the middle
    accuracy_by_category    micro and macro average
    length_curve, retention accuracy by the number of clips; what is kept of the skill on short ones
    interval                bootstrap over videos, whose questions are not independent of each other

Source: LongVPO (arXiv 2602.02341) says that the position of the evidence is to make no difference; the figures are ours.

Legend: N questions, B bins, V videos, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple


@dataclass(frozen=True)
class ByPosition:
    """Accuracies in [0, 1]; None where there is no question to compute them of.

    Attributes:
        bins: of each question, 0 for the beginning.
        counts: questions of each bin.
        bin_accuracy: of each bin.
        accuracy: of all questions.
        macro_accuracy: mean of the bins that have questions.
        worst_bin: the lowest of them.
        spread: the highest minus the lowest.
        middle_drop: mean of the first and the last bin minus the mean of those between.
    """

    bins: list[int]
    counts: list[int]
    bin_accuracy: list[float | None]
    accuracy: float
    macro_accuracy: float
    worst_bin: float
    spread: float
    middle_drop: float | None


def accuracy_by_position(
    correct: Sequence[float], position: Sequence[int], n_slots: Sequence[int], n_bins: int = 5
) -> ByPosition:
    """Accuracy by the bin floor(position * n_bins / n_slots) that the evidence stands in.

    Args:
        correct: (N,) 1 where the answer is right, 0 where not.
        position: (N,) slot of the evidence, from 0.
        n_slots: (N,) how many slots the input has.
        n_bins: B.

    Raises:
        ValueError: no questions, other lengths, a slot that the input does not have, no bins.

    Example:
        >>> accuracy_by_position([1, 0, 1], [0, 1, 2], [3, 3, 3], 3).middle_drop
        1.0
    """
    _alike(correct, position, n_slots)
    if n_bins < 1:
        raise ValueError(f"n_bins={n_bins}; needed 1 or more")
    for slot, slots in zip(position, n_slots, strict=True):
        if not 0 <= slot < slots:
            raise ValueError(f"position {slot} of {slots} slots; needed 0 to {slots - 1}")
    bins = [slot * n_bins // slots for slot, slots in zip(position, n_slots, strict=True)]
    rights, counts = [0.0] * n_bins, [0] * n_bins
    for value, place in zip(correct, bins, strict=True):
        rights[place] += value
        counts[place] += 1
    return ByPosition(bins=bins, counts=counts, accuracy=fmean(correct), **of_bins(rights, counts)._asdict())


class OfBins(NamedTuple):
    """What bins say; see `ByPosition`."""

    bin_accuracy: list[float | None]
    macro_accuracy: float
    worst_bin: float
    spread: float
    middle_drop: float | None


def of_bins(rights: Sequence[float], counts: Sequence[float]) -> OfBins:
    """Figures of right answers and questions of each bin.

    Args:
        rights, counts: (B,).

    Raises:
        ValueError: no questions.

    Example:
        >>> of_bins([1, 0, 2], [1, 1, 2]).middle_drop
        1.0
    """
    means = [right / count if count else None for right, count in zip(rights, counts, strict=True)]
    there = [mean for mean in means if mean is not None]
    if not there:
        raise ValueError("no bin has a question; needed one at least")
    between = [mean for mean in means[1:-1] if mean is not None]
    drop = None
    if between and means[0] is not None and means[-1] is not None:
        drop = (means[0] + means[-1]) / 2 - fmean(between)
    return OfBins(means, fmean(there), min(there), max(there) - min(there), drop)


class ByCategory(NamedTuple):
    """Accuracies in percent."""

    micro: float
    """Right answers of all."""
    per_category: dict[str, float]
    macro: float
    """Mean of the categories."""


def accuracy_by_category(correct: Sequence[float], category: Sequence[str]) -> ByCategory:
    """Micro average (Video-MME, LVBench, LongVideoBench, MVBench) and macro average (M-Avg of MLVU), in percent.

    Args:
        correct: (N,) 1 where the answer is right, 0 where not.
        category: (N,) of each question.

    Raises:
        ValueError: no questions, or other lengths.

    Example:
        >>> accuracy_by_category([1, 1, 0, 0], ["a", "b", "b", "b"]).macro
        66.66666666666667
    """
    _alike(correct, category)
    groups: dict[str, list[float]] = {}
    for value, name in zip(correct, category, strict=True):
        groups.setdefault(name, []).append(value)
    per_category = {name: 100 * fmean(groups[name]) for name in sorted(groups)}
    return ByCategory(100 * fmean(correct), per_category, fmean(per_category.values()))


def length_curve(correct: Sequence[float], n_clips: Sequence[int]) -> dict[int, float]:
    """Accuracy in [0, 1] by the number of clips in the input, shortest first.

    Args:
        correct: (N,) 1 where the answer is right, 0 where not; the same anchors at each length.
        n_clips: (N,) clips of each input.

    Raises:
        ValueError: no questions, or other lengths.

    Example:
        >>> length_curve([1, 1, 1, 0], [1, 1, 8, 8])
        {1: 1.0, 8: 0.5}
    """
    _alike(correct, n_clips)
    lengths = sorted(set(n_clips))
    return {
        length: fmean(value for value, n in zip(correct, n_clips, strict=True) if n == length)
        for length in lengths
    }


def retention(curve: Mapping[int, float], base: Mapping[int, float], short: Sequence[int] = (1, 2)) -> float:
    """Accuracy on short inputs minus the base model's; 0 where nothing was lost, negative where something was.

    Args:
        curve, base: from `length_curve`, of the trained model and the base.
        short: the numbers of clips that are short; those that both have are averaged.

    Raises:
        ValueError: neither has any of them in common.

    Example:
        >>> retention({1: 1.0, 8: 0.7}, {1: 1.0, 8: 0.6})
        0.0
    """
    common = [length for length in short if length in curve and length in base]
    if not common:
        raise ValueError(
            f"lengths {sorted(curve)} and {sorted(base)} have none of {list(short)} clips in common; needed one at least"
        )
    return fmean(curve[length] for length in common) - fmean(base[length] for length in common)


def interval(
    correct: Sequence[float],
    video: Sequence[Hashable],
    figure: Callable[[list[int]], float | None] | None = None,
    seed: int = 0,
    resamples: int = 1000,
) -> tuple[float, float]:
    """95 % interval, percentile bootstrap over videos: all questions of a video are drawn, or none.

    Args:
        correct: (N,) 1 where the answer is right, 0 where not.
        video: (N,) of each question.
        figure: of a resample, given the indices of its questions, some more than once; None: accuracy. A figure that is
            None is left out.
        seed: of the resampling.
        resamples: R.

    Raises:
        ValueError: no questions, other lengths, fewer than 2 resamples, or no resample with a figure.

    Example:
        >>> interval([1, 1, 1, 1], ["a", "a", "b", "b"])
        (1.0, 1.0)
    """
    import numpy as np

    _alike(correct, video)
    if resamples < 2:
        raise ValueError(f"an interval needs resamples of at least 2; given {resamples}")
    questions_V: dict[Hashable, list[int]] = {}
    for index, name in enumerate(video):
        questions_V.setdefault(name, []).append(index)
    groups = list(questions_V.values())
    figure = figure or (lambda indices: fmean(correct[index] for index in indices))
    rng = np.random.default_rng(seed)
    found = []
    for drawn_V in rng.integers(len(groups), size=(resamples, len(groups))):
        value = figure([index for place in drawn_V for index in groups[place]])
        if value is not None:
            found.append(value)
    if not found:
        raise ValueError("no resample has a figure; needed more questions")
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def _alike(correct: Sequence[float], *others: Sequence[Hashable]) -> None:
    if not correct or any(len(other) != len(correct) for other in others):
        raise ValueError(
            f"{len(correct)} answers and {', '.join(str(len(other)) for other in others)} values beside them; needed as many,"
            " and one at least"
        )
