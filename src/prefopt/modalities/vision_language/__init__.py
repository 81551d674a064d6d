"""Images and text: models of transformers that read both and write text."""

from __future__ import annotations

from pathlib import Path

from prefopt.modalities.base import Modality

PROCESSORS = ("processor_config.json", "preprocessor_config.json")
"""Files of which a folder whose model can be given images holds one."""


def claims(model: str) -> bool:
    """Whether a folder or hub repository holds a language model that reads images, and what prepares them."""
    from prefopt.models.sources import config_values, file_of, whole_model

    folder = Path(model).expanduser()
    if folder.is_dir() and not any(
        (folder / name).exists() for name in ("config.json", "adapter_config.json")
    ):
        return False
    try:
        source = whole_model(model)
    except (OSError, ValueError):
        return False
    values = config_values(source)
    reads_images = "vision_config" in values and ("text_config" in values or "llm_config" in values)
    return reads_images and any(file_of(source, name) is not None for name in PROCESSORS)


MODALITY = Modality(
    name="vision_language",
    noun="vision-language",
    traits=frozenset({"text", "adapters", "vision"}),
    model="the folder or hub id of a vision-language model of transformers (AutoModelForImageTextToText)",
    claims=claims,
    package=__name__,
    asked_before=frozenset({"text"}),
)
