"""`prefopt build longvpo-1` and `prefopt build longvpo-2`: rows of long videos, from short clips or from long films."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from prefopt.modalities.commands import errors_told

if TYPE_CHECKING:
    from prefopt.modalities.vision_language.building.steps import Steps
    from prefopt.modalities.vision_language.building.wording import Wording
    from prefopt.modalities.vision_language.generating import Speaker
    from prefopt.modalities.vision_language.video.building.judging import Judge
    from prefopt.sources.report import Dropped

CALIBRATE = "calibrate"
POSITIVE = click.FloatRange(min=0, min_open=True)
SPEC = "A model's folder, or openai:MODEL@URL of a server that takes images."
TEXTS = "Sees no video: a folder, a server, or FILE.py:NAME, a function from text to text."
JUDGE = f"Says whether two answers say the same. {TEXTS} Without one, their words decide."


class Made(NamedTuple):
    """What came of a build, before it is written."""

    rows: list[dict[str, Any]]
    dropped: list[Dropped]
    steps: Steps
    told: dict[str, Any]
    """Counts, beside those of rows and answers."""
    total: int
    """Of clips or videos."""


class Threshold(click.ParamType):
    """A cosine, or the word that has it calibrated."""

    name = f"FLOAT|{CALIBRATE}"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """The number, or None for the word."""
        if value is None or value == CALIBRATE:
            return value
        return click.FloatRange(-1, 1).convert(value, param, ctx)


def options(*several: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Several options, in the order in which help shows them."""

    def added(command: Any) -> Any:
        for one in reversed(several):
            command = one(command)
        return command

    return added


def named(name: str, **more: Any) -> Callable[[Any], Any]:
    """An option that may be written with underscores or hyphens."""
    names = dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}"))
    if "default" in more:
        more["show_default"] = True
    return click.option(*names, **more)


def shared(prompts: str) -> Callable[[Any], Any]:
    """Options that both commands have."""
    return options(
        named("max_new_tokens", type=click.IntRange(min=1), default=512, help="Of a caption, question or answer."),
        click.option(
            "--prompts", type=click.Path(path_type=Path, file_okay=False), help=f"Folder with templates of your own: {prompts}."
        ),
        click.option("--limit", type=click.IntRange(min=1), help="Take only the first so many files or rows."),
        click.option("--seed", type=click.IntRange(0, 2**32 - 2), default=0, show_default=True, help="Of all that is drawn."),
        named("batch_size", type=click.IntRange(min=1), default=8, help="Frames or answers at once."),
    )  # fmt: skip


OUTPUT = click.option(
    "--output", "-o", required=True, type=click.Path(path_type=Path, file_okay=False),
    help="Folder for rows.jsonl, dropped.jsonl and build.json.",
)  # fmt: skip


@click.command("longvpo-1")
@click.argument("clips")
@OUTPUT
@options(
    click.option("--captioner", required=True, metavar="SPEC", help=f"Describes each clip: the model that is to be trained. {SPEC}"),
    click.option("--writer", metavar="SPEC", help=f"Writes a question from the description. {TEXTS}  [default: the captioner]"),
    click.option("--answerer", metavar="SPEC", help="Gives both answers: the model that is to be trained.  [default: the captioner]"),
    click.option("--reader", metavar="SPEC", help=f"Answers from captions alone, which tests the question. {TEXTS}  [default: the answerer]"),
    click.option("--judge", metavar="SPEC", help=JUDGE),
    click.option(
        "--embedder", required=True, metavar="DIR|FILE.py:NAME",
        help="A vision model (DINOv2 in the paper; CLIP, SigLIP), or a function of Pillow images that returns an array.",
    ),
    named("clip_seconds", type=POSITIVE, default=30.0, help="Longer files are cut to equal clips of at most so many."),
    named("clip_frames", type=click.IntRange(min=1), default=8, help="Of each clip, or all that it has."),
    named("frame_budget", type=click.IntRange(min=2), help="Frames of a whole video, split over its clips by length; needs --pool 0."),
    click.option("--distractors", type=click.IntRange(min=1), default=7, show_default=True, help="Clips beside the one that is asked about."),
    named("min_distractors", type=click.IntRange(min=1), help="Take so few where there are no more.  [default: as many]"),
    click.option("--pool", type=click.IntRange(min=0), default=8, show_default=True, help="Further clips that training may draw instead."),
    named("max_similarity", type=Threshold(), default=0.8, help="Distractors look less alike than that; calibrate takes a percentile."),
    named("min_similarity", type=click.FloatRange(-1, 1), help="For hard negatives: distractors look more alike than that."),
    click.option("--pooling", type=click.Choice(("mean", "max", "mean_pairs")), default="mean", show_default=True, help="Of the similarity of frames."),
    named("max_leaks", type=click.IntRange(min=0), default=0, help="Distractors that may give the answer away."),
)  # fmt: skip
@shared("caption.jinja, question.jinja, answer.jinja, reading.jinja, judge.jinja")
def longvpo_1(clips: str, output: Path, **given: Any) -> None:
    """Ask about one clip, and hide it among others that look different.

    CLIPS is a folder of short videos, or JSON lines with a `source` each. The same command again goes on where it stopped.
    Nothing is sent anywhere but to servers that an option names.

    \b
        prefopt build longvpo-1 clips --captioner qwen-vl --embedder dinov2-base -o stage1
        prefopt train longvpo model=qwen-vl data=stage1/rows.jsonl
    """
    from prefopt.locking import FolderLock

    with errors_told(), FolderLock(output, "build", "give another --output"):
        finish(clips, output, given, anchored(clips, output, given))


