"""Tiny random models and the rows that several test files train on; nothing here reads the network."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tiny_pipelines

ROWS = [
    {"prompt": "Sort: pear fig apple", "chosen": " apple fig pear", "rejected": " pear apple fig pear"},
    {"prompt": "Count: red red blue", "chosen": " red two blue one", "rejected": " blue"},
    {"prompt": "Reverse: one two", "chosen": " two one", "rejected": " one two"},
    {"prompt": "Sort: blue apple", "chosen": " apple blue", "rejected": " blue apple apple"},
    {"prompt": "Count: fig fig", "chosen": " fig two", "rejected": " two two fig"},
    {"prompt": "Reverse: red fig", "chosen": " fig red", "rejected": " red"},
    {"prompt": "Sort: two pear", "chosen": " pear two", "rejected": " two pear"},
    {"prompt": "Count: one", "chosen": " one one", "rejected": " one two red"},
    {"prompt": "Sort: red pear blue", "chosen": " blue pear red", "rejected": " red pear"},
    {"prompt": "Reverse: fig fig", "chosen": " fig fig", "rejected": " fig two"},
]


SLOW = frozenset(
    line
    for line in (Path(__file__).parent / "slow.txt").read_text("utf-8").splitlines()
    if not line.startswith("#")
)
"""Ids of cases that take long."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `slow.txt` names; a name that is none of a file that was collected is an error."""
    found = {item.nodeid for item in items}
    files = {name.partition("::")[0] for name in found}
    for item in items:
        if item.nodeid in SLOW:
            item.add_marker("slow")
    whole = {item.nodeid.partition("[")[0] for item in items}
    gone = [
        name
        for name in SLOW - found
        if name.partition("::")[0] in files and name.partition("[")[0] not in whole
    ]
    if gone and len(whole) > 1:
        raise pytest.UsageError(f"tests/slow.txt names {gone[0]}, which is not there any more")


def save_tiny_model(folder: Path, architecture: str = "llama") -> Path:
    """A random causal model of two layers and its tokenizer, as `save_pretrained` leaves them."""
    import torch
    import transformers

    from prefopt.worlds.text.model import train_tokenizer

    words = [" ".join(row.values()) for row in ROWS]
    tokenizer = train_tokenizer(iter(words * 4), vocab_size=200)
    shared = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "initializer_range": 0.1,  # the usual 0.02 gives almost uniform predictions, which hide mistakes
    }
    sizes = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 128,
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any
        if architecture == "llama":
            model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**shared, **sizes))
        elif architecture == "qwen2":
            model = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**shared, **sizes))
        elif architecture == "mixtral":
            experts = {"num_local_experts": 4, "num_experts_per_tok": 2}
            model = transformers.MixtralForCausalLM(transformers.MixtralConfig(**shared, **sizes, **experts))
        elif architecture == "bloom":
            sizes = {"hidden_size": 32, "n_layer": 2, "n_head": 4}
            model = transformers.BloomForCausalLM(transformers.BloomConfig(**shared, **sizes))
        else:
            model = transformers.GPT2LMHeadModel(
                transformers.GPT2Config(**shared, n_embd=32, n_layer=2, n_head=4, n_positions=128)
            )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random Llama with about 200 words; read it, never write to it."""
    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "llama")


@pytest.fixture(scope="session")
def template_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model with a tokenizer of single bytes, so that no text is lost, and a chat template."""
    import shutil

    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("tiny") / "chat"
    shutil.copytree(tiny_model, folder)
    tokenizer = bytes_tokenizer()
    tokenizer.save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    model.resize_token_embeddings(len(tokenizer))
    model.config.update(
        {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    )
    model.save_pretrained(folder)
    return folder


def bytes_tokenizer() -> Any:
    """A token a byte, and marks of turns."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    marks = ["<s>", "</s>", "<pad>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({t: n for n, t in enumerate([*marks, *alphabet])}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=marks[3:],
    )
    tokenizer.chat_template = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    return tokenizer


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that no other test sees, also in processes that the test starts."""
    monkeypatch.setenv("PREFOPT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session", autouse=True)
def not_the_users_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What an earlier run of the tests cached must not decide this one, nor this one fill a user's cache."""
    os.environ["PREFOPT_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny matrices are slower on many threads, and other tests want the cores."""
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def nobody_waits_for_the_disk() -> Iterator[None]:
    """No file here need outlive the machine, and a short run waits 25 times, a quarter of its time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture
def rows_file(tmp_path: Path) -> Callable[[list[dict[str, Any]]], Path]:
    """Writes rows as JSONL and returns the path."""

    def write(rows: list[dict[str, Any]]) -> Path:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders by family, each made once; read them, never write to them."""
    root, made = tmp_path_factory.mktemp("pipelines"), {}
    makers = {"sd": tiny_pipelines.tiny_sd, "sdxl": tiny_pipelines.tiny_sdxl, "sd3": tiny_pipelines.tiny_sd3}

    def make(family: str) -> Path:
        if family not in made:
            made[family] = makers[family](root / family)
        return made[family]

    return make


@pytest.fixture
def sd(pipelines: Callable[[str], Path]) -> Path:
    return pipelines("sd")


@pytest.fixture
def images_file(tmp_path: Path) -> Callable[[list[dict[str, Any]]], Path]:
    """Writes rows as JSONL with the images beside it, and returns its path."""

    def write(rows: list[dict[str, Any]]) -> Path:
        named = []
        for n, row in enumerate(rows):
            named.append(dict(row))
            for column, value in row.items():
                if isinstance(value, bytes):
                    named[-1][column] = f"row-{n}-{column}.png"
                    (tmp_path / named[-1][column]).write_bytes(value)
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in named), "utf-8")
        return path

    return write
