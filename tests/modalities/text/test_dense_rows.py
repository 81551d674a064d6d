"""Runs on shared and packed rows are the runs on plain ones; what the memory decides; what is refused."""

from __future__ import annotations

import json
import random
import shutil
from array import array
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import prefopt
from conftest import save_tiny_model
from likelihoods.architectures import NoDowncast, build
from prefopt import objectives
from prefopt.comparisons import Comparison, Encoded, Outcome, collate
from prefopt.config import ConfigError
from prefopt.likelihoods.capability import Ability
from prefopt.likelihoods.plan import EncodedText
from prefopt.likelihoods.tokens import TokenLikelihood
from prefopt.machine import memory
from prefopt.modalities.text import setup as text
from prefopt.modalities.text.changed import with_changed
from prefopt.modalities.text.memory import TextMemory
from prefopt.references import Reference
from prefopt.training.batches import Scorer

WORDS = ["red", "blue", "fig", "pear", "one", "two", "apple", "Sort:", "Count:"]


def rows(count: int) -> list[dict[str, str]]:
    rng = random.Random(0)

    def text(low: int, high: int) -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(low, high)))

    return [
        {"prompt": text(4, 20), "chosen": f" {text(1, 6)}", "rejected": f" {text(1, 6)}"}
        for _ in range(count)
    ]


def run(model: Path, data: Path, folder: Path, **options: object) -> tuple[list[float], dict[str, object]]:
    """Losses, and the record of the checks."""
    usual = {
        "sample_prompts": 0, "eval_size": 0, "logging_steps": 1, "bf16": False, "save_strategy": "no",
        "learning_rate": 3e-4, "lr_scheduler_type": "constant", "per_device_train_batch_size": 4,
    }  # fmt: skip
    result = prefopt.train("dpo", model=model, data=data, output_dir=str(folder), **{**usual, **options})
    manifest = json.loads((folder / "record" / "manifest.json").read_text())
    checks = {check["name"]: check for check in manifest["checks"]}
    return [line["loss"] for line in result.history if "loss" in line], checks


@pytest.mark.parametrize(
    "options", [{}, {"use_peft": True, "reference": "adapter_off"}], ids=["full", "lora"]
)
def test_thirty_steps_are_the_same(options, tiny_model, rows_file, own_cache, tmp_path):
    data = rows_file(rows(24))
    found = {}
    for layout in ("plain", "auto"):
        found[layout], checks = run(
            tiny_model, data, tmp_path / layout, batch_layout=layout, max_steps=30, **options
        )
    assert "prompts are shared" in checks["batch layout"]["detail"]
    assert found["auto"] == pytest.approx(found["plain"], rel=1e-4)
    assert found["auto"] != found["plain"]  # other shapes round otherwise: it really was another path
    assert found["auto"][-1] < found["auto"][0]


ELSEWHERE = {"logp_own", "consistency", "seen", "kl"}
"""What no likelihood of texts gives."""


@pytest.mark.parametrize("name", [n for n in objectives.names() if not objectives.get(n).needs & ELSEWHERE])
def test_every_objective_on_both_paths(name):
    objective = objectives.get(name, **({"alpha": 0.5} if name == "vdpo" else {}))
    rng = random.Random(1)

    def draw(low: int, high: int) -> array[int]:
        return array("i", [rng.randint(3, 96) for _ in range(rng.randint(low, high))])

    examples = []
    for n in range(4):
        prompt = draw(4, 12)
        items = tuple(EncodedText(prompt + draw(1, 8), len(prompt)) for _ in range(2))
        others = {name: EncodedText(prompt + draw(1, 8), len(prompt)) for name in objective.branches}
        outcome = Outcome(0.5, 0.2, 0.3) if objective.has_tie_term and n == 1 else Outcome(1.0, 0.0, 0.0)
        items += tuple(others[name] for name, branch in objective.branches.items() if branch.gradient)
        beside = [name for name, branch in objective.branches.items() if not branch.gradient]
        known = [name for name in objective.branches if name not in beside]
        place = {name: 2 + k for k, name in enumerate([*known, *beside])}
        edges = (Comparison(0, 1, outcome, columns={"offset": 0.1 * n}, branches=place),)
        if objective.unpaired:
            edges = (
                Comparison(0, None, branches=place),
                Comparison(1, None, Outcome(0.0, 1.0, 0.0), branches=place),
            )
        examples.append(Encoded(str(n), items, edges, tuple(others[name] for name in beside)))
    if "changed" in objective.needs:
        examples = with_changed(examples)
    model, reference_model = build("llama"), build("llama")
    with torch.no_grad():
        for k, p in enumerate(reference_model.parameters()):
            p.add_(0.01 * torch.randn(p.shape, generator=torch.Generator().manual_seed(k), dtype=p.dtype))
    found = []
    for ability in (Ability(), Ability("shared", True, True, True, 2**20)):
        likelihood = TokenLikelihood(SimpleNamespace(pad_token_id=0, eos_token_id=2))
        likelihood.ability = ability
        reference = Reference(
            "live" if objective.needs_reference else "none",
            policy=SimpleNamespace(model=model, adapter=None),
            likelihood=likelihood,
            load=lambda: reference_model,
            same_as_policy=False,
            device=torch.device("cpu"),
        )
        model.zero_grad()
        with NoDowncast():
            sides, edges, *_ = Scorer(likelihood, reference, objective, torch.device("cpu")).sides(
                model, collate(examples)
            )
            outcome_E3 = edges.outcome_E3.double()
            state = objective.next_state(objective.initial_state(), objective.statistics(sides, outcome_E3))
            losses = objective.losses(sides, None if edges.all_wins else outcome_E3, state)
            losses.sum().backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
        found.append((losses.detach(), gradient))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        found[1][1], found[0][1], rtol=1e-7, atol=1e-9 * float(found[0][1].abs().max())
    )
    assert found[0][1].abs().max() > 0


