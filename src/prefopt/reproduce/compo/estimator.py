"""M1 to M3 of `prefopt reproduce compo`: is the vote an estimate of what it should be, and where does a step lead?

    M1  share of successes and cosine with the expected direction, against their closed forms
    M2  one step of the same length along DPO's direction, along votes of m moves, along their limit: who is displaced?
    M3  improvement (of chosen minus rejected log-probability) and its spread, over m

Legend: a, b gradients of the chosen and the rejected response's log-probability.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from prefopt.oracles.direction import expected_cosine
from prefopt.oracles.perturbations import Perturbations
from prefopt.reproduce import plots
from prefopt.reproduce.compo import world
from prefopt.reproduce.compo.world import RADIUS, STEP, Size, changes, make_world, unit
from prefopt.reproduce.core import Claim, Part, Plot, Table, directional, everywhere, within
from prefopt.reproduce.paired import minus

DPO, LIMIT = "DPO", "infinitely many"
SCALES = (0.8, 1.0, 1.2, 1.4)
"""How much larger the rejected response's hidden states are, in the table of closed forms."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What one seed's steps along one direction did.

    Attributes:
        chosen_falls: share of steps that made the chosen response less likely.
        rejected_rises: share that made the rejected one likelier.
        both_right: share that did neither.
        chosen: mean change of the chosen response's log-probability, nats.
        rejected: of the rejected one's.
        gain: mean of chosen - rejected for one unit of length.
        spread: standard deviation of that over draws of the moves, pairs pooled; 0 without draws.
        cosine: mean cosine with the expected direction.
        formula: mean of the closed form of that.
    """

    chosen_falls: float
    rejected_rises: float
    both_right: float
    chosen: float
    rejected: float
    gain: float
    spread: float
    cosine: float
    formula: float


@dataclass(frozen=True, slots=True)
class Estimates:
    """What one seed says.

    Attributes:
        rates: for each pair, (share of successes at the most moves, its closed form).
        moved: by direction: DPO's, that of m moves, and the limit.
        by_scale: for each of `SCALES`, share of chosen responses displaced by (DPO's direction, the limit).
    """

    rates: list[tuple[float, float]]
    moved: dict[str | int, Moved]
    by_scale: dict[float, tuple[float, float]]


def estimates(seed: int, size: Size) -> Estimates:
    """All pairs of one world, each with several draws of the moves."""
    world = make_world(seed, size.pairs)
    steps: dict[str | int, list[list[tuple[float, float, float, float]]]] = {}
    rates = []
    for pair in range(size.pairs):
        probe = world.probe(pair)
        a, b = probe.gradients()
        p, mean = probe.expected()
        climb = unit(-mean)
        exact = {DPO: unit(a - b), LIMIT: climb}
        for name, g in exact.items():
            steps.setdefault(name, []).append([(*changes(probe, g), float((g * climb).sum()), 1.0)])
        for m in size.moves:
            steps.setdefault(m, []).append([])
        successes = 0
        for draw in range(size.draws):
            # a draw of a pair is an iteration: its moves are its own
            moves = Perturbations(seed, pair * size.draws + draw)
            total, bits, done = None, [], 0
            for m in size.moves:
                y, part = probe.survey(moves, range(done, m), RADIUS)
                total, done = part if total is None else total + part, m
                bits.append(y)
                y_M = torch.cat(bits)
                g = unit(-probe.direction(total.clone(), moves, y_M))
                formula = expected_cosine(p, m, probe.size)
                steps[m][-1].append((*changes(probe, g), float((g * climb).sum()), formula))
            successes += int((y_M == -1).sum())
        rates.append((successes / (size.draws * done), p))
    by_scale = {scale: displaced_at(seed, size.pairs, scale) for scale in SCALES}
    return Estimates(rates, {name: summary(of_pairs) for name, of_pairs in steps.items()}, by_scale)


def summary(steps: Sequence[Sequence[tuple[float, float, float, float]]]) -> Moved:
    """From (change of chosen, of rejected, cosine, formula) for each pair and draw.

    Example:
        >>> summary([[(0.1, -0.1, 1.0, 1.0)], [(-0.1, -0.3, 1.0, 1.0)]]).chosen_falls
        0.5
    """
    flat = [step for of_pair in steps for step in of_pair]
    n = len(flat)
    gains = [[(w - r) / STEP for w, r, _, _ in of_pair] for of_pair in steps]
    squares = sum((x - sum(of_pair) / len(of_pair)) ** 2 for of_pair in gains for x in of_pair)
    freedom = n - len(steps)
    return Moved(
        chosen_falls=sum(w < 0 for w, *_ in flat) / n,
        rejected_rises=sum(r > 0 for _, r, *_ in flat) / n,
        both_right=sum(w > 0 > r for w, r, *_ in flat) / n,
        chosen=sum(w for w, *_ in flat) / n,
        rejected=sum(r for _, r, *_ in flat) / n,
        gain=sum(sum(of_pair) for of_pair in gains) / n,
        spread=math.sqrt(squares / freedom) if freedom else 0.0,
        cosine=sum(c for _, _, c, _ in flat) / n,
        formula=sum(f for *_, f in flat) / n,
    )


def displaced_at(seed: int, pairs: int, scale: float) -> tuple[float, float]:
    """Shares of chosen responses that fall by a step along DPO's direction and along the limit."""
    world = make_world(seed, pairs, longer=scale)
    falls = [0, 0]
    for pair in range(pairs):
        probe = world.probe(pair)
        a, b = probe.gradients()
        for place, g in enumerate((unit(a - b), unit(-probe.expected()[1]))):
            falls[place] += changes(probe, g)[0] < 0
    return falls[0] / pairs, falls[1] / pairs


def experiment(found: Sequence[Estimates], size: Size) -> Part:
    """M1 to M3 from what the seeds found."""
    names: list[str | int] = [DPO, *size.moves, LIMIT]
    result = Part(claims=claims(found, size))

    def mean(what: str, name: str | int) -> float:
        return sum(getattr(f.moved[name], what) for f in found) / len(found)

    def rows(keys: Sequence[str], names: Sequence[str | int]) -> list[list[str | float]]:
        return [[str(name), *(mean(key, name) for key in keys)] for name in names]

    result.tables += [
        Table(
            "M1: cosine of the vote with its expectation",
            ["moves", "measured", "formula"],
            rows(("cosine", "formula"), size.moves),
        ),
        Table(
            f"M2: one step of length {STEP:g}",
            [
                "moves",
                "chosen falls (share)",
                "rejected rises (share)",
                "both go right (share)",
                "chosen (nats)",
                "rejected (nats)",
            ],
            rows(("chosen_falls", "rejected_rises", "both_right", "chosen", "rejected"), names),
        ),
        Table(
            "M2: share of chosen responses that fall, by how much larger the rejected one's hidden states are",
            ["scale", "DPO", "ComPO, infinitely many moves"],
            [
                [scale, *(sum(f.by_scale[scale][k] for f in found) / len(found) for k in range(2))]
                for scale in SCALES
            ],
        ),
        Table(
            "M3: improvement for one unit of length",
            ["moves", "mean (nats)", "deviation over draws (nats)", "cosine"],
            rows(("gain", "spread", "cosine"), names),
        ),
    ]
    result.plots.append(plot(found, size))
    result.settings["M1-M3"] = {
        "seeds": len(found),
        "vocabulary": 50,
        "hidden_width": 16,
        "tokens": world.TOKENS,
        "pairs_a_seed": size.pairs,
        "draws_a_pair": size.draws,
        "moves": list(size.moves),
        "radius": RADIUS,
        "step": STEP,
        "weight_std": world.WEIGHT_STD,
        "rejected_hidden_scale": world.LONGER,
        "rejected_hidden_noise": world.HIDDEN_NOISE,
        "keep_fraction": 1.0,
    }
    return result


def claims(found: Sequence[Estimates], size: Size) -> list[Claim]:
    """What the paper, and the closed forms, say of M1 to M3."""
    steps = list(zip(size.moves, size.moves[1:], strict=False))
    least, most = size.moves[0], size.moves[-1]

    def of(what: str, name: str | int) -> list[float]:
        return [getattr(f.moved[name], what) for f in found]

    def less(what: str, first: str | int, then: str | int) -> list[float]:
        return minus(of(what, first), of(what, then))

    def by_step(differences: Mapping[tuple[int, int], list[float]]) -> dict[str, list[float]]:
        return {f"{i} to {j} moves": values for (i, j), values in differences.items()}

    def relative(name: int) -> list[float]:
        return [s / abs(g) for s, g in zip(of("spread", name), of("gain", name), strict=True)]

    result = [
        within(
            "M1: the share of moves that help is 1/2 - phi / 2 pi",
            [max((rate - p for rate, p in f.rates), key=abs) for f in found],
            0.02,
            source="closed form; Definition 3.1",
            how=f"largest difference over a seed's pairs, {size.draws} x {most} moves; phi is the angle of a and -b",
        ),
        *(
            within(
                f"M1: the cosine of the vote of {m} moves with its expectation is as computed",
                [f.moved[m].cosine - f.moved[m].formula for f in found],
                0.02,
                source="closed form sqrt(m c^2 / (D + m c^2))",
                how="mean over a seed's pairs and draws",
            )
            for m in size.moves
        ),
        directional(
            "M2: a step along DPO's direction makes chosen responses less likely",
            of("chosen_falls", DPO),
            source="Sec. 1",
            how="share of pairs, in a world built for it",
            unit="share of pairs",
        ),
        within(
            "M2: a step along the limit of many moves displaces no pair",
            [1 - x for x in of("both_right", LIMIT)],
            0.0,
            source="closed form, to first order",
            how=f"share of pairs whose chosen response falls or whose rejected one rises, at length {STEP:g}",
        ),
        *(
            directional(
                f"M2: ComPO with {m} moves makes fewer chosen responses less likely than DPO",
                less("chosen_falls", DPO, m),
                source="Sec. 4, Table 3",
                how=f"DPO's share - ComPO's, step of length {STEP:g}",
                unit="share of pairs",
            )
            for m in size.moves
        ),
        everywhere(
            "M2: more moves, fewer pairs with either side going wrong (up to 1600)",
            # beyond 1600 nothing is left to fall
            by_step({(i, j): less("both_right", j, i) for i, j in steps if j <= 1600}),
            source="follows from M1",
            how="share of pairs and draws with both sides right, more moves - fewer",
            unit="share of pairs",
        ),
        directional(
            f"M2: at {most} moves nearly all pairs go right on both sides (above 95 %)",
            [x - 0.95 for x in of("both_right", most)],
            source="Table 3",
            how="share of pairs and draws - 0.95",
            unit="share of pairs",
        ),
        directional(
            "M2: for the same length DPO widens the margin more than the limit of many moves",
            less("gain", DPO, LIMIT),
            source="its direction is the margin's gradient",
            how="DPO - ComPO, change of the chosen minus the rejected log-probability for one unit of length",
            unit="nats",
        ),
        everywhere(
            "M3: more moves improve a pair more",
            by_step({(i, j): less("gain", j, i) for i, j in steps}),
            source="Table 4",
            how="improvement for one unit of length, more moves - fewer",
            unit="nats",
        ),
        directional(
            f"M3: and vary less ({least} to {most} moves)",
            less("spread", least, most),
            source="Table 4",
            how="deviation over draws of the same pair, fewer moves - more",
            unit="nats",
        ),
        everywhere(
            "M3: and vary less in proportion to the improvement",
            by_step({(i, j): minus(relative(i), relative(j)) for i, j in steps}),
            source="Table 4",
            how="deviation over draws / mean improvement, fewer moves - more",
        ),
    ]
    return result


@plots.styled
def plot(found: Sequence[Estimates], size: Size) -> Plot:
    """Cosine, displacement and improvement over the number of moves."""
    figure, axes = plots.panels(3, width=4.4, height=4.4)
    x = list(size.moves)

    def columns(what: str) -> list[list[float]]:
        return [[getattr(f.moved[m], what) for f in found] for m in x]

    plots.curve(axes[0], x, columns("cosine"), label="measured", colour=plots.BLUE)
    plots.curve(axes[0], x, columns("formula"), label="closed form", colour=plots.QUIET, marker="", line="--")
    axes[0].set_ylabel("cosine with the expected direction")
    axes[0].set_title("The vote is an estimate")
    plots.curve(axes[1], x, columns("chosen_falls"), label="chosen falls", colour=plots.BLUE)
    plots.curve(
        axes[1], x, columns("rejected_rises"), label="rejected rises", colour=plots.ORANGE, marker="s"
    )
    displaced = plots.centre([f.moved[DPO].chosen_falls for f in found])[0]
    axes[1].axhline(displaced, color=plots.VERMILION, linestyle="--", label="chosen falls, DPO")
    axes[1].set_ylabel(f"share of steps of length {STEP:g}")
    axes[1].set_ylim(-0.02, 1.02)
    axes[1].set_title("Displacement")
    plots.curve(axes[2], x, columns("gain"), label="mean", colour=plots.BLUE)
    plots.curve(axes[2], x, columns("spread"), label="deviation over draws", colour=plots.PURPLE, marker="^")
    axes[2].set_ylabel("margin gained for one unit of length (nats)")
    axes[2].set_title("Improvement")
    for ax in axes:
        ax.set_xscale("log")
        ax.set_xlabel("moves m")
        ax.legend()
    return Plot(
        "compo_estimator",
        f"Votes of m moves in the world of one softmax head; means of {len(found)} seeds with 95 % intervals, "
        f"{size.pairs} pairs and {size.draws} draws each",
        figure,
    )
