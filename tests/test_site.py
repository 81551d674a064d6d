"""The documentation site: where links lead that leave docs/. That every other link leads somewhere is checked by `make site`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest
from mkdocs.config import load_config
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]


def script():
    """docs/site/hooks.py as a module."""
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "site" / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HOOKS = script()


@pytest.fixture(scope="module")
def config():
    loaded = load_config(str(ROOT / "mkdocs.yml"), hooks=[], plugins=[], theme="mkdocs")
    loaded.plugins._current_plugin = None  # which a build sets before it calls a hook
    return loaded


def docs(config, *names: str) -> Files:
    return Files([File(name, config.docs_dir, config.site_dir, config.use_directory_urls) for name in names])


def pointed(config, markdown: str, name: str) -> str:
    """A page's text as the site has it."""
    source = config.docs_dir if (Path(config.docs_dir) / name).exists() else str(ROOT)
    page = SimpleNamespace(file=File(name, source, config.site_dir, config.use_directory_urls))
    return HOOKS.on_page_markdown(markdown, page, config, Files([]))


@pytest.mark.parametrize(
    ("page", "link", "leads_to"),
    [
        ("configuration.md", "../examples/ties.yaml", "examples/ties.yaml.listing.md"),
        (
            "images.md",
            "../examples/images",
            "examples/README.md",
        ),  # the nearest README above a folder without one
        ("methods/dpo.md", "../../CONTRIBUTING.md#tests", "../CONTRIBUTING.md#tests"),
        ("methods/dpo.md", "../../README.md", "../README.md"),  # the site's home
        ("CONTRIBUTING.md", "docs/architecture.md", "architecture.md"),
        ("examples/README.md", "../docs/images.md", "../images.md"),
        ("data.md", "methods/dpo.md#run-it", "methods/dpo.md#run-it"),
        ("data.md", "https://arxiv.org/abs/2305.18290", "https://arxiv.org/abs/2305.18290"),
        ("data.md", "#pairs", "#pairs"),
    ],
)
def test_links_that_leave_docs_lead_to_pages(config, page: str, link: str, leads_to: str):
    assert pointed(config, f"See [this]({link}).", page) == f"See [this]({leads_to})."


def test_links_in_code_are_left_alone(config):
    text = "`[a](../LICENSE)`\n```md\n[b](../LICENSE)\n```\n"
    assert pointed(config, text, "data.md") == text


def test_what_is_linked_to_is_added_and_what_that_links_to(config):
    files = docs(config, "README.md", "configuration.md", "images.md")
    HOOKS.on_files(files, config)
    assert {file.src_uri for file in files} >= {
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "examples/README.md",
        "examples/ties.yaml.listing.md",
    }
    listing = files.get_file_from_path("examples/ties.yaml.listing.md").content_string
    assert listing.startswith("# examples/ties.yaml\n\n```yaml\n")
    assert (ROOT / "examples" / "ties.yaml").read_text("utf-8") in listing


def test_a_link_to_a_file_that_is_not_there_ends_the_build(config, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(HOOKS, "outside", lambda origin, markdown: [ROOT / "nowhere.yaml"])
    with pytest.raises(PluginError, match=r"links to nowhere\.yaml, which is not there"):
        HOOKS.on_files(docs(config, "data.md"), config)


def test_every_method_has_an_entry_under_its_name(config):
    from prefopt import methods

    HOOKS.on_config(config)
    (listed,) = [entry["Methods"] for entry in config.nav if "Methods" in entry]
    assert listed[1:] == [{name: f"methods/{name}.md"} for name in sorted(methods.all_methods())]


def test_headings_are_named_as_on_github(config):
    HOOKS.on_config(config)
    slug = config.mdx_configs["toc"]["slugify"]
    assert slug("The `dpo_rk` loss, T1: DPO(CP) & ties", "-") == "the-dpo_rk-loss-t1-dpocp--ties"
