from __future__ import annotations

import base64
import copy
import io
import json
import math
import random
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from modalities.image import synthetic_run
from prefopt.report import write_report
from report import synthetic_run as text_run
from report.html_page import Page
from report.test_report import edit, log, paths_of, read, series

RECORDS = ("manifest", "data", "first_pair", "margins", "samples")
OF_TEXTS = r"\b(tokens?|texts?|answers?|writes|log-prob\w*|logps?|nats|sequence|verifier|length gap)\b"


@pytest.fixture
def offline(tmp_path: Path) -> Path:
    return synthetic_run.write_image_run(tmp_path / "pictures")


@pytest.fixture
def online(tmp_path: Path) -> Path:
    return synthetic_run.write_image_run(tmp_path / "steps", online=True)


def images(page: Page) -> list[dict[str, str]]:
    return [attrs for tag, attrs in page.elements if tag == "img"]


def decoded(attrs: dict[str, str]) -> Image.Image:
    head, _, content = attrs["src"].partition(",")
    assert head in ("data:image/png;base64", "data:image/jpeg;base64")
    return Image.open(io.BytesIO(base64.b64decode(content)))


def names(page: Page) -> list[str]:
    """Charts, as a screen reader calls them."""
    return [attrs["aria-label"] for tag, attrs in page.elements if tag == "svg" and "aria-label" in attrs]


def test_the_page_says_what_the_files_say(offline: Path) -> None:
    page = read(offline)
    for text in (
        "Diffusion-DPO on 5,120 examples, 400 steps. By its denoising error relative to the reference's, the policy prefers the "
        "better image in 61.2% of held-out comparisons, 50.0% at the start. Its error on chosen images rose by 0.094%, that on "
        "rejected ones by 0.24%. The score of its own images rose from 20.4 to 21.1.",
        "95% interval 57.2% to 65.2%, 569 comparisons", "pickscore score of sampled images", "2 h 15 min",
        "Mean over these 4 prompts 20.8 → 21.7: 3 better, 1 worse, 0 unchanged.", "The judge said: the chosen side wins",
        "5,689 of 6,400 rows", "11,378 images, 11,001 different ones, 1.42 GiB of files. 214 pairs have sides of different size.",
        "512 × 512 9,800", "JPEG 11,000", "RGB 11,370", "other 78", "dropped: tie 640", "dropped: image unreadable 71",
    ):  # fmt: skip
        assert text in page.text, text
    assert "could not be" not in page.text


@pytest.mark.parametrize("kind", ["offline", "online", "judge"])
def test_nothing_speaks_of_texts(kind: str, request: pytest.FixtureRequest) -> None:
    run = request.getfixturevalue("offline" if kind == "judge" else kind)
    if kind == "judge":
        edit(run, "manifest", model={"source": "m", "class": "LatentRewardModel"})
    page = read(run)
    for shown in (page.text, *names(page)):
        found = re.search(OF_TEXTS, shown, re.I)
        assert found is None, shown[max(0, found.start() - 60) : found.end() + 60]


def test_a_page_of_texts_shows_no_image(tmp_path: Path) -> None:
    run = text_run.write_run(tmp_path / "ties-run")
    assert "tokens" in read(run).text
    assert images(read(run)) == []


def test_keys_that_mean_nothing_to_images_are_not_shown(offline: Path, tmp_path: Path) -> None:
    """Every saved configuration holds them."""
    of_texts = ("max_length", "sample_max_new_tokens", "sample_temperature", "load_in_4bit")
    shown = read(offline).text
    assert all(key in shown for key in ("resolution", "num_inference_steps", "logging_steps"))
    assert not [key for key in of_texts if key in shown]
    assert "max_length" in read(text_run.write_run(tmp_path / "ties-run")).text
    edit(offline, "manifest", modality="not-installed-here")
    assert all(key in read(offline).text for key in of_texts)


def test_images_travel_inside_the_page(offline: Path) -> None:
    page = read(offline)
    shown = images(page)
    assert len(shown) == 4 * 5 + 2
    for attrs in shown:
        assert decoded(attrs).size == (48, 48)
        assert (attrs["width"], attrs["height"], attrs.get("class")) == ("48", "48", "crisp")
    assert shown[0]["alt"] == f"before: {synthetic_run.PROMPTS[0]}"
    original = Image.open(offline / "record" / "images" / "step-000000-0.png").convert("RGB")
    assert decoded(shown[0]).tobytes() == original.tobytes()
    for tag, attribute, address in page.addresses():
        inside = address.startswith("#") or (tag == "img" and address.startswith("data:image/"))
        assert inside or address.startswith("https://arxiv.org/abs/"), (tag, attribute, address[:80])


