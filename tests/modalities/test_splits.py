"""What is trained on and what is held out: whole prompts apart, ties as asked, nothing lost on the way."""

from __future__ import annotations

from array import array
from collections import Counter
from typing import Any

import pytest

from conftest import ROWS
from prefopt import objectives
from prefopt.comparisons import TIE, Comparison, Encoded, Outcome
from prefopt.config import ConfigError, resolve
from prefopt.likelihoods.plan import EncodedText
from prefopt.likelihoods.tokens import TokenLikelihood
from prefopt.modalities import splits as data
from prefopt.modalities.splits import digest, has_ties, hold_out, merge_dropped, prompt_key, read, suit
from prefopt.modalities.text.rows import load_comparisons
from prefopt.modalities.text.setup import Language, prepare
from prefopt.models.loading import load_tokenizer
from prefopt.sources.report import Dropped

# ten prompts, two rows each
PAIRS = [{**row, "chosen": row["chosen"] + end} for row in ROWS for end in (" fig", " red")]
SINGLES = [{"prompt": r["prompt"], "completion": r["chosen"], "label": True} for r in ROWS]
TIED = [*ROWS[:4], {**ROWS[4], "label": "tie"}, {**ROWS[5], "votes": [1, 0, 1]}]


def config(method: str = "dpo", **given: Any) -> Any:
    return resolve({"method": method, "model": "m", "data": "d", **given})[0]


def split(method: str, rows: list[dict[str, Any]], **given: Any) -> data.Split:
    return read(config(method, **given), objectives.get(method), lambda source, **_: load_comparisons(rows))


def prompts(comparisons: Any) -> list[str]:
    return [e.items[0].condition["prompt"] for e in comparisons.examples]


def outcomes(comparisons: Any) -> list[tuple[float, ...]]:
    return [tuple(e.comparisons[0].outcome) for e in comparisons.examples]


# -- holding out -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "rows"), [(0.3, 6), (4, 4), (1, 2), (0.05, 2), (5, 6)])
def test_whole_prompts_are_held_out(size, rows):
    everything = load_comparisons(PAIRS)
    train, held_out = hold_out(everything, size, seed=0)
    assert len(held_out.examples) == rows  # rounded up to whole prompts of two rows
    assert len(train.examples) + rows == len(PAIRS)
    assert not set(prompts(train)) & set(prompts(held_out))
    ids = Counter(e.id for e in (*train.examples, *held_out.examples))
    assert ids == Counter(e.id for e in everything.examples)


def test_nothing_or_almost_everything_is_held_out():
    everything = load_comparisons(PAIRS)
    for size in (0, 0.01):
        train, held_out = hold_out(everything, size, seed=0)
        assert (len(train.examples), len(held_out.examples)) == (20, 0)
    train, held_out = hold_out(everything, 19, seed=0)
    assert len(set(prompts(train))) == 1  # there is something left to train on
    with pytest.raises(ConfigError, match="would hold out all 20 rows"):
        hold_out(everything, 1000, seed=0)


def test_the_choice_follows_the_seed():
    everything = load_comparisons(PAIRS)
    chosen = [sorted(prompts(hold_out(everything, 6, seed)[1])) for seed in (0, 0, 1, 2)]
    assert chosen[0] == chosen[1]
    assert len({tuple(c) for c in chosen}) == 3


def test_prompts_differ_by_all_of_their_condition():
    tools = [{"name": "a"}], [{"name": "b"}]
    rows = [{**ROWS[0], "prompt": [{"role": "user", "content": "x"}], "tools": t,
             "chosen": [{"role": "assistant", "content": "y"}],
             "rejected": [{"role": "assistant", "content": "z"}]} for t in tools]  # fmt: skip
    assert len({prompt_key(e) for e in load_comparisons(rows).examples}) == 2


# -- the form that the objective takes ---------------------------------------------------------------------------


def test_ties_for_an_objective_that_models_them():
    found = split("dpo_rk", TIED, eval_size=0)
    assert outcomes(found.train) == [(1, 0, 0)] * 4 + [(0, 0, 1), (0.5, 0, 0.5)]
    # unless asked otherwise
    assert outcomes(split("dpo_rk", TIED, eval_size=0, ties="drop").train) == [(1, 0, 0)] * 5


def test_ties_for_an_objective_without_a_term_need_a_decision():
    with pytest.raises(ValueError, match=r"drop.*as_win.*soft_half"):
        split("dpo", TIED, eval_size=0)
    assert outcomes(split("dpo", TIED, eval_size=0, ties="as_win").train)[4] == (1, 0, 0)
    assert outcomes(split("dpo", TIED, eval_size=0, ties="soft_half").train)[4] == (0.5, 0.5, 0)


