"""The methods: one file each, found by being there.

A file of this folder defines `METHOD`; its docstring is the method's page in the documentation. Importing them is
cheap (no torch), so that listing methods is quick.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import Any

from prefopt.methods.base import Method, Paper

__all__ = ["Method", "Paper", "all_methods", "defaults", "find", "traits"]


@cache
def all_methods() -> dict[str, Method]:
    """Every method by name, in alphabetical order."""
    found: dict[str, Method] = {}
    for module in pkgutil.iter_modules(__path__):
        method = getattr(importlib.import_module(f"{__name__}.{module.name}"), "METHOD", None)
        if method is not None:
            found[method.name] = method
    return dict(sorted(found.items()))


def find(name: str) -> Method | None:
    """The method of that name or alias; None for sums of objectives and for names that are none."""
    methods = all_methods()
    plain = name.replace("-", "_")
    if plain in methods:
        return methods[plain]
    if "+" in plain:
        return None
    from prefopt.objectives import registry

    return methods.get(registry.canonical_name(plain))


def defaults(name: str) -> dict[str, Any]:
    """Configuration defaults of a method; empty for sums of objectives and for objectives without a file."""
    method = find(name)
    return dict(method.defaults) if method else {}


def traits(name: str) -> frozenset[str]:
    """Traits of a method; sums of objectives, which have the names of their terms, and objectives without a file score as usual."""
    method = find(name)
    if method:
        return method.traits
    terms = (part.rpartition("*")[2].strip() for part in name.split("+"))
    return frozenset({"usual_scores", *terms})
