"""E4: lambda, chosen and judged."""

from __future__ import annotations

from prefopt.reproduce.bpo.sweeps import interior_optimum


def test_lambda_is_chosen_and_judged_on_different_seeds():
    # SBA(1.2) is best on the first half only: choosing and judging on the same seeds would call it the optimum
    names = ["DPO", "SBA(-0.5)", "SBA(0)", "SBA(0.5)", "SBA(1.2)", "SBA(2)"]
    by = {name: {"win": [50.0, 50.1, 50.2, 50.0]} for name in names}
    by["SBA(1.2)"] = {"win": [90.0, 90.0, 40.0, 40.1]}
    claim = interior_optimum(by, "any")
    assert claim.verdict == "does not hold here"
    assert "SBA(1.2)" in claim.how
    assert len(claim.per_seed) == 2
