"""What a person opens after a run: one self-contained HTML page, and the model card.

    >>> from prefopt.report import write_report, write_model_card
    >>> write_report("runs/ties")  # doctest: +SKIP
    PosixPath('runs/ties/report.html')

Both read only files in the run folder (`load.py` lists them), so they also work on a run that is still going, was
stopped or failed. `page.page` and `charts` serve any other page of the project.
"""

from __future__ import annotations

from pathlib import Path

from prefopt.report.model_card import write_model_card
from prefopt.report.run import write_report

__all__ = ["write_model_card", "write_pages", "write_report"]


def write_pages(folder: Path) -> None:
    """Report and model card of a run."""
    write_report(folder)
    write_model_card(folder)
