"""Numbers of a comparison on their way from a file to the objective that names them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from prefopt import objectives
from prefopt.comparisons import Encoded, collate
from prefopt.likelihoods.base import ItemScores
from prefopt.modalities.text.rows import load_comparisons
from prefopt.sources.worst_case import UNMOVED, worst_case
from prefopt.training.batches import Known, join

SSAPO = objectives.get("ssapo", beta=0.5)


def row(**more: Any) -> dict[str, Any]:
    return {"prompt": "p", "chosen": "a", "rejected": "b", **more}


def losses(rows: list[dict[str, Any]], objective: Any = SSAPO) -> torch.Tensor:
    loaded = load_comparisons(rows, optional=objective.columns)
    batch = collate([Encoded(e.id, e.items, e.comparisons) for e in loaded])
    logp_NL = torch.arange(len(batch.items), dtype=torch.float64)[:, None] / 3
    scores = ItemScores(logp_NL, torch.ones(len(logp_NL)))
    sides = join(Known(scores, None), batch.edges, objective)
    return objective.losses(sides, None, {})


def test_columns_that_an_objective_names_reach_it() -> None:
    found = worst_case([0.1, 0.7, 2.0], epsilon=0.3)
    rows = [row(**columns) for columns in found.columns()]
    u = torch.full((3,), -0.5 / 3, dtype=torch.float64)
    expected = objectives.robust.shift_loss(u, torch.tensor(found.moved_N), torch.tensor(found.shift_N))
    torch.testing.assert_close(losses(rows), expected, rtol=1e-6, atol=1e-6)  # columns travel as float32
    assert not torch.allclose(losses(rows), losses([row()] * 3))


def test_rows_without_them_are_dpo() -> None:
    assert torch.equal(losses([row()] * 3), losses([row()] * 3, objectives.get("dpo", beta=0.5)))
    assert torch.equal(losses([row(**UNMOVED)] * 3), losses([row()] * 3))


def test_they_are_read_only_where_asked_for_and_a_gap_is_not_filled_in() -> None:
    rows = [row(robust_moved=0.5, robust_shift=1.0), row(robust_moved=0.2)]
    assert not load_comparisons(rows).examples[0].comparisons[0].columns
    found = load_comparisons(rows, columns=["robust_moved"], optional=SSAPO.columns)
    assert [e.comparisons[0].columns for e in found] == [{"robust_moved": 0.5, "robust_shift": 1.0}]
    assert [(d.id, d.detail) for d in found.dropped] == [("row-2", "robust_shift is absent; needed a number")]


def test_a_misspelt_one_is_told() -> None:
    hints = load_comparisons([row(robust_move=0.5)], optional=SSAPO.columns).report.hints
    assert any("robust_move" in h.text and "did you mean 'robust_moved'" in h.text for h in hints)


def test_an_unnamed_column_is_refused_by_the_objective() -> None:
    sides = objectives.Sides(rho_w=torch.zeros(1), rho_l=torch.zeros(1))
    with pytest.raises(KeyError):
        SSAPO.column(sides, "robust_size")
    with_grad = replace(sides, columns={"robust_moved": torch.ones(1, requires_grad=True)})
    assert not SSAPO.column(with_grad, "robust_moved").requires_grad
