"""Draw the rooms of the package and who imports whom, from the imports: `python docs/draw_layers.py`.

Rooms stand in the layers that docs/architecture.md lists; an arrow that others already imply is left out. The tests draw it again
and compare, so the picture is as true as the code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import grimp

DOCS = Path(__file__).parent
PICTURE = DOCS / "images" / "layers.svg"
HEIGHT, GAP, ROW, MARGIN = 30, 22, 74, 20
LETTER = 7.6  # width of a letter of 13 px, about
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328; text-anchor: middle; dominant-baseline: central }
  rect { fill: #eef2f7; stroke: #8896a8; rx: 6px }
  rect.modality { fill: #e3f1e6; stroke: #5a9367 }
  path { fill: none; stroke: #8896a8; stroke-opacity: .55; stroke-width: 1.1 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } rect { fill: #22303f; stroke: #6b7c90 } rect.modality { fill: #1f3a2a; stroke: #5a9367 }
  }
"""


def room(module: str) -> str:
    """The folder, or file at the top, that a module of the package lies in; each modality is a room of its own."""
    _, *path = module.split(".")
    if path[:1] == ["modalities"] and path[1:] and is_folder(f"modalities/{path[1]}"):
        return ".".join(path[:2])
    return path[0] if path else "prefopt"


def is_folder(name: str) -> bool:
    """Whether a path within the package is a folder."""
    return (DOCS.parent / "src" / "prefopt" / name).is_dir()


def layers() -> list[list[str]]:
    """Rooms by layer, the highest first, as the page lists them."""
    page = (DOCS / "architecture.md").read_text("utf-8")
    block = re.search(r"<!-- layers -->\n```text\n(.*?)```", page, re.S)
    assert block is not None
    return [line.split("  ")[0].split() for line in block.group(1).splitlines()]


def arrows() -> dict[str, set[str]]:
    """Which other rooms each room imports."""
    graph = grimp.build_graph("prefopt", cache_dir=None)
    found: dict[str, set[str]] = {room(module): set() for module in graph.modules}
    for module in graph.modules:
        for other in graph.find_modules_directly_imported_by(module):
            if room(other) != room(module):
                found[room(module)].add(room(other))
    return found


def implied(found: Mapping[str, set[str]], start: str) -> set[str]:
    """Rooms that a room reaches by way of another."""
    reached: set[str] = set()
    waiting = [further for other in found[start] for further in found.get(other, ())]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += found.get(name, ())
    return reached


def drawn(rows: Sequence[Sequence[str]], found: Mapping[str, set[str]]) -> str:
    """The picture as SVG."""
    widths = [[LETTER * len(name) + 24 for name in row] for row in rows]
    across = max(sum(row) + GAP * (len(row) - 1) for row in widths) + 2 * MARGIN
    boxes: dict[str, tuple[float, float, float]] = {}
    for n, (row, sizes) in enumerate(zip(rows, widths, strict=True)):
        x = (across - sum(sizes) - GAP * (len(row) - 1)) / 2
        for name, width in zip(row, sizes, strict=True):
            boxes[name] = (x, MARGIN + n * ROW, width)
            x += width + GAP
    lines = []
    for start, others in sorted(found.items()):
        x, y, width = boxes[start]
        x, y = x + width / 2, y + HEIGHT
        for end in sorted(others - implied(found, start)):
            u, v, size = boxes[end]
            u += size / 2
            lines.append(
                f'<path d="M{x:.0f} {y} C{x:.0f} {y + ROW / 2:.0f} {u:.0f} {v - ROW / 2:.0f} {u:.0f} {v}"/>'
            )
    for name, (x, y, width) in boxes.items():
        kind = ' class="modality"' if name.startswith("modalities.") else ""
        lines.append(f'<rect{kind} x="{x:.0f}" y="{y}" width="{width:.0f}" height="{HEIGHT}"/>')
        lines.append(f'<text x="{x + width / 2:.0f}" y="{y + HEIGHT / 2:.0f}">{escape(name)}</text>')
    tall = 2 * MARGIN + (len(rows) - 1) * ROW + HEIGHT
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {across:.0f} {tall}" width="{across:.0f}" height="{tall}">'
    return "\n".join([head, f"<style>{STYLE}</style>", *lines, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(drawn(layers(), arrows()), "utf-8")
    print(PICTURE)
