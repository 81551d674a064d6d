"""Token ids mean the same to every model that scores them, and each has an embedding; else the run stops before it begins."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

import prefopt
from conftest import ROWS, save_tiny_model
from prefopt.models.tokenizers import check_reference, load_tokenizer


def copy(source: Path, folder: Path) -> Path:
    shutil.copytree(source, folder)
    return folder


def shuffled(source: Path, folder: Path) -> Path:
    """Of the same size; every id stands for another word."""
    copy(source, folder)
    file = folder / "tokenizer.json"
    values = json.loads(file.read_text())
    vocabulary = values["model"]["vocab"]
    special = {token["content"] for token in values["added_tokens"]}
    words = [token for token in vocabulary if token not in special]
    values["model"]["vocab"] |= {
        word: vocabulary[other] for word, other in zip(words, reversed(words), strict=True)
    }
    file.write_text(json.dumps(values))
    return folder


def with_tokens(source: Path, folder: Path, *tokens: str, resize: bool = False) -> Path:
    """With more tokens in the tokenizer, and maybe in the model."""
    copy(source, folder)
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.add_tokens(list(tokens))
    tokenizer.save_pretrained(folder)
    if resize:
        model = AutoModelForCausalLM.from_pretrained(source)
        model.resize_token_embeddings(len(tokenizer))
        model.save_pretrained(folder)
    return folder


def without_tokenizer(source: Path, folder: Path) -> Path:
    copy(source, folder)
    for file in folder.glob("tokenizer*"):
        file.unlink()
    return folder


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing expensive has happened when the error comes."""

    def load(*given: Any, **options: Any) -> Any:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("prefopt.modalities.text.setup.load_model", load)
    monkeypatch.setattr("prefopt.modalities.text.start.load_model", load)


def run(model: Path, rows: Path, output: Path, method: str = "dpo", **more: Any) -> Any:
    return prefopt.train(
        method, model=model, data=rows, output_dir=str(output), max_steps=1, eval_size=2, sample_prompts=0,
        save_strategy="no", **more,
    )  # fmt: skip


def test_a_reference_with_another_vocabulary(tiny_model, rows_file, tmp_path, no_model):
    other = shuffled(tiny_model, tmp_path / "other")
    with pytest.raises(
        ValueError, match=r"have different tokenizers: \d+ of \d+ ids stand for other tokens \(id \d+ is '"
    ):
        run(tiny_model, rows_file(ROWS), tmp_path / "run", reference_model=str(other))


def test_a_reference_that_lacks_a_token_of_the_data(tiny_model, rows_file, tmp_path, no_model):
    policy = with_tokens(tiny_model, tmp_path / "policy", "<tool>", resize=True)
    rows = rows_file([row | {"chosen": " <tool> fig"} for row in ROWS])
    with pytest.raises(ValueError, match=r"the second lacks '<tool>'"):
        run(policy, rows, tmp_path / "run", reference_model=str(tiny_model))


def test_a_smaller_reference(tiny_model, rows_file, tmp_path, no_model):
    """Samples could hold what it has no embedding for, even where the data does not."""
    policy = with_tokens(tiny_model, tmp_path / "policy", "<tool>", resize=True)
    with pytest.raises(ValueError, match=r"the second lacks '<tool>'"):
        run(policy, rows_file(ROWS), tmp_path / "run", reference_model=str(tiny_model))


@pytest.mark.parametrize("method", ["ssapo", "compo"])
def test_methods_of_several_runs(method, tiny_model, rows_file, tmp_path, no_model):
    other = shuffled(tiny_model, tmp_path / "other")
    own = {"rounds": 1} if method == "ssapo" else {}
    with pytest.raises(ValueError, match="ids stand for other tokens"):
        prefopt.train(
            method, model=tiny_model, data=rows_file(ROWS), output_dir=str(tmp_path / "run"), eval_size=2,
            reference_model=str(other), **own,
        )  # fmt: skip


def test_what_need_not_be_equal(tiny_model, rows_file, own_cache, tmp_path):
    """A template, a role, more tokens than the policy's."""
    other = with_tokens(tiny_model, tmp_path / "other", "<tool>", resize=True)
    tokenizer = AutoTokenizer.from_pretrained(other)
    tokenizer.chat_template, tokenizer.eos_token = "{{ messages }}", "<tool>"
    tokenizer.save_pretrained(other)
    result = run(tiny_model, rows_file(ROWS), tmp_path / "run", reference_model=str(other))
    assert result.history


def test_a_reference_without_a_tokenizer(tiny_model, rows_file, own_cache, tmp_path, capfd):
    bare = without_tokenizer(tiny_model, tmp_path / "bare")
    run(tiny_model, rows_file(ROWS), tmp_path / "run", reference_model=str(bare))
    assert "could not be compared" in capfd.readouterr().err
    policy = with_tokens(tiny_model, tmp_path / "policy", "<tool>", resize=True)
    with pytest.raises(ValueError, match=r"has no tokenizer, and embeddings for \d+ ids"):
        check_reference(str(policy), str(bare), load_tokenizer(str(policy)), tuple)


def test_an_image_or_other_model_is_no_reference(tiny_model, rows_file, tmp_path, no_model):
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, "vocab_size": 50}
    transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes)).save_pretrained(tmp_path / "t5")
    with pytest.raises(
        ValueError, match="holds a T5ForConditionalGeneration, which is no causal language model"
    ):
        run(tiny_model, rows_file(ROWS), tmp_path / "run", reference_model=str(tmp_path / "t5"))


# -- tokens without embeddings -----------------------------------------------------------------------------------


def test_a_token_of_the_data_without_an_embedding(tiny_model, rows_file, tmp_path, no_model):
    model = with_tokens(tiny_model, tmp_path / "model", "<tool>", "<end>")
    rows = rows_file([*ROWS, {"prompt": "Sort: fig <tool>", "chosen": " fig", "rejected": " one"}])
    rows_above = json.loads((tiny_model / "config.json").read_text())["vocab_size"]
    with pytest.raises(
        ValueError, match=rf"makes '<tool>' \(id {rows_above}\) of this data.*resize_token_embeddings"
    ):
        run(model, rows, tmp_path / "run")


def test_tokens_that_the_data_does_not_use(tiny_model, rows_file, own_cache, tmp_path):
    """One of them pads: it is neither seen nor scored, so another serves."""
    model = with_tokens(tiny_model, tmp_path / "model", "<filler>")
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.pad_token = "<filler>"
    tokenizer.save_pretrained(model)
    assert tokenizer.pad_token_id >= json.loads((model / "config.json").read_text())["vocab_size"]
    options = {"batch_layout": "plain", "learning_rate": 1e-3}
    found = run(model, rows_file(ROWS), tmp_path / "run", **options)
    expected = run(tiny_model, rows_file(ROWS), tmp_path / "expected", **options)
    assert found.history[-1]["eval_loss"] == pytest.approx(expected.history[-1]["eval_loss"], abs=1e-6)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen2"])
def test_a_model_without_a_tokenizer(architecture, tmp_path):
    """For some classes transformers makes up a tokenizer of one token."""
    bare = without_tokenizer(save_tiny_model(tmp_path / "model", architecture), tmp_path / "bare")
    with pytest.raises(OSError, match=r"holds no tokenizer: needed tokenizer\.json"):
        load_tokenizer(str(bare))
