"""Runs on real classes: what is trained, what is left alone, and what is saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import prefopt
import tiny_vision
from modalities.image.image_runs import column, note, record
from modalities.vision_language.vision_runs import rows_of, said, train, written
from prefopt.config import ConfigError
from prefopt.modalities.vision_language.parts import part_of
from prefopt.modalities.vision_language.processor import load_processor


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_vision.save_tiny("llava", tmp_path_factory.mktemp("llava"))


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def moved(before: Path, after: Path) -> set[str]:
    """Parts of which some weight is another."""
    old, new = tensors(before), tensors(after)
    assert set(old) == set(new)
    assert all(old[k].shape == new[k].shape for k in old)
    return {part_of(k) for k in old if not torch.equal(old[k].float(), new[k].float())}


QUICK = ("llava", "qwen3_vl", "gemma3")
"""Classes that are trained in every run of the tests; scores of all are, in test_likelihood.py."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow)
        for name in tiny_vision.KINDS
        if name != "paligemma"
    ],
)
def test_every_class_trains_and_is_saved_whole(name, own_cache, tmp_path):
    from transformers import AutoModelForImageTextToText

    model = tiny_vision.save_tiny(name, tmp_path / "model")
    result = train("dpo", model, written(tmp_path, rows_of(tmp_path)), tmp_path / "run")
    saved = tmp_path / "run" / "model"
    assert moved(model, saved) == {"language_model", "projector"}
    given, out = (json.loads((folder / "config.json").read_text()) for folder in (model, saved))
    assert {k: v for k, v in out.items() if k not in ("architectures", "transformers_version")} == {
        k: v for k, v in given.items() if k not in ("architectures", "transformers_version")
    }
    for file in (
        "preprocessor_config.json",
        "processor_config.json",
        "chat_template.jinja",
        "tokenizer.json",
    ):
        assert (saved / file).read_bytes() == (model / file).read_bytes(), file
    plain = AutoModelForImageTextToText.from_pretrained(saved)
    likelihood_inputs = load_processor(str(saved))(text=["what is this ?"], return_tensors="pt")
    assert (
        plain.generate(
            **{k: v for k, v in likelihood_inputs.items() if k in ("input_ids", "attention_mask")},
            max_new_tokens=3,
        ).shape[0]
        == 1
    )
    again, processor = result.load_model()
    assert type(again) is type(plain)
    assert type(processor).__name__ == type(load_processor(str(model))).__name__


def test_plain_prompts_of_paligemma(own_cache, tmp_path):
    model = tiny_vision.save_tiny("paligemma", tmp_path / "model")
    rows = rows_of(tmp_path)
    for row in rows:
        row |= {"prompt": "what is this ?", "chosen": "a red cat", "rejected": "no dog"}
    train("dpo", model, written(tmp_path, rows), tmp_path / "run")
    assert moved(model, tmp_path / "run" / "model") == {"language_model", "projector"}


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"freeze": []}, {"language_model", "projector", "vision_tower"}),
        ({"freeze": ["vision_tower", "language_model"]}, {"projector"}),
    ],
)
def test_parts_that_are_frozen_stay_as_they_are(options, parts, llava, own_cache, tmp_path):
    train("dpo", llava, written(tmp_path, rows_of(tmp_path)), tmp_path / "run", **options)
    assert moved(llava, tmp_path / "run" / "model") == parts


def test_nothing_to_train(llava, own_cache, tmp_path):
    with pytest.raises(ConfigError, match="freeze names every part"):
        train(
            "dpo", llava, written(tmp_path, rows_of(tmp_path)), tmp_path / "run",
            freeze=["vision_tower", "projector", "language_model"],
        )  # fmt: skip


def adapted(folder: Path) -> set[str]:
    held = load_file(folder / "adapter_model.safetensors")
    return {part_of(name) for name in held}


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({}, {"language_model"}),
        ({"lora_parts": ["language_model", "projector"]}, {"language_model", "projector"}),
        ({"lora_parts": ["vision_tower"], "lora_target_modules": ["q_proj"]}, {"vision_tower"}),
    ],
)
def test_adapters_are_put_on_the_parts_that_are_named(options, parts, llava, own_cache, tmp_path):
    train(
        "dpo",
        llava,
        written(tmp_path, rows_of(tmp_path)),
        tmp_path / "run",
        use_peft=True,
        lora_r=2,
        **options,
    )
    assert adapted(tmp_path / "run" / "model") == parts


