"""Edges, against the golden values and torchmetrics."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torchmetrics.functional.classification import binary_f1_score

from prefopt.metrics.edges import edge_counts, edge_f1, edge_scores, scores_of

GOLDEN = {
    c["name"]: c for c in json.loads((Path(__file__).parents[1] / "data/condition_po.json").read_text())
}


def test_golden_values():
    case = GOLDEN["metric_edge_f1"]
    true, found = (torch.tensor(case["inputs"][key])[None] for key in ("label", "prediction"))
    scores = edge_scores(true, found)
    assert scores._asdict() == pytest.approx(case["expected"], abs=1e-10)
    assert edge_f1(true, found).tolist() == pytest.approx([case["expected"]["f1"]], abs=1e-10)


def test_images_and_sets_as_torchmetrics():
    generator = torch.Generator().manual_seed(0)
    true, found = (torch.rand(3, 8, 6, generator=generator) < share for share in (0.2, 0.5))
    theirs = [float(binary_f1_score(b.int(), a.int())) for a, b in zip(true, found, strict=True)]
    assert edge_f1(true.float(), found).tolist() == pytest.approx(theirs, abs=1e-6)
    whole = float(binary_f1_score(found.int(), true.int()))
    assert edge_scores(true, found).f1 == pytest.approx(whole, abs=1e-6)
    assert whole != pytest.approx(sum(theirs) / 3, abs=1e-4)
    parts = edge_counts(true[:1], found[:1]) + edge_counts(true[1:], found[1:])
    assert scores_of(parts) == edge_scores(true, found)


def test_no_edge_in_either_is_agreement():
    none, one = torch.zeros(1, 3, 3), torch.eye(3)[None]
    assert edge_f1(torch.cat([none, none]), torch.cat([none, one])).tolist() == [1, 0]


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(B, H, W\) twice"):
        edge_f1(torch.zeros(1, 3, 3), torch.zeros(1, 1, 3, 3))
