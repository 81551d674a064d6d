"""`prefopt evaluate` of vision-language models: asking, continuing, scoring, comparing; a function stands in for the model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

from prefopt.cli import evaluate as cli
from prefopt.evaluation.benchmarks.base import Question
from prefopt.modalities.vision_language import evaluate
from prefopt.modalities.vision_language.asking import ask, requests_of
from prefopt.modalities.vision_language.requests import Request

QUESTIONS = [
    {
        "question_id": n,
        "image": f"{'ab'[n % 2]}.png",
        "text": f"Is there a thing {n}?",
        "label": "yes" if n % 2 else "no",
    }
    for n in range(7)
]


def lines(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def folder(tmp_path):
    """Questions of POPE and their images: a is black, b is white."""
    for name, colour in (("a", "black"), ("b", "white")):
        Image.new("RGB", (4, 4), colour).save(tmp_path / f"{name}.png")
    lines(tmp_path / "questions.json", QUESTIONS)
    return tmp_path


class StandIn:
    """Sees whether an image is white; counts what it is asked, and may die."""

    def __init__(self, dies_after: int | None = None) -> None:
        self.batches: list[list[Request]] = []
        self.dies_after = dies_after
        self.how: dict[str, Any] = {}

    def load(self, model: str, **how: Any) -> Any:
        self.how = {"model": model, **how}
        return self

    def __call__(self, requests: Sequence[Request]) -> list[str]:
        from prefopt.sources.pictures import decode

        if self.dies_after is not None and len(self.batches) >= self.dies_after:
            raise KeyboardInterrupt
        self.batches.append(list(requests))
        return ["Yes." if r.images and decode(r.images[0]).getpixel((0, 0))[0] else "No." for r in requests]


@pytest.fixture
def model(monkeypatch):
    stand_in = StandIn()
    monkeypatch.setattr(evaluate, "load", stand_in.load)
    return stand_in


def run(*args: object) -> Any:
    return CliRunner().invoke(evaluate.COMMAND, [str(arg) for arg in args])


def pope(folder: Path, *args: object) -> Any:
    return run(
        *args, "--benchmark", "pope", "--questions", folder / "questions.json", "--images", folder, "--output",
        folder / "out",
    )  # fmt: skip


def told(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "out" / "evaluation.json").read_text())


def test_a_model_is_asked_and_scored(folder, model):
    done = pope(folder, "some/model", "--batch_size", "3", "--num_beams", "2", "--max_new_tokens", "16")
    assert done.exit_code == 0, done.output
    assert model.how == {
        "model": "some/model", "max_new_tokens": 16, "temperature": 0, "num_beams": 2, "seed": 0, "batch_size": 3,
    }  # fmt: skip
    assert [len(batch) for batch in model.batches] == [3, 3, 1]
    assert model.batches[0][1].prompt == "Is there a thing 1?"
    rows = [json.loads(line) for line in (folder / "out" / "answers.jsonl").read_text().splitlines()]
    assert rows[1] == {"question_id": 1, "question": "Is there a thing 1?", "answer": "Yes."}
    found = told(folder)
    assert found["parts"]["all"]["figures"]["accuracy"] == 1
    assert found["questions"] == 7
    assert "1.0000" in done.output
    again = run(
        "--benchmark", "pope", "--questions", folder / "questions.json", "--answers", folder / "out" / "answers.jsonl",
        "--output", folder / "again",
    )  # fmt: skip
    assert again.exit_code == 0, again.output
    assert json.loads((folder / "again" / "evaluation.json").read_text())["parts"] == found["parts"]


def test_a_killed_run_goes_on_where_it_was(folder, monkeypatch):
    dying, going = StandIn(dies_after=2), StandIn()
    monkeypatch.setattr(evaluate, "load", dying.load)
    assert pope(folder, "m", "--batch_size", "2").exit_code != 0
    assert not (folder / "out" / "answers.jsonl").exists()
    monkeypatch.setattr(evaluate, "load", going.load)
    assert pope(folder, "m", "--batch_size", "2").exit_code == 0
    assert [r.prompt for batch in going.batches for r in batch] == [q["text"] for q in QUESTIONS[4:]]
    assert told(folder)["parts"]["all"]["figures"]["accuracy"] == 1
    third = StandIn()
    monkeypatch.setattr(evaluate, "load", third.load)
    assert pope(folder, "m", "--batch_size", "2").exit_code == 0
    assert third.how == {}  # nothing is left to ask: the model is not even loaded


def test_a_journal_of_something_else_is_refused(folder, model):
    assert pope(folder, "m").exit_code == 0
    other = pope(folder, "n")
    assert other.exit_code == 1
    assert "was begun with model = 'm'" in other.output
    assert "was begun with temperature" in pope(folder, "m", "--temperature", "0.7").output
    Image.new("RGB", (4, 4), "grey").save(folder / "a.png")
    assert "answers another question or image under the id '0'" in pope(folder, "m").output


def test_another_model_in_the_same_folder_is_another_model(folder, model):
    saved = folder / "model"
    saved.mkdir()
    (saved / "config.json").write_text('{"hidden_size": 1}')
    assert pope(folder, saved).exit_code == 0
    assert pope(folder, saved).exit_code == 0
    (saved / "config.json").write_text('{"hidden_size": 2}')
    assert "was begun with fingerprint" in pope(folder, saved).output


def test_files_that_do_not_fit_are_found_before_anything_is_asked(folder, model):
    lines(folder / "described.jsonl", DESCRIBED)
    lines(folder / "truth.jsonl", [{"image_id": 0, "objects": ["dog"]}])
    given = [
        "m",
        "--benchmark",
        "object-halbench",
        "--questions",
        folder / "described.jsonl",
        "--images",
        folder,
    ]
    done = run(*given, "--annotations", folder / "truth.jsonl", "--output", folder / "out")
    assert done.exit_code == 1
    assert "the annotations lack 39 of 40" in done.output
    assert not model.how
    unscored = run(*given, "--output", folder / "out")
    assert unscored.exit_code == 0
    assert "nothing is scored: needed what is in the images" in unscored.output
    assert len((folder / "out" / "answers.jsonl").read_text().splitlines()) == 40


def test_images_are_looked_for_before_anything_is_asked(folder, model):
    (folder / "b.png").unlink()
    done = pope(folder, "m")
    assert done.exit_code == 1
    assert "3 images are not in" in done.output
    assert "'b.png' of question '1'" in done.output
    assert not model.how
    nowhere = run(
        "m", "--benchmark", "pope", "--questions", folder / "questions.json", "--output", folder / "out"
    )
    assert "give their folder as --images" in nowhere.output


def test_a_name_that_leads_out_of_the_folder_is_not_followed(folder):
    (folder / "inner").mkdir()
    for name in ("../a.png", str(folder / "a.png")):
        with pytest.raises(ValueError, match="1 images are not in"):
            requests_of([Question("1", "?", (name,), {})], folder / "inner")


def test_a_question_of_text_alone_has_no_image():
    assert requests_of([Question("1", "?", None, {})], None) == [Request([], "?")]


def test_a_model_that_leaves_answers_out(tmp_path):
    questions = [Question(n, "?", None, {}) for n in "ab"]
    with pytest.raises(ValueError, match="gave 1 answers to 2 questions"):
        ask(lambda _: ["x"], questions, requests_of(questions, None), tmp_path / "j.jsonl", {}, 8)


def test_either_a_model_or_answers(folder, model):
    for args in ([], ["m", "--answers", folder / "questions.json"]):
        done = pope(folder, *args)
        assert done.exit_code == 1
        assert "give either MODEL" in done.output


def test_only_the_first_questions(folder, model):
    assert pope(folder, "m", "--limit", "2").exit_code == 0
    assert told(folder)["questions"] == 2
    assert sum(map(len, model.batches)) == 2
    assert pope(folder, "m").exit_code == 0  # continues with the others
    assert sum(map(len, model.batches)) == 7
    done = pope(folder, "--answers", folder / "out" / "answers.jsonl", "--limit", "3")
    assert done.exit_code == 0, done.output
    assert told(folder)["other_answers"] == 4


DESCRIBED = [{"image_id": n, "question": "Describe it.", "image": "a.png"} for n in range(40)]


@pytest.fixture
def described(folder):
    """Object-HalBench: each image shows a dog and a cat; the answers tell more or less."""
    lines(folder / "described.jsonl", DESCRIBED)
    lines(folder / "truth.jsonl", [{"image_id": n, "objects": ["dog", "cat"]} for n in range(40)])
    for name, text in (
        ("talkative", "A dog, a cat and a car."),
        ("terse", "A dog."),
        ("right", "A dog and a cat."),
        ("silent", ""),
    ):
        lines(folder / f"{name}.jsonl", [{"image_id": n, "answer": text} for n in range(40)])
    return folder


def halbench(folder: Path, answers: str, *args: object) -> Any:
    return run(
        "--benchmark", "object-halbench", "--questions", folder / "described.jsonl", "--annotations",
        folder / "truth.jsonl", "--answers", folder / f"{answers}.jsonl", "--output", folder / "out", *args,
    )  # fmt: skip


def test_chair_stands_beside_recall_f1_and_mentions_and_judges_nothing_alone(described):
    done = halbench(described, "talkative")
    assert done.exit_code == 0, done.output
    found = told(described)
    part = found["parts"]["all"]
    assert part["figures"]["chair_i"] == pytest.approx(1 / 3)
    assert {"recall", "object_f1"} <= set(part["figures"])
    assert part["counts"]["mentions"] == 120
    assert "No verdict rests on it alone" in part["read_together"]
    assert "verdicts" not in found
    assert "improved" not in done.output
    assert "mentions" in done.output


@pytest.mark.parametrize(
    ("answers", "said"),
    [("right", "improved: fewer"), ("terse", "no improvement shown"), ("silent", "no verdict")],
)
def test_a_verdict_needs_recall_too(described, answers, said):
    done = halbench(described, answers, "--baseline_answers", described / "talkative.jsonl")
    assert done.exit_code == 0, done.output
    assert told(described)["verdicts"]["all"].startswith(said)
    assert said in done.output
    assert "all: mentions" in done.output
    assert told(described)["differences"]["all"]["recall"]["value"] == pytest.approx(
        {"right": 0, "terse": -0.5, "silent": -1}[answers]
    )


def test_undefined_figures_are_null_in_the_file(described):
    done = halbench(described, "silent")
    assert told(described)["parts"]["all"]["figures"]["chair_i"] is None
    assert "undefined" in done.output
    assert "40 answers mention no object" in done.output


def test_extracted_objects_of_both_sides_or_of_none(described):
    extracted = lines(
        described / "objects.jsonl", [{"image_id": n, "extract_objs": ["car"]} for n in range(40)]
    )
    baseline = ("--baseline_answers", described / "talkative.jsonl")
    one = halbench(described, "right", *baseline, "--judged", extracted)
    assert "--judged and --baseline_judged go together" in one.output
    both = halbench(described, "right", *baseline, "--judged", extracted, "--baseline_judged", extracted)
    assert both.exit_code == 0, both.output
    assert told(described)["differences"]["all"]["chair_i"]["value"] == 0
    assert told(described)["parts"]["all"]["figures"]["chair_i"] == 1


def test_without_a_judge_answers_are_written_and_nothing_is_scored(folder, model):
    rows = [
        {"category": "VS", "subcategory": "map", "visual_input": visual, "set_id": 0, "figure_id": figure, "question_id": 0,
         "question": "?", "filename": f"./{name}.png"}
        for figure, (visual, name) in enumerate((("0", "b"), ("1", "b"), (2, "a")))
    ]  # fmt: skip
    (folder / "hallusion.json").write_text(json.dumps(rows))
    args = [
        "m",
        "--benchmark",
        "hallusionbench",
        "--questions",
        folder / "hallusion.json",
        "--images",
        folder,
    ]
    done = run(*args, "--output", folder / "out")
    assert done.exit_code == 0, done.output
    assert "nothing is scored: needed codes of a judge" in done.output
    assert [len(request.images) for request in model.batches[0]] == [
        0,
        1,
        1,
    ]  # figure 2, edited, is shown too
    answered = json.loads((folder / "out" / "answers.json").read_text())
    assert [row["model_prediction"] for row in answered] == ["No.", "Yes.", "No."]
    judged = [{**row, "gpt4v_output_gpt_check": 1} for row in answered]
    (folder / "judged.json").write_text(json.dumps(judged))
    scored = run(*args, "--output", folder / "out", "--judged", folder / "judged.json")
    assert scored.exit_code == 0, scored.output
    assert told(folder)["parts"]["VS"]["figures"]["aAcc"] == 1
    assert len(model.batches) == 1  # the answers were there


def test_files_of_the_wrong_kind(folder, model):
    (folder / "wrong.json").write_text("{")
    done = run("m", "--benchmark", "pope", "--questions", folder / "wrong.json", "--output", folder / "out")
    assert done.exit_code == 1
    assert "wrong.json, line 1: not valid JSON" in done.output
    missing = pope(folder, "--answers", folder / "none.jsonl")
    assert "there is no file" in missing.output


def test_the_command_is_found_by_its_options_where_no_model_is_named(folder, monkeypatch):
    class Kind:
        key = None

        def part_or_none(self, name: str) -> Any:
            return evaluate if name == "evaluate" else None

    monkeypatch.setattr("prefopt.modalities.all_modalities", lambda: {"vision_language": Kind()})
    lines(folder / "answers.jsonl", [{"question_id": n, "answer": "no"} for n in range(7)])
    given = [
        "--benchmark",
        "pope",
        "--questions",
        folder / "questions.json",
        "--answers",
        folder / "answers.jsonl",
    ]
    done = CliRunner().invoke(cli.command, [*map(str, given), "--output", str(folder / "out")])
    assert done.exit_code == 0, done.output
    assert told(folder)["parts"]["all"]["figures"]["yes_ratio"] == 0
    own = CliRunner().invoke(cli.command, ["--baseline", "x", "--data", "y", "--judge", "z"])
    assert "Missing argument 'MODEL'" in own.output
