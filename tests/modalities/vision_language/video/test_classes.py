"""Scores of answers to prompts with videos, of real classes.

transformers' processors of videos need torchvision, of which there is no build beside the torch of these tests. What is
compared with them runs where it can be imported (`make test` runs this file once more with its Python parts on the path); what
is left of a model without it is tested in both.
"""

from __future__ import annotations

import functools
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers.utils import is_torchvision_available

import tiny_vision
from modalities.vision_language.vision_runs import chat
from prefopt.comparisons import Item
from prefopt.likelihoods.capability import Ability
from prefopt.modalities.vision_language.likelihood import PicturedLikelihood
from prefopt.modalities.vision_language.opening import open_images, pictured_likelihood
from prefopt.modalities.vision_language.plan import EncodedPictured
from prefopt.modalities.vision_language.probes import made_up
from prefopt.modalities.vision_language.processor import load_processor
from prefopt.modalities.vision_language.prompts import MARK, VIDEO_MARK, in_blocks
from prefopt.modalities.vision_language.video.preparing import by_videos, preparer_of
from prefopt.modalities.vision_language.video.processing import PIXELS
from prefopt.modalities.vision_language.video.videos import Video
from prefopt.models.loading import load_model
from prefopt.models.sources import PICTURED
from prefopt.sources.pictures import as_ref
from prefopt.sources.videos import ClipRef, decode

WITH_TORCHVISION = is_torchvision_available()
ANYWHERE = ("qwen2_5_vl", "qwen3_vl", "internvl", "smolvlm")
CLASSES = (*ANYWHERE, "llava_onevision") if WITH_TORCHVISION else ANYWHERE
torchvision = pytest.mark.skipif(
    not WITH_TORCHVISION,
    reason="needs torchvision, beside which these tests run once more (see the Makefile)",
)


def clip(number: int, frames: int = 4, size: tuple[int, int] = (40, 56)) -> ClipRef:
    """A clip of random frames."""
    drawn = np.random.default_rng(number).integers(0, 256, (frames, *size, 3), dtype=np.uint8)
    shown = tuple(as_ref(pixels, f"frame {k}") for k, pixels in enumerate(drawn))
    return ClipRef(shown, frames=tuple(range(frames)), fps=2.0, name=f"clip {number}")


def loaded(folder: Path) -> tuple[Any, PicturedLikelihood]:
    model = load_model(str(folder), trainable=False, loader=PICTURED, dtype="float64").model
    likelihood = pictured_likelihood(open_images(str(folder)), 4096, str(folder))
    if WITH_TORCHVISION and "Qwen3VL" in type(likelihood.images.processor).__name__:
        # its bounds are those of a whole video, and ours of a clip, so that a clip looks the same in every video
        likelihood.images.processor.video_processor.size["longest_edge"] = 2**20
    return model, likelihood


def items() -> list[Item]:
    """Answers under videos of one clip and of several, of which two differ in the order of their clips, and a picture."""
    a, b, c = clip(0), clip(1), clip(2)
    text = f"{VIDEO_MARK}what is this ?"
    long, turned = Video((a, b, c)), Video((b, c, a))
    return [
        chat(text, (Video((a,)),), "a red cat"),
        chat(text, (long,), "a red cat"),
        chat(text, (long,), "a dog sits"),
        chat(text, (turned,), "a red cat"),
        chat(f"{MARK}and {VIDEO_MARK}describe", (made_up(5), long), "two red"),
        chat("what is this ?", (), "a cat"),
    ]


