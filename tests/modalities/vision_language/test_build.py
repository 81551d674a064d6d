"""`prefopt build contrast` and `symmetric-pairs`, mode by mode: the right picture, the right answer, or a reason."""

from __future__ import annotations

import json
import math
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from click.testing import CliRunner
from PIL import Image, ImageOps

import prefopt
import tiny_vision
from modalities.image.image_runs import QUIET, picture, png, rotten
from modalities.vision_language.building.scribe import NAMES, scribe
from prefopt.cli.main import main
from prefopt.modalities.vision_language import build as command
from prefopt.modalities.vision_language.building import modes
from prefopt.modalities.vision_language.contrasts import Picture, alpha_bar
from prefopt.modalities.vision_language.rows import PAIRS, Wanted, load_pictured
from prefopt.objectives import Branch
from prefopt.sources.pictures import ImageRef

TWO_PICTURES = Wanted(
    {
        "cc": Branch(condition="contrast", sample="contrast_chosen"),
        "c": Branch(condition="own", sample="contrast_chosen"),
    }
)
FUNCTIONS = '''
import numpy as np
from PIL import ImageOps

def colours(images):
    """Angles on a circle: the mean red of a picture."""
    with open({calls!r}, "a") as file:
        file.write("x" * len(images))
    angles = [np.asarray(image)[..., 0].mean() / 255 * 3 for image in images]
    return np.stack([np.cos(angles), np.sin(angles)], 1)

def zeros(images):
    return np.zeros((len(images), 2))

def wrong(images):
    return np.ones(3)

def inverted(image, row):
    with open({calls!r}, "a") as file:
        file.write("x")
    if "skip" in row["prompt"]:
        return None
    return ImageOps.invert(image), None if "silent" in row["prompt"] else f"not {{row['chosen']}}"

def same(image, row):
    return image, "another answer"

def failing(image, row):
    raise KeyError(row["id"])

NUMBER = 3
'''


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFOPT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def functions(tmp_path: Path) -> str:
    path = tmp_path / "functions.py"
    path.write_text(FUNCTIONS.format(calls=str(tmp_path / "calls")))
    return f"{path}:"


def calls(tmp_path: Path) -> int:
    path = tmp_path / "calls"
    return len(path.read_text()) if path.exists() else 0


def row(n: int, image: str, **more: Any) -> dict[str, Any]:
    return {
        "id": f"r{n}", "images": [image], "prompt": [{"role": "user", "content": "what is this ?"}],
        "chosen": [{"role": "assistant", "content": f"right {n}"}],
        "rejected": [{"role": "assistant", "content": f"wrong {n}"}], **more,
    }  # fmt: skip


def reds(folder: Path, levels: list[int], **more: Any) -> list[dict[str, Any]]:
    """Rows of pictures of these levels of red."""
    for n, level in enumerate(levels):
        Image.new("RGB", (10, 8), (level, 0, 0)).save(folder / f"red-{n}.png")
    return [row(n, f"red-{n}.png", **more) for n in range(len(levels))]


def noisy(folder: Path, count: int = 4, **more: Any) -> list[dict[str, Any]]:
    """Rows of pictures of noise."""
    for n in range(count):
        (folder / f"noise-{n}.png").write_bytes(png(picture(n)))
    return [row(n, f"noise-{n}.png", **more) for n in range(count)]


def build(folder: Path, rows: list[dict[str, Any]], mode: str, *options: object, output: str = "out") -> Any:
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(one) + "\n" for one in rows))
    given = ["build", "contrast", str(data), "--mode", mode, "-o", str(folder / output), *map(str, options)]
    return CliRunner().invoke(main, given)


def read(folder: Path, name: str = "rows") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def built(
    folder: Path, rows: list[dict[str, Any]], mode: str, *options: object, output: str = "out"
) -> list[dict[str, Any]]:
    done = build(folder, rows, mode, *options, output=output)
    assert done.exit_code == 0, done.output
    return read(folder / output)


def reasons(folder: Path) -> dict[str, str]:
    return {drop["id"]: drop["reason"] for drop in read(folder / "out", "dropped")}


def opened(folder: Path, found: dict[str, Any], column: str = "contrast_images") -> Image.Image:
    (name,) = found[column]
    return Image.open(folder / "out" / name).convert("RGB")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


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


# -- answers written by models -------------------------------------------------------------------------------


def fields(folder: Path, colours: list[str]) -> list[dict[str, Any]]:
    """Rows without answers."""
    for colour in colours:
        Image.new("RGB", (10, 8), NAMES[colour]).save(folder / f"{colour}.png")
    return [
        {"id": colour, "image": f"{colour}.png", "prompt": f"What colour is number {n}?"}
        for n, colour in enumerate(colours)
    ]


def spec(url: str) -> list[str]:
    return [
        part for role in ("captioner", "answerer", "rewriter") for part in (f"--{role}", f"openai:tiny@{url}")
    ]


