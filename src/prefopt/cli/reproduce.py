"""`prefopt reproduce`: a paper's claims in miniature, each with a measured value, an interval and a verdict."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from prefopt.reproduce import all_papers, reproduce
from prefopt.reproduce.core import published

if TYPE_CHECKING:
    from rich.console import Console

    from prefopt.reproduce.core import Reproduction, Tick, Ticker

PAPERS = all_papers()
WHICH = ", ".join(f"{name} ({published(paper.paper)})" for name, paper in PAPERS.items())
HELP = f"""Test a paper's claims in miniature, over several seeds.

Every claim ends as "holds", "does not hold here" or "inconclusive", by one rule: where the 95 % interval over seeds
lies. NAME is one of {WHICH}.
"""


@click.command("reproduce", help=HELP)
@click.argument("name", type=click.Choice(list(PAPERS)))
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    help="Seeds of the fast experiments. "
    f"[default: {', '.join(f'{paper.seeds} {name}' for name, paper in PAPERS.items())}]",
)
@click.option(
    "--quick", is_flag=True, help="Seconds instead of minutes: shows that it runs, verdicts mean nothing."
)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for figures, JSON and page. [default: reproductions/NAME]",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Processes, for what can be split: seeds, language models.",
)
def command(name: str, seeds: int | None, quick: bool, output: Path | None, workers: int) -> None:
    """Run the experiments, show and write what they found."""
    from rich.console import Console

    from prefopt.reproduce.core import one_thread
    from prefopt.reproduce.writing import write

    console = Console()
    one_thread()  # the last digits, and so a close verdict, would otherwise depend on the number of cores
    with bars() as ticker:
        result = reproduce(name, seeds=seeds, quick=quick, workers=workers, ticker=ticker)
    show(result, console)
    if quick:
        console.print("[yellow]--quick sizes: these verdicts mean nothing.[/]")
    try:
        files = write(result, output or Path("reproductions") / name)
    except OSError as error:
        raise click.ClickException(str(error)) from error
    console.print("Written:", *(f"  {path}" for path in files), sep="\n", highlight=False, soft_wrap=True)


@contextmanager
def bars() -> Iterator[Ticker]:
    """A `Ticker` that draws one bar an experiment on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:

        def ticker(description: str, total: int) -> Tick:
            task = progress.add_task(description, total=total)
            return lambda: progress.advance(task)

        yield ticker


def show(result: Reproduction, console: Console) -> None:
    """The claims as a table: what, measured with interval, verdict."""
    from rich.table import Table

    from prefopt.reproduce.core import FAILS, HOLDS
    from prefopt.reproduce.page import measured

    table = Table(title=f"{result.title} ({result.published})", title_justify="left")
    table.add_column("claim")
    table.add_column("measured [95 % interval]")
    table.add_column("verdict", no_wrap=True)
    colours = {HOLDS: "green", FAILS: "red"}
    for claim in result.claims:
        colour = colours.get(claim.verdict, "yellow")
        table.add_row(claim.statement, measured(claim), f"[{colour}]{claim.verdict}[/]")
    console.print(table)
    for note in result.notes:
        console.print(f"Note: {note}")
    console.print(f"{result.seconds:.0f} s")
