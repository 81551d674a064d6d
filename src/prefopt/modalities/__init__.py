"""Modalities: what kinds of model there are, found by being there, and which of them a model is.

A modality is a folder beside this file, or a package that names itself in the entry points `prefopt.modalities`; `base.py`
says what it holds. Nothing imports one by name.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import pkgutil
import warnings
from collections.abc import Callable, Collection, Iterator
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from prefopt.modalities.base import Modality
from prefopt.worlds import world_modality

__all__ = [
    "UNCLAIMED",
    "Modality",
    "all_modalities",
    "find",
    "first",
    "of_config",
    "of_model",
    "of_rows",
    "of_run",
]

UNCLAIMED = "text"
"""What a model or a table is taken for that nobody claims, such as a hub id: its set-up says best what is missing."""


@cache
def all_modalities() -> dict[str, Modality]:
    """Every modality by name, in the order in which they are asked what is theirs."""
    packages = [f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__) if module.ispkg]
    found = [importlib.import_module(package).MODALITY for package in packages]
    for package in sorted({point.value for point in entry_points(group="prefopt.modalities")}):
        with skipped_if_broken(package):
            modality = importlib.import_module(package).MODALITY
            if modality.name in (names := {known.name for known in found}):
                raise ValueError(f"there is one called {modality.name!r} already, beside {', '.join(names)}")
            found.append(modality)
    return {modality.name: modality for modality in in_order(found)}


def in_order(modalities: Collection[Modality]) -> list[Modality]:
    """Those with more traits first, and each before those that would claim its models."""
    rest = sorted(modalities, key=lambda modality: (-len(modality.traits), modality.name))
    found: list[Modality] = []
    while rest:
        free = [m for m in rest if not any(m.name in other.asked_before for other in rest if other is not m)]
        found.append((free or rest)[0])
        rest.remove(found[-1])
    return found


@contextlib.contextmanager
def skipped_if_broken(package: str) -> Iterator[None]:
    """What somebody else's package gets wrong is told, and must not stop those who do not use it."""
    try:
        yield
    except Exception as error:
        if package.startswith(f"{__name__}."):
            raise
        warnings.warn(
            f"the modality of the package {package} is left out, because it failed ({type(error).__name__}: {error}): "
            "repair the package, or uninstall it",
            stacklevel=3,
        )


def find(name: str) -> Modality:
    """The modality of that name.

    Raises:
        ValueError: there is none.
    """
    known = all_modalities()
    if name not in known:
        raise ValueError(f"there is no modality {name!r}; there are {', '.join(known)}")
    return known[name]


def of_config(config: Any) -> Modality:
    """The modality of what a configuration trains: that whose key it sets, or its model's."""
    for modality in all_modalities().values():
        if modality.key is not None and getattr(config, modality.key, None) is not None:
            return modality
    return of_model(config.model)


@cache
def of_model(model: str) -> Modality:
    """The modality of a model: its world's, or by what its folder or hub repository holds."""
    named = world_modality(model)
    if named is not None:
        return find(named)
    return first(lambda modality: modality.claims(model))


def of_rows(columns: Collection[str]) -> Modality:
    """The modality that rows with these columns belong to."""
    return first(lambda modality: modality.part("check").takes(columns))


def first(is_its_own: Callable[[Modality], bool]) -> Modality:
    """The first modality that says yes, in the order of `all_modalities`; `UNCLAIMED` where none does."""
    for modality in all_modalities().values():
        with skipped_if_broken(modality.package):
            if is_its_own(modality):
                return modality
    return find(UNCLAIMED)


def of_run(folder: Path) -> Modality:
    """The modality of a run, by its manifest, or by the model that it was started from.

    Raises:
        ConfigError: the folder holds no run.
        ValueError: of a modality that is not installed.
    """
    from prefopt.config import read_yaml

    try:
        name = json.loads((folder / "record" / "manifest.json").read_text("utf-8"))["modality"]
    except (OSError, ValueError, KeyError):
        return of_model(str(read_yaml(folder / "config.yaml").get("model")))
    return find(name)