def anchored(source: str, output: Path, given: Mapping[str, Any]) -> Made:
    """Rows of stage 1, and what is told of them."""
    from prefopt.modalities.vision_language.building.embedders import Embedder
    from prefopt.modalities.vision_language.building.steps import Steps
    from prefopt.modalities.vision_language.building.wording import wording
    from prefopt.modalities.vision_language.video.building.anchored import TEMPLATES, Anchored, Recipe, Team
    from prefopt.modalities.vision_language.video.building.clips import load_clips
    from prefopt.modalities.vision_language.video.building.embedding import embedded

    most = given["max_similarity"]
    if most != CALIBRATE and given["min_similarity"] is not None and given["min_similarity"] >= most:
        raise ValueError(
            f"min_similarity is {given['min_similarity']:g} and max_similarity {most:g}: nothing lies between"
        )
    recipe = Recipe(
        least=given["min_distractors"] or given["distractors"],
        max_similarity=None if most == CALIBRATE else most,
        **{
            name: given[name]
            for name in ("distractors", "pool", "min_similarity", "pooling", "max_leaks", "frame_budget", "max_new_tokens", "seed")
        },
    )  # fmt: skip
    words, steps = wording(given["prompts"], TEMPLATES), Steps(output)
    team = Team(
        speaker(given, "captioner"),
        speaker(given, "writer", texts=True),
        speaker(given, "answerer"),
        speaker({**given, "reader": given["reader"] or given["answerer"]}, "reader", texts=True),
        judge_of(given, steps, words),
    )
    embedder = Embedder(given["embedder"], given["batch_size"])
    if not steps.journal("questions").exists():
        team.check()
    found = load_clips(source, given["clip_frames"], given["clip_seconds"], given["limit"])
    clips, vectors, broken = embedded(found.found, embedder)
    work = Anchored(clips, vectors, recipe, team, words, steps)
    rows = work.rows(output)
    told = {
        "clips": len(found.found), "threshold": work.threshold, "short_of_distractors": work.short,
        "slots": {str(slot): count for slot, count in sorted(Counter(row["anchor"] for row in rows).items())},
    }  # fmt: skip
    return Made(rows, [*found.dropped, *broken, *work.dropped], steps, told, len(found.found))


@click.command("longvpo-2")
@click.argument("videos")
@OUTPUT
@options(
    click.option("--captioner", required=True, metavar="SPEC", help=f"Describes each scene: the model of stage 1. {SPEC}"),
    click.option("--writer", metavar="SPEC", help=f"Writes summaries, questions and answers. {TEXTS}  [default: the captioner]"),
    click.option("--judge", metavar="SPEC", help=JUDGE),
    named("min_scene", type=POSITIVE, default=10.0, help="Seconds; shorter scenes are merged."),
    named("max_scene", type=POSITIVE, default=120.0, help="Seconds; longer scenes are split."),
    named("cut_threshold", type=POSITIVE, default=3.0, help="How much more than its surroundings a frame changes at a cut."),
    named("scene_frames", type=click.IntRange(min=1), default=8, help="That a caption is written from."),
    named("frame_budget", type=click.IntRange(min=2), default=128, help="Frames of a whole video, split over its scenes by length."),
    named("captions_before", type=click.IntRange(min=0), default=2, help="Captions of preceding scenes that a scene is described with."),
    named("fan_in", type=click.IntRange(min=2), default=8, help="Captions or summaries that are summed up together."),
    named("task_types", default="order,cause,summary", help="Kinds of questions, with commas."),
    click.option("--questions", type=click.IntRange(min=1), default=1, show_default=True, help="Of each kind and video."),
    click.option("--temperature", type=click.FloatRange(min=0), default=0.7, show_default=True, help="Of questions."),
)  # fmt: skip
@shared("caption.jinja, summary.jinja, question.jinja, answer.jinja, judge.jinja")
def longvpo_2(videos: str, output: Path, **given: Any) -> None:
    """Cut long videos into scenes, and ask what only several scenes together can tell.

    VIDEOS is a folder of video files, or JSON lines with a `source` each. The same command again goes on where it stopped.
    Nothing is sent anywhere but to servers that an option names.

    \b
        prefopt build longvpo-2 films --captioner stage1/final --writer openai:qwen@http://localhost:8000/v1 -o stage2
        prefopt train longvpo model=stage1/final data=stage2/rows.jsonl
    """
    from prefopt.locking import FolderLock

    with errors_told(), FolderLock(output, "build", "give another --output"):
        finish(videos, output, given, reasoning(videos, output, given))


