"""Findings about a set of comparisons that a person should hear before training on it: label noise, shortcuts a
policy could learn instead of the task, and texts that carry their own special tokens."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any, Literal, NamedTuple

from prefopt.comparisons import TIE, WIN, Example
from prefopt.sources.report import (
    DataReport,
    Dropped,
    Hint,
    Measures,
    Origin,
    balance_hint,
    count_comparisons,
    count_reasons,
    measure,
    message_texts,
    text_length,
)

ENOUGH = 20  # fewer comparisons than this show patterns by chance
TRIANGLE_STEPS = 2_000_000  # about a second

BOS_TEXTS = ("<s>", "<bos>", "<|begin_of_text|>", "<|startoftext|>", "[CLS]")
EOS_TEXTS = (
    "</s>",
    "<eos>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|im_end|>",
    "<end_of_turn>",
    "[SEP]",
)


class Repeats(NamedTuple):
    """Comparisons that touch the same two samples of the same prompt."""

    duplicates: int
    """Comparisons that repeat an earlier one exactly, outcome included."""
    conflicts: int
    """Pairs that won in both orders."""
    won_and_tied: int
    """Pairs that one row calls a win and another a tie."""
    triples: int | None
    """Intransitive triples: a beats b beats c beats a. None if counting them would take too long."""


_encoder = json.JSONEncoder(
    sort_keys=True, default=lambda value: getattr(value, "digest", None) or str(value)
)


def digest(value: Any) -> bytes:
    """16 bytes that name a JSON-like value; images and the like go by their own digest."""
    # the type goes in too: a string may spell the JSON of a list
    text = f"str:{value}" if isinstance(value, str) else f"json:{_encoder.encode(value)}"
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def find_repeats(examples: Sequence[Example]) -> Repeats:
    """Count repeated, contradicting and intransitive comparisons."""
    seen: set[tuple[bytes, ...] | tuple[Any, ...]] = set()
    duplicates = 0
    beats: dict[bytes, dict[bytes, set[bytes]]] = defaultdict(lambda: defaultdict(set))
    tied: set[tuple[bytes, bytes, bytes]] = set()
    for example in examples:
        shared = {id(item.condition): item.condition for item in example.items}  # sides share one object
        digests = {key: digest(dict(condition)) for key, condition in shared.items()}
        prompts = [digests[id(item.condition)] for item in example.items]
        samples = [digest(item.sample) for item in example.items]
        for edge in example.comparisons:
            prompt, first = prompts[edge.first], samples[edge.first]
            second = b"" if edge.second is None else samples[edge.second]
            key = (prompt, first, second, edge.outcome)
            if edge.outcome == TIE and second < first:
                key = (prompt, second, first, edge.outcome)  # the order of a tie says nothing
            duplicates += key in seen
            seen.add(key)
            if edge.second is None:
                continue
            if edge.outcome == WIN:
                beats[prompt][first].add(second)
            elif edge.outcome == TIE:
                tied.add((prompt, *sorted((first, second))))  # type: ignore[arg-type]
    wins = {(prompt, a, b) for prompt, of in beats.items() for a, losers in of.items() for b in losers}
    return Repeats(
        duplicates=duplicates,
        conflicts=sum((prompt, b, a) in wins for prompt, a, b in wins if a < b),
        won_and_tied=len({(prompt, *sorted((a, b))) for prompt, a, b in wins} & tied),
        triples=_intransitive_triples(beats),
    )


def _intransitive_triples(beats: Mapping[bytes, Mapping[bytes, set[bytes]]]) -> int | None:
    steps = found = 0
    for of in beats.values():
        if len(of) < 3:  # each of the three beats another
            continue
        for a, losers in of.items():
            for b in losers:
                steps += len(of.get(b, ()))
                if steps > TRIANGLE_STEPS:
                    return None
                found += sum(a in of.get(c, ()) for c in of.get(b, ()))
    return found // 3


def describe(
    source: str,
    rows: int,
    examples: Sequence[Example],
    dropped: Sequence[Dropped],
    origins: Mapping[str, Origin],
    notes: Sequence[Hint] = (),
) -> DataReport:
    """The report of examples whose texts are not tokenized yet.

    Args:
        source: where the rows come from.
        rows: rows read.
        examples: what became of them.
        dropped: the rows that became none.
        origins: by example id, its row and scores.
        notes: findings of whoever read the rows, put first.
    """
    measures = measure(
        examples,
        "characters",
        prompt_length=lambda item: text_length(item.condition["prompt"]),
        sample_length=lambda item: text_length(item.sample),
    )
    found = [*length_hints(measures), *_text_hints(examples), *marker_hints(examples)]
    return assemble(source, rows, examples, dropped, origins, measures, notes, found)


def assemble(
    source: str,
    rows: int,
    examples: Sequence[Example],
    dropped: Sequence[Dropped],
    origins: Mapping[str, Origin],
    measures: Measures,
    notes: Sequence[Hint],
    found: Sequence[Hint],
) -> DataReport:
    """A report with what is counted alike for every modality.

    Args:
        source, rows, examples, dropped, origins, notes: see `describe`.
        measures: lengths.
        found: findings in the samples themselves, put last.
    """
    repeats = find_repeats(examples)
    comparisons = count_comparisons(examples)
    reasons = count_reasons(dropped)
    return DataReport(
        source=source,
        rows=rows,
        examples=len(examples),
        comparisons=comparisons,
        dropped=reasons,
        truncated={"chosen": 0, "rejected": 0},
        identical_sides=reasons.get("identical_sides", 0),
        duplicates=repeats.duplicates,
        conflicts=repeats.conflicts,
        lengths=measures.lengths,
        length_gap=measures.length_gap,
        histograms=measures.histograms,
        label_balance_hint=balance_hint(comparisons),
        hints=[
            *notes,
            *dropped_hints(reasons, rows),
            *_repeat_hints(repeats),
            *_score_hints(examples, origins),
            *found,
        ],
    )


def _repeat_hints(repeats: Repeats) -> list[Hint]:
    hints = []
    if repeats.conflicts:
        hints.append(
            Hint(
                "warn",
                f"{repeats.conflicts} pair(s) are judged in both orders; merge them into votes or a tie",
            )
        )
    if repeats.won_and_tied:
        hints.append(
            Hint("warn", f"{repeats.won_and_tied} pair(s) are a win in one row and a tie in another")
        )
    if repeats.triples:
        hints.append(
            Hint(
                "warn",
                f"{repeats.triples} intransitive triple(s): a beats b, b beats c, c beats a for one prompt",
            )
        )
    if repeats.triples is None:
        hints.append(Hint("note", "intransitive triples were not counted: a prompt has too many comparisons"))
    if repeats.duplicates:
        hints.append(
            Hint("note", f"{repeats.duplicates} comparison(s) repeat an earlier one exactly and count twice")
        )
    return hints


def dropped_hints(reasons: Mapping[str, int], rows: int) -> list[Hint]:
    """How many rows were dropped, and why."""
    if not reasons:
        return []
    count = sum(reasons.values())
    unwanted = count - reasons.get("tie", 0)  # ties go by the user's own choice
    listed = ", ".join(f"{n} {reason}" for reason, n in reasons.items())
    level: Literal["note", "warn"] = "warn" if unwanted > 0.05 * rows else "note"
    return [Hint(level, f"{count} of {rows} rows ({count / rows:.1%}) were dropped: {listed}")]


def recount(report: DataReport, examples: Sequence[Any], dropped: Sequence[Dropped]) -> DataReport:
    """The same report after some examples were dropped, rewritten or encoded; lengths stay."""
    reasons, comparisons = count_reasons(dropped), count_comparisons(examples)
    stale = dropped_hints(report.dropped, report.rows)
    return replace(
        report,
        examples=len(examples),
        comparisons=comparisons,
        dropped=reasons,
        identical_sides=reasons.get("identical_sides", 0) + reasons.get("identical_after_truncation", 0),
        label_balance_hint=balance_hint(comparisons),
        hints=[*(hint for hint in report.hints if hint not in stale), *dropped_hints(reasons, report.rows)],
    )


def _score_hints(examples: Sequence[Example], origins: Mapping[str, Origin]) -> list[Hint]:
    """Whether scores that came with the rows agree with the labels."""
    scored = equal = against = 0
    for example in examples:
        if len(example.comparisons) != 1 or example.comparisons[0].outcome != WIN:
            continue
        _, chosen, rejected, _ = origins[example.id]
        if chosen is None or rejected is None:
            continue
        scored += 1
        equal += chosen == rejected
        against += chosen < rejected
    hints = []
    if equal:
        hints.append(
            Hint(
                "warn" if equal / scored > 0.05 else "note",
                f"{equal} of {scored} scored wins ({equal / scored:.1%}) have equal scores on both sides: "
                'mark them as ties (label "tie")',
            )
        )
    if against:
        hints.append(
            Hint(
                "warn",
                f"{against} of {scored} scored wins ({against / scored:.1%}) go against their scores: "
                "score_chosen is below score_rejected",
            )
        )
    return hints


def length_hints(measures: Measures | DataReport) -> list[Hint]:
    """Whether length alone tells the winner."""
    share, pairs = measures.length_gap["share_chosen_longer"], sum(measures.histograms["chosen"]["counts"])
    if share is None or pairs < ENOUGH or 0.1 < share < 0.9:
        return []
    word = "longer" if share >= 0.9 else "not longer"
    return [
        Hint(
            "warn",
            f"the chosen side is {word} in {max(share, 1 - share):.0%} of the pairs: a policy can learn length "
            "instead of quality; watch length_gap, or use a length-normalised margin",
        )
    ]


def same_start_hint(starts: Sequence[Any], shown: str) -> list[Hint]:
    """Whether all sides begin alike, so that their first token teaches nothing."""
    if len(starts) < 2 * ENOUGH or len(set(starts)) > 1:
        return []
    return [Hint("note", f"all {len(starts)} completions start with {shown}: it may belong to the prompt")]


def _text_hints(examples: Sequence[Example]) -> list[Hint]:
    """What can be seen in the texts themselves."""
    starts: list[str] = []
    unprompted = 0
    for example in examples:
        for n, item in enumerate(example.items):
            prompt, sample = item.condition["prompt"], item.sample
            texts = [sample] if isinstance(sample, str) else message_texts(sample)
            starts.append(next(iter(texts[0].split(maxsplit=1)), ""))
            if n == 0:
                unprompted += not opening_of(prompt).strip()
    hints = same_start_hint(starts, f"the same word, {starts[0]!r}" if starts else "")
    if unprompted:
        hints.append(Hint("warn", f"{unprompted} example(s) have an empty prompt"))
    return hints


def opening_of(prompt: Any) -> str:
    """The text that a prompt begins with."""
    return prompt if isinstance(prompt, str) else "".join(message_texts(prompt)[:1])


def marker_hints(examples: Sequence[Example], special: Collection[str] | None = None) -> list[Hint]:
    """Texts that spell out the beginning or the end of a sequence.

    Args:
        examples: not tokenized.
        special: texts of the tokenizer's special tokens, where it is known: then only markers that mean nothing to it
            are told, since tokens show what stands twice.
    """
    ending: Counter[tuple[str, bool]] = Counter()
    beginning: Counter[str] = Counter()
    for example in examples:
        for n, item in enumerate(example.items):
            chat = not isinstance(item.sample, str)
            end = (message_texts(item.sample)[-1] if chat else item.sample).rstrip()
            ending.update((eos, chat) for eos in EOS_TEXTS if end.endswith(eos))
            if n == 0:
                opening = opening_of(item.condition["prompt"]).lstrip()
                beginning.update(bos for bos in BOS_TEXTS if opening.startswith(bos))
    if special is not None:
        strange: Counter[str] = Counter()
        for (eos, _), n in ending.items():
            strange[f"end with the text {eos}"] += n * (eos not in special)
        for bos, n in beginning.items():
            strange[f"begin with the text {bos}"] += n * (bos not in special)
        return [
            Hint("warn", f"{n} text(s) {what}, which is no special token of this tokenizer but ordinary text")
            for what, n in strange.items()
            if n
        ]
    ends = [
        Hint("warn", f"{n} completion(s) end with the text {eos}: a chat template ends a turn itself, so that the end stands there twice")
        if chat
        else Hint("note", f"{n} completion(s) end with the text {eos}: nothing is added where this is the model's own end of sequence")
        for (eos, chat), n in ending.items()
    ]  # fmt: skip
    return [
        *ends,
        *(
            Hint(
                "warn",
                f"{n} prompt(s) begin with the text {bos}: where the tokenizer or chat template writes it too, it stands "
                "there twice (`--model` tells)",
            )
            for bos, n in beginning.items()
        ),
    ]


def method_hints(
    report: DataReport, method: str, has_tie_term: bool, unpaired: bool, winner_alone: bool = False
) -> list[Hint]:
    """Whether a method suits these comparisons.

    Args:
        report: of the data.
        method: its name, for the sentences.
        has_tie_term: whether its objective models ties.
        unpaired: whether its objective takes single labelled samples.
        winner_alone: whether it takes single good ones as well as pairs.
    """
    counts = report.comparisons
    pairs = counts["wins"] + counts["ties"] + counts["soft"]
    singles = counts["desirable"] + counts["undesirable"]
    if unpaired and pairs:
        return [
            Hint(
                "note",
                f"{method} takes single samples: each of the {pairs} pairs becomes one desirable and one undesirable",
            )
        ]
    if singles and winner_alone:
        return []
    if not unpaired and singles:
        return [
            Hint("warn", f"{method} compares pairs, but these are single labelled samples: use kto or bco")
        ]
    if has_tie_term and not counts["ties"] + counts["soft"]:
        return [
            Hint(
                "warn",
                f"{method} models ties but the data has none: was the column label, is_tie or votes forgotten? "
                "Without ties its target is shifted",
            )
        ]
    if not has_tie_term and counts["ties"]:
        return [
            Hint(
                "warn",
                f"{method} has no tie term and {counts['ties']} comparisons are ties: choose ties=drop, as_win or "
                "soft_half, or a method that models them (dpo_rk, dpo_d)",
            )
        ]
    return []
