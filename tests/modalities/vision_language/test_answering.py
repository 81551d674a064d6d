"""A model that answers: against `generate` of transformers, through the command line, whatever company a question is in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModelForImageTextToText, GenerationMixin

import tiny_vision
from modalities.image.image_runs import picture, png
from modalities.vision_language.vision_runs import rows_of, train, written
from prefopt.cli.main import main
from prefopt.modalities.vision_language.answering import check_beams, load_answerer
from prefopt.modalities.vision_language.processor import load_processor
from prefopt.modalities.vision_language.requests import Request
from prefopt.sources.pictures import ImageRef

IMAGES = [ImageRef(png(picture(k))) for k in range(3)]
QUESTIONS = [
    Request([IMAGES[0]], "what is in this picture ?"),
    Request([IMAGES[1]], "describe the cat"),
    Request([], "what is a cat ?"),
    Request([IMAGES[2]], "what"),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: tiny_vision.save_tiny(name, folder / name) for name in ("llava", "qwen2_5_vl", "idefics3")}


def answerer(model: Path, **how: Any) -> Any:
    given = {"max_new_tokens": 6, "temperature": 0.0, "num_beams": 1, "seed": 0, "batch_size": 4}
    return load_answerer(str(model), **{**given, **how})


def plain(folder: Path, request: Request, **how: Any) -> str:
    """What transformers makes of one question."""
    processor = load_processor(str(folder))
    blocks = [{"type": "image"}] * len(request.images) + [{"type": "text", "text": request.prompt}]
    text = processor.tokenizer.apply_chat_template(
        [{"role": "user", "content": blocks}], tokenize=False, add_generation_prompt=True
    )
    images = [picture(IMAGES.index(ref)) for ref in request.images]
    given = {"images": [images]} if images else {}
    inputs = processor(text=[text], return_tensors="pt", add_special_tokens=False, **given)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    with torch.no_grad():
        whole = model.generate(**inputs, max_new_tokens=6, do_sample=False, **how)
    found: str = processor.tokenizer.decode(
        whole[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True
    )
    return found.strip()


@pytest.mark.parametrize("kind", ["llava", "qwen2_5_vl", "idefics3"])
@pytest.mark.parametrize("beams", [1, 3])
def test_answers_are_those_of_plain_transformers_one_by_one(models, kind, beams):
    found = answerer(models[kind], num_beams=beams)(QUESTIONS)
    assert found == [plain(models[kind], request, num_beams=beams) for request in QUESTIONS]
    assert len(set(found)) > 1


def test_draws_follow_from_seed_and_content_alone(models):
    draw = answerer(models["llava"], temperature=1.0, seed=3)
    found = draw(QUESTIONS)
    assert [draw([request])[0] for request in reversed(QUESTIONS)] == found[::-1]
    assert draw([QUESTIONS[0], QUESTIONS[0]]) == [found[0]] * 2
    assert answerer(models["llava"], temperature=1.0, seed=4)(QUESTIONS) != found


def test_a_model_without_a_template_continues_the_placeholder_and_the_words(models, tmp_path):
    import shutil

    bare = shutil.copytree(models["llava"], tmp_path / "bare")
    for file in bare.glob("chat_template*"):
        file.unlink()
    settings = json.loads((bare / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (bare / "tokenizer_config.json").write_text(json.dumps(settings))
    processor = load_processor(str(bare))
    assert not processor.tokenizer.chat_template
    inputs = processor(text=["<image>\ndescribe the cat"], images=[[picture(1)]], return_tensors="pt")
    model = AutoModelForImageTextToText.from_pretrained(bare)
    whole = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    expected = processor.tokenizer.decode(whole[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert answerer(bare)([QUESTIONS[1]]) == [expected.strip()]


def test_several_images_keep_their_order_through_beams(models):
    two = [
        Request([IMAGES[0], IMAGES[1]], "what is this ?"),
        Request([IMAGES[1], IMAGES[0]], "what is this ?"),
    ]
    for kind in ("llava", "qwen2_5_vl"):
        found = answerer(models[kind], num_beams=2)(two)
        assert found == [plain(models[kind], request, num_beams=2) for request in two]


def test_several_images_are_refused_where_beams_would_mix_them_up():
    class Older(GenerationMixin):
        def forward(self, input_ids, pixel_values):
            raise NotImplementedError

    class Sorting(Older):
        def _expand_inputs_for_generation(self, **given):
            raise NotImplementedError

    check_beams(Older(), [Request([IMAGES[0]], "what ?")])
    check_beams(Sorting(), [Request(IMAGES[:2], "what ?")])
    with pytest.raises(ValueError, match=r"Older cannot search with beams .* set num_beams=1"):
        check_beams(Older(), [Request(IMAGES[:2], "what ?")])


def test_beams_and_draws_contradict_each_other_before_anything_is_loaded(tmp_path):
    with pytest.raises(ValueError, match="num_beams=2 finds the likeliest"):
        answerer(tmp_path / "nowhere", num_beams=2, temperature=0.5)


@pytest.fixture
def pope(tmp_path: Path) -> list[str]:
    """Options of a benchmark of four questions."""
    for n in range(2):
        (tmp_path / f"{n}.png").write_bytes(png(picture(n)))
    questions = [
        {"question_id": n, "image": f"{n % 2}.png", "text": f"is {tiny_vision.WORDS[n]} in this picture ?", "label": "yes"}
        for n in range(4)
    ]  # fmt: skip
    (tmp_path / "q.json").write_text("".join(json.dumps(one) + "\n" for one in questions))
    return ["--benchmark", "pope", "--questions", str(tmp_path / "q.json"), "--images", str(tmp_path)]


def test_a_benchmark_is_answered_through_the_command_line(models, pope, tmp_path):
    command = [
        "evaluate",
        str(models["llava"]),
        *pope,
        "--output",
        str(tmp_path / "out"),
        "--max_new_tokens",
        "5",
    ]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    answers = [json.loads(line) for line in (tmp_path / "out" / "answers.jsonl").read_text().splitlines()]
    asked = [Request([IMAGES[n % 2]], f"is {tiny_vision.WORDS[n]} in this picture ?") for n in range(4)]
    assert [row["answer"] for row in answers] == answerer(models["llava"], max_new_tokens=5)(asked)
    told = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert told["questions"] == 4
    journal = (tmp_path / "out" / "answers.journal.jsonl").read_bytes()
    again = CliRunner().invoke(main, command)
    assert again.exit_code == 0, again.output
    assert (tmp_path / "out" / "answers.journal.jsonl").read_bytes() == journal


def test_the_adapters_of_a_run_answer(models, tmp_path):
    data = written(tmp_path, rows_of(tmp_path))
    train("dpo", models["llava"], data, tmp_path / "run", use_peft=True, lora_r=2, learning_rate=0.5)
    assert (tmp_path / "run" / "model" / "adapter_config.json").exists()
    questions = [QUESTIONS[0], QUESTIONS[1]]
    assert answerer(tmp_path / "run" / "model")(questions) != answerer(models["llava"])(questions)
