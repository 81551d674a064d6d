"""MVBench (arXiv 2311.17005): twenty tasks of 200 questions about short clips, one JSON file each.

Micro accuracy of all and of each task. It is what a model of long video should not lose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefopt.evaluation.benchmarks.base import (
    Given,
    NamedVideo,
    Part,
    Question,
    asked_once,
    read_rows,
)
from prefopt.evaluation.benchmarks.choices import (
    files_of,
    letter_of,
    listed,
    parts_of,
    predictions_file,
    read_predictions,
)

ANSWERS = "answers.json"
NEEDS = ""

ASKED = (
    "Carefully watch the video and pay attention to the cause and sequence of events, the detail and movement of objects, and "
    "the action and pose of persons. Based on your observations, select the best option that accurately addresses the question."
)
FOLDERS = {
    "action_antonym": "ssv2_video",
    "action_count": "perception/videos",
    "action_localization": "sta/sta_video",
    "action_prediction": "star/Charades_v1_480",
    "action_sequence": "star/Charades_v1_480",
    "character_order": "perception/videos",
    "counterfactual_inference": "clevrer/video_validation",
    "egocentric_navigation": "vlnqa",
    "episodic_reasoning": "tvqa/frames_fps3_hq",
    "fine_grained_action": "Moments_in_Time_Raw/videos",
    "fine_grained_pose": "nturgbd",
    "moving_attribute": "clevrer/video_validation",
    "moving_count": "clevrer/video_validation",
    "moving_direction": "clevrer/video_validation",
    "object_existence": "clevrer/video_validation",
    "object_interaction": "star/Charades_v1_480",
    "object_shuffle": "perception/videos",
    "scene_transition": "scene_qa/video",
    "state_change": "perception/videos",
    "unexpected_action": "FunQA_test/test",
}
"""Where the videos of each task lie, below the folder of videos."""
FRAMES_A_SECOND = 3.0  # of episodic_reasoning, whose clips are folders of frames


def questions(path: Path) -> list[Question]:
    """Read the folder of published JSON files, or one of them: its name is the task.

    Raises:
        ValueError: a file of another name.
    """
    found = []
    for file in files_of(path, ".json"):
        if file.stem not in FOLDERS:
            raise ValueError(f"{file} is none of MVBench's tasks: needed {', '.join(FOLDERS)}, each as .json")
        for number, row in enumerate(read_rows(file, ("video", "question", "candidates", "answer"))):
            found.append(_question(f"{file.stem}/{number}", file.stem, row))
    return asked_once(found, path)


def _question(name: str, task: str, row: Mapping[str, Any]) -> Question:
    places = (
        f"{FOLDERS[task]}/{row['video']}",
        f"data0613/{FOLDERS[task]}/{row['video']}",
        str(row["video"]),
    )
    bounded = row.get("start") is not None and row.get("end") is not None
    film = NamedVideo(
        tuple(place for inner in places for place in (inner, f"video/{inner}")),
        start_s=float(row["start"]) if bounded else 0.0,
        end_s=float(row["end"]) if bounded else None,
        fps=FRAMES_A_SECOND,
    )
    prompt = (
        f"{ASKED}\nQuestion: {row['question']}\nOptions:\n{listed(_options(row))}\nOnly give the best option."
    )
    return Question(name, prompt, None, {**row, "task": task}, film)


def _options(row: Mapping[str, Any]) -> list[str]:
    return [str(option) for option in row["candidates"]]


read_answers, answers_file = read_predictions, predictions_file


def right(question: Question) -> tuple[str, int]:
    """The right letter, and how many options there are."""
    options = _options(question.row)
    return letter_of(question.row, options, f"question {question.id}"), len(options)


def parts(questions: Sequence[Question], answers: Mapping[str, str], given: Given) -> list[Part]:
    """All and each task; questions about the same video are drawn together."""
    return parts_of(questions, answers, right, lambda question: [question.row["task"]])
