"""Page and card of control runs: conditions beside what was drawn, departures, fidelity, Delta."""

from __future__ import annotations

import base64
import io
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

import prefopt
import tiny_pipelines
from modalities.battery import picture_rows
from modalities.control import synthetic_run
from modalities.control.test_building import DETECTOR, edge_rows
from modalities.image.image_runs import QUIET, record
from modalities.image.test_report import names
from prefopt.modalities.control.detectors import HEADLINE, find
from prefopt.modalities.control.report.deltas import at
from prefopt.modalities.control.report.departures import ADDED, MISSING, drawn, kind_of
from prefopt.modalities.control.report.fidelity import MEASURES, follows, interval
from prefopt.modalities.control.samples import diversity
from prefopt.report import account, write_model_card, write_report
from report.html_page import Page


def read(run: Path) -> Page:
    return Page(write_report(run).read_text("utf-8"))


def edit(run: Path, name: str, **values: Any) -> None:
    path = run / "record" / f"{name}.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **values}), "utf-8")


def log(run: Path, **last: float) -> None:
    """Change values of the last line."""
    path = run / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    lines[-1] |= last
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")


def pictures(page: Page) -> dict[str, Image.Image]:
    """By alternative text."""
    found = [attrs for tag, attrs in page.elements if tag == "img"]
    return {
        a["alt"]: Image.open(io.BytesIO(base64.b64decode(a["src"].partition(",")[2]))).convert("RGB")
        for a in found
    }


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return synthetic_run.write_control_run(tmp_path / "follows")


# -- the contact sheet -----------------------------------------------------------------------------------------


def test_a_row_is_the_condition_then_images_with_what_was_read_in_them(run: Path) -> None:
    page = read(run)
    prompt = synthetic_run.PROMPTS[0]
    alts = [attrs["alt"] for tag, attrs in page.elements if tag == "img"]
    whens = ["before", "step 100", "step 200", "step 300", "after"]
    row = [f"condition: {prompt}"]
    for when in whens:
        row += [f"{when}: {prompt}", f"read {when}, departures from the condition marked"]
    assert alts[: len(row)] == row
    given = Image.open(run / "record" / "images" / "given-0.png").convert("RGB")
    assert pictures(page)[row[0]].tobytes() == given.tobytes()
    assert "agreement +0.285" in page.text
    assert "Mean agreement over these 4 images 0.395 → 0.721: 4 better" in page.text
    assert "what edges_detector reads in it" in page.text
    assert "cannot be drawn" not in page.text


def test_a_reward_that_is_not_the_agreement_stands_beside_it(run: Path) -> None:
    told = record(run, "samples")
    assert "reward 0.25" not in read(run).text
    told["prompts"][0]["generations"][0]["score"] = 0.25
    edit(run, "samples", **told)
    page = read(run)
    assert page.text.count("reward 0.25") == 1
    assert "before agreement 0.350 reward 0.25" in page.text


def test_without_a_detector_the_condition_still_comes_first(run: Path) -> None:
    told = record(run, "samples")
    for entry in told["prompts"]:
        for one in entry["generations"]:
            del one["read"], one["agreement"], one["score"]
    edit(run, "samples", **told)
    page = read(run)
    alts = [attrs["alt"] for tag, attrs in page.elements if tag == "img"]
    assert [a.partition(":")[0] for a in alts[:3]] == ["condition", "before", "step 100"]
    assert "departures" not in " ".join(alts[:24])
    sheet = page.text[page.text.index("What the model draws") : page.text.index("Start-of-run")]
    assert "agreement" not in sheet
    assert "missing" not in sheet


def test_a_reading_that_is_gone_or_of_another_size_costs_no_page(run: Path) -> None:
    images = run / "record" / "images"
    (images / "step-000000-0-read.png").unlink()
    Image.new("RGB", (7, 5)).save(images / "step-000100-0-read.png")
    (images / "given-1.png").write_bytes(b"no picture")
    page = read(run)
    assert "record/images/step-000000-0-read.png is not there" in page.text
    assert "record/images/given-1.png cannot be read" in page.text
    assert "cannot be drawn" not in page.text


def test_rows_of_a_style_sheet_of_its_own(run: Path, tmp_path: Path) -> None:
    from modalities.image.synthetic_run import write_image_run

    assert ".frames.under" in write_report(run).read_text("utf-8")
    assert ".frames.under" not in write_report(write_image_run(tmp_path / "image")).read_text("utf-8")


