"""Scores of answers to prompts with pictures, against the model called plainly through its own processor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_vision
from modalities.vision_language.vision_runs import chat
from prefopt.comparisons import Item, UnusableItem
from prefopt.likelihoods.capability import Ability
from prefopt.modalities.vision_language.likelihood import PicturedLikelihood
from prefopt.modalities.vision_language.opening import open_images, pictured_likelihood
from prefopt.modalities.vision_language.probes import made_up
from prefopt.modalities.vision_language.processor import load_processor
from prefopt.modalities.vision_language.prompts import MARK, in_blocks
from prefopt.models.loading import load_model
from prefopt.models.sources import PICTURED

SHARING = {"gemma3": "plain", "paligemma": "plain"}
"""Models that read images, or prompts, in both directions."""


def loaded(folder: Path) -> tuple[Any, PicturedLikelihood]:
    model = load_model(str(folder), trainable=False, loader=PICTURED, dtype="float64").model
    return model, pictured_likelihood(open_images(str(folder)), 1024, str(folder))


def plainly(model: Any, processor: Any, item: Item) -> float:
    """log pi of an answer, with nothing of prefopt: one row, the processor's own inputs, all logits."""
    images = [picture.image() for picture in item.condition["pictures"]]
    if processor.__class__.__name__ == "PaliGemmaProcessor":
        text = item.condition["prompt"].replace(MARK, "<image>")
        out = processor(text=[text], images=[images], suffix=[item.sample], return_tensors="pt")
        start = int((out["token_type_ids"][0] == 0).sum())
        out.pop("labels")
    else:
        messages = in_blocks([*item.condition["prompt"], *item.sample])
        template = processor.tokenizer.apply_chat_template
        whole = template(messages, tokenize=False)
        asked = template(messages[:1], tokenize=False, add_generation_prompt=True)
        images_given = {"images": [images]} if images else {}
        out = processor(text=[whole], **images_given, return_tensors="pt", add_special_tokens=False)
        start = processor(text=[asked], **images_given, return_tensors="pt", add_special_tokens=False)[
            "input_ids"
        ].shape[1]
    inputs = {k: v.double() if v.is_floating_point() else v for k, v in out.items()}
    with torch.no_grad():
        logp_TV = model(**inputs).logits[0].double().log_softmax(-1)
    ids = inputs["input_ids"][0]
    return float(logp_TV[start - 1 : -1].gather(-1, ids[start:, None]).sum())


def items_of(name: str) -> list[Item]:
    one, other = made_up(5), made_up(6)
    if name == "paligemma":
        prompt = MARK + "what is"
        return [
            Item({"prompt": prompt, "pictures": (picture,)}, answer)
            for picture in (one, other)
            for answer in ("a red cat", "a dog sits")
        ]
    text = f"{MARK}what is this ?"
    both = f"{MARK}and {MARK}describe"
    return [
        chat(text, (one,), "a red cat"),
        chat(text, (one,), "a dog sits"),
        chat(text, (other,), "a red cat"),
        chat(both, (one, other), "two red"),
        chat(both, (one, other), "a dog"),
        chat("what is this ?", (), "a cat"),
    ]


@pytest.mark.parametrize("name", list(tiny_vision.KINDS))
def test_scores_are_those_of_the_model_itself(name, folders):
    model, likelihood = loaded(folders(name))
    processor = load_processor(str(folders(name)))
    items = items_of(name)
    expected = torch.tensor([plainly(model, processor, item) for item in items], dtype=torch.float64)
    ability = likelihood.adapt(model)
    assert ability.sharing == SHARING.get(name, "shared"), str(ability)
    assert ability.own_head
    encoded = [likelihood.encode(item) for item in items]
    with torch.no_grad():
        dense = likelihood.score(model, likelihood.plan(encoded)).logp_N
        likelihood.ability = Ability()
        slow = torch.stack([likelihood.score(model, likelihood.plan([one])).logp_N[0] for one in encoded])
    torch.testing.assert_close(slow, expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(dense, expected, rtol=0, atol=1e-4)
    assert (expected[0] - expected[2]).abs() > 1e-2  # the picture matters


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "idefics3", "internvl"])
def test_plain_prompts(name, folders):
    model, likelihood = loaded(folders(name))
    likelihood.adapt(model)
    processor = load_processor(str(folders(name)))
    pictures = (made_up(5), made_up(6))
    item = Item({"prompt": f"{MARK}{MARK} what is this ? ", "pictures": pictures}, "a red cat")
    place = tiny_vision.QWEN_PLACE if name.startswith("qwen") else likelihood.images.placeholder
    text = f"{place}{place} what is this ? "
    images = [[picture.image() for picture in pictures]]
    whole = processor(text=[f"{text}a red cat</s>"], images=images, return_tensors="pt")
    start = processor(text=[text], images=images, return_tensors="pt")["input_ids"].shape[1]
    inputs = {k: v.double() if v.is_floating_point() else v for k, v in whole.items()}
    with torch.no_grad():
        logp_TV = model(**inputs).logits[0].log_softmax(-1)
        found = float(likelihood.score(model, likelihood.plan([likelihood.encode(item)])).logp_N)
    ids = whole["input_ids"][0]
    assert found == pytest.approx(
        float(logp_TV[start - 1 : -1].gather(-1, ids[start:, None]).sum()), abs=1e-4
    )


