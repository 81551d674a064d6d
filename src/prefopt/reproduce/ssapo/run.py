"""`prefopt reproduce ssapo`: "Stackelberg Self-Annotation" in miniature.

Chu, Zhang, Jia, Jin (NeurIPS 2025, arXiv 2502.18099). Five experiments:

    S1      exact        the follower's closed form against a solver, and the theorems about it
    S2      certificate  training against the adversary lowers the loss that it reaches
    S3, S4  curve        few labels, flipped labels, radius, rounds: wins under the true reward
            world        the world behind them, and the rounds
    S5      exact        how fast the exact follower is
"""

from __future__ import annotations

from collections.abc import Iterator

from prefopt.reproduce.core import Asked, Part
from prefopt.reproduce.ssapo.certificate import STEPS, certificate
from prefopt.reproduce.ssapo.curve import learning_curve
from prefopt.reproduce.ssapo.exact import exactness, speed
from prefopt.reproduce.ssapo.world import FULL, QUICK

NOTES = (
    "Features are independent, so unlabelled prompts hold no news for a log-linear policy: wins that self-made labels "
    "add are sharpness, which the rows at the same drift take out. Other worlds may differ",
    "The learning rate of the rounds is that of the labelled pairs and not tuned: on other seeds wins only rose "
    "with it, as the policy grew sharper",
    "An effect of the radius of less than half a percentage point of wins counts against it",
    "Added after a first look (12 seeds): as many updates on the labelled pairs, and SSAPO at the same drift",
    "Labels and training share one fixed reference (the released code changes it every round), and SPA uses the "
    "same; the released solver is replaced by the exact one",
    "S5 measures processor time, which no two runs repeat",
)


def experiments(asked: Asked) -> Iterator[Part]:
    """S1 to S5; S1 and S2 use at most 20 seeds and S5 at most 5. All seeds are one tensor, in one process."""
    few, ticker = range(asked.at_most(20).seeds), asked.ticker
    yield exactness(few, ticker)
    yield certificate(few, ticker, steps=60 if asked.quick else STEPS)
    yield learning_curve(range(asked.seeds), QUICK if asked.quick else FULL, ticker)
    pairs = (300, 3000) if asked.quick else (300, 3000, 30_000, 100_000)
    yield speed(range(asked.at_most(5).seeds), pairs, ticker)
