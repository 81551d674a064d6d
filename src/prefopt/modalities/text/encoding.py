"""Examples as a likelihood sees them: token ids, lengths in tokens, and the rows that truncation ruins."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Generic, Protocol, TypeVar

from prefopt.comparisons import Encoded, Example, Item, UnusableItem
from prefopt.sources.collecting import Comparisons, nothing_usable
from prefopt.sources.hints import length_hints, marker_hints, recount, same_start_hint
from prefopt.sources.progress import with_bar
from prefopt.sources.report import DataReport, Dropped, Hint, kind_of, measure


class EncodedSample(Protocol):
    """What `encode` must give: token ids, of which those from `start` on are scored."""

    @property
    def ids(self) -> Sequence[int]:
        """Prompt and completion."""
        ...

    @property
    def start(self) -> int:
        """Index of the first scored token."""
        ...

    @property
    def truncated(self) -> bool:
        """Whether the completion lost tokens to the maximum length."""
        ...

    @property
    def cut(self) -> int:
        """Tokens that were cut off the beginning."""
        ...


SHOWN = 5
"""Rows that a hint names."""
SampleT = TypeVar("SampleT", bound=EncodedSample)


class TextEncoder(Protocol[SampleT]):
    """What turns texts into tokens; `TokenLikelihood` is one."""

    @property
    def special_tokens(self) -> Mapping[int, str]:
        """Ids and texts of the tokenizer's special tokens."""
        ...

    def fitted(self, example: Example) -> Example:
        """The example as it is to be encoded."""
        ...

    def encode(self, item: Item) -> SampleT:
        """One item; raises `UnusableItem` where nothing of it can be scored."""
        ...

    def align(self, samples: Sequence[SampleT]) -> list[SampleT]:
        """Items of one row under one prompt, scored from one place."""
        ...

    def oddities(self, item: Item) -> Iterable[str]:
        """What is odd about an item as it is rendered, each as a clause behind a number of completions."""
        ...


@dataclass(frozen=True)
class EncodedComparisons(Generic[SampleT]):
    """Encoded examples, all rows dropped so far, and the report with lengths in tokens."""

    examples: list[Encoded[SampleT]]
    dropped: list[Dropped]
    report: DataReport


def encode_examples(
    comparisons: Comparisons, encoder: TextEncoder[SampleT], progress: bool = True
) -> EncodedComparisons[SampleT]:
    """Encode every item once.

    Args:
        comparisons: from `rows.load_comparisons`.
        encoder: a likelihood.
        progress: show a bar if this takes longer than two seconds.

    Returns:
        Encoded examples. Rows with an unusable item, and pairs whose sides became identical because their ends were
        cut, join the dropped ones. `truncated` and lengths of the report are those of the examples kept.

    Raises:
        ValueError: no example is left; or whatever else the encoder raises.
    """
    examples: list[Encoded[SampleT]] = []
    dropped = list(comparisons.dropped)
    odd: Counter[str] = Counter()
    moved = 0
    origins = comparisons.origins
    bar = with_bar(comparisons.examples, "tokenizing", progress)
    # examples of one row are neighbours: single samples made of a pair share its prompt
    for row, siblings in groupby(bar, key=lambda example: origins[example.id].row):
        kept: list[tuple[Example, list[SampleT]]] = []
        for example in siblings:
            try:
                kept.append(_encode(example, encoder))
            except UnusableItem as error:
                dropped.append(Dropped(row, example.id, error.reason, str(error)))
        aligned = _align(kept, encoder)
        moved += any(
            a is not b
            for (_, old), new in zip(kept, aligned, strict=True)
            for a, b in zip(old, new, strict=True)
        )
        for (example, _), items in zip(kept, aligned, strict=True):
            try:
                _refuse_identical(example, items)
            except UnusableItem as error:
                dropped.append(Dropped(row, example.id, error.reason, str(error)))
                continue
            examples.append(Encoded(example.id, tuple(items), example.comparisons))
            for item in example.items:
                odd.update(encoder.oddities(item))
    if not examples:
        lengths = {"prompt_length", "identical_after_truncation"}
        by_length = any(d.reason in lengths and "positions" not in d.detail for d in dropped)
        raise ValueError(
            nothing_usable(comparisons.report.source, "row", dropped)
            + (". A larger max_length keeps more of each text" if by_length else "")
        )
    notes = [Hint("warn", f"{n} completion(s): {clause}") for clause, n in odd.most_common()]
    if moved:
        notes.append(
            Hint(
                "warn",
                f"{moved} row(s): the prompt's last token merges with the beginning of a completion, or is rendered "
                "otherwise before it; all completions of such a row are scored from the first token that any differs in",
            )
        )
    notes += marker_hints(comparisons.examples, set(encoder.special_tokens.values()))
    stale = marker_hints(comparisons.examples)  # told before the tokenizer was known
    report = replace(comparisons.report, hints=[h for h in comparisons.report.hints if h not in stale])
    return EncodedComparisons(
        examples, dropped, _report(report, examples, dropped, notes, encoder.special_tokens)
    )


