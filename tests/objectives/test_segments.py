"""Weights of changed tokens: the golden vectors of DDPO and CHiP, and what they reduce to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from objectives.battery import random_sides
from objectives.vision_cases import check, close, hyper, inputs, objective, of_kind
from prefopt.objectives import DDPO, DPO, CHiP, Score, SegmentMargin, Sides


def padded(rows: list[list[float]], width: int = 6) -> Tensor:
    return torch.tensor([[*row, *[0.0] * (width - len(row))] for row in rows], dtype=torch.float64)


def token_sides(given: dict[str, Any]) -> tuple[Sides, dict[str, Tensor]]:
    """Ragged lists of tokens as padded tensors; changed is 1 in the padding, where it must not count."""
    values, leaves = {}, {}
    for side in "wl":
        rho = padded(given[f"tok_logp_{side}"]) - padded(given[f"tok_ref_{side}"])
        leaves[side] = rho.requires_grad_()
        length = torch.tensor([float(len(row)) for row in given[f"tok_logp_{side}"]], dtype=torch.float64)
        beyond = torch.arange(rho.shape[1]) >= length[:, None]
        values |= {
            f"rho_{side}": rho.sum(-1),
            f"rho_tokens_{side}": rho,
            f"length_{side}": length,
            f"changed_{side}": padded(given[f"changed_{side}"]) + beyond,
        }
    return Sides(**values), leaves


@pytest.mark.parametrize("case", of_kind("ddpo", 3))
def test_golden_vectors_of_changed_tokens(case: dict[str, Any]) -> None:
    of = objective(case)
    s, leaves = token_sides(case["inputs"])
    loss_E, expected = of.win_loss(s, {}), case["expected"]
    close(loss_E, expected["loss"])
    close(loss_E.mean(), expected["mean_loss"])
    close(of.margin(s), expected["intermediate"]["margin"])
    for side in "wl":
        (grad,) = torch.autograd.grad(loss_E.mean(), [leaves[side]], retain_graph=True)
        for row, wanted in zip(grad, expected["grad_of_mean_loss"][f"tok_{side}"], strict=True):
            close(row[: len(wanted)], wanted)
    if case["name"] == "pub_ddpo_gamma1_sum_is_dpo":
        torch.testing.assert_close(loss_E, DPO(beta=of.beta)(s.rho_w, s.rho_l))


def test_one_weight_for_all_is_a_mean() -> None:
    s = random_sides(1)
    torch.testing.assert_close(
        DDPO(beta=0.1, gamma=1.0).win_loss(s, {}), DPO(beta=0.1, margin="average").win_loss(s, {})
    )


def test_nothing_changed_and_all_changed_are_the_same_mean() -> None:
    s = random_sides(2)
    none = replace(s, changed_w=torch.zeros_like(s.changed_w), changed_l=torch.zeros_like(s.changed_l))
    every = replace(s, changed_w=torch.ones_like(s.changed_w), changed_l=torch.ones_like(s.changed_l))
    torch.testing.assert_close(DDPO().win_loss(none, {}), DDPO().win_loss(every, {}))
    assert not torch.allclose(
        DDPO(normalize=False).win_loss(none, {}), DDPO(normalize=False).win_loss(every, {})
    )


@pytest.mark.parametrize("gamma", [0.0, -1.0, float("inf")])
def test_weights_must_be_positive(gamma: float) -> None:
    with pytest.raises(ValueError, match="gamma must be"):
        DDPO(gamma=gamma)
    with pytest.raises(ValueError, match="segment_weight must"):
        CHiP(segment_weight=gamma)


def chip_sides(leaves: dict[str, Tensor], weight: float) -> Sides:
    """One changed token an item that makes up the whole weighted sum."""
    rho = {k: (leaves[f"rho_seg_{k}"] / weight)[:, None] for k in ("w", "l", "w_noisyimg")}
    one = torch.ones_like(rho["w"])
    return Sides(
        rho_w=rho["w"][:, 0],
        rho_l=rho["l"][:, 0],
        rho_tokens_w=rho["w"],
        rho_tokens_l=rho["l"],
        changed_w=one,
        changed_l=one,
        kl_w=leaves["seqkl_w"],
        kl_l=leaves["seqkl_l"],
        branches={"cw": Score(rho=rho["w_noisyimg"][:, 0], rho_tokens=rho["w_noisyimg"])},
    )


@pytest.mark.parametrize("case", of_kind("chip", 2))
def test_golden_vectors_with_divergences(case: dict[str, Any]) -> None:
    of, leaves = objective(case), inputs(case)
    s = chip_sides(leaves, of.segment_weight)
    check(case, of.win_loss(s, {}), leaves)
    if hyper(case)["combine"] == "inside":
        close(of.margin(s), case["expected"]["intermediate"]["margin"])
    for name, expected in case["expected"]["terms"].items():
        weight, term = of.terms[{"text": "response"}.get(name, name)]
        close(weight * term(s), expected)


def test_without_divergences_none_are_asked_for() -> None:
    assert CHiP().needs == {"rho_tokens", "changed", "kl"}
    for combine in ("inside", "separate"):
        of = CHiP(kappa=0.0, combine=combine)
        assert of.needs == {"rho_tokens", "changed"}
        s = replace(random_sides(3), kl_w=None, kl_l=None)
        assert bool(of.win_loss(s, {}).isfinite().all())


def test_the_contrast_image_is_weighed_token_by_token() -> None:
    s = random_sides(4)
    of = CHiP(kappa=0.0, combine="separate", segment_weight=3.0)
    weight = 1 + 2 * s.changed_w
    expected = (weight * (s.rho_tokens_w - s.branches["cw"].rho_tokens)).sum(-1)
    torch.testing.assert_close(of.of_image(s), expected)
    with pytest.raises(ValueError, match="rho_tokens_cw"):
        of.of_image(replace(s, branches={"cw": Score(rho=s.rho_w)}))


def test_lengths_are_needed_only_for_means() -> None:
    assert SegmentMargin().needs == {"length", "rho_tokens", "changed"}
    assert SegmentMargin(normalize=False).needs == {"rho_tokens", "changed"}


def test_a_number_in_words_of_yaml() -> None:
    assert DDPO(gamma="5e0") == DDPO()
