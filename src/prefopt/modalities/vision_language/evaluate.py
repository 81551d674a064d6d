"""`prefopt evaluate` of a vision-language model: benchmarks of hallucination and of long video, in their own files."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prefopt.evaluation.benchmarks import BENCHMARKS
from prefopt.modalities.commands import errors_told

if TYPE_CHECKING:
    from rich.table import Table

    from prefopt.evaluation.benchmarks.base import Benchmark, Given, Part, Question
    from prefopt.modalities.vision_language.requests import Answerer

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
QUESTIONS = click.Path(path_type=Path)
NEVER_ALONE = (
    "CHAIR falls when less is said: read it beside recall or cover, object_f1 and the number of mentions. No verdict rests "
    "on it alone."
)


@click.command("evaluate")
@click.argument("model", required=False)
@click.option(
    "--benchmark", required=True, type=click.Choice(list(BENCHMARKS)), help="Whose files these are."
)
@click.option("--questions", type=QUESTIONS, help="Questions as published: a file, or a folder of files.")
@click.option(
    "--images", "--videos", "images", type=FOLDER, help="Folder of the images or videos that questions name."
)
@click.option(
    "--video_frames",
    "--video-frames",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="Frames of each video.",
)
@click.option("--subtitles", type=FOLDER, help="Folder of subtitles, to be shown (videomme, longvideobench).")
@click.option("--answers", type=FILE, help="Answers to score, in place of MODEL.")
@click.option(
    "--baseline_answers", "--baseline-answers", type=FILE, help="Answers of a baseline to the same questions."
)
@click.option("--judged", type=FILE, help="A judge's codes or ratings, or extracted objects, of the answers.")
@click.option(
    "--baseline_judged", "--baseline-judged", type=FILE, help="The same, of the baseline's answers."
)
@click.option(
    "--annotations", type=FILE, multiple=True, help="What is in the images; more than once for several files."
)
@click.option("--vocabulary", type=FILE, help="Words for objects: AMBER's relation.json, or synonyms.")
@click.option("--limit", type=click.IntRange(min=1), help="Take only the first so many questions.")
@click.option(
    "--max_new_tokens", "--max-new-tokens", type=click.IntRange(min=1), default=1024, show_default=True
)
@click.option(
    "--temperature", type=click.FloatRange(min=0), default=0.0, show_default=True, help="0: the likeliest."
)
@click.option("--num_beams", "--num-beams", type=click.IntRange(min=1), default=1, show_default=True)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 2),
    default=0,
    show_default=True,
    help="Of answers and bootstrap.",
)
@click.option(
    "--batch_size",
    "--batch-size",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Answers at once.",
)
@click.option(
    "--lmms_eval",
    "--lmms-eval",
    is_flag=True,
    help="Ask nothing; write the command by which lmms-eval asks MODEL the same benchmark.",
)
@click.option(
    "--output", type=FOLDER, default=Path("runs/evaluation"), show_default=True,
    help="Folder for evaluation.json, the answers and their journal.",
)  # fmt: skip
def evaluate(**given: Any) -> None:
    """Put the questions of a benchmark to MODEL, or read --answers, and score what needs no judge.

    MODEL is a folder or hub id of a vision-language model. Answers are written in the benchmark's own format and kept as they
    arrive: the same command again continues. Nothing is sent anywhere; what a judge said is read from --judged.

    \b
        prefopt evaluate runs/mine/model --benchmark pope --questions coco_pope_random.json --images val2014
        prefopt evaluate runs/mine/model --benchmark mlvu --questions MLVU/json --videos MLVU --video_frames 64
        prefopt evaluate --benchmark pope --questions coco_pope_random.json --answers answers.jsonl
    """
    from prefopt.locking import FolderLock

    with errors_told():
        if given["lmms_eval"]:
            written = for_lmms_eval(given)
            click.echo(f"wrote {written}")
            return
        if given["questions"] is None:
            raise ValueError("give --questions, the published file")
        if (given["model"] is None) == (given["answers"] is None):
            raise ValueError("give either MODEL, to be asked, or --answers, a file to score")
        with FolderLock(given["output"], "evaluation", "give another --output"):
            told = run(given)
    show(told)
    click.echo(f"wrote {given['output'] / 'evaluation.json'}")


COMMAND = evaluate


def for_lmms_eval(given: dict[str, Any]) -> Path:
    """A file with the command for lmms-eval."""
    from prefopt.evaluation.benchmarks.lmms_eval import command
    from prefopt.files import write_whole

    if given["model"] is None:
        raise ValueError("--lmms_eval writes how a MODEL is asked: give its folder")
    output: Path = given["output"]
    text = command(
        given["model"],
        given["benchmark"],
        output / "lmms_eval",
        given["video_frames"],
        given["subtitles"] is not None,
    )
    output.mkdir(parents=True, exist_ok=True)
    write_whole(output / "lmms_eval.sh", text)
    return output / "lmms_eval.sh"


def run(given: dict[str, Any]) -> dict[str, Any]:
    """Read everything that is given, ask, write the answers, score; returns what evaluation.json holds."""
    from prefopt.evaluation.benchmarks import find
    from prefopt.evaluation.benchmarks.base import Given
    from prefopt.files import write_whole

    benchmark = find(given["benchmark"])
    questions = benchmark.questions(given["questions"])[: given["limit"]]
    baseline = None
    if given["baseline_answers"] is not None:
        baseline = benchmark.read_answers(given["baseline_answers"], questions)
    notes: list[str] = []
    files = Given(tuple(given["annotations"]), given["vocabulary"], given["judged"])
    if baseline is not None:
        theirs = _parts(benchmark, questions, baseline, _of_baseline(files, given), "the baseline")
    written = given["output"] / benchmark.ANSWERS
    if given["answers"] is not None:
        answers = benchmark.read_answers(given["answers"], questions)
    else:
        # what is given has to fit, which is better known before hours of asking: empty answers are scored
        _parts(benchmark, questions, {question.id: "" for question in questions}, files, "the model")
        answers = asked(given, questions, notes)
        write_whole(written, benchmark.answers_file(questions, answers))
        click.echo(f"wrote {written}")
    parts = _parts(benchmark, questions, answers, files, "the model")
    told: dict[str, Any] = {
        "settings": json.loads(json.dumps(given, default=str)),
        "questions": len(questions),
        "other_answers": len(set(answers) - {question.id for question in questions}),
        "parts": {part.name: _score(part) for part in parts},
        "notes": [*notes, *_notes(benchmark, parts, given)],
    }
    if baseline is not None:
        told |= _beside(parts, theirs, given["seed"])
    write_whole(
        given["output"] / "evaluation.json",
        json.dumps(_plain(told), indent=1, ensure_ascii=False, allow_nan=False) + "\n",
    )
    return told


def asked(given: dict[str, Any], questions: Sequence[Question], notes: list[str]) -> dict[str, str]:
    """The model's answers, of which those in the journal are there already; notes are added to what is given."""
    from prefopt.modalities.vision_language.asking import ask, requests_of
    from prefopt.modalities.vision_language.video.videos import Sampling
    from prefopt.models.identity import saved_fingerprint

    # images and videos first: a model takes minutes to load
    sampling = Sampling(frames=given["video_frames"])
    requests = requests_of(questions, given["images"], sampling, given["subtitles"], notes.append)
    drawn = {name: given[name] for name in ("max_new_tokens", "temperature", "num_beams", "seed")}
    answer: Answerer | None = None

    def answers(batch: Any) -> list[str]:
        """Of the model, which is loaded when there is something to ask."""
        nonlocal answer
        if answer is None:
            answer = load(given["model"], **drawn, batch_size=given["batch_size"])
        return answer(batch)

    settings = {"benchmark": given["benchmark"], "model": given["model"], **drawn}
    if (folder := Path(given["model"]).expanduser()).is_dir():  # which may hold another model by now
        settings["fingerprint"] = saved_fingerprint(folder)
    journal = given["output"] / "answers.journal.jsonl"
    return ask(answers, questions, requests, journal, settings, given["batch_size"])


