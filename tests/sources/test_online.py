"""Comparisons that a policy makes of itself: what the judge is told, which states follow, what is stored."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor
from torch.testing import assert_close

from prefopt.comparisons import Encoded
from prefopt.likelihoods.steps import EncodedStep, TransitionLikelihood, predicted_noise, transition
from prefopt.sources.online import Gap, Tally
from sources.online_rig import ENDLESS, PROMPTS, Rig, Watched, rig, same, step_of, tensors, trajectories
from step_toy import SHAPE, Toy

# ---- randomness


@pytest.mark.parametrize("sees", ["noisy", "clean"])
def test_a_round_can_be_repeated_and_does_not_depend_on_the_batch(sees):
    whole = rig(judge=Watched(sees), scale=2.0).collect()
    assert len(whole) == 12
    assert same(whole, rig(judge=Watched(sees), scale=2.0).collect())
    one, rest = (rig(judge=Watched(sees), scale=2.0).collect(part) for part in (PROMPTS[1:2], PROMPTS[::2]))
    assert same(whole, [*one, *rest])
    again = rig(judge=Watched(sees), scale=2.0).collect(round_=1)
    assert not {id_.split("/", 1)[0] for id_ in tensors(again)} & {"0"}
    first, other = (next(iter(tensors(found).values()))[0] for found in (whole, again))
    assert not torch.equal(first, other)
    seeded = rig(judge=Watched(sees), scale=2.0, seed=1).collect()
    assert not torch.equal(first, next(iter(tensors(seeded).values()))[0])


def test_trajectories_do_not_depend_on_the_batch():
    def collect(prompts: Sequence[tuple[str, str]]) -> list[Encoded[EncodedStep]]:
        return trajectories()[0].collect(Toy(), prompts, 0, Tally())

    assert same(collect(PROMPTS), [*collect(PROMPTS[2:]), *collect(PROMPTS[:2])])


# ---- the judge


def test_the_judge_is_told_the_candidates_noise_level():
    r = rig()
    r.collect()
    ends = r.sampler.steps_S2[:, 1].tolist()
    assert ends == [501, 251, 1, 0]
    assert r.judge.told == [[t] * 12 for t in ends]
    released = rig(judge_timestep="current")
    released.collect()
    assert released.judge.told == [[t] * 12 for t in r.sampler.steps_S2[:, 0].tolist()]


def test_a_flow_models_judge_is_told_timesteps_not_noise_levels():
    r = rig(scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), last=2)
    r.collect()
    ends = 1000 * r.sampler.steps_S2[:3, 1]
    assert_close(torch.tensor(r.judge.told)[:, 0].double(), ends, rtol=1e-6, atol=0)


def test_a_judge_of_clean_images_sees_the_prediction_and_the_final_image():
    r = rig(judge=Watched("clean"), scale=3.0)
    noisy = Watched()
    r.collect()
    # the same scores would choose the same candidates: what the noisy judge saw of the first step
    rig(judge=noisy, scale=3.0).collect()
    process, flat = r.sampler.guided.process, noisy.given[0]
    texts = [text for _ in range(4) for _, text in PROMPTS]
    t = torch.full((12,), 501)
    with torch.no_grad():
        output = r.sampler.guided(r.model, flat, t, r.sampler.guided.prepare(texts))
    assert torch.equal(r.judge.given[0], process.x0(output, flat, t))
    # the last step's candidates are images: no prediction from them, nor a call for one
    last = r.judge.given[-1].unflatten(0, (4, 3))
    kept = {e.id: e for e in r.collect()}
    for b, (i, _) in enumerate(PROMPTS):
        best = kept[f"0/{i}/3"].items[0].sample_CHW
        assert any(torch.equal(best, last[k, b]) for k in range(4))


def test_the_last_step_is_under_the_threshold_too():
    loose, strict = rig(judge=Watched("clean")), rig(judge=Watched("clean"), gap=Gap(0.9, 0.9))
    assert {step_of(e) for e in loose.collect()} == {0, 1, 2, 3}
    assert strict.collect() == []


def test_predictions_of_kept_candidates_are_used_again():
    """K network calls a step and prompt, not K + 1: the prediction that the judge needed is the next step's."""
    r = rig(judge=Watched("clean"), candidates=4, n=5, keep_anchor=True)
    found = r.collect()
    # one at the start, then four a step for the judge, none for the last step's images
    assert r.calls.rows == [3, 12, 12, 12, 12]
    assert r.tally.network_calls / r.tally.prompts == 1 + 4 * 4
    assert r.tally.measures()["collect/network_calls"] == 17
    for e in found:  # the prediction that was taken over is the state's own
        plan = TransitionLikelihood(guided=r.sampler.guided).plan(e.items[:1])
        with torch.no_grad():
            fresh = predicted_noise(r.sampler.guided, r.model, plan)
        assert torch.equal(e.items[0].state.anchor_CHW, fresh[0])
    # a judge of noisy latents needs no prediction: one call a step
    noisy = rig(n=5)
    noisy.collect()
    assert noisy.calls.rows == [3] * 5
    # steps before the first compared one draw a single sample; guidance doubles the rows of every call
    late = rig(judge=Watched("clean"), n=5, first=2, scale=2.0)
    late.collect()
    assert late.calls.rows == [6, 6, 6, 24, 24]
    assert late.tally.measures()["collect/network_calls"] == 3 + 2 * 4


