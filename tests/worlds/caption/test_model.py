"""The caption world's model: a plain model of transformers with a plain processor, on a much smaller one than the real."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from prefopt import png
from prefopt.sources.pictures import decode
from prefopt.worlds import get_world
from prefopt.worlds.caption import task
from prefopt.worlds.caption.model import CHAT_TEMPLATE, _loss, load, prompt_text, sample_captions

from .conftest import TINY


@pytest.fixture(scope="module")
def pictures(world) -> list[Image.Image]:
    scenes = world.pictures(6)
    return [decode(scenes.image(k)) for k in range(6)]


def test_the_saved_model_is_a_plain_transformers_model(world, loaded):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(world.model_dir())
    processor = AutoProcessor.from_pretrained(world.model_dir())
    assert type(model).__name__ == "LlavaForConditionalGeneration"
    assert type(processor).__name__ == "LlavaProcessor"
    assert type(processor.image_processor).__name__ == "CLIPImageProcessorPil"  # needs no torchvision
    assert processor.chat_template == processor.tokenizer.chat_template == CHAT_TEMPLATE
    assert len(processor.tokenizer) == model.config.text_config.vocab_size
    assert model.generation_config.eos_token_id == processor.tokenizer.eos_token_id
    assert {f.suffix for f in world.model_dir().iterdir()} <= {".json", ".jinja", ".safetensors"}
    again = loaded[0].state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in model.state_dict().items())


def test_a_conversation_becomes_what_the_model_was_trained_on(loaded, pictures):
    model, processor = loaded
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Describe the picture."}]},
        {"role": "assistant", "content": "red square, blue plus"},
    ]
    blocks = [
        messages[0],
        {"role": "assistant", "content": [{"type": "text", "text": "red square, blue plus"}]},
    ]
    text = processor.apply_chat_template(messages, tokenize=False)
    assert text == "<s><|user|><image>Describe the picture.<|assistant|>red square, blue plus</s>"
    assert processor.apply_chat_template(blocks, tokenize=False) == text
    head = processor.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)
    assert text.startswith(head)
    ids = processor(images=[pictures[0]], text=[text], return_tensors="pt")["input_ids"][0].tolist()
    tokenizer = processor.tokenizer
    assert ids.count(processor.image_token_id) == 9 == model.config.image_seq_length
    assert ids.count(tokenizer.bos_token_id) == 1  # the template begins, and tokenizing adds no second one
    assert tokenizer.unk_token_id not in ids
    # the answer tokenized alone is the answer's tokens in the conversation
    prompt = processor(images=[pictures[0]], text=[head], return_tensors="pt")["input_ids"][0].tolist()
    answer = tokenizer("red square, blue plus</s>")["input_ids"]
    assert ids == prompt + answer
    assert len(answer) == 6
    assert tokenizer.decode(answer, skip_special_tokens=True) == "red square, blue plus"
    for wrong in ({"role": "system", "content": "x"}, {"role": "user", "content": [{"type": "video"}]}):
        with pytest.raises(Exception, match=r"roles are user and assistant|blocks are text and image"):
            processor.apply_chat_template([wrong], tokenize=False)


def test_every_word_of_a_caption_is_one_token_and_comes_back(loaded):
    tokenizer = loaded[1].tokenizer
    for k in range(12):
        caption = task.caption_of((k, (k + 5) % 12, (k + 1) % 12))
        ids = tokenizer(caption)["input_ids"]
        assert len(ids) == 8
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == caption


def test_pictures_reach_the_tower_unchanged_a_cell_a_patch(loaded, world, pictures):
    model, processor = loaded
    values = processor(images=pictures, text=[prompt_text(processor)] * 6, return_tensors="pt")[
        "pixel_values"
    ]
    mean, std = (
        torch.tensor(x)[:, None, None]
        for x in (processor.image_processor.image_mean, processor.image_processor.image_std)
    )
    images_BCHW = world.pictures(6).images_BCHW
    torch.testing.assert_close(values, (images_BCHW - mean) / std, atol=1e-5, rtol=1e-5)
    assert model.config.vision_config.patch_size == task.CELL
    features = model.model.get_image_features(pixel_values=values).pooler_output
    assert [tuple(one.shape) for one in features] == [(9, 16)] * 6


def test_the_loss_is_the_mean_log_probability_of_the_captions_tokens(loaded, world, pictures):
    """Against one conversation at a time, as a user would score it."""
    model, processor = loaded
    scenes = world.pictures(6)
    captions = [caption if k else "red square" for k, caption in enumerate(scenes.captions)]
    with torch.no_grad():
        fast = _loss(model, processor, scenes.images_BCHW, captions)
        scored = []
        for picture, caption in zip(pictures, captions, strict=True):
            text = f"{prompt_text(processor)}{caption}</s>"
            inputs = processor(images=[picture], text=[text], return_tensors="pt")
            logp = model(**inputs).logits[0, :-1].log_softmax(-1)
            ids = inputs["input_ids"][0, 1:]
            length = len(processor.tokenizer(caption + "</s>")["input_ids"])
            scored += logp.gather(1, ids[:, None])[-length:, 0].tolist()
    assert fast.item() == pytest.approx(-sum(scored) / len(scored), rel=1e-4)


def test_greedy_captions_are_those_of_generate(loaded, world, pictures):
    model, processor = loaded
    greedy = []
    for picture in pictures:  # one at a time: the judge of the batched sampler
        inputs = processor(images=[picture], text=[prompt_text(processor)], return_tensors="pt")
        new = model.generate(**inputs, max_new_tokens=20, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        greedy.append([processor.decode(new, skip_special_tokens=True)])
    images_BCHW = world.pictures(6).images_BCHW
    assert any(caption for [caption] in greedy)
    assert sample_captions(model, processor, images_BCHW, temperature=0) == greedy
    assert sample_captions(model, processor, images_BCHW, 2, temperature=0, batch_size=5) == [
        2 * one for one in greedy
    ]


def test_samples_depend_on_the_seed_and_nothing_else(loaded, world):
    model, processor = loaded
    images_BCHW = world.pictures(8).images_BCHW
    model.train()
    state = torch.get_rng_state()
    drawn = sample_captions(model, processor, images_BCHW, 3)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert [len(one) for one in drawn] == [3] * 8
    assert len({caption for one in drawn for caption in one}) > 8
    assert sample_captions(model, processor, images_BCHW, 3) == drawn
    assert sample_captions(model, processor, images_BCHW, 3, seed=1) != drawn
    model.eval()
    with pytest.raises(ValueError, match="temperature must be 0"):
        sample_captions(model, processor, images_BCHW, temperature=-1)


def test_same_seed_same_weights_other_seed_other_weights(world, tmp_path, monkeypatch):
    def weights(made) -> bytes:
        return (made.model_dir() / "model.safetensors").read_bytes()

    short = TINY | {"pretrain_steps": 2}
    monkeypatch.setenv("PREFOPT_CACHE", str(tmp_path / "one"))
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = weights(get_world("caption", seed=3, **short))
    assert torch.equal(torch.get_rng_state(), state)
    assert weights(get_world("caption", seed=4, **short)) != first
    assert weights(get_world("caption", seed=3, prior=0.9, **short)) != first
    monkeypatch.setenv("PREFOPT_CACHE", str(tmp_path / "two"))
    torch.manual_seed(5)
    assert weights(get_world("caption", seed=3, **short)) == first


def test_levels_are_those_of_the_files(world):
    scenes = world.pictures(2)
    levels = png.as_levels(scenes.images_BCHW[1])
    assert (Image.fromarray(levels).tobytes()) == decode(scenes.image(1)).tobytes()


@pytest.mark.slow
def test_the_default_model_sees_well_and_names_what_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFOPT_CACHE", str(tmp_path))
    world = get_world("caption")
    found = world.measured(*load(world.model_dir()))
    assert found.cover >= 0.95
    assert 0.04 <= found.chair_i <= 0.1  # 0.058 to 0.078 over seeds 0 to 3
    assert found.cog > 0.6 * found.chair_i
    rejected = world.comparisons(200)
    assert sum(row["score_rejected"] for row in rejected) / 200 < 0.85
