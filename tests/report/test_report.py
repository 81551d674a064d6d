from __future__ import annotations

import base64
import copy
import hashlib
import json
import math
import random
import re
from pathlib import Path
from typing import Any

import pytest

from prefopt.report import write_report
from report import synthetic_run
from report.html_page import Page

RECORDS = ("manifest", "data", "first_pair", "margins", "samples")
FILES = ["config.yaml", "metrics.jsonl", *(f"record/{name}.json" for name in RECORDS)]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return synthetic_run.write_run(tmp_path / "ties-run")


def read(run: Path) -> Page:
    return Page(write_report(run).read_text("utf-8"))


def edit(run: Path, record: str, **changes: Any) -> None:
    path = run / "record" / f"{record}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def log(run: Path, *lines: dict[str, Any]) -> None:
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_page_says_what_the_files_say(run: Path) -> None:
    page = read(run)
    for text in (
        "83.1%", "50.0%", "95% interval 78.2% to 87.1%, 268 comparisons", "0.583", "4.22", "61.8%", "5 min 12 s", "2 CPU cores",
        "3,538 of 3,600 rows", "2,685", "853", "dropped: prompt too long 7", "truncated, chosen 12", "24.31",
        "27 tokens, 10 scored", "the chosen side wins", "1,843,200 of 1,843,200", "learning_rate", "5e-05", "2026-11-23 10:02 UTC",
        "On Extending Direct Preference Optimization to Accommodate Ties", "0.472 → 0.950: 4 better, 1 worse, 1 unchanged",
    ):  # fmt: skip
        assert text in page.text, text
    assert "could not be" not in page.text


def test_the_summary_is_a_sentence_made_of_the_numbers(run: Path) -> None:
    assert (
        "DPO with ties (Rao-Kupper) on 3,184 examples, 600 steps. The policy ranks the better answer higher in 83.1% of "
        "held-out comparisons, 50.0% at the start. The score of its own answers rose from 0.312 to 0.583, at a KL of "
        "4.22 nats a sequence."
    ) in read(run).text


def test_nothing_is_fetched(run: Path) -> None:
    page = read(run)
    for tag, attribute, address in page.addresses():
        inside = address.startswith("#")
        citation = (tag, attribute) == ("a", "href") and address.startswith("https://arxiv.org/abs/")
        assert inside or citation, (tag, attribute, address)
    assert not page.tags() & {"link", "iframe", "img", "object", "embed", "base", "form", "video", "audio"}
    assert not re.search(r"url\(|@import|https?:", "".join(page.styles))
    assert not re.search(
        r"\b(fetch|XMLHttpRequest|import|WebSocket|sendBeacon)\b\s*\(|https?://(?!www\.w3\.org)",
        "".join(page.scripts),
    )


def test_the_security_policy_admits_only_our_own_script(run: Path) -> None:
    page = read(run)
    policy = next(
        attrs["content"]
        for tag, attrs in page.elements
        if attrs.get("http-equiv") == "Content-Security-Policy"
    )
    digest = base64.b64encode(hashlib.sha256("".join(page.scripts).encode()).digest()).decode()
    assert policy.startswith("default-src 'none';")
    assert f"script-src 'sha256-{digest}'" in policy


def test_generations_are_shown_as_text(run: Path) -> None:
    html = write_report(run).read_text("utf-8")
    assert synthetic_run.NASTY not in html
    assert synthetic_run.NASTY in Page(html).text


def spoil(value: Any, text: str) -> Any:
    """The same structure with `text` appended to every string and key."""
    if isinstance(value, dict):
        return {key: spoil(v, text) for key, v in value.items()} | {
            f"{key}{text}": v for key, v in list(value.items())[:3]
        }
    if isinstance(value, list):
        return [spoil(v, text) for v in value]
    return value + text if isinstance(value, str) else value


