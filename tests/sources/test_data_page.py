"""The page on data formats says what is so: its examples run, its rows load, its lists are complete."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import prefopt
from modalities.image.picture_files import picture, save
from prefopt.cli.build import command as build
from prefopt.modalities.image.rows import load_image_comparisons, looks_like_images
from prefopt.modalities.text.rows import load_comparisons
from prefopt.objectives import TPO

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.S | re.M)


@pytest.mark.parametrize("code", blocks("python"))
def test_examples_print_what_they_say(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(code, "docs/data.md", "exec"), {})
    expected = re.findall(r"^(?:print\(.*\)  )?# (.*)$", code, re.M)
    assert expected
    assert capsys.readouterr().out.splitlines() == expected


@pytest.mark.parametrize("block", blocks("jsonl"))
def test_rows_load(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [json.loads(line) for line in block.splitlines()]
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "images", **{str(n): picture(n) for n in (1, 2, 3)})
    load = load_image_comparisons if looks_like_images(rows[0]) else load_comparisons
    further = {"branches": TPO().branches} if "reference" in rows[0] else {}
    loaded = load(rows, **further)
    assert not loaded.dropped
    assert not [hint for hint in loaded.report.hints if "not read" in hint.text]


def test_the_list_of_reasons_is_complete() -> None:
    package = Path(prefopt.__file__).parent
    readers = [
        "sources/cells.py",
        *(f"modalities/{name}.py" for name in ("text/rows", "text/encoding", "image/rows")),
        "sources/pictures.py",
    ]
    source = "".join((package / name).read_text() for name in readers)
    kinds = "empty|bad|wrong|unknown|missing|contradicting|identical|chat|unusable|broken|huge"
    reasons = set(re.findall(rf'"((?:{kinds})_\w+)"', source)) | {
        "bad_votes",
        "bad_target",
        "tie",
        "unusable_item",
        "prompt_length",
    }
    assert len(reasons) > 12
    assert not [reason for reason in reasons if f"`{reason}`" not in PAGE]


def test_every_rule_is_on_the_page() -> None:
    assert not [name for name in build.commands if f"`{name}" not in PAGE]  # type: ignore[attr-defined]
