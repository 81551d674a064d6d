"""The starting model and the reference of a method of several runs: where they are, and frozen copies of them."""

from __future__ import annotations

from typing import Any

import torch

from prefopt.config import TrainConfig
from prefopt.modalities.models import folder_of, quantization, weight_dtype
from prefopt.models.loading import load_model
from prefopt.models.sources import check_causal
from prefopt.models.tokenizers import check_reference


def source_folder(config: TrainConfig) -> str:
    """Folder or hub id of the reference: the starting model, or the one named."""
    return folder_of(config.reference_model or config.model)


def check_start(config: TrainConfig, tokenizer: Any) -> None:
    """Raise ValueError if the reference that is named is no model for the policy's tokens."""
    model, reference = folder_of(config.model), source_folder(config)
    if reference != model:
        check_causal(reference)
        check_reference(model, reference, tokenizer, tuple)


def loaded(config: TrainConfig, source: str) -> Any:
    """A frozen model on the device that training would use."""
    network: Any = load_model(
        source,
        dtype=weight_dtype(config),  # as a run loads it
        quantization=quantization(config),
        attn_implementation=config.attn_implementation,
        trainable=False,
    ).model
    return network.to("cuda" if torch.cuda.is_available() else "cpu")