# ---- trajectories


def positions(r: Rig, found: list[Encoded[EncodedStep]]) -> list[int]:
    """Which of a step's pair the next step's state is: 0 the winner, 1 the loser, -1 another candidate."""
    states = {(e.id.split("/")[1], step_of(e)): e for e in found}
    places = []
    for (i, s), e in states.items():
        if (i, s + 1) in states:
            x = states[i, s + 1].items[0].state.x_CHW
            equal = [torch.equal(item.sample_CHW, x) for item in e.items]
            places.append(equal.index(True) if any(equal) else -1)
    return places


def test_which_candidate_goes_on():
    prompts = [(str(n), str(n)) for n in range(12)]
    by_choice = {}
    for choice in ("winner", "random"):
        for sees in ("noisy", "clean"):
            r = rig(continue_from=choice, n=5, judge=Watched(sees))
            by_choice[choice, sees] = positions(r, r.collect(prompts))
    assert by_choice["winner", "noisy"] == by_choice["winner", "clean"] == [0] * 48
    for sees in ("noisy", "clean"):  # a quarter each, one half neither
        counts = [by_choice["random", sees].count(k) for k in (0, 1, -1)]
        assert sum(counts) == 48
        assert 4 <= counts[0] <= 22
        assert 4 <= counts[1] <= 22
        assert 12 <= counts[2] <= 36


def test_only_steps_in_range_are_compared():
    r = rig(n=6, first=2, last=3)
    assert {step_of(e) for e in r.collect()} == {2, 3}
    assert len(r.judge.told) == 2
    assert r.calls.rows == [3] * 4  # nothing is sampled beyond the last compared step
    # a clean judge of a step that is not the schedule's last gets a prediction
    early = rig(n=6, first=2, last=3, judge=Watched("clean"))
    early.collect()
    assert early.calls.rows == [3, 3, 3, 12, 12]
    # the states before are the same as where everything is compared
    assert r.tally.pairs == 6
    for options in ({"first": 6}, {"last": 6}, {"first": 4, "last": 3}):
        with pytest.raises(ValueError, match=r"but there are 6 steps, counted from 0"):
            rig(n=6, **options)


@pytest.mark.parametrize("name", ENDLESS)
@pytest.mark.parametrize("gap", [Gap(0.0, 0.0), Gap(0.0, 0.0, "quantile")])
def test_steps_without_a_density_are_not_compared(name, gap):
    """Their candidates are equal but for rounding, and a pair of them could not be trained on."""
    jitter = Watched(score=lambda x, prompts: torch.linspace(0, 1, len(x)))
    r = rig(scheduler=ENDLESS[name], gap=gap, judge=jitter)
    found = r.collect()
    assert {step_of(e) for e in found} == {0, 1, 2}
    likelihood = TransitionLikelihood(guided=r.sampler.guided)
    for e in found:
        assert likelihood.score(r.model, likelihood.plan(e.items)).logp_N.isfinite().all()
    with pytest.raises(ValueError, match=r"there are 4 steps, counted from 0, of which 3 have a density"):
        rig(scheduler=ENDLESS[name], first=3)


