"""What may stand beside an anchor, and which questions are about the anchor alone.

    similarity     a distractor that looks like the anchor could hold the answer too: it is left out
    specificity    a question that can be answered without the anchor says nothing about where a model looked

Both judge pairs that are handed in; nothing is read or asked here.

Source: LongVPO (arXiv 2602.02341), stage 1, in the form that its description leaves open.

Legend: N clips, F frames of a clip, D numbers of an embedding, P pairs.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Literal, get_args

import numpy as np

Pooling = Literal["mean", "max", "mean_pairs"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
SHARE = 0.95
"""Of pairs from different sources that a calibrated threshold lies above."""
PAIRS = 100_000
"""Pairs that a threshold is calibrated on at most."""

Array = np.ndarray[Any, Any]


class Similarities:
    """How similar clips look, from embeddings of their frames.

    Args:
        clips: (F, D) embeddings of each clip's frames, of any length but zero.
        pooling: "mean": cosine of the mean directions; "max": largest cosine of two frames; "mean_pairs": mean cosine of
            all pairs of frames.

    Raises:
        ValueError: a vector without direction, no frames, or embeddings of different kinds.

    Example:
        >>> Similarities([[[1.0, 0.0]], [[0.0, 2.0], [3.0, 0.0]]], "max").to(0).tolist()
        [1.0, 1.0]
    """

    def __init__(self, clips: Sequence[Any], pooling: Pooling = "mean") -> None:
        if pooling not in POOLINGS:
            raise ValueError(f"pooling is {pooling!r}: needed {', '.join(POOLINGS)}")
        frames = [_directions(np.asarray(clip), n) for n, clip in enumerate(clips)]
        if len(widths := sorted({clip_FD.shape[1] for clip_FD in frames})) > 1:
            raise ValueError(
                f"embeddings have {', '.join(map(str, widths))} numbers: needed as many for each frame"
            )
        self.pooling = pooling
        self._starts_N = np.cumsum([0, *(len(clip_FD) for clip_FD in frames)])
        if pooling == "max":
            self._vectors = np.concatenate(frames)
        else:
            means_ND = np.stack([clip_FD.mean(0) for clip_FD in frames])
            # the mean cosine of all pairs is the product of the means; the cosine of the means divides by their lengths
            self._vectors = _directions(means_ND, None) if pooling == "mean" else means_ND

    def __len__(self) -> int:
        return len(self._starts_N) - 1

    def to(self, anchor: int) -> Array:
        """(N,) similarity of each clip to one of them, itself included."""
        if self.pooling != "max":
            return self._vectors @ self._vectors[anchor]
        own_FD = self._vectors[self._starts_N[anchor] : self._starts_N[anchor + 1]]
        return np.maximum.reduceat((self._vectors @ own_FD.T).max(1), self._starts_N[:-1])

    def between(self, pairs_P2: Array) -> Array:
        """(P,) similarities of pairs of places."""
        found_P = np.empty(len(pairs_P2))
        for anchor in np.unique(pairs_P2[:, 0]):
            here_P = pairs_P2[:, 0] == anchor
            found_P[here_P] = self.to(int(anchor))[pairs_P2[here_P, 1]]
        return found_P


def _directions(vectors_FD: Array, clip: int | None) -> Array:
    """The same with length 1; `clip` is told in errors, None for means of clips."""
    told = "the mean of a clip's frames" if clip is None else f"a frame of clip {clip}"
    if vectors_FD.ndim != 2 or not len(vectors_FD):
        raise ValueError(f"clip {clip} has embeddings of shape {vectors_FD.shape}: needed (frames, numbers)")
    if not np.isfinite(vectors_FD).all():
        raise ValueError(f"{told} has an embedding that is not finite")
    length_F1 = np.linalg.norm(vectors_FD.astype(np.float64), axis=1, keepdims=True)
    if not length_F1.all():
        raise ValueError(
            f"{told} has a zero-norm embedding, which points nowhere, so that nothing can be said of its similarity: leave the "
            "clip out, or take another embedder or pooling"
        )
    return vectors_FD / length_F1


def unfit(
    similarity_N: Sequence[float] | Array,
    sources: Sequence[Hashable],
    anchor_source: Hashable,
    threshold: float,
    least: float | None = None,
) -> list[str | None]:
    """Why a clip cannot be a distractor, for each; None where it can.

    Args:
        similarity_N: of each clip to the anchor.
        sources: what each clip was cut from.
        anchor_source: what the anchor was cut from: clips of the same source are never distractors.
        threshold: a clip is kept only below it; one exactly there is not.
        least: for hard negatives: less similar clips are not kept either.

    Returns:
        "same_source", "too_similar", "too_dissimilar" or None, the first that holds.

    Raises:
        ValueError: a similarity that is no number.

    Example:
        >>> unfit([0.2, 0.9, 0.1], ["b", "c", "a"], "a", 0.8)
        [None, 'too_similar', 'same_source']
    """
    near_N = np.asarray(similarity_N, float)
    if not np.isfinite(near_N).all():
        raise ValueError(
            f"a similarity is {near_N[~np.isfinite(near_N)][0]}: needed a number, or clips would be kept unseen"
        )
    found: list[str | None] = []
    for similarity, source in zip(near_N.tolist(), sources, strict=True):
        if source == anchor_source:
            found.append("same_source")
        elif similarity >= threshold:
            found.append("too_similar")
        else:
            found.append("too_dissimilar" if least is not None and similarity < least else None)
    return found


def selected(reasons: Sequence[str | None], priority: Sequence[int], count: int) -> list[int]:
    """The first so many clips, in an order of priority, of those that nothing speaks against; fewer if there are no more.

    Example:
        >>> selected([None, "too_similar", None], [2, 1, 0], 5)
        [2, 0]
    """
    return [place for place in priority if reasons[place] is None][:count]


def calibrated(
    similarities: Similarities, sources: Sequence[Hashable], seed: int, share: float = SHARE
) -> float:
    """The similarity that a share of pairs from different sources stays below, as a threshold.

    Args:
        similarities: of clips.
        sources: what each was cut from.
        seed: of the pairs that are looked at, where there are more than `PAIRS`.
        share: of the pairs.

    Raises:
        ValueError: all clips come from one source.
    """
    count = len(similarities)
    ids_N = np.unique([str(source) for source in sources], return_inverse=True)[1]
    if len(set(ids_N.tolist())) < 2:
        raise ValueError(
            "all clips come from one source: a threshold is calibrated on pairs from different ones"
        )
    if count * (count - 1) // 2 <= PAIRS:
        pairs_P2 = np.stack(np.triu_indices(count, 1), 1)
    else:
        pairs_P2 = np.random.default_rng(seed).integers(count, size=(PAIRS, 2))
    across_P = ids_N[pairs_P2[:, 0]] != ids_N[pairs_P2[:, 1]]
    return float(np.quantile(similarities.between(pairs_P2[across_P]), share))


def unspecific(
    anchor_correct: bool, blind_correct: bool, distractor_correct: Sequence[bool], max_leaks: int = 0
) -> str | None:
    """Why a question is not about its anchor alone; None where it is.

    Args:
        anchor_correct: whether somebody who knows the anchor alone answers as the chosen answer does.
        blind_correct: whether somebody who knows nothing does.
        distractor_correct: whether somebody does who knows one distractor alone, for each.
        max_leaks: distractors that may give the answer away.

    Returns:
        "anchor_wrong", "blind_leak", "distractor_leak" or None, the first that holds.

    Example:
        >>> unspecific(True, False, [False, True])
        'distractor_leak'
    """
    if not anchor_correct:
        return "anchor_wrong"
    if blind_correct:
        return "blind_leak"
    return "distractor_leak" if sum(distractor_correct) > max_leaks else None