def test_large_images_are_made_small_and_not_squared(offline: Path) -> None:
    for path in (offline / "record" / "images").iterdir():
        Image.effect_noise((900, 600), 90).convert("RGB").save(path, compress_level=1)
    path = write_report(offline)
    assert path.stat().st_size < 3_000_000
    sizes = [decoded(attrs).size for attrs in images(Page(path.read_text("utf-8")))]
    assert sizes[0] == (320, 213)
    assert max(max(size) for size in sizes) <= 512
    assert not any("crisp" in attrs.get("class", "") for attrs in images(Page(path.read_text("utf-8"))))
    assert "900 × 600 pixels" in read(offline).text


def test_rows_are_prompts_and_columns_moments(offline: Path) -> None:
    page = read(offline)
    labels = [attrs["alt"].split(":")[0] for attrs in images(page)[:5]]
    assert labels == ["before", "step 80", "step 200", "step 280", "after"]
    assert "before 20.00 step 80 20.28 step 200 20.70 step 280 20.98 after 21.40" in page.text
    assert "6 more moments of training" in page.text
    assert [attrs["alt"].partition(": ")[2] for attrs in images(page)[:20:5]] == synthetic_run.PROMPTS


def test_a_prompt_that_was_not_drawn_at_a_step_leaves_a_gap(offline: Path) -> None:
    prompts = json.loads((offline / "record" / "samples.json").read_text())["prompts"]
    prompts[1]["generations"].pop()
    edit(offline, "samples", prompts=prompts)
    page = read(offline)
    assert len(images(page)) == 21
    assert "not drawn" in page.text


def test_a_missing_or_broken_image_is_named_and_the_rest_is_shown(offline: Path) -> None:
    pictures = offline / "record" / "images"
    (pictures / "step-000400-0.png").unlink()
    (pictures / "step-000000-1.png").write_bytes((pictures / "step-000000-1.png").read_bytes()[:60])
    (pictures / "first-rejected.png").write_bytes(b"no picture")
    page = read(offline)
    assert "record/images/step-000400-0.png is not there" in page.text
    assert "record/images/step-000000-1.png cannot be read" in page.text
    assert "record/images/first-rejected.png cannot be read" in page.text
    assert len(images(page)) == 19


@pytest.mark.parametrize("way", ["../secret.png", "absolute", "link"])
def test_no_file_outside_the_run_folder_gets_into_the_page(offline: Path, way: str) -> None:
    secret = offline.parent / "secret.png"
    Image.new("RGB", (20, 10), "red").save(secret)
    address = {"absolute": str(secret), "link": "record/images/link.png"}.get(way, way)
    (offline / "record" / "images" / "link.png").symlink_to(secret)
    side = {"name": "chosen", "prompt": "p", "image": address}
    edit(offline, "first_pair", sides=[side, side])
    page = read(offline)
    assert "lies outside the run folder" in page.text
    assert (20, 10) not in [decoded(attrs).size for attrs in images(page)]


def test_errors_replace_log_probabilities(offline: Path) -> None:
    charts = [name for name in names(read(offline)) if name.startswith("Denoising error of both sides.")]
    assert charts == [
        "Denoising error of both sides. chosen, held-out: from 0.1200 at step 0 to 0.1201 at 400; "
        "rejected, held-out: from 0.1210 at step 0 to 0.1213 at 400."
    ]


def test_the_noise_of_training_does_not_drown_held_out_errors(offline: Path) -> None:
    svg = re.search(
        r'<svg viewBox[^>]*aria-label="Denoising error.*?</svg>',
        write_report(offline).read_text("utf-8"),
        re.S,
    )
    assert svg
    assert svg.group().count('<path class="line') == 2


def test_training_errors_are_shown_where_nothing_is_held_out(offline: Path) -> None:
    log(
        offline,
        *series("logps/chosen", -0.2, -0.3, split="train"),
        *series("logps/rejected", -0.2, -0.4, split="train"),
    )
    charts = [name for name in names(read(offline)) if name.startswith("Denoising error")]
    assert "chosen: from 0.2000 at step 0 to 0.3000 at 10" in charts[0]


def test_without_a_reference_rewards_are_not_drawn_beside_errors(offline: Path) -> None:
    lines = [json.loads(line) for line in (offline / "metrics.jsonl").read_text().splitlines()]
    log(offline, *({k: v for k, v in line.items() if "displacement" not in k} for line in lines))
    page = read(offline)
    assert not [name for name in names(page) if name.startswith(("Rewards of both", "Displacement"))]
    assert [name for name in names(page) if name.startswith("Denoising error")]
    assert "By its denoising error, the policy prefers" in page.text


