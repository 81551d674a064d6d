"""The top of a method's folder is the folder of any run: made of the stages', as they go, and caught up with afterwards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import prefopt
from prefopt.callbacks import Callback
from prefopt.report import write_pages
from prefopt.runs.record import finished
from prefopt.stages.whole import COUNTERS, SAMPLING, in_a_row
from prefopt.sweeps import read_result
from prefopt.training.course import Course
from report.html_page import Page
from stages import staged_rig
from stages.staged_rig import ROWS, Interrupted, longest, rows, weights, write

SAMPLED = {"sample_prompts": 2, "sample_max_new_tokens": 4}
OPTIONS: dict[str, dict[str, Any]] = {
    "ssapo": {**SAMPLED, "epsilon": 0.2, "reward": longest},
    "compo": {**SAMPLED, "noisy_pairs": 3, "reward": longest},
}
PACE = {*SAMPLING, "waited_share"}
"""What hangs on the clock."""
STAGES = {"ssapo": ["0", "1", "2"], "compo": ["clean", "noisy"]}


def train(method: str, model: Path, data: Path, folder: Path, **more: Any) -> prefopt.TrainResult:
    return staged_rig.train(method, model, data, folder, **{**OPTIONS[method], **more})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "rows.jsonl", ROWS)


@pytest.fixture(scope="module")
def straight(data, tiny_model, tmp_path_factory) -> dict[str, prefopt.TrainResult]:
    """Runs that nothing interrupted, by method."""
    folder, results = tmp_path_factory.mktemp("straight"), {}
    for method in OPTIONS:
        with pytest.MonkeyPatch.context() as patch:
            # scores that others cached, in batches of another make-up, differ in the last digits
            patch.setenv("PREFOPT_CACHE", str(folder / f"cache-{method}"))
            results[method] = train(method, tiny_model, data, folder / method)
    return results


@pytest.fixture(scope="module")
def single(data, tiny_model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("single") / "run"
    given = {**staged_rig.QUIET, **SAMPLED, "output_dir": str(folder), "reward": longest}
    prefopt.train("dpo", model=tiny_model, data=data, **given)
    return folder


def record(folder: Path, name: str) -> Any:
    return json.loads((folder / "record" / f"{name}.json").read_text("utf-8"))


def files(folder: Path) -> set[str]:
    """What lies in a run's folder, but for what belongs to single runs or to several."""
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    return {name for name in found if not name.startswith(("stages/", "checkpoints/", ".lock"))}


def off_the_clock(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name not in PACE} for line in lines]


def told(folder: Path) -> dict[str, Any]:
    """All of the top that does not hang on clock, place, machine and cache."""
    manifest = record(folder, "manifest")
    for moment in (
        "started",
        "finished",
        "duration_s",
        "peak_memory_bytes",
        "run_name",
        "non_default",
        "command",
        "machine",
        "memory_forecast",
    ):
        manifest.pop(moment, None)
    # a run that goes on is not checked again as at its start
    checks = {(c["name"], c["stage"]) for c in manifest.pop("checks")} - {
        (name, stage) for name in ("start value", "longest batch first") for stage in ("1", "noisy")
    }
    parts = {name: record(folder, name) for name in ("data", "first_pair", "samples", "margins")}
    for row in manifest["stages"]["runs"]:
        for name in PACE:
            row.pop(name, None)
    logged = off_the_clock(rows(folder / "metrics.jsonl"))
    return {
        "manifest": manifest,
        "checks": checks,
        "logged": logged,
        **parts,
        "dropped": rows(folder / "dropped.jsonl"),
    }


