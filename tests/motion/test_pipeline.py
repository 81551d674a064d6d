"""Sampling of motions: seeds, lengths, guidance, folders, texts."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler

from prefopt.motion.pipeline import MotionPipeline
from prefopt.motion.texts import embed_texts, text_width
from tiny_motions import tiny_mdm

TEXTS = ["a person walks forward", "the figure waves the left hand", "a figure jumps"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_mdm(tmp_path_factory.mktemp("motion") / "tiny")


@pytest.fixture(scope="module")
def pipe(folder):
    found = MotionPipeline.from_pretrained(folder)
    found.set_progress_bar_config(disable=True)
    return found


def test_a_motion_depends_on_its_text_length_and_seed_alone(pipe):
    together = pipe(TEXTS, [32, 20, 8], seeds=[5, 6, 7])
    alone = [
        pipe([text], [n], seeds=[seed]).features[0]
        for text, n, seed in zip(TEXTS, (32, 20, 8), (5, 6, 7), strict=True)
    ]
    assert [tuple(x.shape) for x in together.features] == [(32, 36), (20, 36), (8, 36)]
    for a, b in zip(together.features, alone, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    small = pipe(TEXTS, [32, 20, 8], seeds=[5, 6, 7], batch_size=2).features
    torch.testing.assert_close(small[2], together.features[2], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(pipe([TEXTS[0]], [32], seeds=[8]).features[0], together.features[0])


def test_features_are_physical(pipe):
    (features,) = pipe([TEXTS[0]], [32]).features
    none = type(pipe.stats).of("stick", torch.zeros(36), torch.ones(36), fps=8)
    plain = MotionPipeline(**(dict(pipe.components) | {"stats": none}), max_text_tokens=16)
    plain.set_progress_bar_config(disable=True)
    (z,) = plain([TEXTS[0]], [32]).features
    torch.testing.assert_close(features, pipe.stats.denormalize(z))
    assert not torch.allclose(features, z)
    (positions,) = pipe([TEXTS[0]], [32]).positions()
    assert positions.shape == (32, 11, 3)


def test_guidance_is_one_pass_and_equals_two(pipe):
    calls = []
    hook = pipe.denoiser.register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
    pipe(TEXTS[:2], [32, 32], guidance_scale=2.5, num_inference_steps=1)
    hook.remove()
    assert calls == [4]
    one = pipe(TEXTS[:1], [32], guidance_scale=3.0, num_inference_steps=1, seeds=[0]).features[0]
    given, empty = (
        pipe([text], [32], guidance_scale=1.0, num_inference_steps=1, seeds=[0]).features[0]
        for text in (TEXTS[0], "")
    )
    torch.testing.assert_close(one, empty + 3.0 * (given - empty), rtol=1e-4, atol=1e-4)


def test_what_it_saves_it_loads(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "again")
    again = MotionPipeline.from_pretrained(tmp_path / "again")
    again.set_progress_bar_config(disable=True)
    torch.testing.assert_close(again(TEXTS, [32] * 3).features[1], pipe(TEXTS, [32] * 3).features[1])
    index = json.loads((tmp_path / "again" / "model_index.json").read_text())
    assert index["_class_name"] == "MotionPipeline"
    assert not list((tmp_path / "again").rglob("*.bin"))


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"texts": "a person", "lengths": [8]}, "a single string, 1 lengths, 1 seeds"),
        ({"texts": TEXTS, "lengths": [8]}, "3 texts, 1 lengths"),
        ({"texts": TEXTS[:1], "lengths": [33]}, "a motion of 33 frames; the model draws 1 to 32"),
        ({"texts": TEXTS[:1], "lengths": [0]}, "a motion of 0 frames"),
    ],
)
def test_wrong_calls_say_so(pipe, wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        pipe(**wrong)


def test_parts_that_do_not_belong_together(pipe):
    parts = dict(pipe.components)
    clipped = DDPMScheduler(num_train_timesteps=10, prediction_type="sample")  # diffusers' default clips
    with pytest.raises(ValueError, match="the scheduler clips samples"):
        MotionPipeline(**(parts | {"scheduler": clipped}))
    other = type(pipe.stats).of("stick", torch.zeros(7), torch.ones(7), fps=8)
    with pytest.raises(ValueError, match="36 features a frame and the statistics 7"):
        MotionPipeline(**(parts | {"stats": other}))


def test_texts_by_any_encoder(pipe):
    from transformers import BertConfig, BertModel, CLIPTextModel

    tokenizer = pipe.tokenizer
    found = embed_texts(pipe.text_encoder, tokenizer, TEXTS, 16)
    ids = tokenizer(TEXTS[1], return_tensors="pt")
    expected = pipe.text_encoder(**ids).text_embeds[0]
    torch.testing.assert_close(found[1], expected, rtol=1e-5, atol=1e-5)
    config = pipe.text_encoder.config
    plain = CLIPTextModel(config).eval()
    torch.testing.assert_close(embed_texts(plain, tokenizer, TEXTS, 16)[1], plain(**ids).pooler_output[0])
    bert = BertModel(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=12,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=8,
        )
    ).eval()
    mean = bert(**ids).last_hidden_state[0].mean(0)
    torch.testing.assert_close(embed_texts(bert, tokenizer, TEXTS, 16)[1], mean, rtol=1e-4, atol=1e-5)
    assert (text_width(bert), text_width(plain), text_width(pipe.text_encoder)) == (12, 16, 16)


def test_the_process_is_mdms():
    """Betas of the released models' cosine schedule, as diffusers has it."""
    cases = json.loads((Path(__file__).parents[1] / "data" / "sopo.json").read_text())
    (case,) = [c for c in cases if c["inputs"]["kind"] == "cosine_schedule"]
    scheduler = DDPMScheduler(num_train_timesteps=50, beta_schedule="squaredcos_cap_v2", clip_sample=False)
    torch.testing.assert_close(
        scheduler.alphas_cumprod.double(),
        torch.tensor(case["expected"]["alphas_cumprod"], dtype=torch.float64),
        rtol=1e-5,
        atol=1e-6,
    )
