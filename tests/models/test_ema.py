"""The average of the weights: its recursion, computing with it for a while, and its way through a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from prefopt.models.ema import EMA

VECTORS = json.loads((Path(__file__).parents[1] / "data" / "gradspo.json").read_text())


def two_layers(seed: int = 0) -> nn.Sequential:
    """A frozen layer and a trained one, as under adapters."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    model[0].requires_grad_(False)
    return model


def moved(model: nn.Module, by: float) -> None:
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(by)


def values(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def test_plain_recursion():
    """No warm-up of the decay, unlike diffusers' EMAModel."""
    (case,) = (c for c in VECTORS if c["inputs"]["kind"] == "ema")
    model = nn.Linear(4, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([case["inputs"]["start"]], dtype=torch.float64))
    ema = EMA(model, case["inputs"]["decay"])
    for online, expected in zip(
        case["inputs"]["online_params_after_each_step"], case["expected"]["ema_after_each_step"], strict=True
    ):
        with torch.no_grad():
            model.weight.copy_(torch.tensor([online], dtype=torch.float64))
        ema.update()
        with ema.swapped_in():
            assert_close(
                model.weight[0].detach(), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0
            )
        assert_close(model.weight[0].detach(), torch.tensor(online, dtype=torch.float64), rtol=0, atol=0)


def test_no_decay_is_the_present_and_only_trained_weights_are_kept():
    model = two_layers()
    ema = EMA(model, 0.0)
    assert len(ema.state()) == 2
    moved(model, 1.0)
    ema.update()
    with ema.swapped_in():
        inside = values(model)
    assert all(map(torch.equal, inside, values(model)))


def test_weights_come_back_after_an_error():
    model = two_layers()
    start, ema = values(model), EMA(model, 0.9)
    moved(model, 1.0)
    now = values(model)

    def fail_inside() -> None:
        with ema.swapped_in():
            assert all(map(torch.equal, values(model), start))
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail_inside()
    assert all(map(torch.equal, values(model), now))
    assert all(map(torch.equal, ema.state().values(), start[2:]))


def test_the_optimizer_goes_on_with_the_same_parameters():
    """A swap between updates must leave training untouched, and the average out of the optimizer's reach."""

    def train(swap: bool) -> tuple[list[Tensor], list[Tensor]]:
        model = two_layers()
        ema = EMA(model, 0.5)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
        for _ in range(4):
            if swap:
                with torch.no_grad(), ema.swapped_in():
                    model(torch.ones(1, 3))
            model(torch.ones(1, 3)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            ema.update()
        return values(model), list(ema.state().values())

    with_swaps, without = train(True), train(False)
    for a, b in zip(with_swaps, without, strict=True):
        assert all(map(torch.equal, a, b))
    assert not torch.equal(with_swaps[0][2], with_swaps[1][0])


def test_state_round_trip():
    model = two_layers()
    ema = EMA(model, 0.9)
    moved(model, 1.0)
    ema.update()
    saved = {k: v.clone() for k, v in ema.state().items()}
    other = two_layers(seed=1)
    copy = EMA(other, 0.9)
    now = values(other)
    copy.load_state({**saved, "gaps/0": torch.zeros(3)})  # what else the feed keeps does not matter
    assert all(map(torch.equal, copy.state().values(), saved.values()))
    assert all(map(torch.equal, values(other), now))
    with copy.swapped_in():
        assert all(map(torch.equal, values(other)[2:], saved.values()))
    # loaded values are copies: an update moves the average, not the checkpoint
    before = [v.clone() for v in saved.values()]
    copy.update()
    assert all(map(torch.equal, saved.values(), before))