def test_other_kinds_and_whole_modules(llava, own_cache, tmp_path):
    """Layers are chosen by part for every kind; a projector that is trained whole is saved, merged, and not cached."""
    data = written(tmp_path, rows_of(tmp_path))
    given = {"use_peft": True, "lora_modules_to_save": ["multi_modal_projector"], "learning_rate": 1e-2}
    given["peft"] = {"peft_type": "VERA", "r": 8}
    result = train("dpo", llava, data, tmp_path / "run", **given)
    assert adapted(result.model_dir) == {"language_model", "projector"}
    checks = {c["name"]: c["status"] for c in record(result.output_dir, "manifest")["checks"]}
    assert checks["start value"] == "pass"
    merged = prefopt.merge(result.output_dir)
    assert merged.difference < 1e-4
    assert moved(llava, merged.folder) == {"language_model", "projector"}
    with pytest.raises(
        ConfigError, match=r"projector\S* would be trained: leave it out of lora_modules_to_save"
    ):
        train("dpo", llava, data, tmp_path / "kept", cache_vision_features=True, **given)
    for more, words in (
        ({"layers_to_transform": [0]}, "name them in lora_target_modules by the ends of their paths"),
        ({"peft_type": "LN_TUNING"}, "adapts no linear layers, which lora_parts chooses"),
    ):
        with pytest.raises(ConfigError, match=words):
            train("dpo", llava, data, tmp_path / "refused", use_peft=True, peft=more)


def test_a_part_without_such_layers(llava, own_cache, tmp_path):
    with pytest.raises(ConfigError, match=r"no linear layer of projector is called.*linear_1, linear_2"):
        train(
            "dpo", llava, written(tmp_path, rows_of(tmp_path)), tmp_path / "run",
            use_peft=True, lora_parts=["projector"], lora_target_modules=["q_proj"],
        )  # fmt: skip


def test_rows_of_text_alone(llava, own_cache, tmp_path):
    rows = [
        {
            "prompt": [{"role": "user", "content": "what is this ?"}],
            "chosen": said("a cat"),
            "rejected": said("no dog"),
        }
        for _ in range(4)
    ]
    result = train("dpo", llava, written(tmp_path, rows), tmp_path / "run")
    assert moved(llava, result.output_dir / "model") == {"language_model"}


@pytest.mark.parametrize(
    "method", ["dpo_rk", "kto", "ipo", "simpo", "0.8*dpo+0.2*bco_pair+sft", "wpo", "ld_dpo"]
)
def test_objectives_of_text_see_pictures(method, llava, own_cache, tmp_path):
    rows = rows_of(tmp_path)
    if method == "dpo_rk":
        rows[0]["label"] = "tie"
    train(method, llava, written(tmp_path, rows), tmp_path / "run")
    assert "language_model" in moved(llava, tmp_path / "run" / "model")


def test_cached_and_live_references_are_one(llava, own_cache, tmp_path):
    data = written(tmp_path, rows_of(tmp_path))
    losses: dict[str, Any] = {
        kind: column(train("dpo", llava, data, tmp_path / kind, reference=kind, max_steps=4), "loss")
        for kind in ("cached", "live")
    }
    assert losses["cached"] == pytest.approx(losses["live"], abs=1e-6)
    forecast = {
        part["part"]: part["bytes"] for part in record(tmp_path / "live", "manifest")["memory_forecast"]
    }
    assert forecast["activations"] > 10_000