@pytest.mark.parametrize("method", OPTIONS)
def test_the_top_is_the_folder_of_any_run(method, straight, single):
    folder = straight[method].output_dir
    assert files(folder) == files(single)
    own, theirs = record(folder, "manifest"), record(single, "manifest")
    assert own.keys() == theirs.keys() | {"stages"}
    for part in ("model", "data", "machine"):
        assert own[part].keys() == theirs[part].keys()
    assert finished(folder)
    assert own["method"] == method
    assert (own["model"]["source"], own["data"]["source"]) == (
        theirs["model"]["source"],
        theirs["data"]["source"],
    )
    assert own["model"]["fingerprint"] == theirs["model"]["fingerprint"]
    report = record(folder, "data")
    assert report.keys() == record(single, "data").keys()
    assert report["hints"][0] == {"level": "note", "text": own["stages"]["told"]}
    assert (folder / report["source"]).is_file()
    for name in ("samples", "margins", "first_pair"):
        assert record(folder, name).keys() == record(single, name).keys()


@pytest.mark.parametrize("method", OPTIONS)
def test_manifest_lists_the_stages(method, straight):
    folder = straight[method].output_dir
    manifest = record(folder, "manifest")
    runs = manifest["stages"]["runs"]
    inner = [record(folder / "stages" / name / "run", "manifest") for name in STAGES[method]]
    assert [row["stage"] for row in runs] == STAGES[method]
    for key in ("steps", "method", "status"):
        assert [row[key] for row in runs] == [m[key] for m in inner]
    assert manifest["steps"] == sum(m["steps"] for m in inner)
    assert manifest["epochs"] == pytest.approx(sum(m["epochs"] for m in inner))
    assert manifest["peak_memory_bytes"] == max(m["peak_memory_bytes"] for m in inner)
    assert manifest["memory_forecast"] in [m["memory_forecast"] for m in inner]
    assert manifest["checks"] == [
        c | {"stage": n} for n, m in zip(STAGES[method], inner, strict=True) for c in m["checks"]
    ]
    assert manifest["duration_s"] >= sum(m["duration_s"] for m in inner)
    parts = {"ssapo": ["labelled"], "compo": ["clean", "noisy"]}[method]
    trained = [row for part in parts for row in rows(folder / f"stages/data/{part}.jsonl")]
    assert manifest["data"]["examples"] == len(trained)
    assert runs[0]["pairs"] == inner[0]["data"]["examples"]
    if method == "ssapo":
        assert runs[1]["worst_case"] == json.loads((folder / "stages/1/round.json").read_text())["worst_case"]
        assert "label_accuracy" in runs[1]
    last = rows(folder / "stages" / STAGES[method][-1] / "run" / "metrics.jsonl")[-1]
    assert runs[-1]["rewards/accuracies"] == last["eval_rewards/accuracies"]


def test_a_stage_that_ended_early_says_so_and_the_whole_is_not_called_by_it(tiny_model, own_cache, tmp_path):
    """The first stage takes two of its steps, the second all; only the second's best model is the one that was saved."""

    class Once(Callback):
        def on_step(self, run):
            if run.step == 2 and not self.done:
                self.done = True
                run.stop("two are enough")

        done = False

    data = write(tmp_path / "rows.jsonl", ROWS)
    # 4 pairs and batches of 1; then rounds of 2 pairs
    result = staged_rig.train(
        "online_dpo", tiny_model, data, tmp_path / "run", reward=longest, rounds=1, per_device_train_batch_size=1, eval_steps=1,
        load_best_model_at_end=True, metric_for_best_model="eval_loss", callbacks=[Once()],
    )  # fmt: skip
    manifest = record(result.output_dir, "manifest")
    first, second = manifest["stages"]["runs"]
    assert (first["steps"], first["planned_steps"], first["stopped_early"]) == (2, 4, "two are enough")
    assert not {"stopped_early", "planned_steps"} & second.keys()
    assert manifest["steps"] == 2 + second["steps"]
    epochs = record(result.output_dir / "stages/1/run", "manifest")["epochs"]
    assert manifest["epochs"] == pytest.approx(0.5 + epochs)
    assert manifest["stopped_early"] is None
    inner = record(result.output_dir / "stages/1/run", "manifest")["best_step"]
    assert manifest["best_step"] == 2 + inner
    page = result.report.read_text()
    assert "two are enough" in page
    assert ">stage 1</text>" in page
    assert "The run ended after step" not in page


