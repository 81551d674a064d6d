"""T3 of `prefopt reproduce ties`: how many questions that the reference gets right does the policy still get right?

Shapes: S seeds, N questions, K candidates.
"""

from __future__ import annotations

from torch import Tensor

from prefopt.reproduce import loglinear
from prefopt.reproduce.core import Part, Table, Ticker, everywhere, silent
from prefopt.reproduce.paired import mean, minus
from prefopt.reproduce.ties.frontier import (
    CP,
    RK,
    D,
    fit,
    objective_of,
    pairs_of,
    short,
)
from prefopt.reproduce.ties.worlds import Mined, exam_world

BETAS = (0.1, 0.3, 1.0)
# mean difficulty of the questions; the reference gets about half of the hard exam and most of the easy one, where
# ties (questions that every sample gets right) outnumber clear pairs
EXAMS = {"hard exam": 1.1, "easy exam": -0.2}


def preservation(seeds: range, steps: int, ticker: Ticker = silent) -> Part:
    """T3: share of test questions answered right by the reference that the policy still answers right."""
    tick = ticker("ties T3: preservation", 3 * len(BETAS) * len(EXAMS))
    result = Part()
    rows: list[list[str | float]] = []
    counts: dict[str, dict[str, float]] = {}
    for exam, difficulty in EXAMS.items():
        world = exam_world(seeds, difficulty=difficulty)
        start_SN = greedy_right(world, None)
        counts[exam] = {
            "clear_pairs": world.clear.prompt_SE.shape[1],
            "ties": world.tied.prompt_SE.shape[1],
            "reference_right_percent": 100 * float(start_SN.mean()),
        }
        kept: dict[str, dict[float, list[float]]] = {}
        for method in (CP, RK, D):
            kept[method] = {}
            for beta in BETAS:
                pairs = pairs_of(method, world.clear, world.tied)
                w_SD = fit(objective_of(method, beta), world, pairs, steps)
                now_SN = greedy_right(world, w_SD)
                kept[method][beta] = (100 * (now_SN * start_SN).sum(-1) / start_SN.sum(-1)).tolist()
                right, drift = 100 * float(now_SN.mean()), float(loglinear.kl(world.test, w_SD).mean())
                rows.append([exam, method, f"{beta:g}", mean(kept[method][beta]), right, drift])
                tick()
        result.claims += [
            everywhere(
                f"T3: {short(method)} preserves more right answers than DPO(CP) ({exam})",
                {f"beta {b:g}": minus(kept[method][b], kept[CP][b]) for b in BETAS},
                source="Sec. 3.5, GSM8K",
                how="preservation rate - preservation rate of DPO(CP), greedy answers",
                unit="percentage points",
            )
            for method in (RK, D)
        ]
    result.tables.append(
        Table(
            "T3: preservation",
            ["exam", "method", "beta", "preserved (%)", "right (%)", "KL (nats)"],
            rows,
        )
    )
    result.settings["T3"] = {
        "seeds": len(seeds),
        "questions": 400,
        "candidates": 8,
        "features": 40,
        "test_questions": 1000,
        "exams": counts,
        "optimizer": "Adam 0.02, full batch",
        "steps": steps,
        "beta": BETAS,
    }
    return result


def greedy_right(world: Mined, w_SD: Tensor | None) -> Tensor:
    """(S, N) 1 where the most likely answer to a test question is right, 0 elsewhere; None = the reference."""
    score_SNK = world.test.log_ref_SNK if w_SD is None else loglinear.log_policy(world.test, w_SD)
    return world.test.utility_SNK.gather(-1, score_SNK.argmax(-1, keepdim=True))[..., 0]
