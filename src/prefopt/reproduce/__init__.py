"""Papers in miniature: a folder each, found by being there.

A folder's `__init__.py` says as `PAPER` which paper it is. Its `run.py` says which file is which experiment, and holds
`experiments(asked)`, which yields what they find, and `NOTES`, what a reader must know before trusting a verdict.
Importing this is cheap (no torch).
"""

from __future__ import annotations

import importlib
import pkgutil
import time
from functools import cache
from typing import Any

from prefopt.reproduce.core import Asked, Paper, Reproduction, Ticker, silent

__all__ = ["Paper", "Reproduction", "all_papers", "reproduce"]


@cache
def all_papers() -> dict[str, Paper]:
    """Every paper by the name of its folder, in alphabetical order."""
    found = {
        module.name: importlib.import_module(f"{__name__}.{module.name}").PAPER
        for module in pkgutil.iter_modules(__path__)
        if module.ispkg
    }
    return dict(sorted(found.items()))


def reproduce(
    name: str, *, seeds: int | None = None, quick: bool = False, workers: int = 1, ticker: Ticker = silent
) -> Reproduction:
    """All experiments of a paper.

    Args:
        name: of its folder.
        seeds: of the largest experiment, the others may take fewer; None for the paper's own number.
        quick: small sizes that only show that everything runs; verdicts mean nothing then.
        workers: processes, where an experiment can be split.
        ticker: starts progress bars.

    Raises:
        ValueError: there is none.
    """
    papers = all_papers()
    if name not in papers:
        raise ValueError(f"no paper is called {name!r}; there are: {', '.join(papers)}")
    paper = papers[name]
    run: Any = importlib.import_module(f"{__name__}.{name}.run")
    result = Reproduction(name, paper.title, paper.paper)
    start = time.monotonic()
    for part in run.experiments(Asked(paper.seeds if seeds is None else seeds, quick, workers, ticker)):
        result.add(part)
    result.seconds = time.monotonic() - start - result.uncounted
    result.notes += run.NOTES
    return result
