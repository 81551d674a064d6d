"""M4 of `prefopt reproduce compo`: which share of the vote's entries should be kept?

Two worlds: dense, where responses are so long that about every token occurs, so that every row of the head has a
gradient; and sparse, where two tokens have all the probability, and their rows (3 % of the entries) all of the gradient.
Two steps: as published (the entries kept are not scaled up, so that keeping fewer also shortens the step) and scaled to
one length, which tells the choice of entries from the length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from prefopt.oracles.direction import Selection
from prefopt.oracles.perturbations import Perturbations
from prefopt.reproduce import plots
from prefopt.reproduce.compo.world import RADIUS, STEP, Size, changes, make_world, unit
from prefopt.reproduce.core import Claim, Part, Plot, Table, directional, everywhere

SHARES = (1.0, 0.63, 0.06, 0.01, 0.0015)
BAND = (0.06, 0.01)
"""The paper's best shares (Table 6)."""
WORLDS: dict[str, int | None] = {"dense": None, "sparse": 2}
"""Name -> number of tokens with any probability."""

VOCABULARY = WIDTH = TOKENS = 64
NOISE = 1.0
"""Added to the rejected hidden states: of responses of 64 tokens that differ in one, too few moves help otherwise."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Means over a seed's pairs for one share of entries, by steps of at most `STEP`.

    Attributes:
        norm: length of the step as published.
        cosine: of the kept entries with the expected direction.
        published: change of the chosen minus the rejected log-probability by that step, nats.
        scaled: by a step along the same entries of length `STEP`.
    """

    norm: float
    cosine: float
    published: float
    scaled: float


def keep_fractions(seed: int, size: Size) -> dict[str, dict[float, Kept]]:
    """World -> share -> what a step does."""
    found: dict[str, dict[float, Kept]] = {}
    for name, alive in WORLDS.items():
        world = make_world(seed, size.keep_pairs, VOCABULARY, WIDTH, alive=alive, tokens=TOKENS, noise=NOISE)
        sums = {share: [0.0] * 4 for share in SHARES}
        for pair in range(size.keep_pairs):
            probe = world.probe(pair)
            climb = unit(-probe.expected()[1])
            moves = Perturbations(seed, pair)
            y_M, total = probe.survey(moves, range(size.keep_moves), RADIUS)
            g = unit(-probe.direction(total, moves, y_M))
            for share, of_share in sums.items():
                kept, _ = Selection(keep_fraction=share)(g)
                norm = float(torch.linalg.vector_norm(kept))
                w, r = changes(probe, kept)
                scaled_w, scaled_r = changes(probe, kept / norm)
                cosine = float((kept * climb).sum()) / norm
                for place, x in enumerate((STEP * norm, cosine, w - r, scaled_w - scaled_r)):
                    of_share[place] += x / size.keep_pairs
        found[name] = {share: Kept(*of_share) for share, of_share in sums.items()}
    return found


def experiment(found: Sequence[dict[str, dict[float, Kept]]], size: Size) -> Part:
    """M4 from what the seeds found."""

    def mean(world: str, share: float, what: str) -> float:
        return sum(getattr(f[world][share], what) for f in found) / len(found)

    keys = ("norm", "cosine", "published", "scaled")
    tables = [
        Table(
            f"M4: {world} world, {size.keep_moves} moves",
            [
                "entries kept",
                "length of the step",
                "cosine",
                "margin gained as published (nats)",
                "at equal length (nats)",
            ],
            [[f"{100 * share:g} %", *(mean(world, share, key) for key in keys)] for share in SHARES],
        )
        for world in WORLDS
    ]
    settings = {
        "seeds": len(found),
        "vocabulary": VOCABULARY,
        "hidden_width": WIDTH,
        "tokens": TOKENS,
        "rejected_hidden_noise": NOISE,
        "tokens_alive": WORLDS,
        "pairs_a_seed": size.keep_pairs,
        "moves": size.keep_moves,
        "radius": RADIUS,
        "step": STEP,
        "keep_fractions": list(SHARES),
    }
    return Part(claims=claims(found), tables=tables, plots=[plot(found)], settings={"M4": settings})


def claims(found: Sequence[dict[str, dict[float, Kept]]]) -> list[Claim]:
    """The paper's best band against all entries and against too few, in both worlds, by both steps."""
    source = "Table 6"

    def less(world: str, what: str, first: float, then: float) -> list[float]:
        return [getattr(f[world][first], what) - getattr(f[world][then], what) for f in found]

    def band(world: str, what: str, other: float) -> dict[str, list[float]]:
        return {f"{100 * share:g} % kept": less(world, what, share, other) for share in BAND}

    result = []
    for what, step in (("published", "as published"), ("scaled", "at equal length")):
        for other, words in ((SHARES[0], "all"), (SHARES[-1], "0.15 %")):
            result.append(
                everywhere(
                    f"M4: sparse gradient: keeping 1 to 6 % of the entries beats keeping {words} ({step})",
                    band("sparse", what, other),
                    source=source,
                    how="margin gained by a step, 1 and 6 % - the other",
                    unit="nats",
                )
            )
        result.append(
            everywhere(
                f"M4: dense gradient: keeping all beats keeping 1 to 6 % ({step})",
                {name: [-x for x in values] for name, values in band("dense", what, SHARES[0]).items()},
                source="follows from M1",
                how="margin gained by a step, all - 1 and 6 %",
                unit="nats",
            )
        )
    result.append(
        directional(
            "M4: keeping 1 % shortens the published step to less than half",
            [f[world][1.0].norm / 2 - f[world][0.01].norm for f in found for world in WORLDS],
            source="Sec. 3.2: entries are dropped, nothing is scaled up",
            how="half of the step with all entries - the step with 1 %, both worlds",
            unit="length",
        )
    )
    return result


@plots.styled
def plot(found: Sequence[dict[str, dict[float, Kept]]]) -> Plot:
    """Gain over the share that is kept; the length of the published step beside it."""
    figure, axes = plots.panels(3, width=4.4, height=4.4)
    x = [100 * share for share in SHARES]
    marks = {"dense": (plots.BLUE, "o"), "sparse": (plots.VERMILION, "s")}
    titles = {
        "published": ("margin gained as published (nats)", "As published"),
        "scaled": ("margin gained at equal length (nats)", "At equal length"),
        "norm": ("length of the published step", "How long the step is"),
    }
    for ax, (what, (label, title)) in zip(axes, titles.items(), strict=True):
        for world, (colour, marker) in marks.items():
            columns = [[getattr(f[world][share], what) for f in found] for share in SHARES]
            plots.curve(ax, x, columns, label=f"{world} gradient", colour=colour, marker=marker)
        ax.set_xscale("log")
        ax.set_ylim(bottom=0)
        ax.set_xlabel("entries kept (%)")
        ax.set_ylabel(label)
        ax.set_title(title)
        ax.legend()
    return Plot(
        "compo_keep",
        f"Share of the vote's entries that a step uses; means of {len(found)} seeds with 95 % intervals",
        figure,
    )
