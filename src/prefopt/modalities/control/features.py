"""Features of images for a Frechet distance: of a vision model by folder or hub id, or pooled pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

PIXELS = "pixels"
POOLED = 4  # side of what pictures are averaged to


def get_features(name: str, device: str = "cpu") -> Callable[[Tensor], Tensor]:
    """A function from (B, 3, H, W) images in [0, 1] to (B, D) features.

    Args:
        name: folder or hub id of a vision model of transformers (CLIP, DINOv2, ...), or "pixels": colours averaged over
            4 x 4 areas, which tell nothing of a photograph and much of a small world.
        device: of the model.

    Raises:
        FileNotFoundError, ValueError: no model there, or one without features of images.
    """
    if name == PIXELS:
        return lambda images_BCHW: F.adaptive_avg_pool2d(images_BCHW, POOLED).flatten(1)
    from transformers import AutoModel

    from prefopt.modalities.image.preprocessing import ImagePreprocessing
    from prefopt.modalities.image.scorers import features
    from prefopt.models.loading_report import load_whole
    from prefopt.models.sources import check_source, config_values, refuse_remote_code

    check_source(name)
    place = str(Path(name).expanduser()) if Path(name).expanduser().is_dir() else name
    refuse_remote_code(place, config_values(place))
    model = load_whole(AutoModel, place, part=True, dtype=torch.float32, trust_remote_code=False)
    model = model.eval().requires_grad_(False).to(device)
    vision = getattr(model.config, "vision_config", model.config)
    size = getattr(vision, "image_size", None)
    if size is None:
        raise ValueError(f"{name} holds a {type(model).__name__}, which reads no images: give a vision model")
    prepare = ImagePreprocessing.of(place, size)
    embed = getattr(model, "get_image_features", model)

    def of(images_BCHW: Tensor) -> Tensor:
        with torch.no_grad():
            return features(embed(pixel_values=prepare(images_BCHW.to(device)))).cpu()

    return of
