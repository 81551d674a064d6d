"""A run on images without what means nothing there, and with the names that a reader of images knows."""

from __future__ import annotations

from dataclasses import replace

from prefopt.modalities.image.report.kinds import is_judge
from prefopt.report.denoising import OF_SEQUENCES, as_errors
from prefopt.report.load import Run
from prefopt.report.semi_online import without_echoes

SCORES = frozenset({"logps/chosen", "logps/rejected"})


def prepared(run: Run) -> Run:
    """The run as image reports read it."""
    metrics = run.metrics.without(OF_SEQUENCES)
    # of a step they are the density of its noise, of a judge its rewards again: nothing to look at
    metrics = metrics.without(SCORES) if run.online or is_judge(run) else as_errors(metrics)
    metrics = without_echoes(metrics)
    missing = run.missing
    if run.online:  # it has no pairs before it starts and holds none out
        pairs = tuple(f"record/{name}.json is not there" for name in ("margins", "first_pair"))
        missing = [sentence for sentence in missing if not sentence.startswith(pairs)]
    return replace(run, metrics=metrics, missing=missing)
