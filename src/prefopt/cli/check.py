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

    from prefopt.modalities.text.encoding import EncodedComparisons
    from prefopt.sources.collecting import Comparisons
    from prefopt.sources.report import DataReport, Hint

SHOWN_TOKENS = 60  # of each side of the first pair


@click.command("check")
@click.argument("data")
@click.option("--model", metavar="PATH_OR_ID", help="Count lengths in tokens, with this model's tokenizer.")
@click.option(
    "--max-length", type=click.IntRange(min=2), default=1024, show_default=True, help="Most tokens a side."
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
        _check(data, model, max_length, planned, method, split, config_name, taken, quick, output, as_json)
    except (ValueError, OSError, TypeError) as error:
        raise click.ClickException(str(error)) from error


def _check(
    data: str,
    model: str | None,
    max_length: int,
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
    from prefopt import objectives
    from prefopt.modalities.image.rows import looks_like_images, to_image_comparisons
    from prefopt.modalities.text.rows import to_comparisons
    from prefopt.sources.hints import method_hints
    from prefopt.sources.report import write_dropped, write_report

    try:
        objective = None if method is None else objectives.get(method)
    except KeyError as error:
        raise ValueError(error.args[0]) from error
    images = looks_like_images(rows.columns)
    if images and model is not None:
        raise ValueError(f"{data} holds images: --model counts the tokens of texts; leave it out")
    comparisons = to_image_comparisons(rows, thorough=not quick) if images else to_comparisons(rows)
    report, dropped = comparisons.report, comparisons.dropped
    encoded = tokenizer = None
    if model is not None:
        tokenizer, encoded, hints = _encode(comparisons, model, max_length)
        report, dropped = replace(encoded.report, hints=[*hints, *encoded.report.hints]), encoded.dropped
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
    first = comparisons.examples[0]
    form = "text" if isinstance(first.items[0].condition["prompt"], str) else "conversations"
    form = "images" if images else form
    kind = "single labelled samples" if first.comparisons[0].second is None else "pairs"
    console.print(
        f"[bold]{rows.source}[/]: {kind} of {form}; columns {', '.join(rows.columns)}", soft_wrap=True
    )
    _print_tables(console, report)
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
    if encoded is not None:
        _print_first(console, tokenizer, encoded)
        if planned is not None and model is not None:
            _print_plan(console, model, encoded, planned)
    if output is not None:
        console.print(
            f"wrote {output / 'data.json'} and {output / 'dropped.jsonl'}", markup=False, soft_wrap=True
        )


def _encode(
    comparisons: Comparisons, model: str, max_length: int
) -> tuple[Any, EncodedComparisons[Any], list[Hint]]:
    from prefopt.likelihoods.tokens import TokenLikelihood
    from prefopt.modalities.text.encoding import encode_examples, positions_hint
    from prefopt.models.positions import positions_of
    from prefopt.models.tokenizers import check_places, load_tokenizer
    from prefopt.sources.report import Hint

    try:
        tokenizer = load_tokenizer(model, alone=True)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"no tokenizer could be loaded from {model}: {str(error).splitlines()[0]}"
        ) from error
    try:
        positions = positions_of(model)
    except (OSError, ValueError, KeyError):
        positions = None  # a tokenizer alone
    likelihood = TokenLikelihood(tokenizer, max_length, positions)
    encoded = encode_examples(comparisons, likelihood)
    hints = positions_hint(encoded, max_length, positions)
    if told := likelihood.clock.told:
        hints.append(Hint("note", told))
    check_places(
        tokenizer, model, lambda: (i for e in encoded.examples for item in e.items for i in item.ids)
    )
    return tokenizer, encoded, hints


def _print_tables(console: Console, report: DataReport) -> None:
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

    if report.images is not None:
        _print_images(console, report.images)
    _print_lengths(console, report)


def _print_images(console: Console, images: Mapping[str, Any]) -> None:
    from rich.table import Table

    table = Table(title="images", title_justify="left", show_header=False)
    table.add_row("images", f"{images['count']:,}, of which {images['distinct']:,} distinct")
    table.add_row("files", f"{images['megabytes']:,.1f} MB")
    for name in ("sizes", "modes", "formats"):
        table.add_row(name, ", ".join(f"{kind} ({n:,})" for kind, n in images[name].items()))
    for name in ("width", "height"):
        x = images[name]
        table.add_row(name, f"{x['min']:,} to {x['max']:,} pixels, median {x['median']:,.0f}")
    console.print(table)


def _print_lengths(console: Console, report: DataReport) -> None:
    from rich.table import Table

    unpaired = report.comparisons["desirable"] + report.comparisons["undesirable"] > 0
    names = {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}
    if unpaired:
        names |= {"chosen": "desirable", "rejected": "undesirable"}
    if report.images is not None:
        names = {"prompt": "caption"}
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
    if gap is not None:
        longer = (
            ""
            if share is None
            else f"; chosen is the longer side in {share:.0%} of the pairs that are not ties"
        )
        console.print(
            f"{names['chosen']} minus {names['rejected']}: {gap:+.1f} {report.lengths['unit']} on average{longer}",
            soft_wrap=True,
        )


def _print_first(console: Console, tokenizer: Any, encoded: EncodedComparisons[Any]) -> None:
    """The first example as the model reads it; scored tokens stand between brackets, split by bars."""
    from rich.text import Text

    example = encoded.examples[0]
    names = ("chosen", "rejected") if len(example.items) == 2 else ("sample",)
    console.print(f"first example, {example.id}: scored tokens between ⟦ ⟧", style="bold", markup=False)
    for name, item in zip(names, example.items, strict=True):
        ids = list(item.ids)
        prompt, scored = ids[: item.start], ids[item.start :]
        left_out = "" if len(prompt) <= SHOWN_TOKENS else "... "
        rest = "" if len(scored) <= SHOWN_TOKENS else f"| ... {len(scored) - SHOWN_TOKENS} more"
        text = Text(f"{name}: {left_out}{tokenizer.decode(prompt[-SHOWN_TOKENS:])}")
        tokens = [tokenizer.decode([token]) for token in scored[:SHOWN_TOKENS]]
        text.append(f"⟦{'|'.join(tokens)}{rest}⟧", style="bold green")
        console.print(text, soft_wrap=True)


def _print_plan(console: Console, model: str, encoded: EncodedComparisons[Any], batch_size: int) -> None:
    """What a run's forward passes would read under each layout, and the first batch explained."""
    from rich.table import Table
    from transformers import AutoConfig

    from prefopt.likelihoods.savings import explain, savings
    from prefopt.models.sources import whole_model

    config = AutoConfig.from_pretrained(whole_model(model), trust_remote_code=False)
    hidden = getattr(config.get_text_config(), "hidden_size", None) or 1024
    items = [list(example.items) for example in encoded.examples]
    batches = [
        [item for part in items[i : i + batch_size] for item in part]
        for i in range(0, len(items), batch_size)
    ]
    totals = savings(batches, hidden)
    names = {
        "plain": "one padded row an item",
        "packed": "short rows packed",
        "shared": "prompts shared, packed",
    }
    table = Table(title=f"layout of {len(batches):,} batches of {batch_size} examples", title_justify="left")
    for name in ("", "places read", "padding", "head reads", "relative work"):
        table.add_column(name, justify="left" if not name else "right")
    for total in totals:
        padding, work = 1 - total.tokens / total.places, total.work / totals[0].work
        table.add_row(
            names[total.layout], f"{total.places:,}", f"{padding:.0%}", f"{total.scored:,}", f"{work:.2f}"
        )
    console.print(table)
    console.print("first batch:", style="bold")
    for line in explain(batches[0], hidden):
        console.print(f"  {line}", markup=False, soft_wrap=True)
    console.print(
        "A run tries out which layout the model scores rightly, and says so if that is not the last.",
        soft_wrap=True,
    )
