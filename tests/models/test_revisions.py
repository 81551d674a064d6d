"""A version of a hub repository is trained, and named by those who need it; here out of the hub's cache, without a network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import prefopt
from conftest import ROWS
from prefopt.config import ConfigError

COMMITS = {"main": "a" * 40, "v1": "b" * 40}


@pytest.fixture
def hub(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of huggingface-hub with two versions of a model, whose main one has no weights."""
    repository = tmp_path / "hub" / "models--me--tiny"
    (repository / "refs").mkdir(parents=True)
    for name, commit in COMMITS.items():
        (repository / "refs" / name).write_text(commit)
        shutil.copytree(tiny_model, repository / "snapshots" / commit)
    (repository / "snapshots" / COMMITS["main"] / "model.safetensors").unlink()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return repository / "snapshots"


def train(out: Path, **given: Any) -> prefopt.TrainResult:
    keys: dict[str, Any] = {"max_steps": 1, "sample_prompts": 0, "save_strategy": "no", "data": ROWS}
    return prefopt.train("dpo", output_dir=str(out), **{**keys, **given})


def test_a_version_is_trained_and_named_by_adapters(hub, own_cache, tmp_path):
    result = train(tmp_path / "run", model="me/tiny", model_revision="v1", use_peft=True, lora_r=2)
    manifest = json.loads((tmp_path / "run" / "record" / "manifest.json").read_text())
    assert manifest["model"]["source"] == str(hub / COMMITS["v1"])
    saved = json.loads((result.model_dir / "adapter_config.json").read_text())
    assert (saved["base_model_name_or_path"], saved["revision"]) == ("me/tiny", COMMITS["v1"])


def test_cards_name_the_version(hub, own_cache, tmp_path):
    """As the hub has it, and load that one where it is the base of adapters."""
    for name, more in (("whole", {}), ("adapters", {"use_peft": True, "lora_r": 2})):
        run = train(tmp_path / name, model="me/tiny", model_revision="v1", **more).output_dir
        card = (run / "README.md").read_text()
        assert "base_model: me/tiny\n" in card
        assert "`me/tiny` trained with" in card
        loaded = f'base = AutoModelForCausalLM.from_pretrained("me/tiny", revision="{COMMITS["v1"]}")'
        assert (loaded in card) == bool(more)


@pytest.mark.parametrize(
    ("model", "error", "words"),
    [
        ("{tiny}", ConfigError, "names a version on the hub, and .* is none of its ids"),
        ("world:text", ConfigError, "is none of its ids"),
        ("me/other", OSError, "me/other at v1 is not in the hub's cache and could not be downloaded"),
    ],
)
def test_versions_that_cannot_be_had(model, error, words, hub, tiny_model, own_cache, tmp_path):
    with pytest.raises(error, match=words):
        train(tmp_path / "run", model=model.format(tiny=tiny_model), model_revision="v1")
    assert not (tmp_path / "run").exists()
