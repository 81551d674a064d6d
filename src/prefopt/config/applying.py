"""Where keys apply: what the groups declare, read against a method and a kind of model."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from prefopt import methods
from prefopt.config.keys.base import Keys, Needs
from prefopt.config.schema import FIELD_NAMES, TrainConfig


class Kind(Protocol):
    """What is asked of a kind of model: `prefopt.modalities.Modality` has it."""

    @property
    def noun(self) -> str:
        """As in "an image model"."""
        ...

    @property
    def traits(self) -> frozenset[str]:
        """What its models and samples have."""
        ...


GROUPS: Mapping[str, type[Keys]] = {
    key: group for group in TrainConfig.__bases__ if issubclass(group, Keys) for key in group.model_fields
}
"""The group of each key."""
SPECIAL = frozenset(key for key, group in GROUPS.items() if group.where)
"""Keys of groups that do not apply to every run."""
LEFT_OUT: Mapping[str, frozenset[str]] = {
    "all": frozenset(),
    "gradient": frozenset({"rounds", "judged", "split", "oracle", "twice"}),
    "oracle": frozenset({"split"}),
}
"""Traits of a method of several runs that a run of one `stage` is without."""


def needs_of(key: str) -> tuple[Needs, ...]:
    """What a key of the schema asks of a run: its group's needs, then its own."""
    own = (given for given in TrainConfig.model_fields[key].metadata if isinstance(given, Needs))
    return (*GROUPS[key].where, *own)


def unmet(key: str, traits: Collection[str]) -> Needs | None:
    """The first need of a key that none of these traits meets; None if the key applies."""
    return next((need for need in needs_of(key) if not set(need.traits) & set(traits)), None)


def traits_of(method: str | None, stage: str = "all") -> frozenset[str]:
    """Traits of a method in a run of one stage; of all methods together for None."""
    if method is None:
        return frozenset(trait for known in methods.all_methods().values() for trait in known.traits)
    return methods.traits(method) - LEFT_OUT[stage]


def applying(method: str | None, traits: Collection[str], stage: str = "all") -> frozenset[str]:
    """Keys of the schema that mean something to a method on a model with these traits.

    Args:
        method: by name, or a sum; None: to any method.
        traits: of the model's modality.
        stage: of a method of several runs.

    Example:
        >>> "grad_scale" in applying("gradspo", {"image", "denoising"})
        True
        >>> "grad_scale" in applying("dpo", {"text"})
        False
    """
    there = {*traits, *traits_of(method, stage)}
    return frozenset(key for key in FIELD_NAMES if unmet(key, there) is None)


def staged_keys() -> frozenset[str]:
    """Keys that only a method of several runs can use: those that its single runs are without."""
    staged = {"stages", *LEFT_OUT["gradient"]}
    return frozenset(key for key in FIELD_NAMES if any(staged & set(need.traits) for need in needs_of(key)))