def test_methods_that_sample_show_their_collections(online: Path) -> None:
    page = read(online)
    for title in (
        "Pairs kept",
        "Gap between best and worst",
        "Judge's score of candidates",
        "Outside the clip",
        "Change of samples",
    ):
        assert [name for name in names(page) if name.startswith(title)], title
    assert not [name for name in names(page) if name.startswith("Denoising error")]
    assert "3,998 of 4,000 prompts" in page.text
    assert "on 3,998 prompts, 400 steps" in page.text
    assert "is not there" not in page.text  # margins and a first pair are not missing: there are none
    assert "Nothing was held out" not in page.text
    assert not {"margins", "first-pair"} & set(page.ids())
    assert ("a", "href", "https://openreview.net/forum?id=d6lIOnvOX2") in page.addresses()


def test_offline_methods_miss_their_records(offline: Path) -> None:
    (offline / "record" / "margins.json").unlink()
    assert "record/margins.json is not there" in read(offline).text


def test_a_single_image_has_a_label_and_no_opponent(offline: Path) -> None:
    side = {"name": "chosen", "prompt": "a moon", "image": "record/images/first-chosen.png"}
    edit(offline, "first_pair", sides=[side], outcome=[0.0, 1.0, 0.0])
    edit(offline, "data", rows=9, examples=18, comparisons={"desirable": 9, "undesirable": 9})
    page = read(offline)
    assert "The judge said: undesirable" in page.text
    assert "First image" in page.text
    assert "18 examples come from the 9 rows" in page.text
    assert len(images(page)) == 21


def test_without_a_manifest_the_files_tell_that_it_is_images(offline: Path) -> None:
    (offline / "record" / "manifest.json").unlink()
    page = read(offline)
    assert "What the model draws" in page.text
    assert len(images(page)) == 22


ACCURACY = series("rewards/accuracies", 0.5, 0.8)
REWARD = series("reward", 0.4, 0.5)
RISING = [
    *series("logps/chosen", -0.12, -0.13), *series("logps/rejected", -0.12, -0.15), *series("rewards/rejected", 0.0, -0.3),
]  # fmt: skip
KEPT = series("collect/kept", 0.3, 0.3, split="train")
OFFLINE = [
    (
        [*RISING, *series("rewards/margins", 0.0, 0.2), *series("displacement", 0.0, 0.49), *series("rewards/chosen", 0.0, -0.1)],
        [*RISING, *series("rewards/margins", 0.0, 0.2), *series("displacement", 0.0, 0.6), *series("rewards/chosen", 0.0, -0.1)],
        "Both denoising errors rose above the reference's: the margin grows only because losers get worse faster "
        "(displacement 60.0%; errors: chosen +8.3%, rejected +25%)",
    ),
    (
        [*RISING, *series("rewards/margins", 0.0, 0.2), *series("displacement", 0.0, 0.49), *series("rewards/chosen", 0.0, 0.1)],
        [*RISING, *series("rewards/margins", 0.0, 0.2), *series("displacement", 0.0, 0.6), *series("rewards/chosen", 0.0, 0.1)],
        "Chosen images have a larger error than under the reference in 60.0% of comparisons",
    ),
    (
        series("logps/chosen", -0.12, -0.1205), series("logps/chosen", -0.12, -0.125),
        "The denoising error of chosen images rose (chosen +4.2%).",
    ),
    (series("reward", 0.4, 0.4), series("reward", 0.4, 0.3), "Samples score lower than before training: 0.400 to 0.300"),
    (
        [*REWARD, *series("sample_saturation", 0.2, 0.29)], [*REWARD, *series("sample_saturation", 0.2, 0.31)],
        "Samples became far more colourful while their reward rose: mean saturation 0.200 to 0.310",
    ),
    (series("sample_saturation", 0.2, 0.11), series("sample_saturation", 0.2, 0.09), "Samples became pale: mean saturation"),
    (series("sample_saturation", 0.02, 0.05), series("sample_saturation", 0.02, 0.08), "Samples became far more colourful"),
    (series("sample_change", 0.0, 0.29), series("sample_change", 0.0, 0.31), "little in common with those before training"),
    (series("sample_change", 0.0, 0.01), series("sample_change", 0.0, 0.003), "below one of 255 grey levels"),
    ([*REWARD, *series("sample_change", 0.0, 0.1)], series("sample_change", 0.0, 0.1), "Samples were not scored"),
    (series("loss", 0.6931, 0.68), series("loss", 0.6931, 0.693), "still sits at its zero-margin value (0.6931)"),
]  # fmt: skip
ONLINE = [
    (KEPT, series("collect/kept", *[0.3] * 19, 0.004, 0.006, split="train"), "Only 0.50% of the candidates' pairs passed"),
    (
        series("step_dpo/clipped_both", 0.1, 0.4, split="train"), series("step_dpo/clipped_both", 0.1, 0.97, split="train"),
        "97.0% of the pairs have both sides outside the clip",
    ),
    (
        series("displacement", 0.1, 0.4, split="train"), series("displacement", 0.1, 0.6, split="train"),
        "Chosen steps became less likely than under the reference (displacement 60.0%)",
    ),
    (
        series("collect/gap", 0.4, 0.2, split="train"), series("collect/gap", 0.4, 0.05, split="train"),
        "gap between the best and the worst candidate shrank from 0.400 to 0.0500",
    ),
    (
        [*series("reward", 0.4, 0.5), *series("collect/score", 1.0, 2.0, split="train")],
        [*series("reward", 0.4, 0.3), *series("collect/score", 1.0, 2.0, split="train")],
        "0.400 to 0.300. The judge that trains it likes its candidates more",
    ),
]  # fmt: skip


