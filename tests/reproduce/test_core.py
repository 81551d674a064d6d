"""The verdict rule, on constructed cases, and the files a reproduction leaves behind."""

from __future__ import annotations

import json
import math
import re

import pytest

from prefopt.reproduce.core import Reproduction, Table, directional, everywhere, t_interval, within
from prefopt.reproduce.page import measured
from prefopt.reproduce.writing import write


def claim(values, **more):
    return directional("up", values, source="Table 1", how="after - before", **more)


def test_t_interval_against_a_worked_example():
    # mean 3, standard deviation sqrt(2.5), t(0.975, 4) = 2.776445
    low, high = t_interval([1, 2, 3, 4, 5])
    half = 2.776445 * math.sqrt(2.5) / math.sqrt(5)
    assert (low, high) == pytest.approx((3 - half, 3 + half), rel=1e-6)


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([0.2, 0.3, 0.25, 0.22], "holds"),
        ([-0.2, -0.3, -0.25, -0.22], "does not hold here"),
        ([-0.2, 0.3, 0.1, -0.15], "inconclusive"),
        ([5.0], "inconclusive"),  # one seed shows nothing, however large
        ([0.0, 0.0, 0.0], "does not hold here"),  # no effect at all, seen three times
        ([0.5, 0.5], "holds"),
    ],
)
def test_verdict_follows_where_the_interval_lies(values, verdict):
    assert claim(values).verdict == verdict


def test_smallest_effect_turns_a_tight_interval_around_zero_into_a_no():
    values = [0.01, -0.01, 0.005, -0.004]
    assert claim(values).verdict == "inconclusive"
    assert claim(values, smallest_effect=0.1).verdict == "does not hold here"
    assert claim([0.2, 0.21, 0.19], smallest_effect=0.1).verdict == "holds"


@pytest.mark.parametrize("values", [[], [0.1, math.nan], [math.inf, 1.0]])
def test_runs_that_diverged_are_not_averaged(values):
    with pytest.raises(ValueError, match="diverged"):
        claim(values)


def test_everywhere_is_as_strong_as_its_weakest_setting():
    up, unsure, down = [1.0, 1.1, 0.9], [-5.0, 5.0, 1.0], [-1.0, -1.1, -0.9]

    def judged(**settings):
        return everywhere("up", settings, source="Table 1", how="a - b")

    assert judged(a=up, b=[2.0, 2.1, 1.9]).verdict == "holds"
    assert judged(a=up, b=unsure).verdict == "inconclusive"
    against = judged(a=up, b=unsure, c=down)
    assert against.verdict == "does not hold here"
    assert against.how.endswith("weakest at c")
    assert against.measured == pytest.approx(-1.0)


def test_exact_claims_are_judged_by_their_largest_error():
    good = within("equal", [1e-9, -5e-8], 1e-6, source="Theorem 1", how="|a - b|")
    assert (good.verdict, good.measured, good.interval) == ("holds", 5e-8, (1e-9, 5e-8))
    assert (
        within("equal", [1e-9, 2e-6], 1e-6, source="Theorem 1", how="|a - b|").verdict == "does not hold here"
    )


def test_numbers_are_written_in_digits_that_show_them():
    assert measured(claim([0.2, 0.2], unit="nats")) == "0.200 [0.200, 0.200] nats"
    assert measured(claim([0.25])) == "0.250 [?, ?]"
    assert measured(within("equal", [2e-9], 1e-6, source="", how="")) == "2.0e-09 [2.0e-09, 2.0e-09]"


def test_files_are_strict_json_and_one_self_contained_page(tmp_path):
    from matplotlib.figure import Figure

    from prefopt.reproduce.core import Plot

    figure = Figure()
    figure.subplots().plot([0, 1])
    result = Reproduction(
        "toy",
        "A <title>",
        "0000.00000",
        claims=[claim([0.25])],
        tables=[Table("numbers", ["a", "b"], [["x", 1.23456789]])],
        plots=[Plot("toy_line", "a line", figure)],
        settings={"seeds": 1},
        notes=["one seed only"],
        seconds=1.0,
    )
    files = write(result, tmp_path / "out")
    assert sorted(f.name for f in files) == ["toy.html", "toy.json", "toy_line.png", "toy_line.svg"]

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    record = json.loads((tmp_path / "out/toy.json").read_text(), parse_constant=refuse)
    assert record["claims"][0]["interval"] == [None, None]  # one seed: no interval
    assert record["claims"][0]["verdict"] == "inconclusive"
    assert set(record["versions"]) >= {"prefopt", "torch", "python", "cpu_cores"}
    html = (tmp_path / "out/toy.html").read_text()
    assert "A &lt;title&gt;" in html
    assert "inconclusive" in html
    assert "1.235" in html
    assert not re.search(r'(src|href)="(?!data:|#)', html)
    again = write(result, tmp_path / "again")
    for one, other in zip(files, again, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_paper_is_named_by_where_it_is():
    assert Reproduction("a", "", "2409.17431").published == "arXiv 2409.17431"
    assert Reproduction("a", "", "d6lIOnvOX2").published == "OpenReview d6lIOnvOX2"
