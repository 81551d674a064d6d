"""What worlds share: what a world's folder says of itself, checks of settings, seeds, noise of labels, places in the cache. No torch."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, get_args

from prefopt.cache import cache_dir

Split = Literal["train", "test"]

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """What a world's folder says of itself, known before anything heavy is imported.

    Attributes:
        class_name: of the world in the folder's `world.py`: a frozen dataclass of its settings, `seed` among them.
        modality: that its model belongs to.
        prompts: how many prompts make up a split, where a run names the world as its data.
    """

    class_name: str
    modality: str
    prompts: Mapping[Split, int]


class Estimate(NamedTuple):
    """A mean with its 95 % interval (normal, over prompts)."""

    mean: float
    low: float
    high: float


def check_split(split: str) -> None:
    """Raises ValueError unless the split is "train" or "test"."""
    if split not in get_args(Split):
        raise ValueError(f"split must be train or test; given {split!r}")


def check_shares(**shares: float | None) -> None:
    """Raises ValueError for a share outside [0, 1]; None is not set."""
    for name, share in shares.items():
        if share is not None and not 0 <= share <= 1:
            raise ValueError(f"{name} is a share in [0, 1]; given {share}")


def check_positive(world: Any, names: Iterable[str]) -> None:
    """Raises ValueError for a setting of the world that is below 1."""
    for name in names:
        if getattr(world, name) < 1:
            raise ValueError(f"{name} must be at least 1; given {getattr(world, name)}")


def flipped(rows: Iterable[T], share: float, seed: int) -> list[T]:
    """The rows whose labels noise turns round. What is flipped at some share is also flipped at a larger one."""
    order = list(rows)
    random.Random(f"label_noise {seed}").shuffle(order)
    return order[: round(share * len(order))]


def seed_of(text: str) -> int:
    """A seed made of a text: the same in every process, unlike `hash`."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7])


def cache_place(name: str, kind: str, world: Any, code: int, libraries: Iterable[str], **more: Any) -> Path:
    """Cache folder named after everything its content depends on.

    Args:
        name: of the world.
        kind: of content, such as "model".
        world: its settings, a dataclass.
        code: version of the code that makes the content.
        libraries: whose versions count.
        more: what else the content depends on, as JSON values.
    """
    from importlib.metadata import version  # takes longer than all the rest of this file

    key = {
        "world": asdict(world),
        "code": code,
        "libraries": {library: version(library) for library in libraries},
        **more,
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:20]
    return cache_dir() / "worlds" / f"{name}-{kind}-{digest}"