# -- departures ------------------------------------------------------------------------------------------------


def grid(*rows: str, colours: dict[str, tuple[int, int, int]]) -> Image.Image:
    return Image.fromarray(np.array([[colours[c] for c in row] for row in rows], dtype=np.uint8))


def marked(given: Image.Image, found: Image.Image, side: int) -> tuple[np.ndarray, str]:
    shown, kind = drawn(given, found, side)
    data = io.BytesIO(base64.b64decode(shown.uri.partition(",")[2]))
    return np.asarray(Image.open(data).convert("RGB")).astype(int), kind


def test_missing_and_added_edges_have_their_colours() -> None:
    colours = {".": (0, 0, 0), "#": (255, 255, 255)}
    out, kind = marked(grid("##.", colours=colours), grid("#.#", colours=colours), 3)
    assert kind == "edges"
    assert out[0, 1].tolist() == list(MISSING)
    assert out[0, 2].tolist() == list(ADDED)
    assert out[0, 0].max() - out[0, 0].min() == 0


def test_a_thin_edge_survives_being_shrunk() -> None:
    given = np.zeros((1024, 1024, 3), dtype=np.uint8)
    given[:, 512] = 255
    shown, _ = marked(Image.fromarray(given), Image.new("RGB", (1024, 1024)), 256)
    row = shown[128]
    nearest = np.abs(row - np.array(MISSING)).sum(-1).min()
    assert shown.shape[:2] == (256, 256)
    assert nearest < 60


def test_darker_and_brighter_are_told_apart_by_how_much() -> None:
    colours = {"a": (100,) * 3, "b": (110,) * 3, "c": (200,) * 3, "d": (20,) * 3}
    out, kind = marked(grid("aaaa", colours=colours), grid("abcd", colours=colours), 4)
    assert kind == "amounts"
    same, little, brighter, darker = out[0]
    assert brighter.tolist() == list(ADDED)
    assert darker.tolist() == list(MISSING)
    assert np.ptp(same) == 0
    assert 0 < np.ptp(little) < np.ptp(brighter)


def test_wrong_classes_keep_their_colour_and_get_an_outline() -> None:
    colours = {"k": (0, 0, 0), "r": (200, 0, 0), "g": (0, 200, 0)}
    out, kind = marked(grid("rrrk", "rrrk", colours=colours), grid("rrgk", "rrrk", colours=colours), 160)
    assert kind == "classes"
    assert out.shape == (80, 160, 3)  # 40 a pixel
    assert out[20, 100].tolist() == [0, 200, 0]
    assert out[20, 79].max() < 30  # left of it
    assert out[60, 20].min() > 150  # agrees: pale
    assert out[60, 20, 0] > out[60, 20, 1] + 20  # and still red


def test_equal_maps_show_no_departure() -> None:
    for kind in ("edges", "classes", "amounts"):
        same = synthetic_run.draw(synthetic_run.layout(48, 0, 0.0), kind)  # type: ignore[arg-type]
        out, found = marked(same, same, 48)
        assert found == kind
        assert out.min() > 100
    assert kind_of(*(np.asarray(same).astype(np.int16),) * 2) == "amounts"


# -- the first pair --------------------------------------------------------------------------------------------


def test_two_conditions_are_shown_with_their_image_and_where_they_differ(run: Path) -> None:
    page = read(run)
    text = page.text[page.text.index("The first pair, as the model sees it") :]
    places = [
        text.index(f"{name} ")
        for name in ("image 48 × 48", "chosen condition", "rejected condition", "where they differ")
    ]
    assert places == sorted(places)
    assert "Both conditions are held against the same image" in text
    shown = pictures(page)
    first = Image.open(run / "record" / "images" / "first-image.png").convert("RGB")
    assert shown[f"image: {synthetic_run.PROMPTS[1]}"].tobytes() == first.tobytes()


def test_two_images_are_shown_with_their_condition(run: Path) -> None:
    edit(run, "first_pair", shared={"name": "condition", "image": "record/images/given-0.png"})
    page = read(run)
    text = page.text[page.text.index("The first pair, as the model sees it") :]
    places = [text.index(f"{name} ") for name in ("condition 48 × 48", "chosen image", "rejected image")]
    assert places == sorted(places)
    assert "where they differ" not in text
    assert "Both images are held against the same condition" in text
    assert "the policy prefers the better image" in page.text
    edit(run, "first_pair", sides=record(run, "first_pair")["sides"][:1])
    text = read(run).text
    assert "The first example, as the model sees it" in text
    assert "The judge said: desirable" in text


