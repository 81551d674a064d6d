"""Every objective has a method, and what the methods say is so."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from typing import Any

import pytest
import torch

from prefopt import methods, objectives
from prefopt.config import ALIASES, FIELD_NAMES, resolve
from prefopt.methods import Method
from prefopt.objectives.combining import COMBINED

ALL = list(methods.all_methods())
PLACES = {"model": "m", "data": "d"}


def method(name: str) -> Method:
    found = methods.find(name)
    assert found is not None
    return found


def hyper(name: str) -> dict[str, Any]:
    return {key: value for key, value in methods.defaults(name).items() if key not in FIELD_NAMES}


def test_every_objective_has_a_method_and_every_method_an_objective() -> None:
    assert sorted(ALL) == ALL
    assert {entry.objective_name for entry in methods.all_methods().values()} == set(objectives.names())
    for name, entry in methods.all_methods().items():
        module = importlib.import_module(f"prefopt.methods.{name}")
        assert module.METHOD is entry
        assert entry.objective_name == objectives.canonical_name(name)
        assert entry.objective in ("", objectives.canonical_name(name))


# read lengths only to average over tokens, and an image is one unit
AVERAGES = {"ipo", "sft", "mpo"}
# the loss reads log-ratios alone, but their runs sample, score or move texts' models
STAGED = {n for n in ALL if methods.all_methods()[n].stages}
MODALITY = {
    **dict.fromkeys(("diffusion_dpo", "diffusion_kto", "mapo"), "image"),
    **dict.fromkeys(("lrm", "d3po", "spo", "lpo", "gradspo"), "text_to_image"),
    "sopo": "candidates",
    **dict.fromkeys(("condition_po", "controlnet_pp"), "control"),
    **dict.fromkeys(
        ("symmpo", "mdpo", "mfpo", "svco", "opa_dpo", "vdpo", "povid", "ha_dpo", "chip", "longvpo"), "vision"
    ),
}
GIVEN = {"vdpo": {"alpha": 0.5}}
"""Hyper-parameters without a default."""
ITEM = {"logp", "logp_own", "consistency", "seen"}
"""What a likelihood of control images gives of an item beside its log-ratio."""
VISION = {"logp", "length", "rho_tokens", "changed", "kl"}
"""The same of texts under images."""


@pytest.mark.parametrize("name", ALL)
def test_modality_follows_from_what_the_objective_reads(name: str) -> None:
    objective = objectives.get(name)
    log_ratios_alone = objective.needs_reference and not objective.needs and not objective.branches
    if name in MODALITY:
        assert method(name).modality == MODALITY[name]
        assert objective.needs <= {"control": ITEM, "vision": VISION}.get(MODALITY[name], {"logp"})
    elif name in STAGED:
        assert method(name).modality == "text"
    else:
        assert method(name).modality == ("any" if log_ratios_alone or name in AVERAGES else "text")


@pytest.mark.parametrize(
    "name", [n for n in ALL if methods.all_methods()[n].modality not in ("text", "vision")]
)
def test_methods_for_images_run_on_what_an_image_likelihood_gives(name: str) -> None:
    """rho and logp of about 1e-4 and 0.1, one unit of length, nothing per token."""
    mse = torch.tensor([0.11, 0.13, 0.08])
    rho_w, rho_l = torch.tensor([3e-4, -2e-4, 1e-4]), torch.tensor([-1e-4, 1e-4, 0.0])
    one, objective = torch.ones(3), objectives.get(name)
    if not objective.needs_reference:
        rho_w, rho_l = rho_w - mse, rho_l - mse
    rho_w.requires_grad_(), rho_l.requires_grad_()
    given = {"length_w": one, "length_l": one, "logp_w": rho_w - mse, "logp_l": rho_l - mse}
    given |= {f"{key}_{side}": one for key in ITEM - {"logp"} for side in "wl"}
    needed = {key: value for key, value in given.items() if key[:-2] in objective.needs}
    second = torch.tensor([True, False, True]) if objective.unpaired else rho_l
    loss = objective(rho_w, second, **needed).sum()
    found = [g for g in torch.autograd.grad(loss, [rho_w, rho_l], allow_unused=True) if g is not None]
    assert all(bool(g.isfinite().all()) for g in found)
    assert any(bool((g != 0).any()) for g in found)


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
    objective = objectives.get(name, **given)
    if name in GIVEN:
        with pytest.raises(ValueError, match=f"needs {', '.join(GIVEN[name])}"):
            objective.check_given()
    objective.replace(**GIVEN.get(name, {})).check_given()
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
    if entry.paper.openreview:
        assert not entry.paper.arxiv
        assert entry.paper.url in entry.paper.bibtex
    else:
        assert re.fullmatch(r"\d{4}\.\d{5}", entry.paper.arxiv)
        assert entry.paper.year >= 2000 + int(entry.paper.arxiv[:2])
    assert re.match(r"@article\{[\w'-]+,\n", entry.paper.bibtex), entry.paper.bibtex


@pytest.mark.parametrize("name", ALL)
def test_keys_and_metrics_named_in_the_text_exist(name: str) -> None:
    entry = method(name)
    doc = importlib.import_module(f"prefopt.methods.{name}").__doc__ or ""
    text = " ".join([doc, entry.use_when, entry.failure_signs])
    own = {key for other in ALL for key in objectives.hyperparameters(other)}
    known = {*FIELD_NAMES, *own, *COMBINED, "lambda"}
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
