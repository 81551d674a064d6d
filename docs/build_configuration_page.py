"""Say in docs/configuration.md where each group of keys applies, from what the groups declare.

    python docs/build_configuration_page.py

Rewrites the paragraph below each `<!-- where: Group -->`; a test checks that the page is current.
"""

from __future__ import annotations

import re
from pathlib import Path

from prefopt import methods
from prefopt.config import needs_of
from prefopt.config.keys.base import Keys, Needs
from prefopt.config.schema import TrainConfig

PAGE = Path(__file__).parent / "configuration.md"
MARKED = re.compile(r"(<!-- where: (\w+) -->\n)(?:(?!\n\n).)*(?=\n\n)", re.S)
MANY = 6
"""No more methods are listed: what so many have in common is no property of a few."""


def groups() -> dict[str, type[Keys]]:
    """Groups of keys by name, in the order in which the page may show them."""
    return {g.__name__: g for g in TrainConfig.__bases__ if issubclass(g, Keys)}


def where(group: type[Keys]) -> str:
    """Where a group's keys apply, in sentences."""
    said = f"For {chain(group.where)}." if group.where else "For every run."
    own: dict[tuple[Needs, ...], list[str]] = {}
    for key in group.model_fields:
        if more := needs_of(key)[len(group.where) :]:
            own.setdefault(more, []).append(key)
    for needs, keys in own.items():
        said += f" Only for {chain(needs)}: {', '.join(f'`{key}`' for key in keys)}."
    return said


def chain(needs: tuple[Needs, ...]) -> str:
    """Needs in a row, each narrower than the one before; the methods that have what the last asks for."""
    words = [re.sub(r" \(.*\)$", "", need.words) for need in needs]
    having = [name for name, method in methods.all_methods().items() if method.traits & set(needs[-1].traits)]
    links = ", ".join(f"[`{name}`](methods/{name}.md)" for name in having)
    return ": ".join(words) + (f" ({links})" if 0 < len(having) <= MANY else "")


def page(text: str) -> str:
    """The page with every marked paragraph as the groups have it."""
    known = groups()
    return MARKED.sub(lambda found: found[1] + where(known[found[2]]), text)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(PAGE)
