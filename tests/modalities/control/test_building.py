"""`prefopt build conditions`: what the model makes of true conditions becomes the losing ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from diffusers import DiffusionPipeline
from PIL import Image
from safetensors.torch import load_file, save_file

import prefopt
import tiny_pipelines
from modalities.battery import picture_rows
from modalities.control.edges import DETECTOR, edge_rows
from modalities.image.image_runs import QUIET, picture, png, record, rotten
from prefopt.cli.main import main
from prefopt.modalities.control.building import Filter
from prefopt.modalities.control.detectors import find
from prefopt.modalities.control.drawing import seed_of
from prefopt.modalities.control.models import load_control


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pipelines.tiny_control(tmp_path_factory.mktemp("control") / "sd")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return edge_rows(tmp_path_factory.mktemp("rows"))


def build(data: Path, model: Path, output: Path, *options: str) -> Any:
    given = ["--model", str(model), "--detector", DETECTOR, "-o", str(output), "--num_inference_steps", "2"]
    return CliRunner().invoke(main, ["build", "conditions", str(data), *given, *options])


def rows_of(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "rows.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def built(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("built") / "pairs"
    done = build(data, model, output, "--batch_size", "4")
    assert done.exit_code == 0, done.output
    assert "6 comparisons of conditions" in done.output
    return output


def test_the_losing_condition_is_what_the_detector_sees_in_plain_diffusers_sample(built, model, data):
    pipe = DiffusionPipeline.from_pretrained(model, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    row = rows_of(built)[4]
    true = Image.open(built / row["chosen_condition"]).convert("RGB")
    drawn = pipe(
        row["prompt"], image=true, num_inference_steps=2, guidance_scale=7.5, output_type="pt", height=32, width=32,
        generator=torch.Generator().manual_seed(seed_of(0, row["id"], 0)),
    ).images  # fmt: skip
    detector = find(DETECTOR)
    found = detector.detect(drawn.float())
    expected = detector.draw(found)[0].mul(255).round().byte().permute(1, 2, 0).numpy()
    stored = np.array(Image.open(built / row["rejected_condition"]))
    assert (stored != expected).mean() < 0.01
    controls = torch.from_numpy(np.array(true)).permute(2, 0, 1)[None].float() / 255
    assert row["score"] == pytest.approx(float(detector.agreement(detector.read(controls), found)), abs=0.02)


def test_rows_say_where_they_come_from_and_train(built, model, own_cache, tmp_path):
    told = json.loads((built / "build.json").read_text())
    assert told["detector"].startswith(DETECTOR)
    assert told["kept"] == 6
    assert {row["source"] for row in rows_of(built)} == {f"build conditions, {told['detector']}"}
    result = prefopt.train(
        "condition_po",
        model=model,
        data=built / "rows.jsonl",
        output_dir=str(tmp_path / "run"),
        max_steps=1,
        **QUIET,
    )
    assert record(result.output_dir, "manifest")["data"]["examples"] == 6


def test_what_is_there_is_not_drawn_again(built, data, model, tmp_path):
    before = {path.name: path.read_bytes() for path in sorted((built / "pictures").iterdir())}
    output = tmp_path / "pairs"
    assert build(data, model, output, "--limit", "3").exit_code == 0
    journal = output / "journal.jsonl"
    lines = journal.read_text().splitlines()
    assert len(lines) == 4
    journal.write_text("\n".join(lines[:3]) + "\n" + lines[3][:20])  # killed while it wrote
    again = build(data, model, output, "--batch_size", "1")
    assert again.exit_code == 0, again.output
    kept = journal.read_text().splitlines()
    assert kept[:3] == lines[:3]
    assert rows_of(output) == rows_of(built)
    for path in (output / "pictures").iterdir():
        other = np.array(Image.open(built / "pictures" / path.name)).astype(int)
        assert (np.array(Image.open(path)).astype(int) != other).mean() < 0.01, path
    assert len(before) == len(list((output / "pictures").iterdir()))
    once_more = build(data, model, output)
    assert "(6 were there already)" in once_more.output


def test_a_losing_condition_that_has_gone_is_made_again(data, model, tmp_path):
    output = tmp_path / "pairs"
    assert build(data, model, output, "--limit", "2").exit_code == 0
    gone = output / rows_of(output)[0]["rejected_condition"]
    gone.unlink()
    assert build(data, model, output, "--limit", "2").exit_code == 0
    assert gone.is_file()


def test_another_setting_is_another_folder(built, data, model):
    done = build(data, model, built, "--guidance_scale", "2")
    assert done.exit_code == 1
    assert "was begun with drawing" in done.output


def test_the_filter_leaves_rows_out_and_says_so(built, data, model):
    done = build(data, model, built, "--max_agreement", "0.0")
    assert done.exit_code == 1
    assert "no row is left of 6" in done.output
    dropped = [json.loads(line) for line in (built / "dropped.jsonl").read_text().splitlines()]
    assert {drop["reason"] for drop in dropped} == {"agrees"}
    assert not (built / "rows.jsonl").exists()  # those of another filter would pass for these
    assert build(data, model, built).exit_code == 0


def test_samples_follow_the_seed_and_the_crop(model, tmp_path):
    rows = edge_rows(tmp_path)
    for path in tmp_path.glob("0-*.png"):  # twice as wide, the picture in its left half
        wide = Image.new("RGB", (64, 32))
        wide.paste(Image.open(path), (0, 0))
        wide.save(path)

    def made(name: str, *options: str) -> list[bytes]:
        assert build(rows, model, tmp_path / name, "--limit", "1", *options).exit_code == 0
        (row,) = rows_of(tmp_path / name)
        return [(tmp_path / name / row[c]).read_bytes() for c in ("chosen_condition", "rejected_condition")]

    plain = made("plain")
    seed = made("seed", "--seed", "5")
    assert seed[0] == plain[0]
    assert seed[1] != plain[1]
    assert made("stretched", "--crop", "none")[0] != plain[0]


@pytest.mark.parametrize(
    ("agreement", "reason"), [(1.0, "identical"), (0.95, "agrees"), (0.5, None), (0.1, "disagrees")]
)
def test_agreement_decides(agreement, reason):
    why = Filter(least=0.2, most=0.9).reason(agreement)
    assert (why and why[0]) == reason


def test_pictures_that_cannot_be_decoded_lose_their_row(model, tmp_path):
    rows = edge_rows(tmp_path)
    broken = tmp_path / "1-image.png"
    broken.write_bytes(rotten(broken.read_bytes()))
    (tmp_path / "2-condition.png").write_bytes(png(Image.new("RGB", (80, 40))))
    done = build(rows, model, tmp_path / "pairs")
    assert "4 comparisons of conditions; 1 wrong_shape; 1 broken_image" in done.output
    rows.write_text("".join(reversed(rows.read_text().splitlines(True))))
    done = build(rows, model, tmp_path / "reversed", "--limit", "5")
    assert done.exit_code == 0, done.output
    dropped = [
        json.loads(line) for line in (tmp_path / "reversed" / "dropped.jsonl").read_text().splitlines()
    ]
    assert [(drop["row"], drop["reason"]) for drop in dropped] == [(4, "wrong_shape"), (5, "broken_image")]


def test_images_in_the_rows_are_written_beside_them(model, tmp_path):
    table = tmp_path / "rows.parquet"
    import datasets

    pictures = {"image": [picture(0), picture(1)], "condition": [picture(n).convert("L") for n in range(2)]}
    datasets.Dataset.from_dict({"prompt": ["a", "b"], **pictures}).to_parquet(table)
    output = tmp_path / "pairs"
    assert build(table, model, output).exit_code == 0
    for row in rows_of(output):
        sizes = {
            Image.open(output / row[k]).size for k in ("image", "chosen_condition", "rejected_condition")
        }
        assert sizes == {(32, 32)}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--detector", "hed"], "the detector hed is not here"),
        (["--model", "nowhere/at/all"], "no pipeline folder at nowhere/at/all"),
        (["--guidance_scale", "nan"], "guidance_scale must be a finite number"),
        (["--resolution", "30"], "resolution must be divisible by 4, as the VAE is; given 30"),
        (["--min_agreement", "2"], "min_agreement is an agreement in [0, 1]; given 2"),
    ],
)
def test_what_cannot_be_done_is_told_before_anything_is_drawn(options, told, data, model, tmp_path):
    done = build(data, model, tmp_path / "pairs", *options)
    assert done.exit_code == 1
    assert told in done.output
    assert not (tmp_path / "pairs" / "rows.jsonl").exists()


def test_rows_without_images_are_refused(model, tmp_path):
    rows = picture_rows(tmp_path, ("condition",))  # looked at before any condition is read
    done = build(rows, model, tmp_path / "pairs")
    assert "has no images: a comparison of conditions needs the image" in done.output


@pytest.mark.parametrize(
    ("file", "change", "told"),
    [
        ("scheduler/scheduler_config.json", {"beta_end": 0.02}, "was begun with scheduler"),
        ("vae/config.json", {"scaling_factor": 0.3}, "was begun with vae"),
        ("tokenizer/tokenizer_config.json", {"model_max_length": 9}, "was begun with text"),
    ],
)
def test_samples_of_a_pipeline_with_another_part_are_not_taken_for_its_own(
    file, change, told, model, data, tmp_path
):
    folder = shutil.copytree(model, tmp_path / "model")
    assert build(data, folder, tmp_path / "pairs", "--limit", "2").exit_code == 0
    values = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(values | change))
    done = build(data, folder, tmp_path / "pairs", "--limit", "2")
    assert told in done.output


def test_another_detector_under_the_same_name_is_another_one(model, data, tmp_path):
    file = tmp_path / "mine.py"
    code = "from prefopt.modalities.control.detectors import find\ndef mine():\n    found = find('canny_torch{}')\n"
    rest = "    found.name = 'mine'\n    return found\n"
    given = (data, model, tmp_path / "pairs", "--limit", "2", "--detector", f"{file}:mine")
    file.write_text(code.format("") + rest)
    first = build(*given)
    assert first.exit_code == 0, first.output
    file.write_text(code.format(":0.3,0.4") + rest)
    assert "was begun with detector_files" in build(*given).output


def test_samples_that_are_no_numbers_are_no_pictures(model, data, tmp_path):
    folder = shutil.copytree(model, tmp_path / "model")
    name = folder / "controlnet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(name)
    save_file({key: value * float("nan") for key, value in weights.items()}, name)
    done = build(data, folder, tmp_path / "pairs")
    assert done.exit_code == 1
    assert "are not finite" in done.output


def test_a_controlnet_beside_a_base_in_half_precision_works_in_its_dtype(model, pipelines, tmp_path):
    folder = tmp_path / "half"
    base = DiffusionPipeline.from_pretrained(pipelines("sd"), safety_checker=None)
    base.to(torch.bfloat16).save_pretrained(folder)
    for source in ("new", str(model)):
        loaded = load_control(str(folder), controlnet=source, trainable=False)
        assert {p.dtype for p in loaded.model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (
            "draw = lambda self, labels: labels",
            "the detector mine draws (2, 32, 32) of images (2, 3, 32, 32)",
        ),
        ("agreement = lambda self, a, b: float('nan') * (a - b).mean((1, 2))", "is [nan, nan] for 2 images"),
    ],
)
def test_what_a_users_detector_gives_is_looked_at(code, told, model, data, tmp_path):
    start = "from prefopt.modalities.control.detectors.canny import TorchCanny\n"
    (tmp_path / "mine.py").write_text(
        f"{start}class Mine(TorchCanny):\n    {code}\n\nmine = Mine()\nmine.name = 'mine'\n"
    )
    done = build(data, model, tmp_path / "pairs", "--limit", "2", "--detector", f"{tmp_path}/mine.py:mine")
    assert done.exit_code == 1
    assert told in done.output
