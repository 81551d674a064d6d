"""The page and the card of a run on motions, read as a browser reads them."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import math
import random
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modalities.motion.report import synthetic_motion_run as synthetic
from prefopt.modalities.motion.report import ACCOUNT
from prefopt.modalities.motion.report.takes import decoded, encoded
from prefopt.motion import camera
from prefopt.report import write_model_card, write_report
from prefopt.report.account import read as read_run
from report.html_page import Page
from report.test_report import edit, log, paths_of, read
from tiny_motions import tiny_mdm

RECORDS = ("manifest", "data", "first_pair", "margins", "samples", "calibration")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return synthetic.write_motion_run(tmp_path / "moves")


def record(run: Path, name: str) -> Any:
    return json.loads((run / "record" / f"{name}.json").read_text("utf-8"))


def players(page: Page) -> list[tuple[dict[str, str], list[dict[str, str]]]]:
    """Attributes of each player that plays, and of its takes."""
    found: list[tuple[dict[str, str], list[dict[str, str]]]] = []
    for tag, attrs in page.elements:
        if tag == "article" and attrs.get("class") == "player" and "data-fps" in attrs:
            found.append((attrs, []))
        if "data-motion" in attrs:
            found[-1][1].append(attrs)
    return found


def as_the_script_reads(take: dict[str, str], joints: int) -> np.ndarray:
    """Bytes to metres in the plainest way: signed 16-bit, low byte first, x y z of joint by joint."""
    raw = base64.b64decode(take["data-motion"])
    whole = struct.unpack(f"<{len(raw) // 2}h", raw)
    return np.array(whole, dtype=float).reshape(-1, joints, 3) * float(take["data-unit"])


def told(run: Path) -> str:
    return read(run).text


# -- what moves ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["humanml3d", "kit"])
def test_what_the_page_plays_is_what_was_recorded(tmp_path: Path, codec: str) -> None:
    run = synthetic.write_motion_run(tmp_path / "moves", codec=codec)
    found = players(read(run))
    prompts, joints = record(run, "samples")["prompts"], len(synthetic.shape(codec)["parents"])
    assert len(found) == len(prompts) + 1
    for (attrs, takes), entry in zip(found, prompts, strict=False):
        assert float(attrs["data-fps"]) == synthetic.shape(codec)["fps"]
        assert json.loads(attrs["data-parents"]) == synthetic.shape(codec)["parents"]
        assert [take["data-name"] for take in takes] == ["before", "after"]
        for take, generation in zip(takes, (entry["generations"][0], entry["generations"][-1]), strict=True):
            np.testing.assert_allclose(as_the_script_reads(take, joints), generation["motion"], atol=1e-9)
    sides = record(run, "first_pair")["sides"]
    for take, side in zip(found[-1][1], sides, strict=True):
        np.testing.assert_allclose(as_the_script_reads(take, joints), side["motion"], atol=1e-9)
    assert [len(as_the_script_reads(take, joints)) for take in found[-1][1]] == [40, 20]


def test_sides_and_head_are_those_of_the_skeleton(run: Path) -> None:
    attrs, _ = players(read(run))[0]
    assert attrs["data-sides"] == "mlrmlrmlrmlrmlrmlrlrlr"
    assert int(attrs["data-head"]) == 15
    assert {"left limbs", "right limbs"} <= {
        line for line in ("left limbs", "right limbs") if line in told(run)
    }


def test_a_motion_that_goes_far_keeps_its_way() -> None:
    far = np.linspace(0, 400, 50 * 22 * 3).reshape(50, 22, 3)
    text, unit = encoded(far)
    assert unit == pytest.approx(400 / 32767)
    np.testing.assert_allclose(decoded(text, unit, 22), far, atol=unit)


def test_fast_motions_are_thinned_without_changing_their_time(run: Path) -> None:
    samples = record(run, "samples")
    edit(run, "samples", settings=samples["settings"] | {"fps": 60.0})
    attrs, takes = players(read(run))[0]
    assert float(attrs["data-fps"]) == 20
    there = as_the_script_reads(takes[0], 22)
    np.testing.assert_allclose(there, samples["prompts"][0]["generations"][0]["motion"][::3], atol=1e-9)


def test_a_page_of_long_motions_stays_light(tmp_path: Path) -> None:
    run = synthetic.write_motion_run(tmp_path / "moves", frames=196, prompts=6)
    assert write_report(run).stat().st_size < 1_500_000
    assert len(players(read(run))) == 7


def test_too_many_motions_are_left_out_and_counted(tmp_path: Path) -> None:
    run = synthetic.write_motion_run(tmp_path / "moves", frames=10, prompts=2)
    samples = record(run, "samples")
    long = [samples["prompts"][0]["generations"][0]["motion"][0]] * 4000
    for entry in samples["prompts"]:
        for generation in entry["generations"]:
            generation["motion"] = long
    edit(run, "samples", prompts=samples["prompts"])
    page = read(run)
    assert len(players(page)) == 2  # one prompt, and the first pair
    assert "1 more prompt, 1 more moment of training" in page.text


def test_the_script_is_the_only_one_that_may_run(run: Path) -> None:
    page = read(run)
    policy = next(a["content"] for t, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert len(page.scripts) == 1
    assert "class Player" in page.scripts[0]
    digest = base64.b64encode(hashlib.sha256(page.scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert not re.search(
        r"\b(fetch|XMLHttpRequest|import|WebSocket|eval)\b\s*\(|https?://(?!www\.w3\.org)", page.scripts[0]
    )
    assert not page.tags() & {"link", "iframe", "img", "object", "video", "canvas"}


def test_the_player_and_the_stills_have_one_camera() -> None:
    for name in ("YAW", "PITCH", "DISTANCE", "FILLED", "SPACING"):
        (value,) = re.findall(rf"\b{name} = ([\d.]+)", ACCOUNT.own_script())
        assert float(value) == getattr(camera, name), name


def test_stills_are_there_without_the_script(run: Path) -> None:
    page = read(run)
    names = [
        attrs["aria-label"]
        for tag, attrs in page.elements
        if tag == "svg" and "poses along time" in attrs.get("aria-label", "")
    ]
    assert len(names) == 2 * 5
    assert names[0] == "before: a person walks forward, poses along time"
    assert "0.0 s 0.5 s 1.0 s" in page.text


# -- what is said --------------------------------------------------------------------------------------------


def test_the_page_says_what_the_files_say(run: Path) -> None:
    text = told(run)
    for part in (
        "Semi-online preference optimization on 6,000 examples, 200 steps. By its denoising error relative to the reference's, the "
        "policy prefers the better motion in 69.0% of held-out comparisons, 50.0% at the start. The judge's score of its losers rose from "
        "0.406 to 0.496. The score of its own motions rose from 0.500 to 0.690.",
        "retrieval score of sampled motions",
        "Mean score over these 4 prompts 0.250 → 0.750: 4 better, 0 worse, 0 unchanged.",
        "the judge's mean over samples drawn while training; 0.810 for the data",
        "The judge said: the chosen side wins",
        "6,000 of 6,400 rows",
        "12,000 motions, 11,990 different ones, with 18,000 captions. Features of humanml3d, 20 frames a second.",
        "motions, seconds 2 6 9.500 9.950 5.920",
        "Losers kept", "Judge's score of samples", "Slope of the loss", "Denoising error of both sides", "Jerk of samples",
    ):  # fmt: skip
        assert part in text, part
    assert "could not be" not in text
    assert "sopo/kept" not in text  # of held-out pairs it is 1, whatever the judge vetoes
    assert "Before you trust these numbers" not in text
    assert not re.search(
        r"\b(tokens?|answers?|images?|log-prob\w*|logps?|nats|sequence)\b",
        text.split("Run and configuration")[0],
    )


def test_held_out_rows_are_called_so(run: Path) -> None:
    text = told(run)
    assert "Held-out accuracy" in text
    assert "effective batch size" in text
    assert "pairs that it collects" not in text


def finding(run: Path, **changes: Any) -> str:
    log(run, *synthetic.metrics(random.Random(0), **changes))
    return told(run).split("How the model moves")[0]


def test_a_straight_loss_is_told(run: Path) -> None:
    assert "stayed within 0.5 ± 0.005" in finding(run, slope=0.504)
    assert "raise beta." in finding(run, slope=0.496)
    assert "stayed within" not in finding(run, slope=0.51)


def test_a_straight_loss_on_the_scale_of_the_released_code_has_its_own_remedy(run: Path) -> None:
    (run / "config.yaml").write_text("method: sopo\nerror_scale: mean\n")
    assert "set error_scale=steps" in finding(run, slope=0.5)


def test_a_saturated_loss_is_told(run: Path) -> None:
    assert "the loss is saturated" in finding(run, slope=0.005)
    assert "saturated" not in finding(run, slope=0.05)


def test_a_judge_that_vetoes_all_or_none_is_told(run: Path) -> None:
    assert "vetoed 99.0% of the losers from the start (tau 0.450)" in finding(run, kept=0.01)
    assert "kept 100.0% of the losers (tau 0.450)" in finding(run, kept=1.0)
    assert "of the losers" not in finding(run, kept=0.5)


def test_without_a_veto_all_losers_are_kept_by_design(run: Path) -> None:
    edit(run, "calibration", tau=None)
    assert "good samples are pushed away" not in finding(run, kept=1.0)


def change(run: Path, **last: float) -> str:
    """The top of the page where the last evaluation says something else."""
    lines = synthetic.metrics(random.Random(0))
    lines[-1] |= {f"eval_{name}": value for name, value in last.items()}
    log(run, *lines)
    return told(run).split("How the model moves")[0]


@pytest.mark.parametrize(
    ("last", "said"),
    [
        ({"reward": 0.4}, "Samples score lower than before training: 0.500 to 0.400. The judge that trains it likes its samples more"),
        ({"sample_jerk": 120.0}, "Samples tremble more than before training: mean jerk 60 to 120 m/s³."),
        ({"sample_jerk": 20.0}, "Samples move far less sharply"),
        ({"displacement": 0.8}, "larger error than under the reference in 80.0% of comparisons"),
        ({"sample_change": 0.001}, "less than the eye can see (root mean square distance of joints 1 mm)"),
    ],
)  # fmt: skip
def test_what_went_wrong_is_told(run: Path, last: dict[str, float], said: str) -> None:
    assert said not in told(run)
    assert said in change(run, **last)


# -- folders that are not whole --------------------------------------------------------------------------------


def test_a_record_that_says_nothing_of_joints_draws_none(run: Path) -> None:
    edit(run, "samples", settings={"num_inference_steps": 50})
    text = told(run)
    assert "The record of the samples does not say how joints hang together" in text
    assert len(players(read(run))) == 1


def test_a_skeleton_of_another_name_is_drawn_without_sides(run: Path) -> None:
    edit(run, "samples", settings=record(run, "samples")["settings"] | {"codec": "mine"})
    edit(run, "first_pair", codec="mine")
    page = read(run)
    assert players(page)[0][0]["data-sides"] == "m" * 22
    assert "left limbs" not in page.text


@pytest.mark.parametrize(
    "junk", [None, [], "text", [[1, 2]], [[[0.0, 0.0, math.nan]] * 22], [[[0.0, 0.0, 0.0]] * 21], {"a": 1}]
)
def test_a_motion_that_cannot_be_drawn_leaves_the_others(run: Path, junk: Any) -> None:
    prompts = record(run, "samples")["prompts"]
    prompts[0]["generations"][0]["motion"] = junk
    edit(run, "samples", prompts=prompts)
    page = read(run)
    assert [len(takes) for _, takes in players(page)] == [1, 2, 2, 2, 2]
    assert ("no motion was recorded" if junk is None else "the recorded motion cannot be drawn") in page.text


@pytest.mark.parametrize("name", RECORDS)
def test_a_page_without_a_record_still_shows_the_others(run: Path, name: str) -> None:
    (run / "record" / f"{name}.json").unlink()
    page = read(run)
    assert len(players(page)) == {"samples": 1, "first_pair": 4}.get(name, 5)
    assert len(page.ids()) == len(set(page.ids()))
    write_model_card(run)


@pytest.mark.parametrize("seed", range(3))
def test_no_malformed_entry_breaks_the_page(run: Path, seed: int) -> None:
    rng = random.Random(seed)
    junk: list[Any] = [
        None,
        "text",
        [],
        {},
        math.nan,
        math.inf,
        -1,
        0,
        True,
        [None],
        [[1]],
        {"a": None},
        10**400,
    ]
    good = {name: record(run, name) for name in RECORDS}
    for entry in good["samples"]["prompts"]:
        for generation in entry["generations"]:
            generation["motion"] = generation["motion"][:4]
    for _ in range(12):
        for name in RECORDS:
            value = copy.deepcopy(good[name])
            *parents, key = rng.choice(paths_of(value)[1:])
            target: Any = value
            for step in parents:
                target = target[step]
            target[key] = rng.choice(junk)
            (run / "record" / f"{name}.json").write_text(json.dumps(value))
        page = read(run)
        assert "Training curves" in page.text
        assert "cannot be shown: " not in page.text
        write_model_card(run)


def test_names_of_files_become_no_markup(run: Path) -> None:
    html = write_report(run).read_text("utf-8")
    assert synthetic.NASTY not in html
    assert synthetic.NASTY in Page(html).text


def test_a_folder_without_a_manifest_is_recognised_by_its_model(run: Path) -> None:
    (run / "record" / "manifest.json").unlink()
    assert isinstance(read_run(run)[1], type(ACCOUNT))
    (run / "record" / "data.json").unlink()
    assert isinstance(read_run(run)[1], type(ACCOUNT))
    (run / "model" / "model_index.json").unlink()
    assert not isinstance(read_run(run)[1], type(ACCOUNT))


# -- the model -------------------------------------------------------------------------------------------------


def code_of(run: Path) -> str:
    loaded, account = read_run(run)
    return account.loading(loaded).code


def test_the_code_of_the_page_draws_a_motion(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_mdm(run / "model")
    prompts = record(run, "samples")["prompts"]
    for entry in prompts:
        for generation in entry["generations"]:
            generation["length"] = 12
    edit(
        run,
        "samples",
        prompts=prompts,
        settings=record(run, "samples")["settings"] | {"num_inference_steps": 2},
    )
    monkeypatch.chdir(tmp_path)
    exec(code_of(run), {})
    assert (tmp_path / "motion.gif").is_file()


def test_the_code_of_adapters_loads_their_base_first(run: Path) -> None:
    (run / "model" / "model_index.json").unlink()
    (run / "config.yaml").write_text("method: sopo\nuse_peft: true\nmodel: world:motion\n")
    edit(run, "manifest", model={"source": "world:motion"})
    code = code_of(run)
    assert 'MotionPipeline.from_pretrained(get_world("motion").model_dir())' in code
    assert 'load_lora(pipe, "moves/model")' in code
    compile(code, "page", "exec")


def test_the_card_shows_poses_of_pictures_that_are_there(run: Path) -> None:
    prompts = record(run, "samples")["prompts"]
    (run / "record" / "images").mkdir()
    for n, entry in enumerate(prompts):
        for generation, name in zip(entry["generations"], ("first", "newest", "newest"), strict=True):
            generation["poses"] = f"record/images/motion-{n}-{name}.png"
            if n != 1:
                (run / generation["poses"]).write_bytes(b"")
    prompts[2]["generations"][0]["poses"] = "../../secrets.png"
    edit(run, "samples", prompts=prompts)
    card = write_model_card(run).read_text("utf-8")
    assert "Poses along time, of motions for the same prompts from the same noise" in card
    row = "| a person walks forward | ![before](record/images/motion-0-first.png) | ![after](record/images/motion-0-newest.png) |"
    assert row in card
    assert "motion-1" not in card
    assert "motion-2" not in card
    assert "secrets" not in card


def test_the_card_measures_motions(run: Path) -> None:
    card = write_model_card(run).read_text("utf-8")
    for line in (
        "text-to-motion", "library_name: prefopt", "| Motions | 12,000 |", "| Captions | 18,000 |",
        "| Reward of sampled motions | 0.5000 | 0.6900 |", "| Judge's score of losers | 0.4025 | 0.5000 |",
        "| Jerk of sampled motions, m/s³ | 60 | 64.75 |", "| `candidate_steps` | 10 |", "MotionPipeline.from_pretrained",
    ):  # fmt: skip
        assert line in card, line
