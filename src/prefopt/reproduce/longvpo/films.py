"""Arms of `prefopt reproduce longvpo`, trained on rows of the film world, and what is measured of them.

A seed has a world of its own: clips, pretrained model, rows, test films, order of training. Every arm starts from that model and
is trained for as many steps of as many pairs; arms differ in one thing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from prefopt.reproduce import runs
from prefopt.worlds.film.measures import Measures, Order
from prefopt.worlds.film.world import LENGTHS, FilmWorld

START = "start"
LONGVPO = "LongVPO"
FULL = "reference sees all"
SFT = "chosen answers only"
FIXED = "films as rows have them"
FEW, MANY = "64 pairs", "512 pairs"
FIRST, LAST = "anchor always first", "anchor always last"
NO_SFT = "without second term"
AMBIGUOUS = "half of the rows ambiguous"
WRONG = "quarter of the rows wrong"
STAGE_2 = "stage 2"

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Arm:
    """What an arm does otherwise than `SHARED`.

    Attributes:
        options: of the configuration.
        world: settings of the world that its rows are of.
        pairs: how many rows; None: as many as `Size` has.
        label_noise: share of the rows whose answers are exchanged.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    world: Mapping[str, Any] = field(default_factory=dict)
    pairs: int | None = None
    label_noise: float = 0.0


AS_GIVEN = {"redraw_videos": False}
ARMS: dict[str, Arm] = {
    LONGVPO: Arm(),
    FULL: Arm({"reference_context": "full"}),
    SFT: Arm({"beta": 0.0}),
    FIXED: Arm(AS_GIVEN),
    FEW: Arm(pairs=64),
    MANY: Arm(pairs=512),
    # a slot is fixed in the rows, and many of them stand in for videos drawn anew
    FIRST: Arm(AS_GIVEN, {"slot": "first"}, pairs=512),
    LAST: Arm(AS_GIVEN, {"slot": "last"}, pairs=512),
    NO_SFT: Arm({"alpha": 0.0}),
    AMBIGUOUS: Arm(world={"ambiguous": 0.5}),
    WRONG: Arm(label_noise=0.25),
}
SECOND: dict[str, Any] = {"learning_rate": 2e-3}
"""Of the second stage, which goes on from LongVPO's model, otherwise than `SHARED`."""
JOBS = (LONGVPO, START, *(name for name in ARMS if name != LONGVPO))
"""What is run by itself; LongVPO is first, since the second stage follows in it."""
NAMES = (START, *ARMS, STAGE_2)

SHARED: dict[str, Any] = {
    "method": "longvpo",
    "beta": 0.1,
    "alpha": 1.0,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0,
    "warmup_ratio": 0.05,
    "optim": "adamw",
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "gradient_accumulation_steps": 1,
    "reference": "cached",
    "freeze": ["vision_tower", "projector"],
    "cache_vision_features": True,
}
"""Of every arm."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything."""

    pairs: int = 256
    steps: int = 200
    second_pairs: int = 1024
    """Of the second stage; as many of the first stage's as it has stand among them, or its answers are forgotten."""
    second_steps: int = 400
    batch: int = 32
    films: int = 512
    """Held out, that models are measured on, of each length."""
    world: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the world beside its seed."""


QUICK = Size(
    pairs=8, steps=2, second_pairs=8, second_steps=2, batch=4, films=8,
    world={"width": 16, "layers": 1, "pretrain_steps": 3, "batch_size": 4, "renders": 1},
)  # fmt: skip
"""Only shows that everything runs: the model has learned nothing."""


class Trained(NamedTuple):
    """One run.

    Attributes:
        films: measures by the number of clips of a film.
        order: of the question which of two objects comes first.
        seconds: processor time of its steps.
        share: of the visual tokens of a film, those that the reference reads.
        logs: means over the run of what the method logs.
    """

    films: dict[int, Measures]
    order: Order
    seconds: float
    share: float
    logs: dict[str, float]


def world_of(seed: int, size: Size, **settings: Any) -> FilmWorld:
    """A seed's world; rows may be made otherwise."""
    return FilmWorld(seed=seed, **{**size.world, **settings})


def prepare(seed: int, size: Size) -> None:
    """Pretrain a seed's model and write its clips, unless they are cached."""
    world = world_of(seed, size)
    world.model_dir(progress=False)
    world.clip_files(progress=False)


def measured(
    model: Any, seed: int, size: Size, logs: Mapping[str, float], seconds: float, share: float
) -> Trained:
    """A model that is the start, or was trained from it."""
    from prefopt.worlds.film.model import build_tokenizer

    world, tokenizer = world_of(seed, size), build_tokenizer()
    return Trained(
        world.measured(model, tokenizer, size.films, lengths=LENGTHS),
        world.measured_order(model, tokenizer, size.films),
        seconds,
        share,
        dict(logs),
    )


def run_on(rows: list[Row], model: str, seed: int, size: Size, options: Mapping[str, Any]) -> Any:
    """A run as a context: `prefopt train` on rows in memory, nothing held out."""
    second = any(row["stage"] == 2 for row in rows)
    return runs.on_rows(
        rows,
        model=model,
        seed=seed,
        max_steps=size.second_steps if second else size.steps,
        per_device_train_batch_size=min(size.batch, len(rows)),
        **SHARED | dict(options),
    )


def share_read(examples: Any, token: int) -> float:
    """Share of the visual tokens of films that the reference reads.

    Args:
        examples: of a run.
        token: id of the one that stands for features.
    """

    def visual(item: Any) -> int:
        return list(item.ids).count(token)

    items = [item for example in examples for item in example.items]
    seen = [item if item.reference is None else item.reference for item in items]
    return sum(map(visual, seen)) / sum(map(visual, items))


def train(name: str, seed: int, size: Size) -> dict[str, Trained]:
    """One arm's run, or the model that all start from; LongVPO's and, behind it, that of the second stage."""
    from prefopt.worlds.film.model import load

    base = str(world_of(seed, size).model_dir(progress=False))
    if name == START:
        return {START: measured(load(Path(base))[0], seed, size, {}, 0.0, 1.0)}
    arm = ARMS[name]
    world = world_of(seed, size, **arm.world)
    pairs = size.pairs if arm.pairs is None or size is QUICK else arm.pairs
    rows = world.comparisons(pairs, label_noise=arm.label_noise, progress=False)
    with TemporaryDirectory() as folder:
        save_to = Path(folder) / "stage-1" if name == LONGVPO else None
        found = {name: fitted(run_on(rows, base, seed, size, arm.options), seed, size, save_to)}
        if save_to is not None:
            orders = world_of(seed, size).comparisons(size.second_pairs, stage=2, progress=False)
            found[STAGE_2] = fitted(run_on([*orders, *rows], str(save_to), seed, size, SECOND), seed, size)
    return found


def fitted(run: Any, seed: int, size: Size, save_to: Path | None = None) -> Trained:
    """A run from its first step to what it has become."""
    with run as course:
        loop, began = course.loop, time.process_time()
        loop.fit(lambda: None)
        seconds = time.process_time() - began
        if save_to is not None:
            course.save_model(save_to)
        token = loop.model.config.video_token_id
        share = share_read(course.setup.data.train, token)
        return measured(loop.model, seed, size, loop.train_metrics(), seconds, share)
