"""The motion world's reward and evaluator, which are trained on the spot."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from prefopt.motion.retrieval import MotionTextModel, separation
from prefopt.worlds import get_world
from prefopt.worlds.motion.task import has_sides, neighbours, parse_caption, swapped


def test_reward_and_evaluator_are_made_apart(world):
    truth = world.reference_motions(20, "test")
    reward, evaluator = world.scorer("reward"), world.scorer("evaluator")
    for model in (reward, evaluator):
        assert isinstance(model, MotionTextModel)
        assert model.encode_texts(truth.captions).shape == (20, 32)
        assert model.encode_motions(truth.features_BFD, truth.lengths_B).shape == (20, 32)
    assert not torch.equal(reward.encode_texts(truth.captions), evaluator.encode_texts(truth.captions))
    # they learned from other motions, too
    assert not torch.equal(reward.stats.mean_D, evaluator.stats.mean_D)
    unknown = reward.tokenizer.unk_token_id
    assert all(
        unknown not in reward.tokenizer(caption)["input_ids"] for caption in world.prompts(400, "test")
    )
    with pytest.raises(ValueError, match="the reward or the evaluator; given 'judge'"):
        world.scorer("judge")


def test_scorers_know_nothing_of_the_model(world):
    other = replace(
        world,
        swap_share=0.1,
        width=8,
        layers=2,
        pretrain_steps=5,
        pretrain_batch_size=3,
        pretrain_learning_rate=1.0,
    )
    for role in ("reward", "evaluator"):
        assert other.scorer_dir(role) == world.scorer_dir(role)
        assert replace(world, scorer_steps=7)._place(role) != world._place(role)
        assert replace(world, seed=4)._place(role) != world._place(role)
    assert world.scorer_dir("reward") != world.scorer_dir("evaluator")


@pytest.mark.slow
@pytest.mark.parametrize("role", ["reward", "evaluator"])
def test_default_scorers_tell_every_word(role, tmp_path, monkeypatch):
    """Whether sides are told apart is what experiments with them stand on."""
    monkeypatch.setenv("PREFOPT_CACHE", str(tmp_path))
    world = get_world("motion")
    model, truth = world.scorer(role), world.reference_motions(640, "test")
    score = model.score(truth.captions, truth.features_BFD, truth.lengths_B)
    assert score.mean() > 0.97
    assert separation(model, truth.captions, truth.features_BFD, truth.lengths_B) > 0.99
    sided = [k for k, caption in enumerate(truth.captions) if has_sides(caption)]
    other = model.score(
        [swapped(truth.captions[k]) for k in sided], truth.features_BFD[sided], truth.lengths_B[sided]
    )
    assert (score[sided] > other).float().mean() > 0.99
    from prefopt.worlds.motion.task import caption_of

    counted = [k for k, caption in enumerate(truth.captions) if parse_caption(caption).times]
    wrong = [caption_of(neighbours(parse_caption(truth.captions[k]))["count"][0]) for k in counted]
    other = model.score(wrong, truth.features_BFD[counted], truth.lengths_B[counted])
    assert (score[counted] > other).float().mean() > 0.99
