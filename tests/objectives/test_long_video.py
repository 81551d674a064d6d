"""LongVPO's loss against values computed independently in float64, and what it must reduce to."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from longvpo_vectors import of_kind
from prefopt import objectives
from prefopt.objectives import DPO

CASES = {case["name"]: case for case in of_kind("objective", 21)}
GOOD = [name for name, case in CASES.items() if "error" not in case["expected"]]
AVERAGE = {"example_mean": "sequence", "token_mean": "batch"}


def leaves(rows: list[list[float]]) -> list[Tensor]:
    return [torch.tensor(row, dtype=torch.float64, requires_grad=True) for row in rows]


def computed(given: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
    """Losses, and what they were computed from."""
    objective = objectives.get(
        "longvpo", beta=given["beta"], alpha=given["alpha"], average=AVERAGE[given["sft_reduction"]]
    )
    better, worse = (leaves(given[f"policy_{side}_token_logps"]) for side in ("chosen", "rejected"))
    s_w, s_l = (torch.stack([row.sum() for row in rows]) for rows in (better, worse))
    known = [torch.tensor(given[f"ref_{side}_logps"], dtype=torch.float64) for side in ("chosen", "rejected")]
    lengths = [
        torch.tensor([float(len(row)) for row in rows], dtype=torch.float64) for rows in (better, worse)
    ]
    rho_w, rho_l = s_w - known[0], s_l - known[1]
    loss = objective(rho_w, rho_l, logp_w=s_w, logp_l=s_l, length_w=lengths[0], length_l=lengths[1])
    return loss, {"rho_w": rho_w, "rho_l": rho_l, "chosen": better, "rejected": worse, "objective": objective}


@pytest.mark.parametrize("name", GOOD)
def test_vectors(name):
    case = CASES[name]
    given, expected = case["inputs"], case["expected"]
    loss, made = computed(given)

    def close(found: Tensor, wanted: Any) -> None:
        torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), rtol=1e-9, atol=1e-12)

    close(made["rho_w"], expected["log_ratio_chosen"])
    close(made["rho_l"], expected["log_ratio_rejected"])
    close(loss.mean(), expected["mean_loss"])
    if expected["loss"] is not None:
        close(loss, expected["loss"])
    close(made["objective"].reward_scale * made["rho_w"], expected["reward_chosen"])
    close(((made["rho_w"] - made["rho_l"]) > 0).double().mean(), expected["accuracy"])
    for side in ("chosen", "rejected"):
        found = torch.autograd.grad(loss.mean(), made[side], retain_graph=True, allow_unused=True)
        for gradient, wanted, row in zip(
            found, expected[f"grad_policy_{side}_token_logps"], made[side], strict=True
        ):
            close(torch.zeros_like(row) if gradient is None else gradient, wanted)


def test_values_that_are_refused():
    for name, case in CASES.items():
        if "error" not in case["expected"]:
            continue
        if name.endswith(("empty_chosen", "nan_reference")):
            continue  # no such row reaches a loss: see test_encoding.py and test_references.py
        with pytest.raises(ValueError, match=r"beta|alpha|same length"):
            computed(case["inputs"])


def sides(count: int = 5) -> dict[str, Tensor]:
    drawn = torch.Generator().manual_seed(0)
    names = ("rho_w", "rho_l", "logp_w", "logp_l")
    out = {name: torch.randn(count, generator=drawn, dtype=torch.float64) for name in names}
    lengths = torch.randint(1, 9, (2, count), generator=drawn).double()
    return {**out, "length_w": lengths[0], "length_l": lengths[1]}


def test_reductions():
    given = sides()
    sft = -given["logp_w"] / given["length_w"]
    torch.testing.assert_close(
        objectives.get("longvpo", alpha=0.0, beta=0.3)(**given), DPO(beta=0.3)(given["rho_w"], given["rho_l"])
    )
    torch.testing.assert_close(
        objectives.get("longvpo", beta=0.0, alpha=0.7)(**given), math.log(2) + 0.7 * sft
    )
    torch.testing.assert_close(
        objectives.get("longvpo", beta=0.3)(**given),
        objectives.get("dpo+sft", beta=0.3)(**given),
    )
    assert not objectives.get("longvpo", beta=0.0).needs_reference
    one = sides(1)
    torch.testing.assert_close(
        objectives.get("longvpo", average="batch")(**one), objectives.get("longvpo")(**one)
    )


def test_an_anchored_reference_is_a_target_margin():
    """m = m_full - gap, gap the lead that the reference gives the chosen answer in the anchor over that in the whole video."""
    given = sides()
    gap = torch.tensor([3.0, -1.0, 0.0, 7.0, 0.5], dtype=torch.float64)
    anchored = {**given, "rho_w": given["rho_w"] - gap}
    found = objectives.get("longvpo", beta=0.2, alpha=0.0)(**anchored)
    margin = given["rho_w"] - given["rho_l"] - gap
    torch.testing.assert_close(found, torch.nn.functional.softplus(-0.2 * margin))


def test_nothing_to_learn_is_refused():
    with pytest.raises(ValueError, match="both 0"):
        objectives.get("longvpo", beta=0.0, alpha=0.0)
