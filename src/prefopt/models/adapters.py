"""Adapters of peft: new ones on a model, and those of a folder or hub id with every weight in its place."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prefopt.models.loading_report import check_report, header_of
from prefopt.models.peft_settings import LORA, LoraSettings, kind_of, mutates, peft_config, why_not_off
from prefopt.models.sources import file_of

WEIGHTS = "adapter_model.safetensors"
EMBEDDINGS = ("embed_tokens", "lm_head", "wte", "embed_in", "embed_out", "word_embeddings")


ANOTHERS = "Give the adapter with the model that it was trained on, or save it again with save_pretrained"


def add_adapters(model: Any, lora: LoraSettings) -> nn.Module:
    """Wrap a model with fresh trainable adapters; at start they change nothing.

    Raises:
        ValueError: no such modules, or one whose weights the model uses twice; fields that contradict each other, or
            adapters that begin as a change of the model.
    """
    from peft import get_peft_model
    from peft.utils import TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING as FEEDFORWARD
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as DEFAULT_TARGETS

    # given by name: peft, left to itself, looks for those of a mixture of experts after it has missed them
    asked = lora.target_modules(model) if callable(lora.target_modules) else lora.target_modules
    targets = asked
    if not asked and lora.kind == LORA and not lora.fields.get("target_parameters"):
        targets = DEFAULT_TARGETS.get(model.config.model_type, "all-linear")
    if lora.kind == "IA3" and isinstance(targets, list | tuple) and "feedforward_modules" not in lora.fields:
        usual = FEEDFORWARD.get(
            model.config.model_type, ()
        )  # peft adds all of them, and cannot read that back
        found = [name for name in targets if name.rpartition(".")[-1] in usual]
        lora = replace(lora, fields={**lora.fields, "feedforward_modules": found})
    config = peft_config(lora, targets, "CAUSAL_LM")
    start_BTV = some_logits(model) if lora.special else None
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            wrapped: nn.Module = get_peft_model(model, config)
    except (ValueError, TypeError, RuntimeError, AttributeError) as error:
        if "arget modules" not in str(error) and "`target_modules`" not in str(error):
            if not lora.special:
                raise
            raise ValueError(
                f"peft cannot put adapters of the kind {lora.kind} on this model as asked: {str(error).rstrip('.')}"
            ) from error
        linear = sorted(
            {name.rpartition(".")[-1] for name, m in model.named_modules() if isinstance(m, nn.Linear)}
        )
        what = (
            f"lora_target_modules={asked} names no module that adapters can be put on"
            if asked or lora.kind == LORA
            else f"peft has no default for {lora.kind} on {model.config.model_type}: set lora_target_modules"
        )
        raise ValueError(
            f"{what}; this model has {', '.join(linear) or 'none'}. Leave it out for the usual ones, or say all-linear"
        ) from error
    untied = [w for w in told if "requested `ensure_weight_tying`" in str(w.message)]
    if untied and not lora.fields.get("trainable_token_indices"):  # which are tied all the same
        raise ValueError(
            f"ensure_weight_tying does nothing here: {str(untied[0].message).rpartition(', but ')[2]}. Leave it out, or name the "
            "model's embed_tokens and lm_head (peft knows no others)"
        )
    check_found(wrapped, lora)
    check_untied(wrapped)
    if start_BTV is not None:
        check_beginning(wrapped, lora, start_BTV)
    return wrapped


def check_found(model: Any, lora: LoraSettings) -> None:
    """Refuse names of modules and parameters that nothing was found for: peft passes them over.

    Raises:
        ValueError: names them.
    """
    names = [name for name, _ in model.named_modules()]
    for name in lora.fields.get("modules_to_save") or ():
        if not any(n.endswith((f".{name}.modules_to_save", f"{name}.modules_to_save")) for n in names):
            there = sorted({n.rpartition(".")[-1] for n, _ in model.get_base_model().named_children()})
            raise ValueError(
                f"lora_modules_to_save names {name}, which this model has not; at its top are {', '.join(there)}"
            )
    asked = lora.fields.get("target_parameters") or ()
    found = set(getattr(model, "targeted_parameter_names", ()) or ())
    if missed := [name for name in asked if not any(full.endswith(name) for full in found)]:
        there = sorted(
            {
                ".".join(name.split(".")[-2:])
                for name, p in model.get_base_model().named_parameters()
                if p.dim() == 3
            }
        )
        raise ValueError(
            f"lora_target_parameters names {', '.join(missed)}, which this model has not; parameters of more than two axes are "
            f"{', '.join(there) or 'none'}"
        )


@torch.no_grad()
def some_logits(model: Any, ids_BT: Tensor | None = None) -> Tensor | None:
    """(B, T, V) logits of some tokens, or a few; None of a model that cannot be asked with tokens alone."""
    if ids_BT is None:
        ids_BT = torch.arange(3, 11)[None] % model.get_input_embeddings().weight.shape[0]
    training = model.training
    model.eval()
    try:
        logits: Tensor = model(input_ids=ids_BT.to(next(model.parameters()).device), use_cache=False).logits
    except (TypeError, ValueError, RuntimeError, IndexError):
        return None
    finally:
        model.train(training)
    return logits.float()


def check_beginning(model: Any, lora: LoraSettings, start_BTV: Tensor) -> None:
    """Policy and reference must agree before the first step.

    Args:
        model: with its new adapters.
        lora: what they are.
        start_BTV: logits without them.

    Raises:
        ValueError: the adapters begin as a change of the model, or are not gone when they are off.
    """
    now_BTV = some_logits(model)
    assert now_BTV is not None
    coarse = {p.dtype for p in model.parameters()} & {torch.bfloat16, torch.float16}
    near = (0.1 if coarse or mutates(model.peft_config["default"]) else 1e-3) * float(start_BTV.std())
    if not float((now_BTV - start_BTV).abs().max()) <= near:
        given = ", ".join(f"{k}: {v}" for k, v in lora.fields.items())
        raise ValueError(
            f"adapters of the kind {lora.kind}{f' with {given}' if given else ''} begin as a change of the model, so that policy "
            "and reference would differ before the first step: leave out what says how they begin (init_weights, "
            "init_lora_weights)"
        )
    if why_not_off(model.peft_config["default"]) is None:
        with kept_flags(model), model.disable_adapter():
            off_BTV = some_logits(model)
        if off_BTV is None or not float((off_BTV - start_BTV).abs().max()) <= near:
            raise ValueError(
                f"adapters of the kind {lora.kind} change this model even when they are off, so that there would be no "
                "reference: take another kind"
            )


@contextlib.contextmanager
def kept_flags(module: nn.Module) -> Iterator[None]:
    """peft freezes and unfreezes adapters as it switches them; put the flags back."""
    flags = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    try:
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def load_adapter(model: Any, source: str, trainable: bool) -> tuple[Any, bool]:
    """A model with the adapter of a folder or hub id, and whether that has embeddings of its own.

    Embeddings that were saved with the adapter take the place of the model's, whatever their number.

    Raises:
        ValueError: weights of the adapter are missing, have another shape or no place in the model; or, if it is to be
            trained, it is of a kind that "adapter off" would not undo.
    """
    from peft import PeftModel, get_peft_model_state_dict

    held = adapter_shapes(source)
    check_beginning_again(source)
    if trainable:
        check_kind(source)
    _resize(model, source, held)
    try:
        wrapped = PeftModel.from_pretrained(model, source, is_trainable=trainable)
    except RuntimeError as error:
        if "size mismatch" not in str(error):
            raise
        told = re.findall(
            r"size mismatch for (\S+): .*?torch\.Size\(\[(.*?)\]\).*?torch\.Size\(\[(.*?)\]\)", str(error)
        )
        shapes = [(name, there.split(", "), here.split(", ")) for name, there, here in told]
        check_report(source, model, mismatched=shapes, todo=ANOTHERS)
        raise
    needed = set(get_peft_model_state_dict(wrapped, save_embedding_layers=False))
    mapping = getattr(model, "_checkpoint_conversion_mapping", None) or {}
    there = {_renamed(name, mapping) for name in held}
    own_embeddings = (there - needed) & set(_ends(wrapped.get_base_model()))
    # peft writes embeddings of more tokens than the base has three times where they are trained whole
    again = {name for name in there if re.sub(r"\.(modules_to_save|original_module)\.", ".", name) in needed}
    check_report(
        source,
        model,
        missing=needed - there,
        unexpected=there - needed - own_embeddings - again,
        todo=ANOTHERS,
    )
    if trainable:
        check_untied(wrapped)
    return wrapped, bool(own_embeddings)


def adapter_shapes(source: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of an adapter's tensors; reads no weights where they are safetensors."""
    file = file_of(source, WEIGHTS)
    if file is not None:
        return shapes_of(file)
    if Path(source).expanduser().is_dir() and file_of(source, "adapter_model.bin") is None:
        raise FileNotFoundError(
            f"the adapter {source} has no weights: needed {WEIGHTS} beside its adapter_config.json"
        )
    from peft.utils import load_peft_weights

    return {name: tuple(tensor.shape) for name, tensor in load_peft_weights(source, device="cpu").items()}


