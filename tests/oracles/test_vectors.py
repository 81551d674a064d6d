"""Every golden vector of ComPO."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from oracles.toys import logp, scored
from prefopt.oracles.comparison import damped, is_noisy, opens, oracle, release_accepts
from prefopt.oracles.direction import (
    Selection,
    direction,
    expected_direction,
    kth_magnitude,
    onebit_sparse,
    update,
)
from prefopt.oracles.head import HeadProbe, Response
from prefopt.oracles.perturbations import Perturbations
from prefopt.oracles.plain import PlainProbe
from prefopt.oracles.step import StepSettings, oracle_step

CASES = json.loads((Path(__file__).parents[1] / "data" / "compo.json").read_text())
OPERATIONS = {
    "oracle": 27,
    "split": 8,
    "direction": 7,
    "clip": 5,
    "clip_keep_fraction": 4,
    "clip_sigma": 1,
    "onebit_sparse": 7,
    "update": 6,
    "head_logp": 3,
    "expected_direction": 4,
    "lm_head_step": 4,
    "release_gate": 4,
    "damping": 3,
}


def of(operation: str) -> Any:
    cases = [c for c in CASES if c["inputs"]["op"] == operation]
    return pytest.mark.parametrize("case", cases, ids=[c["name"] for c in cases])


def f64(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def close(found: Any, expected: Any, atol: float = 1e-9) -> None:
    found = found if isinstance(found, Tensor) else f64(found)
    torch.testing.assert_close(found.double(), f64(expected), rtol=1e-12, atol=atol)


def test_no_vector_is_left_out() -> None:
    counts = {name: sum(c["inputs"]["op"] == name for c in CASES) for name in OPERATIONS}
    assert counts == OPERATIONS
    assert sum(counts.values()) == len(CASES)


@of("oracle")
def test_oracle(case: dict[str, Any]) -> None:
    given, expected = case["inputs"], case["expected"]
    change_w, change_l = (
        f64(given[f"logp_{s}_new"]) - f64(given[f"logp_{s}_base"]) for s in ("chosen", "rejected")
    )
    close(change_w, expected["delta_chosen"])
    close(change_l, expected["delta_rejected"])
    assert int(oracle(change_w, change_l, given["mode"])) == expected["y"]
    if len(change_w) == 1:
        assert {int(oracle(change_w, change_l, mode)) for mode in ("mean", "any", "all")} == {expected["y"]}


@of("split")
def test_split(case: dict[str, Any]) -> None:
    given, expected = case["inputs"], case["expected"]
    margin_N = f64(given["logp_ref_chosen"]) - f64(given["logp_ref_rejected"])
    noisy_N = is_noisy(margin_N, given["delta"], "two_sided" if given["rule"] == "abs_le" else given["rule"])
    close(margin_N, expected["margin"])
    assert noisy_N.tolist() == expected["noisy"]
    assert noisy_N.nonzero()[:, 0].tolist() == expected["noisy_index"]
    assert (~noisy_N).nonzero()[:, 0].tolist() == expected["clean_index"]


@of("direction")
def test_direction(case: dict[str, Any]) -> None:
    expected = case["expected"]
    u, g = direction(f64(case["inputs"]["z"]), torch.tensor(case["inputs"]["y"]))
    close(u, expected["u"])
    close(u.norm(), expected["norm"])
    close(g, expected["g_hat"])


@of("clip")
def test_clip(case: dict[str, Any]) -> None:
    g, kept = Selection(lambda_g=case["inputs"]["lambda_g"])(f64(case["inputs"]["g_hat"]))
    close(g, case["expected"]["g"])
    assert kept == case["expected"]["kept"]


@of("clip_keep_fraction")
def test_keep_fraction(case: dict[str, Any]) -> None:
    g, kept = Selection(keep_fraction=case["inputs"]["keep_fraction"])(f64(case["inputs"]["g_hat"]))
    close(g, case["expected"]["g"])
    assert kept == int(g.count_nonzero()) == case["expected"]["kept"]


@of("clip_sigma")
def test_clip_sigma(case: dict[str, Any]) -> None:
    threshold = Selection(clip_sigma=case["inputs"]["c"]).threshold(case["inputs"]["d_o"])
    assert threshold == pytest.approx(case["expected"]["lambda_g"], abs=1e-12, rel=1e-12)


@of("onebit_sparse")
def test_onebit_sparse(case: dict[str, Any]) -> None:
    u, expected = f64(case["inputs"]["u"]), case["expected"]
    g, tau = onebit_sparse(u, case["inputs"]["s"])
    close(g, expected["g"], 1e-7)
    close(tau, expected["tau"], 1e-7)
    close((u * g).sum(), expected["value"], 1e-7)
    close(g.abs().sum(), expected["l1"], 1e-7)


@of("update")
def test_update(case: dict[str, Any]) -> None:
    given, expected = case["inputs"], case["expected"]
    p = given["y"].count(-1) / len(given["y"])
    theta, applied = update(f64(given["theta"]), f64(given["g"]), p, given["gamma"], given["lambda_"])
    assert p == pytest.approx(expected["p"])
    assert applied == expected["applied"] == opens(p, given["lambda_"])
    close(theta, expected["theta_new"])


@of("head_logp")
def test_head_logp(case: dict[str, Any]) -> None:
    given, expected = case["inputs"], case["expected"]
    side = Response(f64(given["hidden"]), torch.tensor(given["targets"]))
    probe = HeadProbe(f64(given["weight"]), [(side, side)])
    close(probe.logp_S2, [[expected["logp"]] * 2])
    for gradient in probe.gradients():
        close(gradient, expected["grad_weight"])
    assert float(logp(f64(given["weight"]), side)) == pytest.approx(expected["logp"], abs=1e-9)


@of("expected_direction")
def test_expected_direction(case: dict[str, Any]) -> None:
    given, expected = case["inputs"], case["expected"]
    p, mean = expected_direction(f64(given["grad_logp_chosen"]), f64(given["grad_logp_rejected"]))
    close(p, expected["p_success"])
    close((0.5 - p) * 2 * math.pi, expected["angle"])
    close(mean, expected["mean_yz"])


class Given(Perturbations):
    """Moves read from a file."""

    def draw(
        self, indices: Any, shape: Any, dtype: Any = None, device: Any = None, out: Any = None
    ) -> Tensor:
        return f64(self.seed)[list(indices)].reshape(len(indices), *shape)  # type: ignore[arg-type]


@of("lm_head_step")
@pytest.mark.parametrize("path", ["head", "plain"])
@pytest.mark.parametrize("chunk_bytes", [1, 2**20])
def test_lm_head_step(
    case: dict[str, Any], path: str, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prefopt.oracles.step.Perturbations", Given)
    given, expected = case["inputs"], case["expected"]
    z_M, weight_VD = f64(given["z"]), f64(given["weight"])
    pair = tuple(
        Response(f64(given[f"hidden_{s}"]), torch.tensor(given[f"targets_{s}"]))
        for s in ("chosen", "rejected")
    )

    def probe(weight: Tensor) -> HeadProbe | PlainProbe:
        if path == "head":
            return HeadProbe(weight, [pair], fast_sampling=False, chunk_bytes=chunk_bytes)  # type: ignore[list-item]
        return PlainProbe([weight], lambda: scored(weight, [pair]), masters=[weight.clone()])

    before = probe(weight_VD)
    close(before.logp_S2, [[expected["logp_chosen_base"], expected["logp_rejected_base"]]])
    for i, z in enumerate(z_M):
        logp_S2 = before.logp_S2 + before.changes_along(z if path == "head" else z.flatten(), given["r"])
        close(logp_S2[0], [expected["logp_chosen_new"][i], expected["logp_rejected_new"][i]])
    g_hat = direction(z_M, torch.tensor(expected["y"]))[1]
    close(g_hat, expected["g_hat"])
    close(Selection(lambda_g=given["lambda_g"])(g_hat)[0], expected["g_clipped"])

    settings = StepSettings(
        perturbations=len(z_M),
        radius=given["r"],
        gate=given["lambda_"],
        gamma=given["gamma"],
        selection=Selection(lambda_g=given["lambda_g"]),
    )
    report = oracle_step(before, settings, seed=given["z"], iteration=0)
    assert report.bits_M.tolist() == expected["y"]
    assert report.success_rate == pytest.approx(expected["p"])
    assert (report.skipped == "") == expected["applied"]
    close(weight_VD, expected["weight_new"])
    close(
        (report.logp_S2 + report.change_S2)[0], [expected[f"logp_{s}_after"] for s in ("chosen", "rejected")]
    )
    close(probe(weight_VD).logp_S2[0], [expected[f"logp_{s}_after"] for s in ("chosen", "rejected")])
    g = f64(expected["g_clipped"])
    length = given["gamma"] * expected["p"] if expected["applied"] else 0.0
    assert report.update_norm == pytest.approx(length * float(g.norm()), abs=1e-12)
    if expected["applied"]:
        assert report.kept_fraction == int(g.count_nonzero()) / g.numel()


@of("release_gate")
def test_release_gate(case: dict[str, Any]) -> None:
    given = case["inputs"]
    changes = [f64([given[f"logp_{s}_trial"] - given[f"logp_{s}_base"]]) for s in ("chosen", "rejected")]
    trial = int(oracle(*changes))
    accepted = release_accepts(given["count_success"], given["count_threshold"], trial)
    assert accepted == case["expected"]["accept"]


@of("damping")
def test_damping(case: dict[str, Any]) -> None:
    given = case["inputs"]
    gamma, drift = damped(
        given["gamma"],
        given["rho"],
        given["tau_p"],
        f64(given["logp_policy"]),
        f64(given["logp_ref"]),
        torch.tensor(given["length"]),
    )
    close(gamma, case["expected"]["gamma_t"])
    close(drift, case["expected"]["d_hat"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kth_magnitude_is_that_of_a_sort(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    for size in (1, 7, 1000):
        g_D = torch.randn(size, generator=generator, dtype=dtype) * 10.0 ** torch.randint(
            -40, 5, (size,), generator=generator
        ).to(dtype)
        g_D[: size // 3] = 0
        if size > 5:
            g_D[-3:] = g_D[-1].abs()  # ties
        ordered = g_D.abs().sort(descending=True).values
        assert [kth_magnitude(g_D, k) for k in range(1, size + 1)] == ordered.tolist()
