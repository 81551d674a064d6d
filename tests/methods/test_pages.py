"""docs/methods is current, and its examples print what they say."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from prefopt import methods

DOCS = Path(__file__).parents[2] / "docs"


def builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_method_pages", DOCS / "build_method_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pages_are_current() -> None:
    want = builder().pages()
    have = {path.name: path.read_text("utf-8") for path in (DOCS / "methods").iterdir()}
    stale = sorted(name for name in {*want, *have} if want.get(name) != have.get(name))
    assert not stale, "run `python docs/build_method_pages.py`"


@pytest.mark.parametrize("name", methods.all_methods())
def test_examples_print_what_they_say(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = (DOCS / "methods" / f"{name}.md").read_text("utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.S | re.M)
    exec(compile(code, f"{name}.md", "exec"), {})
    said = re.findall(r"# \[(.*)\]$", code, re.M)
    assert capsys.readouterr().out.replace("'", "").strip() == f"[{said[0]}]"


@pytest.mark.parametrize("path", sorted((DOCS / "methods").glob("*.md")), ids=lambda path: path.stem)
def test_links_lead_somewhere_and_tables_are_whole(path: Path) -> None:
    text = path.read_text("utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (path.parent / target).exists(), target
    blocks = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    for table in re.findall(r"(?:^\|.*\n)+", blocks, re.M):
        bars = {len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}
        assert len(bars) == 1, table
