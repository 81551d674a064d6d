"""`prefopt build`: make comparisons of scored, judged, verified or ranked candidates, or of what a model draws."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from prefopt.sources.candidates import Mined


class Builders(click.Group):
    """The rules below, and the builders that modalities bring in their module `build`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Rules first."""
        return [*super().list_commands(ctx), *_of_modalities()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A rule or a builder."""
        return super().get_command(ctx, cmd_name) or _of_modalities().get(cmd_name)


@functools.cache
def _of_modalities() -> dict[str, click.Command]:
    from prefopt.modalities import all_modalities

    parts = (kind.part_or_none("build") for kind in all_modalities().values())
    return {str(made.name): made for part in parts if part is not None for made in part.COMMANDS}


@click.group("build", cls=Builders)
def command() -> None:
    """Make pairs, ties included, of candidates: one rule each; or of what a model draws.

    CANDIDATES holds rows {"prompt": ..., "candidates": [{"text": ..., "score": ...}, ...]} in a .jsonl, .json or
    .parquet file.
    """


def _rule(name: str) -> Callable[[Callable[..., Mined]], click.Command]:
    """Make a subcommand of a function from rows to `Mined`: it reads, refuses to overwrite, writes, and counts."""

    def decorate(function: Callable[..., Mined]) -> click.Command:
        @command.command(name)
        @click.argument("candidates")
        @click.option(
            "--output",
            "-o",
            required=True,
            type=click.Path(path_type=Path, dir_okay=False),
            help="JSON lines to write.",
        )
        @click.option("--force", is_flag=True, help="Overwrite the output.")
        @functools.wraps(function)
        def run(candidates: str, output: Path, force: bool, **options: Any) -> None:
            from prefopt.sources.files import load_rows

            if output.exists() and not force:
                raise click.ClickException(
                    f"{output} is there already; give --force to overwrite it, or another name"
                )
            if output.suffix != ".jsonl":
                raise click.ClickException(
                    f"{output}: pairs are written as JSON lines; let the name end in .jsonl"
                )
            try:
                mined = function(list(load_rows(candidates).rows), **options)
                if not mined.rows:
                    raise ValueError(f"{candidates}: no pair could be made ({_counts(mined)})")
                _write(mined, output, force)
            except (ValueError, OSError, TypeError) as error:
                raise click.ClickException(str(error)) from error
            click.echo(f"{output}: {_counts(mined)}")

        return run

    return decorate


def _counts(mined: Mined) -> str:
    dropped = "".join(f"; {n} {reason}" for reason, n in mined.dropped.items())
    return f"{mined.wins} wins and {mined.ties} ties from {mined.prompts} rows{dropped}"


def _write(mined: Mined, output: Path, force: bool) -> None:
    """All or nothing: a file that is half written never bears the final name."""
    import json

    from prefopt.files import AGAIN, write_whole, writing

    with writing(output.name, output.parent):
        output.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in mined.rows)
    advice = AGAIN if force else f"give another name, or --force to overwrite it; or {AGAIN}"
    write_whole(output, lines, advice=advice, new=not force)


_pairs = click.option(
    "--pairs",
    type=click.Choice(["all", "adjacent", "best_vs_rest"]),
    default="all",
    show_default=True,
    help="Which pairs of the candidates, sorted from best to worst.",
)


@_rule("extremes-and-closest")
@click.option(
    "--pairs-per-prompt",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Wins, and ties, to take.",
)
def extremes_and_closest(rows: list[Any], pairs_per_prompt: int) -> Mined:
    """Best against worst score wins; the two nearest scores tie. Needs `score` or `scores`."""
    from prefopt.sources import mining

    return mining.extremes_and_closest(rows, pairs_per_prompt)


@_rule("smallest-margin")
@click.option("--margin", default="margin", show_default=True, help="Column of the implicit margins.")
@click.option("--include-single", is_flag=True, help="Also where a prompt has one pair only.")
def smallest_margin(rows: list[Any], margin: str, include_single: bool) -> Mined:
    """Of each prompt's pairs, the one with the smallest implicit margin ties.

    Needs preference rows with that margin, computed with a policy that was trained on them with DPO.
    """
    from prefopt.sources import mining

    return mining.smallest_margin(rows, margin, include_single)


@_rule("conflicting-judges")
def conflicting_judges(rows: list[Any]) -> Mined:
    """Largest mean difference wins; a pair on which judges disagree ties. Needs `scores`."""
    from prefopt.sources import mining

    return mining.conflicting_judges(rows)


@_rule("all-correct")
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of the random choices."
)
def all_correct(rows: list[Any], seed: int) -> Mined:
    """Right against wrong wins; two right answers tie where all are right. Needs `correct`."""
    from prefopt.sources import mining

    return mining.all_correct(rows, seed)


@_rule("threshold")
@click.option("--eps", type=float, required=True, help="Largest score difference of a tie.")
@_pairs
def threshold(rows: list[Any], eps: float, pairs: Any) -> Mined:
    """Score differences of at most EPS tie. Needs `score` or `scores`, or pairs with score_chosen, score_rejected."""
    from prefopt.sources import mining

    return mining.threshold(rows, eps, pairs)


@_rule("ranks")
@_pairs
def ranks(rows: list[Any], pairs: Any) -> Mined:
    """Ranked lists as pairs; equal ranks tie. Needs `rank`, 1 for the best."""
    from prefopt.sources import mining

    return mining.ranks_to_pairs(rows, pairs)
