"""The motion world's model: a plain pipeline of motions, on a much smaller one than the real."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from prefopt.motion.pipeline import MotionPipeline
from prefopt.worlds import get_world
from prefopt.worlds.diffusion import tokens_of
from prefopt.worlds.motion.model import MAX_TOKENS, build, sample, stats_of
from prefopt.worlds.motion.task import WORDS, captions

from .conftest import TINY


def test_the_saved_model_is_a_motion_pipeline_of_known_parts(world, pipeline):
    index = json.loads((world.model_dir() / "model_index.json").read_text())
    assert index["_class_name"] == "MotionPipeline"
    parts = ("denoiser", "scheduler", "stats", "text_encoder", "tokenizer")
    assert [index[part][1] for part in parts] == [
        "MotionDenoiser",
        "DDPMScheduler",
        "MotionStats",
        "CLIPTextModel",
        "CLIPTokenizer",
    ]
    assert {f.suffix for f in world.model_dir().rglob("*.*")} <= {".json", ".safetensors", ".txt"}
    assert isinstance(pipeline, MotionPipeline)
    assert (pipeline.codec.name, pipeline.stats.fps, pipeline.max_frames) == ("stick", 8, 32)
    config = pipeline.scheduler.config
    assert (config.num_train_timesteps, config.prediction_type, config.clip_sample) == (20, "sample", False)
    assert not any(module.training for module in (pipeline.denoiser, pipeline.text_encoder))


def test_every_word_is_one_token_and_every_caption_fits(pipeline):
    tokenizer = pipeline.tokenizer
    ids = tokenizer(" ".join(WORDS[:14]))["input_ids"]
    assert len(ids) == 16 == MAX_TOKENS
    for caption in list(captions())[::7]:
        assert len(tokenizer(caption)["input_ids"]) == len(caption.split()) + 2
    # what pretraining reads is what the pipeline reads
    texts = [
        "someone jumps twice",
        "a person walks in a circle clockwise and waves the left hand three times",
    ]
    with torch.no_grad():
        learned = pipeline.text_encoder(tokens_of(tokenizer, texts)).pooler_output
    torch.testing.assert_close(learned, pipeline.encode_texts(texts))


def test_statistics_are_those_of_the_motions(world, pipeline):
    frames = world.pretraining_motions().features_BFD.flatten(0, 1)
    torch.testing.assert_close(pipeline.stats.mean_D, frames.mean(0))
    torch.testing.assert_close(pipeline.stats.std_D, frames.std(0))
    constant = stats_of(torch.ones(3, 4, 36), "tests")
    assert constant.normalize(torch.ones(1, 36)).tolist() == [[0.0] * 36]


def test_motions_of_a_model_depend_on_seed_number_and_caption(pipeline):
    prompts = ["someone jumps twice", "a person stands still", "someone jumps twice"]
    pipeline.set_progress_bar_config(disable=False, desc="mine")
    made = sample(pipeline, prompts, num_inference_steps=3)
    assert pipeline._progress_bar_config == {"disable": False, "desc": "mine"}
    assert made.shape == (3, 32, 36)
    assert not torch.equal(made[0], made[2])
    again = sample(pipeline, ["the figure squats once", *prompts[1:]], num_inference_steps=3, batch_size=2)
    torch.testing.assert_close(again[1:], made[1:], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(again[0], made[0], atol=1e-3)
    assert not torch.allclose(sample(pipeline, prompts, seed=1, num_inference_steps=3), made, atol=1e-3)


def weights(made) -> bytes:
    return (made.model_dir() / "denoiser" / "diffusion_pytorch_model.safetensors").read_bytes()


def test_same_seed_same_weights_other_seed_other_weights(tmp_path, monkeypatch):
    short = get_world("motion", seed=3, **TINY | {"pretrain_steps": 3})
    monkeypatch.setenv("PREFOPT_CACHE", str(tmp_path / "one"))
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = weights(short)
    assert torch.equal(torch.get_rng_state(), state)
    assert weights(replace(short, seed=4)) != first
    assert weights(replace(short, swap_share=0.0)) != first
    # what judges it is not of the model
    assert replace(short, scorer_steps=99).model_dir() == short.model_dir()
    monkeypatch.setenv("PREFOPT_CACHE", str(tmp_path / "two"))
    torch.manual_seed(5)
    assert weights(short) == first


def test_pretraining_learns_motions_and_captions(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFOPT_CACHE", str(tmp_path))
    quick = {"pretrain_steps": 120, "pretrain_batch_size": 32, "pretrain_learning_rate": 5e-3}
    world = get_world("motion", width=32, layers=1, pretrain_motions=600, swap_share=0.0, **quick)
    truth = world.reference_motions(64, "test")
    errors = {}
    for name, pipeline in (("built", build(truth.features_BFD, 32, 1)), ("trained", world.pipeline())):
        clean = pipeline.stats.normalize(truth.features_BFD)
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
        t = torch.full((64,), 17)
        noisy = pipeline.scheduler.add_noise(clean, noise, t)
        texts = pipeline.encode_texts(truth.captions)
        with torch.no_grad():
            for said, text in (("own", texts), ("other", texts.roll(7, 0))):
                errors[name, said] = (pipeline.denoiser(noisy, t, text) - clean).square().mean().item()
    assert errors["built", "own"] > 0.9
    assert errors["trained", "own"] < 0.85 < 1.2 * errors["trained", "own"] < errors["trained", "other"]


@pytest.mark.slow
def test_the_default_model_moves_well_and_goes_the_wrong_way(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFOPT_CACHE", str(tmp_path))
    world = get_world("motion")
    found = world.measured(world.pipeline())
    assert 0.05 <= found.passed <= 0.3
    assert 0.45 <= found.attr <= 0.75
    assert found.words["direction"] < 0.6 < found.words["move"] + 0.1
    assert 0.6 <= found.right_way <= 0.9
    assert found.r_precision[0] < 0.7
    assert found.fid < 0.5
