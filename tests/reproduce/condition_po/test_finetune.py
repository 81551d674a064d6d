"""C3 to C5: claims on constructed runs, and a run as `prefopt.train` makes it."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

import prefopt
from prefopt.reproduce.condition_po import finetune
from prefopt.reproduce.condition_po.finetune import (
    CONSISTENCY,
    DIFFUSION,
    DPO,
    DPO_DIFFUSION,
    DPO_FEWER,
    FRECHET_MARGIN,
    GATED,
    SHARED,
    SIGMOID,
    SIGMOID_FORM,
    START,
    STYLE_MARGIN,
    VARIANTS,
    Measured,
    Trained,
)
from prefopt.reproduce.condition_po.world import Run, quick, rows_of, world_of

SIZE = quick(1)
ORDER = (SIGMOID, GATED, CONSISTENCY, DIFFUSION, START, DPO, DPO_DIFFUSION, DPO_FEWER)


def constructed(sign: int, seeds: int = 3) -> dict[str, list[Trained]]:
    """Runs in which each variant of `ORDER` is better in everything than those behind it, or worse."""
    found = {}
    for place, name in enumerate(ORDER):
        better = -sign * place

        def measured(seed: int, better: int = better) -> Measured:
            wobble = 1 + 0.01 * seed
            return Measured(
                0.5 + 0.02 * better * wobble, 2 - 0.1 * better * wobble, 0.6 + 0.02 * better * wobble
            )

        found[name] = [Trained(measured(s), 100, 1.0, {}) for s in range(seeds)]
    return found


@pytest.mark.parametrize(("sign", "verdict"), [(1, "holds"), (-1, "does not hold here")])
def test_claims_follow_the_numbers_both_ways(sign, verdict):
    found = finetune.claims(constructed(sign))
    assert len(found) == 15
    assert {c.verdict for c in found} == {verdict}, [(c.statement, c.interval, c.verdict) for c in found]


def test_a_small_loss_of_quality_is_none():
    for share, verdict in ((0.5, "holds"), (1.5, "does not hold here")):
        found = constructed(1)
        for name in (SIGMOID, GATED):
            found[name] = [
                run._replace(
                    measured=Measured(
                        run.measured.miou,
                        start.measured.frechet * (1 + share * FRECHET_MARGIN) + 1e-4 * s,
                        start.measured.style - share * STYLE_MARGIN / 100 - 1e-5 * s,
                    )
                )
                for s, (run, start) in enumerate(zip(found[name], found[START], strict=True))
            ]
        quality = [c.verdict for c in finetune.claims(found) if c.statement.startswith("C5")]
        assert quality == [verdict] * 4


def test_image_dpo_is_as_good_as_its_best_in_the_claim_of_quality():
    found = constructed(1)
    found[DPO_DIFFUSION] = [
        run._replace(measured=run.measured._replace(frechet=0.1 + 0.001 * s))
        for s, run in enumerate(found[DPO_DIFFUSION])
    ]
    verdicts = [c.verdict for c in finetune.claims(found) if "nearer to real" in c.statement]
    assert verdicts == ["does not hold here"] * 2


def test_the_same_loss_on_both_kinds_of_pairs():
    assert VARIANTS[DPO_DIFFUSION].method == VARIANTS[SIGMOID].method == "condition_po"
    assert VARIANTS[DPO_DIFFUSION].options == VARIANTS[SIGMOID].options
    assert {VARIANTS[name].kind for name in (DPO, DPO_DIFFUSION, DPO_FEWER)} == {"images"}


@pytest.mark.slow
@pytest.mark.usefixtures("cache")
def test_a_run_is_that_of_prefopt_train(tmp_path):
    rows = rows_of("conditions", 0, SIZE)
    options = SHARED | SIGMOID_FORM
    with Run(rows, 4, SIZE, method="condition_po", **options) as run:
        run.course.loop.fit(lambda: None)
        ours = run.pipeline().controlnet.state_dict()
    result = prefopt.train(
        "condition_po", model=world_of(SIZE).model_dir(), data=rows, output_dir=str(tmp_path / "run"), seed=4,
        eval_size=0, max_steps=SIZE.steps, per_device_train_batch_size=SIZE.batch, sample_prompts=0, **options,
    )  # fmt: skip
    file = "controlnet/diffusion_pytorch_model.safetensors"
    theirs, start = (load_file(folder / file) for folder in (result.model_dir, world_of(SIZE).model_dir()))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert any(not torch.equal(ours[name], start[name]) for name in ours)


@pytest.mark.usefixtures("cache")
def test_samples_behind_a_run_are_those_of_its_rows():
    ids = [int(row["id"].removeprefix("train-")) for row in rows_of("images", 0, SIZE)]
    assert finetune.train(DIFFUSION, 0, SIZE).samples == 0
    fewer = finetune.train(DPO_FEWER, 0, SIZE)
    assert fewer.samples == 3 * (ids[3] - ids[0] + 1)
    assert fewer.seconds > 0
