"""What a judge of candidates is given: physical units, zeros behind the ends, its own text."""

from __future__ import annotations

import pytest
import torch

import tiny_motions
from prefopt.modalities.motion.likelihood import EncodedMotion
from prefopt.modalities.motion.models import load_motion_model
from prefopt.modalities.motion.scorers import MotionScorer, get_scorer, of_function, padded
from prefopt.modalities.motion.setup import MotionJudge
from prefopt.modalities.motion.store import MotionStore
from prefopt.worlds import get_world


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return MotionStore(
        load_motion_model(str(tiny_motions.tiny_mdm(tmp_path_factory.mktemp("m") / "tiny")), trainable=False)
    )


def test_candidates_are_judged_in_physical_units_up_to_their_ends(store):
    seen = {}

    def score(prompts, features_BFD, length_B):
        seen.update(prompts=list(prompts), features=features_BFD, lengths=length_B.tolist())
        return features_BFD[:, 0, 0]

    judge = MotionJudge(
        MotionScorer("s", score, lambda features, lengths: features.sum((1, 2))[:, None]), store
    )
    items = [EncodedMotion("", "walks", length=8), EncodedMotion("", "waves", length=20)]
    z = torch.randn(2, 32, 36)
    found = judge.score(items, z)
    stats = store.loaded.pipe.stats
    assert seen["prompts"] == ["walks", "waves"]
    assert seen["lengths"] == [8, 20]
    assert seen["features"].shape == (2, 20, 36)
    torch.testing.assert_close(seen["features"][0, :8], stats.denormalize(z[0, :8]))
    assert seen["features"][0, 8:].abs().max() == 0
    torch.testing.assert_close(found, stats.denormalize(z)[:, 0, 0])
    torch.testing.assert_close(judge.embed(items, z)[:, 0], seen["features"].sum((1, 2)))


def test_the_worlds_rules_by_name():
    world = get_world("motion")
    truth = world.reference_motions(8, "test")
    for spec in ("world:motion", "world:motion:attr", "world:motion:side"):
        scorer = get_scorer(spec)
        assert scorer.score(truth.captions, truth.features_BFD, truth.lengths_B).tolist() == [1.0] * 8
        assert scorer.embed(truth.features_BFD, truth.lengths_B) is None
    wrong = truth.features_BFD.flip(0)
    assert float(get_scorer("world:motion").score(truth.captions, wrong, truth.lengths_B).mean()) < 0.5


def test_a_users_function_sees_a_motion_up_to_its_end():
    features, lengths = padded([torch.ones(4, 36), torch.ones(9, 36)])
    assert features.shape == (2, 9, 36)
    scorer = of_function(lambda prompt, x_FD: len(prompt) + len(x_FD))
    assert scorer.score(["a", "bcd"], features, lengths).tolist() == [5.0, 12.0]


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("nothing", "no scorer of motions is called 'nothing'"),
        ("world:picture", "the picture world has no motions to score"),
        ("world:motion:beauty", "no measure 'beauty'; there are .*side"),
        ("world:nowhere", "no world is called 'nowhere'"),
    ],
)
def test_what_scores_nothing_says_so(spec, sentence):
    with pytest.raises(ValueError, match=sentence):
        get_scorer(spec).score(["a person stands still"], torch.zeros(1, 32, 36), torch.tensor([32]))


def test_scores_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="needed one finite number each"):
        of_function(lambda prompt, x: float("nan")).score(["a"], torch.zeros(1, 4, 36), torch.tensor([4]))