@pytest.mark.parametrize("name", ["llava", "qwen3_vl"])
def test_a_picture_is_encoded_once(name, folders, monkeypatch):
    model, likelihood = loaded(folders(name))
    likelihood.adapt(model)
    encoded = [likelihood.encode(item) for item in items_of(name)]
    plan = likelihood.plan(encoded)
    stream = plan.streams["image"]
    assert len(stream.tokens_of) == 2
    assert len(stream.order) > 2  # places that show one of the two
    seen: list[int] = []
    trunk = model.model
    theirs = trunk.get_image_features

    def counted(*args: Any, **options: Any) -> Any:
        out = theirs(*args, **options)
        seen.append(sum(len(part) for part in out.pooler_output))
        return out

    monkeypatch.setattr(trunk, "get_image_features", counted)
    with torch.no_grad():
        likelihood.score(model, plan)
    assert seen == [sum(stream.tokens_of)]


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
def test_gradients_reach_every_part_as_they_do_plainly(name, folders):
    def gradients(ability: Ability | None) -> dict[str, torch.Tensor]:
        model, likelihood = loaded(folders(name))
        model.requires_grad_(True)
        likelihood.adapt(model)
        likelihood.ability = ability or likelihood.ability
        encoded = [likelihood.encode(item) for item in items_of(name)[:3]]
        likelihood.score(model, likelihood.plan(encoded)).logp_N.sum().backward()
        return {k: p.grad for k, p in model.named_parameters() if p.grad is not None}

    dense, slow = gradients(None), gradients(Ability())
    assert set(dense) == set(slow)
    assert any("vision" in k or "visual" in k for k in dense)
    for k in slow:
        torch.testing.assert_close(dense[k], slow[k], rtol=1e-4, atol=1e-6, msg=k)


def test_the_token_that_misleads_is_the_likeliest_under_the_other_picture(folders):
    model, likelihood = loaded(folders("llava"))
    likelihood.adapt(model)
    text, one, other = f"{MARK}what is this ?", (made_up(5),), (made_up(6),)
    plain = chat(text, one, "a red cat")
    misled = Item({**plain.condition, "misled_by": other}, plain.sample)
    encoded, guide = likelihood.encode(misled), likelihood.encode(chat(text, other, "a red cat"))
    with torch.no_grad():
        score = likelihood.score(model, likelihood.plan([likelihood.encode(plain), encoded])).logp_N
        found = likelihood.score(model, likelihood.plan([guide]), {"distribution"}).distribution_KV.argmax(-1)
        at_own = likelihood.score(
            model, likelihood.plan([likelihood.encode(plain)]), {"distribution"}
        ).distribution_KV
    expected = at_own.gather(-1, found[:, None]).sum()
    assert float(score[1]) == pytest.approx(float(expected), abs=1e-6)
    assert abs(float(score[1] - score[0])) > 1e-3
    assert likelihood.key(encoded) != likelihood.key(likelihood.encode(plain))


def test_pictures_name_an_item_in_the_cache(folders):
    likelihood = loaded(folders("llava"))[1]
    text = f"{MARK}what is this ?"
    same = [likelihood.encode(chat(text, (made_up(k),), "a cat")) for k in (5, 5, 6)]
    assert likelihood.key(same[0]) == likelihood.key(same[1]) != likelihood.key(same[2])
    assert likelihood.family(same[0]) != likelihood.family(same[2])
    noised = replace(made_up(5), change="noise", seed=1)
    assert likelihood.key(likelihood.encode(chat(text, (noised,), "a cat"))) != likelihood.key(same[0])


