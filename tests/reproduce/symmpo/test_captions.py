"""B of `prefopt reproduce symmpo`: arms, their rows, and what is measured, in a world whose model has learned nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from prefopt.comparisons import collate
from prefopt.config import resolve
from prefopt.reproduce import runs
from prefopt.reproduce.symmpo import captions
from prefopt.reproduce.symmpo.captions import (
    ARMS,
    BOTH_ROWS,
    DPO,
    QUICK,
    SHARED,
    START,
    SWEEP,
    SYMMPO,
    Exam,
    Measured,
    Trained,
    crossed,
    exam_of,
    percent,
    rows_of,
    run_of,
    swapped,
    train,
    world_of,
)
from prefopt.worlds.caption.measures import Measures
from prefopt.worlds.caption.task import objects_of

pytestmark = pytest.mark.usefixtures("cache")
SIZE = replace(QUICK, rows=6, steps=2, batch=3)
FREE = {"method", "num_train_epochs"}
"""What may differ between arms: epochs count for nothing where the number of steps is given."""


def test_arms_differ_in_their_objective_alone():
    """Whatever a method would take by itself: mDPO, for one, has a decay and a second moment of its own."""

    def settings(arm: captions.Arm) -> dict[str, Any]:
        config, _ = resolve({"model": "m", "data": "d", "method": arm.method, **SHARED | dict(arm.options)})
        return config.model_dump(exclude=FREE)

    first, *others = (settings(arm) for arm in (ARMS | SWEEP).values())
    for other in others:
        assert other == first


def test_objectives_of_the_arms():
    """Weights by hand: a sum of log 2s at the start, where all log-ratios are 0."""
    from prefopt.objectives import get
    from prefopt.objectives.sides import Score, Sides

    zero = torch.zeros(1)
    sides = Sides(rho_w=zero, rho_l=zero, branches={k: Score(rho=zero) for k in ("c", "cc", "cw")})

    def start(arm: captions.Arm) -> float:
        objective = get(arm.method, beta=SHARED["beta"], **arm.options)
        return float(objective.losses(sides, None, objective.initial_state())) / math.log(2)

    assert {name: round(start(arm), 6) for name, arm in ARMS.items()} == {
        "DPO": 1, "DPO and anchor": 2, "mDPO": 3, "mDPO, both rows": 3, "DPO, S-VCO and anchors": 4, "SymMPO": 4,
        "SymMPO without pair": 3, "SymMPO without anchor": 2,
    }  # fmt: skip
    assert [arm.options["margin_weight"] for arm in SWEEP.values()] == [0, 1e-3, 1e-2, 1e-1]


def test_both_rows_of_an_example_stand_next_to_each_other():
    rows = rows_of("both rows", 0, SIZE)
    assert rows[::2] == rows_of("rows", 0, SIZE)
    world = world_of(0, SIZE)
    own, edited = (draw(SIZE.rows) for draw in (world.pictures, world.contrasts))
    for k, row in enumerate(rows[1::2]):
        assert world.objects({"image": row["image"]["bytes"]}) == objects_of(edited.scenes[k])
        assert world.objects({"image": row["contrast_image"]["bytes"]}) == objects_of(own.scenes[k])
        assert row["chosen"][0]["content"] == edited.captions[k]
        assert row["rejected"] == rows[2 * k]["contrast_rejected"]
        assert {k: v for k, v in swapped(row).items() if k != "id"} == {
            name: rows[2 * k][name] for name in row if name != "id"
        }
    assert len({row["id"] for row in rows}) == 2 * SIZE.rows


def test_the_exam_is_of_held_out_pictures_and_their_edits():
    world, n = world_of(0, SIZE), 4
    own, edited = world.pictures(n, "test"), world.contrasts(n, "test")
    for name, (scenes, captions_of) in {
        "w": (own, own), "c": (own, edited), "cc": (edited, edited), "cw": (edited, own)
    }.items():  # fmt: skip
        for k, item in enumerate(crossed(world, n)[name]):
            assert world.objects(item.condition) == objects_of(scenes.scenes[k]), name
            assert item.sample[0]["content"] == captions_of.captions[k], name


def test_the_exam_scores_as_the_model_does_by_itself():
    """One caption at a time through transformers' own processor."""
    from PIL import Image

    from prefopt.png import as_levels
    from prefopt.worlds.caption.model import EOS, load, prompt_text

    world = world_of(0, SIZE)
    exam = exam_of(world, 3)
    model, processor = load(world.model_dir())
    edited, own = world.contrasts(3, "test"), world.pictures(3, "test")
    for k in range(3):
        text = prompt_text(processor)
        images = [Image.fromarray(as_levels(edited.images_BCHW[k]))]
        whole = processor(
            images=images,
            text=[text + own.captions[k] + EOS],
            return_tensors="pt",
            add_special_tokens=False,
        )
        start = processor(images=images, text=[text], return_tensors="pt", add_special_tokens=False)
        first = start["input_ids"].shape[1]
        with torch.no_grad():
            logp = model(**whole).logits[0].log_softmax(-1)
        ids = whole["input_ids"][0]
        want = sum(float(logp[t - 1, ids[t]]) for t in range(first, len(ids)))
        assert float(exam.before["cw"][k]) == pytest.approx(want, abs=1e-4)


