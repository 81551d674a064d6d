"""`prefopt reproduce compo`: "ComPO: Preference Alignment via Comparison Oracles" in miniature.

Chen, Chen, Yin, Lin (NeurIPS 2025, arXiv 2505.05465). One softmax head with constructed pairs, and the text world:

    M1-M3  estimator  is the vote of the moves what theory says, whom does a step displace, what do more moves buy?
    M4     keep       which share of the vote's entries to keep, with dense and with sparse gradients
    M5     memory     what an iteration allocates
    LM     lm         DPO on all pairs, on clear pairs, and ComPO after that, with a small language model

    world: the head, and pairs that are nearly the same response
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from prefopt.reproduce.compo import estimator, keep, lm, memory
from prefopt.reproduce.compo.estimator import Estimates, estimates
from prefopt.reproduce.compo.keep import Kept, keep_fractions
from prefopt.reproduce.compo.world import FULL, QUICK, Size
from prefopt.reproduce.core import Asked, Part

NOTES = (
    "The pairs of M1 to M3 are built so that DPO's direction displaces: its share says nothing about real data, "
    "and the table by scale shows where it begins",
    "The cosine with the expected direction depends on the number of entries: it is 0.57 here at 6400 moves and "
    "800 entries, and about 0.002 at the paper's sizes",
    "Changed after a look at other seeds: M4's worlds (with 6 tokens a response both gradients were sparse), the "
    "smaller step size of the language model's limit, which at 1 ruined the samples, and the arm with all entries",
)


class Found(NamedTuple):
    """What one seed says of M1 to M4."""

    estimates: Estimates
    kept: dict[str, dict[float, Kept]]


def one_seed(seed: int, size: Size) -> Found:
    """Worlds of its own, and M1 to M4 in them."""
    return Found(estimates(seed, size), keep_fractions(seed, size))


def experiments(asked: Asked) -> Iterator[Part]:
    """M1 to M5, and the language model; worlds of the head, and models, each have data of their own."""
    size = QUICK if asked.quick else FULL
    jobs = [(seed, size) for seed in range(asked.seeds)]
    found: list[Found] = asked.in_processes("compo M1-M4: one head", one_seed, jobs)
    yield estimator.experiment([f.estimates for f in found], size)
    yield keep.experiment([f.kept for f in found], size)
    tick = asked.ticker("compo M5: memory", 1)
    yield memory.experiment(size)
    tick()
    yield lm.experiment(asked, lm.QUICK if asked.quick else lm.FULL)
