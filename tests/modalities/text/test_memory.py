"""The forecast's parts against what is really there: exact where they follow from shapes, close where not."""

from __future__ import annotations

from array import array
from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from prefopt.comparisons import Encoded
from prefopt.config import TrainConfig
from prefopt.likelihoods.plan import EncodedText, plan_rows
from prefopt.likelihoods.tokens import TokenLikelihood
from prefopt.machine.memory import forecast_without_activations, sentence
from prefopt.modalities.text.forecast import Sizes, forecast
from prefopt.modalities.text.memory import TextMemory
from prefopt.models.loading import LoraSettings, add_adapters, load_model, load_tokenizer

ROWS, LENGTH, PROMPT, VOCABULARY = 4, 48, 20, 100
SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3,
    "num_attention_heads": 4, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip


def model_of(architecture: str = "llama", **more: Any) -> Any:
    if architecture == "llama":
        return LlamaForCausalLM(LlamaConfig(**SIZES, **more))
    grouped = {
        "num_key_value_heads": 2,
        "head_dim": 32,
        "tie_word_embeddings": True,
    }  # heads wider than the stream
    return Qwen3ForCausalLM(Qwen3Config(**SIZES, **grouped, **more))


def bytes_of(model: nn.Module, **given: Any) -> dict[str, int]:
    usual = {
        "optim": "adamw", "rows": ROWS, "length": LENGTH, "reference_resident": False, "gradient_checkpointing": False,
        "autocast_bf16": False,
    }  # fmt: skip
    return {part["part"]: part["bytes"] for part in forecast(model, **{**usual, **given})}


def kept_by_autograd(model: nn.Module, bf16: bool = False) -> int:
    """Bytes of all tensors saved for the backward pass, each storage once, weights aside."""
    items = [EncodedText(array("i", range(LENGTH + 1 - n)), PROMPT) for n in range(ROWS)]
    plan = plan_rows(items, 0)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        is_copy = (
            bf16 and tensor.dim() == 2 and tensor.dtype == torch.bfloat16 and tensor.shape[0] <= VOCABULARY
        )
        if storage.data_ptr() not in weights and not is_copy:
            kept[storage.data_ptr()] = storage
        return tensor

    likelihood = TokenLikelihood.__new__(TokenLikelihood)  # scoring needs no tokenizer
    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        likelihood.score(model.train(), plan)
    scored = sum(item.length for item in items) * VOCABULARY * 4  # the log-softmax, counted among the logits
    return sum(storage.nbytes() for storage in kept.values()) - scored


def test_exact_parts():
    model = model_of()
    weights = sum(p.numel() * 4 for p in model.parameters())
    found = bytes_of(model)
    assert (found["weights"], found["gradients"], found["optimizer (adamw)"]) == (
        weights,
        weights,
        2 * weights,
    )
    assert bytes_of(model, optim="rmsprop")["optimizer (rmsprop)"] == weights
    assert "optimizer (sgd)" not in bytes_of(model, optim="sgd")
    assert bytes_of(model.double())["weights"] == 2 * weights


def test_adapters_need_little():
    model = add_adapters(model_of(), LoraSettings(r=2))
    trained = sum(p.numel() * 4 for p in model.parameters() if p.requires_grad)
    found = bytes_of(model)
    assert (found["gradients"], found["optimizer (adamw)"]) == (trained, 2 * trained)
    assert trained < found["weights"] / 10


def test_what_is_there_already():
    model = model_of()
    parts = {part["part"]: part for part in forecast(
        model, optim="sgd", rows=2, length=8, reference_resident=True, gradient_checkpointing=False,
        autocast_bf16=False,
    )}  # fmt: skip
    assert {name for name, part in parts.items() if part["held"]} == {"weights", "reference copy", "program"}
    assert parts["reference copy"]["bytes"] == parts["weights"]["bytes"]
    assert parts["program"]["bytes"] > 50 * 2**20  # torch alone is larger


def test_logits_by_hand():
    tokens, scored = ROWS * LENGTH, ROWS * 12
    # of all tokens; gathered where scored; their log-softmax
    expected = tokens * VOCABULARY * 4 + 2 * scored * VOCABULARY * 4
    assert bytes_of(model_of(), scored=scored)["logits"] == expected
    assert bytes_of(model_of())["logits"] == 3 * tokens * VOCABULARY * 4
    # under autocast the logits have two bytes, and a float32 copy where scored
    expected = tokens * VOCABULARY * 2 + scored * VOCABULARY * (2 + 4 + 4)
    assert bytes_of(model_of(), scored=scored, autocast_bf16=True)["logits"] == expected


