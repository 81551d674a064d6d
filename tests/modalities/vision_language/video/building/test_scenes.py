"""Scenes between cuts, of the right lengths."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import pytest

from modalities.vision_language.video.building.film_runs import COLOURS, film
from prefopt.modalities.vision_language.video.building import scenes
from prefopt.modalities.vision_language.video.building.clips import load_clips
from prefopt.modalities.vision_language.video.building.scenes import Cutting, films, fitted


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    film(tmp_path / "films" / "a.mp4", [("red", 4), ("blue", 3), ("green", 1), ("yellow", 6)], fps=10)
    return tmp_path / "films"


def cut(folder, journal, **more):
    found, dropped = films(
        load_clips(str(folder), 1, None).found, Cutting(**{"least_s": 2, "most_s": 5, **more}), journal
    )
    return [[(scene.start_s, scene.end_s) for scene in one.scenes] for one in found], dropped


def test_a_film_is_cut_where_it_changes_and_what_is_short_is_merged(whole, tmp_path):
    (found,), dropped = cut(whole, tmp_path / "j.jsonl", most_s=20)
    assert not dropped
    assert [
        pytest.approx(scene) for scene in [(0, 4), (4, 7), (7, 14)]
    ] == found  # the green second joins the yellow ones
    (found,), _ = cut(whole, tmp_path / "j.jsonl", most_s=4)
    assert [pytest.approx(scene) for scene in [(0, 4), (4, 7), (7, 10.5), (10.5, 14)]] == found


def test_a_film_without_cuts_is_split_evenly(tmp_path):
    film(tmp_path / "films" / "a.mp4", [("red", 9)], fps=10)
    (found,), _ = cut(tmp_path / "films", tmp_path / "j.jsonl")
    assert [pytest.approx(scene) for scene in [(0, 4.5), (4.5, 9)]] == found


def test_a_stretch_of_a_film_is_cut_alone(whole, tmp_path):
    (tmp_path / "films.jsonl").write_text('{"source": "films/a.mp4", "start_s": 2.0, "end_s": 10.0}\n')
    (found,), _ = cut(tmp_path / "films.jsonl", tmp_path / "j.jsonl")
    assert [pytest.approx(scene) for scene in [(2, 4), (4, 7), (7, 10)]] == found


def test_scenes_are_found_once(whole, tmp_path, monkeypatch):
    before = cut(whole, tmp_path / "j.jsonl")
    monkeypatch.setattr(scenes, "cuts_of", None)
    assert cut(whole, tmp_path / "j.jsonl") == before
    with pytest.raises(ValueError, match="was begun with adaptive_threshold"):
        cut(whole, tmp_path / "j.jsonl", threshold=2.0)


def test_a_film_that_ends_early_is_left_out_or_cut_as_far_as_it_goes(tmp_path):
    whole = film(tmp_path / "films" / "a.mkv", [(name, 3) for name in COLOURS], fps=10)
    data = whole.read_bytes()
    whole.write_bytes(data[: len(data) // 2])
    found, dropped = cut(tmp_path / "films", tmp_path / "j.jsonl")
    assert len(found) + len(dropped) == 1
    for parts in found:
        assert 0 < parts[-1][1] < 30


def test_every_second_is_in_one_scene_of_the_right_length():
    draw = random.Random(0)
    for _ in range(300):
        edges = [0.0]
        while len(edges) < draw.randint(2, 30):
            edges.append(edges[-1] + draw.expovariate(1 / draw.choice([2, 10, 100])) + 0.01)
        found = fitted(list(pairwise(edges)), 10, 25)
        assert (found[0][0], found[-1][1]) == (0, edges[-1])
        assert all(a[1] == b[0] for a, b in pairwise(found))
        lengths = [end - start for start, end in found]
        assert max(lengths) <= 25 + 1e-6
        assert len(found) == 1 or min(lengths) >= 10 - 1e-6


def test_lengths_between_which_nothing_fits_are_refused():
    with pytest.raises(ValueError, match="twice as much"):
        Cutting(10, 15)