def test_places_and_pictures_must_agree(folders):
    likelihood = loaded(folders("llava"))[1]
    with pytest.raises(UnusableItem, match=r"places for no image, and 1 image\(s\) are given"):
        likelihood.encode(chat("what is this ?", (made_up(5),), "a cat"))
    with pytest.raises(UnusableItem, match="1 of 0 places"):
        likelihood.encode(chat("what <image> is", (), "a cat"))
    with pytest.raises(UnusableItem, match=r"places for 1 image\(s\), and no image"):
        likelihood.encode(Item({"prompt": "what is"}, "a <image> cat"))


def test_truncation_never_cuts_a_picture(folders):
    folder = folders("llava")
    likelihood = pictured_likelihood(open_images(str(folder)), 20, str(folder))
    with pytest.raises(UnusableItem, match="the prompt alone has"):
        likelihood.encode(chat(f"{MARK}what is this ?", (made_up(5),), "a red cat"))
    likelihood = pictured_likelihood(open_images(str(folder)), 26, str(folder))
    cut = likelihood.encode(chat(f"{MARK}what is this ?", (made_up(5),), "a red cat sits on the mat"))
    assert cut.truncated
    assert list(cut.ids).count(likelihood.images.image_token_id) == 16


@pytest.mark.parametrize("name", list(tiny_vision.KINDS))
def test_answers_are_those_that_the_model_generates_by_itself(name, folders):
    from prefopt.generation.base import Request, Settings
    from prefopt.modalities.vision_language.samples import PicturedGenerator

    folder = folders(name)
    model = load_model(str(folder), trainable=False, loader=PICTURED).model
    likelihood = pictured_likelihood(open_images(str(folder)), 1024, str(folder))
    processor = load_processor(str(folder))
    asked = [items_of(name)[k] for k in (0, 2)]
    requests = [
        Request(str(n), item.condition["prompt"], template={"pictures": item.condition["pictures"]})
        for n, item in enumerate(asked)
    ]
    generator = PicturedGenerator(model, likelihood.tokenizer, counted=False, likelihood=likelihood)
    (batch,) = generator.generate(requests, Settings(5, 0.0))
    for answer, item in zip(sorted(batch, key=lambda a: a.id), asked, strict=True):
        images = [[picture.image() for picture in item.condition["pictures"]]]
        prompt = item.condition["prompt"]
        if isinstance(prompt, str):
            text, options = prompt.replace(MARK, "<image>"), {}
        else:
            text = processor.tokenizer.apply_chat_template(
                in_blocks(prompt), tokenize=False, add_generation_prompt=True
            )
            options = {"add_special_tokens": False}
        inputs = processor(text=[text], images=images, return_tensors="pt", **options)
        with torch.no_grad():
            alone = model.generate(**inputs, max_new_tokens=5, do_sample=False)
        ids = inputs["input_ids"]
        assert list(answer.ids) == alone[0, ids.shape[1] :].tolist()


def test_templates_that_take_texts_alone(tmp_path, folders):
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(folders("llava"), folder)
    template = (
        "{% for m in messages %}{{ m['role'] }} : {{ m['content'] + (eos_token if m['role'] == 'assistant' else ' ') }}"
        "{% endfor %}{% if add_generation_prompt %}assistant : {% endif %}"
    )
    (folder / "chat_template.jinja").write_text(template)
    item = chat(f"{MARK} what is this ?", (made_up(5),), "a red cat")
    plain = pictured_likelihood(open_images(str(folder)), 1024, str(folder)).encode(item)
    blocks = pictured_likelihood(open_images(str(folders("llava"))), 1024, str(folders("llava"))).encode(item)
    assert list(plain.ids) == list(blocks.ids)
    assert plain.start == blocks.start


def test_a_template_that_drops_images_is_found_out(tmp_path, folders):
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(folders("llava"), folder)
    template = "{% for m in messages %}{% for c in m['content'] %}{% if c['type'] == 'text' %}{{ c['text'] }}{% endif %}{% endfor %}{% endfor %}"
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(UnusableItem, match=r"renders 0 of 1 places|cannot be rendered"):
        pictured_likelihood(open_images(str(folder)), 1024, str(folder)).encode(
            chat(f"{MARK} what is this ?", (made_up(5),), "a red cat")
        )
