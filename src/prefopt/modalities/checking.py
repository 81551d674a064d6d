"""What `prefopt check` asks of a modality, and what it is told: the face of a modality's module `check`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from prefopt.likelihoods.tokens import TruncationMode
    from prefopt.objectives import Objective
    from prefopt.sources.collecting import Comparisons
    from prefopt.sources.report import DataReport, Dropped

SIDES: Mapping[str, str] = {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}


def nothing(console: Console) -> None:
    """Prints nothing."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the user wants to know.

    Attributes:
        source: the data as it was named.
        model: folder or hub id, to look at the rows as this model will; None: without one.
        max_length: most tokens of a side.
        truncation_mode: what is kept of longer ones.
        planned: examples a batch, to say how batches would be laid out; None: no word on that.
        thorough: read every sample to its end.
        objective: whose further samples and columns are read, too; None: pairs and singles alone.
    """

    source: str
    model: str | None = None
    max_length: int = 1024
    truncation_mode: TruncationMode = "keep_start"
    planned: int | None = None
    thorough: bool = True
    objective: Objective | None = None


@dataclass(frozen=True, kw_only=True)
class Examined:
    """What was found in the rows.

    Attributes:
        comparisons: as read.
        report: of the data, with the model's view where one was asked for.
        dropped: rows that cannot be used.
        form: what the samples are: text, conversations, images.
        sides: names of the report's lengths as a reader calls them, those that are shown.
        tables: prints what only this modality tells, above the lengths.
        details: prints the first example and the like, at the end.
    """

    comparisons: Comparisons
    report: DataReport
    dropped: list[Dropped]
    form: str
    sides: Mapping[str, str]
    tables: Callable[[Console], None] = nothing
    details: Callable[[Console], None] = nothing
