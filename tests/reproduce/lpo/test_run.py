"""LPO's reproduction with tiny runs: what judges and methods do and pay for, and how the parts are put together."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from prefopt.reproduce import reproduce
from prefopt.reproduce.lpo import cost as lpo_cost
from prefopt.reproduce.lpo import judges as lpo_judges
from prefopt.reproduce.lpo.cost import DPO, LPO, SPO
from prefopt.reproduce.lpo.judges import EXACT, LRM, PIXEL, SCRATCH
from prefopt.reproduce.lpo.run import part
from prefopt.reproduce.lpo.world import (
    FULL,
    QUICK,
    world_of_seed,
)

TINY = replace(QUICK, pairs=24, held_out=24)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A tiny world's data, and a cache apart from the user's."""
    from prefopt.reproduce.lpo.world import prepare

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFOPT_CACHE", str(tmp_path_factory.mktemp("cache")))
        folder = tmp_path_factory.mktemp("lpo")
        prepare(0, TINY, folder)
        yield folder


@pytest.fixture(scope="module")
def judges(root):
    """Cost of each judge, which are trained."""
    return {name: part(name, 0, TINY, root) for name in (LRM, PIXEL, SCRATCH)}


@pytest.fixture(scope="module")
def runs(root, judges):
    """A run of each method."""
    return {name: part(name, 0, TINY, root) for name in (LPO, SPO, DPO)}


def test_pixel_judge_scores_a_pair_as_the_table_of_its_pretraining_does(root):
    model = lpo_judges.new_pixel_model(0, TINY)
    drawn = world_of_seed(0, TINY).pretraining_pictures()
    images, captions, t_B = drawn.images_BCHW[:5], drawn.captions[:5], torch.full((5,), 301)
    torch.testing.assert_close(
        model.table(images, t_B, captions).diagonal(), model.score(images, t_B, captions)
    )
    other = model.score(images, torch.full((5,), 901), captions)
    assert not torch.allclose(other, model.score(images, t_B, captions))  # it knows the noise level


def test_pictures_of_pretraining_are_the_worlds(root, monkeypatch):
    from prefopt.worlds.picture import model as picture_model

    seen = []
    monkeypatch.setattr(picture_model, "pretrain", lambda folder, pictures, **rest: seen.append(pictures))
    world = world_of_seed(7, TINY)
    world.model_dir(progress=False)
    assert seen[0].captions == world.pretraining_pictures().captions
    assert torch.equal(seen[0].images_BCHW, world.pretraining_pictures().images_BCHW)


def test_judges_are_trained_and_counted(judges):
    # pairs an update x 2 pictures, twice for the prompt's part of the features; all of it goes back
    assert judges[LRM].rows["half U-Net"] == judges[LRM].trained_rows["half U-Net"]
    pixel = judges[PIXEL]
    assert pixel.rows["U-Net"] == 2 * pixel.rows["decoder"]  # guidance
    assert "U-Net" not in pixel.trained_rows
    assert "decoder" not in pixel.trained_rows
    assert pixel.trained_rows["pixel judge, first layer"] == pixel.rows["decoder"]
    assert judges[LRM].rows["half U-Net"] == 2 * pixel.rows["decoder"]  # the same comparisons


@pytest.mark.usefixtures("judges")
def test_accuracy_counts_pairs_whose_better_picture_scores_higher(root, monkeypatch):
    found = part("ranking", 0, TINY, root)
    assert set(found.right) == {LRM, PIXEL, SCRATCH, EXACT}
    assert set(found.right[LRM]) == set(TINY.timesteps)
    assert found.right[PIXEL] != found.right[SCRATCH]
    assert all(r == float(r > 0.5) for r in found.right[LRM][1])
    # rows are written better picture first, so a judge that likes what comes first is always right
    order = {
        "first": lambda x, t, prompts: -torch.arange(len(x)),
        "none": lambda x, t, prompts: torch.zeros(len(x)),
    }
    for liked, accuracy in (("first", 1.0), ("none", 0.5)):
        monkeypatch.setattr(lpo_judges, "load_lrm", lambda seed, root, liked=liked: order[liked])
        again = part("ranking", 0, TINY, root)
        assert [again.accuracy(LRM, t) for t in TINY.timesteps] == [accuracy] * 3
    assert again.right[PIXEL] == found.right[PIXEL]


