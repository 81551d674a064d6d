"""What the experiments of `prefopt reproduce condition_po` share: rows of a seed in the scene world, and silent runs on them.

There is one world and one starting model. A seed has pictures of its own to make rows of, and its own noise, order of
training and noise of the pictures that are drawn to measure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from prefopt.reproduce import runs
from prefopt.worlds.scene.world import SceneWorld

Kind = Literal["conditions", "images"]
"""Of pairs: one picture under two conditions, or two of the model's samples under one condition."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything."""

    seeds: int
    """That share out the world's pictures: a seed's rows do not depend on how many follow it."""
    rows: int = 512
    """Of each kind, a seed."""
    candidates: int = 3
    """Samples a condition, of which the best and the worst make a pair of images."""
    steps: int = 120
    batch: int = 32
    contrast_rows: int = 256
    timesteps: tuple[int, ...] = tuple(range(50, 1000, 50))
    pictures: int = 256
    """Drawn to measure a model."""
    world: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the world; the default world is cached for all uses."""

    def drawn(self, kind: Kind) -> int:
        """Samples a condition that rows are made of."""
        return 1 if kind == "conditions" else self.candidates


TINY = {
    "width": 8,
    "pretrain_pictures": 64,
    "batch_size": 8,
    "pretrain_steps": 3,
    "control_steps": 3,
    "consistency_steps": 2,
}


def quick(seeds: int) -> Size:
    """Sizes that only show that everything runs, in a world whose model has learned nothing."""
    return Size(
        seeds=seeds,
        rows=12,
        steps=2,
        batch=4,
        contrast_rows=6,
        timesteps=(50, 700, 900),
        pictures=4,
        world=TINY,
    )


def world_of(size: Size) -> SceneWorld:
    """The one world."""
    return SceneWorld(**size.world)


def all_rows(kind: Kind, size: Size) -> list[dict[str, Any]]:
    """Rows of all seeds, one seed after the other; made once, then cached."""
    world, n = world_of(size), size.rows * size.seeds
    if kind == "conditions":
        return world.comparisons(n, progress=False)
    return world.pairs(n, candidates=size.candidates, progress=False)


def rows_of(kind: Kind, seed: int, size: Size) -> list[dict[str, Any]]:
    """A seed's."""
    return all_rows(kind, size)[size.rows * seed : size.rows * (seed + 1)]


def samples_behind(rows: Sequence[Mapping[str, Any]], per_condition: int) -> int:
    """Samples that were drawn to make rows, also those whose two sides turned out alike.

    >>> samples_behind([{"id": "train-7"}, {"id": "train-9"}], 3)
    9
    """
    first, last = (int(rows[k]["id"].rpartition("-")[2]) for k in (0, -1))
    return per_condition * (last - first + 1)


def prepare(kind: Kind | None, size: Size) -> None:
    """Pretrain the world's model (None), or draw what rows of a kind are made of, unless they are cached."""
    quiet()
    if kind is None:
        world_of(size).model_dir(progress=False)
    else:
        all_rows(kind, size)


def quiet() -> None:
    """No notes of diffusers and transformers, a few a process."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    of_diffusers.set_verbosity_error()
    of_transformers.set_verbosity_error()


class Run:
    """A run of `prefopt train` from the world's model on rows in memory; nothing is held out, its folder is temporary.

    Args:
        rows: to train on.
        seed: of the run.
        size: how much.
        options: of the configuration, `method` among them.
    """

    def __init__(self, rows: list[dict[str, Any]], seed: int, size: Size, **options: Any) -> None:
        self._stack = ExitStack()
        self.course = self._stack.enter_context(
            runs.on_rows(
                rows,
                model=str(world_of(size).model_dir(progress=False)),
                seed=seed,
                max_steps=size.steps,
                per_device_train_batch_size=size.batch,
                **options,
            )
        )

    def pipeline(self) -> Any:
        """The trained pipeline, as diffusers reads what the run saves."""
        from prefopt.worlds.scene.model import load

        folder = Path(self.course.config.output_dir) / "model"
        self.course.save_model(folder)
        return load(folder)

    def __enter__(self) -> Run:
        """Its folder is there until the block ends."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the folder."""
        self._stack.close()
