"""Metrics of models that denoise, by the names that a reader of them knows."""

from __future__ import annotations

from prefopt.report.load import Metrics

OF_SEQUENCES = frozenset({"num_tokens", "length_gap"})
"""Metrics that mean nothing where a sample is a single thing of length 1."""


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
