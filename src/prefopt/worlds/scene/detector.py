"""What is where in a picture of the scene world, read off its pixels: a detector to train with, another one to judge by.

A picture without flaw is read without a mistake by both. They differ in how: the training detector compares chroma with
the classes' directions and a fixed threshold, so that it has gradients; the judge takes the nearest hue angle wherever a
pixel is saturated for its brightness. A model that learns to please the one has not thereby pleased the other.

    kind    labels                          control image                  agreement, 1 is best
    mask    (B, H, W) int64, a class        the classes' pure colours      mean IoU of the classes in either
    edges   (B, H, W) bool                  white lines on black           F1
    depth   (B, H, W) float32 in [0, 1]     grey, near is white            1 - root mean squared difference

Legend of shape suffixes: B pictures, C = 3 channels, H = W = 16 rows and columns, K = 4 classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from prefopt.worlds.scene.task import CLASSES, COLOURS, chroma, depth_of, edges_of

Kind = Literal["mask", "edges", "depth"]
METRICS: dict[Kind, str] = {"mask": "miou", "edges": "edge_f1", "depth": "rmse"}
PALETTE = ((0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
"""Of the classes, in control images."""

THRESHOLD = 0.18
SHARPNESS = 20.0
SATURATED = 0.25
"""(largest - smallest channel) / largest: the ground has 0, a shape at least 0.3."""
HALF_A_LEVEL = 0.5 / 255


@dataclass(frozen=True)
class SceneDetector:
    """An exact detector of one kind of map.

    Attributes:
        kind: of map.
        independent: judge by hue angle instead of by chroma.
    """

    kind: Kind = "mask"
    independent: bool = False

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(
                f"there is no map of kind {self.kind!r} in the scene world: needed {', '.join(get_args(Kind))}"
            )

    @property
    def name(self) -> str:
        """For logs and reports."""
        return f"scene-{self.kind}-{'hue' if self.independent else 'chroma'}"

    @property
    def metric(self) -> str:
        """What a set of pictures is measured by: miou, edge_f1 or rmse."""
        return METRICS[self.kind]

    def detect(self, images_BCHW: Tensor) -> Tensor:
        """Labels of pictures in [0, 1]; no gradient."""
        with torch.no_grad():
            classes_BHW = by_hue(images_BCHW) if self.independent else logits(images_BCHW).argmax(1)
        return self.labels(classes_BHW)

    def labels(self, classes_BHW: Tensor) -> Tensor:
        """The map of this kind that follows from the classes."""
        if self.kind == "edges":
            return edges_of(classes_BHW)
        return depth_of(classes_BHW) if self.kind == "depth" else classes_BHW

    def draw(self, labels_BHW: Tensor) -> Tensor:
        """(B, 3, H, W) control images in [0, 1]."""
        if self.kind == "mask":
            return torch.tensor(PALETTE, device=labels_BHW.device)[labels_BHW].movedim(-1, 1)
        return labels_BHW.float()[:, None].repeat(1, 3, 1, 1)

    def read(self, conditions_BCHW: Tensor) -> Tensor:
        """Labels of control images, which may have been stored with 8 bits a channel.

        Raises:
            ValueError: a colour that stands for nothing.
        """
        if self.kind == "depth":
            values_BHW = conditions_BCHW[:, 0]
            self._check((conditions_BCHW - values_BHW[:, None]).abs().amax(1), conditions_BCHW, "grey")
            return values_BHW.float()
        palette = PALETTE if self.kind == "mask" else ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        colours_KC = torch.tensor(palette).to(conditions_BCHW)
        off_BKHW = (conditions_BCHW[:, None] - colours_KC[:, :, None, None]).abs().amax(2)
        off_BHW, nearest_BHW = off_BKHW.min(1)
        self._check(
            off_BHW,
            conditions_BCHW,
            "one of the classes' colours" if self.kind == "mask" else "black or white",
        )
        return nearest_BHW if self.kind == "mask" else nearest_BHW.bool()

    def _check(self, off_BHW: Tensor, conditions_BCHW: Tensor, needed: str) -> None:
        wrong = (off_BHW > HALF_A_LEVEL).nonzero()
        if len(wrong):
            picture, row, column = wrong[0].tolist()
            given = [round(255 * value) for value in conditions_BCHW[picture, :, row, column].tolist()]
            raise ValueError(
                f"control image {picture} has the colour {given} (of 255) in row {row}, column {column}; needed {needed}. "
                f"{len(wrong)} pixels are wrong: was it resized smoothly, stored as JPEG, or is it no {self.kind} map?"
            )

    def agreement(self, a_BHW: Tensor, b_BHW: Tensor) -> Tensor:
        """(B,) in [0, 1], 1 where two maps are equal; symmetric. See the table above."""
        if self.kind == "depth":
            return 1 - (a_BHW - b_BHW).square().mean((1, 2)).sqrt()
        if self.kind == "edges":
            both, all_ = (a_BHW & b_BHW).sum((1, 2)), a_BHW.sum((1, 2)) + b_BHW.sum((1, 2))
            return torch.where(all_ > 0, 2 * both / all_.clamp(min=1), 1.0)
        inter_BK, union_BK = overlaps(a_BHW, b_BHW)
        return (inter_BK / union_BK.clamp(min=1)).sum(1) / (union_BK > 0).sum(1)

    def loss(self, images_BCHW: Tensor, labels_BHW: Tensor) -> Tensor:
        """(B,) differentiable: how far pictures are from showing the labels.

        Masks: cross-entropy of the chroma logits. Edges and depth: mean squared error of what is expected under their
        softmax.

        Raises:
            ValueError: of the judge, which nothing is to be trained on.
        """
        if self.independent:
            raise ValueError(f"{self.name} judges: train on the detector of `detector(independent=False)`")
        logits_BKHW = logits(images_BCHW)
        if self.kind == "mask":
            return functional.cross_entropy(logits_BKHW, labels_BHW, reduction="none").mean((1, 2))
        p_BKHW = logits_BKHW.softmax(1)
        if self.kind == "depth":
            weight_K = torch.arange(len(CLASSES)).to(p_BKHW) / (len(CLASSES) - 1)
            soft_BHW = torch.einsum("bkhw,k->bhw", p_BKHW, weight_K)
        else:
            right = functional.pad((p_BKHW[..., 1:] * p_BKHW[..., :-1]).sum(1), (0, 1), value=1.0)
            below = functional.pad((p_BKHW[:, :, 1:] * p_BKHW[:, :, :-1]).sum(1), (0, 0, 0, 1), value=1.0)
            soft_BHW = 1 - right * below
        return (soft_BHW - labels_BHW.to(soft_BHW)).square().mean((1, 2))


def logits(images_BCHW: Tensor) -> Tensor:
    """(B, K, H, W) of the classes: chroma along each colour's direction, and a threshold for the ground."""
    directions_KC = functional.normalize(chroma(torch.tensor(COLOURS)[:, :, None, None]).flatten(1), dim=1)
    along_BKHW = torch.einsum("bchw,kc->bkhw", chroma(images_BCHW), directions_KC.to(images_BCHW))
    ground_B1HW = torch.full_like(along_BKHW[:, :1], THRESHOLD)
    return SHARPNESS * torch.cat((ground_B1HW, along_BKHW), 1)