def reasoning(source: str, output: Path, given: Mapping[str, Any]) -> Made:
    """Rows of stage 2, and what is told of them."""
    from prefopt.modalities.vision_language.building.steps import Steps
    from prefopt.modalities.vision_language.building.wording import wording
    from prefopt.modalities.vision_language.video.building.clips import load_clips
    from prefopt.modalities.vision_language.video.building.reasoning import TEMPLATES, Reasoning, Recipe, Team
    from prefopt.modalities.vision_language.video.building.scenes import Cutting, films

    kinds = tuple(dict.fromkeys(kind.strip() for kind in given["task_types"].split(",") if kind.strip()))
    if not kinds:
        raise ValueError(
            f"task_types is {given['task_types']!r}: needed kinds of questions, such as order,cause"
        )
    recipe = Recipe(
        before=given["captions_before"],
        task_types=kinds,
        **{name: given[name] for name in ("fan_in", "questions", "temperature", "frame_budget", "max_new_tokens", "seed")},
    )  # fmt: skip
    cutting = Cutting(given["min_scene"], given["max_scene"], given["cut_threshold"], given["scene_frames"])
    words, steps = wording(given["prompts"], TEMPLATES), Steps(output)
    team = Team(
        speaker(given, "captioner"), speaker(given, "writer", texts=True), judge_of(given, steps, words)
    )
    if not steps.journal("answers").exists():
        team.check()
    found = load_clips(source, 1, None, given["limit"])
    cut, broken = films(found.found, cutting, steps.journal("scenes"))
    work = Reasoning(cut, recipe, team, words, steps)
    rows = work.rows(output)
    told = {
        "videos": found.files, "scenes": sum(len(film.scenes) for film in cut),
        "rejected_kinds": dict(Counter(row["rejected_kind"] for row in rows)),
    }  # fmt: skip
    return Made(rows, [*found.dropped, *broken, *work.dropped], steps, told, found.files)


def speaker(given: Mapping[str, Any], role: str, texts: bool = False) -> Speaker:
    """A model by an option's name; the captioner where that was not given."""
    from prefopt.modalities.vision_language.generating import Speaker

    return Speaker(given[role] or given["captioner"], role, given["batch_size"], texts, videos=not texts)


def judge_of(given: Mapping[str, Any], steps: Steps, words: Wording) -> Judge:
    """Who compares answers."""
    from prefopt.modalities.vision_language.video.building.judging import Judge

    return Judge(steps, words, None if given["judge"] is None else speaker(given, "judge", texts=True))


def finish(source: str, output: Path, given: Mapping[str, Any], made: Made) -> None:
    """Write what a build leaves behind, and say what it is.

    Raises:
        ValueError: there are no rows.
    """
    from prefopt.modalities.vision_language.building.writing import write_build

    asked_for = {name: value for name, value in given.items() if value is not None}
    counts = {"kept": len(made.rows), "answers": made.steps.counts}
    path, reasons = write_build(
        output, made.rows, made.dropped, {"source": source, **asked_for, **made.told, **counts}, made.total
    )
    left = "".join(f"; {n} {reason}" for reason, n in reasons.items())
    click.echo(f"{path}: {len(made.rows)} rows{left}")
    asked = ", ".join(f"{step} {n['asked']} of {n['needed']}" for step, n in made.steps.counts.items())
    click.echo(f"asked for now: {asked}")


COMMANDS = (longvpo_1, longvpo_2)