def test_held_out_ties_are_kept():
    everything = load_comparisons(TIED)
    tied = (0, 0, 1)
    assert tied in outcomes(suit(everything, objectives.get("dpo"), config(ties="drop"), keep_ties=True))
    assert tied not in outcomes(suit(everything, objectives.get("dpo"), config(ties="drop")))
    # where losses hang together within a batch a tie would change those of its neighbours
    assert tied not in outcomes(
        suit(everything, objectives.get("aot"), config("aot", ties="drop"), keep_ties=True)
    )
    half = [{**row, "label": "tie"} if k % 2 else row for k, row in enumerate(ROWS)]
    kept = split("dpo", half, ties="drop", eval_size=0.5)
    assert tied in outcomes(kept.held_out)
    assert tied not in outcomes(kept.train)


def test_pairs_and_single_samples():
    pairs, singles = load_comparisons(ROWS), load_comparisons(SINGLES)
    kto = objectives.get("kto")
    cut = suit(pairs, kto, config("kto"))
    assert len(cut.examples) == 2 * len(ROWS)
    assert all(e.comparisons[0].second is None for e in cut.examples)
    assert suit(singles, kto, config("kto")) is singles
    with pytest.raises(ConfigError, match=r"compares pairs.*kto or bco"):
        suit(singles, objectives.get("dpo"), config())


# -- sources -----------------------------------------------------------------------------------------------------


def test_evaluation_data_of_its_own():
    asked = []

    def load(source, **options):
        asked.append((source, options["split"], options["config_name"], options["columns"]))
        return load_comparisons(ROWS[:6] if source == "d" else ROWS[6:])

    given = {"eval_data": "e", "split": "part", "data_config": "c", "columns": ["x"]}
    found = read(config(**given), objectives.get("dpo"), load)
    assert asked == [("d", "part", "c", ["x"]), ("e", "train", "c", ["x"])]
    assert (len(found.train.examples), len(found.held_out.examples)) == (6, 4)
    assert [p["prompt"] for p in found.prompts] == [row["prompt"] for row in ROWS[6:]]


def test_prompts_are_held_out_where_possible_and_each_once():
    found = split("dpo", PAIRS, eval_size=6)
    assert [p["prompt"] for p in found.prompts] == list(dict.fromkeys(prompts(found.held_out)))
    found = split("dpo", PAIRS, eval_size=0)
    assert [p["prompt"] for p in found.prompts] == [row["prompt"] for row in ROWS]


def test_first_rows_only():
    found = split("dpo", ROWS, eval_size=0, max_examples=3)
    assert prompts(found.train) == [row["prompt"] for row in ROWS[:3]]