def plainly(model: Any, processor: Any, item: Item) -> float:
    """log pi of an answer, with nothing of prefopt but the frames: the processor's own inputs, all logits."""
    from transformers.video_utils import VideoMetadata

    images, videos, told = [], [], []
    for medium in item.condition["pictures"]:
        if not isinstance(medium, Video):
            images.append(medium.image())
            continue
        shown = [decode(one) for one in medium.clips]
        videos.append(np.concatenate([one.pixels_FHW3 for one in shown]))
        count = len(videos[-1])
        told.append(
            VideoMetadata(
                total_num_frames=count, fps=2.0, duration=count / 2, frames_indices=list(range(count))
            )
        )
    given: dict[str, Any] = {"images": [images]} if images else {}
    if videos:
        given |= {"videos": videos, "video_metadata": told, "do_sample_frames": False}
    messages = in_blocks([*item.condition["prompt"], *item.sample])
    template = processor.tokenizer.apply_chat_template
    texts = [
        template(messages, tokenize=False),
        template(messages[:1], tokenize=False, add_generation_prompt=True),
    ]
    out, start = (
        processor(text=[text], **given, return_tensors="pt", add_special_tokens=False) for text in texts
    )
    inputs = {k: v.double() if v.is_floating_point() else v for k, v in out.items()}
    with torch.no_grad():
        logp_TV = model(**inputs).logits[0].double().log_softmax(-1)
    ids = inputs["input_ids"][0]
    first = start["input_ids"].shape[1]
    return float(logp_TV[first - 1 : -1].gather(-1, ids[first:, None]).sum())


def scores(model: Any, likelihood: PicturedLikelihood, encoded: list[Any]) -> torch.Tensor:
    with torch.no_grad():
        return likelihood.score(model, likelihood.plan(encoded)).logp_N


@pytest.mark.parametrize("name", CLASSES)
def test_shared_rows_give_what_rows_of_their_own_give(name, folders):
    model, likelihood = loaded(folders(name))
    encoded = [likelihood.encode(item) for item in items()]
    ability = likelihood.adapt(model)
    assert ability.sharing == "shared", str(ability)
    dense = scores(model, likelihood, encoded)
    likelihood.ability = Ability()
    slow = torch.cat([scores(model, likelihood, [one]) for one in encoded])
    torch.testing.assert_close(dense, slow, rtol=0, atol=1e-4)
    assert (dense[1] - dense[3]).abs() > 1e-3  # the order of clips matters
    assert (dense[0] - dense[1]).abs() > 1e-3


@torchvision
@pytest.mark.parametrize("name", CLASSES)
def test_scores_are_those_of_the_model_and_its_own_processor(name, folders):
    model, likelihood = loaded(folders(name))
    processor = likelihood.images.processor
    # SmolVLM's processor forgets images beside a video
    asked = [item for k, item in enumerate(items()) if (name, k) != ("smolvlm", 4)]
    expected = torch.tensor([plainly(model, processor, item) for item in asked], dtype=torch.float64)
    encoded = [likelihood.encode(item) for item in asked]
    likelihood.adapt(model)
    torch.testing.assert_close(scores(model, likelihood, encoded), expected, rtol=0, atol=1e-4)


@torchvision
@pytest.mark.parametrize("name", ANYWHERE)
@pytest.mark.parametrize(("frames", "size"), [(4, (32, 32)), (3, (32, 32)), (8, (90, 120))])
def test_frames_are_prepared_alike_without_it(name, frames, size, folders, monkeypatch):
    """Sizes, order of patches, normalization: all but the filter that resizes, which has nothing to do where all is 32 wide."""
    from prefopt.modalities.vision_language.video import preparing

    processor = load_processor(str(folders(name)))
    pixels_FHW3 = decode(clip(3, frames, size)).pixels_FHW3
    theirs = by_videos(processor.video_processor, pixels_FHW3)
    monkeypatch.setattr("transformers.utils.is_torchvision_available", lambda: False)
    from prefopt.modalities.vision_language.processor import NoVideos

    processor.image_processor = tiny_vision.KINDS[name]()[1]  # Pillow's
    processor.video_processor = NoVideos.from_pretrained(str(folders(name)))
    ours = preparing.preparer_of(processor)(pixels_FHW3)
    assert set(ours) == set(theirs)
    for key in theirs:
        assert ours[key].shape == theirs[key].shape, key
        if size == (32, 32) or key not in PIXELS:
            torch.testing.assert_close(ours[key], theirs[key].to(ours[key].dtype), rtol=0, atol=0.02)


