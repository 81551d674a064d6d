"""Measures of text to motion: golden values, scipy, torchmetrics, and cases counted by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist, pdist
from torchmetrics.functional.retrieval import retrieval_hit_rate

from prefopt.metrics.frechet import frechet_distance
from prefopt.metrics.retrieval import (
    diversity,
    draw_pairs,
    expected_diversity,
    expected_multimodality,
    matching_score,
    mean_interval,
    multimodality,
    ranking,
    relative_change,
)

CASES = json.loads((Path(__file__).parents[1] / "data/sopo.json").read_text())


def golden(kind: str):
    found = [c for c in CASES if c["inputs"]["kind"] == kind]
    assert found
    return pytest.mark.parametrize("case", found, ids=lambda c: c["name"])


def tensor(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def embeddings(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# -- golden values -------------------------------------------------------------------------------------------


@golden("retrieval")
def test_golden_ranking(case):
    given, expected = case["inputs"], case["expected"]
    found = ranking(
        tensor(given["text_emb"]),
        tensor(given["motion_emb"]),
        pool=given["group"],
        top_k=given["top_k"],
    )
    assert found.r_precision == pytest.approx(expected["r_precision"], abs=1e-10)
    assert found.mm_dist == pytest.approx(expected["mm_dist"], abs=1e-10)
    assert found.used == expected.get("n_used", len(given["text_emb"]))
    if "ranks0" in expected:
        assert found.ranks_N.tolist() == expected["ranks0"]


@golden("fid")
def test_golden_fid(case):
    gen, real = tensor(case["inputs"]["gen"]), tensor(case["inputs"]["real"])
    wanted = pytest.approx(case["expected"]["fid"], abs=case["expected"].get("abs_tol", 1e-10))
    assert frechet_distance(gen, real) == wanted
    assert frechet_distance(real, gen) == wanted


@golden("diversity")
def test_golden_diversity(case):
    given = case["inputs"]
    found = diversity(tensor(given["emb"]), (given["first"], given["second"]))
    assert found == pytest.approx(case["expected"]["diversity"], abs=1e-10)


@golden("diversity_expectation")
def test_golden_expected_diversity(case):
    found = expected_diversity(tensor(case["inputs"]["emb"]))
    assert found == pytest.approx(case["expected"]["diversity"], abs=1e-10)


@golden("multimodality")
def test_golden_multimodality(case):
    given = case["inputs"]
    found = multimodality(tensor(given["emb"]), (given["first"], given["second"]))
    assert found == pytest.approx(case["expected"]["multimodality"], abs=1e-10)


@golden("multimodality_expectation")
def test_golden_expected_multimodality(case):
    found = expected_multimodality(tensor(case["inputs"]["emb"]))
    assert found == pytest.approx(case["expected"]["multimodality"], abs=1e-10)


@golden("ci95")
def test_golden_interval(case):
    mean, half = mean_interval(case["inputs"]["values"])
    assert mean == pytest.approx(case["expected"]["mean"], abs=1e-10)
    assert half == pytest.approx(case["expected"]["half_width"], abs=1e-10)


@golden("relative_change")
def test_golden_relative_change(case):
    given = case["inputs"]
    rows = zip(given["baseline"], given["value"], given["higher_is_better"], strict=True)
    found = [relative_change(b, v, higher_is_better=higher) for b, v, higher in rows]
    assert found == pytest.approx(case["expected"]["percent"], abs=1e-10)


# -- ranking -------------------------------------------------------------------------------------------------


def test_as_torchmetrics_and_scipy_rank():
    text, motion = embeddings(0, 70, 5), embeddings(1, 70, 5) * 0.6
    motion = motion + text
    order = torch.randperm(70, generator=torch.Generator().manual_seed(3))
    found = ranking(text, motion, order=order, top_k=5)
    hits, near = np.zeros(5), []
    for pool in order[:64].reshape(2, 32):
        distance = torch.from_numpy(cdist(text[pool].numpy(), motion[pool].numpy()))
        near += distance.diagonal().tolist()
        for n in range(32):
            for k in range(5):
                hits[k] += float(retrieval_hit_rate(-distance[n], torch.arange(32) == n, top_k=k + 1))
    assert found.r_precision == pytest.approx(list(hits / 64), abs=1e-12)
    assert 0.2 < found.r_precision[0] < found.r_precision[4] < 1
    assert found.mm_dist == pytest.approx(np.mean(near), abs=1e-12)
    assert sorted(found.ranks_N.isnan().nonzero().flatten().tolist()) == sorted(order[64:].tolist())


def test_ranks_keep_the_order_of_the_input():
    """Two pools of two: texts 0 and 2 stand together, 1 and 3; only text 3 ranks the other's motion first."""
    text, motion = tensor([[0.0], [10.0], [5.0], [12.0]]), tensor([[1.0], [11.0], [4.0], [8.0]])
    found = ranking(text, motion, order=[0, 2, 1, 3], pool=2, top_k=2)
    assert found.ranks_N.tolist() == [0, 0, 0, 1]
    assert found.r_precision == [0.75, 1.0]
    assert found.mm_dist == (1 + 1 + 1 + 4) / 4
    turned = ranking(text.flip(0), motion.flip(0), order=[3, 1, 2, 0], pool=2, top_k=2)
    assert turned.ranks_N.tolist() == [1, 0, 0, 0]