def test_answers_for_both_pictures_are_written_where_rows_lack_them(tmp_path):
    rows = fields(tmp_path, ["red", "green", "blue"])
    with scribe() as server:
        done = build(tmp_path, rows, "shuffle", *spec(server.url), "--samples", 16)
        assert done.exit_code == 0, done.output
        asked = len(server.bodies)
        assert (
            "asked for now: captions 3 of 3, candidates 96 of 96, claims 6 of 6, answers 12 of 12"
            in done.output
        )
        again = build(tmp_path, rows, "shuffle", *spec(server.url), "--samples", 16)
        assert len(server.bodies) == asked
        assert "candidates 0 of 96" in again.output
    found = read(tmp_path / "out")
    assert len(found) == 3
    for one in found:
        other = Path(one["contrast_images"][0]).stem
        assert one["chosen"] == f"I see: It is {one['id']}."
        assert one["rejected"] == "I see: It is pink."
        assert one["contrast_chosen"] == f"I see: It is {other}."
        assert one["contrast_rejected"] == "I see: It is pink."
    assert len(load_pictured(str(tmp_path / "out" / "rows.jsonl"), wanted=TWO_PICTURES)) == 3


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


def test_a_process_that_is_killed_loses_nothing_and_repeats_nothing(tmp_path):
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(one) + "\n" for one in fields(tmp_path, ["red", "green", "blue"])))

    def arguments(url: str, output: str) -> list[str]:
        given = [
            "build",
            "contrast",
            str(data),
            "--mode",
            "black",
            "-o",
            str(tmp_path / output),
            "--samples",
            "16",
        ]
        return [*given, *spec(url)]

    with scribe() as server:
        done = CliRunner().invoke(main, arguments(server.url, "whole"))
        assert done.exit_code == 0, done.output
        needed = len(server.bodies)
    with scribe(pause=0.2) as server:
        process = subprocess.Popen([sys.executable, "-m", "prefopt", *arguments(server.url, "parts")])
        journal = tmp_path / "parts" / "candidates.journal.jsonl"
        end = time.monotonic() + 60
        while not (journal.exists() and journal.read_bytes().count(b"\n") > 8) and time.monotonic() < end:
            time.sleep(0.01)
        process.kill()
        process.wait()
        kept = sum(
            path.read_bytes().count(b"\n") - 1 for path in (tmp_path / "parts").glob("*.journal.jsonl")
        )
        assert 0 < kept < needed
    with scribe() as server:
        done = CliRunner().invoke(main, arguments(server.url, "parts"))
        assert done.exit_code == 0, done.output
        assert len(server.bodies) == needed - kept
    assert read(tmp_path / "parts") == read(tmp_path / "whole")


def test_models_in_folders_answer_too(tmp_path):
    """Random models write nothing that could be read, which is told row by row."""
    model = tiny_vision.save_tiny("llava", tmp_path / "llava")
    given = [f"--{role}={model}" for role in ("captioner", "answerer", "rewriter")]
    done = build(
        tmp_path, fields(tmp_path, ["red", "green"]), "black", *given, "--samples", 2, "--max_new_tokens", 4
    )
    assert done.exit_code == 1, done.output
    assert set(reasons(tmp_path).values()) <= {"unreadable_claims", "no_candidates", "no_caption"}
    # captions of two pictures and of black, of one size; candidates of them
    assert len(read(tmp_path / "out", "captions.journal")) == 1 + 3
    assert len(read(tmp_path / "out", "candidates.journal")) == 1 + 2 * 4


def test_templates_of_ones_own_are_asked_with(tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "caption.jinja").write_text("Describe this picture, please")
    with scribe() as server:
        built(
            tmp_path, fields(tmp_path, ["red", "green"]), "shuffle", *spec(server.url), "--samples", 16, "--prompts", tmp_path / "own"
        )  # fmt: skip
        words = [str(body["messages"]) for body in server.bodies]
    assert sum("Describe this picture, please" in text for text in words) == 2


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


# -- plain pairs ---------------------------------------------------------------------------------------------


def split(folder: Path, rows: Path, *options: str) -> Any:
    return CliRunner().invoke(
        main, ["build", "symmetric-pairs", str(rows), "-o", str(folder / "split.jsonl"), *options]
    )


