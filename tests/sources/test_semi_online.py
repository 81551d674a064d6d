"""The semi-online course on points in the plane, whose rewards and embeddings can be computed by hand."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn

from prefopt.comparisons import Comparison, Encoded, Outcome
from prefopt.likelihoods.denoising import DenoisingLikelihood
from prefopt.likelihoods.latents import EncodedLatent
from prefopt.likelihoods.process import Process
from prefopt.likelihoods.transition import inference_timesteps
from prefopt.sources.drawer import Drawer
from prefopt.sources.schedule import Schedule
from prefopt.sources.semi_online import Collector, Tally
from prefopt.sources.semi_online_feed import SemiOnlineFeed

SCHEDULER = DDPMScheduler(
    num_train_timesteps=12,
    beta_schedule="squaredcos_cap_v2",
    prediction_type="sample",
    variance_type="fixed_small",
    clip_sample=False,
)


class Points:
    """Prompts are numbers, the data of each a point."""

    shape = (2,)
    identity = {"store": "points"}  # noqa: RUF012

    def latents(self, keys: Sequence[str]) -> tuple[Tensor, None]:
        return torch.stack([point(key) for key in keys]), None

    def conditions(self, prompts: Sequence[str], sizes: object = None) -> dict[str, Tensor]:
        return {"c": torch.tensor([float(p or 0) for p in prompts])}


def point(key: str) -> Tensor:
    return torch.tensor([float(key), 1.0])


class Network(nn.Module):
    """x_0 is near the prompt's number, with what is left of the noise."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(2))
        self.calls: list[int] = []

    def forward(self, x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        self.calls.append(len(x))
        return torch.stack([c, torch.zeros_like(c)], 1) + 0.3 * x + self.shift


@dataclass
class Judge:
    """Reward: the second coordinate; embedding: the point."""

    reads_conditions: bool = False
    sign: float = 1.0

    def score(self, items: Sequence[EncodedLatent], x_N: Tensor) -> Tensor:
        if self.reads_conditions:
            wanted = torch.tensor([float(item.prompt) for item in items])
            return -self.sign * (x_N[:, 0] - wanted).abs()
        return x_N[:, 1]

    def embed(self, items: Sequence[EncodedLatent], x_N: Tensor) -> Tensor:
        return x_N


def likelihood(**more: object) -> DenoisingLikelihood:
    return DenoisingLikelihood(
        process=Process.from_scheduler(SCHEDULER),
        network=lambda model, x, t, c: model(x, t, c["c"]),
        store=Points(),
        seed=3,
        **more,
    )


def drawer(**more: object) -> Drawer:
    return Drawer(likelihood=likelihood(), steps_S2=inference_timesteps(SCHEDULER, 4), **more)


def examples(n: int) -> list[Encoded[EncodedLatent]]:
    return [
        Encoded(
            f"e{k}", (EncodedLatent(str(k), str(k)), EncodedLatent(str(k + 50), str(k))), (Comparison(0, 1),)
        )
        for k in range(n)
    ]


@contextmanager
def nothing():
    raise AssertionError("the starting model is not asked for")
    yield


def collected(network: nn.Module, some: list[Encoded[EncodedLatent]], start=nothing, round_: int = 0, **more):
    tally = Tally()
    collector = Collector(drawer=drawer(), judge=more.pop("judge", Judge()), **more)
    return collector.collect(network, start, some, round_, tally), tally, collector


def test_a_sample_depends_on_its_name_round_and_prompt_alone():
    network, some = Network(), [EncodedLatent("0", "1"), EncodedLatent("0", "2"), EncodedLatent("0", "3")]
    names = ["a", "b", "c"]
    together = drawer().draw(network, some, names, 5)
    alone = torch.cat(
        [drawer().draw(network, [item], [name], 5) for item, name in zip(some, names, strict=True)]
    )
    torch.testing.assert_close(together, alone)
    torch.testing.assert_close(drawer(at_once=2).draw(network, some, names, 5), together)
    assert not torch.equal(drawer().draw(network, some, names, 6), together)


def test_all_candidates_of_a_batch_are_one_forward_pass_a_step_with_guidance_in_it():
    network = Network()
    Collector(drawer=drawer(), judge=Judge(), candidates=3).collect(network, nothing, examples(4), 0, Tally())
    assert network.calls == [12] * 4
    network.calls.clear()
    guided = Collector(drawer=drawer(guidance_scale=2.0), judge=Judge(), candidates=3)
    guided.collect(network, nothing, examples(4), 0, Tally())
    assert network.calls == [24] * 4


class Lengths(DenoisingLikelihood):
    """The number in a prompt is how many places of the sample count."""

    def extent(self, items: Sequence[EncodedLatent]) -> tuple[int, ...]:
        return (max(int(item.prompt) for item in items), 3)


class LongPoints(Points):
    shape = (40, 3)


def test_samples_of_about_one_extent_are_drawn_together():
    made = Lengths(
        process=Process.from_scheduler(SCHEDULER),
        network=lambda model, x, t, c: model(x, t, c["c"]),
        store=LongPoints(),
        seed=3,
    )
    drawn = Drawer(likelihood=made, steps_S2=inference_timesteps(SCHEDULER, 4))
    lengths = [40, 10, 36, 9, 40, 30, 1]
    items = [EncodedLatent(str(n), str(n)) for n in lengths]
    assert drawn.together(items, 0.85) == [[0, 4, 2], [5], [1, 3], [6]]
    assert drawn.together(items, 0.0) == [[0, 4, 2, 5, 1, 3, 6]]
    assert replace(drawn, at_once=2).together(items, 0.0) == [[0, 4], [2, 5], [1, 3], [6]]

    class Frames(Network):
        def forward(self, x: Tensor, t: Tensor, c: Tensor) -> Tensor:
            self.calls.append(len(x))
            return 0.3 * x + c[:, None, None]

    network, names = Frames(), [f"s{n}" for n in range(7)]
    found = drawn.draw(network, items, names, 5)
    assert network.calls == [3] * 4 + [1] * 4 + [2] * 4 + [1] * 4
    assert found.shape == (7, 40, 3)
    for n, (length, extent) in enumerate(zip(lengths, [40, 10, 40, 10, 40, 30, 1], strict=True)):
        alone = drawn.draw(network, items[n : n + 1], names[n : n + 1], 5)[0]
        torch.testing.assert_close(found[n, :length], alone[:length])
        assert not found[n, extent:].any()


def test_guidance_of_a_linear_network_multiplies_its_condition():
    network = Network()
    guided = drawer(guidance_scale=2.0).draw(network, [EncodedLatent("0", "4")], ["a"], 0)
    torch.testing.assert_close(guided, drawer().draw(network, [EncodedLatent("0", "8")], ["a"], 0))


def test_the_loser_is_the_worst_sample_and_the_winner_the_datas():
    network = Network()
    found, tally, _ = collected(network, examples(5), candidates=4, tau=0.1)
    drawn = Collector(drawer=drawer(), judge=Judge(), candidates=4)
    x_KB, reward_KB = drawn.drawn(network, [e.items[0] for e in examples(5)], [f"e{k}" for k in range(5)], 0)
    for b, example in enumerate(found):
        winner, loser = example.items
        assert winner.drawn is None
        assert winner.latent == str(b)
        worst = int(reward_KB[:, b].argmin())
        assert torch.equal(loser.drawn, x_KB[worst, b])
        (edge,) = example.comparisons
        assert edge.columns["rejected_reward"] == pytest.approx(float(reward_KB[worst, b]))
        cosines = torch.cosine_similarity(point(str(b)), x_KB[:, b])
        assert edge.columns["min_similarity"] == pytest.approx(float(cosines.min() + 1) / 2, abs=1e-6)
        assert edge.columns["tau"] == pytest.approx(0.1)
    assert tally.measures()["collect/kept"] == pytest.approx(float((reward_KB.amin(0) < 0.1).float().mean()))
    assert tally.measures()["collect/network_calls"] == 16


def test_rows_that_were_lost_are_turned_round():
    lost = [replace(e, comparisons=(Comparison(0, 1, Outcome(0.0, 1.0, 0.0)),)) for e in examples(2)]
    found, *_ = collected(Network(), lost)
    assert [e.items[0].latent for e in found] == ["50", "51"]
    assert all(e.comparisons[0].outcome == (1.0, 0.0, 0.0) for e in found)


@pytest.mark.parametrize("pairs", ["semi_online", "online"])
def test_rows_keep_their_weights_and_columns(pairs):
    rows = [
        replace(e, comparisons=(Comparison(0, 1, weight=2.5, columns={"own": 7.0}),)) for e in examples(2)
    ]
    found, *_ = collected(Network(), rows, pairs=pairs)
    assert [e.comparisons[0].weight for e in found] == [2.5, 2.5]
    assert [e.comparisons[0].columns["own"] for e in found] == [7.0, 7.0]


def test_samples_against_samples():
    network = Network()
    found, *_ = collected(network, examples(3), candidates=4, pairs="online")
    for example in found:
        best, worst = (item.drawn for item in example.items)
        assert best[1] > worst[1]
        assert not example.comparisons[0].columns


def test_fixed_pairs_come_from_the_starting_model_and_stay():
    network, first = Network(), Network()
    network.shift.data += 5.0

    @contextmanager
    def start():
        yield first

    collector = Collector(drawer=drawer(), judge=Judge(), candidates=2, pairs="offline_data")
    one = collector.collect(network, start, examples(3), 0, Tally())
    assert not network.calls
    calls = len(first.calls)
    again = collector.collect(network, start, examples(3), 7, Tally())
    assert len(first.calls) == calls  # kept
    for a, b in zip(one, again, strict=True):
        assert torch.equal(a.items[1].drawn, b.items[1].drawn)
        assert a.items[1].drawn[0] < 5


def test_fixed_pairs_beyond_the_memory_come_out_the_same(monkeypatch):
    from prefopt.sources import semi_online

    first = Network()

    @contextmanager
    def start():
        yield first

    kept = Collector(drawer=drawer(), judge=Judge(), candidates=2, pairs="offline_data")
    one = [kept.collect(Network(), start, examples(3)[n : n + 1], n, Tally())[0] for n in range(3)]
    monkeypatch.setattr(semi_online, "KEPT_BYTES", 1)
    short = Collector(drawer=drawer(), judge=Judge(), candidates=2, pairs="offline_data")
    for _ in range(2):
        two = [short.collect(Network(), start, examples(3)[n : n + 1], n, Tally())[0] for n in range(3)]
        assert all(torch.equal(a.items[1].drawn, b.items[1].drawn) for a, b in zip(one, two, strict=True))
    assert (len(kept._fixed), len(short._fixed)) == (3, 1)


def test_naive_is_both_with_half_the_weight():
    first = Network()

    @contextmanager
    def start():
        yield first

    found, *_ = collected(Network(), examples(2), start, candidates=2, pairs="naive")
    for example in found:
        assert [(e.first, e.second, e.weight) for e in example.comparisons] == [(0, 1, 0.5), (2, 3, 0.5)]
        assert len({item.latent for item in example.items}) == 4


def test_tau_keeps_the_asked_share_of_the_starting_models_losers():
    collector = Collector(drawer=drawer(), judge=Judge(), candidates=3)
    made, found = collector.calibrate(Network(), examples(40), 0.25)
    worst = torch.tensor([e.comparisons[0].columns["rejected_reward"] for e in made])
    assert float((worst < collector.tau).float().mean()) == pytest.approx(0.25, abs=0.03)
    assert found["tau"] == collector.tau
    fixed = Collector(drawer=drawer(), judge=Judge(), candidates=3, tau=0.4)
    assert "tau" not in fixed.calibrate(Network(), examples(4), None)[1]
    assert fixed.tau == 0.4


def test_a_judge_that_does_not_recognise_the_data_stops_the_run():
    some = examples(20)
    good = Collector(drawer=drawer(), judge=Judge(reads_conditions=True))
    assert good.calibrate(Network(), some, 0.5)[1]["recognition"] == 1.0
    bad = Collector(drawer=drawer(), judge=Judge(reads_conditions=True, sign=-1.0))
    with pytest.raises(ValueError, match=r"AUC 0\.00, needed 0\.7"):
        bad.calibrate(Network(), some, 0.5)
    few = Collector(drawer=drawer(), judge=Judge(reads_conditions=True, sign=-1.0))
    assert "recognition" not in few.calibrate(Network(), some[:15], 0.5)[1]


def test_a_model_that_diverged_is_named():
    network = Network()
    network.shift.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="candidate 0 of e0 is not finite"):
        collected(network, examples(2))