def positions_hint(
    encoded: EncodedComparisons[SampleT], asked: int | None, positions: int | None
) -> list[Hint]:
    """What the model's positions do to the rows, where they are fewer than the tokens that were asked for.

    Args:
        encoded: cut to the positions.
        asked: most tokens of a row by the configuration.
        positions: of the model.
    """
    if positions is None or (asked is not None and asked <= positions):
        return []
    lost = sum(d.reason in ("prompt_length", "identical_after_truncation") for d in encoded.dropped)
    cut = sum(any(item.truncated or item.cut for item in e.items) for e in encoded.examples)
    front = any(item.cut for e in encoded.examples for item in e.items)
    what = "the beginning of a prompt" if front else "the end of a completion"
    total = len(encoded.examples) + len(encoded.dropped)
    than = "no max_length is set" if asked is None else f"fewer than max_length={asked}"
    told = f"the model has {positions} positions ({than}), so rows {'are cut to them' if front else 'end there'}: "
    if not cut + lost:
        return [Hint("note", f"{told}all {total} fit")]
    return [
        Hint(
            "warn",
            f"{told}of {total} rows, {cut} lost {what} and {lost} could not be used at all. To keep "
            "more, shorten them, or take a model with more positions (or rotary scaling in its config.json)",
        )
    ]


def _encode(example: Example, encoder: TextEncoder[SampleT]) -> tuple[Example, list[SampleT]]:
    """The example as it was encoded, and its items."""
    from jinja2 import TemplateError  # here, because only conversations need it

    items: list[SampleT] = []
    try:
        example = encoder.fitted(example)
        for item in example.items:
            items.append(encoder.encode(item))  # noqa: PERF401, whose number an error tells
    except UnusableItem as error:
        place = f"item {len(items) + 1} of {len(example.items)}"
        raise UnusableItem(f"{place}: {error}", error.reason) from None
    except TemplateError as error:  # for example: roles must alternate
        refused = f"the chat template refuses item {len(items) + 1}: {error}"
        raise UnusableItem(refused, "chat_template") from None
    return example, items


def _align(
    kept: Sequence[tuple[Example, list[SampleT]]], encoder: TextEncoder[SampleT]
) -> list[list[SampleT]]:
    """The items of one row's examples; those under one prompt are scored from one place."""
    places: dict[str, list[tuple[int, int]]] = {}
    for n, (example, _) in enumerate(kept):
        for k, item in enumerate(example.items):
            prompt = json.dumps(dict(item.condition), sort_keys=True, default=str)
            places.setdefault(prompt, []).append((n, k))
    out = [list(items) for _, items in kept]
    for alike in places.values():
        for (n, k), sample in zip(alike, encoder.align([out[n][k] for n, k in alike]), strict=True):
            out[n][k] = sample
    return out


def _refuse_identical(example: Example, items: Sequence[SampleT]) -> None:
    for edge in example.comparisons:
        if edge.second is None:
            continue
        first, second = items[edge.first], items[edge.second]
        if first.start == second.start and list(first.ids) == list(second.ids):
            if first.truncated or second.truncated:
                where = "before the last" if first.cut else "after the first"
                raise UnusableItem(
                    f"the sides differ only {where} {len(first.ids)} tokens, which is all that is kept",
                    "identical_after_truncation",
                )
            chat = not isinstance(example.items[edge.first].sample, str)
            why = ": the chat template leaves out what they differ in" if chat else ""
            raise UnusableItem(f"both sides become the same tokens{why}", "identical_sides")


