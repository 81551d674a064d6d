"""Depth by a model of transformers (DPT, Depth Anything, GLPN, ...): find("depth:DIR").

Maps run from 0 to 1 in each image, in the model's own sense: of DPT and Depth Anything, 1 is nearest.
Legend: B images, C = 3, H W in pixels, h w of the model's output.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from prefopt.metrics.similarity import depth_rmse
from prefopt.modalities.control.detectors.base import Labels, Metric
from prefopt.modalities.control.detectors.maps import as_maps, check_same, draw_maps, read_maps, stretched
from prefopt.modalities.control.detectors.models import config_of, exactly, frozen, in_pieces, place_of
from prefopt.modalities.control.detectors.preparing import Preparation
from prefopt.modalities.image.scorers import check_images

KINDS = ("depth_anything", "dpt", "glpn")
"""Types of models that need nothing but the image, and give a map of it without borders."""


class Depth:
    """How far away each pixel is, from 0 to 1 in each image; a flat map, which says nothing, is zeros.

    Args:
        source: folder or hub id of a model of depth.
        device: of the model.

    Raises:
        FileNotFoundError: no model there.
        ValueError: another kind of model.
    """

    metric: Metric = "rmse"

    def __init__(self, source: str | Path, device: str = "cpu") -> None:
        self.name = f"depth:{source}"
        self.place, self.device = place_of(source), device
        config_of(self.place, KINDS, "depth")

    def detect(self, images_BCHW: Tensor) -> Tensor:
        """(B, H, W) floats in [0, 1] of images in [0, 1]."""
        check_images(images_BCHW)
        if not len(images_BCHW):
            return torch.zeros(0, *images_BCHW.shape[2:], device=images_BCHW.device)
        return in_pieces(self._depth, images_BCHW, self.device)

    def draw(self, labels: Labels) -> Tensor:
        """Grey pictures."""
        return draw_maps(labels)

    def read(self, conditions_BCHW: Tensor) -> Tensor:
        """(B, H, W) grey values."""
        return read_maps(conditions_BCHW)

    def agreement(self, labels_a: Labels, labels_b: Labels) -> Tensor:
        """(B,) 1 - RMSE of each image, on maps of 0 to 1."""
        return 1 - depth_rmse(as_maps(labels_a), as_maps(labels_b))

    def loss(self, images_BCHW: Tensor, labels: Labels) -> Tensor:
        """(B,) mean squared difference of depth and label, each divided by its greatest value."""
        labels_BHW = as_maps(labels)
        check_same(images_BCHW, labels_BHW)
        with exactly(self.device):
            depth_BHW = self._depth(images_BCHW).to(images_BCHW.device)  # its greatest value is 1 already
            label_BHW = labels_BHW.to(depth_BHW)
            most_B11 = label_BHW.amax((1, 2), keepdim=True)
            return (depth_BHW - label_BHW / torch.where(most_B11 > 0, most_B11, 1.0)).square().mean((1, 2))

    @cached_property
    def _model(self) -> Any:
        from transformers import AutoModelForDepthEstimation

        return frozen(AutoModelForDepthEstimation, self.place, self.device)

    @cached_property
    def _prepare(self) -> Preparation:
        return Preparation(self.place)

    def _depth(self, images_BCHW: Tensor) -> Tensor:
        """(B, H, W) in [0, 1], at the size of the images."""
        pixels_BCHW = self._prepare(images_BCHW.to(self.device))
        depth_Bhw = self._model(pixel_values=pixels_BCHW).predicted_depth.float()
        depth_B1HW = F.interpolate(
            depth_Bhw[:, None], images_BCHW.shape[2:], mode="bicubic", align_corners=False
        )
        return stretched(depth_B1HW[:, 0])
