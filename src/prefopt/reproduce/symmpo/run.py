"""`prefopt reproduce symmpo`: "Theory-Consistent Symmetric Multimodal Preference Optimization" in miniature.

Liu, Song, Li, Wei, Zheng, Yin, Nie (NeurIPS 2025, arXiv 2506.11712):

    A  partition  a world of a few images and answers, exact: whose minimum is the ideal policy?
"""

from __future__ import annotations

from collections.abc import Iterator

from prefopt.reproduce.core import Asked, Part
from prefopt.reproduce.symmpo.partition import STEPS, partition_functions

NOTES = (
    "A fits a table of probabilities to exact preferences, so it speaks of where a loss has its minimum, and not of what "
    "a model learns from finite data on the way there",
)


def experiments(asked: Asked) -> Iterator[Part]:
    """A."""
    yield partition_functions(range(asked.seeds), 20 if asked.quick else STEPS, asked.ticker)
