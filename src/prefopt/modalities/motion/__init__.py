"""Motions: text-to-motion models (`prefopt.motion`), denoising errors of sequences of poses, generated samples."""

from __future__ import annotations

from prefopt.modalities.base import Modality


def claims(model: str) -> bool:
    """Whether a folder holds a text-to-motion pipeline."""
    from prefopt.modalities.motion.models import is_motion_folder

    return is_motion_folder(model)


MODALITY = Modality(
    name="motion",
    noun="motion",
    traits=frozenset({"motion", "text_to_motion", "denoising", "adapters", "candidates"}),
    model="the folder of a text-to-motion model (with model_index.json, see docs/motion.md)",
    claims=claims,
    package=__name__,
    asked_before=frozenset({"image"}),
)
