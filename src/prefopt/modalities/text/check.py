"""Rows of text, as `prefopt check` looks at them: in words, or in a model's tokens."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from rich.console import Console

from prefopt.likelihoods.tokens import TokenLikelihood, TruncationMode
from prefopt.modalities.checking import SIDES, Asked, Examined
from prefopt.modalities.text.encoding import EncodedComparisons, encode_examples, positions_hint
from prefopt.modalities.text.rows import to_comparisons
from prefopt.models.positions import positions_of
from prefopt.models.sources import whole_model
from prefopt.models.tokenizers import check_places, load_tokenizer
from prefopt.sources.collecting import Comparisons
from prefopt.sources.files import Rows
from prefopt.sources.report import Hint

SHOWN_TOKENS = 60  # of each side of the first pair


def takes(columns: Collection[str]) -> bool:
    """Whether rows with these columns hold texts."""
    return any(set(needed) <= set(columns) for needed in (("chosen", "rejected"), ("completion", "label")))


def examine(rows: Rows, asked: Asked) -> Examined:
    """Read the rows, and tokenize them where a model is given."""
    read = asked.objective
    comparisons = (
        to_comparisons(rows, (), read.columns, branches=read.branches) if read else to_comparisons(rows)
    )
    report, dropped = comparisons.report, comparisons.dropped
    encoded = tokenizer = None
    if asked.model is not None:
        tokenizer, encoded, hints = encode(comparisons, asked.model, asked.max_length, asked.truncation_mode)
        report, dropped = replace(encoded.report, hints=[*hints, *encoded.report.hints]), encoded.dropped

    def details(console: Console) -> None:
        if encoded is not None and asked.model is not None:
            print_first(console, tokenizer, encoded)
            if asked.planned is not None:
                print_plan(console, asked.model, encoded, asked.planned)

    singles = report.comparisons["desirable"] + report.comparisons["undesirable"] > 0
    plain = isinstance(comparisons.examples[0].items[0].condition["prompt"], str)
    return Examined(
        comparisons=comparisons,
        report=report,
        dropped=dropped,
        form="text" if plain else "conversations",
        sides={**SIDES, **({"chosen": "desirable", "rejected": "undesirable"} if singles else {})},
        details=details,
    )


def encode(
    comparisons: Comparisons, model: str, max_length: int, truncation_mode: TruncationMode
) -> tuple[Any, EncodedComparisons[Any], list[Hint]]:
    """Tokenizer, tokenized rows and what the model adds to their report.

    Raises:
        ValueError: no tokenizer, or tokens that the model has no place for.
    """

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
    likelihood = TokenLikelihood(tokenizer, max_length, positions, truncation_mode)
    encoded = encode_examples(comparisons, likelihood)
    hints = positions_hint(encoded, max_length, positions)
    if told := likelihood.clock.told:
        hints.append(Hint("note", told))
    check_places(
        tokenizer, model, lambda: (i for e in encoded.examples for item in e.items for i in item.ids)
    )
    return tokenizer, encoded, hints


def print_first(console: Console, tokenizer: Any, encoded: EncodedComparisons[Any]) -> None:
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


def print_plan(console: Console, model: str, encoded: EncodedComparisons[Any], batch_size: int) -> None:
    """What a run's forward passes would read under each layout, and the first batch explained."""
    from rich.table import Table
    from transformers import AutoConfig

    from prefopt.likelihoods.savings import explain, savings

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