def shapes_of(file: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in a safetensors file, from its header."""
    return {name: shape for name, (_, shape) in header_of(file).items()}


def check_kind(source: str) -> None:
    """Raise ValueError for adapters of a kind that cannot be trained further here."""
    from peft import PeftConfig

    config = PeftConfig.from_pretrained(source)
    try:
        kind_of({"peft_type": config.peft_type})
    except ValueError as error:
        raise ValueError(
            f"the adapter {source}: {error}. Or give its base model, with use_peft=true for new adapters"
        ) from None


def check_beginning_again(source: str) -> None:
    """Raise ValueError for adapters that take a random part of the base weights each time they are loaded."""
    from peft import PeftConfig

    beginning = getattr(PeftConfig.from_pretrained(source), "init_lora_weights", True)
    if str(beginning).lower().startswith("pissa_niter_"):
        raise ValueError(
            f"the adapter {source} has init_lora_weights={beginning}: what it takes from the base weights is drawn anew whenever it "
            "is loaded, so that the model would be another. Where it was trained, save it once more with "
            "save_pretrained(folder, path_initial_model_for_weight_conversion=...), which makes plain LoRA of it"
        )


def is_embedding(name: str) -> bool:
    """Whether a tensor of an adapter's file is an embedding or head of the model, whole."""
    *path, last = name.replace(".base_layer.", ".").split(".")
    return last == "weight" and bool(path) and path[-1] in EMBEDDINGS


def _resize(model: Any, source: str, held: Mapping[str, tuple[int, ...]]) -> None:
    """Give the model as many embeddings as the adapter brings."""
    names = _ends(model)
    rows = {held[name][0] for name in names if name in held}
    if not rows or rows == {model.get_input_embeddings().weight.shape[0]}:
        return
    tied = model.get_input_embeddings().weight is getattr(model.get_output_embeddings(), "weight", None)
    if not tied:
        without = {name for name in names if ".base_layer." not in name and name not in held}
        check_report(source, model, missing=without, todo=ANOTHERS)
    model.resize_token_embeddings(rows.pop(), mean_resizing=False)


def _ends(model: Any) -> list[str]:
    """What the weights of embedding and head are called in an adapter's file, under an adapter or not."""
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    modules = [(name, getattr(module, "original_module", module)) for name, module in model.named_modules()]
    found = [name for name, module in modules if any(module is end for end in ends)]
    found = [name.removesuffix(".original_module") for name in found]
    return [f"base_model.model.{name}{part}.weight" for name in found for part in ("", ".base_layer")]


def _renamed(name: str, mapping: Mapping[str, str]) -> str:
    """As peft renames what older versions of a class were saved with."""
    bare = name.removeprefix("base_model.model.")
    for pattern, new in mapping.items():
        changed, count = re.subn(pattern, re.sub(r"\(.*\)", "", new.lstrip("^")), bare)
        if count:
            return f"base_model.model.{changed}"
    return name


def check_untied(model: Any) -> None:
    """Refuse adapters on weights that embedding and head share: merged, they would change both, and trained they change one.

    Raises:
        ValueError: there are some.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    ends = [base.get_input_embeddings(), base.get_output_embeddings()]
    own = [getattr(end, "base_layer", end) for end in ends]
    if None in own or getattr(own[0], "weight", None) is not getattr(own[1], "weight", None):
        return
    adapted = [end for end in ends if hasattr(end, "base_layer")]
    if not adapted:
        return
    names = [name.removeprefix("base_model.model.") for name, m in model.named_modules() if m in adapted]
    raise ValueError(
        f"adapters on {' and '.join(names)} are not possible: the model's embedding and head share their weights, so that "
        "merging would change both, and the merged model would not be the trained one. Leave "
        f"{' and '.join(name.rpartition('.')[-1] for name in names)} out of lora_target_modules, train it whole "
        "(lora_modules_to_save), or save a model whose head has weights of its own (tie_word_embeddings=false)"
    )
