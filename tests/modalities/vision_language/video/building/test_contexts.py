"""Scenes to answer from and levels of a summary: the published vectors."""

from __future__ import annotations

import pytest

from longvpo_vectors import each
from prefopt.modalities.vision_language.video.building.contexts import caption_levels, stage2_contexts


@each("stage2_contexts", 5)
def test_vectors_of_scenes_to_answer_from(given, expected):
    found = stage2_contexts(given["n_scenes"], given["evidence"], given["k"], given["priority"])
    assert (len(given["evidence"]) > 1) == expected["multi_segment"]
    assert (found.partial is not None, found.partial) == (expected["partial_valid"], expected["partial"])
    assert (found.irrelevant is not None, found.irrelevant) == (
        expected["irrelevant_valid"],
        expected["irrelevant"],
    )


@each("caption_levels", 5)
def test_vectors_of_levels(given, expected):
    assert caption_levels(given["n_segments"], given["fan_in"]) == expected["levels"]


def test_where_every_scene_is_evidence_nothing_is_irrelevant():
    assert stage2_contexts(2, [0, 1], 1, [1, 0]) == ([1], None)


def test_what_makes_no_sense_is_refused():
    for evidence in ([0, 0], [0, 4], [-1, 0]):
        with pytest.raises(ValueError, match="different scenes of 0 to 3"):
            stage2_contexts(4, evidence, 1, range(4))
    with pytest.raises(ValueError, match="k is 0"):
        stage2_contexts(4, [0, 1], 0, range(4))
    for segments, fan_in in ((0, 8), (5, 1)):
        with pytest.raises(ValueError, match="needed at least 1 and 2"):
            caption_levels(segments, fan_in)
