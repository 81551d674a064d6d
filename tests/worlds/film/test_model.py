"""The film world's model: a plain model of transformers with a plain processor, on a much smaller one than the real."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
import torch

from prefopt.modalities.vision_language.processor import load_processor
from prefopt.worlds import get_world
from prefopt.worlds.film import task
from prefopt.worlds.film.exam import Exam
from prefopt.worlds.film.learning import alike
from prefopt.worlds.film.model import (
    CHAT_TEMPLATE,
    SECONDS,
    WORDS,
    answered,
    features_of,
    grid_of,
    load,
    loss_of,
    patches_of,
    texts_of,
)

from .conftest import TINY

N = 3
"""Clips of a film."""


@pytest.fixture(scope="module")
def films(world) -> tuple[list[list[task.Clip]], np.ndarray]:
    """Films and their pixels."""
    rng = np.random.default_rng(0)
    films = [task.draw_film(rng, N) for _ in range(4)]
    return films, np.stack([task.paint(np.array(film), 0.05, rng) for film in films])


@pytest.fixture(scope="module")
def stirred(loaded) -> tuple[Any, Any]:
    """The model with weights so large that all that it sees matters to what it says."""
    model = copy.deepcopy(loaded[0])
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 1.0, generator=generator)
        model.lm_head.weight[: -len(WORDS)] = 0  # answers of words alone
    return model, loaded[1]


def as_user(model, tokenizer, pixels, text):
    """One film and one text as a user of transformers would give them to the model."""
    text = text.replace("<|video_pad|>", " ".join(["<|video_pad|>"] * 2 * len(pixels)))
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == model.config.video_token_id).int() * 2,
        "pixel_values_videos": patches_of(pixels),
        "video_grid_thw": grid_of(len(pixels)),
        "second_per_grid_ts": torch.tensor([SECONDS]),
    }


def messages(question, *said):
    found = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]}]
    return found + [{"role": "assistant", "content": one} for one in said]


def test_the_saved_model_is_a_plain_transformers_model(world, loaded):
    model, tokenizer = loaded
    assert type(model).__name__ == "Qwen2_5_VLForConditionalGeneration"
    assert len(tokenizer) == model.config.text_config.vocab_size
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert {f.suffix for f in world.model_dir().iterdir()} <= {".json", ".jinja", ".safetensors"}
    # a clip of 4 frames has two tokens, each of two frames
    assert SECONDS == 1
    assert model.config.vision_config.tokens_per_second * SECONDS == 1
    assert grid_of(8).tolist() == [[16, 2, 2]]


def test_its_processor_is_read_without_torchvision(world):
    processor = load_processor(str(world.model_dir()))
    assert type(processor).__name__ == "Qwen2_5_VLProcessor"
    assert type(processor.image_processor).__name__ == "Qwen2VLImageProcessorPil"
    assert processor.tokenizer.chat_template == CHAT_TEMPLATE
    assert (processor.image_token, processor.video_token) == ("<|image_pad|>", "<|video_pad|>")
    video = json.loads((world.model_dir() / "video_preprocessor_config.json").read_text())
    assert video["video_processor_type"] == "Qwen2VLVideoProcessor"
    image = json.loads((world.model_dir() / "preprocessor_config.json").read_text())
    assert {k: v for k, v in image.items() if k != "image_processor_type"} == {
        k: v for k, v in video.items() if k not in ("video_processor_type", "do_sample_frames")
    }


def test_a_conversation_becomes_what_the_model_was_trained_on(loaded):
    _, tokenizer = loaded
    text = tokenizer.apply_chat_template(messages("ask red square", "left early"), tokenize=False)
    assert text == (
        "<|user|><|vision_start|><|video_pad|><|vision_end|>ask red square<|assistant|>left early<|end|>"
    )
    head = tokenizer.apply_chat_template(
        messages("ask red square"), tokenize=False, add_generation_prompt=True
    )
    assert text.startswith(head)
    ids = tokenizer(text.replace("<|video_pad|>", "<|video_pad|>" * 4))["input_ids"]
    texts = texts_of(tokenizer, 2, ["ask red square"], ["left early"])
    assert texts.tokens_BT.tolist() == [ids]
    assert (texts.clips, texts.answer) == (2, 3)
    prompt = texts_of(tokenizer, 2, ["ask red square"])
    assert prompt.tokens_BT.tolist() == [ids[:-3]]
    assert prompt.answer == 0
    assert tokenizer.unk_token_id not in ids
    image = [{"role": "user", "content": [{"type": "image"}]}]
    assert "<|image_pad|>" in tokenizer.apply_chat_template(image, tokenize=False)
    for wrong in ({"role": "system", "content": "x"}, {"role": "user", "content": [{"type": "audio"}]}):
        with pytest.raises(Exception, match=r"roles are user and assistant|blocks are text, image and video"):
            tokenizer.apply_chat_template([wrong], tokenize=False)


def test_every_word_is_one_token_and_comes_back(loaded):
    _, tokenizer = loaded
    text = " ".join(WORDS)
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == len(set(ids)) == len(WORDS)
    assert tokenizer.decode(ids) == text


def test_patches_are_those_of_the_processor_frame_by_frame(world, films):
    """An image becomes a pair of itself: its first half is what the first frame of a pair must be, its second half the second."""
    images = load_processor(str(world.model_dir())).image_processor
    pixels = films[1][0]
    patches = patches_of(pixels).reshape(-1, 4, 3, 2, 6, 6)  # token, patch, channel, frame, row, column
    frames = pixels.reshape(-1, 12, 12, 3)
    assert len(patches) == len(frames) // 2
    for k, frame in enumerate(frames):
        out = images(images=[frame], return_tensors="pt")
        assert out["image_grid_thw"].tolist() == [[1, 2, 2]]  # nothing was resized
        alone = out["pixel_values"].reshape(4, 3, 2, 6, 6)
        torch.testing.assert_close(patches[k // 2, :, :, k % 2], alone[:, :, k % 2])


def test_the_loss_is_the_models_own_mean_log_probability(stirred, films):
    """Against one conversation at a time, as a user would score it: positions, features and all."""
    model, tokenizer = stirred
    questions = [task.asked(film[k % N]) for k, film in enumerate(films[0])]
    answers = [film[k % N].said for k, film in enumerate(films[0])]
    with torch.no_grad():
        features = features_of(model, films[1].reshape(-1, *films[1].shape[2:])).reshape(4, 2 * N, -1)
        fast = loss_of(model, texts_of(tokenizer, N, questions, answers), features)
        scored = []
        for pixels, question, answer in zip(films[1], questions, answers, strict=True):
            text = tokenizer.apply_chat_template(messages(question, answer), tokenize=False)
            inputs = as_user(model, tokenizer, pixels, text)
            logp = model(**inputs).logits[0, :-1].log_softmax(-1)
            scored += logp.gather(1, inputs["input_ids"][0, 1:, None])[-3:, 0].tolist()
    assert fast.item() == pytest.approx(-sum(scored) / len(scored), rel=1e-5)


@pytest.mark.parametrize("which", ["loaded", "stirred"])
def test_greedy_answers_are_those_of_generate(which, films, request):
    model, tokenizer = request.getfixturevalue(which)
    questions = [task.asked(film[1]) for film in films[0]]
    features = features_of(model, films[1].reshape(-1, *films[1].shape[2:])).reshape(4, 2 * N, -1)
    for length in (2, 5):
        alone = []
        for pixels, question in zip(films[1], questions, strict=True):
            head = tokenizer.apply_chat_template(
                messages(question), tokenize=False, add_generation_prompt=True
            )
            inputs = as_user(model, tokenizer, pixels, head)
            out = model.generate(**inputs, max_new_tokens=length, do_sample=False)
            alone.append(tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
        assert which == "loaded" or len(set(alone)) > 1
        assert answered(model, tokenizer, features, N, questions, length) == alone


def test_features_of_a_clip_do_not_depend_on_its_film(loaded, films):
    model, _ = loaded
    film = films[1][0]
    with torch.no_grad():
        whole = features_of(model, film)
        assert whole.shape == (N, 2, 16)
        torch.testing.assert_close(features_of(model, film[[2, 0]]), whole[[2, 0]])
        half = film.copy()
        half[0, 2:] = 0  # the other frame pair
        torch.testing.assert_close(features_of(model, half)[0, 0], whole[0, 0])


def test_films_of_two_alike_objects():
    rng = np.random.default_rng(0)
    shapes = set()
    for _ in range(200):
        film = task.draw_film(rng, 2)
        first, second = alike(film, rng)
        assert first == film[0]
        assert second.answer == film[1].answer
        (colour, shape), (same, other) = first.name.split(), second.name.split()
        assert colour == same
        assert shape != other
        shapes.add((shape, other))
    assert len(shapes) == 12


def test_an_exam_asks_the_same_at_every_length():
    exam = Exam(6, 8, "tests", 0.05)
    assert exam.pixels_KMFHWC.shape == (6, 8, 4, 12, 12, 3)
    assert np.array_equal(Exam(3, 8, "tests", 0.05).pixels_KMFHWC, exam.pixels_KMFHWC[:3])
    details = {n: exam.questions(n, "detail") for n in (1, 2, 8)}
    assert [slot for _, slot, _ in details[8]] == [0, 1, 2, 3, 4, 5]
    assert [slot for _, slot, _ in details[2]] == [0, 1, 0, 1, 0, 1]
    for n, films in details.items():
        for k, (film, slot, question) in enumerate(films):
            assert len({clip.object for clip in film}) == n == len(film)
            assert question == details[1][k][2] == task.asked(film[slot])
            assert film[slot] == details[1][k][0][0]
            assert task.read(exam.pixels_KMFHWC[k, exam.places(n)[k]]) == film
    for film, slot, question in exam.questions(8, "order"):
        assert task.right_answer(film, question).startswith(film[slot].name)
    firsts = [
        q.split()[1:3] == film[slot].name.split()
        for film, slot, q in Exam(40, 8, "t", 0).questions(8, "order")
    ]
    assert 8 < sum(firsts) < 32


def test_an_exam_is_answered_batch_by_batch_from_the_right_pixels(stirred, monkeypatch):
    model, tokenizer = stirred
    exam = Exam(16, 4, "tests", 0.05)
    model.train()
    whole = exam.answered(model, tokenizer, (1, 4), "detail")
    assert model.training
    model.eval()
    for n, found in whole.items():
        for k, record in enumerate(found):
            pixels = exam.pixels_KMFHWC[k, exam.places(n)[k]]
            assert (list(record.film), record.slot, record.question) == exam.questions(n, "detail")[k]
            features = features_of(model, pixels).reshape(1, 2 * n, -1)
            assert answered(model, tokenizer, features, n, [record.question], 3) == [record.answer]
    monkeypatch.setattr("prefopt.worlds.film.exam.BATCH", 6)
    assert exam.answered(model, tokenizer, (1, 4), "detail") == whole
    assert len({record.answer for record in whole[4]}) > 3


def test_same_seed_same_weights_other_seed_other_weights(tmp_path, monkeypatch):
    def weights(made) -> bytes:
        return (made.model_dir() / "model.safetensors").read_bytes()

    short = TINY | {"pretrain_steps": 4}
    monkeypatch.setenv("PREFOPT_CACHE", str(tmp_path / "one"))
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = weights(get_world("film", seed=3, **short))
    assert torch.equal(torch.get_rng_state(), state)
    assert weights(get_world("film", seed=4, **short)) != first
    assert weights(get_world("film", seed=3, noise=0.2, **short)) != first
    # how rows are made of clips is not of the model
    rows = {"clips": 4, "slot": "last", "spare": 2, "ambiguous": 0.5, "caption_errors": 0.1, "renders": 2}
    assert (
        get_world("film", seed=3, **short | rows).model_dir()
        == get_world("film", seed=3, **short).model_dir()
    )
    monkeypatch.setenv("PREFOPT_CACHE", str(tmp_path / "two"))
    torch.manual_seed(5)
    assert weights(get_world("film", seed=3, **short)) == first


@pytest.mark.slow
def test_the_default_model_knows_short_films_and_gets_lost_in_long_ones(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFOPT_CACHE", str(tmp_path))
    world = get_world("film")
    found = world.measured(*load(world.model_dir()))
    assert found[1].accuracy >= 0.99
    assert found[2].accuracy >= 0.95
    assert 0.45 <= found[8].accuracy <= 0.75
    assert found[8].spread >= 0.25
    assert found[16].accuracy <= 0.45