@pytest.mark.parametrize("name", ["llava", "qwen3_vl", "internvl", "gemma3"])
def test_features_on_disk_give_the_same_run(name, own_cache, tmp_path, monkeypatch):
    model = tiny_vision.save_tiny(name, tmp_path / "model")
    data = written(tmp_path, rows_of(tmp_path))
    frozen = {"freeze": ["vision_tower", "projector"], "max_steps": 3}
    plain = train("dpo", model, data, tmp_path / "plain", **frozen)
    kept = train("dpo", model, data, tmp_path / "kept", cache_vision_features=True, **frozen)
    assert column(kept, "loss") == pytest.approx(column(plain, "loss"), abs=1e-5)
    assert (
        note(kept.output_dir, "vision features") == "4 of 4 pictures or clips encoded, the others were there"
    )
    from prefopt.modalities.vision_language.feature_cache import FeatureCache

    def never(*args: Any) -> Any:
        raise AssertionError("encoded again")

    encoded = FeatureCache.encoded
    calls: list[Any] = []
    monkeypatch.setattr(FeatureCache, "encoded", lambda self, unit: calls.append(unit) or encoded(self, unit))
    train("dpo", model, data, tmp_path / "again", cache_vision_features=True, **frozen)
    assert len(calls) == 1  # to learn in which form the model wants them


def test_features_are_those_of_the_model_s_own_tower(llava, own_cache, tmp_path):
    from transformers import AutoModelForImageTextToText

    data = written(tmp_path, rows_of(tmp_path))
    frozen = {"freeze": ["vision_tower", "projector"], "max_steps": 1, "cache_vision_features": True}
    train("dpo", llava, data, tmp_path / "first", **frozen)
    other = tiny_vision.save_tiny("llava", tmp_path / "other")
    changed = AutoModelForImageTextToText.from_pretrained(other)
    with torch.no_grad():
        next(changed.model.vision_tower.parameters()).mul_(-1)
    changed.save_pretrained(other)
    result = train("dpo", other, data, tmp_path / "second", **frozen)
    assert note(result.output_dir, "vision features").startswith("4 of 4")


def test_features_of_what_is_trained_are_not_kept(llava, own_cache, tmp_path):
    with pytest.raises(ConfigError, match=r"projector would be trained: set freeze="):
        train(
            "dpo", llava, written(tmp_path, rows_of(tmp_path)), tmp_path / "run", cache_vision_features=True
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
def test_adapters_on_a_quantized_base(name, own_cache, tmp_path):
    model = tiny_vision.save_tiny(name, tmp_path / "model")
    data = written(tmp_path, rows_of(tmp_path))
    result = train(
        "dpo",
        model,
        data,
        tmp_path / "run",
        use_peft=True,
        lora_r=2,
        load_in_4bit=True,
        max_steps=8,
        learning_rate=1e-2,
    )
    assert adapted(result.output_dir / "model") == {"language_model"}
    margins = column(result, "rewards/margins")
    assert margins[-1] > margins[0] + 0.01


def test_a_template_in_the_processor_s_own_file(own_cache, tmp_path):
    """As llava-hf publishes LLaVA-1.5: the tokenizer has none."""
    from transformers import AutoProcessor

    model = tiny_vision.save_tiny("llava", tmp_path / "model")
    template = (model / "chat_template.jinja").read_text()
    (model / "chat_template.jinja").unlink()
    (model / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    train("dpo", model, written(tmp_path, rows_of(tmp_path)), tmp_path / "run")
    saved = tmp_path / "run" / "model"
    assert AutoProcessor.from_pretrained(saved).chat_template == template
    assert (saved / "chat_template.json").read_bytes() == (model / "chat_template.json").read_bytes()
    assert not (saved / "chat_template.jinja").exists()


def test_prompts_of_rows_that_no_run_can_use_are_still_answered(llava, own_cache, tmp_path):
    """Samples are asked of every held-out prompt, also of one whose row was dropped; its features are on no disk."""
    rows = rows_of(tmp_path, 3)
    rows[2]["rejected"] = said(" ".join(tiny_vision.WORDS * 3))
    rows[2]["chosen"] = said(" ".join([*tiny_vision.WORDS * 3, "cat"]))
    held_out = tmp_path / "held-out"
    held_out.mkdir()
    asked = rows_of(held_out, 2)
    asked[1] |= {name: rows[2][name] for name in ("chosen", "rejected")}
    result = train(
        "dpo", llava, written(tmp_path, rows[:2]), tmp_path / "run", eval_data=str(written(held_out, asked)), max_length=64,
        freeze=["vision_tower", "projector"], cache_vision_features=True, sample_prompts=2, sample_max_new_tokens=2,
    )  # fmt: skip
    assert len(record(result.output_dir, "samples")["prompts"]) == 2
