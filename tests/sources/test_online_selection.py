"""Which candidates of a step are compared, and which pairs pass the threshold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from prefopt.comparisons import Comparison
from prefopt.likelihoods.process import counted_noise
from prefopt.likelihoods.steps import TransitionLikelihood, transition
from prefopt.sources.online import Gap, GapMemory, Tally
from sources.online_rig import ENDLESS, PROMPTS, Watched, rig, step_of, tensors, trajectories
from step_toy import SHAPE, Toy

DATA = Path(__file__).parents[1] / "data"

# ---- selection


def vectors(*kinds: str) -> list[Any]:
    found = [
        pytest.param(case["inputs"], case["expected"], id=case["name"])
        for file in ("lpo", "gradspo", "diffusion_baselines")
        for case in json.loads((DATA / f"{file}.json").read_text())
        if case["inputs"]["kind"] in kinds
    ]
    assert found
    return found


@pytest.mark.parametrize(("given", "expected"), vectors("select_pairs", "pair_selection"))
def test_selection_vectors(given, expected):
    scores_KB = torch.tensor(given["scores"], dtype=torch.float64)
    winner = expected.get("winner", expected.get("best_index"))
    loser = expected.get("loser", expected.get("worst_index"))
    gap = expected.get("gap", expected.get("confidence"))
    for b in range(scores_KB.shape[1]):
        threshold = given["thresholds"][b] if "thresholds" in given else given["threshold"]
        column = scores_KB[:, b]
        judge = Watched(score=lambda x, prompts, column=column: column)
        r = rig(judge=judge, gap=Gap(threshold, threshold), candidates=len(column), first=1, last=1)
        found = r.collect(PROMPTS[:1])
        assert bool(found) == expected["valid"][b]
        assert r.tally.gap == pytest.approx(gap[b], abs=1e-6)
        assert r.tally.score == pytest.approx(float(column.mean()), rel=1e-6)
        if found:
            assert found[0].comparisons == (Comparison(0, 1),)
            best, worst = (item.sample_CHW for item in found[0].items)
            assert torch.equal(best, judge.given[0][winner[b]])
            assert torch.equal(worst, judge.given[0][loser[b]])


def test_best_and_worst_of_every_step_and_their_state():
    r = rig(candidates=5, scale=2.0)
    found = r.collect()
    assert {(e.id.split("/")[1], step_of(e)) for e in found} == {(i, s) for i, _ in PROMPTS for s in range(4)}
    for e in found:
        b = [i for i, _ in PROMPTS].index(e.id.split("/")[1])
        s = step_of(e)
        best, worst = e.items
        assert best.state is worst.state
        assert best.state.prompt == PROMPTS[b][1]
        assert [best.state.t, best.state.t_prev] == r.sampler.steps_S2[s].tolist()
        drawn_KCHW = r.judge.given[s].unflatten(0, (5, 3))[:, b]
        scores_K = Watched()(drawn_KCHW, torch.zeros(5), [PROMPTS[b][1]] * 5)
        assert torch.equal(best.sample_CHW, drawn_KCHW[scores_K.argmax()])
        assert torch.equal(worst.sample_CHW, drawn_KCHW[scores_K.argmin()])
    # the candidates are the step's own: mean of the guided policy plus counted noise
    likelihood = TransitionLikelihood(guided=r.sampler.guided)
    plan = likelihood.plan(found[0].items)
    with torch.no_grad():
        output = r.sampler.guided(r.model, plan.x_PCHW, plan.t_P, plan.conditions)
    step = transition(r.sampler.guided.process, output, plan.x_PCHW, plan.t_P, plan.t_prev_P, 1.0)
    noise = [counted_noise(0, f"step 0 candidate {k} of a", 0, SHAPE)[1] for k in range(5)]
    candidates = [step.sample(z[None])[0] for z in noise]
    assert all(any(torch.equal(item.sample_CHW, x) for x in candidates) for item in found[0].items)


def test_equal_scores_are_no_comparison():
    judge = Watched(score=lambda x, prompts: torch.ones(len(x)))
    for gap in (Gap(0.0, 0.0), Gap(0.5, 0.5, "quantile"), Gap(0.0, 0.0, "quantile")):
        r = rig(judge=judge, gap=gap)
        assert r.collect() == []
        assert (r.tally.pairs, r.tally.kept, r.tally.gap) == (12, 0, 0.0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_name_the_prompt(bad):
    def score(x: Tensor, prompts: Sequence[str]) -> Tensor:
        return torch.tensor([bad if p == "blue" and n > 3 else 0.0 for n, p in enumerate(prompts)])

    with pytest.raises(ValueError, match=r"score of 'blue' at timestep 501 is not finite"):
        rig(judge=Watched(score=score)).collect()
    sampler, _, _ = trajectories(judge=Watched(score=score))
    with pytest.raises(ValueError, match=r"score of 'blue' is not finite"):
        sampler.collect(Toy(), PROMPTS, 0, Tally())


# ---- thresholds


@pytest.mark.parametrize(("given", "expected"), vectors("dynamic_threshold"))
def test_threshold_vectors(given, expected):
    gap = Gap(given["th_min"], given["th_max"], given["strategy"])
    found = gap.at(torch.tensor(given["sigmas"], dtype=torch.float64), torch.tensor(given["timesteps"]))
    assert_close(found, torch.tensor(expected["thresholds"], dtype=torch.float64), rtol=1e-9, atol=0)
    n = len(given["timesteps"])
    by_schedule = rig(n=n, gap=gap).sampler.thresholds()
    assert list(by_schedule) == list(range(n))
    assert list(by_schedule.values()) == pytest.approx(expected["thresholds"], abs=1e-5)


@pytest.mark.parametrize("scheduler", [None, *ENDLESS.values()], ids=["to abar_0", *ENDLESS])
@pytest.mark.parametrize("rule", ["sigma", "variance", "linear"])
def test_thresholds_follow_any_schedule(scheduler, rule):
    """No table of 20 numbers: 7 steps, or a part of them, from the low to the high threshold."""
    whole = rig(n=7, gap=Gap(0.2, 0.6, rule), scheduler=scheduler).sampler
    found = list(whole.thresholds().values())
    assert len(found) == (7 if scheduler is None else 6)
    assert found[0] == pytest.approx(0.6)
    assert found[-1] == pytest.approx(0.2)
    assert found == sorted(found, reverse=True)
    part = rig(n=7, gap=Gap(0.2, 0.6, rule), scheduler=scheduler, first=2, last=4).sampler.thresholds()
    assert list(part) == [2, 3, 4]
    assert (part[2], part[4]) == (pytest.approx(0.6), pytest.approx(0.2))
    single = rig(n=7, gap=Gap(0.2, 0.6, rule), scheduler=scheduler, first=3, last=3).sampler.thresholds()
    assert single == {3: pytest.approx(0.6)}  # no range to interpolate in: the high one


def test_thresholds_decide_step_by_step():
    judge = Watched(score=lambda x, prompts: 10 * Watched()(x, x[:, 0, 0, 0], prompts))
    prompts = [(str(n), f"{n:03d}") for n in range(20)]
    high, low = (rig(gap=Gap(g, g), judge=judge) for g in (0.95, 0.1))
    everything = rig(judge=judge).collect(prompts)
    many, few = low.collect(prompts), high.collect(prompts)
    assert 0 < len(few) < len(many) < len(everything)
    assert set(tensors(few)) < set(tensors(many)) < set(tensors(everything))
    assert high.tally.kept == len(few)
    # between 0.1 at the cleanest and 0.95 at the noisiest step: here as many as with 0.1, there as with 0.95
    both = rig(gap=Gap(0.1, 0.95), judge=judge).collect(prompts)
    at = [
        {k for k in tensors(found) if k.endswith(end)} for end in ("/0", "/3") for found in (both, few, many)
    ]
    assert at[0] == at[1] < at[2]
    assert at[3] == at[5] > at[4]


@pytest.mark.parametrize("factor", [1.0, 1e4])
def test_quantiles_keep_the_asked_share_at_any_scale_of_the_judge(factor):
    judge = Watched(score=lambda x, prompts: factor * Watched()(x, x[:, 0, 0, 0], prompts))
    r = rig(judge=judge, gap=Gap(0.75, 0.75, "quantile"))
    prompts = [(f"prompt {n}", f"{n:03d}") for n in range(20)]
    shares = []
    for round_ in range(6):
        before = r.tally.kept
        r.collect(prompts, round_)
        r.sampler.seen.settle()
        shares.append((r.tally.kept - before) / 80)
    assert shares[0] == pytest.approx(0.25, abs=0.02)  # of the first round itself
    assert sum(shares) / 6 == pytest.approx(0.25, abs=0.05)
    assert {len(v) for v in r.sampler.seen.gaps.values()} == {120}


def test_the_memory_of_gaps():
    memory = GapMemory(size=4)
    assert memory.threshold(0, torch.tensor([1.0, 2.0, 3.0]), 0.5) == 2
    memory.settle()
    assert memory.threshold(0, torch.tensor([5.0, 6.0]), 0.5) == 3
    assert memory.threshold(1, torch.tensor([7.0]), 0.5) == 7
    # of two processes, the latest four
    memory.settle([memory.fresh, {0: torch.tensor([8.0])}])
    assert memory.gaps[0].tolist() == [3, 5, 6, 8]
    assert memory.gaps[1].tolist() == [7]
    assert memory.fresh == {}


@pytest.mark.parametrize(("low", "high"), [(-0.1, 0.2), (0.5, 0.4), (0.5, 1.0)])
def test_thresholds_outside_what_a_gap_can_be(low, high):
    with pytest.raises(ValueError, match=r"threshold must lie in \[0, 1\)"):
        Gap(low, high)
