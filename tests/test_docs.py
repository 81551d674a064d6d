"""The documentation is true: links lead somewhere, every key is described, snippets and examples run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from prefopt import methods, objectives
from prefopt.cli.main import COMMANDS
from prefopt.config import ALIASES, TrainConfig, read_yaml, resolve
from prefopt.modalities.fit import kind_for
from prefopt.worlds import all_worlds

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
EXAMPLES = sorted((ROOT / "examples").rglob("*.yaml"))
# keys of `prefopt compare`, beside the training keys
COMPARE_KEYS = {"methods", "betas", "seeds"}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(path: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        found = (page.parent / file).resolve() if file else page
        assert found.exists(), f"{name(page)} links to {target}, which is not there"
        if anchor:
            assert anchor in anchors(found), (
                f"{name(page)} links to {target}, but {name(found)} has no such heading"
            )


def test_every_configuration_key_is_described_with_its_default() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    section = text.split("## Every key")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \| .+\|$", section, re.M))
    for key, field in TrainConfig.model_fields.items():
        assert key in rows, f"docs/configuration.md does not describe {key}"
        if field.is_required():
            expected = "required"
        else:
            value = field.default
            plain = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
            expected = f"`{plain}`"
        assert rows[key] == expected, (
            f"docs/configuration.md gives {key} the default {rows[key]}, it is {expected}"
        )


def test_each_group_of_keys_says_where_it_applies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs")
    import build_configuration_page as made

    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert made.page(text) == text, "run python docs/build_configuration_page.py"
    tables = {
        marked[2]: re.findall(
            r"^\| `(\w+)` ", text[marked.end() :].partition("<!-- where:")[0].partition("\n## ")[0], re.M
        )
        for marked in made.MARKED.finditer(text)
    }
    assert {group: set(keys) for group, keys in tables.items()} == {
        name: set(group.model_fields) for name, group in made.groups().items()
    }


def test_every_alias_is_described() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    for alias, key in ALIASES.items():
        assert f"| `{alias}` | `{key}` |" in text


def test_readme_names_every_method_and_only_commands_that_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"docs/methods/(\w+)\.md", text)) - {"README"}
    assert linked == set(methods.all_methods())
    assert f"It has {len(objectives.names())} objectives" in text
    table = (ROOT / "docs" / "parity.md").read_text(encoding="utf-8")
    assert f"In {table.count('| pass |')} configurations" in text
    shell = "".join(re.findall(r"```bash\n(.*?)```", text, re.S))
    commands = re.findall(r"^prefopt (\w+)", shell, re.M)
    assert commands
    assert set(commands) <= set(COMMANDS)


@pytest.mark.parametrize(
    "page", ["README.md", "docs/add_a_method.md", "docs/control.md", "docs/vision_data.md"]
)
def test_marked_snippets_print_what_they_say(
    page: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefopt.objectives import registry

    monkeypatch.setattr(registry, "OBJECTIVES", dict(registry.OBJECTIVES))
    text = (ROOT / page).read_text(encoding="utf-8")
    snippets = re.findall(r"<!-- runs in tests/test_docs.py -->\n```python\n(.*?)```", text, re.S)
    assert snippets, f"{page} has no marked snippet"
    for snippet in snippets:
        promised = re.findall(r"^print\(.*\)  # (.+)$", snippet, re.M)
        assert promised
        exec(compile(snippet, page, "exec"), {"__name__": "snippet"})
        assert capsys.readouterr().out.splitlines() == promised


@pytest.mark.parametrize("example", EXAMPLES, ids=name)
def test_examples_resolve(example: Path) -> None:
    values = read_yaml(example)
    listed = values.get("methods", [values.get("method")])
    shared = {k: v for k, v in values.items() if k not in COMPARE_KEYS | {"method"}}
    for entry in listed:
        method, _, options = str(entry).partition(":")
        own = dict(pair.split("=", 1) for pair in options.split(":") if pair)
        config, _ = resolve(shared, own, {"method": method}, kind_of=kind_for)
        made = config.data.startswith(f"runs/{example.parent.name}/")  # by a script beside the file
        assert made or config.data in {f"world:{name}" for name in all_worlds()}, (
            "examples run without a network"
        )


def test_files_that_the_architecture_names_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:\w+/)+\w+\.py)`", text)) | set(re.findall(r"`(\w+(?:/\w+)*/)`", text))
    places = [ROOT, ROOT / "src" / "prefopt"]
    written_for_any = {name for name in named if "NAME" in name}
    missing = {n for n in named - written_for_any if not any((place / n).exists() for place in places)}
    assert len(named) > 20
    assert not missing - {"references/"}  # of the cache folder


def test_the_notebook_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a model that learned less and fewer rows, which takes less time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    file = ROOT / "examples" / "python" / "notebook.py"
    text = file.read_text(encoding="utf-8")
    for said, less in (("pretrain_steps=150", "pretrain_steps=50"), ("comparisons(96)", "comparisons(48)")):
        assert text.count(said) == 1
        text = text.replace(said, less)
    cells: dict[str, Any] = {"__name__": "notebook"}
    exec(compile(text, str(file), "exec"), cells)
    out = capsys.readouterr().out
    assert "step 10 of 18: loss" in out  # of the callback for a Trainer
    assert "merged; scores differ by" in out
    history = cells["history"]
    assert {"eval_wins_loss", "eval_ties_loss", "eval_narrow"} <= set(history.columns)
    wins = history["eval_wins_loss"].dropna()
    assert wins.iloc[-1] == wins.min()  # the best model was put back, or was the last
    record = (tmp_path / "runs" / "notebook" / "ties" / "config.yaml").read_text()
    assert f"memory:data/DataFrame of {len(cells['train_rows'])} rows" in record
