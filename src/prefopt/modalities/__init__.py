"""Modalities: what kinds of model there are, found by being there, and which of them a model is.

A modality is a folder beside this file, or a package that names itself in the entry points `prefopt.modalities`; `base.py`
says what it holds. Nothing imports one by name.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Collection
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from prefopt.modalities.base import Modality
from prefopt.worlds import world_modality

__all__ = ["UNCLAIMED", "Modality", "all_modalities", "find", "of_model", "of_rows", "of_run"]

UNCLAIMED = "text"
"""What a model or a table is taken for that nobody claims, such as a hub id: its set-up says best what is missing."""


@cache
def all_modalities() -> dict[str, Modality]:
    """Every modality by name, those with more traits first."""
    packages = [f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__) if module.ispkg]
    packages += sorted({point.value for point in entry_points(group="prefopt.modalities")})
    found = [importlib.import_module(package).MODALITY for package in packages]
    found.sort(key=lambda modality: (-len(modality.traits), modality.name))
    return {modality.name: modality for modality in found}


def find(name: str) -> Modality:
    """The modality of that name.

    Raises:
        ValueError: there is none.
    """
    known = all_modalities()
    if name not in known:
        raise ValueError(f"there is no modality {name!r}; there are {', '.join(known)}")
    return known[name]


@cache
def of_model(model: str) -> Modality:
    """The modality of a model: its world's, or by what its folder or hub repository holds."""
    named = world_modality(model)
    if named is not None:
        return find(named)
    claimed = (modality for modality in all_modalities().values() if modality.claims(model))
    return next(claimed, find(UNCLAIMED))


def of_rows(columns: Collection[str]) -> Modality:
    """The modality that rows with these columns belong to."""
    taken = (modality for modality in all_modalities().values() if modality.part("check").takes(columns))
    return next(taken, find(UNCLAIMED))


def of_run(folder: Path) -> Modality:
    """The modality of a run, by its manifest, or by the model that it was started from.

    Raises:
        ConfigError: the folder holds no run.
    """
    from prefopt.config import read_yaml

    try:
        return find(json.loads((folder / "record" / "manifest.json").read_text("utf-8"))["modality"])
    except (OSError, ValueError, KeyError):
        return of_model(str(read_yaml(folder / "config.yaml").get("model")))
