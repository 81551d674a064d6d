"""Error-rate reduction, against the golden value and the paper's own tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prefopt.metrics.control import error_rate_reduction

GOLDEN = {
    c["name"]: c for c in json.loads((Path(__file__).parents[1] / "data/condition_po.json").read_text())
}


def test_golden_value():
    case = GOLDEN["metric_error_rate_reduction"]
    scores = {name: case["inputs"][name] for name in ("method", "baseline", "oracle")}
    assert error_rate_reduction(**scores) == pytest.approx(case["expected"]["reduction"], abs=1e-10)


@pytest.mark.parametrize(
    ("method", "baseline", "oracle", "percent"),
    [
        (44.81, 43.64, 55.07, 10.2),
        (87.98, 72.53, 92.54, 77.2),
        (27.49, 28.32, 0, 2.9),
        (0.8201, 0.8097, 1, 5.5),
    ],
)
def test_claims_of_the_paper(method, baseline, oracle, percent):
    assert 100 * error_rate_reduction(method, baseline, oracle) == pytest.approx(percent, abs=0.06)


@pytest.mark.parametrize("scores", [(1, 2, 2), (float("nan"), 1, 2), (1, float("inf"), 2)])
def test_no_error_to_reduce(scores):
    with pytest.raises(ValueError, match=r"no error to reduce|needed finite"):
        error_rate_reduction(*scores)