@pytest.mark.parametrize("method", OPTIONS)
def test_metrics_are_the_stages_lines_in_a_row(method, straight):
    folder = straight[method].output_dir
    found = rows(folder / "metrics.jsonl")
    expected, before = [], dict.fromkeys(COUNTERS, 0.0)
    for name in STAGES[method]:
        lines = rows(folder / "stages" / name / "run" / "metrics.jsonl")
        if (pace := folder / "stages" / name / "sampling.json").exists():
            at = {"step": before["step"], "epoch": pytest.approx(before["epoch"], abs=1e-4)}
            expected.append({**at, "split": "generation", "stage": name, **json.loads(pace.read_text())})
        for line in lines:
            counted = {k: pytest.approx(line[k] + before[k], abs=1e-4) for k in COUNTERS if k in line}
            expected.append({**line, **counted, "stage": name})
        before = {k: before[k] + max(line.get(k, 0) for line in lines) for k in COUNTERS}
    assert found == expected
    steps = [line["step"] for line in found]
    assert steps == sorted(steps)
    assert steps[-1] == record(folder, "manifest")["steps"]
    assert all(isinstance(step, int) for step in steps)


def test_a_line_in_a_row():
    line = {"step": 2, "epoch": 0.5, "split": "train", "loss": None, "num_tokens": 10.0}
    start = {"step": 16, "epoch": 1.25, "num_tokens": 7.0}
    moved = {"step": 18, "epoch": 1.75, "split": "train", "stage": "1", "loss": None, "num_tokens": 17.0}
    assert in_a_row(line, "1", start) == moved
    assert list(in_a_row(line, "1", start)) == ["step", "epoch", "split", "stage", "loss", "num_tokens"]
    assert line["step"] == 2


@pytest.mark.parametrize("method", OPTIONS)
def test_samples_and_margins_begin_with_the_first_stage_and_end_with_the_last(method, straight):
    folder = straight[method].output_dir
    inner = [folder / "stages" / name / "run" for name in STAGES[method]]
    margins = [record(run, "margins") for run in inner]
    assert record(folder, "margins") == {**margins[-1], "before": margins[0]["before"]}
    assert margins[0]["before"] != margins[-1]["before"]
    samples = [record(run, "samples") for run in inner]
    found = record(folder, "samples")
    assert found["settings"] == samples[-1]["settings"]
    assert len(found["prompts"]) == 2
    ends = [rows(run / "metrics.jsonl")[-1]["step"] for run in inner]
    for k, entry in enumerate(found["prompts"]):
        drawn = [s["prompts"][k] for s in samples]
        assert {d["prompt"] for d in drawn} == {entry["prompt"]}
        texts = [drawn[0]["generations"][0]["text"], *(d["generations"][-1]["text"] for d in drawn)]
        assert [g["text"] for g in entry["generations"]] == texts
        assert [g["step"] for g in entry["generations"]] == [sum(ends[:n]) for n in range(len(ends) + 1)]
        assert [g["label"] for g in entry["generations"]] == [
            "before",
            *(f"after stage {n}" for n in STAGES[method]),
        ]


def test_stages_with_prompts_of_their_own_show_both_ends_of_each(data, tiny_model, own_cache, tmp_path):
    """Where nothing is held out, samples are drawn on training prompts, and every round has others."""
    train("ssapo", tiny_model, data, tmp_path / "run", eval_size=0, rounds=1)
    labels: dict[str, list[str]] = {}
    for entry in record(tmp_path / "run", "samples")["prompts"]:
        labels[entry["prompt"]] = [g["label"] for g in entry["generations"]]
    first = {row["prompt"] for row in rows(tmp_path / "run/stages/data/labelled.jsonl")}
    assert len(labels) == 4
    for prompt, seen in labels.items():
        assert seen == (
            ["before", "after stage 0"] if prompt in first else ["before stage 1", "after stage 1"]
        )


