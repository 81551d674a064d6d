"""The data report: its shape, its numbers, and each of its hints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefopt.modalities.text.rows import load_comparisons
from prefopt.sources.hints import marker_hints, method_hints
from prefopt.sources.report import write_dropped, write_report


def pair(prompt: str, chosen: str, rejected: str, **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **more}


def many(n: int = 40, **more: Any) -> list[dict[str, Any]]:
    """Pairs about which there is nothing to say: sides of every length, starting differently."""
    return [
        pair(f"p{i}", f"{i} " + "x" * (i * 7 % 11), f"{-i - 1} " + "y" * (i * 5 % 13), **more)
        for i in range(n)
    ]


def hints(rows: list[dict[str, Any]]) -> list[str]:
    return [f"{hint.level}: {hint.text}" for hint in load_comparisons(rows).report.hints]


def told(rows: list[dict[str, Any]], text: str) -> bool:
    return any(text in hint for hint in hints(rows))


def test_nothing_to_say_about_ordinary_data() -> None:
    assert hints(many()) == []


def test_the_shape_of_the_report() -> None:
    rows = [
        pair("ab", "c", "def"),
        pair("ab", "cc", "d", label="tie"),
        pair("ab", "ccc", "dddd", votes=[1, 1, 0]),
        pair("ab", "", "d"),
        pair("ab", "d", "d"),
    ]
    report = load_comparisons(rows).report.to_dict()
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report == {
        "source": "a list of rows in memory",
        "rows": 5,
        "examples": 3,
        "comparisons": {"wins": 1, "ties": 1, "soft": 1, "desirable": 0, "undesirable": 0},
        "dropped": {"empty_side": 1, "identical_sides": 1},
        "truncated": {"chosen": 0, "rejected": 0},
        "identical_sides": 1,
        "duplicates": 0,
        "conflicts": 0,
        "lengths": {
            "unit": "characters",
            "prompt": {"min": 2, "median": 2.0, "p95": 2.0, "max": 2, "mean": 2.0},
            "chosen": {"min": 1, "median": 2.0, "p95": pytest.approx(2.9), "max": 3, "mean": 2.0},
            "rejected": {
                "min": 1,
                "median": 3.0,
                "p95": pytest.approx(3.9),
                "max": 4,
                "mean": pytest.approx(8 / 3),
            },
        },
        # the tie's order says nothing, so its lengths do not count here
        "length_gap": {"mean": -1.5, "share_chosen_longer": 0.0},
        "histograms": report["histograms"],
        "label_balance_hint": None,
        "hints": report["hints"],
    }
    assert [set(hint) for hint in report["hints"]] == [{"level", "text"}] * len(report["hints"])
    chosen, rejected = report["histograms"]["chosen"], report["histograms"]["rejected"]
    assert chosen["edges"] == rejected["edges"]
    assert len(chosen["edges"]) == len(chosen["counts"]) + 1
    assert (sum(chosen["counts"]), sum(rejected["counts"])) == (3, 3)
    assert chosen["counts"] == np.histogram([1, 2, 3], chosen["edges"])[0].tolist()


def test_single_samples_in_the_report() -> None:
    rows = [{"prompt": "a", "completion": "b" * n, "label": n > 2} for n in (1, 2, 3, 4, 5)]
    report = load_comparisons(rows).report
    assert report.lengths["chosen"]["mean"] == 4
    assert report.lengths["rejected"]["mean"] == 1.5
    assert report.length_gap == {"mean": 2.5, "share_chosen_longer": None}
    assert "3 desirable and 2 undesirable" in (report.label_balance_hint or "")
    assert "between 0.667 and 0.889" in (report.label_balance_hint or "")
    only = load_comparisons(rows[2:]).report
    assert only.lengths["rejected"] is None
    assert only.label_balance_hint == "all 3 samples are desirable: unpaired objectives need both"
    assert load_comparisons(rows[:4]).report.label_balance_hint is None


def test_messages_are_measured_by_their_text() -> None:
    row = {
        "prompt": [{"role": "user", "content": "abc"}, {"role": "user", "content": "d"}],
        "chosen": [{"role": "assistant", "content": [{"type": "text", "text": "ef"}]}],
        "rejected": [{"role": "assistant", "content": "ghi"}],
    }
    lengths = load_comparisons([row]).report.lengths
    assert [lengths[side]["max"] for side in ("prompt", "chosen", "rejected")] == [4, 2, 3]


def test_duplicates_and_conflicts() -> None:
    rows = [
        pair("p", "a", "b"),
        pair("p", "a", "b"),
        pair("p", "a", "b"),
        pair("q", "a", "b"),
        pair("p", "b", "a"),
    ]
    rows += [pair("p", "a", "b", label="tie"), pair("p", "b", "a", label="tie")]
    report = load_comparisons(rows).report
    assert report.duplicates == 3  # two of the win, one of the tie, whose order says nothing
    assert report.conflicts == 1
    assert told(rows, "warn: 1 pair(s) are judged in both orders")
    assert told(rows, "warn: 1 pair(s) are a win in one row and a tie in another")
    assert told(rows, "note: 3 comparison(s) repeat an earlier one")


def test_the_same_pair_under_other_tools_is_no_duplicate() -> None:
    rows = [pair("p", "a", "b"), pair("p", "a", "b", tools=[{"type": "function"}])]
    assert load_comparisons(rows).report.duplicates == 0


def test_intransitive_triples() -> None:
    circle = [pair("p", "a", "b"), pair("p", "b", "c"), pair("p", "c", "a")]
    assert told(circle, "warn: 1 intransitive triple(s)")
    assert not told([*circle[:2], pair("p", "a", "c")], "intransitive")
    assert not told([*circle[:2], pair("q", "c", "a")], "intransitive")
    assert told([*circle, pair("p", "b", "d"), pair("p", "d", "a")], "warn: 2 intransitive triple(s)")


def test_counting_triples_gives_up_where_it_would_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefopt.sources.hints.TRIANGLE_STEPS", 2)
    circle = [pair("p", "a", "b"), pair("p", "b", "c"), pair("p", "c", "a")]
    assert told(circle, "note: intransitive triples were not counted")


def test_scores_that_are_equal_or_contradict() -> None:
    rows = many(20, score_chosen=1.0, score_rejected=0.0)
    assert not told(rows, "score")
    rows[3]["score_rejected"] = rows[4]["score_rejected"] = 1.0
    rows[5]["score_rejected"] = 2.0
    assert told(rows, "warn: 2 of 20 scored wins (10.0%) have equal scores")
    assert told(rows, "warn: 1 of 20 scored wins (5.0%) go against their scores")
    rows = [row | {"label": "tie"} for row in rows]
    assert not told(rows, "scored wins")


def test_length_as_a_shortcut() -> None:
    longer = [pair(f"p{i}", f"{i} yes indeed", f"{-i - 1} no") for i in range(30)]
    assert told(longer, "warn: the chosen side is longer in 100% of the pairs")
    shorter = [row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in longer]
    assert told(shorter, "warn: the chosen side is not longer in 100% of the pairs")
    assert not told(longer[:10], "the chosen side is")  # too few to tell
    equal = [pair(f"p{i}", f"{i:02} yes", f"{99 - i:02} yes") for i in range(30)]
    assert not told(equal, "the chosen side is")


def test_completions_that_start_alike() -> None:
    rows = [pair(f"p{i}", f"Sure! {i}", f"Sure! {-i - 1}") for i in range(25)]
    assert told(rows, "note: all 50 completions start with the same word, 'Sure!'")
    assert not told([*rows, pair("p", "No.", "Sure! x")], "start with the same word")


def test_special_tokens_in_the_text() -> None:
    rows = [pair("<s>What?", "Yes</s>", "No</s> "), pair("What?", "Yes", "No<|im_end|>")]
    assert told(rows, "note: 2 completion(s) end with the text </s>: nothing is added where")
    assert told(rows, "note: 1 completion(s) end with the text <|im_end|>")
    assert told(rows, "warn: 1 prompt(s) begin with the text <s>")


def test_ends_spelled_out_in_messages() -> None:
    turns = {
        side: [{"role": "assistant", "content": text}]
        for side, text in (("chosen", "a"), ("rejected", "b</s>"))
    }
    rows = [{"prompt": [{"role": "user", "content": "x"}], **turns}]
    assert told(rows, "warn: 1 completion(s) end with the text </s>: a chat template ends a turn itself")


def test_markers_of_another_tokenizer() -> None:
    chat = {side: [{"role": "assistant", "content": f"{side}</s>"}] for side in ("chosen", "rejected")}
    rows = [pair("<s>What?", "Yes</s>", "No</s>"), {"prompt": [{"role": "user", "content": "x"}], **chat}]
    examples = load_comparisons(rows).examples
    found = [hint.text for hint in marker_hints(examples, {"<s>", "<|im_end|>"})]
    assert found == [
        "4 text(s) end with the text </s>, which is no special token of this tokenizer but ordinary text"
    ]


def test_many_dropped_rows_are_a_warning_few_a_note() -> None:
    bad = pair("p", "", "x")
    assert told([*many(40), bad], "note: 1 of 41 rows (2.4%) were dropped: 1 empty_side")
    assert told([*many(4), bad], "warn: 1 of 5 rows (20.0%) were dropped: 1 empty_side")


def test_empty_prompts_are_told() -> None:
    assert told([pair("", "a", "b")], "warn: 1 example(s) have an empty prompt")


def test_whether_a_method_suits() -> None:
    wins, tied = (
        load_comparisons(many()).report,
        load_comparisons([*many(), pair("p", "a", "b", label="tie")]).report,
    )
    single = load_comparisons([{"prompt": "a", "completion": "b", "label": True}]).report
    rk = {"method": "dpo_rk", "has_tie_term": True, "unpaired": False}
    dpo = {"method": "dpo", "has_tie_term": False, "unpaired": False}
    kto = {"method": "kto", "has_tie_term": False, "unpaired": True}
    assert method_hints(tied, **rk) == method_hints(wins, **dpo) == method_hints(single, **kto) == []  # type: ignore[arg-type]
    for report, method, text in [
        (wins, rk, "models ties but the data has none"),
        (tied, dpo, "1 comparisons are ties: choose ties=drop, as_win or soft_half"),
        (single, dpo, "use kto or bco"),
        (tied, kto, "each of the 41 pairs becomes one desirable and one undesirable"),
    ]:
        [hint] = method_hints(report, **method)  # type: ignore[arg-type]
        assert text in hint.text


def test_written_files(tmp_path: Path) -> None:
    loaded = load_comparisons([pair("p", "ä", "b"), pair("p", "", "b", id="é")])
    write_report(loaded.report, tmp_path / "data.json")
    write_dropped(loaded.dropped, tmp_path / "dropped.jsonl")
    assert json.loads((tmp_path / "data.json").read_text("utf-8")) == loaded.report.to_dict()
    lines = (tmp_path / "dropped.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"row": 2, "id": "é", "reason": "empty_side", "detail": "chosen is empty"}
    ]
