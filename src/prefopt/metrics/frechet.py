"""Frechet distance of two sets of features, as FID takes it (arXiv 1706.08500): how far apart two normal distributions are.

Legend: N M samples, D width of a feature, R rows of a root (R^T R = S).
"""

from __future__ import annotations

import torch
from torch import Tensor


def frechet_distance(a_ND: Tensor, b_MD: Tensor) -> float:
    """||m1 - m2||^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) of the means and (unbiased) covariances of two sets.

    No covariance and no root of a matrix is made: with S = R^T R, tr (S1 S2)^(1/2) is the sum of the singular values of
    R1 R2^T, which loses no digits where there are fewer samples than dimensions.

    Args:
        a_ND, b_MD: features, one row a sample.

    Returns:
        A squared distance; 0 where means and covariances are the same. Few samples make it too large, so that only sets of
        equal sizes should be compared.

    Raises:
        ValueError: other shapes, fewer than two samples, or numbers that are not finite.
    """
    if a_ND.ndim != 2 or b_MD.ndim != 2 or a_ND.shape[1] != b_MD.shape[1]:
        raise ValueError(
            f"features of the shapes {tuple(a_ND.shape)} and {tuple(b_MD.shape)}: needed (samples, width), of one width"
        )
    if min(len(a_ND), len(b_MD)) < 2:
        raise ValueError(
            f"{len(a_ND)} and {len(b_MD)} samples: needed two or more of each, as a covariance does"
        )
    roots, means = [], []
    for features in (a_ND.double(), b_MD.double()):
        if not bool(features.isfinite().all()):
            raise ValueError("features hold numbers that are not finite: look for what made them")
        means.append(features.mean(0))
        root_RD = torch.linalg.qr(features - means[-1], mode="r").R
        roots.append(root_RD / (len(features) - 1) ** 0.5)
    return _distance(means[0], roots[0], means[1], roots[1])


def frechet_of_moments(mean_1_D: Tensor, cov_1_DD: Tensor, mean_2_D: Tensor, cov_2_DD: Tensor) -> float:
    """The same of means and covariances that were computed elsewhere (as statistics of a data set are published).

    Args:
        mean_1_D, mean_2_D: (D,).
        cov_1_DD, cov_2_DD: (D, D), symmetric; eigenvalues below 0 are taken as 0.

    Raises:
        ValueError: shapes that do not fit each other.
    """
    width = len(mean_1_D)
    given = [tuple(x.shape) for x in (mean_1_D, cov_1_DD, mean_2_D, cov_2_DD)]
    if given != [(width,), (width, width)] * 2:
        raise ValueError(
            f"means and covariances of the shapes {given}: needed (D,), (D, D), (D,), (D, D) of one D"
        )
    roots = []
    for cov_DD in (cov_1_DD, cov_2_DD):
        values_D, vectors_DD = torch.linalg.eigh(cov_DD.double())
        roots.append(values_D.clamp(min=0).sqrt()[:, None] * vectors_DD.T)
    return _distance(mean_1_D.double(), roots[0], mean_2_D.double(), roots[1])


def _distance(mean_1_D: Tensor, root_1_RD: Tensor, mean_2_D: Tensor, root_2_RD: Tensor) -> float:
    cross = torch.linalg.svdvals(root_1_RD @ root_2_RD.T).sum()
    spread = root_1_RD.square().sum() + root_2_RD.square().sum() - 2 * cross
    return float((mean_1_D - mean_2_D).square().sum() + spread.clamp(min=0))
