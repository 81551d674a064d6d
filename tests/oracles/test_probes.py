"""The head's fast path against running everything each time, and the laws that both follow."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from oracles.toys import logp, response, scored, toy
from prefopt.likelihoods.head import Finish
from prefopt.oracles.direction import expected_cosine
from prefopt.oracles.head import HeadProbe, Response
from prefopt.oracles.perturbations import Perturbations
from prefopt.oracles.plain import PlainProbe

HEADS: dict[str, dict[str, Any]] = {
    "bare": {},
    "bias": {"bias_V": torch.linspace(-1, 1, 20, dtype=torch.float64)},
    "softcap": {"finish": Finish(softcap=0.7)},
    "all": {"bias_V": torch.linspace(-1, 1, 20, dtype=torch.float64), "finish": Finish(0.5, 2.0)},
}


def cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.cosine_similarity(a.flatten(), b.flatten(), 0))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("radius", [1e-4, 0.05, 30.0])
@pytest.mark.parametrize("mode", ["mean", "any", "all"])
def test_fast_is_plain(head: str, radius: float, mode: Any) -> None:
    weight_VD, pairs = toy(lengths=((3, 5), (4, 1)))
    fast = HeadProbe(weight_VD, pairs, **HEADS[head], fast_sampling=False, chunk_bytes=20_000)
    copy = weight_VD.clone()
    plain = PlainProbe([copy], lambda: scored(copy, pairs, **HEADS[head]))
    torch.testing.assert_close(fast.logp_S2, plain.logp_S2, rtol=1e-12, atol=1e-12)
    moves = Perturbations(0, 1)
    for z in moves.draw(range(3), (20, 16), torch.float64):
        torch.testing.assert_close(
            fast.changes_along(z, radius), plain.changes_along(z.flatten(), radius), rtol=1e-9, atol=1e-12
        )
    y_M, total = fast.survey(moves, range(64), radius, mode)
    plain_y_M, plain_total = plain.survey(moves, range(64), radius, mode)
    assert torch.equal(y_M, plain_y_M)
    assert mode == "all" or radius > 1 or -1 in y_M
    torch.testing.assert_close(total.flatten(), plain_total, rtol=0, atol=0)


@pytest.mark.parametrize("antithetic", [False, True])
def test_sphere_moves_too(antithetic: bool) -> None:
    weight_VD, pairs = toy()
    moves = Perturbations(0, 0, "sphere", antithetic)
    copy = weight_VD.clone()
    found = HeadProbe(weight_VD, pairs, fast_sampling=False).survey(moves, range(30), 0.01)
    plain = PlainProbe([copy], lambda: scored(copy, pairs)).survey(moves, range(30), 0.01)
    assert torch.equal(found[0], plain[0])
    assert torch.equal(found[1].flatten(), plain[1])


@pytest.mark.parametrize("head", HEADS)
def test_gradients_are_autograd_s(head: str) -> None:
    weight_VD, pairs = toy(lengths=((3, 5), (4, 1)))
    a, b = HeadProbe(weight_VD, pairs, **HEADS[head]).gradients()
    leaf = weight_VD.clone().requires_grad_()
    for found, scores in zip((a, b), scored(leaf, pairs, **HEADS[head]), strict=True):
        torch.testing.assert_close(found, torch.autograd.grad(scores.mean(), leaf)[0])


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("head", [{}, {"finish": Finish(softcap=5.0)}])
def test_chunks_do_not_matter(fast: bool, head: dict[str, Any]) -> None:
    weight_VD, pairs = toy(300, 48, ((9, 12),), dtype=torch.float32)
    surveys = [
        HeadProbe(weight_VD, pairs, **head, fast_sampling=fast, chunk_bytes=size).survey(
            Perturbations(0, 0), range(50), 0.01
        )
        for size in (1, 50_000, 400_000, 2**28)
    ]
    for y_M, total in surveys[1:]:
        assert torch.equal(y_M, surveys[0][0])
        assert torch.equal(total, surveys[0][1])
    assert 0 < int((surveys[0][0] == -1).sum()) < 50


def test_float32_is_enough_for_small_moves() -> None:
    # differences of summed log-probabilities would be round-off here: those are -100, the changes 1e-5
    weight_VD, pairs = toy(300, 48, ((20, 20),), dtype=torch.float32)
    probe = HeadProbe(weight_VD, pairs, fast_sampling=False)
    a, b = probe.gradients()
    y_M, _ = probe.survey(Perturbations(0, 0), range(200), 1e-7)
    z_MVD = Perturbations(0, 0).draw(range(200), (300, 48))
    helped_M = ((z_MVD * a).sum((1, 2)) > 0) & ((z_MVD * b).sum((1, 2)) < 0)
    assert torch.equal(y_M == -1, helped_M)


def test_a_token_that_loses_nearly_all_mass() -> None:
    # 1 + sum p expm1 is a small difference of ones here, and float32 would keep two of its digits
    weight_VD, shift_VD = torch.tensor([[10.0], [0.0]]), torch.tensor([[-20.0], [0.0]])
    side = Response(torch.ones(1, 1), torch.tensor([1]))
    double = Response(side.hidden_TD.double(), side.target_T)
    exact = logp((weight_VD + shift_VD).double(), double) - logp(weight_VD.double(), double)
    change_S2 = HeadProbe(weight_VD, [(side, side)]).changes_along(shift_VD, 1.0)
    torch.testing.assert_close(change_S2[0, 0], exact, rtol=1e-6, atol=0)


def test_large_logits_and_moves_stay_finite() -> None:
    weight_VD, pairs = toy(dtype=torch.float32)
    copy = 1e3 * weight_VD
    probe = HeadProbe(copy, pairs, fast_sampling=False)
    z_VD = torch.randn(20, 16, generator=torch.Generator().manual_seed(0))
    double = [tuple(Response(r.hidden_TD.double(), r.target_T) for r in pair) for pair in pairs]
    after, before = (torch.stack(scored(w.double(), double), -1) for w in (copy + 1e3 * z_VD, copy))  # type: ignore[arg-type]
    torch.testing.assert_close(probe.changes_along(z_VD, 1e3), after - before, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("fast", [False, True])
def test_closed_forms(fast: bool) -> None:
    """Share of successes, direction and its cosine, over 12 pairs (specification of the miniature, V=50, D=16)."""
    m, gaps, cosines, formula = 1600, [], [], []
    for seed in range(12):
        weight_VD, pairs = toy(50, 16, ((6, 6),), seed)
        probe = HeadProbe(weight_VD, pairs, fast_sampling=fast)
        p, mean = probe.expected()
        moves = Perturbations(seed, 0)
        y_M, total = probe.survey(moves, range(m), 1e-4)
        gaps.append((float((y_M == -1).double().mean()) - p) / math.sqrt(p * (1 - p) / m))
        u = probe.direction(total, moves, y_M)
        cosines.append(cosine(u, mean))
        formula.append(expected_cosine(p, m, probe.size))
        inside = float((u / m * mean).sum() / mean.square().sum())
        assert inside == pytest.approx(1, abs=0.25)  # length along the mean, not only the angle
    assert max(map(abs, gaps)) < 4
    assert sum(gaps) / math.sqrt(12) == pytest.approx(0, abs=3.5)
    assert sum(cosines) / 12 == pytest.approx(sum(formula) / 12, abs=0.03)


@pytest.mark.parametrize("antithetic", [False, True])
def test_fast_sampling_has_the_same_law(antithetic: bool) -> None:
    """Share of successes, and the squares of the vote inside and outside of the span, by exact and fast sampling."""
    weight_VD, pairs = toy(30, 24, ((3, 4),))
    basis = torch.linalg.qr(torch.cat([r.hidden_TD for r in pairs[0]]).T)[0]
    m, rounds = 60, 60
    found: dict[bool, Tensor] = {}
    for fast in (False, True):
        probe = HeadProbe(weight_VD, pairs, fast_sampling=fast)
        rows = []
        for iteration in range(rounds):
            moves = Perturbations(7, iteration, antithetic=antithetic)
            y_M, total = probe.survey(moves, range(m), 1e-3)
            u = probe.direction(total, moves, y_M)
            inside = (u @ basis).square().sum()
            rows.append([float((y_M == -1).sum()), float(inside), float(u.square().sum() - inside)])
        found[fast] = torch.tensor(rows, dtype=torch.float64)
    for column in range(3):
        exact, fast_ = found[False][:, column], found[True][:, column]
        error = math.sqrt(float(exact.var() + fast_.var()) / rounds)
        assert float(exact.mean() - fast_.mean()) == pytest.approx(0, abs=3.5 * error)
    if not antithetic:
        assert float(found[True][:, 2].mean()) == pytest.approx(m * 30 * (24 - 7), rel=0.02)


def test_projection_drops_the_noise_outside_alone() -> None:
    weight_VD, pairs = toy(30, 24, ((3, 4),))
    moves = Perturbations(0, 0)
    fast, projected = (HeadProbe(weight_VD, pairs, project_to_span=flag) for flag in (False, True))
    y_M, total = fast.survey(moves, range(200), 1e-3)
    same_y_M, same_total = projected.survey(moves, range(200), 1e-3)
    assert torch.equal(y_M, same_y_M)
    u, v = fast.direction(total, moves, y_M), projected.direction(same_total, moves, same_y_M)
    basis = torch.linalg.qr(torch.cat([r.hidden_TD for r in pairs[0]]).T)[0]
    torch.testing.assert_close(u @ basis, v @ basis)
    torch.testing.assert_close(v, v @ basis @ basis.T)
    mean = fast.expected()[1]
    assert cosine(v, mean) > 1.4 * cosine(u, mean) > 0


def test_antithetic_moves_are_less_noisy() -> None:
    weight_VD, pairs = toy(50, 16, ((6, 6),))
    probe = HeadProbe(weight_VD, pairs)
    mean, found = probe.expected()[1], []
    for antithetic in (False, True):
        moves = Perturbations(0, 0, antithetic=antithetic)
        y_M, total = probe.survey(moves, range(800), 1e-4)
        found.append(cosine(probe.direction(total, moves, y_M), mean))
    assert found[1] > found[0] > 0


def test_responses_longer_than_the_width_need_no_span() -> None:
    weight_VD, pairs = toy(20, 4, ((5, 6),))
    moves = Perturbations(0, 0)
    exact, fast = (
        HeadProbe(weight_VD, pairs, fast_sampling=flag).survey(moves, range(20), 0.01)
        for flag in (False, True)
    )
    assert torch.equal(exact[0], fast[0])
    assert torch.equal(exact[1], fast[1])


def test_identical_responses_never_improve() -> None:
    weight_VD, pairs = toy()
    chosen = pairs[0][0]
    probe = HeadProbe(weight_VD, [(chosen, Response(chosen.hidden_TD.clone(), chosen.target_T.clone()))])
    assert probe.identical
    assert (probe.survey(Perturbations(0, 0), range(100), 0.01)[0] == 1).all()
    assert probe.expected()[0] == 0
    assert not HeadProbe(weight_VD, pairs).identical


def test_model_dtypes_are_widened() -> None:
    weight_VD, pairs = toy(dtype=torch.float32)
    low = [tuple(Response(r.hidden_TD.bfloat16(), r.target_T.int()) for r in pair) for pair in pairs]
    probe = HeadProbe(weight_VD, low)  # type: ignore[arg-type]
    high = [tuple(Response(r.hidden_TD.float(), r.target_T.long()) for r in pair) for pair in low]
    torch.testing.assert_close(
        probe.logp_S2, torch.stack(scored(weight_VD, high), -1).double(), rtol=1e-6, atol=1e-5
    )  # type: ignore[arg-type]


@pytest.mark.parametrize("where", ["weight", "hidden"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_numbers_that_are_none_are_refused(where: str, bad: float) -> None:
    weight_VD, pairs = toy()
    (weight_VD if where == "weight" else pairs[0][1].hidden_TD)[0, 0] = bad
    with pytest.raises(FloatingPointError, match="look for weights or hidden states"):
        HeadProbe(weight_VD, pairs)
    with pytest.raises(FloatingPointError, match="log-probabilities"):
        PlainProbe([weight_VD], lambda: scored(weight_VD, pairs))


@pytest.mark.parametrize("probe", ["head", "plain"])
def test_moves_that_break_the_model_are_no_failures(probe: str) -> None:
    weight_VD, pairs = toy(dtype=torch.float32)
    made = (
        HeadProbe(weight_VD, pairs)
        if probe == "head"
        else PlainProbe([weight_VD], lambda: scored(weight_VD, pairs))
    )
    kept = weight_VD.clone()
    with pytest.raises(FloatingPointError, match="lower the radius"):
        made.survey(Perturbations(0, 0), range(4), 1e38)
    assert torch.equal(weight_VD, kept)


GENERATOR = torch.Generator().manual_seed(0)
WEIGHT, PAIRS = toy()
GOOD = PAIRS[0][0]


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: HeadProbe(WEIGHT[0], PAIRS), "vocabulary, hidden width"),
        (lambda: HeadProbe(WEIGHT, []), "no pair was given"),
        (lambda: HeadProbe(WEIGHT, [(GOOD, response(0, 20, 16, GENERATOR))]), "rejected response of pair 0 has no tokens"),
        (lambda: HeadProbe(WEIGHT, [(response(2, 20, 9, GENERATOR), GOOD)]), r"needed \(tokens, 16\)"),
        (lambda: HeadProbe(WEIGHT, [(Response(GOOD.hidden_TD, GOOD.target_T[1:]), GOOD)]), "chosen response of pair 0"),
        (lambda: HeadProbe(WEIGHT, [(Response(GOOD.hidden_TD, GOOD.target_T + 20), GOOD)]), "the head has 20"),
        (lambda: HeadProbe(WEIGHT, PAIRS, fast_sampling=False, project_to_span=True), "needs fast_sampling"),
        (lambda: HeadProbe(WEIGHT, PAIRS, chunk_bytes=0), "chunk_bytes is 0"),
        (lambda: HeadProbe(WEIGHT, PAIRS).survey(Perturbations(0, 0, "sphere"), [0], 0.1), "set fast_sampling=False"),
        (lambda: HeadProbe(WEIGHT, PAIRS).survey(Perturbations(0, 0), [0], 0.1, bits_M=torch.ones(2)), "2 answers for 1"),
        (lambda: PlainProbe([], lambda: scored(WEIGHT, PAIRS)), "no parameters"),
        (lambda: PlainProbe([WEIGHT], lambda: scored(WEIGHT, PAIRS), [WEIGHT[0]]), "masters of shapes"),
        (lambda: PlainProbe([WEIGHT], lambda: (WEIGHT, WEIGHT)), "score gave shapes"),
    ],
)  # fmt: skip
def test_refusals(call: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        call()


def test_low_precision_is_refused() -> None:
    with pytest.raises(TypeError, match="float32 master copy"):
        HeadProbe(WEIGHT.bfloat16(), PAIRS)
    with pytest.raises(TypeError, match="masters are"):
        PlainProbe([WEIGHT], lambda: scored(WEIGHT, PAIRS), [WEIGHT.bfloat16()])
    with pytest.raises(TypeError, match="no small moves"):
        PlainProbe([torch.ones(2, dtype=torch.int8)], lambda: scored(WEIGHT, PAIRS))


def test_plain_moves_several_parameters_and_puts_them_back() -> None:
    weight_VD, pairs = toy()
    inner_DD = torch.eye(16, dtype=torch.float64) + 0.1

    def score() -> tuple[Tensor, Tensor]:
        sides = [
            [logp(weight_VD, Response(r.hidden_TD @ inner_DD, r.target_T)) for r in pair] for pair in pairs
        ]
        return torch.stack([s[0] for s in sides]), torch.stack([s[1] for s in sides])

    kept = weight_VD.clone(), inner_DD.clone()
    probe = PlainProbe([weight_VD, inner_DD], score)
    y_M, u = probe.survey(Perturbations(0, 0), range(40), 0.05)
    assert torch.equal(weight_VD, kept[0])
    assert torch.equal(inner_DD, kept[1])
    assert u.shape == (probe.size,) == (20 * 16 + 16 * 16,)
    assert {1, -1} == set(y_M.tolist())
    expected = probe.changes_along(u, 0.01)
    probe.move(u, 0.01)
    torch.testing.assert_close(inner_DD, kept[1] + 0.01 * u[320:].view(16, 16))
    torch.testing.assert_close(torch.stack(score(), -1), probe.logp_S2 + expected)


def test_plain_puts_back_after_an_error() -> None:
    w = torch.zeros(2)
    calls = 0

    def score() -> tuple[Tensor, Tensor]:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise RuntimeError("out of memory")
        return w[:1].clone(), w[1:].clone()

    probe = PlainProbe([w], score)
    with pytest.raises(RuntimeError, match="out of memory"):
        probe.survey(Perturbations(0, 0), [0], 0.1)
    assert w.tolist() == [0, 0]


def test_small_steps_add_up_in_the_master_copy() -> None:
    w = torch.ones(2, dtype=torch.bfloat16)
    masters = [w.float()]
    for _ in range(100):
        probe = PlainProbe([w], lambda: (w[:1].float(), w[1:].float()), masters)
        probe.move(torch.tensor([1.0, -1.0]), 1e-3)  # a quarter of what bfloat16 tells apart at 1
        probe.changes_along(torch.ones(2), 1.0)  # trying puts the parameters back, not the masters
    torch.testing.assert_close(masters[0], torch.tensor([1.1, 0.9]))
    torch.testing.assert_close(w.float(), torch.tensor([1.1, 0.9]), rtol=5e-3, atol=0)


def test_moves_are_tried_from_the_master_copy() -> None:
    w = torch.ones(2, dtype=torch.bfloat16)
    probe = PlainProbe([w], lambda: (w[:1].float(), w[1:].float()), [torch.full((2,), 1.003)])
    change_S2 = probe.changes_along(torch.ones(2), 0.003)  # 1.006 rounds up to 1 + 2**-7, from 1 it would not
    assert change_S2.tolist() == [[2**-7, 2**-7]]
