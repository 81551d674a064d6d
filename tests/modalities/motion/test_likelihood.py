"""Denoising errors of motions: masks, stretches, captions, draws; against golden values and the slow way."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tiny_motions
from prefopt.comparisons import Comparison, Encoded
from prefopt.likelihoods.process import Process
from prefopt.modalities.motion.likelihood import EncodedMotion, MotionLikelihood
from prefopt.modalities.motion.models import denoise_motion, load_motion_model
from prefopt.modalities.motion.refs import MotionRef
from prefopt.modalities.motion.store import MotionStore

CASES = json.loads((Path(__file__).parents[2] / "data" / "sopo.json").read_text())
FRAMES = {"long": 40, "whole": 32, "short": 9}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return load_motion_model(
        str(tiny_motions.tiny_mdm(tmp_path_factory.mktemp("m") / "tiny")), trainable=False
    )


@pytest.fixture(scope="module")
def store(loaded):
    found = MotionStore(loaded)
    for n, (name, frames) in enumerate(FRAMES.items()):
        features = torch.randn(frames, 36, generator=torch.Generator().manual_seed(n))
        found.add_motions([MotionRef(name, name, frames, "stick", lambda x=features: x)])
    found.add_prompts(["a", "b", "c"])
    return found


def likelihood(loaded, store, **more) -> MotionLikelihood:
    return MotionLikelihood(
        process=Process.from_scheduler(loaded.pipe.scheduler),
        network=denoise_motion,
        store=store,
        seed=1,
        **more,
    )


def example(*names: str, i: str = "e") -> Encoded[EncodedMotion]:
    items = tuple(
        EncodedMotion(name, "a", captions=("a", "b", "c"), frames=FRAMES[name], length=FRAMES[name])
        for name in names
    )
    return Encoded(i, items, (Comparison(0, 1),))


def test_the_score_is_the_masked_mean_written_out(loaded, store):
    made = likelihood(loaded, store)
    items = made.at(example("short", "whole"), 2).items
    plan = made.plan(items)
    scores = made.score(loaded.model, plan).logp_N
    pipe = loaded.pipe
    for n, item in enumerate(items):
        z = pipe.stats.normalize(store.motion(item.latent)[item.start : item.start + item.length])
        noise = plan.noise_NCHW[n, : item.length]
        x = made.process.add_noise(z[None], noise[None], plan.t_N[n : n + 1])
        text = pipe.encode_texts([item.prompt])
        out = pipe.denoiser(x, plan.t_N[n : n + 1], text, torch.tensor([item.length]))
        torch.testing.assert_close(scores[n], -(out - z).square().mean(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "case", [c for c in CASES if c["inputs"]["kind"] == "masked_error"], ids=lambda c: c["name"]
)
def test_masked_errors(loaded, store, case):
    """The golden layout is (batch, feature, frame)."""
    made = likelihood(loaded, store, masked=False)
    target, output = (
        torch.tensor(case["inputs"][name], dtype=torch.float64).transpose(1, 2) for name in ("target", "pred")
    )
    length = torch.tensor(case["inputs"]["frame_mask"]).sum(1).long()
    plan = made.plan(made.at(example("whole", "short"), 0).items)
    plan = replace(
        plan,
        x0_NCHW=target,
        noise_NCHW=torch.zeros_like(target),
        conditions={"length": length},
        t_N=torch.zeros(2).long(),
    )
    wild = output.clone()
    for n, frames in enumerate(length.tolist()):
        wild[n, frames:] = float("nan")
    mean = made.error(plan, wild.double())
    torch.testing.assert_close(
        mean, torch.tensor(case["expected"]["mean"], dtype=mean.dtype), rtol=1e-6, atol=1e-6
    )
    summed = mean * made.elements(plan)
    torch.testing.assert_close(
        summed, torch.tensor(case["expected"]["sum"], dtype=summed.dtype), rtol=1e-6, atol=1e-6
    )


def test_scales_of_the_error(loaded, store):
    items = likelihood(loaded, store).at(example("short", "whole"), 2).items
    found = {}
    for scale in ("mean", "steps", "sum"):
        made = likelihood(loaded, store, scale=scale)
        found[scale] = made.score(loaded.model, made.plan(items)).logp_N
    torch.testing.assert_close(found["steps"], 10 * found["mean"])
    elements = torch.tensor([item.length * 36.0 for item in items])
    torch.testing.assert_close(found["sum"], 10 * elements * found["mean"])


def test_errors_of_noise_are_snr_times_those_of_x0(loaded, store):
    (case,) = [c for c in CASES if c["inputs"]["kind"] == "x0_to_eps_error"]
    from diffusers import DDPMScheduler

    process = Process.from_scheduler(
        DDPMScheduler(
            num_train_timesteps=case["inputs"]["T"],
            beta_schedule="squaredcos_cap_v2",
            prediction_type="sample",
            clip_sample=False,
        )
    )
    weight = process.weight(torch.tensor(case["inputs"]["t"]), "snr")
    torch.testing.assert_close(weight, torch.tensor(case["expected"]["snr"]), rtol=1e-4, atol=1e-6)
    errors = weight * torch.tensor(case["inputs"]["err_x0"])
    torch.testing.assert_close(errors, torch.tensor(case["expected"]["err_eps"]), rtol=1e-4, atol=1e-6)


def test_a_score_does_not_depend_on_the_batch(loaded, store):
    made = likelihood(loaded, store)
    items = made.at(example("short", "whole"), 0).items
    together = made.score(loaded.model, made.plan(items)).logp_N
    alone = made.score(loaded.model, made.plan(items[:1]))
    torch.testing.assert_close(alone.logp_N[0], together[0])
    assert made.plan(items[:1]).x0_NCHW.shape[1] == items[0].length  # no longer than it need be


def test_released_models_are_given_their_whole_length(loaded, store):
    made = likelihood(loaded, store, masked=False)
    items = made.at(example("short", "short"), 0).items
    assert made.plan(items).x0_NCHW.shape[1] == 32


def test_both_ends_share_noise_timestep_and_caption(loaded, store):
    made = likelihood(loaded, store)
    seen = set()
    for epoch in range(12):
        one, two = made.at(example("whole", "short"), epoch).items
        assert one.prompt == two.prompt
        seen.add(one.prompt)
        plan = made.plan((one, two))
        assert plan.t_N[0] == plan.t_N[1]
        assert torch.equal(plan.noise_NCHW[0, : two.length], plan.noise_NCHW[1, : two.length])
    assert seen == {"a", "b", "c"}
    assert made.at(example("whole", "short"), -1).items[0].prompt == "a"


def test_stretches_follow_the_data_sets_rule(loaded, store):
    made = likelihood(loaded, store)
    whole = [made.at(example("whole", "short", i=f"e{n}"), 0).items[0] for n in range(300)]
    assert {item.length for item in whole} == {28, 32}
    assert 0.25 < sum(item.length == 28 for item in whole) / 300 < 0.42
    long = [made.at(example("long", "short", i=f"e{n}"), 0).items[0] for n in range(300)]
    assert {item.length for item in long} == {32}  # a unit less than ten is still more than the model takes
    assert {item.start for item in long} == set(range(9))
    assert made.at(example("whole", "short"), -1).items[0].length == 32


def test_what_is_shown_stays_when_noise_is_drawn_anew(loaded, store):
    made = likelihood(loaded, store)
    shown = made.shown(example("long", "short"), 3)
    again = made.renoised(shown, 17)
    assert [(i.prompt, i.start, i.length) for i in again.items] == [
        (i.prompt, i.start, i.length) for i in shown.items
    ]
    assert not torch.equal(
        made.plan(again.items).noise_NCHW, made.plan(made.renoised(shown, 18).items).noise_NCHW
    )


def test_keys_tell_apart_what_scores_differ_by(loaded, store):
    made = likelihood(loaded, store)
    item = made.at(example("long", "short"), 0).items[0]
    other = [
        replace(item, prompt=item.prompt + "x"), replace(item, start=item.start + 1), replace(item, length=8), replace(item, epoch=1),
        replace(item, latent="whole"), replace(item, slot=1),
    ]  # fmt: skip
    assert len({made.key(x) for x in (item, *other)}) == 7
    assert made.key(item) == made.key(replace(item))
