"""The motion world's measures, on scorers that know what was done."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from torch import Tensor

from prefopt.worlds.motion import task
from prefopt.worlds.motion.kinematics import generate, moved
from prefopt.worlds.motion.measures import accuracy, measures, pools
from prefopt.worlds.motion.task import Program, caption_of, parse_caption, swapped
from prefopt.worlds.motion.verify import WORDS, verdicts


class Knowing:
    """Embeds what is asked for and what was done as one place each; embeddings do not look at motions."""

    def __init__(self, done: list[Program], truth: list[Program]) -> None:
        self.next = [done, truth]  # in the order in which they are asked for

    def encode_texts(self, captions: Any) -> Tensor:
        return self.place([parse_caption(caption) for caption in captions])

    def encode_motions(self, features_NFD: Tensor, lengths_N: Tensor) -> Tensor:
        assert lengths_N.tolist() == [32] * len(features_NFD)
        return self.place(self.next.pop(0))

    def place(self, programs: list[Program]) -> Tensor:
        return torch.eye(len(task.EVERY))[[task.NUMBERS[program] for program in programs]]

    def score(self, captions: Any, features_NFD: Tensor, lengths_N: Tensor) -> Tensor:
        return features_NFD.sum((1, 2)) * 0 + 0.25


def measured(captions: list[str], done: list[Program]):
    asked = [parse_caption(caption) for caption in captions]
    truth = moved(captions, "truth")
    return measures(captions, generate(done, "tests"), truth, Knowing(done, asked), Knowing([], []))


@pytest.fixture(scope="module")
def captions() -> list[str]:
    return task.draw_captions(140, "test", random.Random(0))


def test_who_does_what_is_said_is_right_in_all(captions):
    found = measured(captions, [parse_caption(caption) for caption in captions])
    assert (found.passed, found.attr, found.right_way, found.motions) == (1, 1, 1, 140)
    assert found.words == dict.fromkeys(("move", "direction", "gesture", "side", "count", "speed"), 1.0)
    assert found.r_precision == (1, 1, 1)
    assert found.mm_dist == 0
    assert found.fid == pytest.approx(0, abs=1e-9)
    assert found.reward == 0.25
    numbers = [task.NUMBERS[parse_caption(caption)] for caption in captions]
    apart = sum(a != b for a in numbers for b in numbers) / 140**2
    assert found.diversity == pytest.approx(math.sqrt(2) * apart)


def test_who_does_it_the_other_way_round_is_wrong_in_sides_and_directions(captions):
    found = measured(captions, [parse_caption(swapped(caption)) for caption in captions])
    sided = [swapped(caption) != caption for caption in captions]
    assert found.passed == pytest.approx(1 - sum(sided) / 140)
    assert (found.words["side"], found.words["direction"], found.right_way) == (0, 0, 0)
    assert found.words["move"] == found.words["count"] == found.words["gesture"] == 1
    assert found.mm_dist == pytest.approx(math.sqrt(2) * sum(sided) / 140)
    assert found.r_precision[0] < 0.5


def test_nothing_to_take_a_mean_of_is_nan():
    captions = [caption_of(Program("stand")), caption_of(Program("jump", times=1))]
    found = measured(captions, [Program("stand"), Program("stand")])
    assert found.passed == 0.5
    assert math.isnan(found.words["side"])
    assert math.isnan(found.right_way)
    assert all(math.isnan(x) for x in found.r_precision)
    assert found.words["count"] == 0


class Rules:
    """A scorer by the rules, but for sides: those it cannot tell."""

    def score(self, captions: Any, features_NFD: Tensor, lengths_N: Tensor) -> Tensor:
        found = verdicts([parse_caption(caption) for caption in captions], features_NFD)
        words = [found[word].nan_to_num(1.0) for word in WORDS if word != "side"]
        return torch.stack(words).prod(0)


def test_the_accuracy_of_a_scorer_that_does_not_know_sides(captions):
    found = accuracy(Rules(), moved(captions, "truth"))
    assert found.words == {"side": 0, "count": 1, "direction": 1, "speed": 1}
    assert found.matched == 1
    assert found.motions == 140
    programs = [parse_caption(caption) for caption in captions]
    # a caption that no motion contradicts in what that scorer knows
    alike = [
        a._replace(side="", speed=b.speed and a.speed) == b._replace(side="")
        for a, b in zip(programs, programs[70:] + programs[:70], strict=True)
        if a != b
    ]
    assert found.mismatched == pytest.approx(sum(alike) / len(alike))
    sided = [p for p in programs if swapped(caption_of(p)) != caption_of(p)]
    turned = sum(p.move in task.OPPOSITES for p in sided)
    assert found.swapped == pytest.approx(turned / len(sided))
    still = accuracy(Rules(), moved([caption_of(Program("stand"))] * 4, "truth"))
    assert all(math.isnan(x) for x in (still.mismatched, still.swapped, still.words["side"]))


def test_pools_have_no_program_twice():
    programs = [parse_caption(c) for c in task.draw_captions(640, "test", random.Random(1))]
    places = pools(programs)
    assert len(places) == len(set(places)) >= 18 * 32
    for start in range(0, len(places), 32):
        some = {programs[place]._replace(speed="") for place in places[start : start + 32]}
        assert len(some) == 32
    assert pools(programs[:31]) == []
    stand, left, right = (Program(move) for move in ("stand", "left", "right"))
    assert pools([stand, stand, left, right, left], 2) == [0, 2, 1, 3]
    slow = Program("forward", speed="slowly")
    assert pools([slow, slow._replace(speed=""), stand], 2) == [0, 2]


def test_a_model_is_measured_against_the_truth_of_its_captions(world, pipeline):
    found = world.measured(pipeline, 40, num_inference_steps=2)
    assert found.motions == 40
    assert world.measured(pipeline, 40, num_inference_steps=2) == found
    assert world.measured(pipeline, 40, num_inference_steps=2, seed=1).fid != found.fid
    assert 0 <= found.reward <= 1
    assert found.passed == 0
    with pytest.raises(ValueError, match="split must be train or test"):
        world.measured(pipeline, 40, split="dev")
    truth = world.reference_motions(40, "test")
    assert world.accuracy(Rules(), 40) == accuracy(Rules(), truth)
