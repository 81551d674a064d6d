"""`prefopt evaluate` of a control model: what is measured of its samples, and the contrast of its two sides by noise level."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import tiny_pipelines
from modalities.battery import picture_rows
from modalities.control.edges import DETECTOR, edge_rows
from prefopt.cli.main import main
from prefopt.metrics.frechet import frechet_distance
from prefopt.modalities.control.detectors import fidelity, find
from prefopt.modalities.control.features import get_features


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("control")
    return tiny_pipelines.tiny_control(folder / "a"), tiny_pipelines.tiny_control(folder / "b", seed=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return edge_rows(tmp_path_factory.mktemp("rows"))


def evaluate(model: Path, data: Path, output: Path, *options: str) -> Any:
    given = [
        str(model),
        "--data",
        str(data),
        "--detector",
        DETECTOR,
        "--output",
        str(output),
    ]
    return CliRunner().invoke(main, ["evaluate", *given, "--num_inference_steps", "2", *options])


def levels_of(paths: list[Path]) -> torch.Tensor:
    pictures = [np.array(Image.open(path).convert("RGB")) for path in paths]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255


@pytest.fixture(scope="module")
def evaluated(models, data, tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    output = tmp_path_factory.mktemp("evaluated") / "out"
    done = evaluate(
        models[0], data, output, "--baseline", str(models[1]), "--samples", "2", "--features", "pixels"
    )
    assert done.exit_code == 0, done.output
    assert "agreement, model minus baseline" in done.output
    return output, json.loads((output / "evaluation.json").read_text())


def test_what_is_measured_is_measured_on_the_samples_that_are_there(evaluated, data):
    output, told = evaluated
    detector = find(DETECTOR)
    true = detector.read(levels_of(sorted(data.parent.glob("*-condition.png"))))
    real = levels_of(sorted(data.parent.glob("*-image.png")))
    for side in ("model", "baseline"):
        groups = [levels_of(sorted((output / "samples" / side).glob(f"*-{n}.png"))) for n in range(2)]
        assert {len(group) for group in groups} == {6}
        found = [detector.detect(group) for group in groups]
        f1 = [fidelity("edge_f1", true, labels)["edge_f1"] for labels in found]
        assert told[side]["edge_f1"] == pytest.approx(sum(f1) / 2, abs=1e-6)
        agreement = torch.stack([detector.agreement(true, labels) for labels in found]).mean(0)
        assert told[side]["agreement"]["mean"] == pytest.approx(float(agreement.mean()), abs=1e-6)
        features = get_features("pixels")
        frechet = [frechet_distance(features(real), features(group)) for group in groups]
        assert told[side]["frechet"] == pytest.approx(sum(frechet) / 2, rel=1e-5)
    assert told["agreement_gain"]["mean"] == pytest.approx(
        told["model"]["agreement"]["mean"] - told["baseline"]["agreement"]["mean"]
    )


def test_the_baseline_draws_its_own_samples_from_the_noise_of_the_model(evaluated, models, data, tmp_path):
    output, _ = evaluated
    assert evaluate(models[1], data, tmp_path / "alone").exit_code == 0
    alone = {
        path.name: path.read_bytes() for path in (tmp_path / "alone" / "samples" / "model").glob("*-0.png")
    }
    assert len(alone) == 6
    beside = {path.name: path.read_bytes() for path in (output / "samples" / "baseline").glob("*-0.png")}
    assert beside == alone


def test_real_images_are_the_oracle(evaluated):
    _, told = evaluated
    assert told["oracle"]["edge_f1"] == 1
    name = told["metric"]
    model, base, oracle = (told[side][name] for side in ("model", "baseline", "oracle"))
    assert told["error_rate_reduction"] == pytest.approx(1 - abs(oracle - model) / abs(oracle - base))


def test_the_same_command_again_draws_nothing(evaluated, models, data):
    output, told = evaluated
    times = {path: path.stat().st_mtime_ns for path in output.rglob("*.png")}
    done = evaluate(
        models[0], data, output, "--baseline", str(models[1]), "--samples", "2", "--features", "pixels"
    )
    assert done.exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*.png")} == times
    assert json.loads((output / "evaluation.json").read_text()) == told
    other = evaluate(models[1], data, output)
    assert "was begun with model" in other.output


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--detector", "world:text"], "the world text has no detector"),
        (["--baseline", "nowhere/at/all"], "no pipeline folder at nowhere/at/all"),
        (["--features", "nowhere/at/all"], "no model folder at nowhere/at/all"),
    ],
)
def test_what_cannot_be_done_is_told_before_anything_is_drawn(options, told, models, data, tmp_path):
    done = evaluate(models[0], data, tmp_path / "out", *options)
    assert done.exit_code == 1
    assert told in done.output
    assert not list(tmp_path.rglob("*.png"))


def test_of_one_condition_there_is_no_interval(models, data, tmp_path):
    row = tmp_path / "row.jsonl"
    told = json.loads(data.read_text().splitlines()[0])
    paths = {name: str(data.parent / told[name]) for name in ("image", "condition")}
    row.write_text(json.dumps(told | paths) + "\n")
    done = evaluate(models[0], row, tmp_path / "out", "--baseline", str(models[1]))
    assert done.exit_code == 0, done.output
    assert "inf" not in done.output

    def refuse(name: str) -> Any:
        raise AssertionError(f"{name} is no JSON")

    found = json.loads((tmp_path / "out" / "evaluation.json").read_text(), parse_constant=refuse)
    assert found["model"]["agreement"]["low"] is None


def test_a_condition_that_no_detector_reads_is_named(models, tmp_path):
    done = evaluate(models[0], picture_rows(tmp_path, ("condition",)), tmp_path / "out")
    assert "the condition of row row-1 cannot be read by canny_torch" in done.output


def test_a_distance_to_real_images_needs_some(models, data, tmp_path):
    row = json.loads(data.read_text().splitlines()[0])
    rows = [{"prompt": "a", "condition": str(data.parent / row["condition"])}] * 2
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = evaluate(models[0], tmp_path / "rows.jsonl", tmp_path / "out", "--features", "pixels")
    assert done.exit_code == 1
    assert "--features measures the distance to real images" in done.output
    assert not list(tmp_path.rglob("*.png"))


def test_a_sample_that_has_gone_is_drawn_again(models, data, tmp_path):
    assert evaluate(models[0], data, tmp_path / "out", "--limit", "2").exit_code == 0
    told = (tmp_path / "out" / "evaluation.json").read_text()
    gone = sorted((tmp_path / "out" / "samples" / "model").glob("*.png"))[0]
    gone.unlink()
    again = evaluate(models[0], data, tmp_path / "out", "--limit", "2", "--batch_size", "8")
    assert again.exit_code == 0, again.output
    assert gone.is_file()
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["n"] == json.loads(told)["n"] == 2


def test_a_base_with_a_controlnet_beside_it_is_a_control_model(pipelines, models, data, tmp_path):
    given = ["--controlnet", str(models[0]), "--limit", "2"]
    done = evaluate(pipelines("sd"), data, tmp_path / "out", *given)
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["n"] == 2


def test_models_that_answer_prompts_are_judged_as_before():
    done = CliRunner().invoke(main, ["evaluate", "world:text", "--help"])
    assert "--judge" in done.output
    assert "--detector" not in done.output