@pytest.mark.parametrize("method", OPTIONS)
def test_the_result_is_that_of_the_whole(method, straight):
    result = straight[method]
    history = rows(result.output_dir / "metrics.jsonl")
    assert result.history == history
    assert weights(result.output_dir) == weights(result.output_dir / "stages" / STAGES[method][-1] / "run")
    evaluated = [line for line in history if line["split"] == "eval"]
    assert result.metrics["start_eval_reward"] == evaluated[0]["eval_reward"]
    assert result.metrics["eval_reward"] == evaluated[-1]["eval_reward"]
    assert "stage" not in result.metrics
    compared = read_result(method, None, 0, result.output_dir)
    assert (compared.start_reward, compared.reward) == (
        evaluated[0]["eval_reward"],
        evaluated[-1]["eval_reward"],
    )
    assert compared.accuracy == evaluated[-1]["eval_rewards/accuracies"]


@pytest.mark.parametrize("method", OPTIONS)
def test_page_and_card_are_those_of_any_run(method, straight):
    folder = straight[method].output_dir
    html = (folder / "report.html").read_text("utf-8")
    page = Page(html)
    links = [address for tag, name, address in page.addresses() if (tag, name) == ("a", "href")]
    for name in STAGES[method]:
        assert f"stages/{name}/run/report.html" in links
    ids = [attributes.get("id") for tag, attributes in page.elements if tag == "section"]
    assert [name for name in ids if name][:4] == ["stages", "checks", "curves", "margins"]
    sentence = record(folder, "manifest")["stages"]["told"]
    assert sentence in page.text
    assert ("Reward of samples after each round" in page.text) == (method == "ssapo")
    card = (folder / "README.md").read_text("utf-8")
    assert sentence.split(";")[0].split("(")[0] in card
    assert f'folder = "{folder.name}/model"' in card
    assert "stages/" not in card.split(sentence[-20:])[-1]


def test_a_running_method_can_be_looked_at(data, tiny_model, own_cache, tmp_path, monkeypatch):
    folder, after_step = tmp_path / "run", Course.after_step
    seen: list[tuple[str, list[dict[str, Any]], list[dict[str, Any]]]] = []

    def look(course: Course) -> None:
        after_step(course)
        if "stages/1/" in str(course.record.folder) and course.loop.step == 1:
            write_pages(folder)
            text = (folder / "report.html").read_text("utf-8")
            seen.append(
                (
                    Page(text).text,
                    record(folder, "manifest")["stages"]["runs"],
                    rows(folder / "metrics.jsonl"),
                )
            )

    monkeypatch.setattr(Course, "after_step", look)
    train("ssapo", tiny_model, data, folder)
    ((text, runs, lines),) = seen
    assert "not finished" in text
    assert "gap" not in text.split("Stages")[0]  # no file is missing
    assert [(row["stage"], row["status"]) for row in runs] == [("0", "finished"), ("1", "running")]
    assert (lines[-1]["stage"], lines[-1]["split"]) == ("1", "eval")
    assert runs[1]["reward"] == lines[-1]["eval_reward"]
    assert lines == rows(folder / "metrics.jsonl")[: len(lines)]


class Stop(KeyboardInterrupt):
    """Ctrl-C."""


def break_off(
    method: str, model: Path, data: Path, folder: Path, error: type[BaseException] = Interrupted
) -> None:
    """Stop in the second stage, behind its first checkpoint."""
    after_step = Course.after_step

    def stop(course: Course) -> None:
        after_step(course)
        if f"stages/{STAGES[method][1]}/" in str(course.record.folder):
            raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Course, "after_step", stop)
        with pytest.raises(error):
            train(method, model, data, folder)