def test_rows_of_two_pictures_become_two_pairs(tmp_path):
    built(tmp_path, noisy(tmp_path, 3), "shuffle")
    done = split(tmp_path, tmp_path / "out" / "rows.jsonl")
    assert done.exit_code == 0, done.output
    assert "6 pairs of 3 rows" in done.output
    rows = read(tmp_path / "out")
    pairs = read(tmp_path, "split")
    for one, own, other in zip(rows, pairs[::2], pairs[1::2], strict=True):
        assert own["id"], other["id"] == (f"{one['id']}-own", f"{one['id']}-contrast")
        assert (own["chosen"], own["rejected"]) == (one["chosen"], one["contrast_chosen"])
        assert (other["chosen"], other["rejected"]) == (one["contrast_chosen"], one["chosen"])
        for half, column in ((own, "images"), (other, "contrast_images")):
            assert (tmp_path / half["images"][0]).resolve() == (tmp_path / "out" / one[column][0]).resolve()
    assert len(load_pictured(str(tmp_path / "split.jsonl"), wanted=PAIRS)) == 6
    assert "is there already" in split(tmp_path, tmp_path / "out" / "rows.jsonl").output
    assert split(tmp_path, tmp_path / "out" / "rows.jsonl", "--force").exit_code == 0


def test_rows_without_a_contrast_cannot_be_split(tmp_path):
    data = tmp_path / "data.jsonl"
    rows = noisy(tmp_path, 2, contrast_image="noise-0.png", contrast_chosen="c")
    data.write_text("".join(json.dumps(one) + "\n" for one in [*rows, row(4, "noise-1.png")]))
    done = split(tmp_path, data)
    assert "2 pairs of 1 rows; 1 identical_images; 1 missing_value" in done.output


def test_dpo_on_the_pairs_is_the_pair_term_of_symmpo(tmp_path):
    """Specification 12, condition 7: no margin, no anchor, no response pair; a step over all rows is the same step."""
    model = tiny_vision.save_tiny("llava", tmp_path / "llava")
    rows = noisy(tmp_path, 3)
    for n, one in enumerate(rows):  # in the model's words
        one |= {side: [{"role": "assistant", "content": f"{side_word} {tiny_vision.WORDS[n + 7]}"}]
                for side, side_word in (("chosen", "a"), ("rejected", "no"))}  # fmt: skip
    built(tmp_path, rows, "shuffle")
    assert split(tmp_path, tmp_path / "out" / "rows.jsonl").exit_code == 0
    shared = {"model": str(model), "max_steps": 2, "learning_rate": 1e-2, "warmup_ratio": 0, **QUIET}
    pairs = prefopt.train(
        "dpo",
        data=str(tmp_path / "split.jsonl"),
        output_dir=str(tmp_path / "dpo"),
        per_device_train_batch_size=6,
        **shared,
    )
    symmetric = prefopt.train(
        "symmpo", data=str(tmp_path / "out" / "rows.jsonl"), output_dir=str(tmp_path / "symmpo"), per_device_train_batch_size=3,
        response_weight=0, margin_weight=0, anchor_weight=0, pair_weight=0.5, **shared,
    )  # fmt: skip
    ours, theirs = ([line["loss"] for line in run.history if "loss" in line] for run in (symmetric, pairs))
    assert ours[0] == pytest.approx(math.log(2), rel=1e-5)
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert abs(ours[1] - ours[0]) > 1e-3


# -- the page ------------------------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[3] / "docs" / "vision_data.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.S)


def clip_vision(folder: Path) -> None:
    """A random image tower."""
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.CLIPVisionConfig(**sizes, image_size=32, patch_size=8)
    transformers.CLIPVisionModel(config).save_pretrained(folder)
    processor = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    processor.save_pretrained(folder)


@pytest.mark.slow
def test_every_command_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "prefopt.modalities.vision_language.build.bounds", lambda given: (1.0, -1.0)
    )  # of a random tower
    clip_vision(tmp_path / "clip-vit-large")
    tiny_vision.save_tiny("llava", tmp_path / "llava")
    (tmp_path / "edits.py").write_text(
        next(text for text in blocks("python") if text.startswith("# edits.py"))
    )
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "compose.jinja").write_text(blocks("jinja")[0])
    rows = noisy(tmp_path, 4)
    for n, one in enumerate(rows):
        one["chosen"][0]["content"] = f"a cat on the left {tiny_vision.WORDS[n + 7]}"
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))

    def reply(body: dict[str, Any]) -> str:
        asked = str(body["messages"])
        return '{"consistent": ["a"], "conflicting": ["b"]}' if "JSON" in asked else f"a dog {body['seed']}"

    done = []
    with scribe(reply=reply, known="qwen-vl") as server:
        for line in "".join(blocks("bash")).replace("\\\n", " ").splitlines():
            words = shlex.split(line.replace("http://localhost:8000/v1", server.url))
            assert words[0] == "prefopt"
            if words[1] == "train":
                words += [f"output_dir=run-{len(done)}", "max_steps=1", "sample_prompts=0", "eval_size=0"]
            if "llava" in words and "--captioner" in words:
                words += ["--max_new_tokens", "4", "--samples", "2"]
            found = CliRunner().invoke(main, words[1:])
            assert found.exit_code == 0, f"{line}\n{found.output}"
            done.append(words[1:3])
    assert len(done) == 9
