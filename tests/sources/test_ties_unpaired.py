"""What ties mean to methods without a term for them, and pairs as single samples."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from prefopt.comparisons import LOSE, TIE, WIN, Outcome
from prefopt.modalities.text.rows import load_comparisons
from prefopt.objectives import apply_ties_policy as policy_on_tensors
from prefopt.sources.ties import TIES_POLICIES, apply_ties_policy, outcome_without_tie
from prefopt.sources.unpaired import unpair

PAIR = {"prompt": "p", "chosen": "a", "rejected": "b"}


def load(*changes: dict[str, Any]) -> Any:
    return load_comparisons([PAIR | change for change in changes])


MIXED = ({}, {"is_tie": True}, {"votes": [1, 1, 2]})


@pytest.mark.parametrize(
    ("policy", "outcomes"),
    [
        ("drop", {"row-1": WIN, "row-3": Outcome(0.5, 0.5, 0.0)}),
        ("as_win", {"row-1": WIN, "row-2": WIN, "row-3": Outcome(0.75, 0.25, 0.0)}),
        ("soft_half", {"row-1": WIN, "row-2": Outcome(0.5, 0.5, 0.0), "row-3": Outcome(0.5, 0.5, 0.0)}),
    ],
)
def test_each_policy(policy: str, outcomes: dict[str, Outcome]) -> None:
    changed = apply_ties_policy(load(*MIXED), policy)
    assert {e.id: e.comparisons[0].outcome for e in changed} == outcomes
    assert changed.report.examples == len(outcomes)
    assert changed.report.comparisons["ties"] == 0
    assert changed.report.dropped == ({"tie": 1} if policy == "drop" else {})
    assert [(d.row, d.id, d.reason) for d in changed.dropped] == (
        [(2, "row-2", "tie")] if policy == "drop" else []
    )


def test_a_policy_must_be_chosen_where_there_are_ties() -> None:
    with pytest.raises(
        ValueError, match=r"2 of 3 comparisons .* ties=drop .* ties=as_win .* ties=soft_half .*dpo_rk"
    ):
        apply_ties_policy(load(*MIXED), None)
    wins = load({}, {"weight": 2})
    assert apply_ties_policy(wins, None) is wins
    with pytest.raises(ValueError, match="'half' is not one of: drop, as_win, soft_half"):
        apply_ties_policy(wins, "half")
    with pytest.raises(ValueError, match=r"all 1 comparisons .* leaves nothing"):
        apply_ties_policy(load({"label": "tie"}), "drop")


@pytest.mark.parametrize("policy", TIES_POLICIES)
def test_one_rule_here_and_on_tensors(policy: str) -> None:
    outcomes = [WIN, LOSE, TIE, Outcome(0.25, 0.25, 0.5), Outcome(0.5, 0.125, 0.375), Outcome(0.0, 0.5, 0.5)]
    expected, keep = policy_on_tensors(torch.tensor(outcomes, dtype=torch.float64), policy)
    for outcome, shares, kept in zip(outcomes, expected.tolist(), keep.tolist(), strict=True):
        ours = outcome_without_tie(outcome, policy)
        assert (ours is not None) == kept
        if ours is not None:
            assert list(ours) == pytest.approx(shares)


def test_unpair() -> None:
    singles = unpair(load({"id": "x", "weight": 2.0}, {"votes": [3, 1, 0]}))
    assert [
        (e.id, e.items[0].sample, e.comparisons[0].outcome, e.comparisons[0].weight) for e in singles
    ] == [
        ("x/chosen", "a", WIN, 2.0),
        ("x/rejected", "b", LOSE, 2.0),
        ("row-2/chosen", "a", Outcome(0.75, 0.25, 0.0), 1.0),
        ("row-2/rejected", "b", Outcome(0.25, 0.75, 0.0), 1.0),
    ]
    assert all(e.comparisons[0].second is None and len(e.items) == 1 for e in singles)
    assert singles.report.comparisons == {"wins": 0, "ties": 0, "soft": 0, "desirable": 2, "undesirable": 2}
    assert singles.report.examples == 4
    assert singles.origins["row-2/rejected"].row == 2


def test_unpair_needs_a_policy_for_ties() -> None:
    with pytest.raises(ValueError, match="2 of 3 comparisons"):
        unpair(load(*MIXED))
    halves = unpair(load({"label": "tie"}), "soft_half")
    assert [e.comparisons[0].outcome for e in halves] == [Outcome(0.5, 0.5, 0.0)] * 2
    assert [e.id for e in unpair(load(*MIXED), "drop")] == [
        *("row-1/chosen", "row-1/rejected", "row-3/chosen", "row-3/rejected")
    ]


def test_single_samples_pass_unpair() -> None:
    loaded = load_comparisons([{"prompt": "p", "completion": "a", "label": False}])
    assert unpair(loaded).examples == loaded.examples
