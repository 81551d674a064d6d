"""`prefopt push RUN`: the model of a run on the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

import click

from prefopt.modalities.commands import errors_told


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--id", "repo_id", help="owner/name [default: the run's hub_model_id, or its folder's name]")
@click.option(
    "--private", is_flag=True, help="Into a private repository [default: public, or as the run says]"
)
def command(run: Path, repo_id: str | None, private: bool) -> None:
    """Upload the model of the finished run RUN, or of a model's or adapter's folder, to the Hugging Face Hub.

    Its files and the model card go up in one commit, and nothing else: no data, no samples, no checkpoints. Log in with
    `hf auth login`, or set HF_TOKEN.
    """
    from prefopt.hub import push

    with errors_told():
        done = push(run, repo_id, private)
        click.echo(f"{done.url}: {len(done.files)} files")
        for note in done.notes:
            click.echo(f"  note: {note}")
