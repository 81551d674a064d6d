"""Rounds as the loop gets them: cut into updates, drawn from the average where asked, shared between processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import diffusers
import torch
from torch import Tensor

from prefopt.likelihoods.process import Process
from prefopt.likelihoods.transition import inference_timesteps
from prefopt.models.ema import EMA
from prefopt.sources.online import Gap, StepSampler, Tally
from prefopt.sources.online_feed import OnlineFeed
from prefopt.sources.schedule import Schedule
from step_toy import SD, SHAPE, Toy, guided_toy, picture


class Alone:
    """What the feed asks of Accelerate."""

    device = torch.device("cpu")

    def __init__(self, rank: int = 0, processes: int = 1) -> None:
        self.process_index, self.num_processes = rank, processes

    def autocast(self) -> Any:
        return nullcontext()

    def reduce(self, x: Tensor, how: str) -> Tensor:
        return x * self.num_processes


class Likes:
    """A judge of noisy latents."""

    sees = "noisy"

    def __call__(self, x_BCHW: Tensor, t_B: Tensor, prompts: Sequence[str]) -> Tensor:
        return (x_BCHW * torch.stack([picture(p) for p in prompts])).flatten(1).mean(1)


def make_feed(model: Toy, accelerator: Alone, ema: EMA | None = None, **more: Any) -> OnlineFeed:
    scheduler = diffusers.DDIMScheduler(**SD)
    guided, _ = guided_toy(Process.from_scheduler(scheduler))
    judge: Any = Likes()
    collector = StepSampler(
        guided=guided,
        steps_S2=inference_timesteps(scheduler, 3),
        shape=SHAPE,
        judge=judge,
        gap=Gap(0.0, 0.0, "quantile"),
    )
    prompts = [(f"id {n}", f"{n:03d}") for n in range(10)]
    processes = accelerator.num_processes
    return OnlineFeed(
        collector=collector,
        model=model,
        prompts=prompts,
        schedule=Schedule(
            n_examples=10,
            per_device=4 // processes,
            accumulation=1,
            processes=processes,
            epochs=2,
            max_steps=None,
            seed=0,
        ),
        update_size=5,
        accelerator=accelerator,
        ema=ema,
        sample_from_ema=ema is not None,
        warn=lambda text: None,
        **more,
    )


def ids(updates: Sequence[Sequence[Any]]) -> list[list[str]]:
    return [[e.id for e in update] for update in updates]


def test_a_round_is_shuffled_and_cut_into_updates():
    feed = make_feed(Toy(), Alone())
    assert (feed.steps, feed.steps_per_epoch, feed.step_size) == (6, 3, 4)
    rounds = [list(feed.updates(step)) for step in range(6)]
    assert [len(u) for u in rounds[0]] == [5, 5, 2]  # 4 prompts with 3 steps each; the remainder is not lost
    flat = [id_ for update in ids(rounds[0]) for id_ in update]
    assert flat != sorted(flat)
    assert ids(list(make_feed(Toy(), Alone()).updates(0))) == ids(rounds[0])
    # every prompt once in each pass, with other noise
    seen = [{e.id.split("/")[1] for update in round_ for e in update} for round_ in rounds]
    assert [len(s) for s in seen] == [4, 4, 2, 4, 4, 2]
    assert len(set.union(*seen[:3])) == len(set.union(*seen[3:])) == 10
    starts = {
        e.items[0].state.x_CHW.sum().item() for round_ in rounds for u in round_ for e in u if e.id[-1] == "0"
    }
    assert len(starts) == 20
    measures = feed.measures()
    assert measures["collect/pairs"] == 60
    assert measures["collect/updates"] == 16
    assert feed.measures() == {"collect/updates": 0.0}


def test_candidates_come_from_the_average_where_asked():
    model, averaged = Toy(), Toy()
    ema = EMA(model, 0.9)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1.0)
    feed = make_feed(model, Alone(), ema)
    now = [p.detach().clone() for p in model.parameters()]
    found = [e for update in feed.updates(0) for e in update]
    assert all(map(torch.equal, now, model.parameters()))
    assert model.training
    by_average = make_feed(averaged, Alone())
    expected = {e.id: e for update in by_average.updates(0) for e in update}
    assert {e.id for e in found} == expected.keys()
    assert all(torch.equal(e.items[0].sample_CHW, expected[e.id].items[0].sample_CHW) for e in found)
    by_present = {e.id: e for u in make_feed(model, Alone()).updates(0) for e in u}
    assert not all(torch.equal(e.items[0].sample_CHW, by_present[e.id].items[0].sample_CHW) for e in found)
    feed.updated()
    assert any(
        not torch.equal(v, p) for v, p in zip(ema.state().values(), averaged.parameters(), strict=True)
    )


def test_two_processes_collect_what_one_would(monkeypatch):
    """Prompts are dealt out, pairs and remembered gaps are gathered."""
    single = make_feed(Toy(), Alone())
    expected = list(single.updates(0))
    other = make_feed(Toy(), Alone(1, 2))
    chosen = [other.prompts[i] for i in other.schedule.examples(0)]
    theirs = other.collector.collect(Toy(), chosen[1::2], 0, Tally())
    fresh: Mapping[int, Tensor] = other.collector.seen.fresh
    answers = iter([theirs, [fresh]])
    monkeypatch.setattr("accelerate.utils.gather_object", lambda mine: [*mine, *next(answers)])
    feed = make_feed(Toy(), Alone(0, 2))
    found = list(feed.updates(0))
    assert ids(found) == ids(expected)
    gaps, together = ({k: v.sort().values for k, v in f.state().items()} for f in (single, feed))
    assert gaps.keys() == together.keys() == {"gaps/0", "gaps/1", "gaps/2"}
    assert all(torch.equal(gaps[k], together[k]) for k in gaps)
    assert feed.measures()["collect/network_calls"] == single.measures()["collect/network_calls"] == 3
