"""Examples as tokens: what truncation ruins is dropped and counted, and lengths are in tokens."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from jinja2 import TemplateError

from prefopt.comparisons import Example, Item, UnusableItem
from prefopt.modalities.text.encoding import encode_examples
from prefopt.modalities.text.rows import load_comparisons
from prefopt.sources import progress
from prefopt.sources.ties import apply_ties_policy


@dataclass
class Sample:
    ids: list[int]
    start: int
    truncated: bool
    cut: int = 0


class Characters:
    """One token a character, and an end token that every completion gets."""

    special_tokens: Mapping[int, str] = {0: "<end>", 33: "!"}

    def __init__(self, max_length: int = 10, end: tuple[int, ...] = (0,)) -> None:
        self.max_length, self.end = max_length, end

    def fitted(self, example: Example) -> Example:
        return example

    def align(self, samples: Sequence[Sample]) -> list[Sample]:
        return list(samples)

    def oddities(self, item: Item) -> list[str]:
        return []

    def encode(self, item: Item) -> Sample:
        if item.sample == "refused":
            raise TemplateError("roles must alternate")
        prompt = [ord(c) for c in item.condition["prompt"]]
        ids = [*prompt, *map(ord, item.sample), *self.end]
        if len(prompt) >= self.max_length:
            raise UnusableItem(f"the prompt alone has {len(prompt)} tokens", "prompt_length")
        return Sample(ids[: self.max_length], len(prompt), len(ids) > self.max_length)


def pair(prompt: str, chosen: str, rejected: str, **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **more}


ROWS = [
    pair("abcd", "ef", "xyz"),
    pair("abcd", "ef", "xyzxyzxyz"),  # rejected loses its end
    pair("abcd", "efghijk", "efghijl"),  # identical once cut
    pair("abcdefghijkl", "m", "n"),  # nothing left of either
    pair("abcd", "", "n"),
    pair("abcd", "refused", "n"),
]


def test_what_truncation_ruins_is_dropped() -> None:
    encoded = encode_examples(load_comparisons(ROWS), Characters())
    assert [example.id for example in encoded.examples] == ["row-1", "row-2"]
    assert encoded.examples[0].items[1].ids == [*map(ord, "abcdxyz"), 0]
    assert encoded.examples[0].comparisons[0].second == 1
    assert [(drop.row, drop.id, drop.reason) for drop in encoded.dropped] == [
        (5, "row-5", "empty_side"),
        (3, "row-3", "identical_after_truncation"),
        (4, "row-4", "prompt_length"),
        (6, "row-6", "chat_template"),
    ]
    assert "first 10 tokens" in encoded.dropped[1].detail
    assert "12 tokens" in encoded.dropped[2].detail
    assert "roles must alternate" in encoded.dropped[3].detail


def test_the_report_is_in_tokens() -> None:
    report = encode_examples(load_comparisons(ROWS), Characters()).report
    assert (report.rows, report.examples, report.comparisons["wins"]) == (6, 2, 2)
    assert report.dropped == {
        **{"empty_side": 1, "identical_after_truncation": 1},
        **{"prompt_length": 1, "chat_template": 1},
    }
    assert report.identical_sides == 1
    assert report.truncated == {"chosen": 0, "rejected": 1}
    assert report.lengths["unit"] == "tokens"
    assert [report.lengths[side]["max"] for side in ("prompt", "chosen", "rejected")] == [4, 3, 6]
    assert report.length_gap == {"mean": -2.0, "share_chosen_longer": 0.0}
    texts = [hint.text for hint in report.hints]
    assert sum("were dropped" in text for text in texts) == 1
    assert any("4 of 6 rows (66.7%) were dropped" in text for text in texts)
    assert "1 of 4 completions (25.0%) lost their end to max_length" in texts


def test_identical_tokens_of_different_texts() -> None:
    class Blind(Characters):
        def encode(self, item: Item) -> Sample:
            return Sample([1, 2, 3], 1, False)

    rows = [pair("p", "a", "b")]
    with pytest.raises(ValueError, match="both sides become the same tokens"):
        encode_examples(load_comparisons(rows), Blind())


def test_nothing_left_is_an_error_that_says_why() -> None:
    with pytest.raises(
        ValueError, match=r"1 prompt_length \(first: row 1, .*12 tokens\). A larger max_length"
    ):
        encode_examples(load_comparisons(ROWS[3:4]), Characters())


def test_single_samples() -> None:
    rows = [{"prompt": "ab", "completion": "c" * n, "label": n < 5} for n in (1, 2, 20)]
    report = encode_examples(load_comparisons(rows), Characters()).report
    assert report.truncated == {"chosen": 0, "rejected": 1}
    assert report.lengths["rejected"]["max"] == 8


def test_drops_accumulate_over_ties_and_encoding() -> None:
    loaded = apply_ties_policy(load_comparisons([*ROWS, pair("a", "b", "c", label="tie")]), "drop")
    encoded = encode_examples(loaded, Characters())
    assert {drop.reason for drop in encoded.dropped} >= {"empty_side", "tie", "prompt_length"}
    assert len(encoded.dropped) + len(encoded.examples) == encoded.report.rows == 7


def test_ends_and_starts_written_twice() -> None:
    rows = [pair(f"p{i}", f"{i}", f"{-i - 1}") for i in range(3)]
    texts = [h.text for h in encode_examples(load_comparisons(rows), Characters(end=(0, 0))).report.hints]
    assert any("6 completion(s) end with <end> twice" in text for text in texts)
    rows[0]["prompt"] = "!!" + rows[0]["prompt"]
    texts = [h.text for h in encode_examples(load_comparisons(rows), Characters()).report.hints]
    assert any("2 prompt(s) begin with ! twice" in text for text in texts)
    assert not any("end with" in text for text in texts)


def test_ordinary_tokens_may_repeat() -> None:
    rows = [pair(f"###p{i}", f"{i}..", f"{-i - 1}..") for i in range(30)]
    texts = [h.text for h in encode_examples(load_comparisons(rows), Characters(end=())).report.hints]
    assert not any("twice" in text for text in texts)


def test_a_text_cut_within_a_doubled_end_is_no_evidence() -> None:
    rows = [pair(f"p{i}", f"{i}", f"{-i - 1}") for i in range(20)] + [pair("p", "q" * 20, "r")]
    texts = [h.text for h in encode_examples(load_comparisons(rows), Characters(end=(0, 0))).report.hints]
    assert any("end with <end> twice" in text for text in texts)


def test_a_hint_about_lengths_is_told_once_and_in_tokens() -> None:
    rows = [pair(f"p{i}", f"{i} yes indeed", f"{-i - 1} no") for i in range(30)]
    loaded = load_comparisons(rows)
    longer = "the chosen side is longer in 100%"
    assert sum(longer in h.text for h in loaded.report.hints) == 1
    encoded = encode_examples(loaded, Characters(max_length=100))
    assert sum(longer in h.text for h in encoded.report.hints) == 1

    class Alike(Characters):
        def encode(self, item: Item) -> Sample:
            return Sample([1, hash(item.sample), 3], 1, False)

    alike = encode_examples(loaded, Alike())
    assert not any("the chosen side is longer" in h.text for h in alike.report.hints)


def test_same_first_token() -> None:
    rows = [pair(f"p{i}", f"#{i}", f"#{-i - 1}") for i in range(25)]
    texts = [h.text for h in encode_examples(load_comparisons(rows), Characters()).report.hints]
    assert any("all 50 completions start with the same token, id 35" in text for text in texts)


def test_a_bar_appears_after_two_seconds_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    assert list(progress.with_bar(range(5), "counting")) == [0, 1, 2, 3, 4]
    assert capsys.readouterr().err == ""
    import rich.progress  # noqa: F401  # first, or it would keep this clock for ever

    clock = iter(range(0, 100, 1))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    assert list(progress.with_bar(range(5), "counting")) == [0, 1, 2, 3, 4]
    assert "counting" in capsys.readouterr().err
    assert list(progress.with_bar(range(5), "counting", progress=False)) == [0, 1, 2, 3, 4]
    assert capsys.readouterr().err == ""
