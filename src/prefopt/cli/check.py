"""`prefopt check`: look at a data set before training on it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prefopt.files import writing

if TYPE_CHECKING:
    from rich.console import Console

    from prefopt.likelihoods.tokens import TruncationMode
    from prefopt.sources.report import DataReport


@click.command("check")
@click.argument("data")
@click.option("--model", metavar="PATH_OR_ID", help="Count lengths in tokens, with this model's tokenizer.")
@click.option(
    "--max-length", type=click.IntRange(min=2), default=1024, show_default=True, help="Most tokens a side."
)
@click.option(
    "--truncation-mode",
    type=click.Choice(["keep_start", "keep_end"]),
    default="keep_start",
    show_default=True,
    help="What is kept of longer ones.",
)
@click.option(
    "--plan",
    "plan",
    is_flag=True,
    help="Say how batches would be laid out, and what that saves (needs --model).",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Examples a batch, for --plan.",
)
@click.option("--method", metavar="NAME", help="Also say whether the data suits this method.")
@click.option("--split", default="train", show_default=True, help="Split of the data to look at.")
@click.option("--config-name", metavar="NAME", help="Configuration of a hub data set.")
@click.option(
    "--rename-columns", metavar="OLD:NEW,...", help="Columns under another name, such as query:prompt."
)
@click.option(
    "--ignore-columns", metavar="NAME,...", help="Columns that mean something else here and are not read."
)
@click.option("--quick", is_flag=True, help="Of images, look at the start and end only, and decode none.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder for data.json and dropped.jsonl.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON and nothing else.")
def command(
    data: str,
    model: str | None,
    max_length: int,
    truncation_mode: TruncationMode,
    plan: bool,
    batch_size: int,
    method: str | None,
    split: str,
    config_name: str | None,
    rename_columns: str | None,
    ignore_columns: str | None,
    quick: bool,
    output: Path | None,
    as_json: bool,
) -> None:
    """Say what DATA holds: counts, lengths, ties, dropped rows, and what looks odd.

    DATA is a .jsonl, .ndjson, .json, .csv, .tsv or .parquet file, also compressed, a folder (of images, with a metadata
    file), or a hub id. It holds comparisons of texts or of images, or single labelled samples.
    """
    try:
        if plan and model is None:
            raise ValueError("--plan counts tokens: give --model")
        planned = batch_size if plan else None
        taken = (rename_columns, ignore_columns)
        cut = (max_length, truncation_mode)
        _check(data, model, cut, planned, method, split, config_name, taken, quick, output, as_json)
    except (ValueError, OSError, TypeError) as error:
        raise click.ClickException(str(error)) from error


def _check(
    data: str,
    model: str | None,
    cut: tuple[int, TruncationMode],
    planned: int | None,
    method: str | None,
    split: str,
    config_name: str | None,
    taken: tuple[str | None, str | None],
    quick: bool,
    output: Path | None,
    as_json: bool,
) -> None:
    from dataclasses import replace

    from rich.console import Console

    from prefopt.config import name_pairs, names
    from prefopt.sources.columns import ColumnsAs
    from prefopt.sources.files import load_rows

    rename, ignore = taken
    rows = ColumnsAs(name_pairs(rename or {}), names(ignore or [])).apply(load_rows(data, split, config_name))
    # these import torch, for which a misspelt file name should not wait
    from prefopt import modalities, objectives
    from prefopt.modalities.checking import Asked, Examined
    from prefopt.sources.hints import method_hints
    from prefopt.sources.report import write_dropped, write_report

    try:
        objective = None if method is None else objectives.get(method)
    except KeyError as error:
        raise ValueError(error.args[0]) from error
    asked = Asked(
        source=data,
        model=model,
        max_length=cut[0],
        truncation_mode=cut[1],
        planned=planned,
        thorough=not quick,
        objective=objective,
    )
    found: Examined = modalities.of_rows(rows.columns).part("check").examine(rows, asked)
    report, dropped = found.report, found.dropped
    if objective is not None and method is not None:
        hints = method_hints(report, method, objective.has_tie_term, objective.unpaired)
        report = replace(report, hints=[*report.hints, *hints])
    if output is not None:
        with writing("the data report", output):
            output.mkdir(parents=True, exist_ok=True)
        write_report(report, output / "data.json")
        write_dropped(dropped, output / "dropped.jsonl")
    if as_json:
        click.echo(json.dumps(report.to_dict(), indent=2, ensure_ascii=False, allow_nan=False))
        return
    console = Console(highlight=False)
    first = found.comparisons.examples[0]
    kind = "single labelled samples" if first.comparisons[0].second is None else "pairs"
    console.print(
        f"[bold]{rows.source}[/]: {kind} of {found.form}; columns {', '.join(rows.columns)}", soft_wrap=True
    )
    _print_counts(console, report)
    found.tables(console)
    _print_lengths(console, report, found.sides)
    for hint in report.hints:
        style, word = ("yellow", "warning") if hint.level == "warn" else ("cyan", "note")
        console.print(f"[{style}]{word}:[/] ", end="")
        console.print(hint.text, markup=False, soft_wrap=True)
    if report.label_balance_hint:
        console.print("[cyan]note:[/] ", end="")
        console.print(report.label_balance_hint, markup=False, soft_wrap=True)
    for drop in dropped[:3]:
        console.print(
            f"dropped {rows.place} {drop.row} ({drop.reason}): {drop.detail}", markup=False, soft_wrap=True
        )
    found.details(console)
    if output is not None:
        console.print(
            f"wrote {output / 'data.json'} and {output / 'dropped.jsonl'}", markup=False, soft_wrap=True
        )


def _print_counts(console: Console, report: DataReport) -> None:
    from rich.table import Table

    table = Table(title="rows", title_justify="left", show_header=False)
    counts: dict[str, Any] = {"read": report.rows, "used": report.examples}
    counts |= {name: n for name, n in report.comparisons.items() if n}
    counts |= {f"dropped: {reason}": n for reason, n in report.dropped.items()}
    counts |= {f"truncated {side}": n for side, n in report.truncated.items() if n}
    counts |= {
        name: n for name, n in (("duplicates", report.duplicates), ("conflicts", report.conflicts)) if n
    }
    for name, n in counts.items():
        table.add_row(name, f"{n:,}")
    console.print(table)


def _print_lengths(console: Console, report: DataReport, names: Mapping[str, str]) -> None:
    from rich.table import Table

    table = Table(title=f"lengths in {report.lengths['unit']}", title_justify="left")
    table.add_column("")
    for name in ("min", "median", "p95", "max", "mean"):
        table.add_column(name, justify="right")
    for side, shown in names.items():
        summary = report.lengths[side]
        table.add_row(
            shown, *(f"{x:,.1f}".removesuffix(".0") for x in summary.values()) if summary else ("-",) * 5
        )
    console.print(table)
    gap, share = report.length_gap["mean"], report.length_gap["share_chosen_longer"]
    if gap is not None and {"chosen", "rejected"} <= names.keys():
        longer = (
            ""
            if share is None
            else f"; chosen is the longer side in {share:.0%} of the pairs that are not ties"
        )
        console.print(
            f"{names['chosen']} minus {names['rejected']}: {gap:+.1f} {report.lengths['unit']} on average{longer}",
            soft_wrap=True,
        )
