"""Clips of the film world: what is said of them, and pixels that can be read without a mistake."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from prefopt.worlds.film import task
from prefopt.worlds.film.task import Clip

EVERY = [Clip(o, a) for o in range(24) for a in range(12)]


def test_what_is_asked_and_what_is_right():
    film = [Clip(0, 1), Clip(9, 4), Clip(23, 11)]
    assert [clip.caption for clip in film] == [
        "red square left early", "blue plus right early", "cyan cross down late",
    ]  # fmt: skip
    assert len({clip.caption for clip in EVERY}) == 288
    for clip in film:
        assert task.right_answer(film, task.asked(clip)) == clip.said
        assert len(task.asked(clip).split()) == 3
    assert task.right_answer(film, "describe") == "red square left early"
    for a, b in itertools.permutations(film, 2):
        first = min(a, b, key=film.index)
        assert task.right_answer(film, task.asked_order(a, b)) == f"{first.name} {first.motion}"
    with pytest.raises(ValueError, match="the film shows no red ring; it shows: red square, blue plus"):
        task.right_answer(film, "ask red ring")
    for wrong in ("", "ask red", "who is it", "first red square and blue plus"):
        with pytest.raises(ValueError, match="no question of the film world"):
            task.right_answer(film, wrong)


def test_films_show_each_object_once():
    rng = np.random.default_rng(0)
    for n in (1, 2, 8, 24):
        film = task.draw_film(rng, n)
        assert len({clip.object for clip in film}) == n == len(film)
    # of a full film every answer is as likely as another
    answers = np.bincount([c.answer for _ in range(200) for c in task.draw_film(rng, 24)], minlength=12)
    assert answers.min() > 320
    for n in (0, 25):
        with pytest.raises(ValueError, match=f"has 1 to 24 clips, each of another object; given {n}"):
            task.draw_film(rng, n)


def test_a_clip_shows_what_is_said_of_it():
    rng = np.random.default_rng(0)
    for clip in EVERY:
        [frames] = task.paint(np.array([clip]), 0.0, rng).astype(float) / 255
        colour = np.array(task.COLOURS[clip.name.split()[0]])
        here = np.abs(frames - colour).max(-1) < 0.01  # the flash is white, the ground dark
        mask = task.shapes()[list(task.SHAPES).index(clip.name.split()[1])]
        down, right = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}[clip.motion]
        rows, columns = np.nonzero(here[0])
        top, left = rows.min(), columns.min()
        assert {top, left} <= {3, 4}
        for f in range(4):
            shown = np.zeros((12, 12), dtype=bool)
            r, c = top + f * down, left + f * right
            shown[r : r + 5, c : c + 5] = mask
            assert np.array_equal(here[f], shown)
        lit = [bool(frames[f, :3, :3].min() > 0.99) for f in range(4)]
        event = clip.said.split()[1]
        assert lit == [event == "early", False, event == "late", False]
        ground = frames[~here & (frames.min(-1) < 0.9)]
        assert ground.max() <= 0.255
        assert np.ptp(ground, axis=0).max() == 0


def test_what_is_read_is_what_was_drawn():
    frames = task.render(EVERY, 0.05, "tests")
    assert frames.dtype == np.uint8
    assert task.read(frames) == EVERY
    # on a ground as dark and as bright as there is
    for clips in (EVERY[::7], EVERY[3::11]):
        assert task.read(task.render(clips, 0.25, "loud")) == clips


def slowly_read(frames: np.ndarray) -> Clip:
    """The judge of `read`: all that a clip could be, one after the other."""
    x = frames.reshape(-1, 3) / 255
    best: tuple[float, Clip] | None = None
    of = task.layouts()
    for k, colour in itertools.product(range(len(of.shape_L)), range(6)):
        thing, flash = of.object_LP[k] > 0, of.flash_LP[k] > 0
        ground = x[~thing & ~flash]
        left_over = (
            ((x[thing] - task.colours()[colour]) ** 2).sum()
            + ((x[flash] - 1) ** 2).sum()
            + ((ground - ground.mean(0)) ** 2).sum()
        )
        if best is None or left_over < best[0]:
            best = left_over, Clip(int(colour * 4 + of.shape_L[k]), int(of.answer_L[k]))
    assert best is not None
    return best[1]


def test_reading_is_least_squares_even_where_it_errs():
    frames = task.paint(np.array(EVERY[::12]), 0.9, np.random.default_rng(0))
    read = task.read(frames)
    assert read == [slowly_read(one) for one in frames]
    assert read != EVERY[::12]


def test_a_clip_depends_on_its_place_in_the_stream_alone():
    frames = task.render(EVERY[:9], 0.05, "a")
    assert np.array_equal(task.render(EVERY[:4], 0.05, "a"), frames[:4])
    assert not np.array_equal(task.render(EVERY[:4], 0.05, "b"), frames[:4])
    starts = {tuple(np.argwhere(f[0].max(-1) > 128).min(0)) for f in task.render([EVERY[0]] * 40, 0.0, "s")}
    assert starts == {(3, 3), (3, 4), (4, 3), (4, 4)}
    with pytest.raises(
        ValueError, match=r"of 24 clips could not be read in 100 tries with noise=9; lower it"
    ):
        task.render(EVERY[::12], 9, "far too loud")


def test_other_pixels_are_no_clip():
    with pytest.raises(ValueError, match=r"is \(4, 12, 12, 3\) .*; given \(5, 12, 12, 3\)"):
        task.read(np.zeros((1, 5, 12, 12, 3), np.uint8))
