"""How much likelier a prompt is among desirable samples than among undesirable ones, told by a classifier.

Where thumbs up and thumbs down come from other prompts, an undesirable sample under a prompt that desirable ones never
have says little about answers: BCO weighs it by p(prompt | desirable) / p(prompt | undesirable) (arXiv 2404.04656,
section 4.3). A logistic regression with both kinds counted alike gives the ratio as p / (1 - p).

Every prompt is judged by a classifier that has not seen it: in as many dimensions as a model's hidden states have, a
few thousand prompts can always be told apart, and the ratios of those that were fitted say nothing.

Legend of shape suffixes: P prompts, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
FOLDS = 5


@dataclass(frozen=True)
class DensityRatios:
    """What the classifier found.

    Attributes:
        ratio_P: (P,) p(prompt | desirable) / p(prompt | undesirable), > 0.
        accuracy: share of samples whose kind a classifier told that had not seen their prompts, both kinds counted alike;
            0.5 is chance.
        sampled: prompts that classifiers were fitted on.
    """

    ratio_P: Array
    accuracy: float
    sampled: int


def density_ratios(
    embedding_PD: NDArray[np.floating[Any]], good_P: Array, bad_P: Array, sample_size: int, seed: int
) -> DensityRatios:
    """Ratios for every prompt.

    Args:
        embedding_PD: prompts as points, in a fixed order.
        good_P: desirable samples under each.
        bad_P: undesirable samples under each.
        sample_size: most prompts of each kind to fit on.
        seed: of drawing those and their folds.

    Raises:
        ValueError: fewer than two prompts of a kind.

    Example:
        >>> points = np.random.default_rng(0).normal(size=(40, 3))
        >>> both = np.ones(40)
        >>> bool(np.allclose(density_ratios(points, both, both, 40, seed=0).ratio_P, 1))
        True
    """
    for name, count_P in (("desirable", good_P), ("undesirable", bad_P)):
        if (found := int((count_P > 0).sum())) < 2:
            raise ValueError(
                f"density ratios compare prompts of desirable and undesirable samples, and {found} prompt(s) have {name} "
                "ones: give more rows of that kind, or leave density_ratio_weights out"
            )
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(np.flatnonzero(count_P > 0))[:sample_size] for count_P in (good_P, bad_P)]
    sampled = np.union1d(*drawn)
    counts = [np.zeros(len(embedding_PD)), np.zeros(len(embedding_PD))]
    for count, chosen, count_P in zip(counts, drawn, (good_P, bad_P), strict=True):
        count[chosen] = count_P[chosen]
    fold_P = np.full(len(embedding_PD), -1)
    fold_P[rng.permutation(sampled)] = np.arange(len(sampled)) % FOLDS
    centre_D, scale_D = embedding_PD[sampled].mean(0), embedding_PD[sampled].std(0)
    x_PD = (embedding_PD - centre_D) / np.where(scale_D > 0, scale_D, 1.0)
    logit_KP = np.zeros((FOLDS, len(x_PD)))
    for k in range(FOLDS):
        seen = sampled[fold_P[sampled] != k]
        good, bad = counts[0][seen], counts[1][seen]
        if good.sum() and bad.sum():  # a classifier that lacks a kind knows nothing
            weight_D, bias = logistic_regression(x_PD[seen], good, bad)
            logit_KP[k] = x_PD @ weight_D + bias
    own_P = np.take_along_axis(logit_KP, np.maximum(fold_P, 0)[None], axis=0)[0]
    logit_P = np.where(fold_P >= 0, own_P, logit_KP.mean(0))
    told_P = 0.5 + 0.5 * np.sign(logit_P)
    right = [
        (count * told).sum() / count.sum() for count, told in zip(counts, (told_P, 1 - told_P), strict=True)
    ]
    return DensityRatios(np.exp(np.clip(logit_P, -50, 50)), float(np.mean(right)), len(sampled))


def logistic_regression(x_ND: Array, good_N: Array, bad_N: Array) -> tuple[Array, float]:
    """Weights and bias that minimise |w|^2 / 2 + sum of log losses, both kinds having half of all the weight.

    scikit-learn's LogisticRegression(C=1, class_weight="balanced") is the same. A bias has no penalty.

    Args:
        x_ND: points.
        good_N: how often each is of the first kind.
        bad_N: how often of the second.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    total = good_N.sum() + bad_N.sum()
    good_N, bad_N = good_N * total / (2 * good_N.sum()), bad_N * total / (2 * bad_N.sum())

    def loss(theta: Array) -> tuple[float, Array]:
        w_D, bias = theta[:-1], theta[-1]
        z_N = x_ND @ w_D + bias
        value = 0.5 * w_D @ w_D + good_N @ np.logaddexp(0, -z_N) + bad_N @ np.logaddexp(0, z_N)
        slope_N = bad_N * expit(z_N) - good_N * expit(-z_N)
        return value, np.append(w_D + x_ND.T @ slope_N, slope_N.sum())

    found = minimize(
        loss, np.zeros(x_ND.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 1000}
    )
    return found.x[:-1], float(found.x[-1])


__all__ = ["DensityRatios", "density_ratios", "logistic_regression"]