def test_a_judge_that_sees_no_difference_stands_at_chance():
    found = ranking(embeddings(0, 64, 3), torch.ones(64, 3), top_k=3)
    assert found.r_precision == pytest.approx([1 / 32, 2 / 32, 3 / 32], abs=1e-12)
    assert found.ranks_N.tolist() == [15.5] * 64


def test_a_motion_that_is_there_twice_shares_its_place():
    motion = tensor([[0.0], [0.0], [5.0]])
    found = ranking(motion, motion, pool=3, top_k=2)
    assert found.r_precision == pytest.approx([2 / 3, 1.0])
    assert found.ranks_N.tolist() == [0.5, 0.5, 0]


def test_a_seed_shuffles_and_repeats():
    text, motion = embeddings(0, 96, 4), embeddings(1, 96, 4)
    first, again, other = (ranking(text, motion, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.ranks_N, again.ranks_N)
    assert not torch.equal(first.ranks_N, other.ranks_N)
    assert not torch.equal(first.ranks_N, ranking(text, motion).ranks_N)


def test_matching_score_is_of_all_pairs():
    text, motion = embeddings(0, 40, 4).float(), embeddings(1, 40, 4).float()
    wanted = np.mean([cdist(t[None], m[None])[0, 0] for t, m in zip(text, motion, strict=True)])
    assert matching_score(text, motion) == pytest.approx(wanted, rel=1e-6)


# -- variety -------------------------------------------------------------------------------------------------


def test_expected_diversity_is_scipys_and_the_mean_of_drawings(monkeypatch):
    motion = embeddings(0, 30, 4)
    expected = expected_diversity(motion)
    assert expected == pytest.approx(pdist(motion.numpy()).sum() * 2 / 900, abs=1e-12)
    drawn = [diversity(motion, draw_pairs(30, 29, seed)) for seed in range(400)]
    mean, half = mean_interval(drawn)
    assert abs(mean - expected) < 2 * half < 0.1
    monkeypatch.setattr("prefopt.metrics.retrieval.ROWS", 7)
    assert expected_diversity(motion) == pytest.approx(expected, abs=1e-12)


def test_diversity_draws_three_hundred_by_its_seed():
    motion = embeddings(0, 301, 4)
    assert diversity(motion, seed=3) == diversity(motion, draw_pairs(301, 300, 3))
    assert diversity(motion, seed=3) != diversity(motion, seed=4)


def test_pairs_are_without_replacement():
    first, second = draw_pairs(20, 19, 0)
    assert len(set(first.tolist())) == len(set(second.tolist())) == 19
    assert not torch.equal(first, second)


def test_multimodality_looks_at_one_text_at_a_time():
    near = embeddings(0, 4, 11, 3)
    apart = near + 1000 * torch.arange(4, dtype=torch.float64)[:, None, None]
    assert multimodality(apart, seed=1) == pytest.approx(multimodality(near, seed=1), rel=1e-9)
    assert multimodality(near, seed=1) == multimodality(near, draw_pairs(11, 10, 1))
    wanted = np.mean([cdist(m, m).mean() for m in near.numpy()])
    assert expected_multimodality(near) == pytest.approx(wanted, abs=1e-12)


def test_the_interval_of_one_repetition_is_empty():
    assert mean_interval([0.25]) == (0.25, 0.0)


# -- what is refused -----------------------------------------------------------------------------------------


def with_nan(*rows: int) -> torch.Tensor:
    x = torch.ones(40, 3)
    x[list(rows), 1] = torch.nan
    return x


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ranking(torch.ones(31, 2), torch.ones(31, 2)), "31 texts and motions for pools of 32"),
        (lambda: ranking(torch.ones(40, 2), torch.ones(40, 3)), "of one width"),
        (lambda: ranking(torch.ones(40, 2), torch.ones(39, 2)), "needed as many"),
        (lambda: ranking(torch.ones(40), torch.ones(40)), r"needed \(samples, width\)"),
        (lambda: ranking(with_nan(3, 7), torch.ones(40, 3)), r"text embeddings 3, 7 \(2 of 40\)"),
        (lambda: ranking(torch.ones(40, 3), with_nan(39)), "motion embeddings 39 "),
        (
            lambda: ranking(*[torch.ones(4, 2)] * 2, order=[0, 1, 2, 2], pool=2, top_k=1),
            "each of 0 to 3 once",
        ),
        (
            lambda: ranking(*[torch.ones(4, 2)] * 2, order=[0, 1, 2, 3], seed=1, pool=2, top_k=1),
            "give one of them",
        ),
        (lambda: ranking(*[torch.ones(4, 2)] * 2, pool=2, top_k=3), "needed 1 to 2"),
        (lambda: matching_score(with_nan(0), torch.ones(40, 3)), "text embeddings 0 "),
        (lambda: diversity(torch.ones(300, 2)), "300 motions, for Diversity: needed more than 300"),
        (lambda: diversity(with_nan(5), ([0], [1])), "motion embeddings 5 "),
        (lambda: diversity(torch.ones(4, 2), ([0, 1], [4, 1])), "indices 0 to 4 for 4"),
        (lambda: diversity(torch.ones(4, 2), ([0, 1], [1])), "as many of each"),
        (lambda: multimodality(torch.ones(3, 10, 2)), "10 motions of each text, for MultiModality"),
        (lambda: multimodality(torch.ones(30, 2)), "texts, motions of each, width"),
        (lambda: draw_pairs(5, 5, 0), "5 pairs of 5"),
        (lambda: mean_interval([]), "one or more finite"),
        (lambda: mean_interval([1.0, float("nan")]), "one or more finite"),
        (lambda: relative_change(0.0, 1.0, higher_is_better=True), "baseline of 0"),
    ],
)
def test_what_has_no_number_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_area_under_the_curve():
    from scipy.stats import mannwhitneyu

    from prefopt.metrics.retrieval import area_under_curve

    a, b = torch.randn(40) + 0.5, torch.randn(60).round(decimals=1)
    a[:5] = b[:5]
    expected = mannwhitneyu(a.numpy(), b.numpy()).statistic / (40 * 60)
    assert area_under_curve(a, b) == pytest.approx(expected, abs=1e-12)
