"""Control images: ControlNet pipelines of diffusers, whose images follow a second image (edges, depth, a class map)."""

from __future__ import annotations

from prefopt.modalities.base import Modality


def claims(model: str) -> bool:
    """Whether a folder or hub id holds a pipeline with a ControlNet."""
    from prefopt.modalities.control.models import is_control_pipeline

    return is_control_pipeline(model)


MODALITY = Modality(
    name="control",
    noun="control",
    traits=frozenset({"image", "denoising", "adapters", "control"}),
    model="the folder of a diffusers ControlNet pipeline (with model_index.json)",
    claims=claims,
    package=__name__,
    key="controlnet",
    asked_before=frozenset({"image"}),
)
