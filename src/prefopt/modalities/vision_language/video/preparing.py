"""Frames as a model's tensors: by the processor's own part for videos, or, where torchvision is absent, by its part for images.

transformers' video processors are built on torchvision. Classes whose models read frames as images (InternVL, SmolVLM), or
pairs of frames as patches that are twice as deep (Qwen-VL), lose nothing without it: each frame is prepared as an image, to
the size that the video processor's settings say. Only the filter that resizes is another one (Pillow's).

Legend: F frames, H and W height and width, P patches of one frame, D numbers of one patch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

DROPPED = ("video_metadata", "rows", "cols")
WITHOUT = "torchvision is not installed, so frames are resized by Pillow, as images are"


@dataclass(frozen=True)
class Preparer:
    """Makes tensors of one clip's frames.

    Attributes:
        make: of (F, H, W, 3) uint8.
        step: frames that the model takes as one.
        note: what is to be told of it.
    """

    make: Callable[[np.ndarray], dict[str, Tensor]]
    step: int = 1
    note: str | None = None

    def __call__(self, pixels_FHW3: np.ndarray) -> dict[str, Tensor]:
        """Tensors by the model's names."""
        return self.make(pixels_FHW3)


def preparer_of(processor: Any) -> Preparer:
    """How a processor's frames are prepared.

    Raises:
        ValueError: the model knows no videos, or its frames cannot be prepared without torchvision.
    """
    from transformers.utils import is_torchvision_available

    part = getattr(processor, "video_processor", None)
    name = type(processor).__name__
    if (
        part is None
        or not hasattr(processor, "replace_video_token")
        or not getattr(processor, "video_token", None)
    ):
        raise ValueError(f"{name} reads no videos: give rows of images, or a model of videos")
    if is_torchvision_available():
        step = int(getattr(part, "temporal_patch_size", 1) or 1)
        return Preparer(lambda pixels_FHW3: by_videos(part, pixels_FHW3), step)
    settings = dict(part)
    images = processor.image_processor
    if name == "InternVLProcessor":
        return Preparer(lambda pixels_FHW3: by_tiles(images, settings, pixels_FHW3), note=WITHOUT)
    if name == "SmolVLMProcessor":
        return Preparer(lambda pixels_FHW3: by_squares(images, settings, pixels_FHW3), note=WITHOUT)
    if name in ("Qwen2VLProcessor", "Qwen2_5_VLProcessor", "Qwen3VLProcessor"):
        whole = name == "Qwen3VLProcessor"
        step = int(settings.get("temporal_patch_size", images.temporal_patch_size))
        part.merge_size = int(settings.get("merge_size", images.merge_size))
        part.temporal_patch_size = step
        return Preparer(
            lambda pixels_FHW3: by_pairs(images, settings, pixels_FHW3, step, whole), step, note=WITHOUT
        )
    raise ValueError(
        f"{name} prepares videos with torchvision, which is not installed: pip install the build that belongs to this torch"
    )


def by_videos(part: Any, pixels_FHW3: np.ndarray) -> dict[str, Tensor]:
    """By the processor's own part for videos."""
    out = part(
        videos=[torch.from_numpy(pixels_FHW3).permute(0, 3, 1, 2)],
        do_sample_frames=False,
        return_tensors="pt",
        input_data_format="channels_first",
    )
    found = {key: value for key, value in out.items() if key not in DROPPED and isinstance(value, Tensor)}
    if type(part).__name__ == "InternVLVideoProcessor":  # its frames are the model's images
        return {"pixel_values": found["pixel_values_videos"].flatten(0, 1)}
    return found


def by_tiles(images: Any, settings: dict[str, Any], pixels_FHW3: np.ndarray) -> dict[str, Tensor]:
    """Each frame as one tile (InternVL)."""
    out = images(
        images=list(pixels_FHW3), crop_to_patches=False, return_tensors="pt", input_data_format="channels_last",
        **sizes(settings),
    )  # fmt: skip
    return {"pixel_values": out["pixel_values"]}


def by_squares(images: Any, settings: dict[str, Any], pixels_FHW3: np.ndarray) -> dict[str, Tensor]:
    """Each frame as one square image, all of them in one row (SmolVLM)."""
    given = sizes(settings)
    sampling = settings.get("video_sampling") or {}
    if "video_size" in sampling:
        given["size"] = sampling["video_size"]
    if "max_image_size" in settings:
        given["max_image_size"] = settings["max_image_size"]
    out = images(
        images=[list(pixels_FHW3)], do_image_splitting=False, return_tensors="pt", input_data_format="channels_last", **given
    )  # fmt: skip
    return {key: value for key, value in out.items() if key not in DROPPED}


def by_pairs(
    images: Any, settings: dict[str, Any], pixels_FHW3: np.ndarray, step: int, whole: bool
) -> dict[str, Tensor]:
    """Each frame's patches, those of `step` frames side by side; the last frame is repeated (Qwen-VL).

    An image's patches hold its pixels `step` times over, one copy for each frame of a video's.

    Args:
        images: prepares one frame.
        settings: of the part for videos.
        pixels_FHW3: of a clip.
        step: frames a patch.
        whole: whether the bounds on pixels are those of all frames together.
    """
    frames = list(pixels_FHW3)
    frames += [frames[-1]] * (-len(frames) % step)
    given = sizes(settings)
    if size := given.get("size"):
        share = len(frames) if whole else 1
        given["size"] = {edge: max(1, pixels // share) for edge, pixels in size.items()}
    out = images(images=frames, return_tensors="pt", input_data_format="channels_last", **given)
    _, height, width = out["image_grid_thw"][0].tolist()
    patches_FPD = out["pixel_values"].reshape(len(frames), height * width, -1)
    # D is (channels, frames of the patch, rows, columns)
    split = patches_FPD.reshape(len(frames) // step, step, height * width, 3, step, -1)
    joined = torch.stack([split[:, k, :, :, k] for k in range(step)], 3)
    return {
        "pixel_values_videos": joined.reshape(-1, patches_FPD.shape[-1]),
        "video_grid_thw": torch.tensor([[len(frames) // step, height, width]]),
    }


def sizes(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of a part for videos that say what frames become, where they are written down."""
    names = ("size", "image_mean", "image_std", "do_resize", "do_rescale", "do_normalize", "rescale_factor")
    found = {name: settings[name] for name in names if settings.get(name) is not None}
    if {"min_pixels", "max_pixels"} <= set(settings):
        found.setdefault(
            "size", {"shortest_edge": settings["min_pixels"], "longest_edge": settings["max_pixels"]}
        )
    return found