@pytest.mark.parametrize("name", ["qwen3_vl", "internvl"])
def test_a_clip_is_encoded_once(name, folders, monkeypatch):
    model, likelihood = loaded(folders(name))
    encoded = [likelihood.encode(item) for item in items()[:4]]
    likelihood.adapt(model)
    plan = likelihood.plan(encoded)
    (stream,) = plan.streams.values()
    assert len(stream.tokens_of) == 3
    assert len(stream.order) in (
        6,
        7,
    )  # two videos of three clips, and their first clip alone, where it is not shared
    seen: list[int] = []
    theirs = model.model.get_image_features

    @functools.wraps(theirs)
    def counted(*args: Any, **options: Any) -> Any:
        out = theirs(*args, **options)
        seen.append(sum(part.reshape(-1, part.shape[-1]).shape[0] for part in out.pooler_output))
        return out

    monkeypatch.setattr(model.model, "get_image_features", counted)
    whole = scores(model, likelihood, encoded)
    assert seen == [sum(stream.tokens_of)]
    seen.clear()
    monkeypatch.setattr("prefopt.modalities.vision_language.shown.CHUNK_BYTES", 1)
    chunked = scores(model, likelihood, encoded)
    assert seen == list(stream.tokens_of)
    torch.testing.assert_close(chunked, whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ANYWHERE)
def test_clips_of_several_sizes_and_lengths(name, folders):
    model, likelihood = loaded(folders(name))
    mixed = Video((clip(0), clip(1, 2), clip(2, 4, (56, 40))))
    encoded = [likelihood.encode(chat(f"{VIDEO_MARK}what is", (mixed,), "a cat"))]
    likelihood.adapt(model)
    assert torch.isfinite(scores(model, likelihood, encoded)).all()


@pytest.mark.parametrize("name", CLASSES)
def test_answers_are_generated(name, folders):
    from prefopt.generation.base import Request, Settings
    from prefopt.modalities.vision_language.samples import PicturedGenerator

    model, likelihood = loaded(folders(name))
    requests = [
        Request(str(n), item.condition["prompt"], template={"pictures": item.condition["pictures"]})
        for n, item in enumerate(items())
        if n in (1, 3)
    ]
    generator = PicturedGenerator(model, likelihood.tokenizer, counted=False, likelihood=likelihood)
    (batch,) = generator.generate(requests, Settings(4, 0.0))
    # the likeliest token after each prefix, scored the way training scores
    likelihood.adapt(model)
    for answer in batch:
        (request,) = [one for one in requests if one.id == answer.id]
        prompt = likelihood.prompt_ids({"prompt": request.prompt, **request.template})
        found = list(answer.ids)
        for k, likeliest in enumerate(found):
            tokens = sorted({*range(4, 40), likeliest})
            encoded = [
                EncodedPictured(
                    array("i", [*prompt, *found[:k], token]),
                    len(prompt),
                    pictures=request.template["pictures"],
                )
                for token in tokens
            ]
            assert tokens[int(scores(model, likelihood, encoded).argmax())] == likeliest


def test_a_batch_of_more_videos_than_a_row_has_tokens(folders):
    from prefopt.generation.base import Request, Settings
    from prefopt.modalities.vision_language.samples import PicturedGenerator

    model, likelihood = loaded(folders("qwen2_5_vl"))
    small = [Video((clip(n, 2, (16, 16)),)) for n in range(24)]
    requests = [
        Request(str(n), f"{VIDEO_MARK}a", template={"pictures": (video,)}) for n, video in enumerate(small)
    ]
    assert len(likelihood.prompt_ids({"prompt": requests[0].prompt, **requests[0].template})) < len(requests)
    generator = PicturedGenerator(model, likelihood.tokenizer, counted=False, likelihood=likelihood)
    assert sum(len(batch) for batch in generator.generate(requests, Settings(2, 0.0))) == len(requests)


def test_a_model_of_images_alone_says_so(folders):
    with pytest.raises(ValueError, match="reads no videos"):
        preparer_of(load_processor(str(folders("llava"))))
