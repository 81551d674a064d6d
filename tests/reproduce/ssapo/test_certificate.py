"""S2: training against the adversary."""

from __future__ import annotations

import pytest
import torch

from prefopt.reproduce.ssapo import certificate as ssapo_certificate
from prefopt.sources.worst_case import worst_case


def test_robust_training_lowers_the_worst_loss():
    result = ssapo_certificate.certificate(range(3), steps=300)
    assert len(result.claims) == 2
    assert all(gain > 0 for claim in result.claims for gain in claim.per_seed)
    worst = {(row[0], row[1]): row[2] for row in result.tables[0].rows}
    assert all(worst[e, "dual"] < worst[e, "shift"] < worst[e, "DPO"] for e in ssapo_certificate.RADII)


def test_certificate_is_that_of_each_seed_alone():
    delta = ssapo_certificate.labelled_features(range(3))
    theta = torch.randn(3, delta.shape[-1], dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = ssapo_certificate.certify(delta, theta, 0.5)
    for s in range(3):
        low, high = ssapo_certificate.WINDOW
        xi = (delta[s] @ theta[s]).numpy()
        alone = worst_case(xi, epsilon=0.5, low=low, high=high, clip=True)
        penalty = ssapo_certificate.PENALTY * float(theta[s] @ theta[s])
        assert found.worst_S[s] == pytest.approx(alone.worst_value + penalty)
        assert found.center_S[s] == pytest.approx(alone.center_value + penalty)
