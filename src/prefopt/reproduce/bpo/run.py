"""`prefopt reproduce bpo`: "Preference Optimization by Estimating the Ratio of the Data Distribution" in miniature.

Kim, Bae, Na, Moon (NeurIPS 2025, arXiv 2505.19601). Six experiments:

    E1      optimum    every Bregman loss ends at DPO's optimum, f-PO and f-DPO do not (tabular, exact)
    E2, E3  gradients  gradient scale of SBA and BA; what Adam, SGD and a norm clip make of it
    E4      sweeps     sweep of lambda under label noise
    E5      sweeps     "more wins and more entropy than DPO", in the log-linear world
            lm         the same with a small language model
    E6      sweeps     what the clip of R does
"""

from __future__ import annotations

import time

from prefopt.reproduce import lm
from prefopt.reproduce.bpo.gradients import gradient_scale, optimiser_caveat
from prefopt.reproduce.bpo.lm import language_model
from prefopt.reproduce.bpo.optimum import exact_optimality
from prefopt.reproduce.bpo.sweeps import sweep_lambda
from prefopt.reproduce.core import Reproduction, Ticker, silent


def reproduce(
    *, seeds: int = 20, quick: bool = False, workers: int = 1, ticker: Ticker = silent
) -> Reproduction:
    """All experiments.

    Args:
        seeds: seeds of the exact and the log-linear experiments; the language model uses at most 3.
        quick: small sizes that only show that everything runs; verdicts mean nothing then.
        workers: processes for the language model's runs.
        ticker: starts progress bars.

    Returns:
        Claims, tables and plots.
    """
    start = time.monotonic()
    result = Reproduction(
        "bpo", "Preference Optimization by Estimating the Ratio of the Data Distribution", "2505.19601"
    )
    pairs = 256 if quick else 2000
    result.add(exact_optimality(range(seeds), ticker))
    result.add(gradient_scale(range(seeds), pairs))
    result.add(optimiser_caveat(range(seeds), pairs))
    result.add(sweep_lambda(range(seeds), pairs, ticker))
    result.add(language_model(min(seeds, 3), lm.QUICK if quick else lm.FULL, workers, ticker))
    result.notes += [
        "E4-E6 measure exact expectations in a log-linear world; E5's language model has half a million weights and at "
        "most 3 seeds, so its intervals are wide",
        "E4-E6 warm the learning rate up over a fifth of the steps: torch's RMSProp corrects no bias, so its first "
        "steps are ten times the learning rate; the row without warm-up shows what that does",
    ]
    result.seconds = time.monotonic() - start
    return result