def warnings(run: Path) -> str:
    _, _, shown = read(run).text.partition("Before you trust these numbers")
    return shown.partition("What the model draws")[0]


@pytest.mark.parametrize(("calm", "alarming", "message"), OFFLINE, ids=[message for *_, message in OFFLINE])
def test_a_warning_is_given_past_its_threshold_only(
    offline: Path, calm: list[dict[str, Any]], alarming: list[dict[str, Any]], message: str
) -> None:
    log(offline, *ACCURACY, *calm)
    assert message[:40] not in warnings(offline)
    log(offline, *ACCURACY, *alarming)
    assert message in warnings(offline)


@pytest.mark.parametrize(("calm", "alarming", "message"), ONLINE, ids=[message for *_, message in ONLINE])
def test_a_warning_about_a_collection_is_given_past_its_threshold_only(
    online: Path, calm: list[dict[str, Any]], alarming: list[dict[str, Any]], message: str
) -> None:
    log(online, *calm)
    assert message[-40:] not in warnings(online)
    log(online, *alarming)
    assert message in warnings(online)


def test_the_training_loss_of_images_may_hover_at_zero_margin(offline: Path) -> None:
    values = [0.693] * 20
    log(offline, *series("loss", *values, split="train"), *series("loss", 0.6931, 0.6, 0.55), *ACCURACY)
    assert "zero-margin value" not in warnings(offline)


def test_the_advice_names_a_sum_that_can_be_run(offline: Path) -> None:
    assert "(method=diffusion_dpo+500*sft)" in warnings(offline)
    (offline / "config.yaml").write_text("method: diffusion_dpo+500*sft\nbeta: 5000.0\n")
    assert "give the sft term more weight" in warnings(offline)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["offline", "online"])
def test_no_malformed_entry_breaks_the_page(kind: str, seed: int, request: pytest.FixtureRequest) -> None:
    run = request.getfixturevalue(kind)
    rng = random.Random(seed)
    junk: list[Any] = [
        None,
        "a/../b",
        [],
        {},
        math.nan,
        -1,
        1e400,
        True,
        [None],
        [[1]],
        {"a": None},
        10**400,
        "x" * 5000,
    ]
    records = [name for name in RECORDS if (run / "record" / f"{name}.json").exists()]
    good = {name: json.loads((run / "record" / f"{name}.json").read_text()) for name in records}
    good["samples"]["prompts"] = [
        p | {"generations": p["generations"][::10]} for p in good["samples"]["prompts"][:2]
    ]
    for _ in range(10):
        for name in records:
            record = copy.deepcopy(good[name])
            *parents, key = rng.choice(paths_of(record)[1:])
            target: Any = record
            for step in parents:
                target = target[step]
            target[key] = rng.choice(junk)
            (run / "record" / f"{name}.json").write_text(json.dumps(record))
        page = read(run)
        assert "Training curves" in page.text
        assert "This part could not be drawn" not in page.text, re.findall(r"of the run \((.*?)\)", page.text)


def test_the_same_files_give_the_same_page(offline: Path) -> None:
    assert write_report(offline).read_bytes() == write_report(offline).read_bytes()