def test_older_records_are_shown_as_those_of_image_runs(run: Path) -> None:
    told = record(run, "first_pair")
    (run / "record" / "first_pair.json").write_text(
        json.dumps({k: told[k] for k in ("id", "outcome", "sides")})
    )
    assert "Both images are shown as the model gets them" in read(run).text


# -- fidelity --------------------------------------------------------------------------------------------------


def test_measures_are_the_headlines_of_detectors() -> None:
    assert {name: measure.higher_is_better for name, measure in MEASURES.items()} == dict(HEADLINE.values())


def test_better_is_told_in_summary_figures_findings_and_card(run: Path) -> None:
    page = read(run)
    told = "(edge F1 0.535 → 0.823; agreement of an image +0.288, 95% interval +0.248 to +0.328, 12 images)"
    assert f"Its images follow their conditions better {told}." in page.text
    assert f"note Images follow their conditions better than before training {told}." in page.text
    assert "Edge F1 of samples from 0.535 → to 0.823 higher is better; read by edges_detector" in page.text
    assert "Does it follow its conditions?" in page.text
    charts = {name.partition(".")[0]: name for name in names(page)}
    assert "sampled: from 0.5350 at step 0 to 0.8230 at 400" in charts["Edge F1 of samples"]
    assert "sampled: from 0.5150 at step 0 to 0.8030 at 400" in charts["Agreement with the condition"]
    assert "Distance between samples" in charts
    assert "Reward of samples" not in page.text  # it is the agreement under another name
    card = write_model_card(run).read_text("utf-8")
    assert "| Edge F1 of sampled images against their conditions | 0.5350 | 0.8230 |" in card
    assert "| Prompt | Condition | Before | After |" in card
    assert "![condition](record/images/given-0.png) | ![before](record/images/step-000000-0.png)" in card


def test_the_interval_is_that_of_paired_differences(run: Path) -> None:
    loaded, _ = account.read(run)
    found = follows(loaded)
    assert found is not None
    before, after = (synthetic_run.agreements(step, 0.3) for step in (0, 400))
    expected = stats.ttest_rel(after, before).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert interval([0.1, 0.2]) == (None, None)


def test_worse_is_a_warning(tmp_path: Path) -> None:
    run = synthetic_run.write_control_run(tmp_path / "run", kind="amounts", gain=-0.2)
    page = read(run)
    assert "watch out Images follow their conditions worse than before training (RMSE of depth" in page.text
    assert ", lower is better; agreement of an image −0.19" in page.text
    assert "Its images follow their conditions worse" in page.text
    assert "follow their conditions worse" in write_model_card(run).read_text("utf-8")


def test_a_change_within_noise_is_called_that(run: Path) -> None:
    told = record(run, "fidelity")
    last = told["steps"][-1]["agreement"]
    first = told["steps"][0]["agreement"]
    told["steps"][-1]["agreement"] = [a + (0.2 if n % 2 else -0.15) for n, a in enumerate(first)]
    assert len(last) == 12
    edit(run, "fidelity", **told)
    page = read(run)
    assert "How closely its images follow their conditions did not change within noise" in page.text
    assert (
        "note Whether images follow their conditions better or worse cannot be told from chance" in page.text
    )


def test_measures_that_disagree_decide_nothing(run: Path) -> None:
    log(run, eval_fidelity_edge_f1=0.4)
    page = read(run)
    assert "cannot be told from chance" in page.text
    assert "Edge F1 and agreement moved in opposite directions" in page.text


def test_colour_and_variety_that_are_lost_are_named(run: Path) -> None:
    log(run, eval_sample_diversity=0.2, eval_sample_saturation=0.08)
    page = read(run)
    assert (
        "Images of different conditions became more alike: their mean distance fell from 0.300 to 0.200"
        in page.text
    )
    assert "Samples became pale" in page.text
    log(run, eval_sample_diversity=0.29, eval_sample_saturation=0.2)
    assert "more alike" not in read(run).text


