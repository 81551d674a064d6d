"""`prefopt migrate`: a configuration of TRL, LLaMA-Factory or Axolotl as prefopt's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console

    from prefopt.migration import Migration

HELP = """Write another tool's configuration as prefopt's.

FILE is a YAML file of TRL, LLaMA-Factory or Axolotl, or their arguments dumped as JSON. Whose it is, is told by its keys. What
comes out trains as it would have there: where the defaults differ, the other tool's are written out. A table says what became of
each key. Keys of prefopt can be given as key=value, and win: model and data, where the file names none.

\b
    prefopt migrate dpo.yaml
    prefopt migrate llama3_lora_dpo.yaml --output dpo.yaml data=pairs.json
    prefopt migrate args.json --from trl --trainer kto model=DIR data=rows.jsonl
"""
SHOWN = 20
"""Keys that are named where there may be a hundred."""
STYLES = {
    "carried over": "green", "renamed": "green", "value changed": "cyan", "default made explicit": "blue", "left out": "dim",
    "to check": "bold yellow",
}  # fmt: skip


@click.command("migrate", help=HELP, context_settings={"ignore_unknown_options": True})
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
@click.option("--output", type=click.Path(path_type=Path), help="File to write; default: FILE.prefopt.yaml.")
@click.option("--from", "tool", type=click.Choice(["trl", "llamafactory", "axolotl"]), help="Whose FILE is.")
@click.option(
    "--trainer",
    type=click.Choice(["dpo", "kto", "cpo", "orpo", "tpo"]),
    help="Which of TRL's trainers FILE is for.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
def command(
    file: Path,
    overrides: tuple[str, ...],
    output: Path | None,
    tool: str | None,
    trainer: str | None,
    overwrite: bool,
) -> None:
    """See HELP."""
    import yaml
    from rich.console import Console

    from prefopt.config import ConfigError, parse_overrides, resolve
    from prefopt.files import writing
    from prefopt.migration import migrate, read, written
    from prefopt.training.run import build_objective

    target = output or file.with_suffix(".prefopt.yaml")
    try:
        given = parse_overrides(overrides)
        found = migrate(read(file), tool, trainer, given, file.parent)
        if target.exists() and not overwrite:
            raise ConfigError(f"{target} exists: give another --output, or --overwrite")
        text = written(found.config, found.lines, found.tool, file.name, tuple(given))
        # what is written is what `prefopt train` will read
        build_objective(*resolve(yaml.safe_load(text)))
        with writing("the configuration", target):
            target.write_text(text, encoding="utf-8")
    except ConfigError as error:
        raise click.ClickException(str(error)) from error
    except yaml.YAMLError as error:
        raise click.ClickException(
            f"what came of {file} cannot be written as YAML, so nothing was written: {error}"
        ) from error
    console = Console(highlight=False)
    table(console, found)
    console.print(f"wrote {target}: prefopt train {target}", markup=False, soft_wrap=True)


def table(console: Console, found: Migration) -> None:
    """What became of each key: a table for each fate, of those columns that it fills."""
    from rich.table import Table

    from prefopt.migration import FATES, said

    console.print(f"a configuration of {found.tool}", style="bold")
    for fate in FATES:
        rows = [
            (
                f"{line.origin}: {line.given}" if line.origin else "",
                f"{line.key}: {said(line.key, line.value)}" if line.key else "",
                line.why,
            )
            for line in found.of(fate)
        ]
        if not rows:
            continue
        console.print(fate, style=STYLES[fate])
        shown = Table(box=None, show_header=False, padding=(0, 0, 0, 2))
        filled = [n for n in range(3) if any(row[n] for row in rows)]
        if fate == "carried over":
            filled.remove(0)  # the same twice
        for n in filled:
            shown.add_column(overflow="fold", ratio=(2, 2, 3)[n])
        for row in rows:
            shown.add_row(*(plain(row[n]) for n in filled))
        console.print(shown)
    if found.same:
        console.print(
            f"{len(found.same)} keys say what prefopt does by itself, or nothing: {', '.join(found.same[:SHOWN])}"
            f"{', ...' if len(found.same) > SHOWN else ''}",
            markup=False, soft_wrap=True,
        )  # fmt: skip


def plain(text: str) -> str:
    """Without rich's markup."""
    from rich.markup import escape

    return escape(text)
