"""S3 and S4: claims on constructed cases."""

from __future__ import annotations

from itertools import count

from prefopt.reproduce.ssapo import claims as ssapo_claims
from prefopt.reproduce.ssapo.claims import (
    CLEAN,
    FLIPS,
    GAP_NAMES,
    LINEAR_NAME,
    MANY,
    METHODS,
    RELEASED_NAMES,
)
from prefopt.reproduce.ssapo.world import (
    AGAIN,
    ORACLE,
    SEED_ONLY,
    SELF,
    SPA_ROUNDS,
    Stage,
)


def constructed(sign, seeds=6):
    """Stages in which everything is as the paper says (sign 1), or the opposite."""
    steps = count()

    def stage(rate):
        values = [rate + 0.01 * ((7 * next(steps)) % 5) for _ in range(seeds)]
        return Stage(values, values, [1.0] * seeds, [70.0] * seeds, [10.0] * seeds)

    gains = {SEED_ONLY: 0.0, AGAIN: 0.5, SELF: 4.0, SPA_ROUNDS: 5.0, ORACLE: 20.0, LINEAR_NAME: 9.0}
    gains |= {name: 8.0 + (i == 2) for i, name in enumerate(GAP_NAMES)}
    gains |= {name: 6.0 + (i == 1) for i, name in enumerate(RELEASED_NAMES)}
    found = {}
    for labels in FLIPS:
        found[labels] = {}
        for name, gain in gains.items():
            lost = sign * (10.0 if name == SELF else 5.0) * (labels == MANY and name != SEED_ONLY)
            lost *= gain < 20
            end = 50 + sign * gain - lost
            stages = [stage(50.0), stage(50 + (end - 50) / 3), stage(50 + 2 * (end - 50) / 3), stage(end)]
            found[labels][name] = stages[-1:] if name == SEED_ONLY else stages
    return found


def test_claims_follow_the_numbers_both_ways():
    with_the_paper = constructed(1)
    del with_the_paper[MANY]  # there constructed losses outweigh gains
    with_the_paper[MANY] = constructed(1)[CLEAN]
    made = [c for c in ssapo_claims.claims(with_the_paper) if "25 % of the labels" not in c.statement]
    assert len(made) >= 25
    assert {c.verdict for c in made if "25 % flipped labels" not in c.statement} == {"holds"}
    against = constructed(-1)
    against[MANY] = constructed(-1)[CLEAN]
    opposite = [c for c in ssapo_claims.claims(against) if "25 %" not in c.statement or "(" in c.statement]
    assert {c.verdict for c in opposite} == {"does not hold here"}
    for sign, verdict in ((1, "holds"), (-1, "does not hold here")):
        assert {c.verdict for c in ssapo_claims.flip_claims(constructed(sign))} == {verdict}
        curve = {n: constructed(sign)[CLEAN] for n in (40, 80)}
        assert {c.verdict for c in ssapo_claims.label_claims(curve)} == {verdict}


def test_radius_is_chosen_and_judged_on_different_seeds():
    found = constructed(1)[CLEAN]
    lucky = found[GAP_NAMES[0]][-1].win
    lucky[:3] = [63.0] * 3  # best where it is chosen, not on all seeds
    lucky[3:] = [51.0] * 3
    differences, name = ssapo_claims.against(found, GAP_NAMES, SELF)
    assert name == GAP_NAMES[0] == "SSAPO shift 0.01"
    assert len(differences) == 3
    assert max(differences) < 0
    found[GAP_NAMES[-1]][-1].win[:] = [40.0] * 6  # so that the other end of the range decides
    inside = ssapo_claims.inverted_u(found, GAP_NAMES, "SSAPO")
    assert inside.verdict == "does not hold here"
    assert inside.how.endswith("weakest at 0")


def test_a_gain_too_small_to_matter_counts_against():
    found = constructed(1)
    for labels, by in found.items():
        for name in GAP_NAMES:  # intervals around 0, all of it below half a point
            tiny = ([0.05, 0.1, -0.05] if labels == MANY else [0.1, -0.05, 0.05]) * 2
            by[name][-1].win[:] = [x + gain for x, gain in zip(by[SELF][-1].win, tiny, strict=True)]
    made = {c.statement: c for c in ssapo_claims.claims(found)}
    for statement in (
        f"S4: SSAPO beats epsilon = 0 ({CLEAN})",
        "S3: SSAPO loses less to 25 % flipped labels than epsilon = 0",
    ):
        low, high = made[statement].interval
        assert low < 0 < high < ssapo_claims.WORTH
        assert made[statement].verdict == "does not hold here"


def test_names_say_leader_and_radius():
    assert {"SSAPO shift 0.1", "SSAPO dual 0.3", "released 0.05"} < set(METHODS)