class World:
    """Records what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def comparisons(self, n_prompts: int, **options: Any) -> list[dict[str, Any]]:
        self.asked.append(options)
        return ROWS[:6] if options["split"] == "train" else ROWS[6:]


def test_worlds_are_judged_on_clean_test_rows(monkeypatch):
    world = World()
    monkeypatch.setattr(data, "world_of", lambda source: world if source.startswith("world:") else None)
    given = config(data="world:text", label_noise=0.3, seed=5)
    found = read(given, objectives.get("dpo"), lambda rows, columns: load_comparisons(rows, columns=columns))
    assert world.asked == [
        {"split": "train", "label_noise": 0.3, "seed": 5},
        {"split": "test", "label_noise": 0.0, "seed": 5},
    ]
    assert (len(found.train.examples), len(found.held_out.examples)) == (6, 4)
    assert found.train.report.source == "world:text"


# -- encoded examples --------------------------------------------------------------------------------------------


def encoded(
    name: str, ids: list[int], aside: tuple[EncodedText, ...] = (), **edge: Any
) -> Encoded[EncodedText]:
    return Encoded(name, (EncodedText(array("i", ids), 1),), (Comparison(0, None, **edge),), aside)


def test_digest_covers_everything():
    def key(item: EncodedText) -> str:
        return f"{item.start} {item.ids.tolist()}"

    start = encoded("a", [1, 2, 3])
    other = EncodedText(array("i", [9, 9]), 1)
    variants = [
        [start],
        [encoded("b", [1, 2, 3])],
        [encoded("a", [1, 2, 4])],
        [encoded("a", [1, 2, 3], outcome=TIE)],
        [encoded("a", [1, 2, 3], weight=2.0)],
        [encoded("a", [1, 2, 3], (other,))],
        [start, start],
    ]
    assert len({digest(examples, key) for examples in variants}) == len(variants)
    assert digest([start, variants[1][0]], key) != digest([variants[1][0], start], key)
    assert digest([start], key) == digest(iter([encoded("a", [1, 2, 3])]), key)


def test_part_ties_are_ties():
    assert has_ties([encoded("a", [1, 2], outcome=Outcome(0.6, 0.0, 0.4))])
    assert not has_ties([encoded("a", [1, 2])])


def test_dropped_rows_are_listed_once():
    one, two = Dropped(1, "a", "empty", "x"), Dropped(2, "b", "empty", "x")
    assert merge_dropped([one, two], [two, one], []) == [one, two]


# -- text, all the way -------------------------------------------------------------------------------------------


def prepared(
    method: str, tiny_model: Any, path: Any, limit: int | None = None, **given: Any
) -> data.PreparedData:
    likelihood = TokenLikelihood(load_tokenizer(str(tiny_model)), limit)
    return prepare(config(method, data=str(path), **given), objectives.get(method), likelihood, Language())


def test_prepared_text(tiny_model, rows_file):
    path = rows_file(PAIRS)
    found = prepared("dpo", tiny_model, path, eval_size=4)
    assert (len(found.train), len(found.held_out)) == (16, 4)
    assert len(found.prompts) == 2
    assert found.fingerprint == prepared("dpo", tiny_model, path, eval_size=4).fingerprint
    others = [
        prepared("dpo", tiny_model, path, eval_size=4, seed=1),
        prepared("dpo", tiny_model, path, eval_size=0),
    ]
    assert len({found.fingerprint, *(o.fingerprint for o in others)}) == 3


def test_fingerprint_covers_held_out_rows(tiny_model, rows_file, tmp_path):
    path = rows_file(ROWS[:4])
    prints = set()
    for rows in (ROWS[4:6], ROWS[6:8]):
        other = tmp_path / "eval.jsonl"
        other.write_text(rows_file(rows).read_text())
        path = rows_file(ROWS[:4])
        prints.add(prepared("dpo", tiny_model, path, eval_data=str(other)).fingerprint)
    assert len(prints) == 2


def test_single_samples_have_mismatched_ones_on_both_splits(tiny_model, rows_file):
    found = prepared("kto", tiny_model, rows_file(ROWS), eval_size=3)
    assert found.held_out
    assert all(len(e.aside) == 1 for e in (*found.train, *found.held_out))
    assert not any(e.aside for e in prepared("bco", tiny_model, rows_file(ROWS), eval_size=3).train)


def test_rows_that_do_not_fit_are_listed_from_both_splits(tiny_model, rows_file, tmp_path):
    long = {**ROWS[0], "prompt": "Sort: " + "fig " * 40}
    other = tmp_path / "eval.jsonl"
    other.write_text(rows_file([*ROWS[5:], long]).read_text())
    path = rows_file([long, *ROWS[:5]])
    found = prepared("dpo", tiny_model, path, limit=30, eval_data=str(other))
    assert sorted(d.row for d in found.dropped) == [1, 6]  # first of the training rows, last of the held-out
    assert (len(found.train), len(found.held_out)) == (5, 5)


def test_ties_that_slip_through_are_refused(tiny_model, rows_file, monkeypatch):
    """The last check before training: data that the objective has no term for."""
    monkeypatch.setattr(data, "apply_ties_policy", lambda comparisons, policy: comparisons)
    with pytest.raises(ValueError, match="no tie term"):
        prepared("dpo", tiny_model, rows_file(TIED), ties="drop", eval_size=0)


def test_held_out_singles_may_all_be_bad_and_those_to_train_on_may_not():
    def split_of(*good: bool) -> data.Split:
        rows = [{**SINGLES[n], "label": label} for n, label in enumerate(good)]
        trained, judged = ([rows[n] for n in some] for some in ((0, 1, 2), (3, 4)))

        def load(source: str, **_: Any) -> Any:
            return load_comparisons(judged if source == "judged" else trained)

        return read(config("sft", eval_data="judged", eval_split="train"), objectives.get("sft"), load)

    found = split_of(True, True, False, False, False)
    assert (len(found.train.examples), len(found.held_out.examples)) == (2, 0)
    assert found.not_held_out == (
        "no held-out row is labelled as good: what evaluations measure is measured on training rows"
    )
    assert [drop.reason for drop in found.held_out.dropped] == ["not_good"] * 2
    with pytest.raises(ConfigError, match="sft learns from good samples, and d labels none as good"):
        split_of(False, False, False, True, True)
