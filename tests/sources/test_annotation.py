"""Self-annotation: golden vectors, what is dropped and refused, doubtful pairs, farthest points."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefopt.modalities.text.rows import load_comparisons
from prefopt.sources.annotation import annotate, farthest_points, least_confident, pair_rows

CASES = json.loads((Path(__file__).parents[1] / "data" / "ssapo.json").read_text())


def cases(op: str) -> Any:
    found = [c for c in CASES if c["inputs"]["op"] == op]
    assert found
    return pytest.mark.parametrize("case", found, ids=lambda c: c["name"])


@cases("annotate")
def test_annotation_vectors(case: dict[str, Any]) -> None:
    inputs, expected = case["inputs"], case["expected"]
    found = annotate(inputs["logp_policy"], inputs["logp_ref"], inputs["beta"])
    np.testing.assert_allclose(np.stack(found.reward), expected["reward"], rtol=0, atol=1e-8)
    for name in ("chosen", "rejected", "keep"):
        assert getattr(found, f"{name}_P").tolist() == expected[name]
    np.testing.assert_allclose(found.xi_P, expected["xi_hat"], rtol=0, atol=1e-8)
    np.testing.assert_allclose(found.probability_P, expected["prob"], rtol=0, atol=1e-8)


def test_ties_and_identical_answers_are_dropped_and_counted() -> None:
    answers = [["a", "b"], ["c", "c"], ["d", "e"], ["f", "g", "f"]]
    policy = [[-1.0, -2.0], [-1.0, -1.5], [-4.0, -4.0], [-1.0, -2.0, -3.0]]
    reference = [[-2.0, -2.0], [-1.0, -1.0], [-3.0, -3.0], [-2.0, -2.0, -2.0]]
    found = annotate(policy, reference, 0.5, answers)
    assert found.reason == ("", "identical_answers", "tie", "identical_answers")
    assert found.dropped == {"identical_answers": 2, "tie": 1}
    rows = pair_rows(found, ["p", "q", "r", "s"], answers, ["1", "2", "3", "4"])
    assert rows == [
        {"id": "1", "prompt": "p", "chosen": "a", "rejected": "b", "score_chosen": 0.5, "score_rejected": 0.0, "xi": 0.5}
    ]  # fmt: skip
    assert load_comparisons(rows).origins["1"].score_chosen == 0.5


def test_a_round_without_pairs_stops() -> None:
    found = annotate([[-1.0, -1.0]] * 3, [[-1.0, -1.0]] * 3, 0.1)
    with pytest.raises(ValueError, match=r"no pair came of 3 prompts \(3 tie\).*temperature"):
        pair_rows(found, ["p"] * 3, [["a", "b"]] * 3, ["1", "2", "3"])
    with pytest.raises(ValueError, match="3 annotated prompts, 2 prompts"):
        pair_rows(found, ["p"] * 2, [["a", "b"]] * 3, ["1", "2", "3"])


@pytest.mark.parametrize(
    ("policy", "reference", "beta", "answers", "message"),
    [
        ([[-1.0, np.nan]], [[-1.0, -1.0]], 0.1, None, "answer 1 of prompt 0 .*nan under the policy"),
        (
            [[-1.0, -1.0], [-1.0, -2.0]],
            [[-1.0, -1.0], [-np.inf, -1.0]],
            0.1,
            None,
            "answer 0 of prompt 1 .*reference",
        ),
        ([[-1.0]], [[-1.0]], 0.1, None, "prompt 0 .* two or more"),
        ([[-1.0, -2.0]], [[-1.0, -2.0, -3.0]], 0.1, None, "the same answers"),
        ([[-1.0, -2.0]], [], 0.1, None, "needed the same prompts"),
        ([[-1.0, -2.0]], [[-1.0, -2.0]], 0.1, [["a"]], "prompt 0 has 1 answers"),
        ([[-1.0, -2.0]], [[-1.0, -2.0]], 0.0, None, "beta must be positive"),
    ],
)
def test_what_cannot_be_annotated_is_refused(
    policy: Any, reference: Any, beta: float, answers: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        annotate(policy, reference, beta, answers)


def test_the_least_confident_are_flagged() -> None:
    xi = np.random.default_rng(0).exponential(size=1000)
    flags = least_confident(xi, 0.1)
    assert flags.sum() == 100
    assert xi[flags].max() < xi[~flags].min()
    assert not least_confident(xi, 0.0).any()
    assert not least_confident([1.0, 1.0, 1.0]).any()
    assert least_confident([]).shape == (0,)
    with pytest.raises(ValueError, match="gap of pair 1"):
        least_confident([0.0, np.nan])
    with pytest.raises(ValueError, match="quantile"):
        least_confident([0.0], 1.0)


# -- farthest points -------------------------------------------------------------------------------------------


@cases("fps")
def test_farthest_point_vectors(case: dict[str, Any]) -> None:
    i = case["inputs"]
    found = farthest_points(i["embedding"], i["n"], i["first"], i["criterion"])
    assert found.tolist() == case["expected"]["selected"]


@pytest.mark.parametrize("criterion", ["max_min", "max_sum"])
def test_the_running_distances_choose_as_the_table_of_pairs_does(criterion: Any) -> None:
    x = np.random.default_rng(1).normal(size=(60, 5))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    table = 1 - unit @ unit.T
    chosen = [7]
    while len(chosen) < 20:
        left = [i for i in range(60) if i not in chosen]
        score = table[np.ix_(left, chosen)]
        chosen.append(left[int((score.min(1) if criterion == "max_min" else score.sum(1)).argmax())])
    assert farthest_points(x, 20, 7, criterion).tolist() == chosen


def test_every_point_once_even_where_all_are_alike() -> None:
    assert sorted(farthest_points(np.ones((6, 2)), 6, first=3).tolist()) == list(range(6))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embedding": [[1.0, 0.0], [0.0, 0.0]]}, "point 1 has length 0"),
        ({"embedding": [[np.nan, 0.0], [1.0, 0.0]]}, "point 0 has length nan"),
        ({"n": 3}, "3 of 2 points"),
        ({"n": 0}, "1 <= n"),
        ({"first": 2}, "first = 2"),
        ({"criterion": "min_max"}, "criterion must be"),
        ({"embedding": [1.0, 2.0]}, "a row for each point"),
    ],
)
def test_impossible_selections_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        farthest_points(**({"embedding": [[1.0, 0.0], [0.0, 1.0]], "n": 1} | change))