def _report(
    report: DataReport,
    examples: Sequence[Encoded[SampleT]],
    dropped: Sequence[Dropped],
    notes: Sequence[Hint],
    special: Mapping[int, str],
) -> DataReport:
    truncated = {"chosen": 0, "rejected": 0}
    sides = 0
    for example in examples:
        for edge in example.comparisons:
            name = "rejected" if kind_of(edge) == "undesirable" else "chosen"
            truncated[name] += example.items[edge.first].truncated
            sides += 1
            if edge.second is not None:
                truncated["rejected"] += example.items[edge.second].truncated
                sides += 1
    measures = measure(
        examples, "tokens", prompt_length=lambda i: i.start, sample_length=lambda i: len(i.ids) - i.start
    )
    stale = length_hints(report)  # told in characters; tokens tell better
    recounted = recount(report, examples, dropped)
    return replace(
        recounted,
        truncated=truncated,
        lengths=measures.lengths,
        length_gap=measures.length_gap,
        histograms=measures.histograms,
        hints=[
            *(hint for hint in recounted.hints if hint not in stale),
            *notes,
            *length_hints(measures),
            *_token_hints(examples, sum(truncated.values()), sides, special),
        ],
    )


def _token_hints(
    examples: Sequence[Encoded[SampleT]], truncated: int, sides: int, special: Mapping[int, str]
) -> list[Hint]:
    hints = []
    truncated -= sum(item.truncated and item.cut > 0 for example in examples for item in example.items)
    if truncated > 0:
        share = truncated / sides
        hints.append(
            Hint(
                "warn" if share > 0.05 else "note",
                f"{truncated} of {sides} completions ({share:.1%}) lost their end to max_length",
            )
        )
    hints += beginning_hints(examples)
    items = [item for example in examples for item in example.items]
    starts = [item.ids[item.start] for item in items]
    hints += same_start_hint(starts, f"the same token, id {starts[0]}")
    ends = [tuple(item.ids[-2:]) for item in items if not item.truncated]
    for what, found in (
        ("completion(s) end", doubled(ends, special)),
        ("prompt(s) begin", doubled([tuple(item.ids[:2]) for item in items], special)),
    ):
        hints += [
            Hint(
                "warn",
                f"{n} {what} with {special[token]} twice: take it out of the texts, or of the template",
            )
            for token, n in found.items()
        ]
    return hints


def beginning_hints(examples: Sequence[Encoded[SampleT]]) -> list[Hint]:
    """Which rows lost their beginning (`truncation_mode=keep_end`), and how many tokens of them."""
    cut = {example.id: [item.cut for item in example.items if item.cut] for example in examples}
    rows = {name: lost for name, lost in cut.items() if lost}
    if not rows:
        return []
    lost = [n for each in rows.values() for n in each]
    shown = ", ".join(list(rows)[:SHOWN]) + (", ..." if len(rows) > SHOWN else "")
    told = (
        f"{len(lost)} completion(s) in {len(rows)} row(s) ({shown}) are read without the beginning of their prompt, which max_length "
        f"cuts (truncation_mode=keep_end): {sum(lost)} tokens, at most {max(lost)} of one; a beginning-of-sequence token goes first"
    )
    whole = sum(item.truncated for example in examples for item in example.items)
    if whole:
        told += f". {whole} of them fill max_length alone: they lost their own beginning, and are scored from their second token left"
    return [Hint("warn" if whole or len(rows) > 0.05 * len(examples) else "note", told)]


def doubled(pairs: Iterable[tuple[int, ...]], special: Collection[int]) -> Counter[int]:
    """How many of two neighbouring tokens are the same special one, by token; ordinary ones may well repeat."""
    return Counter(pair[0] for pair in pairs if len(pair) == 2 and pair[0] == pair[1] and pair[0] in special)
