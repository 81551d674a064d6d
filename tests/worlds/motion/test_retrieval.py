"""The motion world's reward and evaluator, which are trained on the spot."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from prefopt.motion.retrieval import MotionTextModel, separation
from prefopt.worlds import get_world


def test_reward_and_evaluator_are_made_apart(world):
    truth = world.reference_motions(20, "test")
    reward, evaluator = world.scorer("reward"), world.scorer("evaluator")
    for model in (reward, evaluator):
        assert isinstance(model, MotionTextModel)
        assert model.encode_texts(truth.captions).shape == (20, 32)
        assert model.encode_motions(truth.features_BFD, truth.lengths_B).shape == (20, 32)
    assert not torch.equal(reward.encode_texts(truth.captions), evaluator.encode_texts(truth.captions))
    # nor did they begin alike, or learn from the same motions
    words = [model.text_encoder.get_input_embeddings().weight for model in (reward, evaluator)]
    assert (words[0] - words[1]).abs().mean() > 0.5
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
    model = world.scorer(role)
    found = world.accuracy(model)
    assert found.matched > 0.97
    assert 0.4 < found.mismatched < 0.6
    assert found.swapped > 0.99
    assert all(found.words[word] > 0.99 for word in ("side", "count", "direction"))
    assert found.words["speed"] > 0.7
    truth = world.reference_motions(640, "test")
    assert separation(model, truth.captions, truth.features_BFD, truth.lengths_B) > 0.99
