"""Rows of the scene world: what a sample shows against what it was asked for, and runs on them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from click.testing import CliRunner

from prefopt.cli.main import main
from prefopt.modalities.control.rows import conditions_of, to_control_comparisons
from prefopt.sources.files import load_rows
from prefopt.worlds.pixels import as_batch
from prefopt.worlds.scene import rows as scene_rows
from prefopt.worlds.scene.world import SceneWorld

from .conftest import TINY


def test_the_losing_condition_is_what_the_detector_sees_in_the_models_sample(world):
    rows, detector, scenes = world.comparisons(6), world.detector(), world.pictures(6)
    assert [row["id"] for row in rows] == [f"train-{k}" for k in range(6)]  # this model follows nothing
    chosen, rejected = (
        detector.read(as_batch([row[side] for row in rows]))
        for side in ("chosen_condition", "rejected_condition")
    )
    assert torch.equal(chosen, scenes.classes_BHW)
    assert torch.equal(rejected, detector.detect(world.samples(6)[:, 0]))
    assert [row["score"] for row in rows] == detector.agreement(chosen, rejected).tolist()
    assert [row["prompt"] for row in rows] == scenes.captions
    stored = as_batch([row["image"] for row in rows])
    assert (stored - scenes.images_BCHW).abs().max() < 0.51 / 255
    assert {row["source"] for row in rows} == {"world:scene/mask"}
    assert world.comparisons(4, "test")[0]["id"] == "test-0"


def test_single_rows_leave_no_picture_out(world, monkeypatch):
    rows, scenes = world.singles(5, "test"), world.pictures(5, "test")
    assert [row["id"] for row in rows] == [f"test-{k}" for k in range(5)]
    assert torch.equal(
        world.detector().read(as_batch([row["condition"] for row in rows])), scenes.classes_BHW
    )
    monkeypatch.delattr(SceneWorld, "comparisons")  # they are where the world's own model erred
    found = conditions_of("world:scene", None, limit=3).found
    assert [one.id for one in found] == ["test-0", "test-1", "test-2"]
    with pytest.raises(ValueError, match="world:text has no control images"):
        conditions_of("world:text", None)


def test_label_noise_exchanges_the_sides_of_its_share(world):
    sides = ("chosen_condition", "rejected_condition")
    clean, noisy, more = (world.comparisons(10, label_noise=share) for share in (0.0, 0.3, 0.6))
    turned = [
        {
            k
            for k, (a, b) in enumerate(zip(clean, rows, strict=True))
            if a[sides[0]] == b[sides[1]] and a[sides[1]] == b[sides[0]]
        }
        for rows in (clean, noisy, more)
    ]
    assert [len(t) for t in turned] == [0, 3, 6]
    assert turned[1] < turned[2]
    assert world.comparisons(10, label_noise=0.3, seed=1) != noisy
    with pytest.raises(ValueError, match="label_noise"):
        world.comparisons(2, label_noise=1.2)


def test_a_sample_without_a_flaw_gives_no_row_and_the_next_picture_takes_its_place(world, monkeypatch):
    class Perfect(SceneWorld):
        def samples(self, n, per_condition=1, split="train", progress=True):
            images = self.pictures(n, split).images_BCHW.clone()
            images[1::3] = images[0:1]  # two in three follow their condition
            return images[:, None].repeat(1, per_condition, 1, 1, 1)

    rows = Perfect(seed=3, **TINY).comparisons(3)
    assert [row["id"] for row in rows] == ["train-1", "train-4", "train-7"]
    monkeypatch.setattr(scene_rows, "TRIES", (1,))
    with pytest.raises(
        ValueError, match=r"3 rows asked for, and 3 pictures gave 1 .*follows its conditions too well"
    ):
        Perfect(seed=3, **TINY).comparisons(3)


def test_pairs_are_the_best_and_the_worst_sample(world):
    rows, detector = world.pairs(4, candidates=3), world.detector()
    samples = (
        world.samples(4, 3)
        if len({row["id"] for row in rows} & {f"train-{k}" for k in range(4)}) == 4
        else None
    )
    condition = detector.read(as_batch([row["condition"] for row in rows]))
    for side in ("chosen", "rejected"):
        images = as_batch([row[f"{side}_image"] for row in rows])
        scores = detector.agreement(detector.detect(images), condition).tolist()
        assert [row[f"score_{side}"] for row in rows] == scores
    assert all(row["score_chosen"] > row["score_rejected"] for row in rows)
    if samples is not None:
        for k, row in enumerate(rows):
            scores = detector.agreement(detector.detect(samples[k]), condition[k : k + 1].repeat(3, 1, 1))
            assert (row["score_chosen"], row["score_rejected"]) == (scores.max().item(), scores.min().item())
    with pytest.raises(ValueError, match="at least 2 candidates"):
        world.pairs(2, candidates=1)


def test_both_kinds_of_rows_are_read_as_control_comparisons(world):
    for rows in (world.comparisons(4), world.pairs(4)):
        found = to_control_comparisons(load_rows(rows))
        assert (len(found), found.dropped) == (4, [])
        assert not [note for note in found.report.hints if "column" in note.text]


def test_a_run_names_the_world_as_model_and_data(cache_folder, tmp_path, monkeypatch):
    @dataclass(frozen=True)
    class Tiny(SceneWorld):
        width: int = 8
        pretrain_pictures: int = 64
        batch_size: int = 8
        pretrain_steps: int = 3
        control_steps: int = 3
        consistency_steps: int = 2

    monkeypatch.setattr("prefopt.worlds.scene.world.SceneWorld", Tiny)
    monkeypatch.setattr("prefopt.modalities.splits.world_prompts", lambda source, split: 6)
    out = tmp_path / "run"
    done = CliRunner().invoke(
        main,
        [
            "train", "condition_po", "model=world:scene", "data=world:scene", "max_steps=2", "learning_rate=1e-4",
            "form=sigmoid", "per_device_train_batch_size=2", "num_inference_steps=2", "sample_prompts=2",
            f"output_dir={out}",
        ],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert (out / "model" / "controlnet" / "diffusion_pytorch_model.safetensors").exists()
    assert (out / "report.html").exists()
