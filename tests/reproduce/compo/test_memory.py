"""M5: what an iteration allocates."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from prefopt.reproduce.compo import memory as compo_memory
from prefopt.reproduce.compo.memory import build, compo_iteration, peak_bytes
from prefopt.reproduce.compo.world import QUICK


def test_peaks_are_counted():
    def work():
        x = torch.empty(1000, 1000)
        for _ in range(3):
            y = x * 2
            del y
        return torch.empty(10)

    assert peak_bytes(work) == pytest.approx(8e6, rel=0.01)


def test_more_moves_need_no_more_memory():
    model, ids_2T = build(512)
    compo_iteration(model, ids_2T, 20)
    few, many = (peak_bytes(lambda m=m: compo_iteration(model, ids_2T, m)) for m in (20, 60))
    assert abs(many - few) < 10_000
    assert all(p.grad is None for p in model.parameters())


def test_memory_claims():
    result = compo_memory.experiment(replace(QUICK, memory_moves=(10, 40), memory_vocabulary=(512, 8192)))
    verdicts = [c.verdict for c in result.claims]
    # at this size the selection's blocks are as large as the head; the other claims do not depend on size
    assert verdicts[1:] == ["holds"] * 3
