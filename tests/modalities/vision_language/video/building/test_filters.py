"""Similarity and specificity: the published vectors, the slow way, and what must not be kept silently."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from longvpo_vectors import each
from prefopt.modalities.vision_language.video.building import filters
from prefopt.modalities.vision_language.video.building.filters import (
    Similarities,
    calibrated,
    selected,
    unfit,
    unspecific,
)


@each("scene_filter", 7)
def test_vectors_of_the_similarity_filter(given, expected):
    if "similarity" in given:
        row = given["similarity"][given["anchor"]]
        reasons = unfit(row, range(len(row)), given["anchor"], given["threshold"])
        assert [reason is None for reason in reasons] == expected["keep"]
        return

    def similarity():
        clips = [given["anchor_frames"], *given["candidate_frames"]]
        return Similarities(clips, given["pooling"]).to(0)[1:]

    if "error" in expected:
        with pytest.raises(ValueError, match=expected["error"]):
            similarity()
        return
    found = similarity()
    np.testing.assert_allclose(found, expected["similarity"], rtol=1e-12)
    reasons = unfit(found, given["candidate_sources"], given["anchor_source"], given["threshold"])
    assert reasons == expected["reason"]
    assert [reason is None for reason in reasons] == expected["keep"]
    chosen = selected(reasons, given["priority"], given["n_distractors"])
    assert chosen == expected["selected"]
    assert given["n_distractors"] - len(chosen) == expected["shortfall"]


@each("specificity_filter", 6)
def test_vectors_of_the_specificity_filter(given, expected):
    reason = unspecific(**given)
    assert {"keep": reason is None, "reason": reason} == expected


def test_no_more_are_taken_than_wanted():
    assert selected([None, "too_similar", None, None], [3, 1, 0, 2], 2) == [3, 0]


def test_leaks_are_counted():
    assert unspecific(True, False, [True, True, False], 1) == "distractor_leak"
    assert unspecific(True, False, [True, True, False], 2) is None


@pytest.mark.parametrize("pooling", filters.POOLINGS)
def test_all_clips_at_once_are_as_two_by_two(pooling):
    draw = np.random.default_rng(0)
    clips = [draw.normal(size=(frames, 5)) for frames in (3, 1, 4, 2)]
    every = Similarities(clips, pooling)
    for n, m in combinations(range(4), 2):
        two = Similarities([clips[n], clips[m]], pooling).to(0)[1]
        assert every.to(n)[m] == pytest.approx(two, abs=1e-12)
        assert every.to(m)[n] == pytest.approx(two, abs=1e-12)


def test_frames_that_cancel_out_are_an_error_and_not_a_clip_that_is_kept():
    opposed = [[[1.0, 0.0], [-1.0, 0.0]], [[1.0, 0.0]]]
    with pytest.raises(ValueError, match="mean of a clip's frames has a zero-norm"):
        Similarities(opposed, "mean")
    assert Similarities(opposed, "max").to(0)[1] == 1
    with pytest.raises(ValueError, match="nan"):
        unfit([float("nan")], ["a"], "b", 0.8)
    with pytest.raises(ValueError, match="not finite"):
        Similarities([[[1.0, float("inf")]]])
    with pytest.raises(ValueError, match="2, 3 numbers"):
        Similarities([[[1.0, 0.0]], [[1.0, 0.0, 0.0]]])


def test_hard_negatives_are_neither_too_near_nor_too_far():
    found = unfit([0.2, 0.5, 0.8, 0.49], ["a", "b", "c", "d"], "e", 0.8, least=0.5)
    assert found == ["too_dissimilar", None, "too_similar", "too_dissimilar"]


def test_a_threshold_is_calibrated_on_pairs_of_different_sources(monkeypatch):
    draw = np.random.default_rng(1)
    clips = [draw.normal(size=(2, 4)) for _ in range(40)]
    sources = [f"v{n // 4}" for n in range(40)]
    similarities = Similarities(clips)
    slow = [similarities.to(n)[m] for n, m in combinations(range(40), 2) if sources[n] != sources[m]]
    assert calibrated(similarities, sources, 0) == pytest.approx(np.quantile(slow, 0.95))
    monkeypatch.setattr(filters, "PAIRS", 500)
    some = [calibrated(similarities, sources, seed) for seed in (0, 0, 1)]
    assert some[0] == some[1] != some[2]
    assert some[0] == pytest.approx(np.quantile(slow, 0.95), abs=0.1)
    with pytest.raises(ValueError, match="one source"):
        calibrated(similarities, ["v"] * 40, 0)