def load(model: str, **how: Any) -> Answerer:
    """The model, ready to answer."""
    from prefopt.modalities.vision_language.answering import load_answerer

    return load_answerer(model, **how)


def _of_baseline(files: Given, given: dict[str, Any]) -> Given:
    from dataclasses import replace

    if (files.judged is None) != (given["baseline_judged"] is None):
        raise ValueError(
            "--judged and --baseline_judged go together: what a judge said is compared with what it said"
        )
    return replace(files, judged=given["baseline_judged"])


def _parts(
    benchmark: Benchmark, questions: Sequence[Question], answers: dict[str, str], files: Given, whose: str
) -> list[Part]:
    try:
        return benchmark.parts(questions, answers, files)
    except ValueError as error:
        raise ValueError(f"{whose}: {error}") from None


def _score(part: Part) -> dict[str, Any]:
    from prefopt.evaluation.benchmarks.comparison import BESIDE

    told = asdict(part.score())
    if set(BESIDE) & set(told["figures"]):
        told["read_together"] = NEVER_ALONE
    return told


def _notes(benchmark: Benchmark, parts: Sequence[Part], given: dict[str, Any]) -> list[str]:
    """What a reader of the figures has to know."""
    notes = []
    if not parts:
        notes.append(f"nothing is scored: needed {benchmark.NEEDS}")
    silent = sum(part.score().counts.get("without_mention", 0) for part in parts)
    if silent:
        notes.append(
            f"{silent:.0f} answers mention no object: they count for recall and cover, not for CHAIR"
        )
    for name, said in (
        ("empty", "are empty, and count as wrong"),
        ("no_letter", "name no option, and count as wrong"),
        ("assumed_yes", "say neither yes nor no, and count as yes, as in the official script"),
        ("unparsable", "have no rating, or several, and count as 0"),
        (
            "letter_in_text",
            "have the letter of an option at the start of a sentence, where it may be an article",
        ),
    ):
        if count := parts[0].score().counts.get(name, 0) if parts else 0:
            notes.append(f"{count:.0f} answers {said}")
    named = {part.name: part for part in parts}
    if "discriminative" in named and (count := named["discriminative"].score().counts.get("unclear", 0)):
        notes.append(f"{count:.0f} answers say neither yes nor no, and count as wrong")
    if given["model"] is not None and given["subtitles"] is not None:
        notes.append("subtitles are shown that are said while one of the chosen frames is")
    if "generative" in named:
        notes.append(
            "words count as the same by AMBER's associations alone; its script also takes word vectors, which lower CHAIR"
        )
    if given["benchmark"] == "object-halbench" and given["vocabulary"] is None:
        notes.append(
            "objects are found by COCO's 80 names without synonyms: give a list as --vocabulary for published figures"
        )
    if given["temperature"] > 0 and given["model"] is not None:
        notes.append(
            "answers are sampled: another seed gives other figures, which the intervals do not cover"
        )
    return notes