def test_no_text_of_any_file_becomes_markup(run: Path) -> None:
    clean = read(run)
    text = "\"'></pre></script><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7*7 }}"
    for name in RECORDS:
        path = run / "record" / f"{name}.json"
        path.write_text(json.dumps(spoil(json.loads(path.read_text()), text)))
    (run / "config.yaml").write_text(json.dumps(spoil(synthetic_run.config(), text)))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    log(run, *(line | {f"odd{text}": 1.0} for line in lines))
    page = read(run)
    assert page.tags() <= clean.tags()
    assert len(page.scripts) == len(clean.scripts)
    assert not [attrs for _, attrs in page.elements if any(name.startswith("on") for name in attrs)]
    assert all(address.startswith("#") for _, _, address in page.addresses())
    assert "{{ 7*7 }}" in page.text


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["absent", "empty", "half", "wrong type", "not text"])
def test_a_damaged_file_is_named_and_the_rest_is_shown(run: Path, name: str, damage: str) -> None:
    path = run / name
    if damage == "absent":
        path.unlink()
    else:
        content = {
            "empty": b"", "half": path.read_bytes()[: path.stat().st_size // 2] + b'\n{"', "wrong type": b"[1, 2]\n", "not text": b"\xff\xfe\x00{"
        }[damage]  # fmt: skip
        path.write_bytes(content)
    page = read(run)
    if (name, damage) != ("metrics.jsonl", "empty"):
        assert name in page.text.split("Start-of-run checks")[0]
    assert len(page.ids()) > 6
    assert len(page.ids()) == len(set(page.ids()))


def test_an_empty_folder_gives_a_page_that_says_so(tmp_path: Path) -> None:
    page = read(tmp_path)
    assert tmp_path.name in page.text
    for name in FILES:
        assert f"{name} is not there" in page.text
    assert "Accuracy on comparisons was not measured." in page.text


def test_no_folder_is_an_error_that_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"config\.yaml and metrics\.jsonl"):
        write_report(tmp_path / "nowhere")


def paths_of(value: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = (
        value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else []
    )
    return [prefix, *(path for key, child in children for path in paths_of(child, (*prefix, key)))]


@pytest.mark.parametrize("seed", range(4))
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
        1e400,
        True,
        [None],
        [[1]],
        {"a": None},
        10**400,
    ]
    good = {name: json.loads((run / "record" / f"{name}.json").read_text()) for name in RECORDS}
    for _ in range(15):
        for name in RECORDS:
            record = copy.deepcopy(good[name])
            *parents, key = rng.choice(paths_of(record)[1:])
            target: Any = record
            for step in parents:
                target = target[step]
            target[key] = rng.choice(junk)
            (run / "record" / f"{name}.json").write_text(json.dumps(record))
        page = read(run)
        assert "Training curves" in page.text


def test_nan_is_announced_and_breaks_the_line(run: Path) -> None:
    values = [0.69, 0.66, math.nan, math.inf, 0.6, 0.58]
    log(
        run,
        *(
            {"step": 10 * i, "split": "train", "loss": v, "rewards/accuracies": 0.5}
            for i, v in enumerate(values)
        ),
    )
    html = write_report(run).read_text("utf-8")
    page = Page(html)
    assert "not finite numbers: loss (2 times, first at step 20)." in page.text
    assert "Lower learning_rate" in page.text
    log(run, *({"step": i, "split": "train", "loss": v} for i, v in enumerate((0.69, math.nan))))
    assert "training NaN" in read(run).text
    svg = re.search(r'<svg viewBox[^>]*aria-label="Loss\..*?</svg>', html, re.S)
    assert svg
    assert svg.group().count('class="bad"') == 2
    assert re.findall(r'class="line[^>]* d="([^"]*)"', svg.group())[0].count("M") == 2
    assert not re.search(r"nan|inf", svg.group().lower())


def test_null_loss_counts_as_nan_but_null_reward_as_not_measured(run: Path) -> None:
    log(
        run,
        {"step": 1, "split": "train", "loss": None},
        {"step": 1, "split": "eval", "eval_loss": 0.5, "eval_reward": None},
    )
    page = read(run)
    assert "loss (once at step 1)" in page.text
    assert "Verifier reward" not in page.text


def test_a_run_that_stopped_says_so_first(run: Path) -> None:
    edit(run, "manifest", status="stopped: the gradient was zero for 5 steps")
    text = read(run).text
    assert "The run did not finish: stopped: the gradient was zero for 5 steps." in text
    assert ", not finished." in text


def test_a_resumed_run_shows_the_later_value_of_a_repeated_step(run: Path) -> None:
    log(
        run,
        *(
            {"step": s, "split": "eval", "eval_loss": 0.6, "eval_rewards/accuracies": a}
            for s, a in ((0, 0.5), (10, 0.1), (10, 0.75))
        ),
    )
    assert "75.0%" in read(run).text


def series(name: str, *values: float, split: str = "eval") -> list[dict[str, Any]]:
    key = f"eval_{name}" if split == "eval" else name
    return [{"step": 10 * i, "split": split, key: v} for i, v in enumerate(values)]


