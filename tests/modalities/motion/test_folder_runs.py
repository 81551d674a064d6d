"""A folder in HumanML3D's layout through the commands that users type: check, train, evaluate, a BVH file of a sample."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import motion_folder
import processes
import tiny_motions
from prefopt.motion.humanml3d import HUMANML3D


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """`data`, the `model`, and a `judge` that has learned nothing; and a run on them."""
    from prefopt.motion.folders import read_stats
    from prefopt.motion.pipeline import MotionPipeline

    folder = tmp_path_factory.mktemp("folder")
    motion_folder.write_motion_folder(folder / "data")
    tiny_motions.tiny_mdm(folder / "model", features=263, codec="humanml3d", max_frames=40)
    pipe = MotionPipeline.from_pretrained(folder / "model")
    tiny_motions.save_judge(folder / "judge", pipe, read_stats(folder / "data", HUMANML3D))
    return folder


@pytest.fixture(scope="module")
def run(place) -> Path:
    done = processes.prefopt(
        place, "train", "sopo", "--model", "model", "--data", "data", "--eval_data", "data", "judge=retrieval:judge",
        "output_dir=run", "max_steps=2", "per_device_train_batch_size=2", "candidate_steps=2", "num_inference_steps=2",
        "sample_prompts=2", "guidance_scale=1", "eval_steps=50",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "12 examples to train on, 4 held out" in done.stderr
    return place / "run"


def test_check_tells_what_is_in_the_folder(place):
    done = processes.prefopt(place, "check", "data")
    assert done.returncode == 0, done.stderr
    assert "humanml3d, 20 frames a second" in done.stdout
    assert "not_finite" in done.stdout
    assert "000011.npy has numbers that are not finite in frame 7" in done.stdout


def test_sopo_trains_on_it(run):
    losses = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert losses
    dropped = (run / "dropped.jsonl").read_text()
    assert "000011" in dropped
    assert dropped.count("\n") == 1
    calibration = json.loads((run / "record" / "calibration.json").read_text())
    assert calibration["examples"] == 12


def test_its_test_split_measures_what_was_trained(place, run):
    options = ("--repetitions", "2", "--num_inference_steps", "2", "--output", "evaluation")
    done = processes.prefopt(
        place,
        "evaluate",
        "run",
        "--baseline",
        "model",
        "--data",
        "data",
        "--judge",
        "retrieval:judge",
        *options,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads((place / "evaluation" / "evaluation.json").read_text())
    assert (told["split"], told["samples"], told["repetitions"]) == ("test", 33, 2)
    assert told["real"]["fid"]["mean"] == pytest.approx(0, abs=1e-6)
    assert 0 < told["real"]["foot_skating"]["mean"] < told["model"]["foot_skating"]["mean"]
    assert "MODEL was trained with this judge, retrieval:judge" in done.stdout
    assert "33 motions of data (test), 2 repetitions" in done.stdout


def test_a_sample_becomes_a_bvh_file_of_the_same_joints(place, run):
    from prefopt.motion.bvh import read_bvh

    done = processes.prefopt(
        place, "build", "motions", "run", "-o", "moves", "--text", "a person waves the left hand", "--seconds", "2",
        "--num_inference_steps", "2", "--guidance_scale", "1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (row,) = [json.loads(line) for line in (place / "moves" / "motions.jsonl").read_text().splitlines()]
    assert row["frames"] == 40
    found = read_bvh(place / "moves" / row["bvh"])
    assert set(found.joints) >= set(HUMANML3D.skeleton.joints)
    there = [found.joints.index(name) for name in HUMANML3D.skeleton.joints]
    drawn = HUMANML3D.positions(torch.from_numpy(np.load(place / "moves" / row["motion"])))
    # bones keep their lengths in the file, which those of an untrained model's motion do not
    apart = (found.positions_FJ3[:, there] - drawn).norm(dim=-1)
    assert float(apart.max()) <= row["bvh_error"] + 1e-3
    assert float(apart[:, 0].max()) < 1e-3
