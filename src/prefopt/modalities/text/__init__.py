"""Text: causal language models of transformers, token likelihoods, generated answers."""

from __future__ import annotations

from pathlib import Path

from prefopt.modalities.base import Modality


def claims(model: str) -> bool:
    """Whether a folder holds what transformers or peft saved."""
    folder = Path(model).expanduser()
    return (folder / "config.json").exists() or (folder / "adapter_config.json").exists()


MODALITY = Modality(
    name="text",
    noun="text",
    traits=frozenset({"text", "answers", "adapters"}),
    model="the folder or hub id of a causal language model",
    claims=claims,
    package=__name__,
)
