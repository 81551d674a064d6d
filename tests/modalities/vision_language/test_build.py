"""`prefopt build contrast`, mode by mode: the right picture, the right answer, or a reason."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import transformers
from click.testing import CliRunner
from PIL import Image, ImageOps

from modalities.image.image_runs import picture, png, rotten
from modalities.vision_language.building.build_runs import (
    FUNCTIONS,
    TWO_PICTURES,
    build,
    built,
    calls,
    contents,
    noisy,
    opened,
    read,
    reasons,
    reds,
    row,
    spec,
)
from modalities.vision_language.building.scribe import scribe
from prefopt.cli.main import main
from prefopt.modalities.vision_language import build as command
from prefopt.modalities.vision_language.building import modes
from prefopt.modalities.vision_language.contrasts import Picture, alpha_bar
from prefopt.modalities.vision_language.rows import Wanted, load_pictured
from prefopt.sources.pictures import ImageRef


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFOPT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def functions(tmp_path: Path) -> str:
    path = tmp_path / "functions.py"
    path.write_text(FUNCTIONS.format(calls=str(tmp_path / "calls")))
    return f"{path}:"


# -- changes of pixels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["black", "crop", "mask"])
def test_changed_pixels_are_those_of_training_and_the_answer_is_given(tmp_path, mode):
    rows = built(tmp_path, noisy(tmp_path), mode, "--answer", "I cannot see that.", "--seed", 5)
    assert [found["id"] for found in rows] == ["r0", "r1", "r2", "r3"]
    for n, found in enumerate(rows):
        own = Picture(ImageRef(png(picture(n))), mode, 5)
        assert opened(tmp_path, found).tobytes() == own.image().tobytes()
        assert found["chosen"][0]["content"] == f"right {n}"
        assert found["contrast_chosen"] == [{"role": "assistant", "content": "I cannot see that."}]
        assert opened(tmp_path, found, "images").tobytes() == picture(n).tobytes()
        assert found["images"] == [f"../noise-{n}.png"]
        assert found["meta"] == {"contrast": mode}
    assert len({found["contrast_images"][0] for found in rows}) == 4


def test_noise_is_that_of_normalised_pixels_in_eight_bits(tmp_path):
    Image.new("RGB", (120, 100), (128, 128, 128)).save(tmp_path / "grey.png")
    (found,) = built(tmp_path, [row(0, "grey.png")], "noise", "--answer", "no")
    made = np.asarray(opened(tmp_path, found), float).reshape(-1, 3) / 255
    mean, std = np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])
    kept = alpha_bar(500)
    expected = math.sqrt(kept) * (128 / 255 - mean) + mean
    assert made.mean(0) == pytest.approx(expected, abs=0.01)
    assert made.std(0) == pytest.approx(math.sqrt(1 - kept) * std, abs=0.01)
    assert "contrast_image=noise" in json.loads((tmp_path / "out" / "build.json").read_text())["note"]


@pytest.mark.parametrize("mode", ["crop", "noise", "mask", "shuffle"])
def test_the_same_seed_makes_the_same_files_and_another_seed_others(tmp_path, mode):
    rows = noisy(tmp_path, 8)
    answer = [] if mode == "shuffle" else ["--answer", "no"]
    for output, seed in (("out", 1), ("again", 1), ("other", 2)):
        built(tmp_path, rows, mode, *answer, "--seed", seed, output=output)
    out, again, other = (contents(tmp_path / name) for name in ("out", "again", "other"))
    assert {k: v for k, v in out.items() if k != "build.json"} == {
        k: v for k, v in again.items() if k != "build.json"
    }
    assert out["rows.jsonl"] != other["rows.jsonl"]


def test_all_pictures_of_a_row_are_changed_and_bytes_become_files(tmp_path):
    rows = [{"id": "a", "images": [png(picture(0), format="JPEG"), png(picture(1))], "prompt": "<image> and <image> ?",
             "chosen": "a", "rejected": "b", "contrast_chosen": "c", "contrast_rejected": "d"}]  # fmt: skip
    import datasets

    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "data.parquet")
    done = CliRunner().invoke(
        main,
        ["build", "contrast", str(tmp_path / "data.parquet"), "--mode", "mask", "-o", str(tmp_path / "out")],
    )
    assert done.exit_code == 0, done.output
    (found,) = read(tmp_path / "out")
    assert [Path(name).suffix for name in found["images"]] == [".jpg", ".png"]
    assert (tmp_path / "out" / found["images"][0]).read_bytes() == rows[0]["images"][0]
    assert len(set(found["contrast_images"])) == 2
    assert (found["prompt"], found["contrast_chosen"], found["contrast_rejected"]) == (
        "<image> and <image> ?",
        "c",
        "d",
    )
    (example,) = load_pictured(str(tmp_path / "out" / "rows.jsonl"), wanted=TWO_PICTURES)
    assert len(example.items[2].condition["pictures"]) == 2


def test_the_rows_own_answer_never_stands_in(tmp_path):
    done = build(tmp_path, noisy(tmp_path), "black")
    assert done.exit_code == 1
    assert "must not stand in" in done.output
    assert set(reasons(tmp_path).values()) == {"no_contrast_chosen"}
    assert not (tmp_path / "out" / "rows.jsonl").exists()


def test_rows_that_would_teach_nothing_are_left_out(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "black.png")
    rows = [
        row(0, "black.png"),
        *noisy(tmp_path, 1),
        row(2, "noise-0.png", chosen=[{"role": "assistant", "content": "no"}]),
        row(3, "gone.png"),
    ]
    assert [found["id"] for found in built(tmp_path, rows, "black", "--answer", "no")] == ["r0#2"]
    assert reasons(tmp_path) == {"r0": "identical_images", "r2": "identical_answers", "r3": "missing_image"}


def test_a_column_counts_unless_it_belongs_to_a_contrast_of_its_own(tmp_path):
    rows = noisy(tmp_path, 2, contrast_chosen="blank")
    rows[1]["contrast_image"] = "noise-0.png"
    assert [found["contrast_chosen"][0]["content"] for found in built(tmp_path, rows, "black")] == ["blank"]
    assert reasons(tmp_path) == {"r1": "no_contrast_chosen"}


def test_a_row_without_a_worse_answer_is_kept_and_counted(tmp_path):
    rows = noisy(tmp_path, 2)
    del rows[1]["rejected"]
    done = build(tmp_path, rows, "black", "--answer", "no")
    assert "1 rows have no rejected answer" in done.output
    assert "rejected" not in read(tmp_path / "out")[1]
    wanted = Wanted(TWO_PICTURES.branches, reads_loser=False)
    assert len(load_pictured(str(tmp_path / "out" / "rows.jsonl"), wanted=wanted)) == 2


# -- pictures of other rows ----------------------------------------------------------------------------------


def test_the_most_similar_other_picture_and_its_rows_answers(tmp_path, functions):
    # at 3 radians for 255: neighbours of 0, 60, 120, 255 are 60, 0 or 120, 60, nobody
    rows = reds(tmp_path, [0, 60, 130, 255])
    rows[1]["source"] = "vqa"
    found = built(tmp_path, rows, "similar", "--embedder", f"{functions}colours")
    pairs = {one["id"]: one["contrast_images"][0] for one in found}
    assert pairs == {"r0": "../red-1.png", "r1": "../red-0.png", "r2": "../red-1.png"}
    assert reasons(tmp_path) == {"r3": "no_neighbour"}
    assert [one["contrast_chosen"][0]["content"] for one in found] == ["right 1", "right 0", "right 1"]
    assert [one["contrast_rejected"][0]["content"] for one in found] == ["wrong 1", "wrong 0", "wrong 1"]
    assert found[0]["meta"]["similarity"] == pytest.approx(math.cos(60 / 255 * 3), abs=1e-5)
    assert found[1]["meta"] == {
        "contrast": "similar",
        "source": "vqa",
        "similarity": found[0]["meta"]["similarity"],
    }
    told = json.loads((tmp_path / "out" / "build.json").read_text())
    assert (told["kept"], told["rows"], told["dropped"]) == (3, 4, {"no_neighbour": 1})


def test_copies_and_near_copies_are_passed_over(tmp_path, functions):
    rows = reds(tmp_path, [0, 60, 62, 120])
    (tmp_path / "red-3.png").write_bytes((tmp_path / "red-1.png").read_bytes())
    found = built(tmp_path, rows, "similar", "--embedder", f"{functions}colours")
    assert [one["contrast_images"][0] for one in found] == [
        "../red-1.png",
        "../red-0.png",
        "../red-0.png",
        "../red-0.png",
    ]
    near = built(tmp_path, rows, "similar", "--embedder", f"{functions}colours", "--max_similarity", 1)
    assert near[1]["contrast_images"] == ["../red-2.png"]


def test_pictures_of_the_same_objects_do_not_contrast(tmp_path, functions):
    rows = reds(tmp_path, [0, 60, 110])
    for one, objects in zip(rows, (["cat", "dog"], ["Dog", "cat"], ["cat"]), strict=True):
        one["objects"] = objects
    found = built(tmp_path, rows, "similar", "--embedder", f"{functions}colours", "--min_similarity", -1)
    assert [one["contrast_images"][0] for one in found] == ["../red-2.png", "../red-2.png", "../red-1.png"]


def test_an_answer_to_another_question_is_not_taken(tmp_path, functions):
    rows = reds(tmp_path, [0, 60, 130])
    rows[0]["prompt"] = [{"role": "user", "content": "what else ?"}]
    found = built(tmp_path, rows, "similar", "--embedder", f"{functions}colours")
    assert reasons(tmp_path) == {"r0": "no_contrast_chosen", "r1": "no_contrast_chosen"}
    assert [(one["id"], one["contrast_chosen"][0]["content"]) for one in found] == [("r2", "right 1")]


def test_embeddings_are_computed_once_a_picture_and_file(tmp_path, functions):
    rows = reds(tmp_path, [0, 60, 120])
    for output in ("out", "again"):
        built(
            tmp_path,
            [*rows, row(9, "red-0.png")],
            "similar",
            "--embedder",
            f"{functions}colours",
            output=output,
        )
    assert calls(tmp_path) == 3
    file = Path(functions[:-1])
    file.write_text(file.read_text() + "\n# changed\n")
    built(tmp_path, rows, "similar", "--embedder", f"{functions}colours", output="third")
    assert calls(tmp_path) == 6


def test_a_picture_that_is_damaged_in_its_middle_is_dropped_alone(tmp_path, functions):
    rows = [*reds(tmp_path, [0, 60, 120]), row(7, "rotten.png")]
    (tmp_path / "rotten.png").write_bytes(rotten(png(picture(0))))
    assert len(built(tmp_path, rows, "similar", "--embedder", f"{functions}colours")) == 3
    assert reasons(tmp_path) == {"r7": "broken_image"}


@pytest.mark.parametrize("kind", ["clip", "siglip", "dinov2", "clip_vision"])
def test_a_vision_model_embeds_through_its_image_tower(tmp_path, kind):
    t = transformers
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**sizes, "image_size": 32, "patch_size": 8}
    text = {**sizes, "vocab_size": 10}
    clip = t.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    made = {
        "clip": (t.CLIPModel, t.CLIPConfig(vision_config=vision, text_config=text, projection_dim=8), clip),
        "siglip": (t.SiglipModel, t.SiglipConfig(vision_config=vision, text_config=text), clip),
        "dinov2": (t.Dinov2Model, t.Dinov2Config(**{**vision, "patch_size": 16}), clip),
        "clip_vision": (t.CLIPVisionModel, t.CLIPVisionConfig(**vision), clip),
    }  # fmt: skip
    cls, config, processor = made[kind]
    cls(config).save_pretrained(tmp_path / "tower")
    processor.save_pretrained(tmp_path / "tower")
    rows = noisy(tmp_path, 3)
    found = built(
        tmp_path,
        rows,
        "similar",
        "--embedder",
        tmp_path / "tower",
        "--max_similarity",
        1,
        "--min_similarity",
        -1,
    )
    model = cls.from_pretrained(tmp_path / "tower").eval()
    inputs = processor(images=[picture(n) for n in range(3)], return_tensors="pt")
    out = getattr(model, "get_image_features", model)(**inputs)
    vectors = (out if not hasattr(out, "pooler_output") else out.pooler_output).detach().numpy()
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = vectors @ vectors.T - 9 * np.eye(3)
    assert [one["contrast_images"][0] for one in found] == [f"../noise-{n}.png" for n in cosine.argmax(1)]
    assert found[0]["meta"]["similarity"] == pytest.approx(cosine[0].max(), abs=1e-5)


def test_shuffled_pictures_are_all_others(tmp_path):
    rows = [*noisy(tmp_path, 7), row(7, "noise-3.png")]
    found = built(tmp_path, rows, "shuffle", "--seed", 2)
    assert len(found) == 8
    used = [one["contrast_images"][0] for one in found]
    assert all(one["images"] != one["contrast_images"] for one in found)
    assert sorted(used[:7]) == sorted(f"../noise-{n}.png" for n in range(7))
    assert used[7] == used[3]
    for one in found:
        n = one["contrast_images"][0].removeprefix("../noise-").removesuffix(".png")
        assert one["contrast_chosen"][0]["content"] == f"right {n}"


def test_one_picture_has_no_other(tmp_path):
    done = build(tmp_path, noisy(tmp_path, 1), "shuffle")
    assert "needs two" in done.output


# -- edits ---------------------------------------------------------------------------------------------------


def test_an_edit_brings_picture_and_answer(tmp_path, functions):
    rows = noisy(tmp_path, 3)
    rows[1]["prompt"][0]["content"] = "skip this ?"
    rows[2]["prompt"][0]["content"] = "silent ?"
    found = built(tmp_path, rows, "edit", "--edit", f"{functions}inverted")
    assert [one["id"] for one in found] == ["r0"]
    assert opened(tmp_path, found[0]).tobytes() == ImageOps.invert(picture(0)).tobytes()
    assert found[0]["contrast_chosen"] == [{"role": "assistant", "content": "not right 0"}]
    assert reasons(tmp_path) == {"r1": "no_edit", "r2": "no_contrast_chosen"}


def test_edits_are_kept_and_not_asked_for_again(tmp_path, functions):
    rows = noisy(tmp_path, 3)
    built(tmp_path, rows[:2], "edit", "--edit", f"{functions}inverted")
    (tmp_path / "out" / "rows.jsonl").unlink()
    assert len(built(tmp_path, rows, "edit", "--edit", f"{functions}inverted")) == 3
    assert calls(tmp_path) == 3
    next((tmp_path / "out" / "pictures").iterdir()).unlink()
    built(tmp_path, rows, "edit", "--edit", f"{functions}inverted")
    assert calls(tmp_path) == 4
    file = Path(functions[:-1])
    file.write_text(file.read_text() + "\n# changed\n")
    assert (
        "edits.journal.jsonl was begun with"
        in build(tmp_path, rows, "edit", "--edit", f"{functions}inverted").output
    )


def test_an_edit_that_changes_nothing_is_no_contrast(tmp_path, functions):
    assert build(tmp_path, noisy(tmp_path, 2), "edit", "--edit", f"{functions}same").exit_code == 1
    assert set(reasons(tmp_path).values()) == {"identical_images"}


# -- what means nothing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "options", "said"),
    [
        ("similar", [], "--mode similar needs --embedder"),
        ("edit", [], "--mode edit needs --edit"),
        ("shuffle", ["--answer", "no"], "--answer means nothing with --mode shuffle: it is for black, crop, noise, mask"),
        ("black", ["--embedder", "x"], "--embedder means nothing with --mode black"),
        ("black", ["--answer", " "], "--answer is empty"),
        ("similar", ["--embedder", "x", "--min_similarity", "0.99"], "nothing lies between"),
        ("black", ["--captioner", "x"], "--captioner needs --answerer and --rewriter too"),
        ("black", ["--samples", "3"], "--samples means nothing without --captioner"),
        ("similar", ["--embedder", "nowhere"], "nowhere"),
        ("similar", ["--embedder", "{functions}zeros"], "returns zeros"),
        ("similar", ["--embedder", "{functions}wrong"], "returns (3,) for 3 images"),
        ("similar", ["--embedder", "{functions}NUMBER"], "is a int and no function"),
        ("similar", ["--embedder", "{functions}absent"], "has no function 'absent'"),
        ("edit", ["--edit", "{functions}failing"], "failed on row 'r0': KeyError"),
        ("edit", ["--edit", "{functions}zeros"], "failed on row 'r0': TypeError"),
        ("black", [*spec("ftp://x")], "needed openai:MODEL@URL"),
        ("black", ["--captioner", "nowhere", "--answerer", "nowhere", "--rewriter", "nowhere"], "--captioner nowhere"),
        ("black", [*spec("http://127.0.0.1:9/v1")], "no server answers at http://127.0.0.1:9/v1"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_said_in_a_sentence(tmp_path, functions, mode, options, said):
    done = build(
        tmp_path, noisy(tmp_path, 3), mode, *(option.format(functions=functions) for option in options)
    )
    assert done.exit_code == 1
    assert said in done.output


def test_the_commands_modes_are_those_there_are():
    assert set(command.MODES) == set(modes.MODES)
    assert set(command.PIXELS) == set(modes.PIXEL_CHANGES)


def test_answers_that_are_there_are_not_written_again(tmp_path, functions):
    rows = reds(tmp_path, [0, 60, 130])
    rows[0]["prompt"] = [{"role": "user", "content": "what else ?"}]
    with scribe() as server:
        found = built(
            tmp_path, rows, "similar", "--embedder", f"{functions}colours", *spec(server.url), "--samples", 16,
        )  # fmt: skip
    assert [one["chosen"][0]["content"] for one in found] == ["right 0", "right 1", "right 2"]
    assert found[2]["contrast_chosen"][0]["content"] == "right 1"
    assert found[0]["contrast_chosen"][0]["content"].startswith("I see: It is ")