def test_a_run_without_a_detector_says_how_to_get_one(run: Path) -> None:
    (run / "record" / "fidelity.json").unlink()
    path = run / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    gone = ("eval_sample_agreement", "eval_fidelity_edge_f1", "eval_reward")
    path.write_text("".join(json.dumps({k: v for k, v in x.items() if k not in gone}) + "\n" for x in lines))
    page = read(run)
    assert "No detector read the samples" in page.text
    assert "follow their conditions better" not in page.text.replace(
        "whether they follow their conditions better", ""
    )
    assert "fidelity.json" not in page.text


# -- Delta -----------------------------------------------------------------------------------------------------


def test_delta_is_told_by_timestep(run: Path) -> None:
    page = read(run)
    told = record(run, "timesteps")
    charts = {name.partition(".")[0]: name for name in names(page)}
    for when in ("before", "after"):
        gaps = np.array(told[when]["chosen"]) - np.array(told[when]["rejected"])
        mean, std = gaps.mean(1), gaps.std(1, ddof=1)
        right = (gaps < 0).mean(1)
        assert (
            f"{when}: from {shown(mean[0])} at timestep 62 to {shown(mean[-1])} at 937"
            in charts["Delta by timestep"]
        )
        share = mean / np.array(told[when]["chosen"]).mean(1)
        assert (
            f"{when}: from {100 * share[0]:.1f}%".replace("-", "−") in charts["Delta relative to the error"]
        )
        assert f"{when}: from {100 * right[0]:.1f}%" in charts["Sign accuracy of Delta"]
        assert f"{when}: from {shown(abs(mean[0]) / std[0])}" in charts["Signal to noise of Delta"]
    assert "Measured on 48 held-out pairs" in page.text
    assert "the true condition explains the image better" in page.text


def shown(value: float) -> str:
    from prefopt.report.format import number

    return number(value)


def test_spread_is_one_standard_deviation_of_the_pairs() -> None:
    chosen, rejected = [0.1, 0.2, 0.5, math.nan, None], [0.3, 0.3, 0.4, 0.1, 0.1]
    found = at(chosen, rejected)
    gaps = np.array([-0.2, -0.1, 0.1])
    assert found.pairs == 3
    assert (found.mean, found.std) == pytest.approx((gaps.mean(), gaps.std(ddof=1)))
    assert found.snr == pytest.approx(abs(gaps.mean()) / gaps.std(ddof=1))
    assert found.right == pytest.approx(2 / 3)
    assert found.relative == pytest.approx(gaps.mean() / np.mean([0.1, 0.2, 0.5]))
    assert math.isnan(at([0.1], [0.2]).snr)
    assert at([], []).pairs == 0


def test_there_is_no_delta_of_single_images_nor_before_the_end(run: Path) -> None:
    edit(run, "timesteps", paired=False)
    assert "deltas" not in read(run).ids()
    edit(run, "timesteps", paired=True)
    assert "deltas" in read(run).ids()
    edit(run, "timesteps", after=None)
    assert "deltas" not in read(run).ids()
    edit(run, "timesteps", timesteps="none", after=[1])
    assert "cannot be drawn" not in read(run).text


# -- what runs write -------------------------------------------------------------------------------------------


def test_diversity_is_the_mean_distance_of_two_images() -> None:
    images = torch.rand(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    pairs = [(a, b) for a in range(4) for b in range(a)]
    expected = np.mean([float((images[a] - images[b]).square().mean().sqrt()) for a, b in pairs])
    assert diversity(images) == pytest.approx(expected, rel=1e-5)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pipelines.tiny_control(tmp_path_factory.mktemp("control") / "sd")


def condition_rows(folder: Path) -> Path:
    """Each row's losing condition is the next one's true one."""
    rows = edge_rows(folder)
    told = [json.loads(line) for line in rows.read_text().splitlines()]
    for n, row in enumerate(told):
        row |= {
            "chosen_condition": row.pop("condition"),
            "rejected_condition": f"{(n + 1) % len(told)}-condition.png",
        }
    rows.write_text("".join(json.dumps(row) + "\n" for row in told))
    return rows


@pytest.fixture(scope="module")
def real(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on conditions."""
    folder = tmp_path_factory.mktemp("real")
    options = {**QUIET, "detector": DETECTOR, "eval_size": 2, "sample_prompts": 3, "num_inference_steps": 2, "max_steps": 2,
               "eval_steps": 1, "learning_rate": 1e-3, "warmup_steps": 0}  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFOPT_CACHE", str(folder / "cache"))
        prefopt.train(
            "condition_po",
            model=model,
            data=condition_rows(folder),
            output_dir=str(folder / "run"),
            **options,
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