def test_passes_without_gradients():
    model = model_of()
    quiet, busy = bytes_of(model, forward_tokens=10), bytes_of(model, forward_tokens=100 * ROWS * LENGTH)
    assert quiet["logits"] == bytes_of(model)["logits"]  # a smaller pass adds nothing
    assert busy["logits"] == 100 * quiet["logits"]
    assert busy["activations"] < 100 * quiet["activations"]  # one layer at a time


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize(
    ("dtype", "bf16"), [("float32", False), ("float32", True), ("bfloat16", False), ("bfloat16", True)]
)
def test_activations_against_autograd(architecture, lora, dtype, bf16):
    model = model_of(architecture).to(getattr(torch, dtype))
    if lora:
        model = add_adapters(model, LoraSettings(r=2))
    found = bytes_of(model, autocast_bf16=bf16)["activations"]
    assert found == pytest.approx(kept_by_autograd(model, bf16), rel=0.15)


@pytest.mark.parametrize(
    "targets", ["all-linear", ["q_proj", "down_proj"], ["q_proj", "gate_proj", "up_proj"]]
)
@pytest.mark.parametrize("bf16", [False, True])
def test_activations_that_adapters_keep(targets, bf16):
    model = add_adapters(model_of(), LoraSettings(r=2, target_modules=targets))
    found = bytes_of(model, autocast_bf16=bf16)["activations"]
    assert found == pytest.approx(kept_by_autograd(model, bf16), rel=0.15)


def test_scored_tokens_are_those_of_the_batch(tiny_model):
    """Several completions lie in a row once prompts are shared: no row has more scored tokens than places."""
    likelihood = TokenLikelihood(load_tokenizer(str(tiny_model)))
    model = load_model(str(tiny_model)).model
    assert likelihood.adapt(model).sharing == "shared"
    prompt = list(range(3, 23))
    examples = [
        Encoded(str(k), tuple(EncodedText(array("i", [*prompt, k, *[side] * 30]), 20) for side in (4, 5)), ())
        for k in range(40, 44)
    ]
    config = TrainConfig(method="dpo", model=str(tiny_model), data="x", per_device_train_batch_size=4)
    need = TextMemory.of(config, model, likelihood, examples, [], bf16=False, needs_reference=True)
    found = {part["part"]: part["bytes"] for part in need.forecast(4, False, False)}
    vocabulary = model.config.vocab_size
    assert found["logits"] == 4 * 8 * 31 * vocabulary * 4  # less than a piece: three more for its gradient


def test_a_tied_embedding_has_two_gradients_for_a_moment():
    embedding = model_of("qwen3").get_input_embeddings().weight.numel() * 4
    assert bytes_of(model_of("qwen3"))["second gradient of the embedding"] == embedding
    assert "second gradient of the embedding" not in bytes_of(model_of())
    assert "second gradient of the embedding" not in bytes_of(
        add_adapters(model_of("qwen3"), LoraSettings(r=2))
    )


def test_a_copy_that_scores_samples():
    model = model_of()
    found = bytes_of(model, samples_reference=True)
    assert found["reference for samples"] == found["weights"]
    assert "reference for samples" not in bytes_of(model)


def test_adapters_of_many_projections_leave_more_holes():
    few, many = (
        bytes_of(add_adapters(model_of(), LoraSettings(r=2, target_modules=targets)))
        for targets in (["q_proj"], "all-linear")
    )
    assert 0 < few["holes between blocks"] < many["holes between blocks"] / 3


def test_activations_of_attention_that_is_not_fused():
    model = model_of(attn_implementation="eager")
    assert bytes_of(model)["activations"] == pytest.approx(kept_by_autograd(model), rel=0.1)
    assert bytes_of(model)["activations"] > bytes_of(model_of())["activations"]


def test_activations_with_checkpointing():
    model = model_of()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    sizes = Sizes.of(model, autocast_bf16=False)
    one_layer = ROWS * LENGTH * sizes.kept(LENGTH, frozen=False)  # made again in the backward pass
    found = bytes_of(model, gradient_checkpointing=True)["activations"]
    assert found - one_layer == pytest.approx(kept_by_autograd(model), rel=0.1)
    assert found < bytes_of(model)["activations"]


def test_models_of_unknown_sizes():
    found = bytes_of(nn.Linear(3, 3))
    assert found.keys() == {"weights", "gradients", "optimizer (adamw)", "program", "loaded later"}


def test_images_without_activations():
    model = nn.Linear(3, 3, bias=False)
    found = {
        part["part"]: part["bytes"]
        for part in forecast_without_activations(model, optim="adamw", reference_resident=True)
    }
    assert found.pop("program") > 0
    assert found.pop("loaded later") > 0
    assert found == {"weights": 36, "reference copy": 36, "gradients": 36, "optimizer (adamw)": 72}


def test_sentence_counts_what_is_missing():
    parts = [
        {"part": "weights", "bytes": 3 * 2**30, "held": True},
        {"part": "logits", "bytes": 2**30, "held": False},
    ]
    text, fits = sentence(parts, free=2 * 2**30)
    assert fits
    assert (
        "4.00 GiB needed (weights 3.00, logits 1.00), of which 1.00 are not in use yet; 2.0 GiB free" in text
    )
    text, fits = sentence(parts, free=2**29)
    assert not fits
    assert "gradient_checkpointing=true" in text