def feed(network: nn.Module, reuse: int = 1) -> SemiOnlineFeed:
    accelerator = SimpleNamespace(process_index=0, num_processes=1, autocast=nothing_special)
    return SemiOnlineFeed(
        collector=Collector(drawer=drawer(), judge=Judge(), candidates=2),
        model=network,
        start=nothing,
        examples=examples(6),
        schedule=Schedule(
            n_examples=6, per_device=2, accumulation=1, processes=1, epochs=2, max_steps=None, seed=0
        ),
        reuse=reuse,
        accelerator=accelerator,
    )


@contextmanager
def nothing_special():
    yield


def test_reused_candidates_meet_new_noise():
    first = list(feed(Network(), reuse=3).updates(1))
    assert len(first) == 3
    losers = [[e.items[1].drawn for e in update] for update in first]
    assert all(torch.equal(a, b) for update in losers[1:] for a, b in zip(losers[0], update, strict=True))
    plans = [likelihood().plan([item for e in update for item in e.items]) for update in first]
    assert not torch.equal(plans[0].noise_NCHW, plans[1].noise_NCHW)
    # both ends of a pair share noise and timestep
    assert torch.equal(plans[0].noise_NCHW[0], plans[0].noise_NCHW[1])
    assert plans[0].t_N[0] == plans[0].t_N[1]
    later = list(feed(Network(), reuse=3).updates(2))
    again = likelihood().plan([item for e in later[0] for item in e.items])
    assert not torch.equal(again.noise_NCHW, plans[2].noise_NCHW)


def test_a_round_can_be_repeated():
    network = Network()
    one, two = (next(feed(network).updates(4)) for _ in range(2))
    assert [e.id for e in one] == [e.id for e in two]
    assert all(torch.equal(a.items[1].drawn, b.items[1].drawn) for a, b in zip(one, two, strict=True))
    assert network.training


def test_the_widest_batch_and_the_opening():
    f = feed(Network())
    (one, two) = f.rehearsal(2)
    assert len(one.items) == len(two.items) == 2
    assert likelihood().latents(one.items).shape == (2, 2)
    assert f.opening(4) == []
