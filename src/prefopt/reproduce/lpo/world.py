"""Runs in the picture world for `prefopt reproduce lpo`: data of a seed, the library's own training, and what it costs.

A run is what `prefopt train` would assemble from the same configuration; only its folder, its bars and its evaluations
are left out. Costs are taken while it trains and stand still while it is measured.

Legend: B pictures or latents.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from prefopt.reproduce import runs
from prefopt.worlds.base import seed_of
from prefopt.worlds.picture.world import PictureWorld

GUIDANCE = 2.0
"""Of the picture world's small model, in sampling and in training."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything."""

    pairs: int = 4000
    """Comparisons to train on, of rendered pictures."""
    held_out: int = 1000
    judge_steps: int = 200
    judge_batch: int = 64
    pixel_steps: int = 200
    pixel_pretraining: int = 300
    pixel_pretraining_batch: int = 128
    measured_rounds: tuple[int, ...] = (2, 4, 8, 14, 22)
    """Rounds of LPO and SPO after which pictures are drawn; training ends with the last."""
    measured_updates: tuple[int, ...] = (20, 45, 80, 120, 180)
    """The same of Diffusion-DPO."""
    prompts_a_round: int = 16
    update: int = 64
    """Comparisons of one optimizer update."""
    pictures: int = 240
    """Drawn to measure a policy."""
    timesteps: tuple[int, ...] = (1, 201, 401, 601, 701, 801, 901, 951)
    """Noise levels at which judges are compared."""
    kept_share: float | None = None
    """Share of sampled pairs to train on, instead of LPO's and SPO's thresholds, which tiny worlds never reach."""
    world: Mapping[str, int] = field(default_factory=dict)
    """Settings of the world other than its seed; the default world is cached for all uses."""


FULL = Size()
QUICK = Size(
    pairs=48,
    held_out=48,
    judge_steps=3,
    judge_batch=8,
    pixel_steps=3,
    pixel_pretraining=2,
    pixel_pretraining_batch=8,
    measured_rounds=(1, 2),
    measured_updates=(1, 3),
    prompts_a_round=2,
    update=8,
    pictures=4,
    timesteps=(1, 601, 951),
    kept_share=0.5,
    world={"pretrain_pictures": 192, "pretrain_steps": 6, "codec_steps": 12, "width": 8},
)


def quiet() -> None:
    """No notes of diffusers on dtypes, one a run and process."""
    from diffusers.utils import logging

    logging.set_verbosity_error()


# -- data ----------------------------------------------------------------------------------------------------


def world_of_seed(seed: int, size: Size) -> PictureWorld:
    """Pictures, captions and pretrained model of a seed."""
    return PictureWorld(seed=seed, **size.world)


def prepare(seed: int, size: Size, root: Path) -> None:
    """Pretrain the seed's model unless it is cached, and write its comparisons and prompts for all runs.

    Held-out pairs say which picture truly is better, by at least 0.3 of utility; training pairs say what an annotator
    said, and may tie.
    """
    world, folder = world_of_seed(seed, size), folder_of(seed, root)
    world.model_dir(progress=False)
    world.write(folder / "train", size.pairs, "train", seed=seed)
    world.write(folder / "test", size.held_out, "test", seed=seed, sharpness=math.inf, tie_margin=0.3)
    (folder / "prompts.txt").write_text(
        "\n".join(world.prompts(size.pairs, "train")) + "\n", encoding="utf-8"
    )


def folder_of(seed: int, root: Path) -> Path:
    """A seed's data and judges."""
    return root / f"seed-{seed}"


# -- cost ----------------------------------------------------------------------------------------------------


class Cost(NamedTuple):
    """What training took so far.

    Attributes:
        seconds: of processor time, one thread.
        operations: floating-point operations of all networks' layers; a backward pass counts as two forward passes.
        rows: samples that went forward, by network.
        trained_rows: of these, those that went backward too.
        drawn: latents drawn as candidates.
    """

    seconds: float
    operations: float
    rows: dict[str, int]
    trained_rows: dict[str, int]
    drawn: int = 0


