"""`prefopt merge RUN`: the adapter of a run merged into its base model."""

from __future__ import annotations

from pathlib import Path

import click

from prefopt.modalities.commands import errors_told


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), help="Folder to write [default: RUN/merged]")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Of the weights as stored [default: the base model's]",
)
def command(run: Path, output: Path | None, dtype: str | None) -> None:
    """Merge the adapter of the run folder RUN, or of an adapter's folder, into its base model.

    The result is one whole model, which transformers or diffusers load without peft. Numbers of the model before and after
    are compared, and what would be another model is refused.
    """
    from prefopt.modalities.merging import merge

    with errors_told():
        found = merge(run, output, dtype)
        click.echo(f"{found.folder}: {found.base} and its adapter, in {found.dtype}")
        click.echo(f"  {found.compared} differ by at most {found.difference:.2g} in float32")
        if found.dtype != "float32":
            click.echo(f"  and by at most {found.stored:.2g} as stored in {found.dtype}")
        for note in found.notes:
            click.echo(f"  note: {note}")