def test_online_runs_pay_for_what_they_draw_and_judge(runs):
    drawn = TINY.measured_rounds[-1] * TINY.prompts_a_round * 20 * 4
    lpo = runs[LPO]
    start, *_, end = lpo.points
    assert start.cost.operations == 0
    assert end.cost.drawn == drawn
    assert end.cost.rows["half U-Net"] == 2 * drawn
    assert "half U-Net" not in end.cost.trained_rows
    assert "decoder" not in end.cost.rows
    # sampling takes 2 rows a prompt and step; each kept pair 2 for the policy and 2 for the reference
    pairs = end.cost.trained_rows.get("U-Net", 0) // 2
    assert end.cost.rows["U-Net"] == 2 * drawn // 4 + 4 * pairs
    assert pairs == pytest.approx(lpo.kept * drawn / 4)
    spo = runs[SPO].points[-1].cost
    compared = drawn * 16 // 20
    assert spo.drawn == compared
    assert spo.rows["decoder"] == spo.rows["pixel judge, first layer"] == compared
    # each candidate's prediction (none for the last step's), of which the next step uses one again
    predicted = 2 * compared * 15 // 16
    earlier = 2 * TINY.measured_rounds[-1] * TINY.prompts_a_round * 5
    assert spo.rows["U-Net"] == predicted + earlier + 2 * spo.trained_rows.get("U-Net", 0)


def test_diffusion_dpo_pays_for_policy_and_reference(runs):
    run = runs[DPO]
    cost = run.points[-1].cost
    assert [p.at for p in run.points] == [0, *TINY.measured_updates]
    assert cost.rows["U-Net"] == 2 * cost.trained_rows["U-Net"]
    assert run.updates == TINY.measured_updates[-1]
    assert run.points[-1].rewards != run.points[0].rewards
    assert math.isclose(
        lpo_cost.unit_of({DPO: [run]}) * (cost.rows["U-Net"] + 2 * cost.trained_rows["U-Net"]),
        cost.operations,
    )


def test_reproduction_puts_its_parts_together_and_writes_its_figures(
    root, judges, runs, tmp_path, monkeypatch
):
    from prefopt.reproduce.lpo import run as lpo
    from prefopt.reproduce.writing import write

    made = {**judges, **runs, lpo.RANK: part(lpo.RANK, 0, TINY, root)}
    asked = []

    def known(what, seed, size, folder):
        asked.append((what, seed))
        return made[what]

    monkeypatch.setattr(lpo, "part", known)
    monkeypatch.setattr(lpo, "prepare", lambda seed, size, folder: asked.append(("prepare", seed)))
    result = reproduce("lpo", seeds=2, quick=True)
    assert sorted(asked) == sorted((what, seed) for what in ("prepare", *made) for seed in range(2))
    assert asked.index((LRM, 1)) < asked.index((LPO, 0))
    assert asked.index((PIXEL, 1)) < asked.index((SPO, 0))
    assert len(result.claims) == 23
    files = write(result, tmp_path)
    assert {p.name for p in files} >= {"lpo.json", "lpo.html", "lpo_accuracy.png", "lpo_cost.svg"}


@pytest.mark.slow
def test_pretraining_of_the_pixel_judge_learns_to_match_every_seeds_captions():
    from prefopt.worlds.picture.task import draw

    for seed in range(3):
        model, prompts = lpo_judges.pretrain_pixel(seed, FULL), world_of_seed(seed, FULL).prompts(144)
        images = draw(prompts, "unseen", 0.0).images_BCHW
        found = model.table(images, torch.ones(144), prompts).argmax(1)
        assert (found == torch.arange(144)).float().mean() > 0.6, seed


@pytest.mark.slow
def test_full_size_shows_a_judge_above_chance_and_methods_that_learn():
    result = reproduce("lpo", seeds=2, workers=2)
    table = result.tables[0]
    cleanest, noisiest = table.rows[0], table.rows[-1]
    assert float(cleanest[1]) > 0.75
    assert 0.5 < float(noisiest[1]) < 0.7
    gains = [row[-3] for row in next(t for t in result.tables if "whole runs" in t.title).rows[:3]]
    assert min(float(g) for g in gains) > 0.05
