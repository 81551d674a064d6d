"""What a run's record and page show of pictures."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import prefopt
import tiny_vision
from modalities.image.image_runs import lines, picture, record
from modalities.vision_language.vision_runs import rows_of, train, written
from prefopt.modalities.vision_language.setup import marker_of, shortened
from prefopt.report.samples import pieces_of


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    folder = tmp_path_factory.mktemp("run")
    model = tiny_vision.save_tiny("llava", folder / "model")
    asked: list[Any] = []

    def reward(condition: Any, text: str) -> float:
        asked.append((condition, text))
        return 0.5

    result = train(
        "symmpo", model, written(folder, rows_of(folder)), folder / "run",
        sample_prompts=2, sample_max_new_tokens=3, max_steps=4, reward=reward,
    )  # fmt: skip
    return result.output_dir, asked


def test_samples_hold_the_pictures_of_their_prompts(run):
    folder, asked = run
    first, second = record(folder, "samples")["prompts"]
    assert first["prompt"] == "[image]what is in picture what ?"
    (path,) = first["generations"][0]["pictures"]
    assert np.array_equal(np.array(Image.open(folder / path)), np.array(picture(0)))
    assert second["generations"][0]["pictures"] != [path]
    condition, text = asked[0]
    assert np.array_equal(np.array(condition["pictures"][0].image()), np.array(picture(0)))
    assert isinstance(text, str)
    assert first["generations"][0]["score"] == 0.5


def test_the_first_pair_is_shown_with_both_images(run):
    folder, _ = run
    pair = record(folder, "first_pair")
    assert [one["name"] for one in pair["pictures"]] == ["image", "image of cc"]
    segment = pair["sides"][0]["segments"][0]["text"]
    assert "[image: 16 tokens]" in segment
    assert "<image>" not in segment


def test_the_page(run):
    folder, _ = run
    page = (folder / "report.html").read_text()
    assert len(re.findall(r'<img src="data:image/png', page)) >= 4
    for title in (
        "Margins of the two right answers",
        "Gap between them",
        "Right answer under the contrast image",
    ):
        assert title in page
    assert "AutoModelForImageTextToText" in page
    assert "AutoModelForImageTextToText" in (folder / "README.md").read_text()
    assert "symmpo/margin_gap" in lines(folder)[-1] or any(
        "symmpo/margin_gap" in line for line in lines(folder)
    )


def test_what_is_wrong_in_an_answer_is_marked(run):
    folder, _ = run
    file = folder / "record" / "samples.json"
    kept = file.read_text()
    told = json.loads(kept)
    told["prompts"][0]["generations"][0] |= {"text": "a red cat", "marks": [[2, 5, "not in the picture"]]}
    file.write_text(json.dumps(told))
    prefopt_report(folder)
    assert '<mark class="wrong" title="not in the picture">red</mark>' in (folder / "report.html").read_text()
    file.write_text(kept)


def prefopt_report(folder: Path) -> None:
    from click.testing import CliRunner

    from prefopt.cli.main import main

    done = CliRunner().invoke(main, ["report", str(folder)])
    assert done.exit_code == 0, done.output


def test_marks_that_are_none_are_left_out():
    assert pieces_of("abc", [[1, 9, "x"], [2, 1, "x"], "no", [0, 1]]) == [("abc", "")]
    assert pieces_of("abc", [[1, 2, "x"], [1, 3, "y"]]) == [("a", ""), ("b", "x"), ("c", "")]


def test_a_world_says_what_is_wrong():
    world = SimpleNamespace(
        hallucinated=lambda condition, text: [SimpleNamespace(start=0, end=len(text), object=1)]
    )
    marker = marker_of(world)
    assert marker is not None
    assert marker({"pictures": ()}, "blue plus") == [(0, 9, "not in the picture")]
    assert marker_of(SimpleNamespace()) is None
    assert marker_of(None) is None


def test_runs_of_image_tokens_are_told_by_their_length():
    pair = {"sides": [{"segments": [{"text": "a <i> <i> <i><i><i> b <i>"}]}]}
    assert shortened(pair, "<i>", "image")["sides"][0]["segments"][0]["text"] == "a [image: 5 tokens]b <i>"


def test_the_seed_draws_other_contrasts(own_cache, tmp_path):
    model = tiny_vision.save_tiny("llava", tmp_path / "model")
    rows = [{k: v for k, v in row.items() if not k.startswith("contrast")} for row in rows_of(tmp_path)]
    pictures = []
    for seed in (1, 2):
        result = prefopt.train(
            "mdpo", model=str(model), data=str(written(tmp_path, rows)), output_dir=str(tmp_path / f"run-{seed}"), seed=seed,
            max_steps=1, eval_size=0, sample_prompts=0, save_strategy="no", num_train_epochs=1,
        )  # fmt: skip
        shown = {one["name"]: one["path"] for one in record(result.output_dir, "first_pair")["pictures"]}
        pictures.append(Image.open(result.output_dir / shown["image of cw"]))
    assert all(one.size[0] < 42 for one in pictures)  # a crop, as mDPO's
    assert pictures[0].size != pictures[1].size or list(pictures[0].getdata()) != list(pictures[1].getdata())
