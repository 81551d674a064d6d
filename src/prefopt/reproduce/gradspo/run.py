"""`prefopt reproduce gradspo`: "A Gradient Guidance Perspective on Stepwise Preference Optimization" in miniature.

Tee, Yoon, Syarubany, Yoon, Yoo (NeurIPS 2025, OpenReview d6lIOnvOX2). Four experiments in a world of vectors:

    E1      direction  is best minus worst noise an estimate of the reward's gradient, and how noisy?
    E2      weights    which reverse steps pull, which does the clip silence? The algebra of both losses
    E3, E4  rewards    reward over the learning rate, at equal drift, stability; what each part adds

    world, train: the world, and training with the library's collector, likelihoods and objective
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from prefopt.reproduce.core import Asked, Part
from prefopt.reproduce.gradspo import direction as directions
from prefopt.reproduce.gradspo import rewards, weights
from prefopt.reproduce.gradspo.direction import CANDIDATES, Direction, direction
from prefopt.reproduce.gradspo.rewards import CURVE, VARIANTS, rates_of
from prefopt.reproduce.gradspo.train import BATCH, RELEASED, Run, train
from prefopt.reproduce.gradspo.weights import time_weights, unclipped
from prefopt.reproduce.gradspo.world import FULL, QUICK, Measured, Size, make_world, measure

NOTES = (
    "Of the paper only the abstract could be read: claims of the abstract are tested, and settings are those of the "
    "released code",
    "The judge is the exact reward of the predicted clean sample; there is no autoencoder, no learned judge, no "
    "classifier-free guidance and no adapter",
    "Updates differ by a few between methods, because a round's pairs must pass the threshold; generated "
    "candidates are equally many",
    "Added after a first look at results: the learning rate 6e-5, the best round beside the last, the logarithm at "
    "3e-4, where rewards differ by powers of ten, and E1 over the steps that training compares alone",
)


class Found(NamedTuple):
    """What one seed says."""

    directions: dict[int, Direction]
    identities: dict[str, float]
    weights: dict[str, list[float]]
    start: Measured
    runs: dict[str, dict[float, Run]]


def one_seed(seed: int, size: Size) -> Found:
    """A world of its own: reward, pretrained model, and all experiments on it."""
    world = make_world(seed, size)
    return Found(
        {k: direction(world, k, size.states) for k in CANDIDATES},
        unclipped(world, size.prompts),
        time_weights(world),
        measure(world, world.reference, size.test_samples),
        {
            name: {rate: train(world, variant, rate, size) for rate in rates_of(name)}
            for name, variant in VARIANTS.items()
        },
    )


def experiments(asked: Asked) -> Iterator[Part]:
    """E1 to E4; each seed has a reward and a pretrained model of its own."""
    size = QUICK if asked.quick else FULL
    jobs = [(seed, size) for seed in range(asked.seeds)]
    found: list[Found] = asked.in_processes("gradspo: worlds", one_seed, jobs)
    runs = {name: {rate: [f.runs[name][rate] for f in found] for rate in rates_of(name)} for name in VARIANTS}
    yield directions.experiment({k: [f.directions[k] for f in found] for k in CANDIDATES}, size.states)
    identities = [f.identities for f in found]
    ends = (CURVE[0], CURVE[-1])
    yield weights.experiment(runs, identities, found[0].weights, ends)
    yield rewards.experiment(runs, [f.start for f in found])
    settings = {
        "seeds": asked.seeds,
        "numbers_a_sample": 32,
        "pretraining_steps": size.pretrain_steps,
        "rounds": size.rounds,
        "prompts_a_round": size.prompts,
        "test_samples": size.test_samples,
        "batch": BATCH,
        "optimizer": "AdamW, constant learning rate, gradient norm clipped at 1",
        "learning_rates": {name: list(rates_of(name)) for name in VARIANTS},
        **{
            key: RELEASED[key]
            for key in (
                "beta",
                "clip_eps",
                "weight_decay",
                "num_inference_steps",
                "candidates",
                "threshold",
                "first_compared_step",
                "grad_scale",
                "ema_decay",
            )
        },
        "guidance_scale": 1.0,
    }
    yield Part(settings={"E2-E4": settings})