@pytest.mark.parametrize("eta", [0.0, -0.5])
def test_deterministic_sampling_is_refused(eta):
    with pytest.raises(ValueError, match="stochastic sampler is required: eta must be above 0"):
        rig(eta=eta)
    with pytest.raises(ValueError, match="stochastic sampler is required: eta must be above 0"):
        trajectories(eta=eta)


def test_what_an_item_holds():
    """The sample; or GradSPO's direction, half the difference of the noises that made winner and loser, or each."""
    samples = {e.id: e for e in rig().collect()}
    halves = {e.id: e for e in rig(store_noise="half_difference").collect()}
    noises = {e.id: e for e in rig(store_noise="noise").collect()}
    assert samples.keys() == halves.keys() == noises.keys()
    assert all(item.state.anchor_CHW is None for e in halves.values() for item in e.items)
    likelihood = TransitionLikelihood(guided=rig().sampler.guided)
    for name, e in samples.items():
        z_w, z_l = (item.sample_CHW for item in noises[name].items)
        up, down = (item.sample_CHW for item in halves[name].items)
        assert torch.equal(up, (z_w - z_l) / 2)
        assert torch.equal(down, -up)
        plan = likelihood.plan(e.items[:1])
        zero = torch.zeros(1, *SHAPE)
        std = transition(likelihood.guided.process, zero, zero, plan.t_P, plan.t_prev_P, 1.0).std_B
        x_w, x_l = (item.sample_CHW for item in e.items)
        assert_close(x_w - x_l, (std * (z_w - z_l).double()).float(), rtol=1e-4, atol=1e-5)


def test_counts():
    r = rig(gap=Gap(0.2, 0.2))
    assert r.tally.measures() == {}
    found = r.collect()
    assert r.tally.pairs == 12
    assert r.tally.measures()["collect/kept"] == len(found) / 12
    r.collect(round_=1)
    assert r.tally.pairs == 24
    assert r.tally.prompts == 6
    assert r.tally.measures()["collect/network_calls"] == 4


# ---- whole trajectories


def test_every_unequal_pair_of_trajectories_is_compared_at_every_step():
    """Three of four trajectories are rated apart; equal ratings are no comparison."""

    def score(x: Tensor, prompts: Sequence[str]) -> Tensor:
        return torch.tensor([0.0, 2.0, 2.0, 1.0] * 3)

    sampler, judge, calls = trajectories(Watched("clean", score))
    tally = Tally()
    found = sampler.collect(Toy(), PROMPTS, 4, tally)
    wins = {"1-0", "2-0", "3-0", "1-3", "2-3"}
    assert len({e.id for e in found}) == len(found)
    assert {e.id for e in found} == {f"4/{i}/{win}/{s}" for i, _ in PROMPTS for win in wins for s in range(4)}
    assert (tally.pairs, tally.kept) == (18, 15)
    assert calls.rows == [12] * 4
    assert tally.measures()["collect/network_calls"] == 16
    # the judge sees the finished images, once
    assert len(judge.given) == 1
    assert judge.told == [[0] * 12]
    ends = judge.given[0].unflatten(0, (3, 4))
    paths: dict[tuple[str, str], dict[int, EncodedStep]] = {}
    for e in found:
        _, i, win, s = e.id.split("/")
        for k, item in zip(win.split("-"), e.items, strict=True):
            # a step of a trajectory is one object in all its comparisons, so that it is scored once
            assert paths.setdefault((i, k), {}).setdefault(int(s), item).state is item.state
    for (i, k), path in paths.items():
        b = [name for name, _ in PROMPTS].index(i)
        assert [path[s].state.t for s in range(4)] == sampler.steps_S2[:, 0].tolist()
        for s in range(3):
            assert torch.equal(path[s].sample_CHW, path[s + 1].state.x_CHW)
        assert torch.equal(path[3].sample_CHW, ends[b, int(k)])
        assert path[0].state.prompt == PROMPTS[b][1]
    starts = [path[0].state.x_CHW for path in paths.values()]
    assert not any(torch.equal(a, b) for a, b in combinations(starts, 2))


@pytest.mark.parametrize("name", ENDLESS)
def test_the_last_step_of_some_trajectories_is_not_trained_on(name):
    sampler, _, _ = trajectories(scheduler=ENDLESS[name])
    assert {step_of(e) for e in sampler.collect(Toy(), PROMPTS[:1], 0, Tally())} == {0, 1, 2}
