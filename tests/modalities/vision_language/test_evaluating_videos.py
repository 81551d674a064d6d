"""`prefopt evaluate` on benchmarks of video: files found, frames and subtitles chosen, a tiny model that answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

import tiny_vision
from prefopt.evaluation.benchmarks.base import NamedVideo, Question
from prefopt.modalities.vision_language import evaluate
from prefopt.modalities.vision_language.answering import check_beams, load_answerer
from prefopt.modalities.vision_language.asking import requests_of
from prefopt.modalities.vision_language.requests import Request
from prefopt.modalities.vision_language.video.videos import Sampling, Video
from prefopt.sources.videos import ClipRef, decode
from tiny_videos import drawing, number_in, write


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a.mp4 of 4 s, below the folder that MLVU has it in; clip_7 of 12 frames, 3 a second; questions about both."""
    folder = tmp_path_factory.mktemp("films")
    (folder / "1_plotQA").mkdir()
    write(folder / "1_plotQA" / "a.mp4", frames=40)
    (folder / "clip_7").mkdir()
    for index in range(12):
        Image.fromarray(drawing(index)).save(folder / "clip_7" / f"{index + 1:05}.jpg", quality=95)
    rows = [
        {"video": "a.mp4", "question": f"Which is {n}?", "candidates": ["red", "green"], "answer": "green", "question_type": "plotQA"}
        for n in range(3)
    ]  # fmt: skip
    (folder / "1_plotQA.json").write_text(json.dumps(rows))
    return folder


def about(**named: Any) -> Question:
    return Question("1", "?", None, {}, NamedVideo(**named))


def shown(request: Request) -> list[int]:
    """Numbers of the frames that a request shows."""
    return [number_in(pixels) for clip in request.videos[0].clips for pixels in decode(clip).pixels_FHW3]


# -- what is asked -----------------------------------------------------------------------------------------


def test_frames_are_chosen_within_the_bounds(films: Path) -> None:
    place = ("nowhere.mp4", "1_plotQA/a.mp4")
    (request,) = requests_of([about(names=place)], films, Sampling(frames=4))
    assert (request.images, request.prompt) == ([], "?")
    assert shown(request) == [5, 15, 25, 35]
    (request,) = requests_of([about(names=place, start_s=1.0, end_s=2.0)], films, Sampling(frames=2))
    assert shown(request) == [12, 17]
    (request,) = requests_of([about(names=place, start_s=3.5, end_s=99.0)], films, Sampling(frames=64))
    assert shown(request) == [35, 36, 37, 38, 39]


def test_bounds_behind_the_end_are_told(films: Path) -> None:
    notes: list[str] = []
    questions = [about(names=("1_plotQA/a.mp4",), start_s=10.0, end_s=12.0)]
    (request,) = requests_of(questions, films, Sampling(frames=2), noted=notes.append)
    assert shown(request) == [10, 30]
    assert notes == [
        "of 1 questions no frame lies within the bounds that are given: the whole video is shown"
    ]


def test_a_folder_of_frames_is_a_video(films: Path) -> None:
    (request,) = requests_of([about(names=("clip_7",), fps=3.0)], films, Sampling(frames=3))
    assert shown(request) == [2, 6, 10]
    (request,) = requests_of(
        [about(names=("clip_7",), fps=3.0, start_s=1.0, end_s=2.0)], films, Sampling(frames=8)
    )
    assert shown(request) == [3, 4, 5]


def test_videos_that_are_not_there(films: Path) -> None:
    with pytest.raises(
        ValueError, match=r"1 videos are not in .*'b.mp4' or 'c.mp4' of question '1'.*--videos"
    ):
        requests_of([about(names=("b.mp4", "c.mp4"))], films)
    with pytest.raises(
        ValueError, match=r"1 questions name videos, such as 'b.mp4': give their folder as --videos"
    ):
        requests_of([about(names=("b.mp4",))], None)
    with pytest.raises(ValueError, match="1 videos are not in"):
        requests_of([about(names=("../1_plotQA/a.mp4",))], films / "1_plotQA")
    with pytest.raises(ValueError, match="no video that can be read"):
        requests_of([about(names=("1_plotQA.json",))], films)


def test_subtitles_are_those_of_the_frames(films: Path, tmp_path: Path) -> None:
    lines = [(0, 1, "One."), (1, 2, "Two."), (2, 4, "Three.")]
    # the file's clock is at 10 s where the video begins
    rows = [{"start": f"00:00:{10 + a}.0", "end": f"00:00:{10 + b}.0", "line": text} for a, b, text in lines]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    named = {
        "names": ("1_plotQA/a.mp4",), "subtitles": ("a.json",), "subtitles_from_s": 10.0, "subtitled_prompt": "Said: {subtitles}\n?",
    }  # fmt: skip
    (request,) = requests_of([about(**named)], films, Sampling(frames=2), tmp_path)
    assert request.prompt == "Said: Two.\nThree.\n?"
    (request,) = requests_of([about(**named)], films, Sampling(frames=1), tmp_path)
    assert request.prompt == "Said: Three.\n?"
    notes: list[str] = []
    silent = Question("2", "?", None, {}, NamedVideo(**{**named, "subtitles": ("b.json",)}))
    found = requests_of([about(**named), silent], films, Sampling(frames=1), tmp_path, notes.append)
    assert found[1].prompt == "Said: No subtitles available\n?"
    assert notes == ["1 questions are asked without subtitles: there is no file for their videos"]
    with pytest.raises(ValueError, match=r"no subtitles are in .* 'b.json': give the folder"):
        requests_of([silent], films, Sampling(frames=1), tmp_path)
    with pytest.raises(ValueError, match="come without subtitles"):
        requests_of([about(names=("1_plotQA/a.mp4",))], films, Sampling(), tmp_path)


