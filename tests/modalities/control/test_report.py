"""Page and card of control runs: conditions beside what was drawn, departures, fidelity, Delta."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from scipy import stats

from modalities.control import synthetic_run
from modalities.image.image_runs import record
from modalities.image.test_report import names
from prefopt.modalities.control.detectors import HEADLINE
from prefopt.modalities.control.report.fidelity import MEASURES, follows, interval
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
    assert "How closely its images follow their conditions did not change beyond noise" in page.text
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