@pytest.mark.parametrize("method", OPTIONS)
def test_a_stopped_method_says_so_and_goes_on(method, data, straight, tiny_model, own_cache, tmp_path):
    folder = tmp_path / method
    break_off(method, tiny_model, data, folder, Stop)
    manifest = record(folder, "manifest")
    assert manifest["status"] == "stopped: interrupted; go on with resume=true"
    assert [row["status"].split(":")[0] for row in manifest["stages"]["runs"]] == ["finished", "stopped"]
    page = Page((folder / "report.html").read_text("utf-8")).text
    assert "The run did not finish: stopped: interrupted" in page
    assert (folder / "README.md").exists()
    assert not (folder / "model").exists()
    assert not finished(folder)
    train(method, tiny_model, data, folder, resume=True)
    assert told(folder) == told(straight[method].output_dir)
    assert weights(folder) == weights(straight[method].output_dir)


def test_what_stops_between_two_runs_is_noted_too(data, tiny_model, own_cache, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(ValueError, match="no pair came of 3 prompts"):
        staged_rig.train("online_dpo", tiny_model, data, folder, reward=lambda prompt, answer: 0.0)
    manifest = record(folder, "manifest")
    assert manifest["status"].startswith("stopped: no pair came of 3 prompts")
    assert [row["stage"] for row in manifest["stages"]["runs"]] == ["0"]
    assert "no pair came of 3 prompts" in (folder / "report.html").read_text("utf-8")


def as_before(folder: Path, summary: str | None = None) -> None:
    """Make a folder what it was before the top was that of any run."""
    shutil.rmtree(folder / "record")
    for name in ("metrics.jsonl", "dropped.jsonl", "report.html", "README.md"):
        (folder / name).unlink()
    if summary is not None:
        (folder / "stages.json").write_text(summary)


@pytest.mark.parametrize("method", OPTIONS)
def test_an_older_folder_goes_on_and_catches_up(method, data, straight, tiny_model, own_cache, tmp_path):
    folder = tmp_path / method
    break_off(method, tiny_model, data, folder)
    as_before(folder)
    train(method, tiny_model, data, folder, resume=True)
    assert told(folder) == told(straight[method].output_dir)
    assert weights(folder) == weights(straight[method].output_dir)


@pytest.mark.parametrize("method", OPTIONS)
def test_an_older_folder_that_has_finished_only_catches_up(
    method, data, straight, tiny_model, tmp_path, monkeypatch
):
    folder = tmp_path / method
    shutil.copytree(straight[method].output_dir, folder)
    as_before(folder, summary="[]")
    monkeypatch.setattr(Course, "run", None)
    train(method, tiny_model, data, folder, resume=True)
    assert finished(folder)
    found, expected = told(folder), told(straight[method].output_dir)
    # the stages name where their files lay
    for one in (found, expected):
        one["data"].pop("source")
    assert found == expected


def test_half_a_line_and_lines_that_are_made_again_go(data, straight, tiny_model, own_cache, tmp_path):
    folder = tmp_path / "ssapo"
    break_off("ssapo", tiny_model, data, folder)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 99, "split": "train", "stage": "1"}\n{"step": 1')
    train("ssapo", tiny_model, data, folder, resume=True)
    assert off_the_clock(rows(folder / "metrics.jsonl")) == off_the_clock(straight["ssapo"].history)


def test_a_run_that_replaces_a_method_leaves_nothing_of_it(data, straight, tiny_model, own_cache, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(straight["compo"].output_dir, folder)
    (folder / "stages.json").write_text("{}")
    (folder / "mine").write_text("mine")
    given = {**staged_rig.QUIET, "output_dir": str(folder), "overwrite": True}
    prefopt.train("dpo", model=tiny_model, data=data, **given)
    assert {p.name for p in folder.iterdir()} & {"stages", "stages.json", "mine"} == {"mine"}
    assert "stages" not in record(folder, "manifest")
