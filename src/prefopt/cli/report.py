"""`prefopt report RUN`: write the page and the model card of a run again."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
def command(run: Path) -> None:
    """Write report.html and README.md of the run folder RUN again, finished or not."""
    from prefopt.report import write_model_card, write_report

    try:
        click.echo(write_report(run))
        click.echo(write_model_card(run))
    except OSError as error:
        raise click.ClickException(str(error)) from error
