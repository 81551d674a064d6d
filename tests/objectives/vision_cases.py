"""The golden vectors of objectives for images with text: `tests/data/symmpo.json`, made by an independent float64 script.

Names of hyper-parameters differ there; `HYPER` translates.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from prefopt import objectives

CASES = json.loads((Path(__file__).parents[1] / "data" / "symmpo.json").read_text())["cases"]
EXACT = {"rtol": 1e-10, "atol": 1e-12}
NAMES = {"hadpo": "ha_dpo", "opadpo": "opa_dpo"}
HYPER = {
    "beta": "beta",
    "delta": "anchor_delta",
    "lambda_pair": "pair_weight",
    "gamma_margin": "margin_weight",
    "eta_anchor": "anchor_weight",
    "margin_units": "margin_units",
    "lambda_image": "image_weight",
    "lambda_anchor": "anchor_weight",
    "alpha": "alpha",
    "gamma_seg": "gamma",
    "normalize": "normalize",
    "tok_beta": "kappa",
    "combine": "combine",
    "mix": "mix",
    "lambda_aux": "auxiliary_weight",
    "coef_image": "image_weight",
    "coef_anchor": "anchor_weight",
}


def of_kind(kind: str, count: int) -> list[Any]:
    """Cases of one objective, as parameters of a test; their number is checked."""
    found = [case for case in CASES if case["objective"] == kind]
    assert len(found) == count
    return [pytest.param(case, id=case["name"]) for case in found]


def hyper(case: dict[str, Any]) -> dict[str, Any]:
    """Hyper-parameters under our names."""
    return {HYPER[key]: value for key, value in case["inputs"]["hyper"].items()}


def objective(case: dict[str, Any], **changes: Any) -> Any:
    """The objective of a case."""
    kind = case["objective"]
    return objectives.get(NAMES.get(kind, kind), **hyper(case), **changes)


def inputs(case: dict[str, Any]) -> dict[str, Tensor]:
    """Its inputs but for hyper-parameters and ragged lists, as leaves that collect gradients."""
    return {
        name: torch.tensor(value, dtype=torch.float64).requires_grad_()
        for name, value in case["inputs"].items()
        if name != "hyper" and not isinstance(value[0], list)
    }


def close(got: Tensor, expected: Any) -> None:
    """Equal to ten digits."""
    torch.testing.assert_close(got.detach(), torch.tensor(expected, dtype=torch.float64), **EXACT)


def check(case: dict[str, Any], loss_E: Tensor, leaves: dict[str, Tensor]) -> None:
    """Losses, their mean, and its gradient; a leaf that nothing reads has gradient 0."""
    expected = case["expected"]
    close(loss_E, expected["loss"])
    close(loss_E.mean(), expected["mean_loss"])
    wanted = expected["grad_of_mean_loss"]
    given = [leaves[name] for name in wanted]
    found = torch.autograd.grad(loss_E.mean(), given, allow_unused=True, retain_graph=True)
    for name, leaf, grad in zip(wanted, given, found, strict=True):
        close(torch.zeros_like(leaf) if grad is None else grad, wanted[name])
