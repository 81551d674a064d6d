"""A run on images without what means nothing there, and with the names that a reader of images knows."""

from __future__ import annotations

from dataclasses import replace

from prefopt.modalities.image.report.kinds import is_judge
from prefopt.report.load import Metrics, Run
from prefopt.report.semi_online import without_echoes

OF_SEQUENCES = frozenset({"num_tokens", "length_gap"})
"""Metrics that mean nothing for images: one is a single thing of length 1."""
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


def as_errors(metrics: Metrics) -> Metrics:
    """The same with minus `logps/SIDE` as `errors/SIDE`: a denoising log-likelihood is minus a squared error."""
    renamed = {
        split: {
            name.replace("logps/", "errors/"): {s: -v for s, v in values.items()}
            if name.startswith("logps/")
            else values
            for name, values in series.items()
        }
        for split, series in metrics.values.items()
    }
    return Metrics(renamed)