def test_a_step_cut_by_tokens_is_the_same_step(tiny_model, rows_file, own_cache, tmp_path):
    data = rows_file(rows(24))
    counted, _ = run(tiny_model, data, tmp_path / "counted", max_steps=6, gradient_accumulation_steps=2)
    cut, _ = run(
        tiny_model, data, tmp_path / "cut", max_steps=6, gradient_accumulation_steps=2,
        per_device_train_batch_tokens=60,
    )  # fmt: skip
    assert cut == pytest.approx(counted, rel=1e-4)
    assert cut != counted


def test_forward_passes_hold_the_tokens_they_may(tiny_model, rows_file, own_cache, tmp_path, monkeypatch):
    seen = []
    sides = Scorer.sides

    def watched(self, model, batch):
        if torch.is_grad_enabled():  # neither evaluations nor the check of the start value
            seen.append(sum(len(item.ids) for item in batch.items))
        return sides(self, model, batch)

    monkeypatch.setattr(Scorer, "sides", watched)
    run(tiny_model, rows_file(rows(8)), tmp_path / "run", max_steps=1, per_device_train_batch_size=8,
        per_device_train_batch_tokens=80)  # fmt: skip
    assert len(seen) > 3  # the first is the rehearsal of the longest
    assert seen[0] == max(seen) <= 80


def test_examples_that_tokens_hold():
    """The widest examples that fit together, at least one."""
    widths = [50, 30, 30, 20, 4]
    need = TextMemory(
        config=None, model=None, likelihood=SimpleNamespace(width=lambda item: item), longest=0, items=0,
        train=[Encoded(str(w), (w - 2, 2), ()) for w in widths], bf16=False, cached=False,
        copies=False,
    )  # fmt: skip
    assert [need.examples_of(tokens) for tokens in (1, 50, 79, 80, 110, 129, 130, 134, 999)] == [
        1,
        1,
        1,
        2,
        3,
        3,
        4,
        5,
        5,
    ]
    assert need.tokens_of(3) == 110


def test_objectives_that_compare_within_a_batch_count_examples(
    tiny_model, rows_file, own_cache, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        text, "load_model", lambda *args, **more: pytest.fail("known before a model is loaded")
    )
    with pytest.raises(ConfigError, match="aot compares within a forward pass"):
        prefopt.train(
            "aot", model=tiny_model, data=rows_file(rows(8)), output_dir=str(tmp_path / "run"),
            per_device_train_batch_tokens=80,
        )  # fmt: skip


@pytest.mark.parametrize(("free", "checkpointing", "whole"), [(2**40, False, True), (2**20, True, False)])
def test_memory_decides_what_is_left_to_it(
    free, checkpointing, whole, tiny_model, rows_file, own_cache, tmp_path, monkeypatch
):
    monkeypatch.setattr(memory, "available", lambda device: free)
    _, checks = run(
        tiny_model, rows_file(rows(16)), tmp_path / "run", max_steps=1, per_device_train_batch_size=8,
        gradient_checkpointing="auto", per_device_train_batch_tokens="auto",
    )  # fmt: skip
    chosen = checks["memory choices"]["detail"]
    assert f"gradient_checkpointing={str(checkpointing).lower()}" in chosen
    manifest = json.loads((tmp_path / "run" / "record" / "manifest.json").read_text())
    forecast = {part["part"]: part["bytes"] for part in manifest["memory_forecast"]}
    tokens = int(chosen.rsplit("=", 1)[1])
    assert (tokens > 200) is whole
    assert forecast["activations"] > 0


