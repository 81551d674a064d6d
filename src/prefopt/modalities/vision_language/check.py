"""Rows with pictures, as `prefopt check` looks at them: in words, or in a model's tokens."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from rich.console import Console

from prefopt.modalities.checking import SIDES, Asked, Examined
from prefopt.modalities.text import check as text_check
from prefopt.modalities.text.encoding import encode_examples, positions_hint
from prefopt.modalities.vision_language.layouts import is_rlhf_v, is_swift, renamed
from prefopt.modalities.vision_language.opening import check_truncation, open_images, pictured_likelihood
from prefopt.modalities.vision_language.rows import PAIRS, PICTURES, Wanted, to_pictured
from prefopt.modalities.vision_language.video.hints import sparser_hints, token_hints
from prefopt.modalities.vision_language.video.rows import VIDEOS
from prefopt.sources.files import Rows


def takes(columns: Collection[str]) -> bool:
    """Whether rows with these columns hold answers under pictures."""
    there = tuple(columns)
    if renamed(there) or is_swift(there) or is_rlhf_v(there):
        return True
    return bool({*PICTURES, *VIDEOS} & set(there)) and text_check.takes(columns)


def examine(rows: Rows, asked: Asked) -> Examined:
    """Read the rows, and tokenize them where a model is given."""
    check_truncation(asked.truncation_mode)
    read = asked.objective
    wanted = Wanted(read.branches, read.reads_loser) if read else PAIRS
    comparisons = to_pictured(rows, optional=read.columns if read else (), wanted=wanted)
    report, dropped = comparisons.report, comparisons.dropped
    encoded: Any = None
    tokenizer: Any = None
    if asked.model is not None:
        images = open_images(asked.model)
        tokenizer = images.processor.tokenizer
        likelihood = pictured_likelihood(images, asked.max_length, asked.model)
        encoded = encode_examples(comparisons, likelihood)
        hints = positions_hint(encoded, asked.max_length, likelihood.positions)
        hints += [*sparser_hints(likelihood), *token_hints(encoded.examples, likelihood)]
        report, dropped = replace(encoded.report, hints=[*hints, *encoded.report.hints]), encoded.dropped

    def details(console: Console) -> None:
        if encoded is not None and asked.model is not None:
            text_check.print_first(console, tokenizer, encoded)

    singles = report.comparisons["desirable"] + report.comparisons["undesirable"] > 0
    return Examined(
        comparisons=comparisons,
        report=report,
        dropped=dropped,
        form="text under images",
        sides={**SIDES, **({"chosen": "desirable", "rejected": "undesirable"} if singles else {})},
        details=details,
    )
