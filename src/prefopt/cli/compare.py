"""`prefopt compare`: several methods, betas and seeds on one data set."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

HELP = """Train several methods on the same comparisons; table and reward-against-KL frontier.

WHAT is a YAML file, or method names joined by commas; a method's own settings follow it after colons. Finished runs
in the output folder are kept, so a larger grid continues a smaller one.

\b
    prefopt compare dpo:ties=drop,dpo_rk,dpo_d --model world:text --data world:text --beta 0.1,0.3,1 --seeds 0,1,2
    prefopt compare examples/compare.yaml
"""


@click.command(help=HELP, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": True})
@click.argument("what")
@click.option("--beta", "betas", help="Strengths, joined by commas; each method's default if left out.")
@click.option("--seeds", help="Seeds, joined by commas.  [default: 0]")
@click.option("--output", default=None, help="Folder of the comparison.  [default: runs/compare]")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=None,
    help="Runs at a time.  [default: one a core, at most 4]",
)
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
def command(
    what: str,
    betas: str | None,
    seeds: str | None,
    output: str | None,
    workers: int | None,
    overrides: tuple[str, ...],
) -> None:
    """See HELP."""
    import os

    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from prefopt import sweeps
    from prefopt.config import ConfigError, parse_overrides, read_yaml
    from prefopt.files import writing

    try:
        given: dict[str, Any] = (
            read_yaml(Path(what)) if Path(what).suffix in (".yaml", ".yml") else {"methods": what.split(",")}
        )
        given |= parse_overrides(overrides)
        methods, own_betas, own_seeds = (
            given.pop("methods", None),
            given.pop("betas", []),
            given.pop("seeds", [0]),
        )
        if not methods:
            raise ConfigError(f"{what} lists no methods: add `methods: [dpo_rk, 'dpo:ties=drop']`")
        entries = [sweeps.parse_entry(str(method)) for method in methods]
        strengths = [float(b) for b in betas.split(",")] if betas else [float(b) for b in own_betas]
        numbers = [int(s) for s in seeds.split(",")] if seeds else [int(s) for s in own_seeds]
        folder = Path(output or given.pop("output_dir", "runs/compare"))
        given.pop("output_dir", None)
        with writing("the comparison", folder):
            folder.mkdir(parents=True, exist_ok=True)
        console = Console(stderr=True)
        total = len(entries) * max(1, len(strengths)) * len(numbers)
        with Progress(console=console) as progress:
            task = progress.add_task(f"{total} runs", total=total)
            results = sweeps.compare(
                entries, given, strengths, numbers, folder,
                workers or min(4, os.cpu_count() or 1),
                done=lambda result: progress.advance(task),
            )  # fmt: skip
        summaries = sweeps.summarize(results)
        path = sweeps.write_page(summaries, results, folder, shlex.join(["prefopt", *sys.argv[1:]]))
    except (ConfigError, ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error
    table = Table("method", "beta", "seeds", "reward", "KL", sweeps.accuracy_name(results))
    for s in summaries:
        table.add_row(
            s.label,
            "default" if s.beta is None else f"{s.beta:g}",
            str(s.seeds),
            *(sweeps.shown(s, name) for name in ("reward", "kl", "accuracy")),
        )
    Console().print(table)
    click.echo(path)
