"""`prefopt merge`: what it says, and what it refuses; that the merged model is the trained one is tested where adapters are."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from prefopt.cli.main import main


@pytest.fixture(scope="module")
def adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as peft saves it, with weights that are not zero."""
    import torch

    folder = tmp_path_factory.mktemp("adapter") / "mine"
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny_model), LoraConfig(r=2, task_type="CAUSAL_LM")
    )
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.add_(0.05)
    model.save_pretrained(folder)
    return folder


def said(*words: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["merge", *map(str, words)])
    return done.exit_code, done.output


def test_an_adapters_folder(adapter, tiny_model, tmp_path):
    whole = tmp_path / "whole"
    code, text = said(adapter, "--output", whole, "--dtype", "bfloat16")
    told = text.splitlines()
    assert code == 0, text
    assert told[0] == f"{whole}: {tiny_model} and its adapter, in bfloat16"
    assert "log-probabilities of every token after each of 32 tokens (nats) differ by at most" in told[1]
    assert float(told[1].split("at most ")[1].split()[0]) < 1e-4
    assert 1e-4 < float(told[2].split("at most ")[1].split()[0]) < 1
    assert {str(t.dtype) for t in load_file(whole / "model.safetensors").values()} == {"torch.bfloat16"}
    assert str(AutoModelForCausalLM.from_pretrained(whole, dtype="auto").dtype) == "torch.bfloat16"
    words = [AutoTokenizer.from_pretrained(folder).get_vocab() for folder in (whole, tiny_model)]
    assert words[0] == words[1]
    code, text = said(adapter, "--output", whole)
    assert (code, f"{whole} is there already: give another folder as output, or remove it" in text) == (
        1,
        True,
    )


def test_refusals(adapter, tiny_model, tmp_path):
    code, text = said(tiny_model)
    assert (code, "is neither a run's folder (config.yaml) nor an adapter's" in text) == (1, True)
    prompts = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), prompts).save_pretrained(
        tmp_path / "prompts"
    )
    code, text = said(tmp_path / "prompts")
    assert (code, "PROMPT_TUNING, virtual tokens in front of every row" in text) == (1, True)
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(f"model: {tiny_model}\n")
    code, text = said(run)
    assert (code, "the run has not finished. Resume it first" in text) == (1, True)
    (run / "model").symlink_to(tiny_model)
    code, text = said(run)
    assert (code, "holds a whole model, no adapter: there is nothing to merge" in text) == (1, True)
    assert not (run / "merged").exists()


def test_a_model_that_merging_changes_is_not_written(adapter, tmp_path, monkeypatch):
    """As a fault in a library would."""
    from peft.tuners.lora import Linear

    whole = Linear.get_delta_weight
    monkeypatch.setattr(Linear, "get_delta_weight", lambda *a, **k: 1.1 * whole(*a, **k))
    code, text = said(adapter, "--output", tmp_path / "whole")
    assert code == 1
    assert "the merged model would be another" in text
    assert not (tmp_path / "whole").exists()
