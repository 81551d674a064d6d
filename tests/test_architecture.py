"""Who imports whom, held against the plan in docs/architecture.md."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import grimp
import pytest

DOCS = Path(__file__).parents[1] / "docs"

ROOMS = {
    "__main__": "cli",
    "api": "callbacks config modalities objects stages",
    "cache": "files",
    "callbacks": "config",
    "cli": "config evaluation files generation hub likelihoods locking methods migration modalities objectives report reproduce sources stages sweeps training version",
    "config": "methods objectives",
    "evaluation": "comparisons generation likelihoods metrics models sources worlds",
    "generation": "files likelihoods sources",
    "hub": "config report runs version",
    "likelihoods": "comparisons",
    "locking": "files",
    "methods": "objectives",
    "migration": "config methods",
    "modalities": "comparisons config files likelihoods methods models objectives references runs sources worlds",
    "modalities.*": "comparisons config evaluation files generation likelihoods locking machine methods metrics modalities models motion objectives oracles png references report runs shards sources worlds",
    "models": "cache files likelihoods",
    "motion": "files metrics",
    "objects": "config models sources",
    "prefopt": "api callbacks modalities modalities.* objectives version",
    "references": "likelihoods models shards",
    "report": "config files modalities models",
    "reproduce": "comparisons config files likelihoods methods metrics modalities modalities.* models objectives oracles prefopt report runs sources training worlds",
    "runs": "config files locking png sources version",
    "shards": "cache files",
    "sources": "comparisons files likelihoods metrics models motion",
    "stages": "comparisons config evaluation files generation hub likelihoods locking methods modalities objectives oracles runs sources training worlds",
    "sweeps": "config files locking modalities report runs worlds",
    "training": "callbacks comparisons config files hub likelihoods locking machine methods modalities models objectives references report runs sources",
    "worlds": "cache generation metrics motion png sources",
}
"""What the files of each room (folder, or file at the top) may import of the others; imports within functions count too."""


@pytest.fixture(scope="module")
def imports() -> Mapping[str, frozenset[str]]:
    """What each module of the package imports of the package."""
    graph = grimp.build_graph("prefopt", cache_dir=None)
    return {name: frozenset(graph.find_modules_directly_imported_by(name)) for name in graph.modules}


def drawing():
    """docs/draw_layers.py, which knows what a room is and which layer it stands in."""
    spec = importlib.util.spec_from_file_location("draw_layers", DOCS / "draw_layers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LAYERS = drawing()


def room(module: str) -> str:
    """The folder, or file at the top, that a module lies in; modalities are alike."""
    name = LAYERS.room(module)
    return "modalities.*" if name.startswith("modalities.") else name


def circles(imports: Mapping[str, frozenset[str]]) -> list[list[str]]:
    """Modules that import each other, directly or through others (Tarjan's strongly connected components)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in imports.get(name, ()):
            if other not in index:
                visit(other)
            if other in stack:
                low[name] = min(low[name], low[other])
        if low[name] == index[name]:
            circle = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(circle) > 1:
                found.append(sorted(circle))

    for name in imports:
        if name not in index:
            visit(name)
    return found


def test_no_circle_between_files(imports):
    assert circles(imports) == []


def test_circles_are_found():
    around = {"a": frozenset({"b"}), "b": frozenset({"c"}), "c": frozenset({"a"}), "d": frozenset({"a"})}
    assert circles(around) == [["a", "b", "c"]]


def test_rooms_import_what_the_plan_allows(imports):
    wrong = sorted(
        f"{name} imports {other}"
        for name, others in imports.items()
        for other in others
        if room(other) != room(name) and room(other) not in ROOMS.get(room(name), "").split()
    )
    assert wrong == []


def test_the_plan_allows_no_more_than_there_is(imports):
    there = {(room(name), room(other)) for name, others in imports.items() for other in others}
    assert [(a, b) for a, rooms in ROOMS.items() for b in rooms.split() if (a, b) not in there] == []


def test_every_arrow_goes_down(imports):
    height = {name: -n for n, layer in enumerate(LAYERS.layers()) for name in layer}
    assert set(height) == {LAYERS.room(name) for name in imports}
    wrong = sorted(
        f"{name} imports {other}"
        for name, others in imports.items()
        for other in others
        if LAYERS.room(name) != LAYERS.room(other) and height[LAYERS.room(name)] <= height[LAYERS.room(other)]
    )
    assert wrong == []


def test_the_picture_is_current():
    assert LAYERS.PICTURE.read_text("utf-8") == LAYERS.drawn(LAYERS.layers(), LAYERS.arrows())


@pytest.mark.parametrize("alone", ["objectives", "oracles", "comparisons", "metrics"])
def test_what_can_be_lifted_out_imports_nothing_of_the_package(alone, imports):
    outside = {other for name, others in imports.items() if room(name) == alone for other in others}
    assert {room(other) for other in outside} <= {alone}
