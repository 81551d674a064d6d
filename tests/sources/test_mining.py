"""Candidates to comparisons: each rule against its definition, by hand and by brute force."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefopt.modalities.text.rows import load_comparisons
from prefopt.sources import mining

Told = list[tuple[Any, Any, str]]


def prompt(*values: Any, key: str = "score", **more: Any) -> dict[str, Any]:
    """A row whose candidates are the texts a, b, c, ... with these values."""
    candidates = [{"text": chr(ord("a") + n), key: value} for n, value in enumerate(values)]
    return {"prompt": "p", "candidates": candidates, **more}


def told(mined: mining.Mined) -> Told:
    return [(row["chosen"], row["rejected"], row["label"]) for row in mined.rows]


# -- R1 --------------------------------------------------------------------------------------------------


def test_extremes_and_closest() -> None:
    mined = mining.extremes_and_closest([prompt(0.1, 0.9, 0.4, 0.45), prompt(3, 1, 2.5)])
    assert told(mined) == [("b", "a", "win"), ("d", "c", "tie"), ("a", "b", "win"), ("a", "c", "tie")]
    assert (mined.prompts, mined.wins, mined.ties, mined.dropped) == (2, 2, 2, {})


def test_what_a_row_says_about_itself() -> None:
    row = prompt(0.1, 0.9, id="q7", source="site", tools=[{"x": 1}])
    [made] = mining.extremes_and_closest([row]).rows
    assert made == {
        **{"id": "q7/win-1", "prompt": "p", "chosen": "b", "rejected": "a", "label": "win"},
        **{"score_chosen": 0.9, "score_rejected": 0.1, "source": "site", "rule": "extremes_and_closest"},
        "tools": [{"x": 1}],
    }
    assert mining.extremes_and_closest([prompt(0.1, 0.9)]).rows[0]["source"] == "row-1"


def test_more_pairs_of_a_prompt_take_fresh_candidates_first() -> None:
    mined = mining.extremes_and_closest([prompt(0, 1, 10, 12, 30, 33)], pairs_per_prompt=2)
    assert told(mined) == [("f", "a", "win"), ("b", "a", "tie"), ("e", "b", "win"), ("d", "c", "tie")]


def test_two_candidates_are_a_win_and_not_a_tie_as_well() -> None:
    mined = mining.extremes_and_closest([prompt(1, 2)])
    assert told(mined) == [("b", "a", "win")]
    assert mined.dropped == {"no_second_pair_for_a_tie": 1}


def test_equal_scores_give_a_tie_and_no_win() -> None:
    mined = mining.extremes_and_closest([prompt(1, 1, 1)])
    assert told(mined) == [("a", "b", "tie")]
    assert mined.dropped == {"all_scores_equal": 1}


def test_identical_texts_count_once() -> None:
    row = prompt(1, 2, 3)
    row["candidates"] += [
        {"text": "a", "score": 3.1},
        {"text": " ", "score": 9},
        {"text": "z", "score": float("nan")},
    ]
    mined = mining.extremes_and_closest([row, {"prompt": "q", "candidates": [{"text": "x", "score": 1}] * 2}])
    assert told(mined) == [("c", "a", "win"), ("c", "b", "tie")]
    assert mined.dropped == {
        **{"duplicate_candidate": 2, "candidate_without_text": 1, "candidate_without_score": 1},
        "fewer_than_two_distinct_candidates": 1,
    }


def test_the_mean_of_several_scores() -> None:
    row = prompt({"x": 0, "y": 4}, {"x": 1, "y": 1}, {"x": 1.8, "y": 2}, key="scores")
    assert told(mining.extremes_and_closest([row])) == [("a", "b", "win"), ("a", "c", "tie")]


scored = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 6)), min_size=2, max_size=8)


@settings(max_examples=60, deadline=None)
@given(scored, st.integers(1, 4))
def test_extremes_and_closest_against_brute_force(candidates: list[tuple[str, int]], n: int) -> None:
    row = {"prompt": "p", "candidates": [{"text": text, "score": score} for text, score in candidates]}
    mined = mining.extremes_and_closest([row], pairs_per_prompt=n)
    first: dict[str, int] = {}
    for text, score in candidates:
        first.setdefault(text, score)
    gaps = {frozenset(p): abs(first[p[0]] - first[p[1]]) for p in itertools.combinations(first, 2)}
    pairs = [frozenset((r["chosen"], r["rejected"])) for r in mined.rows]
    assert len(set(pairs)) == len(pairs)  # no pair twice, none both win and tie
    assert all(len(pair) == 2 for pair in pairs)
    assert mined.wins <= n >= mined.ties
    for row in mined.rows:
        assert (
            first[row["chosen"]] - first[row["rejected"]] == row["score_chosen"] - row["score_rejected"] >= 0
        )
    wins = [pair for pair, row in zip(pairs, mined.rows, strict=True) if row["label"] == "win"]
    ties = [pair for pair, row in zip(pairs, mined.rows, strict=True) if row["label"] == "tie"]
    assert all(gaps[pair] > 0 for pair in wins)
    assert bool(wins) == any(gaps.values())
    if wins:
        assert gaps[wins[0]] == max(gaps.values())
    left = {pair: gap for pair, gap in gaps.items() if pair not in wins[:1]}
    assert bool(ties) == bool(left)
    if ties:
        assert gaps[ties[0]] == min(left.values())


# -- R2 --------------------------------------------------------------------------------------------------


def margins(*values: Any, of: str = "p") -> list[dict[str, Any]]:
    return [{"prompt": of, "chosen": f"c{n}", "rejected": f"r{n}", "margin": m} for n, m in enumerate(values)]


def test_smallest_margin() -> None:
    rows = [*margins(3.0, 0.5, -2.0), *margins(0.1, of="q")]
    mined = mining.smallest_margin(rows)
    assert [row["label"] for row in mined.rows] == ["win", "tie", "win", "win"]
    assert mined.rows[1] == {
        **{"source": "row-2", "prompt": "p", "chosen": "c1", "rejected": "r1", "margin": 0.5},
        **{"id": "row-2", "label": "tie", "rule": "smallest_margin"},
    }
    single = mining.smallest_margin(rows, include_single=True)
    assert [row["label"] for row in single.rows] == ["win", "tie", "win", "tie"]


def test_smallest_margin_drops_what_it_cannot_use_and_says_what_it_needs() -> None:
    rows = [*margins(float("nan"), 1.0, None), {"prompt": "p", "chosen": "x", "rejected": "x", "margin": 0.0}]
    mined = mining.smallest_margin(rows)
    assert (mined.dropped, mined.wins) == ({"bad_margin": 2, "identical_sides": 1}, 1)
    renamed = [{**row, "d": row["margin"]} for row in margins(1, 2)]
    assert mining.smallest_margin(renamed, margin="d").ties == 1
    with pytest.raises(
        ValueError, match=r"row 1 has no 'd'; .* implicit margin of each pair under a DPO-trained policy"
    ):
        mining.smallest_margin(margins(1.0), margin="d")


# -- R3 --------------------------------------------------------------------------------------------------


def test_conflicting_judges() -> None:
    judged = prompt({"x": 0.9, "y": 0.8}, {"x": 0.5, "y": 0.4}, {"x": 0.6, "y": 0.2}, key="scores")
    mined = mining.conflicting_judges([judged])
    assert told(mined) == [("a", "c", "win"), ("b", "c", "tie")]
    assert [(r["score_chosen"], r["score_rejected"]) for r in mined.rows] == [
        *((pytest.approx(0.85), pytest.approx(0.4)), (pytest.approx(0.45), pytest.approx(0.4)))
    ]


def test_of_several_conflicts_the_nearest_pair_ties_and_equal_scores_are_no_conflict() -> None:
    values = [{"x": 9, "y": 9}, {"x": 6, "y": 1}, {"x": 2, "y": 4.5}, {"x": 0, "y": 0}, {"x": 2, "y": 4.4}]
    # b and c, b and e are disputed (means 3.5, 3.25, 3.2); c and e agree on x but not on y
    mined = mining.conflicting_judges([prompt(*values, key="scores")])
    assert told(mined) == [("a", "d", "win"), ("b", "c", "tie")]


def test_the_win_of_conflicting_judges_is_not_its_tie() -> None:
    mined = mining.conflicting_judges([prompt({"x": 1, "y": 0}, {"x": 0, "y": 0.5}, key="scores")])
    assert told(mined) == [("a", "b", "win")]
    assert mined.dropped == {"no_conflict_for_a_tie": 1}
    mined = mining.conflicting_judges([prompt({"x": 1, "y": 0}, {"x": 0, "y": 1}, key="scores")])
    assert told(mined) == [("a", "b", "tie")]
    assert mined.dropped == {"all_scores_equal": 1}


def test_judges_must_be_two_and_the_same() -> None:
    mined = mining.conflicting_judges(
        [
            prompt({"x": 1, "y": 0}, {"x": 0, "z": 0.5}, key="scores"),
            prompt({"x": 1}, {"x": 0, "y": 1}, key="scores"),
        ]
    )
    assert mined.dropped == {
        **{"different_judges": 1, "candidate_without_scores": 1, "fewer_than_two_distinct_candidates": 1}
    }


# -- R4 --------------------------------------------------------------------------------------------------


def test_all_correct() -> None:
    rows = [
        prompt(True, False, key="correct"),
        prompt(True, True, key="correct"),
        prompt(False, False, key="correct"),
    ]
    mined = mining.all_correct(rows)
    assert mined.rows[0]["chosen"] == "a"
    assert [row["label"] for row in mined.rows] == ["win", "tie"]
    assert {mined.rows[1]["chosen"], mined.rows[1]["rejected"]} == {"a", "b"}
    assert mined.dropped == {"all_wrong": 1}


def test_choices_depend_on_seed_and_id_alone() -> None:
    rows = [prompt(*[True] * 8, *[False] * 8, key="correct", id=f"q{n}") for n in range(20)]
    mined = mining.all_correct(rows, seed=3).rows
    assert mining.all_correct(rows[::-1], seed=3).rows == mined[::-1]
    assert mining.all_correct(rows, seed=4).rows != mined
    assert len({(row["chosen"], row["rejected"]) for row in mined}) > 5


def test_a_text_both_right_and_wrong_is_out() -> None:
    row = prompt(True, False, True, key="correct")
    row["candidates"].append({"text": "a", "correct": False})
    mined = mining.all_correct([row])
    assert told(mined) == [("c", "b", "win")]
    assert mined.dropped == {"duplicate_candidate": 1, "both_right_and_wrong": 1}


# -- thresholds and ranks ----------------------------------------------------------------------------------


def test_threshold() -> None:
    rows = [prompt(0.0, 0.5, 0.25)]
    assert told(mining.threshold(rows, eps=0.25)) == [("b", "c", "tie"), ("b", "a", "win"), ("c", "a", "tie")]
    assert told(mining.threshold(rows, eps=0, pairs="adjacent")) == [("b", "c", "win"), ("c", "a", "win")]
    with pytest.raises(TypeError, match="eps"):
        mining.threshold(rows)  # type: ignore[call-arg]
    for eps in (-1, float("nan"), "x", True):
        with pytest.raises(ValueError, match="eps must be a number >= 0"):
            mining.threshold(rows, eps=eps)  # type: ignore[arg-type]


def test_threshold_labels_pairs_anew() -> None:
    pair = {"prompt": "p", "chosen": "a", "rejected": "b", "label": "win"}
    scores = [(1.0, 0.9), (1.0, 0.0), (0.0, 1.0), (None, 1.0)]
    rows = [pair | {"score_chosen": c, "score_rejected": r, "extra": 1} for c, r in scores]
    mined = mining.threshold(rows, eps=0.2)
    assert told(mined) == [("a", "b", "tie"), ("a", "b", "win"), ("b", "a", "win")]
    assert mined.rows[2]["score_chosen"] == 1.0
    assert mined.rows[2]["extra"] == 1
    assert mined.dropped == {"bad_score": 1}
    with pytest.raises(ValueError, match="row 1 has no 'score_chosen'"):
        mining.threshold([pair], eps=0.1)


ranks = st.lists(st.integers(1, 5), min_size=2, max_size=8)


@settings(max_examples=60, deadline=None)
@given(ranks, st.sampled_from(["all", "adjacent", "best_vs_rest"]))
def test_ranks_to_pairs_against_the_definition(values: list[int], pairs: Any) -> None:
    mined = mining.ranks_to_pairs([prompt(*values, key="rank")], pairs)
    rank = {chr(ord("a") + n): value for n, value in enumerate(values)}
    n = len(values)
    assert len(mined.rows) == (n * (n - 1) // 2 if pairs == "all" else n - 1)
    assert len({frozenset((r["chosen"], r["rejected"])) for r in mined.rows}) == len(mined.rows)
    assert len({r["id"] for r in mined.rows}) == len(mined.rows)
    for row in mined.rows:
        better, worse = rank[row["chosen"]], rank[row["rejected"]]
        assert better <= worse
        assert row["label"] == ("tie" if better == worse else "win")
        if pairs == "best_vs_rest":
            assert better == min(values)
        if pairs == "adjacent":
            assert not any(better < other < worse for other in values)
    # what the pairs say is a consistent order: no hint of conflicts or circles
    report = load_comparisons(mined.rows).report
    assert report.conflicts == report.duplicates == 0
    assert not any("intransitive" in hint.text or "scored" in hint.text for hint in report.hints)


def test_an_unknown_pairing() -> None:
    with pytest.raises(ValueError, match="pairs='some' is not one of: all, adjacent, best_vs_rest"):
        mining.ranks_to_pairs([prompt(1, 2, key="rank")], "some")  # type: ignore[arg-type]


# -- input and output ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"candidates": []}, "row 1 has no 'prompt'"),
        ({"prompt": "p", "chosen": "a"}, "row 1 has no 'candidates'; needed .*the row has prompt, chosen"),
        ({"prompt": "p", "candidates": ["a", "b"]}, "row 1: candidates must be a list of objects"),
        ({"prompt": "p", "candidates": "ab"}, "row 1: candidates must be a list of objects"),
        (
            prompt(1, 2, key="points"),
            "needs a number `rank`, 1 for the best, with each candidate, and no candidate",
        ),
    ],
)
def test_input_that_is_no_list_of_candidates(row: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mining.ranks_to_pairs([row])


def test_ids_of_prompts_must_be_unique() -> None:
    with pytest.raises(ValueError, match="id 'x' is on rows 1 and 2"):
        mining.extremes_and_closest([prompt(1, 2, id="x"), prompt(1, 2, id="x")])


def test_a_text_after_a_conversation_becomes_a_message() -> None:
    row = prompt(1, 2) | {"prompt": [{"role": "user", "content": "Hi"}]}
    mined = mining.extremes_and_closest([row])
    assert mined.rows[0]["chosen"] == [{"role": "assistant", "content": "b"}]
    assert len(load_comparisons(mined.rows)) == 1


def test_the_input_is_left_alone() -> None:
    rows = margins(3.0, -0.5)
    before = [dict(row) for row in rows]
    mining.smallest_margin(rows)
    assert rows == before
