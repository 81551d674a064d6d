"""Every objective has a method, and what the methods say is so."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from typing import Any

import pytest

from prefopt import methods, objectives
from prefopt.config import ALIASES, FIELD_NAMES, resolve
from prefopt.methods import Method

ALL = sorted(objectives.names())
PLACES = {"model": "m", "data": "d"}


def method(name: str) -> Method:
    found = methods.find(name)
    assert found is not None
    return found


def hyper(name: str) -> dict[str, Any]:
    return {key: value for key, value in methods.defaults(name).items() if key not in FIELD_NAMES}


def test_every_objective_has_a_method_in_the_file_of_its_name() -> None:
    assert list(methods.all_methods()) == ALL
    for name, entry in methods.all_methods().items():
        module = importlib.import_module(f"prefopt.methods.{name}")
        assert module.METHOD is entry
        assert entry.objective_name == name


def test_listing_methods_loads_no_torch() -> None:
    code = (
        "import sys; from prefopt import methods; methods.all_methods(); methods.defaults('dpo_rk'); "
        "print(sorted({'torch', 'transformers', 'datasets', 'pydantic'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ALL)
def test_defaults_are_valid_keys_and_values(name: str) -> None:
    config, given = resolve({"method": name, **PLACES})
    assert given == hyper(name)
    objectives.get(name, **given)
    for key, value in methods.defaults(name).items():
        if key in FIELD_NAMES:
            assert getattr(config, key) == value


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("simpo", {"gamma": 1.0}),
        ("simpo", {"gamma_beta_ratio": 0.3}),
        ("dpo_rk", {"alpha": 0.5}),
        ("dpo_rk", {"nu": 2.0}),
        ("dpo_d", {"alpha": 0.5}),
        ("bpo", {"lambda": 1.2}),
        ("dpop", {"lambda": 5.0}),
        ("dpo", {"margin": "average"}),
    ],
)
def test_defaults_leave_room_for_every_spelling(name: str, other: dict[str, Any]) -> None:
    _, given = resolve({"method": name, **PLACES, **other})
    assert {ALIASES.get(key, key): value for key, value in other.items()}.items() <= given.items()
    objectives.get(name, **given)  # two spellings of one number would be refused here


@pytest.mark.parametrize("name", ["dpo_rk", "dpo_d", "bpo"])
def test_headliners_have_no_training_defaults(name: str) -> None:
    """Warm-up of 150 steps is the paper's, and longer than many runs."""
    assert not set(methods.defaults(name)) & FIELD_NAMES
    assert any("warmup_steps 150" in text for text in method(name).papers_config.values())


@pytest.mark.parametrize("name", ALL)
def test_each_says_what_it_should(name: str) -> None:
    entry = method(name)
    doc = importlib.import_module(f"prefopt.methods.{name}").__doc__ or ""
    assert "```text\n" in doc
    assert "## Relations" in doc
    assert doc.count("```") % 2 == 0
    for text in (entry.title, entry.summary, entry.use_when, entry.failure_signs):
        assert text
        assert "  " not in text
        assert text == text.strip()
    assert re.fullmatch(r"\d{4}\.\d{5}", entry.paper.arxiv)
    assert entry.paper.year >= 2000 + int(entry.paper.arxiv[:2])
    assert re.match(r"@article\{[\w'-]+,\n", entry.paper.bibtex), entry.paper.bibtex


@pytest.mark.parametrize("name", ALL)
def test_keys_and_metrics_named_in_the_text_exist(name: str) -> None:
    entry = method(name)
    doc = importlib.import_module(f"prefopt.methods.{name}").__doc__ or ""
    text = " ".join([doc, entry.use_when, entry.failure_signs])
    known = {*FIELD_NAMES, *(key for other in ALL for key in objectives.hyperparameters(other))} | {"lambda"}
    named = re.findall(r"`(\w+)=[\w.]+`", text)
    assert not set(named) - known
    for term in re.findall(r"`([a-z_.\d*]+(?:\+[a-z_.\d*]+)+)`", text):
        objectives.get(term)


def test_tie_rates_of_the_tie_tables() -> None:
    for name in ("dpo_rk", "dpo_d"):
        doc = importlib.import_module(f"prefopt.methods.{name}").__doc__ or ""
        rows = re.findall(r"^\| ([\d.]+)(?: \(default\))? \| ([\d.]+) \|", doc, re.M)
        assert len(rows) == 3
        for rate, nu in rows:
            assert type(objectives.get(name)).nu_from_tie_rate(float(rate)) == pytest.approx(float(nu))