def _beside(parts: Sequence[Part], theirs: Sequence[Part], seed: int) -> dict[str, Any]:
    from prefopt.evaluation.benchmarks.comparison import differences, paired, verdict

    found: dict[str, Any] = {
        "baseline": {part.name: _score(part) for part in theirs},
        "differences": {},
        "verdicts": {},
    }
    for ours, other in paired(parts, theirs):
        apart = differences(ours, other, seed=seed)
        found["differences"][ours.name] = {name: asdict(difference) for name, difference in apart.items()}
        if (said := verdict(apart)) is not None:
            found["verdicts"][ours.name] = said
    return found


def _plain(value: Any) -> Any:
    """For JSON, which has no NaN: null."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def show(told: dict[str, Any]) -> None:
    """Figures, or figures of both sides and their differences, then verdicts and notes."""
    from rich.console import Console

    console = Console(highlight=False)
    if "baseline" in told:
        console.print(_both_sides(told))
    else:
        for table in _one_side(told["parts"]):
            console.print(table)
    for name, said in told.get("verdicts", {}).items():
        console.print(f"{name}: {said}", markup=False, soft_wrap=True)
    for note in told["notes"]:
        console.print("[cyan]note:[/] ", end="")
        console.print(note, markup=False, soft_wrap=True)


def _one_side(scores: dict[str, Any]) -> list[Table]:
    """A table of all parts that have the same figures; mentions stand beside figures of CHAIR."""
    from rich.table import Table

    groups: dict[tuple[str, ...], list[str]] = {}
    for name, score in scores.items():
        groups.setdefault(tuple(score["figures"]), []).append(name)
    tables = []
    for columns, names in groups.items():
        mentions = "object_f1" in columns
        table = Table()
        table.add_column("", no_wrap=True)
        for column in (*columns, *(["mentions"] if mentions else [])):
            table.add_column(column, overflow="fold")
        for name in names:
            figures, counts = scores[name]["figures"], scores[name]["counts"]
            more = [f"{counts.get('mentions', 0):.0f}"] if mentions else []
            table.add_row(name, *(_number(figures[column]) for column in columns), *more)
        tables.append(table)
    return tables


def _both_sides(told: dict[str, Any]) -> Table:
    from rich.table import Table

    table = Table("", "model", "baseline", "difference", "95 % interval")
    for part, differences in told["differences"].items():
        ours, theirs = told["parts"][part], told["baseline"][part]
        for name, found in differences.items():
            interval = (
                "undefined" if math.isnan(found["low"]) else f"{found['low']:+.4f} to {found['high']:+.4f}"
            )
            figures = (_number(side["figures"][name]) for side in (ours, theirs))
            table.add_row(f"{part}: {name}", *figures, _number(found["value"], "+.4f"), interval)
        if "object_f1" in differences:
            counts = (f"{side['counts'].get('mentions', 0):.0f}" for side in (ours, theirs))
            table.add_row(f"{part}: mentions", *counts)
    return table


def _number(value: float, form: str = ".4f") -> str:
    return "undefined" if math.isnan(value) else format(value, form)
