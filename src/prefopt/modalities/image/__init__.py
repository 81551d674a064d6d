"""Images: text-to-image pipelines of diffusers, denoising errors and reverse steps, generated samples."""

from __future__ import annotations

from prefopt.modalities.base import Modality

LORA_FILE = "pytorch_lora_weights.safetensors"
"""What diffusers calls a file of adapters."""


def claims(model: str) -> bool:
    """Whether a folder or hub id holds a pipeline of diffusers."""
    from prefopt.modalities.image.models.pipelines import is_pipeline

    return is_pipeline(model)


MODALITY = Modality(
    name="image",
    noun="image",
    traits=frozenset({"image", "text_to_image", "denoising", "adapters", "candidates"}),
    model="the folder of a diffusers pipeline (with model_index.json)",
    claims=claims,
    package=__name__,
)