def test_measures_of_two_images_are_of_the_right_branches(monkeypatch):
    """By hand from made-up scores, where each branch has its own."""
    t = torch.tensor
    before = {"w": t([-4.0, -4.0]), "c": t([-5.0, -5.0]), "cc": t([-6.0, -6.0]), "cw": t([-7.0, -7.0])}
    after = {"w": t([-3.0, -2.0]), "c": t([-9.0, -1.0]), "cc": t([-6.0, -5.0]), "cw": t([-8.0, -9.0])}
    monkeypatch.setattr(captions, "scored", lambda *_: after)

    class Likelihood:
        class images:
            processor = None

    class World:
        def measured(self, model: Any, processor: Any, n: int) -> str:
            return f"of {n}"

    found = Exam(World(), 2, Likelihood(), {}, before).measured(torch.nn.Identity())  # type: ignore[arg-type]
    assert found.captions == "of 2"  # type: ignore[comparison-overlap]
    assert found.swap_accuracy == 0.5
    assert found.sensitivity == 6.0  # (5 + 7) / 2
    # m_1 = (1 - -4, 2 - 4) and m_2 = (0 - -1, 1 - -2)
    assert found.gap == (abs(5 - 1) + abs(-2 - 3)) / 2
    assert found.drift == 1.5


@pytest.fixture(scope="module")
def once(cache: Path) -> dict[str, Trained]:
    return {name: train(name, 0, SIZE) for name in (START, DPO, BOTH_ROWS, SYMMPO)}


def test_the_start_has_not_moved_and_arms_have(once):
    assert once[START].measured.drift == pytest.approx(0, abs=1e-5)
    assert once[START].measured.gap == pytest.approx(0, abs=1e-5)
    for name in (DPO, BOTH_ROWS, SYMMPO):
        assert abs(once[name].measured.drift) > 1e-3
        assert once[name].seconds > 0
    assert "symmpo/pair" in once[SYMMPO].logs
    assert once[SYMMPO].measured.captions.captions == SIZE.pictures


def test_the_same_arm_again_is_the_same(once):
    again = train(SYMMPO, 0, SIZE).measured
    assert again == once[SYMMPO].measured


def test_order_of_rows_is_the_same_for_arms_of_the_same_rows():
    orders = []
    for name in (DPO, SYMMPO):
        with run_of(ARMS[name], 0, SIZE) as course:
            feed = course.loop.feed
            orders.append([[e.id for examples in feed.updates(s) for e in examples] for s in range(2)])
    assert orders[0] == orders[1]
    assert len({*orders[0][0], *orders[0][1]}) == SIZE.rows


def test_the_pair_term_alone_is_dpo_on_split_rows():
    """SymMPO with gamma = eta = 0 and no response term against the rows (m; y_w, y'_w) and (m'; y'_w, y_w): losses, updates."""
    rows, size = rows_of("rows", 0, SIZE), replace(SIZE, batch=SIZE.rows)
    split = [
        {"id": f"{row['id']}{n}", "prompt": row["prompt"], "image": image, "chosen": good, "rejected": bad}
        for row in rows
        for n, (image, good, bad) in enumerate(
            (
                (row["image"], row["chosen"], row["contrast_chosen"]),
                (row["contrast_image"], row["contrast_chosen"], row["chosen"]),
            )
        )
    ]
    shared: dict[str, Any] = {
        "model": str(world_of(0, size).model_dir()), "seed": 0, "max_steps": 5, **SHARED, "learning_rate": 0.3, "optim": "sgd"
    }  # fmt: skip
    pair = {"pair_weight": 0.5, "margin_weight": 0.0, "anchor_weight": 0.0, "response_weight": 0.0}

    def after(given: list[Any], **options: Any) -> tuple[float, dict[str, torch.Tensor]]:
        with runs.on_rows(given, per_device_train_batch_size=len(given), **shared, **options) as course:
            loop = course.loop
            loop.fit(lambda: None)
            sides = loop.scorer.sides(loop.model, collate(course.setup.data.train)).sides
            loss = loop.objective.losses(sides, None, loop.state).mean()
            return float(loss), {k: v.detach().clone() for k, v in loop.model.state_dict().items()}

    symmpo, ours = after(rows, method="symmpo", **pair)
    dpo, theirs = after(split, method="dpo")
    assert symmpo != pytest.approx(math.log(2), abs=1e-4)  # it has moved
    assert symmpo == pytest.approx(dpo, abs=1e-6)
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name], rtol=0, atol=1e-6)


def test_a_model_that_says_nothing_has_no_hallucinations_and_no_f1():
    none = Measures(math.nan, 0.0, 0.0, math.nan, 0.0, math.nan, 0.0, 0.0, 5)
    run = Trained(Measured(none, 0.0, 0.0, 0.0, 0.0), 1.0, {})
    assert percent(run, "chair_i") == percent(run, "f1") == 0.0
    run = Trained(Measured(none._replace(chair_i=0.25), 0.0, 0.0, 0.0, 0.0), 1.0, {})
    assert percent(run, "chair_i") == 25.0
