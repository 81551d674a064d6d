from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from modalities.image import synthetic_run
from prefopt.report import write_report
from prefopt.report.model_card import hub_card
from report.html_page import Page
from report.test_model_card import card, code, edit_manifest

ABSENT = [None, None]


@pytest.fixture
def offline(tmp_path: Path) -> Path:
    return synthetic_run.write_image_run(tmp_path / "pictures")


@pytest.fixture
def online(tmp_path: Path) -> Path:
    return synthetic_run.write_image_run(tmp_path / "steps", online=True)


def test_front_matter_and_content_of_a_pipeline(offline: Path) -> None:
    front, body = card(offline)
    assert (front["library_name"], front["pipeline_tag"]) == ("diffusers", "text-to-image")
    assert (front["base_model"], front["base_model_relation"]) == ("org/sd-1.5", "finetune")
    assert front["datasets"] == ["org/pick-pairs"]
    assert {"text-to-image", "diffusers", "diffusion_dpo", "arxiv:2311.12908"} <= set(front["tags"])
    assert "lora" not in front["tags"]
    assert "max_length" not in body, "it is a key of text models"
    for text in (
        "It is a whole pipeline, which plain diffusers loads.", "| Accuracy, held-out comparisons | 50.0% | 61.2%",
        "| Denoising error of chosen images, held-out | 0.1200 | 0.1201 |", "| Reward of sampled images | 20.40 |", "| Images | 11,378 |",
        "| `resolution` | 512 |", "| `guidance_scale` | 5 |", "| `effective batch size` | 64 |", "CVPR 2024. [arXiv 2311.12908]",
        "Both denoising errors rose above the reference's",
        f"| {synthetic_run.PROMPTS[0]} | ![before](record/images/step-000000-0.png) | ![after](record/images/step-000400-0.png) |",
    ):  # fmt: skip
        assert text in body, text
    assert "max_length" not in body


def test_the_card_on_the_hub_has_no_pictures_and_loads_by_its_id(offline: Path) -> None:
    text = hub_card(offline, "me/drawn")
    assert 'pipe = DiffusionPipeline.from_pretrained("me/drawn")' in text
    assert "record/" not in text
    assert "same noise" not in text


def test_the_card_does_not_speak_of_texts(offline: Path, online: Path) -> None:
    for run in (offline, online):
        _, body = card(run)
        assert not re.search(r"\b(tokens?|answers?|nats|verifier|tokenizer|log-prob\w*)\b", body, re.I)


def test_a_pipeline_is_loaded_by_diffusers(offline: Path) -> None:
    lines = code(card(offline)[1]).splitlines()
    assert 'pipe = DiffusionPipeline.from_pretrained("pictures/model")' in lines
    assert (
        'image = pipe("Your prompt", num_inference_steps=20, guidance_scale=5, height=512, width=512).images[0]'
        in lines
    )
    assert not any("lora" in line or "transformers" in line for line in lines)


def test_parts_that_a_pipeline_was_saved_without_are_named(offline: Path) -> None:
    index = {
        "_class_name": "StableDiffusion3Pipeline", "feature_extractor": ABSENT, "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
        "text_encoder_3": ABSENT, "tokenizer_3": ABSENT, "text_encoder_4) or evil(": ABSENT,
    }  # fmt: skip
    (offline / "model" / "model_index.json").write_text(json.dumps(index))
    assert (
        'pipe = DiffusionPipeline.from_pretrained("pictures/model", text_encoder_3=None, tokenizer_3=None)\n'
        in code(card(offline)[1])
    )


def test_a_lora_is_loaded_onto_its_base(online: Path, tmp_path: Path) -> None:
    front, body = card(online)
    assert (front["library_name"], front["base_model_relation"]) == ("diffusers", "adapter")
    assert "lora" in front["tags"]
    assert "This is a LoRA" in body
    assert 'from_pretrained("org/sd-1.5")\npipe.load_lora_weights("steps/model")\n' in code(body)
    base = tmp_path / "base"
    base.mkdir()
    (base / "model_index.json").write_text(json.dumps({"text_encoder_3": ABSENT, "tokenizer_3": ABSENT}))
    edit_manifest(online, model={"source": str(base)})
    assert f'from_pretrained("{base}", text_encoder_3=None, tokenizer_3=None)' in code(card(online)[1])


def test_a_base_from_a_world_is_fetched_from_it(online: Path) -> None:
    edit_manifest(online, model={"source": "world:picture"})
    text = code(card(online)[1])
    assert 'DiffusionPipeline.from_pretrained(get_world("picture").model_dir())' in text
    assert "from prefopt.worlds import get_world" in text


def test_a_method_that_samples_has_no_examples_but_prompts(online: Path) -> None:
    _, body = card(online)
    assert "| Comparisons | 3,998 prompts |" in body
    assert "Training examples" not in body
    assert "| Share of candidates' pairs that passed the judge's threshold |" in body
    assert "NeurIPS 2025. [OpenReview d6lIOnvOX2](https://openreview.net/forum?id=d6lIOnvOX2)" in body


def test_a_judge_is_loaded_by_prefopt_and_is_no_pipeline(offline: Path) -> None:
    edit_manifest(offline, model={"source": "org/sd-1.5", "class": "LatentRewardModel"})
    (offline / "model" / "model_index.json").unlink()
    front, body = card(offline)
    assert front["library_name"] == "prefopt"
    assert "pipeline_tag" not in front
    assert 'judge = LatentRewardModel.from_pretrained("pictures/model")' in code(body)


def test_images_that_are_not_there_are_not_linked(offline: Path) -> None:
    path = offline / "record" / "samples.json"
    samples: dict[str, Any] = json.loads(path.read_text())
    for prompt in samples["prompts"]:
        prompt["generations"][0]["image"] = "../secret.png"
        prompt["generations"][-1]["image"] = "record/images/nowhere.png"
    path.write_text(json.dumps(samples))
    body = card(offline)[1]
    assert "secret" not in body
    assert "nowhere" not in body


def test_page_and_card_give_the_same_code(offline: Path, online: Path) -> None:
    for run in (offline, online):
        page = Page(write_report(run).read_text("utf-8"))
        assert " ".join(code(card(run)[1]).split()) in page.text
