"""Write constraints-oldest.txt: the oldest version that pyproject.toml allows of each library.

python .ci/oldest.py          # write it
python .ci/oldest.py --check  # exit 1 where the file says something else
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILE = ROOT / "constraints-oldest.txt"
TOOLS = {"dev", "docs"}  # extras that judge or describe the package, and never run it
HEAD = "# The oldest versions that pyproject.toml allows, written by `make oldest`; CI tests them too.\n"
AT_LEAST = re.compile(r"([\w.-]+)(?:\[[\w,]+\])?>=([\w.]+)")


def oldest(pyproject: str) -> dict[str, str]:
    """The lower bound of each requirement that has one, by the library's name.

    Args:
        pyproject: text of pyproject.toml.

    Raises:
        ValueError: a library has two lower bounds.
    """
    project = tomllib.loads(pyproject)["project"]
    lists = [project["dependencies"]]
    lists += [listed for extra, listed in project["optional-dependencies"].items() if extra not in TOOLS]
    bounds: dict[str, str] = {}
    for requirement in (one for listed in lists for one in listed):
        if found := AT_LEAST.match(requirement):
            name, bound = found.groups()
            if bounds.setdefault(name, bound) != bound:
                raise ValueError(f"pyproject.toml asks for {name}>={bound} and for {name}>={bounds[name]}")
    return bounds


def text(pyproject: str) -> str:
    """The file, as it should be."""
    return HEAD + "".join(f"{name}=={bound}\n" for name, bound in sorted(oldest(pyproject).items()))


if __name__ == "__main__":
    meant = text((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    if "--check" in sys.argv:
        sys.exit(None if FILE.read_text(encoding="utf-8") == meant else "run `make oldest`")
    FILE.write_text(meant, encoding="utf-8")
