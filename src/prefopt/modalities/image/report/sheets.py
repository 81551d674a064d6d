"""Images of fixed prompts and seeds as a contact sheet: a row a prompt, a column a moment of training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from prefopt.report.format import finite
from prefopt.report.load import Run
from prefopt.report.pictures import Picture, embed

MOST_COLUMNS = 5
SIDE = 320  # pixels of an embedded image; shown at about 190, so that dense screens stay sharp
LONGEST_PROMPT = 2_000  # characters
BYTE_BUDGET = 6_000_000  # of all images of a sheet, as base64


@dataclass(frozen=True)
class Cell:
    """One image and its score."""

    picture: Picture
    score: float | None

    @property
    def weight(self) -> int:
        """Bytes of its pictures in the page."""
        return len(self.picture.uri)


C = TypeVar("C", bound=Cell)


@dataclass(frozen=True)
class Row(Generic[C]):
    """A prompt and its images, one for each column."""

    prompt: str
    seed: Any
    cells: list[C]

    @property
    def ends(self) -> tuple[float, float] | None:
        """Scores of the first and the last image."""
        if len(self.cells) < 2:
            return None
        first, last = self.cells[0].score, self.cells[-1].score
        return None if first is None or last is None else (first, last)

    @property
    def change(self) -> float | None:
        """Score of the last image minus that of the first."""
        return None if self.ends is None else self.ends[1] - self.ends[0]


@dataclass(frozen=True)
class Sheet(Generic[C]):
    """What is shown, and how much is not."""

    columns: list[str]
    rows: list[Row[C]]
    more_columns: int
    more_rows: int

    def written(self, score: float) -> str:
        """A score with as many decimals as every other one of the sheet."""
        most = max((abs(c.score) for row in self.rows for c in row.cells if c.score is not None), default=0.0)
        decimals = next((d for limit, d in ((1.0, 3), (100.0, 2), (1000.0, 1)) if most <= limit), 0)
        return f"{score:,.{decimals}f}".replace("-", "−")


def image_cell(run: Run, drawn: Mapping[str, Any]) -> Cell:
    """One image of the record."""
    return Cell(embed(run.folder, drawn.get("image"), SIDE), finite(drawn.get("score")))


def sample_sheet(run: Run) -> Sheet[Cell]:
    """The sheet of `record/samples.json`; without rows where nothing was drawn."""
    return sheet_of(run, image_cell, lambda _: Cell(Picture(problem="not drawn"), None))


def sheet_of(
    run: Run,
    cell: Callable[[Run, Mapping[str, Any]], C],
    empty: Callable[[Mapping[str, Any]], C],
) -> Sheet[C]:
    """The sheet of `record/samples.json`, of cells that a modality makes.

    Args:
        run: of the page.
        cell: of one drawn image, as the record has it.
        empty: of a moment at which a prompt was not drawn, by what the record has of its first image.
    """
    prompts = run.of("samples", "prompts")
    entries = [p for p in prompts if isinstance(p, Mapping)] if isinstance(prompts, list) else []
    by_step = [found for entry in entries if (found := _by_step(entry))]
    steps = sorted({step for found in by_step for step in found})
    shown = _spread(steps)
    labels = [_label(step, by_step) for step in shown]
    seeds = run.of("samples", "settings", "seeds")
    rows: list[Row[C]] = []
    used = 0
    for n, entry in enumerate(entries):
        found = _by_step(entry)
        if not found:
            continue
        first = found[min(found)]
        cells = [cell(run, found[step]) if step in found else empty(first) for step in shown]
        used += sum(one.weight for one in cells)
        if rows and used > BYTE_BUDGET:
            break
        seed = seeds[n] if isinstance(seeds, list) and n < len(seeds) else None
        rows.append(Row(str(entry.get("prompt", ""))[:LONGEST_PROMPT], seed, cells))
    return Sheet(labels, rows, len(steps) - len(shown), len(by_step) - len(rows))


def _by_step(entry: Mapping[str, Any]) -> dict[float, Mapping[str, Any]]:
    raw = entry.get("generations")
    found = [g for g in raw if isinstance(g, Mapping)] if isinstance(raw, list) else []
    return {finite(g.get("step")) or 0.0: g for g in found}


def _label(step: float, by_step: Sequence[Mapping[float, Mapping[str, Any]]]) -> str:
    named = (found[step].get("label") for found in by_step if step in found)
    return next((str(label) for label in named if label), f"step {step:.0f}")


def _spread(steps: Sequence[float]) -> list[float]:
    """The first and the last step, and others as even as can be between them."""
    if len(steps) <= MOST_COLUMNS:
        return list(steps)
    inner = [
        min(steps[1:-1], key=lambda s: abs(s - (steps[0] + (steps[-1] - steps[0]) * k / (MOST_COLUMNS - 1))))
        for k in range(1, MOST_COLUMNS - 1)
    ]
    return [steps[0], *dict.fromkeys(inner), steps[-1]]