def by_hue(images_BCHW: Tensor) -> Tensor:
    """(B, H, W) classes: the nearest hue angle wherever a pixel is saturated for its brightness."""
    largest = images_BCHW.amax(1)
    saturation_BHW = (largest - images_BCHW.amin(1)) / largest.clamp(min=1e-6)
    classes_K = torch.tensor(COLOURS).to(images_BCHW)[:, :, None, None]
    apart_KBHW = hue(images_BCHW)[None] - hue(classes_K)[..., None]
    apart_KBHW = torch.remainder(apart_KBHW + math.pi, 2 * math.pi) - math.pi
    return torch.where(saturation_BHW > SATURATED, 1 + apart_KBHW.abs().argmin(0), 0)


def hue(images_BCHW: Tensor) -> Tensor:
    """(B, H, W) angles in radians."""
    red, green, blue = images_BCHW.unbind(1)
    return torch.atan2(math.sqrt(3) * (green - blue), 2 * red - green - blue)


def overlaps(a_BHW: Tensor, b_BHW: Tensor) -> tuple[Tensor, Tensor]:
    """(B, K) pixels that are of a class in both maps, and in either."""
    one_BKHW, other_BKHW = (functional.one_hot(x, len(CLASSES)).movedim(-1, 1).bool() for x in (a_BHW, b_BHW))
    return (one_BKHW & other_BKHW).sum((2, 3)), (one_BKHW | other_BKHW).sum((2, 3))