def test_a_reference_of_another_architecture_keeps_plain_rows(tiny_model, rows_file, own_cache, tmp_path):
    other = save_tiny_model(tmp_path / "gpt2", "gpt2")
    _, checks = run(tiny_model, rows_file(rows(4)), tmp_path / "run", max_steps=1, reference_model=str(other))
    assert "one padded row an item" in checks["batch layout"]["detail"]


def test_a_model_that_cannot_share_says_why(rows_file, own_cache, tmp_path):
    folder = tmp_path / "bloom"
    save_tiny_model(folder, "bloom")
    _, checks = run(folder, rows_file(rows(8)), tmp_path / "run", max_steps=1)
    assert checks["batch layout"]["status"] == "note"
    assert "short rows are packed" in checks["batch layout"]["detail"]
    assert "prompts are not shared: scores differ" in checks["batch layout"]["detail"]


def test_balance_of_experts_is_part_of_the_loss_once(rows_file, own_cache, tmp_path):
    """However a step is cut, its share of the model's own loss is the same."""
    weights = {}
    data = rows_file(rows(8))
    for name, coefficient, size in (("none", 0.0, 8), ("whole", 5.0, 8), ("cut", 5.0, 2)):
        folder = save_tiny_model(tmp_path / f"moe-{coefficient}", "mixtral")
        config = json.loads((folder / "config.json").read_text())
        config |= {"output_router_logits": True, "router_aux_loss_coef": coefficient}
        (folder / "config.json").write_text(json.dumps(config))
        run(folder, data, tmp_path / name, max_steps=2, per_device_train_batch_size=size, optim="sgd",
            learning_rate=0.1, gradient_accumulation_steps=8 // size)  # fmt: skip
        weights[name] = load_file(tmp_path / name / "model" / "model.safetensors")
    gates = [key for key in weights["whole"] if "gate.weight" in key]
    assert gates
    for key in gates:
        moved = (weights["whole"][key] - weights["none"][key]).abs().max()
        apart = (weights["whole"][key] - weights["cut"][key]).abs().max()
        assert moved > 1e-5
        assert (
            apart < moved
        )  # balance is no sum over rows; counted once a cut, it would be four times as much


def test_token_metrics_of_a_run(tiny_model, rows_file, own_cache, tmp_path):
    """Logged when asked for, of training and held-out pairs, and nothing else changes."""
    data, options = (
        rows_file(rows(8)),
        {"max_steps": 2, "eval_size": 2, "logging_steps": 1, "sample_prompts": 0},
    )
    found = {}
    for asked in (False, True):
        result = prefopt.train(
            "dpo", model=tiny_model, data=data, output_dir=str(tmp_path / str(asked)), bf16=False,
            token_metrics=asked, save_strategy="no", **options,
        )  # fmt: skip
        found[asked] = [line for line in result.history if "loss" in line]
        names = {name for line in result.history for name in line}
        for name in ("entropy", "mean_token_accuracy"):
            assert ({name, f"eval_{name}"} <= names) is asked
            assert asked or not {name, f"eval_{name}"} & names
    assert [line["loss"] for line in found[True]] == [line["loss"] for line in found[False]]
    for line in found[True]:
        assert 0 < line["entropy"] < 6  # below that of even odds
        assert 0 <= line["mean_token_accuracy"] <= 1


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
@pytest.mark.parametrize(
    "options", [{}, {"gradient_checkpointing": True}, {"use_peft": True, "reference": "adapter_off"}],
    ids=["full", "checkpointing", "lora"],
)  # fmt: skip
def test_a_compiled_run_is_the_same(options, tiny_model, rows_file, own_cache, tmp_path):
    """Loss by loss, and what it saves is read by plain transformers."""
    data, found = rows_file(rows(16)), {}
    for compiled in (False, True):
        folder = tmp_path / str(compiled)
        found[compiled], checks = run(
            tiny_model, data, folder, torch_compile=compiled, max_steps=6, **options
        )
    assert "parts of layers run compiled" in checks["torch_compile"]["detail"]
    assert not checks["torch_compile"]["detail"].startswith("0 ")
    assert found[True] == pytest.approx(found[False], rel=1e-4)
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    assert torch.isfinite(model(torch.tensor([[3, 4, 5]])).logits).all()


def test_without_a_compiler_a_compiled_run_is_refused(
    tiny_model, rows_file, own_cache, tmp_path, monkeypatch
):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(
        "transformers.AutoModelForCausalLM.from_pretrained", None
    )  # before any model is loaded
    with pytest.raises(ConfigError, match="install one, name it in CXX, or leave torch_compile out"):
        run(tiny_model, rows_file(rows(4)), tmp_path / "run", torch_compile=True)
    assert not (tmp_path / "run" / "model").exists()
