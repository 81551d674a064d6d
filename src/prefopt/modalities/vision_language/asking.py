"""The questions of a benchmark put to a model: images and videos found, answers kept as they arrive, and not asked for again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from prefopt.comparisons import UnusableItem
from prefopt.evaluation.benchmarks.base import NamedVideo, Question
from prefopt.evaluation.benchmarks.subtitles import read_subtitles, shown_at
from prefopt.generation.journal import Journal
from prefopt.modalities.vision_language.requests import Answerer, Request
from prefopt.modalities.vision_language.video.videos import Sampling, Video
from prefopt.sources.pictures import ImageRef
from prefopt.sources.progress import with_bar
from prefopt.sources.videos import ClipRef, times_of

NO_SUBTITLES = "No subtitles available"
FRAMES = (".jpg", ".jpeg", ".png", ".webp")


def requests_of(
    questions: Sequence[Question],
    folder: Path | None,
    sampling: Sampling | None = None,
    subtitles: Path | None = None,
    noted: Callable[[str], None] = lambda note: None,
) -> list[Request]:
    """What the model is asked, images and videos included.

    Args:
        questions: of a benchmark.
        folder: of the images and videos that questions name.
        sampling: which frames of a video are shown.
        subtitles: folder of subtitles; those that are shown while a chosen frame is are put before the question. None:
            without.
        noted: told what a reader of the figures has to know.

    Raises:
        ValueError: images or videos are named, and there is no folder, or some are not in it; before anything is asked.
        UnusableItem: a video that cannot be used.
    """
    named = [question for question in questions if _names(question)]
    if named and folder is None:
        kind = "videos" if named[0].video else "image files"
        option = "--videos" if named[0].video else "--images"
        raise ValueError(
            f"{len(named)} questions name {kind}, such as {_names(named[0])[0]!r}: give their folder as {option}"
        )
    missing = [question for question in named if _place(_names(question), folder) is None]
    if missing:
        kind, option = ("videos", "--videos") if missing[0].video else ("images", "--images")
        raise ValueError(
            f"{len(missing)} {kind} are not in {folder}, such as {' or '.join(map(repr, _names(missing[0])[:4]))} of question "
            f"{missing[0].id!r}: add them, or give the folder that holds them as {option}"
        )
    if subtitles is not None:
        _check_subtitles(questions, subtitles)
    films = [question for question in questions if question.video]
    watched = {
        question.id: _video(question.video, folder, sampling or Sampling())
        for question in (with_bar(films, "reading videos") if films else ())
        if question.video is not None
    }
    if whole := sum(not bounded for _, bounded in watched.values()):
        noted(
            f"of {whole} questions no frame lies within the bounds that are given: the whole video is shown"
        )
    without = 0
    found = []
    for question in questions:
        video, prompt = watched.get(question.id, (None, True))[0], question.prompt
        if subtitles is not None and video is not None and question.video is not None:
            text = _subtitles(question.video, video, subtitles)
            without += text is None
            prompt = question.video.subtitled_prompt.replace("{subtitles}", text or NO_SUBTITLES, 1)
        found.append(Request(_images(question, folder), prompt, () if video is None else (video,)))
    if without:
        noted(f"{without} questions are asked without subtitles: there is no file for their videos")
    return found


def _names(question: Question) -> tuple[str, ...]:
    if question.video is not None:
        return question.video.names
    return question.image if isinstance(question.image, tuple) else ()


def _place(names: Sequence[str], folder: Path | None) -> Path | None:
    """Where the image or the video lies; paths that lead out of the folder are not followed."""
    if folder is None:
        return None
    inside = (Path(name) for name in names if not Path(name).is_absolute() and ".." not in Path(name).parts)
    return next(
        (folder / name for name in inside if (folder / name).is_file() or _frames(folder / name)), None
    )


def _frames(place: Path) -> list[Path]:
    """The images of a folder, in the order of their names."""
    if not place.is_dir():
        return []
    return sorted(file for file in place.iterdir() if file.suffix.lower() in FRAMES)


def _images(question: Question, folder: Path | None) -> list[ImageRef]:
    if question.image is None:
        return []
    if isinstance(question.image, bytes):
        return [ImageRef(question.image, f"the image of question {question.id}")]
    place = _place(question.image, folder)
    assert place is not None  # looked for above
    return [ImageRef(place, str(place))]


def _video(named: NamedVideo, folder: Path | None, sampling: Sampling) -> tuple[Video, bool]:
    """The video with its frames chosen, and whether its bounds hold."""
    place = _place(named.names, folder)
    assert place is not None  # looked for above
    if place.is_dir():
        images = tuple(ImageRef(file, str(file)) for file in _frames(place))
        clip = ClipRef(images, fps=named.fps, name=str(place))
    else:
        clip = ClipRef(place, name=str(place))
    if named.start_s or named.end_s is not None:
        try:
            bounded = replace(clip, start_s=named.start_s, end_s=named.end_s)
            return Video((sampling.of(bounded),)), True
        except UnusableItem as error:
            if error.reason != "no_frames":
                raise
            return Video((sampling.of(clip),)), False
    return Video((sampling.of(clip),)), True


def _check_subtitles(questions: Sequence[Question], folder: Path) -> None:
    named = [question.video for question in questions if question.video and question.video.subtitles]
    if not named:
        raise ValueError("these questions come without subtitles: leave out --subtitles")
    if not any(_place(video.subtitles, folder) for video in named):
        raise ValueError(
            f"no subtitles are in {folder}, such as {' or '.join(map(repr, named[0].subtitles))}: give the folder that holds "
            "them as --subtitles"
        )


def _subtitles(named: NamedVideo, video: Video, folder: Path) -> str | None:
    """What is said while a chosen frame is shown; None where there is no file."""
    place = _place(named.subtitles, folder)
    if place is None:
        return None
    seconds = [
        time + clip.start_s + named.subtitles_from_s for clip in video.clips for time in times_of(clip)
    ]
    return shown_at(read_subtitles(place), seconds)


def ask(
    answers: Answerer,
    questions: Sequence[Question],
    requests: Sequence[Request],
    journal_path: Path,
    settings: Mapping[str, Any],
    batch_size: int,
) -> dict[str, str]:
    """Answers by id; those in the journal are not asked for again.

    Args:
        answers: of the model; called with `batch_size` requests at most.
        questions, requests: one each.
        journal_path: where answers are kept as they arrive.
        settings: what the answers depend on beside the requests; a journal of others is refused.
        batch_size: answers between two writes.

    Raises:
        ValueError: a journal of other settings, or with another question or image under an id; or a model that gives another
            number of answers.
        UnusableItem: an image or a video that cannot be read.
    """
    digests = [_digest(request) for request in requests]
    known = {question.id: digest for question, digest in zip(questions, digests, strict=True)}
    found: dict[str, str] = {}
    with Journal(journal_path, settings) as journal:
        for number, row in journal.lines:
            if known.get(row["id"], row["asked"]) != row["asked"]:
                raise ValueError(
                    f"{journal_path}, line {number}: answers another question or image under the id {row['id']!r}. Give another "
                    "--output, or delete the journal"
                )
            found[row["id"]] = row["answer"]
        left = [n for n, question in enumerate(questions) if question.id not in found]
        batches = [left[start : start + batch_size] for start in range(0, len(left), batch_size)]
        for batch in with_bar(batches, "asking"):
            said = answers([requests[n] for n in batch])
            if len(said) != len(batch):
                raise ValueError(
                    f"the model gave {len(said)} answers to {len(batch)} questions: needed one each"
                )
            lines = [
                {"id": questions[n].id, "answer": text, "asked": digests[n]}
                for n, text in zip(batch, said, strict=True)
            ]
            journal.append(lines)
            found |= {line["id"]: line["answer"] for line in lines}
    return {question.id: found[question.id] for question in questions}


def _digest(request: Request) -> str:
    """Of prompt, images and videos, by their bytes."""
    shown = [*(image.digest for image in request.images), *(video.digest for video in request.videos)]
    return blake2b(json.dumps([request.prompt, *shown]).encode(), digest_size=8).hexdigest()
