"""Examples as a likelihood sees them: token ids, lengths in tokens, and the rows that truncation ruins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from prefopt.comparisons import Encoded, Example, Item, UnusableItem
from prefopt.sources.collecting import Comparisons, nothing_usable
from prefopt.sources.hints import ENOUGH, length_hints, recount, same_start_hint
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


SampleT = TypeVar("SampleT", bound=EncodedSample)


@dataclass(frozen=True)
class EncodedComparisons(Generic[SampleT]):
    """Encoded examples, all rows dropped so far, and the report with lengths in tokens."""

    examples: list[Encoded[SampleT]]
    dropped: list[Dropped]
    report: DataReport


def encode_examples(
    comparisons: Comparisons, encode: Callable[[Item], SampleT], progress: bool = True
) -> EncodedComparisons[SampleT]:
    """Encode every item once.

    Args:
        comparisons: from `rows.load_comparisons`.
        encode: a likelihood's; raises `UnusableItem` where nothing of an item can be scored.
        progress: show a bar if this takes longer than two seconds.

    Returns:
        Encoded examples. Rows with an unusable item, and pairs whose sides became identical because their ends were
        cut, join the dropped ones. `truncated` and lengths of the report are those of the examples kept.

    Raises:
        ValueError: no example is left; or whatever else `encode` raises.
    """
    examples: list[Encoded[SampleT]] = []
    dropped = list(comparisons.dropped)
    for example in with_bar(comparisons.examples, "tokenizing", progress):
        try:
            examples.append(_encode(example, encode))
        except UnusableItem as error:
            row = comparisons.origins[example.id].row
            dropped.append(Dropped(row, example.id, error.reason, str(error)))
    if not examples:
        by_model = any("positions" in d.detail for d in dropped)  # which no max_length changes
        raise ValueError(
            nothing_usable(comparisons.report.source, "row", dropped)
            + ("" if by_model else ". A larger max_length keeps more of each text")
        )
    return EncodedComparisons(examples, dropped, _report(comparisons.report, examples, dropped))


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
    cut = sum(any(item.truncated for item in e.items) for e in encoded.examples)
    total = len(encoded.examples) + len(encoded.dropped)
    than = "no max_length is set" if asked is None else f"fewer than max_length={asked}"
    told = f"the model has {positions} positions ({than}), so rows end there: "
    if not cut + lost:
        return [Hint("note", f"{told}all {total} fit")]
    return [
        Hint(
            "warn",
            f"{told}of {total} rows, {cut} lost the end of a completion and {lost} could not be used at all. To keep "
            "more, shorten them, or take a model with more positions (or rotary scaling in its config.json)",
        )
    ]


def _encode(example: Example, encode: Callable[[Item], SampleT]) -> Encoded[SampleT]:
    from jinja2 import TemplateError  # here, because only conversations need it

    items = []
    for n, item in enumerate(example.items):
        try:
            items.append(encode(item))
        except UnusableItem as error:
            raise UnusableItem(f"item {n + 1} of {len(example.items)}: {error}", error.reason) from None
        except TemplateError as error:  # for example: roles must alternate
            raise UnusableItem(f"the chat template refuses item {n + 1}: {error}", "chat_template") from None
    for edge in example.comparisons:
        if edge.second is None:
            continue
        first, second = items[edge.first], items[edge.second]
        if first.start == second.start and list(first.ids) == list(second.ids):
            if first.truncated or second.truncated:
                raise UnusableItem(
                    f"the sides differ only after the first {len(first.ids)} tokens, which is all that is kept",
                    "identical_after_truncation",
                )
            raise UnusableItem("both sides become the same tokens", "identical_sides")
    return Encoded(example.id, tuple(items), example.comparisons)


def _report(
    report: DataReport, examples: Sequence[Encoded[SampleT]], dropped: Sequence[Dropped]
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
            *length_hints(measures),
            *_token_hints(examples, sum(truncated.values()), sides),
        ],
    )


def _token_hints(examples: Sequence[Encoded[SampleT]], truncated: int, sides: int) -> list[Hint]:
    hints = []
    if truncated:
        share = truncated / sides
        hints.append(
            Hint(
                "warn" if share > 0.05 else "note",
                f"{truncated} of {sides} completions ({share:.1%}) lost their end to max_length",
            )
        )
    items = [item for example in examples for item in example.items]
    starts = [item.ids[item.start] for item in items]
    hints += same_start_hint(starts, f"the same token, id {starts[0]}")
    if len(items) >= ENOUGH:
        # one text may end in "!!"; all of them end alike only where an end-of-sequence token is written twice
        ends = {tuple(item.ids[-2:]) for item in items if not item.truncated}
        if len(ends) == 1 and len(set(end := next(iter(ends)))) == 1:
            hints.append(
                Hint("warn", f"every completion ends with token {end[0]} twice: is the end written twice?")
            )
        begins = {tuple(item.ids[:2]) for item in items}
        if len(begins) == 1 and len(set(begin := next(iter(begins)))) == 1:
            hints.append(
                Hint("warn", f"every prompt begins with token {begin[0]} twice: is the start written twice?")
            )
    return hints
