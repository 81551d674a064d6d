"""A policy labels its own answers: pairs by implicit reward, which pairs to doubt, which prompts to have labelled.

Rounds of self-annotation (SPA, arXiv 2406.04412; SSAPO, arXiv 2502.18099) sample a few answers a prompt and rank them by
R = beta * (log pi(y|x) - log pi_ref(y|x)), sums over the answer's tokens. The gap R_w - R_l of a pair is positive by
construction: a wrong label looks like any other to the policy, so compare with labels of people where there are any.
R is a sum, so long answers have larger |R|: log lengths.

Legend of shape suffixes: P prompts, K answers of a prompt, N points, D dimensions.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from prefopt.sources.gap_losses import Array

Indices = NDArray[np.int64]
Criterion = Literal["max_min", "max_sum"]


# -- labels ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Annotation:
    """Which answer of each prompt the policy prefers to which.

    Attributes:
        reward: P arrays (K,), implicit rewards.
        chosen_P: index of the first answer of highest reward.
        rejected_P: index of the first answer of lowest reward; -1 where all rewards are equal.
        reason: why a prompt gives no pair, "tie" or "identical_answers"; "" where it gives one.
        xi_P: (P,) reward gaps, >= 0.
    """

    reward: tuple[Array, ...]
    chosen_P: Indices
    rejected_P: Indices
    reason: tuple[str, ...]
    xi_P: Array

    @property
    def keep_P(self) -> NDArray[np.bool_]:
        """(P,) True where there is a pair."""
        return np.array([not reason for reason in self.reason], dtype=bool)

    @property
    def probability_P(self) -> Array:
        """(P,) sigma(gap), in [0.5, 1]: how sure the policy is of its label."""
        return expit(self.xi_P)

    @property
    def dropped(self) -> dict[str, int]:
        """Prompts without a pair, by reason."""
        return dict(Counter(reason for reason in self.reason if reason))


def annotate(
    logp_policy: Sequence[ArrayLike],
    logp_reference: Sequence[ArrayLike],
    beta: float,
    answers: Sequence[Sequence[Any]] | None = None,
) -> Annotation:
    """Rank the answers of each prompt by implicit reward (paper, section 3.1).

    Args:
        logp_policy: (K,) summed log-probabilities (nats) of each prompt's answers under the policy that wrote them, at
            temperature 1 whatever they were sampled at; K >= 2 may differ between prompts.
        logp_reference: the same under the reference that training will use.
        beta: scale of the reward, > 0; the training's.
        answers: the answers (texts or messages), to drop pairs of identical ones, which may score differently where
            batches round differently. None: do not look.

    Returns:
        A pair or a reason for each prompt.

    Raises:
        ValueError: counts differ, a prompt has fewer than two answers, a log-probability is not finite (names prompt
            and answer), or beta is not positive.

    Example:
        >>> found = annotate([[-5.0, -9.0], [-7.0, -7.0]], [[-6.0, -6.0], [-8.0, -8.0]], beta=0.1)
        >>> found.chosen_P.tolist(), found.dropped
        ([0, 0], {'tie': 1})
    """
    if not (math.isfinite(beta) and beta > 0):
        raise ValueError(f"beta must be positive; given {beta}")
    if len(logp_policy) != len(logp_reference) or (answers is not None and len(answers) != len(logp_policy)):
        raise ValueError(
            f"log-probabilities of {len(logp_policy)} prompts under the policy, of {len(logp_reference)} under the "
            f"reference{'' if answers is None else f', answers of {len(answers)}'}; needed the same prompts"
        )
    rewards: list[Array] = []
    chosen, rejected, gaps, reasons = [], [], [], []
    for p, (policy, reference) in enumerate(zip(logp_policy, logp_reference, strict=True)):
        policy_K, reference_K = (np.asarray(x, dtype=np.float64) for x in (policy, reference))
        _check_answers(p, policy_K, reference_K, None if answers is None else answers[p])
        reward_K = beta * (policy_K - reference_K)
        best, worst = int(reward_K.argmax()), int(reward_K.argmin())
        reason = ""
        if reward_K[best] == reward_K[worst]:
            reason, worst = "tie", -1
        elif answers is not None and answers[p][best] == answers[p][worst]:
            reason = "identical_answers"
        rewards.append(reward_K)
        chosen.append(best)
        rejected.append(worst)
        gaps.append(float(reward_K[best] - reward_K[worst]) if worst >= 0 else 0.0)
        reasons.append(reason)
    return Annotation(
        reward=tuple(rewards),
        chosen_P=np.array(chosen, dtype=np.int64),
        rejected_P=np.array(rejected, dtype=np.int64),
        reason=tuple(reasons),
        xi_P=np.array(gaps, dtype=np.float64),
    )


def pair_rows(
    annotation: Annotation, prompts: Sequence[Any], answers: Sequence[Sequence[Any]], ids: Sequence[str]
) -> list[dict[str, Any]]:
    """Rows of the prompts that give a pair, as `prefopt train` and TRL read them.

    Args:
        annotation: of these prompts.
        prompts: P texts or message lists.
        answers: their answers.
        ids: their names, kept as the rows' ids.

    Returns:
        Rows {id, prompt, chosen, rejected, score_chosen, score_rejected, xi}, scores being implicit rewards.

    Raises:
        ValueError: lengths differ, or no prompt gives a pair: a round that cannot teach anything.

    Example:
        >>> found = annotate([[-5.0, -9.0]], [[-6.0, -6.0]], beta=1.0)
        >>> pair_rows(found, ["1 + 1 ="], [[" 2", " 3"]], ["a"])[0]["chosen"]
        ' 2'
    """
    counts = {len(annotation.reason), len(prompts), len(answers), len(ids)}
    if len(counts) != 1:
        raise ValueError(
            f"{len(annotation.reason)} annotated prompts, {len(prompts)} prompts, {len(answers)} lists of answers, "
            f"{len(ids)} ids; needed as many of each"
        )
    rows = []
    for p in np.flatnonzero(annotation.keep_P).tolist():
        best, worst = int(annotation.chosen_P[p]), int(annotation.rejected_P[p])
        reward_K = annotation.reward[p]
        rows.append(
            {
                "id": ids[p],
                "prompt": prompts[p],
                "chosen": answers[p][best],
                "rejected": answers[p][worst],
                "score_chosen": float(reward_K[best]),
                "score_rejected": float(reward_K[worst]),
                "xi": float(annotation.xi_P[p]),
            }
        )
    if not rows:
        told = (
            ", ".join(f"{n} {reason}" for reason, n in annotation.dropped.items()) or "there are no prompts"
        )
        raise ValueError(
            f"no pair came of {len(prompts)} prompts ({told}): sample at a higher temperature or more answers a prompt; "
            "a policy equal to its reference gives every answer the reward 0"
        )
    return rows


def least_confident(xi: ArrayLike, quantile: float = 0.1) -> NDArray[np.bool_]:
    """Pairs whose gap is below a quantile of all gaps: those whose labels SPA smooths.

    SPA's code takes the quantile of the last 50 gaps of training; this one looks at a whole round, so that flags do
    not depend on the order of the batches.

    Args:
        xi: (N,) gaps.
        quantile: share to flag, in [0, 1).

    Returns:
        (N,) flags; strictly below, so equal gaps are flagged all or none.

    Raises:
        ValueError: a gap is not finite, or the quantile does not fit.

    Example:
        >>> least_confident([3.0, 0.5, 2.0, 1.0], quantile=0.25).tolist()
        [False, True, False, False]
    """
    xi_N = np.asarray(xi, dtype=np.float64)
    if not 0 <= quantile < 1:
        raise ValueError(f"quantile must lie in [0, 1); given {quantile}")
    bad = np.flatnonzero(~np.isfinite(xi_N))
    if len(bad):
        raise ValueError(f"the gap of pair {bad[0]} is {xi_N[bad[0]]}; needed a finite number")
    return xi_N < np.quantile(xi_N, quantile) if len(xi_N) else np.zeros(0, dtype=bool)


# -- which prompts ---------------------------------------------------------------------------------------------


def farthest_points(
    embedding: ArrayLike, n: int, first: int = 0, criterion: Criterion = "max_min"
) -> Indices:
    """Choose points that lie far from each other, by cosine distance; O(N n), no table of pairs.

    Args:
        embedding: (N, D) floats, for example the last hidden state of each prompt's last token.
        n: how many to choose, 1 <= n <= N.
        first: index to start from.
        criterion: "max_min" takes the point whose nearest chosen point is farthest (farthest point sampling, as the
            paper says); "max_sum" the largest sum of distances (as its code does, which collects outliers).

    Returns:
        (n,) indices in the order of choice; equal distances go to the lower index.

    Raises:
        ValueError: n or first do not fit, or a row is zero or not finite (names it).

    Example:
        >>> farthest_points([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [-1.0, 0.0]], n=3).tolist()
        [0, 3, 2]
    """
    if criterion not in ("max_min", "max_sum"):
        raise ValueError(f"criterion must be max_min or max_sum; given {criterion!r}")
    point_ND = np.asarray(embedding)
    if point_ND.dtype not in (np.float32, np.float64):
        point_ND = point_ND.astype(np.float64)
    if point_ND.ndim != 2:
        raise ValueError(f"embedding must be a table, a row for each point; given shape {point_ND.shape}")
    count = len(point_ND)
    if not 1 <= n <= count:
        raise ValueError(f"n = {n} of {count} points cannot be chosen; needed 1 <= n <= {count}")
    if not 0 <= first < count:
        raise ValueError(f"first = {first} is not the index of one of {count} points")
    norm_N = np.linalg.norm(point_ND, axis=1)
    bad = np.flatnonzero(~(np.isfinite(norm_N) & (norm_N > 0)))
    if len(bad):
        raise ValueError(
            f"point {bad[0]} has length {norm_N[bad[0]]}, so it has no direction; {len(bad)} such point(s)"
        )
    unit_ND = point_ND / norm_N[:, None]
    chosen = [first]
    score_N = 1 - unit_ND @ unit_ND[first]
    taken_N = np.zeros(count, dtype=bool)
    taken_N[first] = True
    for _ in range(n - 1):
        at = int(np.where(taken_N, -np.inf, score_N).argmax())
        chosen.append(at)
        taken_N[at] = True
        distance_N = 1 - unit_ND @ unit_ND[at]
        score_N = np.minimum(score_N, distance_N) if criterion == "max_min" else score_N + distance_N
    return np.array(chosen, dtype=np.int64)


def _check_answers(p: int, policy_K: Array, reference_K: Array, answers: Sequence[Any] | None) -> None:
    if policy_K.ndim != 1 or policy_K.shape != reference_K.shape or len(policy_K) < 2:
        raise ValueError(
            f"prompt {p} has log-probabilities of shape {policy_K.shape} under the policy and {reference_K.shape} "
            "under the reference; needed one number an answer, the same answers, two or more"
        )
    if answers is not None and len(answers) != len(policy_K):
        raise ValueError(f"prompt {p} has {len(answers)} answers and log-probabilities of {len(policy_K)}")
    for whose, logp_K in (("policy", policy_K), ("reference", reference_K)):
        bad = np.flatnonzero(~np.isfinite(logp_K))
        if len(bad):
            raise ValueError(
                f"answer {bad[0]} of prompt {p} has log-probability {logp_K[bad[0]]} under the {whose}; needed a finite "
                "number"
            )


__all__ = ["Annotation", "annotate", "farthest_points", "least_confident", "pair_rows"]
