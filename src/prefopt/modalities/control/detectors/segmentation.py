"""Class maps by a segmentation model of transformers.

    find("segmentation:DIR")                 with colours of its own
    find("segmentation:DIR:PALETTE.json")    with yours

Semantic models (SegFormer, UperNet, BEiT, DPT, ...) and those that predict masks with classes (MaskFormer, Mask2Former).
Legend: B images, C = 3, H W in pixels, h w of the model's output, K classes, Q queries.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from prefopt.metrics.segmentation import IGNORED, image_iou
from prefopt.modalities.control.detectors.base import Labels, Metric
from prefopt.modalities.control.detectors.maps import check_same
from prefopt.modalities.control.detectors.models import config_of, exactly, frozen, in_pieces, place_of
from prefopt.modalities.control.detectors.palette import default_palette, read_palette
from prefopt.modalities.control.detectors.preparing import Preparation
from prefopt.modalities.image.scorers import check_images

MASK_SIZES = {"mask2former": (384, 384), "maskformer": None}
"""Models of masks with classes, and the size to which masks are brought before they are added up."""


class Segmentation:
    """The class of each pixel.

    Args:
        source: folder or hub id of a segmentation model.
        palette: JSON file of colours, see `read_palette`; None: `default_palette`.
        device: of the model.

    Attributes:
        num_classes: K, by the model's configuration.
        palette: colours of control images.

    Raises:
        FileNotFoundError: no model or no palette there.
        ValueError: another kind of model, more than 255 classes, or a palette that does not fit.
    """

    metric: Metric = "miou"

    def __init__(self, source: str | Path, palette: str | Path | None = None, device: str = "cpu") -> None:
        from transformers.models.auto.modeling_auto import MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES

        self.name = f"segmentation:{source}" + (f":{palette}" if palette else "")
        self.place, self.device = place_of(source), device
        self.config = config_of(
            self.place, {*MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES, *MASK_SIZES}, "segmentation"
        )
        self.num_classes = int(self.config.num_labels)
        self.palette = (
            default_palette(self.num_classes) if palette is None else read_palette(palette, self.num_classes)
        )

    def detect(self, images_BCHW: Tensor) -> Tensor:
        """(B, H, W) int64 class ids of images in [0, 1]; none is 255."""
        check_images(images_BCHW)
        if not len(images_BCHW):
            return torch.zeros(0, *images_BCHW.shape[2:], dtype=torch.int64, device=images_BCHW.device)
        return in_pieces(lambda some: self._log_shares(some).argmax(1), images_BCHW, self.device)

    def draw(self, labels: Labels) -> Tensor:
        """Each class in its colour."""
        return self.palette.draw(_class_maps(labels))

    def read(self, conditions_BCHW: Tensor) -> Tensor:
        """(B, H, W) class ids of masks in the palette's colours, or of grey masks whose levels are the ids."""
        return self.palette.read(conditions_BCHW)

    def agreement(self, labels_a: Labels, labels_b: Labels) -> Tensor:
        """(B,) mean IoU of each image, over the classes in either."""
        return image_iou(_class_maps(labels_a), _class_maps(labels_b))

    def loss(self, images_BCHW: Tensor, labels: Labels) -> Tensor:
        """(B,) mean cross-entropy over the pixels that have a label; 0 where none has."""
        labels_BHW = _class_maps(labels)
        check_same(images_BCHW, labels_BHW)
        with exactly(self.device):
            shares_BKHW = self._log_shares(images_BCHW)
            wanted_BHW = labels_BHW.to(shares_BKHW.device, torch.int64)
            outside = wanted_BHW[
                (wanted_BHW != IGNORED) & (wanted_BHW >= self.num_classes) | (wanted_BHW < 0)
            ]
            if len(outside):
                raise ValueError(
                    f"labels have the class ids {outside.unique().tolist()[:8]}, and {self.place} has {self.num_classes} "
                    f"classes: needed ids below that, or {IGNORED} where there is no label"
                )
            loss_BHW = F.nll_loss(shares_BKHW, wanted_BHW, ignore_index=IGNORED, reduction="none")
            count_B = (wanted_BHW != IGNORED).sum((1, 2))
            return (loss_BHW.sum((1, 2)) / count_B.clamp(min=1)).to(images_BCHW.device)

    @cached_property
    def _model(self) -> Any:
        from transformers import AutoModelForSemanticSegmentation, AutoModelForUniversalSegmentation

        masks = self.config.model_type in MASK_SIZES
        kind = AutoModelForUniversalSegmentation if masks else AutoModelForSemanticSegmentation
        return frozen(kind, self.place, self.device)

    @cached_property
    def _prepare(self) -> Preparation:
        return Preparation(self.place)

    def _log_shares(self, images_BCHW: Tensor) -> Tensor:
        """(B, K, H, W) logarithms of how likely each class is, at the size of the images."""
        size = (images_BCHW.shape[2], images_BCHW.shape[3])
        outputs = self._model(pixel_values=self._prepare(images_BCHW.to(self.device)))
        if self.config.model_type not in MASK_SIZES:
            logits_BKHW = F.interpolate(outputs.logits.float(), size, mode="bilinear", align_corners=False)
            return logits_BKHW.log_softmax(1)
        masks_BQhw = outputs.masks_queries_logits.float()
        between = MASK_SIZES[self.config.model_type]
        if between is not None:
            masks_BQhw = F.interpolate(masks_BQhw, between, mode="bilinear", align_corners=False)
        classes_BQK = outputs.class_queries_logits.float().softmax(-1)[..., :-1]  # the last means no class
        scores_BKhw = torch.einsum("bqk,bqhw->bkhw", classes_BQK, masks_BQhw.sigmoid())
        scores_BKHW = F.interpolate(scores_BKhw, size, mode="bilinear", align_corners=False)
        # scores of queries add up to more or less than 1
        return (scores_BKHW / scores_BKHW.sum(1, keepdim=True).clamp(min=1e-12)).clamp(min=1e-12).log()


def _class_maps(labels: Labels) -> Tensor:
    if not isinstance(labels, Tensor) or labels.ndim != 3:
        what = tuple(labels.shape) if isinstance(labels, Tensor) else type(labels).__name__
        raise ValueError(f"labels are {what}; needed class maps, (B, H, W) integers")
    return labels
