"""Names, one-line summaries and descriptions of pieces of software, from what is on this machine.

On Debian and its relatives from apt's lists of all packages. The long descriptions are a list of their own, which
containers often leave out; this fetches both once:

    sudo apt-get -o Acquire::Languages=en update

Elsewhere, or without those lists, from the docstrings of Python's own library: first line and second paragraph. Source
files are parsed, never imported.
"""

from __future__ import annotations

import ast
import random
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

APT = ("apt-cache", "-o", "Acquire::Languages=en")
WORDS = (12, 70)  # of a description
DEAD = re.compile(r"transitional|dummy package|debug symbols|metapackage|virtual package", re.I)


class Package(NamedTuple):
    """What is known of a package, or of a part of Python's library."""

    name: str
    summary: str
    """One line by its maintainers."""
    text: str
    """A paragraph of its description."""

    @property
    def family(self) -> str:
        """What describes the same thing is held out together: libpng16-16 and libpng-dev, functions of a module."""
        return re.split(r"[-_.+0-9]", self.name.lower().removeprefix("lib").removeprefix("python3-"))[0]

    @property
    def prompt(self) -> str:
        """The question, as a message."""
        return f"Say in one short plain sentence what this is for.\n\n{self.name}: {self.text}"

    @property
    def sentence(self) -> str:
        """The summary as a sentence."""
        return self.summary[0].upper() + self.summary[1:].rstrip(" .") + "."


def packages(source: str, seed: int) -> Iterator[Package]:
    """Usable packages in a drawn order, each name and each description once.

    Args:
        source: "debian", "python", or "auto" for Debian's where they are.
        seed: of the order.
    """
    seen: set[str] = set()
    for package in (
        debian(seed) if source == "debian" or (source == "auto" and has_debian()) else python(seed)
    ):
        words = package.text.split()
        if (
            WORDS[0] <= len(words) <= WORDS[1]
            and not DEAD.search(package.summary)
            and not {package.name, package.text} & seen
        ):
            seen |= {package.name, package.text}
            yield package


def has_debian() -> bool:
    """Whether apt's lists hold long descriptions."""
    return shutil.which("apt-cache") is not None and "Description-en:" in show(["apt"])


def show(names: Iterable[str]) -> str:
    """What apt says of packages."""
    done = subprocess.run([*APT, "--no-all-versions", "show", *names], capture_output=True, text=True)
    return done.stdout


def debian(seed: int) -> Iterator[Package]:
    """Packages that apt knows, a few hundred at a time."""
    listed = subprocess.run([*APT, "pkgnames"], capture_output=True, text=True, check=True).stdout.split()
    names = random.Random(seed).sample(sorted(listed), len(listed))
    for start in range(0, len(names), 400):
        for record in show(names[start : start + 400]).split("\n\n"):
            found = re.search(r"^Description-en: (.+)\n((?: .*\n?)+)", record, re.M)
            name = re.search(r"^Package: (.+)$", record, re.M)
            if found and name:
                lines = [line.strip() for line in found[2].splitlines()]
                first = lines[: lines.index(".")] if "." in lines else lines
                yield Package(name[1], found[1].strip(), " ".join(" ".join(first).split()))


def python(seed: int) -> Iterator[Package]:
    """Modules, classes and functions of Python's own library."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found = []
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if {"site-packages", "test", "tests", "idlelib"} & set(parts):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue  # a few files are wrong on purpose
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                paragraphs = (ast.get_docstring(node) or "").split("\n\n")
                if len(paragraphs) > 1 and re.match(r"[A-Z]", paragraphs[1]) and paragraphs[1].endswith("."):
                    summary, text = (" ".join(p.split()) for p in paragraphs[:2])
                    name = ".".join([parts[0], *([node.name] if hasattr(node, "name") else [])])
                    found.append(Package(name, summary, text))
    yield from random.Random(seed).sample(found, len(found))
