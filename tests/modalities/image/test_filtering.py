"""Consistent pairs, against the golden vectors and at the edges of the rules."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from prefopt.comparisons import LOSE, TIE, WIN, Comparison, Example, Item, Outcome
from prefopt.modalities.image.filtering import (
    ASPECTS,
    Strategy,
    consistent,
    keep_consistent,
    winner_minus_loser,
)
from prefopt.modalities.image.rows import load_image_comparisons

[CASE] = [
    case
    for case in json.loads((Path(__file__).parents[2] / "data" / "lpo.json").read_text("utf-8"))
    if case["inputs"]["kind"] == "mpcf"
]


def gap(aesthetic: float = 0.0, clip: float = 0.0, vqa: float = 0.0) -> dict[str, float]:
    return {"aesthetic": aesthetic, "clip": clip, "vqa": vqa}


@pytest.mark.parametrize("strategy", [1, 2, 3])
@pytest.mark.parametrize("order", [1, -1])
def test_golden_vectors(strategy: Strategy, order: int) -> None:
    """Also with the gaps in another order than the rows: ids decide."""
    given = CASE["inputs"]
    ids = [f"row-{n}" for n in range(len(given["decisive"]))]
    labels = {i: WIN if decisive else TIE for i, decisive in zip(ids, given["decisive"], strict=True)}
    values = zip(*(given[f"gap_{a}"] for a in ASPECTS), strict=True)
    gaps = dict(list(zip(ids, (gap(*v) for v in values), strict=True))[::order])
    expected = [i for i, keep in zip(ids, CASE["expected"][f"keep_strategy_{strategy}"], strict=True) if keep]
    result = consistent(labels, gaps, strategy)
    assert result.kept == expected
    assert set(result.dropped) == set(ids) - set(expected)


@pytest.mark.parametrize(("strategy", "lowest"), [(1, 0.0), (2, -0.5), (3, -1.0)])
def test_bounds_of_wins_are_kept(strategy: Strategy, lowest: float) -> None:
    def keeps(**values: float) -> bool:
        return consistent({"a": WIN}, {"a": gap(**values)}, strategy).kept == ["a"]

    assert keeps(aesthetic=lowest)
    assert not keeps(aesthetic=math.nextafter(lowest, -2))
    assert not keeps(clip=-1e-9)
    assert not keeps(vqa=-1e-9)
    assert keeps(aesthetic=9, clip=1, vqa=1)


@pytest.mark.parametrize("sign", [1, -1])
def test_bounds_of_ties_go_both_ways(sign: int) -> None:
    for aspect, widest in (("aesthetic", 0.2), ("clip", 0.03), ("vqa", 0.07)):
        at, beyond = gap(**{aspect: sign * widest}), gap(**{aspect: sign * (widest + 1e-9)})
        result = consistent({"at": TIE, "beyond": TIE}, {"at": at, "beyond": beyond})
        assert result.kept == ["at"]
        assert result.dropped["beyond"][0] == "unequal_tie"
        assert result.counts[f"tie/{aspect}"] == 1


def test_counts_say_what_went_and_why() -> None:
    labels = {"a": WIN, "b": WIN, "c": LOSE, "d": TIE, "e": WIN, "f": WIN}
    gaps = {
        "a": gap(),
        "b": gap(aesthetic=-2, clip=-0.1),
        "c": gap(clip=-0.1),
        "d": gap(vqa=0.5),
        "e": gap(aesthetic=math.nan),
    }
    result = consistent(labels, gaps)
    assert {k: v for k, v in result.counts.items() if v} == {
        "wins": 5, "wins_kept": 1, "ties": 1, "no_gaps": 2, "win/aesthetic": 1, "win/clip": 2, "tie/vqa": 1,
    }  # fmt: skip
    assert result.dropped["b"] == (
        "inconsistent_win",
        "a win with aesthetic gap -2 < -0.5, clip gap -0.1 < 0",
    )
    assert [result.dropped[i][0] for i in "ef"] == ["no_gaps", "no_gaps"]


def test_soft_votes_count_by_majority() -> None:
    labels = {"win": Outcome(0.6, 0.2, 0.2), "tie": Outcome(0.3, 0.3, 0.4)}
    gaps = {"win": gap(clip=0.5), "tie": gap(clip=0.5)}
    assert consistent(labels, gaps).kept == ["win"]


def test_gap_points_from_loser_to_winner() -> None:
    assert winner_minus_loser(WIN, 3, 1) == 2
    assert winner_minus_loser(LOSE, 3, 1) == -2
    assert winner_minus_loser(TIE, 3, 1) == 2


def test_errors_name_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="strategy 4 is not one of: 1, 2, 3"):
        consistent({"a": WIN}, {"a": gap()}, 4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="ids of pairs begin with a, those of gaps with 0"):
        consistent({"a": WIN}, {"0": gap()})
    with pytest.raises(ValueError, match=r"aestetic, clip, vqa; needed .*did you mean 'aesthetic'"):
        consistent({"a": WIN}, {"a": {"aestetic": 1.0, "clip": 1.0, "vqa": 1.0}})


def rows(folder: Path) -> list[dict[str, Any]]:
    from PIL import Image

    for n in range(8):
        Image.new("RGB", (16, 16), (30 * n, 0, 9 * n)).save(folder / f"{n}.png")
    data = [(1, gap()), (0, gap(aesthetic=-0.5)), (1, gap(clip=-0.01)), (0.5, gap(clip=-0.031))]
    return [
        {
            "id": f"pair{n}",
            "caption": f"picture {n}",
            "jpg_0": str(folder / f"{2 * n}.png"),
            "jpg_1": str(folder / f"{2 * n + 1}.png"),
            "label_0": label,
            **{f"gap_{a}": value for a, value in values.items()},
        }
        for n, (label, values) in enumerate(data)
    ]


def test_a_data_set_by_ids_and_by_columns(tmp_path: Path) -> None:
    given = rows(tmp_path)
    by_column = load_image_comparisons(given, columns=[f"gap_{a}" for a in ASPECTS])
    plain = load_image_comparisons([{k: v for k, v in r.items() if not k.startswith("gap")} for r in given])
    gaps = {r["id"]: {a: r[f"gap_{a}"] for a in ASPECTS} for r in reversed(given)}
    for result in (keep_consistent(by_column), keep_consistent(plain, gaps)):
        assert [example.id for example in result] == ["pair0", "pair1"]
        assert result.report.dropped == {"inconsistent_win": 1, "unequal_tie": 1}
        assert result.report.comparisons["wins"] == 2
        assert result.report.comparisons["ties"] == 0
        assert [(d.row, d.id) for d in result.dropped] == [(3, "pair2"), (4, "pair3")]
    with pytest.raises(ValueError, match="needed aesthetic, clip, vqa"):
        keep_consistent(plain)
    with pytest.raises(ValueError, match=r"no pair of .* is consistent under strategy 1: 3 wins"):
        keep_consistent(plain, {i: gap(vqa=-1) for i in gaps}, 1)


def test_only_pairs_can_be_filtered(tmp_path: Path) -> None:
    data = load_image_comparisons(rows(tmp_path))
    data.examples[0] = Example("single", (Item({}, "x"),), (Comparison(0, None),))
    with pytest.raises(ValueError, match="example single is not one pair"):
        keep_consistent(data, {})
