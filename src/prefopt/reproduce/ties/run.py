"""`prefopt reproduce ties`: "On Extending Direct Preference Optimization to Accommodate Ties" in miniature.

Chen, Yang, Lin, Mei, Lyu, Byrne (NeurIPS 2025, arXiv 2409.17431). Four experiments, a file each:

    T1  frontier      exact utility against exact KL in a log-linear world, four methods, five beta
    T2  ideal         the ideal policies of both tie models against their closed forms
    T3  preservation  how many questions that the reference gets right does the policy still get right?
    T4  lm            frontier, margins and three-way accuracy with a small language model
"""

from __future__ import annotations

from collections.abc import Iterator

from prefopt.reproduce import lm
from prefopt.reproduce.core import Asked, Part
from prefopt.reproduce.ties.frontier import frontier_in_log_linear_world
from prefopt.reproduce.ties.ideal import ideal_policies
from prefopt.reproduce.ties.lm import language_model
from prefopt.reproduce.ties.preservation import preservation

NOTES = (
    "T1 and T3 measure exact expectations in a log-linear world; T4 samples a language model of half a million "
    "weights, with at most 3 seeds, so its intervals are wide",
    "Every method passes over its data equally often: DPO (CP) sees each clear pair as often as the others and "
    "takes half as many steps in T4 (T1 and T3 take full-batch steps, equally many)",
)


def experiments(asked: Asked) -> Iterator[Part]:
    """T1 to T4; the language model uses at most 3 seeds."""
    seeds, steps = range(asked.seeds), 20 if asked.quick else 400
    yield frontier_in_log_linear_world(seeds, steps, asked.ticker)
    yield ideal_policies(seeds)
    yield preservation(seeds, steps, asked.ticker)
    yield language_model(asked.at_most(3), lm.QUICK if asked.quick else lm.FULL)
