"""Who imports whom, held against the plan in docs/architecture.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import grimp
import pytest

import prefopt

ROOMS = {
    "__main__": "cli",
    "api": "config modalities sources stages",
    "cache": "files",
    "cli": "config evaluation files generation likelihoods locking methods modalities objectives report reproduce sources stages sweeps training version",
    "config": "methods objectives",
    "evaluation": "comparisons generation likelihoods models sources worlds",
    "generation": "files likelihoods sources",
    "likelihoods": "comparisons",
    "locking": "files",
    "methods": "objectives",
    "modalities": "comparisons config likelihoods methods models objectives references runs sources worlds",
    "modalities.image": "comparisons config likelihoods machine methods modalities models references report runs shards sources worlds",
    "modalities.text": "comparisons config evaluation generation likelihoods machine modalities models objectives oracles references report sources worlds",
    "models": "likelihoods",
    "prefopt": "api modalities.image objectives version",
    "references": "likelihoods models shards",
    "report": "config files modalities",
    "reproduce": "comparisons config files likelihoods methods modalities modalities.image models objectives oracles prefopt report runs sources training worlds",
    "runs": "config files locking sources version",
    "shards": "cache files",
    "sources": "comparisons files likelihoods models",
    "stages": "comparisons config evaluation files generation likelihoods locking methods modalities modalities.text models objectives oracles report runs sources training worlds",
    "sweeps": "config files locking modalities report runs worlds",
    "training": "comparisons config files likelihoods locking machine methods modalities models objectives references report runs sources",
    "worlds": "cache generation sources",
}
"""What the files of each room (folder, or file at the top) may import of the others; imports within functions count too."""


@pytest.fixture(scope="module")
def imports() -> Mapping[str, frozenset[str]]:
    """What each module of the package imports of the package."""
    graph = grimp.build_graph("prefopt", cache_dir=None)
    return {name: frozenset(graph.find_modules_directly_imported_by(name)) for name in graph.modules}


FOLDERS_OF_ROOMS = ("modalities",)
"""Folders whose own folders are rooms too: what lies in them is found by name and imported by nobody."""


def room(module: str) -> str:
    """The folder, or file at the top, that a module lies in."""
    _, *path = module.split(".")
    if path[:1] and path[0] in FOLDERS_OF_ROOMS and path[1:] and is_package(f"{path[0]}/{path[1]}"):
        return ".".join(path[:2])
    return path[0] if path else "prefopt"


def is_package(name: str) -> bool:
    """Whether a path within the package is a folder of files."""
    return (Path(prefopt.__file__).parent / name).is_dir()


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


def test_rooms_have_no_circle_either(imports):
    arrows = {room(a): frozenset() for a in imports}
    for a, others in imports.items():
        arrows[room(a)] |= {room(b) for b in others if room(b) != room(a)}
    assert circles(arrows) == []


@pytest.mark.parametrize("alone", ["objectives", "oracles", "comparisons"])
def test_what_can_be_lifted_out_imports_nothing_of_the_package(alone, imports):
    outside = {other for name, others in imports.items() if room(name) == alone for other in others}
    assert {room(other) for other in outside} <= {alone}
