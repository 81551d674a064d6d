"""A language model with its adapter merged, for plain transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prefopt.modalities.merging import Merged, check_same, difference
from prefopt.models.adapters import some_logits
from prefopt.models.left_out import left_out, write_left_out
from prefopt.models.loading import load_model, load_tokenizer, resolve_dtype
from prefopt.models.loading_report import load_whole
from prefopt.models.quantized import Quantization
from prefopt.models.saving import restore_configuration
from prefopt.models.sources import CAUSAL, adapter_base, config_values, whole_model

TOKENS = 32
"""How many tokens, from all over the vocabulary, are compared."""
COMPARED = f"log-probabilities of every token after each of {TOKENS} tokens (nats)"


def merge(adapter: Path, folder: Path, dtype: str | None, run: Mapping[str, Any]) -> Merged:
    """Merge; see `prefopt.modalities.merging`."""
    merged = merge_language(adapter, folder, dtype, run, CAUSAL, some_logp, COMPARED)
    load_tokenizer(str(adapter)).save_pretrained(folder)
    return merged


def some_logp(model: Any) -> Tensor:
    """(B, T, V) log-probabilities behind tokens from all over the vocabulary."""
    rows = model.get_input_embeddings().weight.shape[0]
    logits_BTV = some_logits(model, torch.linspace(0, rows - 1, TOKENS).long()[None])
    if logits_BTV is None:
        raise ValueError("the model cannot be asked with tokens alone, so that merging could not be checked")
    return logits_BTV.log_softmax(-1)


def merge_language(
    adapter: Path,
    folder: Path,
    dtype: str | None,
    run: Mapping[str, Any],
    loader: str,
    measure: Callable[[Any], Tensor],
    compared: str,
) -> Merged:
    """Write a model of transformers with its adapter merged, without tokenizer.

    Args:
        adapter: its folder.
        folder: to write, not there yet.
        dtype: to store; None: the base model's.
        run: what the run was told: its quantization is the base model's.
        loader: auto class of transformers.
        measure: numbers of a model that are compared.
        compared: what they are.

    Raises:
        ValueError: there is no adapter, it cannot be merged, or the merged model would be another.
    """
    import transformers

    source = str(adapter)
    if adapter_base(source) is None:
        raise ValueError(f"{adapter} holds a whole model, no adapter: there is nothing to merge")
    base = whole_model(source)
    check_mergeable(source)
    quantized = Quantization.of(run)
    few_bits = quantized is not None or "quantization_config" in config_values(base)

    def loaded(dequantize: bool) -> Any:
        return load_model(
            source,
            dtype="float32",
            quantization=quantized,
            dequantize=dequantize,
            trainable=False,
            loader=loader,
        ).model

    notes = []
    model = loaded(False)
    before = measure(model)
    if few_bits:
        del model  # before another one comes
        model = loaded(True)
        plain = measure(model)
        notes.append(
            "the base weights are those of few bits that the adapter was trained on, written out as numbers, and not those that "
            f"they were rounded from; products with few bits round on their own, here by up to {difference(before, plain):.2g}"
        )
        before = plain
    try:
        merged: Any = model.merge_and_unload(safe_merge=True)
    except (NotImplementedError, ValueError, AttributeError, TypeError) as error:
        kind = model.peft_config["default"].peft_type.value
        raise ValueError(
            f"the adapter {adapter}, of the kind {kind}, cannot be merged: {str(error).rstrip('.') or type(error).__name__}. "
            "Load it with peft on its base model"
        ) from error
    worst = check_same(before, measure(merged), compared)
    kind = resolve_dtype(dtype or stored_dtype(base))
    merged.to(kind)
    merged.save_pretrained(folder)
    missing = left_out(base, merged)
    if missing:
        write_left_out(folder, base, missing)
    restore_configuration(folder, base, merged)
    del merged
    again = load_whole(getattr(transformers, loader), folder, dtype=kind, trust_remote_code=False).eval()
    stored = difference(before, after := measure(again))
    if kind == torch.float32:
        check_same(before, after, f"{compared}, read back from the files,")
    name = str(kind).removeprefix("torch.")
    return Merged(folder, base, name, compared, worst, stored, tuple(notes))


def check_mergeable(source: str) -> None:
    """Raise ValueError for adapters that are no change of weights."""
    from peft import PeftConfig

    config = PeftConfig.from_pretrained(source)
    if config.is_prompt_learning:
        raise ValueError(
            f"the adapter {source} is of the kind {config.peft_type.value}, virtual tokens in front of every row, which are no "
            "change of weights and cannot be merged: load it with peft on its base model"
        )


def stored_dtype(base: str) -> str:
    """Name of the dtype that a model's configuration gives; float32 where it gives none."""
    values = config_values(base)
    inner = values.get("text_config") if isinstance(values.get("text_config"), dict) else {}
    found = next(
        (v for held in (values, inner) for k in ("dtype", "torch_dtype") if (v := (held or {}).get(k))),
        "float32",
    )
    return str(found) if found in ("float32", "bfloat16", "float16", "float64") else "float32"