@dataclass
class Meter:
    """Counts what goes through networks, and processor time; both stand still outside of `running`."""

    _rows: Counter[str] = field(default_factory=Counter)
    _trained: Counter[str] = field(default_factory=Counter)
    each: dict[str, float] = field(default_factory=dict)
    """Operations of one sample, counted on the network's first call."""
    _seconds: float = 0.0
    _since: float | None = None
    _open: dict[str, Any] = field(default_factory=dict)

    def start(self) -> None:
        """Go on."""
        self._since = time.process_time()

    def stop(self) -> None:
        """Stand still."""
        if self._since is not None:
            self._seconds += time.process_time() - self._since
        self._since = None

    def watch(self, name: str, module: nn.Module) -> None:
        """Count a network under a name."""
        from torch.utils.flop_counter import FlopCounterMode

        def before(module: nn.Module, args: Any, kwargs: Any) -> None:
            if name not in self.each and name not in self._open:
                self._open[name] = FlopCounterMode(display=False)
                self._open[name].__enter__()

        def after(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            n = next(len(x) for x in (*args, *kwargs.values()) if torch.is_tensor(x) and x.dim())
            if name in self._open:
                counter = self._open.pop(name)
                counter.__exit__(None, None, None)
                self.each[name] = counter.get_total_flops() / n
            if self._since is None:
                return
            self._rows[name] += n
            if torch.is_grad_enabled() and any(p.requires_grad for p in module.parameters()):
                self._trained[name] += n

        module.register_forward_pre_hook(before, with_kwargs=True)
        module.register_forward_hook(after, with_kwargs=True)

    def cost(self, drawn: int = 0) -> Cost:
        """So far; call it while the meter stands still."""
        operations = sum(self.each[k] * (n + 2 * self._trained[k]) for k, n in self._rows.items())
        return Cost(self._seconds, operations, dict(self._rows), dict(self._trained), drawn)


# -- runs ----------------------------------------------------------------------------------------------------


def assembled(
    seed: int,
    size: Size,
    root: Path,
    method: str,
    change: Callable[[Any, Any], Any] | None = None,
    **options: Any,
) -> Any:
    """A run of `prefopt train METHOD` in the seed's world, ready to fit.

    Args:
        seed: of world and run.
        size: how much.
        root: where `prepare` wrote.
        method: its name.
        change: given context and set-up, returns the set-up to use.
        options: configuration beside the data.

    Returns:
        `training.course.Course`.
    """
    folder = folder_of(seed, root)
    offline = method in ("lrm", "diffusion_dpo")
    data = {"data": str(folder / "train"), "eval_data": str(folder / "test")}
    return runs.assembled(
        {
            "method": method,
            "model": str(world_of_seed(seed, size).model_dir(progress=False)),
            "output_dir": str(folder / "run" / f"{method}-{seed_of(repr(options))}"),
            "seed": seed,
            **(data if offline else {"data": str(folder / "prompts.txt"), "use_peft": False}),
            **options,
        },
        change,
    )


class Point(NamedTuple):
    """A policy on its way.

    Attributes:
        at: rounds or updates so far.
        cost: so far.
        rewards: means over its pictures of held-out prompts, the same noise for every policy of a seed.
    """

    at: int
    cost: Cost
    rewards: dict[str, float]


class Run(NamedTuple):
    """One training run.

    Attributes:
        points: the first is the pretrained model's.
        kept: share of the pairs of candidates that passed the threshold; 1 for given pairs.
        updates: of the optimizer.
    """

    points: tuple[Point, ...]
    kept: float
    updates: int


def fit(seed: int, size: Size, course: Any, meter: Meter, measured: tuple[int, ...]) -> Run:
    """Train, and draw pictures after some of the steps; none but the training counts as cost.

    Args:
        seed: of the world.
        size: how much.
        course: from `assembled`; its networks are watched by `meter`.
        meter: of the cost.
        measured: steps after which to draw.
    """
    from prefopt.modalities.image.models.pipelines import restore

    world, loop, policy = world_of_seed(seed, size), course.loop, course.setup.policy
    restore(policy, "vae")
    updates = 0

    def point() -> Point:
        tally = getattr(loop.feed, "tally", None)
        drawn = 0 if tally is None else tally.pairs * course.config.candidates
        return Point(loop.step, meter.cost(drawn), rewards_of(world, size, course))

    def after_step() -> None:
        if loop.step in measured:
            meter.stop()
            points.append(point())
            loop.model.train()
            meter.start()

    def counting(examples: Any) -> None:
        nonlocal updates
        updates += 1
        update(examples)

    update, loop.update = loop.update, counting
    points = [point()]
    meter.start()
    loop.fit(after_step)
    meter.stop()
    tally = getattr(loop.feed, "tally", None)
    return Run(tuple(points), 1.0 if tally is None else tally.kept / tally.pairs, updates)


@torch.no_grad()
def rewards_of(world: PictureWorld, size: Size, course: Any) -> dict[str, float]:
    """Mean exact rewards of a policy's pictures: 20 DDIM steps, eta 1, guidance as in training."""
    from prefopt.modalities.image.models.tensors import generate_images

    prompts = world.prompts(size.pictures, "test")
    policy, store = course.setup.policy, stored(course)
    store.add_prompts(prompts)
    policy.model.eval()
    images = generate_images(
        policy,
        store.conditions_of(prompts),
        [seed_of(f"lpo {world.seed} {k}") for k in range(len(prompts))],
        guidance_scale=GUIDANCE,
        eta=1.0,
        batch_size=64,
        unconditional=store.unconditional,
    )
    found: dict[str, Tensor] = world.rewards(prompts, images)
    return {name: float(found[name].mean()) for name in ("utility", "match", "full", "aesthetic")}


def stored(course: Any) -> Any:
    """The run's cached latents and prompts."""
    likelihood = course.setup.likelihood
    return likelihood.store if hasattr(likelihood, "store") else likelihood.guided.conditions.__self__


def sampled_by(course: Any, **changes: Any) -> Any:
    """The run with its collector changed."""
    course.loop.feed.collector = dataclasses.replace(course.loop.feed.collector, **changes)
    return course