# -- the command -------------------------------------------------------------------------------------------


class StandIn:
    """Says (B) where the first frame that it is shown has a number below ten."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def load(self, model: str, **how: Any) -> Any:
        return self

    def __call__(self, requests: Sequence[Request]) -> list[str]:
        self.requests += requests
        return ["(B) green" if shown(request)[0] < 10 else "" for request in requests]


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in = StandIn()
    monkeypatch.setattr(evaluate, "load", stand_in.load)
    return stand_in


def run(films: Path, output: Path, *args: object) -> Any:
    given = ["--benchmark", "mlvu", "--questions", films / "1_plotQA.json", "--output", output, *args]
    return CliRunner().invoke(evaluate.COMMAND, [str(arg) for arg in given])


def told(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "evaluation.json").read_text())
    return found


def test_a_model_is_asked_about_videos_and_scored(films: Path, tmp_path: Path, model: StandIn) -> None:
    done = run(films, tmp_path, "some/model", "--videos", films, "--video_frames", "3")
    assert done.exit_code == 0, done.output
    assert len(model.requests) == 3
    assert shown(model.requests[0]) == [6, 20, 33]
    assert told(tmp_path)["parts"]["plotQA"]["figures"] == {"accuracy": 1.0}
    assert told(tmp_path)["parts"]["all"]["figures"]["m_avg"] is None
    # other frames are other questions
    other = run(films, tmp_path, "some/model", "--videos", films, "--video_frames", "4")
    assert other.exit_code == 1
    assert "answers another question" in other.output
    again = run(films, tmp_path / "again", "--answers", tmp_path / "answers.json")
    assert told(tmp_path / "again")["parts"] == told(tmp_path)["parts"], again.output


def test_answers_without_a_letter_are_told(films: Path, tmp_path: Path, model: StandIn) -> None:
    done = run(films, tmp_path, "some/model", "--images", films, "--video_frames", "1")
    assert done.exit_code == 0, done.output
    assert told(tmp_path)["parts"]["plotQA"]["figures"] == {"accuracy": 0.0}
    assert "3 answers name no option, and count as wrong" in told(tmp_path)["notes"]


def test_the_command_for_lmms_eval_is_written(tmp_path: Path, model: StandIn) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
    args = ["--benchmark", "lvbench", "--lmms_eval", "--video_frames", "64", "--output", tmp_path / "out"]
    done = CliRunner().invoke(evaluate.COMMAND, [str(tmp_path), *map(str, args)])
    assert done.exit_code == 0, done.output
    assert "max_num_frames=64 --tasks lvbench " in (tmp_path / "out" / "lmms_eval.sh").read_text()
    assert not model.requests
    nobody = CliRunner().invoke(evaluate.COMMAND, [str(arg) for arg in args])
    assert "give its folder" in nobody.output
    nothing = CliRunner().invoke(evaluate.COMMAND, ["m", "--benchmark", "lvbench"])
    assert "give --questions" in nothing.output


# -- a model -----------------------------------------------------------------------------------------------


def test_a_tiny_model_answers_about_videos_and_images(films: Path, tmp_path: Path) -> None:
    folder = tiny_vision.save_tiny("qwen2_5_vl", tmp_path / "model")
    clip = ClipRef(films / "1_plotQA" / "a.mp4")
    videos = [
        Video((Sampling(frames=4).of(ClipRef(clip.source, a, b)),)) for a, b in ((0.0, 1.0), (3.0, 4.0))
    ]
    requests = [Request([], "what is in this picture ?", (video,)) for video in videos]
    requests += [Request([], "what is in this picture ?")]
    answers = load_answerer(str(folder), max_new_tokens=8, temperature=1.0, num_beams=1, seed=0, batch_size=3)
    found = answers(requests)
    assert len(set(found)) == 3
    assert [answers([request])[0] for request in requests] == found  # whatever else is asked


def test_beams_and_videos(films: Path) -> None:
    from transformers import LlavaForConditionalGeneration

    video = Video((ClipRef(films / "1_plotQA" / "a.mp4", frames=(1, 2)),))

    class Other(LlavaForConditionalGeneration):
        def __init__(self) -> None:
            pass

        def forward(self, input_ids: Any) -> Any: ...

    with pytest.raises(ValueError, match="several images, or to videos"):
        check_beams(Other(), [Request([], "?", (video,))])
