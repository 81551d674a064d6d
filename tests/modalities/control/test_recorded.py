"""What control runs record for their report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import prefopt
import tiny_pipelines
from modalities.battery import picture_rows
from modalities.control.edges import DETECTOR, condition_rows, edge_rows
from modalities.control.test_report import read
from modalities.image.image_runs import QUIET, record
from modalities.image.test_report import names
from prefopt.modalities.control.detectors import find
from prefopt.modalities.control.samples import diversity


def test_diversity_is_the_mean_distance_of_two_images() -> None:
    images = torch.rand(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    pairs = [(a, b) for a in range(4) for b in range(a)]
    expected = np.mean([float((images[a] - images[b]).square().mean().sqrt()) for a, b in pairs])
    assert diversity(images) == pytest.approx(expected, rel=1e-5)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pipelines.tiny_control(tmp_path_factory.mktemp("control") / "sd")


REAL: dict[str, Any] = {
    **QUIET, "detector": DETECTOR, "eval_size": 2, "sample_prompts": 3, "num_inference_steps": 2, "max_steps": 2,
    "eval_steps": 1, "learning_rate": 1e-3, "warmup_steps": 0, "save_strategy": None, "save_steps": 1,
    "save_total_limit": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def real(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on conditions."""
    folder = tmp_path_factory.mktemp("real")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFOPT_CACHE", str(folder / "cache"))
        prefopt.train(
            "condition_po",
            model=model,
            data=condition_rows(folder),
            output_dir=str(folder / "run"),
            **REAL,
        )
    return folder / "run"


def test_a_real_run_records_what_the_page_needs(real: Path, tmp_path: Path) -> None:
    told = record(real, "fidelity")
    assert (told["detector"], told["metric"], told["higher_is_better"]) == (
        find(DETECTOR).name,
        "edge_f1",
        True,
    )
    assert [entry["step"] for entry in told["steps"]] == [0, 1, 2]
    for step, entry in enumerate(told["steps"]):
        of_samples = [
            next(g for g in prompt["generations"] if g["step"] == step)
            for prompt in record(real, "samples")["prompts"]
        ]
        assert [g["agreement"] for g in of_samples] == entry["agreement"][: len(of_samples)]
        assert [g["score"] for g in of_samples] == pytest.approx(
            [g["agreement"] for g in of_samples], abs=1e-5
        )
    page = read(shutil.copytree(real, tmp_path / "copy"))
    assert {"samples", "deltas", "timesteps", "first-pair"} <= set(page.ids())
    assert f"what {told['detector']} reads in it" in page.text
    assert "cannot be drawn" not in page.text
    charts = {name.partition(".")[0] for name in names(page)}
    assert {
        "Edge F1 of samples",
        "Agreement with the condition",
        "Distance between samples",
        "Delta by timestep",
    } <= charts
    assert "gaps in the files" not in page.text


def test_the_first_pair_of_a_run_on_conditions_has_its_image(real: Path) -> None:
    told = record(real, "first_pair")
    assert (told["shared"]["name"], told["made"]) == ("image", False)
    rows = [json.loads(line) for line in (real.parent / "rows.jsonl").read_text().splitlines()]
    paths = [told["shared"]["image"], *(side["image"] for side in told["sides"])]
    seen = [levels(real / path) for path in paths]
    files = [[row[name] for name in ("image", "chosen_condition", "rejected_condition")] for row in rows]
    (row,) = (
        [levels(real.parent / name) for name in names]
        for names in files
        if close(levels(real.parent / names[0]), seen[0])
    )
    assert all(close(a, b) for a, b in zip(row, seen, strict=True))


def levels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def close(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.abs(a - b).max() <= 1)


@pytest.mark.parametrize("columns", [("chosen_image", "rejected_image", "condition"), ("image", "condition")])
def test_the_first_pair_of_images_has_their_condition(
    columns: tuple[str, ...], model: Path, own_cache: Path, tmp_path: Path
) -> None:
    rows = picture_rows(tmp_path, columns)
    method = "diffusion_dpo" if len(columns) == 3 else "sft"
    options = {**QUIET, "learning_rate": 1e-4, "max_steps": 1, "warmup_steps": 0}
    result = prefopt.train(method, model=model, data=rows, output_dir=str(tmp_path / "run"), **options)
    told = record(result.output_dir, "first_pair")
    paths = [side["image"] for side in told["sides"]]
    shown = {name: Image.open(result.output_dir / name).convert("RGB").tobytes() for name in paths}
    assert told["shared"]["name"] == "condition"
    assert len(set(shown.values())) == len(columns) - 1
    assert (
        Image.open(result.output_dir / told["shared"]["image"]).convert("RGB").tobytes() not in shown.values()
    )


def test_a_step_that_is_drawn_again_is_recorded_once(real: Path, model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(real, run)
    (last,) = (run / "checkpoints").glob("*2")
    shutil.rmtree(last)
    shutil.rmtree(run / "model")
    before = record(run, "fidelity")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFOPT_CACHE", str(real.parent / "cache"))
        options = {**REAL, "model": str(model), "data": str(real.parent / "rows.jsonl")}
        prefopt.train("condition_po", output_dir=str(run), resume=True, **options)
    after = record(run, "fidelity")
    assert [entry["step"] for entry in after["steps"]] == [0, 1, 2]
    assert after["steps"][2]["agreement"] == pytest.approx(before["steps"][2]["agreement"], abs=1e-4)


@pytest.mark.slow
def test_the_first_pair_of_online_conditions_says_that_the_losing_one_is_made(
    model: Path, own_cache: Path, tmp_path: Path
) -> None:
    options = {**QUIET, "learning_rate": 1e-4, "max_steps": 1, "warmup_steps": 0, "num_inference_steps": 2,
               "losing_condition": "online", "detector": DETECTOR}  # fmt: skip
    result = prefopt.train(
        "condition_po", model=model, data=edge_rows(tmp_path), output_dir=str(tmp_path / "run"), **options
    )
    told = record(result.output_dir, "first_pair")
    assert (told["shared"]["name"], told["made"], [s["name"] for s in told["sides"]]) == (
        "image",
        True,
        ["chosen"],
    )
    text = read(result.output_dir).text
    assert "The rejected condition is made anew in every step" in text
    assert "chosen condition" in text[text.index("The first") :]
