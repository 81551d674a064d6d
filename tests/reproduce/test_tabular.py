"""The exact population loss of one prompt."""

from __future__ import annotations

import pytest
import torch

from prefopt import objectives
from prefopt.reproduce import tabular


def test_minimiser_of_dpo_is_the_bradley_terry_policy():
    # arXiv 2409.17431, eq. 4: ratio* = reference ratio * (p / (1 - p))^(1 / beta)
    log_ref = torch.tensor([0.3, 0.7], dtype=torch.float64).log()
    policy = tabular.minimise(
        objectives.get("dpo", beta=0.5), log_ref, torch.tensor([[0.8, 0.2, 0.0]], dtype=torch.float64)
    )
    assert float(policy[0] / policy[1]) == pytest.approx(3 / 7 * 4**2, rel=1e-6)
