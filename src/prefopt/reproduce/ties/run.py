"""`prefopt reproduce ties`: "On Extending Direct Preference Optimization to Accommodate Ties" in miniature.

Chen, Yang, Lin, Mei, Lyu, Byrne (NeurIPS 2025, arXiv 2409.17431). Four experiments, a file each:

    T1  frontier      exact utility against exact KL in a log-linear world, four methods, five beta
    T2  ideal         the ideal policies of both tie models against their closed forms
    T3  preservation  how many questions that the reference gets right does the policy still get right?
    T4  lm            frontier, margins and three-way accuracy with a small language model
"""

from __future__ import annotations

import time

from prefopt.reproduce import lm
from prefopt.reproduce.core import Reproduction, Ticker, silent
from prefopt.reproduce.ties.frontier import frontier_in_log_linear_world
from prefopt.reproduce.ties.ideal import ideal_policies
from prefopt.reproduce.ties.lm import language_model
from prefopt.reproduce.ties.preservation import preservation


def reproduce(
    *, seeds: int = 10, quick: bool = False, workers: int = 1, ticker: Ticker = silent
) -> Reproduction:
    """All experiments.

    Args:
        seeds: seeds of T1, T2 and T3; T4 uses at most 3.
        quick: small sizes that only show that everything runs; verdicts mean nothing then.
        workers: processes for T4.
        ticker: starts progress bars.

    Returns:
        Claims, tables and plots.
    """
    start = time.monotonic()
    result = Reproduction(
        "ties", "On Extending Direct Preference Optimization to Accommodate Ties", "2409.17431"
    )
    steps = 20 if quick else 400
    result.add(frontier_in_log_linear_world(range(seeds), steps, ticker))
    result.add(ideal_policies(range(seeds)))
    result.add(preservation(range(seeds), steps, ticker))
    result.add(language_model(min(seeds, 3), lm.QUICK if quick else lm.FULL, workers, ticker))
    result.notes += [
        "T1 and T3 measure exact expectations in a log-linear world; T4 samples a language model of half a million "
        "weights, with at most 3 seeds, so its intervals are wide",
        "Every method passes over its data equally often: DPO (CP) sees each clear pair as often as the others and "
        "takes half as many steps in T4 (T1 and T3 take full-batch steps, equally many)",
    ]
    result.seconds = time.monotonic() - start
    return result
