"""B of `prefopt reproduce symmpo`: claims on constructed numbers, and what is shown of them."""

from __future__ import annotations

from typing import Any

import pytest

from prefopt.reproduce.symmpo import hallucination
from prefopt.reproduce.symmpo.captions import (
    ANCHORED,
    ARMS,
    BOTH_ROWS,
    DPO,
    GAMMAS,
    MDPO,
    NO_ANCHOR,
    NO_PAIR,
    START,
    SVCO_ANCHORED,
    SWEEP,
    SYMMPO,
    Measured,
    Trained,
    swept,
)
from prefopt.worlds.caption.measures import Measures

SEEDS = 3
# per arm: CHAIRi, CHAIRs, Cover, F1, SwapAcc (percent), drift (nats), of a world in which every claim is true
TRUE = {
    START: (6, 20, 98, 95.5, 96, 0),
    DPO: (2, 1, 48, 64, 48, -27),
    ANCHORED: (1, 3, 92, 95, 85, 0),
    MDPO: (2, 6, 93, 95.6, 95, -1),
    BOTH_ROWS: (1.3, 4, 95.5, 97, 97, 0),
    SVCO_ANCHORED: (1, 3, 95.5, 97.2, 97, 0),
    SYMMPO: (1, 3, 96, 97.5, 97.4, 0),
    NO_PAIR: (1, 3, 95.8, 97.3, 94, 0),
    NO_ANCHOR: (3, 7, 85, 91, 96.6, -3),
}


def run(
    chair_i: float, chair_s: float, cover: float, f1: float, swap: float, drift: float, gap: float = 8.0
) -> Trained:
    measures = Measures(
        chair_i=chair_i / 100, chair_s=chair_s / 100, cover=cover / 100, f1=f1 / 100, cover_prior=0.9, cog=0.01,
        exact=0.8, mentions=3.0, captions=500,
    )  # fmt: skip
    return Trained(Measured(measures, swap / 100, 9.0, gap, drift), 1.0, {})


def constructed(
    numbers: dict[str, Any] = TRUE, gaps: tuple[float, ...] = (9, 8, 5, 2)
) -> dict[str, list[Trained]]:
    """Some arms' numbers, the same with every seed but for a wobble."""
    found = {
        name: [run(*(x * (1 + 1e-4 * s) for x in row)) for s in range(SEEDS)] for name, row in numbers.items()
    }
    return found | {
        swept(gamma): [run(*TRUE[SYMMPO], gap=gap)] for gamma, gap in zip(GAMMAS, gaps, strict=True)
    }


def verdicts(found: dict[str, list[Trained]]) -> dict[str, str]:
    return {claim.statement: claim.verdict for claim in hallucination.claims(found)}


def test_all_hold_where_all_is_so():
    found = verdicts(constructed())
    assert len(found) == 18
    assert set(found.values()) == {"holds"}, found


@pytest.mark.parametrize(
    ("arm", "row", "broken"),
    [
        (DPO, (2, 1, 48, 64, 48, -9), ["more than 10 nats"]),
        (DPO, (2, 1, 69, 80, 48, -27), ["more than 30 points"]),
        (DPO, (2, 4, 48, 64, 48, -27), ["has fewer captions"]),
        (DPO, (2, 1, 48, 98, 48, -27), ["SymMPO beats DPO"]),
        (ANCHORED, (1, 3, 92, 98, 85, 0), ["DPO with an anchor"]),
        (MDPO, (2, 6, 93, 98, 95, -1), ["beats mDPO", "behind it with no seed", "less than half"]),
        (BOTH_ROWS, (1.3, 4, 95.5, 98, 97, 0), ["given both rows"]),
        (BOTH_ROWS, (1.3, 4, 95.5, 96, 97, 0), ["less than half"]),
        (SVCO_ANCHORED, (1, 3, 95.5, 98, 97, 0), ["S-VCO"]),
        (SYMMPO, (3.5, 3, 96, 97.5, 97.4, 0), ["halves"]),
        (START, (6, 20, 101, 95.5, 96, 0), ["within 4 points"]),
        (START, (6, 20, 98, 97, 96, 0), ["gains at least 0.8"]),
        (NO_PAIR, (1, 3, 95.8, 97.3, 96.5, 0), ["go less by the picture"]),
        (NO_PAIR, (1, 3, 95.8, 98, 94, 0), ["without the pair term F1"]),
        (NO_ANCHOR, (3, 7, 85, 91, 96.6, -1), ["more than 1.5 nats"]),
        (NO_ANCHOR, (3, 7, 91, 91, 96.6, -3), ["more than 6 points"]),
        (NO_ANCHOR, (3, 7, 85, 98, 96.6, -3), ["without anchors F1"]),
    ],
)
def test_each_claim_reads_its_own_numbers(arm, row, broken):
    """One arm is changed; the claims that fail are those that say so, and no others."""
    found = verdicts(constructed({**TRUE, arm: row}))
    failed = [statement for statement, verdict in found.items() if verdict != "holds"]
    assert len(failed) == len(broken), failed
    for part in broken:
        assert any(part in statement for statement in failed), (part, failed)


def test_one_seed_behind_is_enough():
    found = constructed()
    found[MDPO][1] = run(2, 6, 93, 97.6, 95, -1)
    failed = {s for s, verdict in verdicts(found).items() if verdict == "does not hold here"}
    assert failed == {"B: and is behind it with no seed"}


@pytest.mark.parametrize(
    ("gaps", "verdict"), [((9, 8, 5, 2), "holds"), ((9, 8, 8.5, 2), "does not hold here")]
)
def test_every_step_of_the_sweep_counts(gaps, verdict):
    assert hallucination.sweep_claim(constructed(gaps=gaps)).verdict == verdict


def test_tables_and_figures_have_every_arm():
    part = hallucination.experiment(constructed())
    arms, sweep = part.tables
    assert [row[0] for row in arms.rows] == [START, *ARMS]
    assert [row[0] for row in sweep.rows] == list(SWEEP)
    by_name = dict(zip(arms.columns, arms.rows[1], strict=True))
    assert by_name["Cover"] == "48.0 +- 0.0"
    assert by_name["drift (nats)"] == "-27.0 +- 0.0"
    assert [row[arms.columns.index("gap of margins (nats)")] for row in sweep.rows] == [
        "9.0",
        "8.0",
        "5.0",
        "2.0",
    ]
    assert [plot.name for plot in part.plots] == ["symmpo_captions", "symmpo_gamma"]
    whole, ahead = part.plots[0].figure.axes
    assert whole.get_ylim()[0] < 48 < 98 < whole.get_ylim()[1]
    assert [label.get_text() for label in ahead.get_yticklabels()] == [
        a for a in (START, *ARMS) if a not in (SYMMPO, DPO)
    ]
    shown = {line.get_ydata()[0]: line.get_xdata()[0] for line in ahead.lines if len(line.get_xdata()) == 1}
    assert shown[7] == pytest.approx(97.5 - 95.5, abs=0.01)  # the start, highest
    assert shown[1] == pytest.approx(97.5 - 91, abs=0.01)  # without anchors, lowest
    assert len(part.claims) == 19