ACCURACY = series("rewards/accuracies", 0.5, 0.8)
FINDINGS = [
    (series("displacement", 0.0, 0.49), series("displacement", 0.0, 0.5), "(displacement 50.0%)"),
    (series("reward", 0.4, 0.4), series("reward", 0.4, 0.3), "score lower than before training: 0.400 to 0.300"),
    (series("loss", 0.69, 0.5, 0.51), series("loss", 0.69, 0.5, 0.6), "best at step 10 (0.5000) and ended at 0.6000"),
    (series("sample_length", 10, 14), series("sample_length", 10, 15), "grew from 10 to 15 tokens"),
    (series("sample_repetition", 0.1, 0.15), series("sample_repetition", 0.1, 0.3), "repeat themselves more: 10.0% to 30.0%"),
    (series("loss", *[0.5] * 9, split="train"), series("loss", *[0.9] * 9, split="train"), "still sits at its zero-margin value (0.9003)"),
    (
        series("grad_norm", *[1.0] * 9, 19.0, split="train"), series("grad_norm", *[1.0] * 9, 21.0, split="train"),
        "peaked at 21 at step 90; its median is 1",
    ),
    (
        series("rewards/accuracies", *[0.9] * 30, split="train"), series("rewards/accuracies", *[0.99] * 30, split="train"),
        "already 99.0% in the first tenth",
    ),
    (
        series("rewards/accuracies", *[0.9] * 9, split="train"), series("rewards/accuracies", *[0.97] * 9, split="train"),
        "Training accuracy is 17 points above held-out accuracy",
    ),
    (ACCURACY, series("rewards/accuracies", 0.5, 0.52), "cannot be told from where it began"),
]  # fmt: skip


@pytest.mark.parametrize(("calm", "alarming", "message"), FINDINGS, ids=[message for *_, message in FINDINGS])
def test_a_warning_is_given_past_its_threshold_only(
    run: Path, calm: list[dict[str, Any]], alarming: list[dict[str, Any]], message: str
) -> None:
    words = re.sub(r"[\d.,%()]+", "#", message)

    def warnings() -> str:
        _, _, shown = read(run).text.partition("Before you trust these numbers")
        return shown.partition("Start-of-run checks")[0]

    log(run, *ACCURACY, *calm)
    assert words not in re.sub(r"[\d.,%()]+", "#", warnings())
    log(run, *ACCURACY, *alarming)
    assert message in warnings()


def test_accuracy_on_training_comparisons_is_called_that(run: Path) -> None:
    log(run, *series("rewards/accuracies", 0.5, 0.7, split="train"))
    text = read(run).text
    assert "70.0% of training comparisons" in text
    assert "Nothing was held out" in text
    assert "95% interval" not in text


def test_a_long_talkative_run_stays_light(run: Path) -> None:
    rng = random.Random(1)
    names = [
        "loss",
        "grad_norm",
        "rewards/chosen",
        "rewards/rejected",
        *(f"diagnostic/{i}" for i in range(60)),
    ]
    log(run, *({"step": s, "split": split, **{(f"eval_{n}" if split == "eval" else n): rng.random() for n in names}}
               for s in range(1500) for split in ("train", "eval")))  # fmt: skip
    prompts = [
        {"prompt": f"prompt {i}", "generations": [{"step": s, "label": str(s), "text": "word " * 4000, "score": 1.0, "length": 9} for s in range(3)]}
        for i in range(200)
    ]  # fmt: skip
    edit(run, "samples", prompts=prompts)
    path = write_report(run)
    assert path.stat().st_size < 1_500_000
    text = Page(path.read_text("utf-8")).text
    assert "cut here; in full in record/samples.json" in text
    assert "more prompts are in record/samples.json" in text
    assert "Also logged, in metrics.jsonl: diagnostic/" in text


def test_charts_are_described_and_the_contents_lead_somewhere(run: Path) -> None:
    page = read(run)
    images = [attrs for tag, attrs in page.elements if tag == "svg" and attrs.get("role") == "img"]
    assert len(images) >= 14
    assert all(attrs["aria-label"] for attrs in images)
    assert any("held-out: from 50.0% at step 0 to 83.1% at 600" in attrs["aria-label"] for attrs in images)
    links = [
        attrs["href"][1:] for tag, attrs in page.elements if tag == "a" and attrs["href"].startswith("#")
    ]
    assert set(links) <= set(page.ids())
    headings = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert headings.count(1) == 1


def test_the_same_files_give_the_same_page(run: Path) -> None:
    assert write_report(run).read_bytes() == write_report(run).read_bytes()
