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

from collections.abc import Iterator

from prefopt.reproduce import lm
from prefopt.reproduce.bpo.gradients import gradient_scale, optimiser_caveat
from prefopt.reproduce.bpo.lm import language_model
from prefopt.reproduce.bpo.optimum import exact_optimality
from prefopt.reproduce.bpo.sweeps import sweep_lambda
from prefopt.reproduce.core import Asked, Part

NOTES = (
    "E4-E6 measure exact expectations in a log-linear world; E5's language model has half a million weights and at "
    "most 3 seeds, so its intervals are wide",
    "E4-E6 warm the learning rate up over a fifth of the steps: torch's RMSProp corrects no bias, so its first "
    "steps are ten times the learning rate; the row without warm-up shows what that does",
)


def experiments(asked: Asked) -> Iterator[Part]:
    """E1 to E6; the language model uses at most 3 seeds."""
    seeds, pairs = range(asked.seeds), 256 if asked.quick else 2000
    yield exact_optimality(seeds, asked.ticker)
    yield gradient_scale(seeds, pairs)
    yield optimiser_caveat(seeds, pairs)
    yield sweep_lambda(seeds, pairs, asked.ticker)
    yield language_model(asked.at_most(3), lm.QUICK if asked.quick else lm.FULL)
