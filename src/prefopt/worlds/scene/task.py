"""The pictures of the scene world: captions, rendering with exact maps, and the style that is read off a picture.

A picture shows two or three shapes before a grey ground, in one of four styles. The caption names the style alone; what
is where is in three maps. Shapes are painted from far to near, and the nearer a shape, the higher its class: red lies
behind green, green behind blue. So each of the three maps can be read off the pixels. Ground, texture and shading are
grey, which leaves the colours' chroma exact.

Legend of shape suffixes: B pictures, C = 3 channels, H = W = 16 rows and columns, K = 4 classes, S = 3 shapes.
Pictures are float32 in [0, 1].
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from prefopt.worlds.base import seed_of
from prefopt.worlds.pixels import SIDE

CLASSES = ("ground", "red", "green", "blue")
COLOURS = ((0.85, 0.2, 0.2), (0.2, 0.75, 0.25), (0.2, 0.3, 0.85))
"""Of the classes but the ground."""
SHAPES = ("disk", "square", "triangle")
BRIGHTNESS = {"bright": 1.0, "dim": 0.75}
"""Factor of the shapes' colours. Not of the ground: a sampler that starts from pure noise cannot choose the mean level."""
TEXTURE = {"smooth": 0.03, "rough": 0.12}
"""Standard deviation of a grey white noise."""
LARGEST_GRAIN = 2.0
"""In standard deviations: what is cut off at black or white loses its colour."""

GROUND = (0.35, 0.65)
SHADING = 0.05
"""Standard deviation of the ground's slow variation."""
JITTER = 0.04
CENTRE = (2.0, 14.0)
RADIUS = (2.0, 4.5)

DIM_BELOW = 0.87
"""Strength of the strongest tenth of the coloured pixels: what a model blurs or tints by mistake is weak."""
STRONGEST = 0.9
ROUGH_ABOVE = 0.06
MEDIAN_LAPLACIAN = 0.6745 * math.sqrt(20)
"""Median absolute Laplacian of white noise of standard deviation 1: its weights are 4 and four times -1."""

_CAPTION = re.compile(rf"\s*a\s+({'|'.join(BRIGHTNESS)})\s+({'|'.join(TEXTURE)})\s+picture\s*", re.IGNORECASE)


# -- captions ------------------------------------------------------------------------------------------------


def caption_of(style: Sequence[int]) -> str:
    """The caption of a style: indices into `BRIGHTNESS` and `TEXTURE`.

    >>> caption_of((0, 1))
    'a bright rough picture'
    """
    brightness, texture = style
    return f"a {list(BRIGHTNESS)[int(brightness)]} {list(TEXTURE)[int(texture)]} picture"


def parse_caption(caption: str) -> tuple[int, int]:
    """The style of a caption.

    >>> parse_caption("a bright rough picture")
    (0, 1)

    Raises:
        ValueError: not a caption of this world.
    """
    match = _CAPTION.fullmatch(caption)
    if match is None:
        raise ValueError(
            f"not a caption of the scene world: {caption!r}. Needed: brightness ({' or '.join(BRIGHTNESS)}) and texture "
            f'({" or ".join(TEXTURE)}), for example "a bright rough picture"'
        )
    brightness, texture = (text.lower() for text in match.groups())
    return list(BRIGHTNESS).index(brightness), list(TEXTURE).index(texture)


# -- rendering -----------------------------------------------------------------------------------------------


class Scenes(NamedTuple):
    """Pictures with everything that is known of them.

    Attributes:
        captions: name the style.
        styles_B2: indices into `BRIGHTNESS` and `TEXTURE`.
        images_BCHW: float32 in [0, 1].
        classes_BHW: int64, indices into `CLASSES`.
        edges_BHW: bool; see `edges_of`.
        depth_BHW: float32 in [0, 1], 1 is nearest; see `depth_of`.
    """

    captions: list[str]
    styles_B2: Tensor
    images_BCHW: Tensor
    classes_BHW: Tensor
    edges_BHW: Tensor
    depth_BHW: Tensor


def draw(n: int, stream: str) -> Scenes:
    """`n` pictures. Picture k depends on (`stream`, k) alone."""
    key = seed_of(stream)
    uniform = np.empty((n, 3 + 8 * 3), dtype=np.float32)
    shading = np.empty((n, 1, 4, 4), dtype=np.float32)
    noise = np.empty((n, SIDE, SIDE), dtype=np.float32)
    for k in range(n):
        rng = np.random.default_rng([key, k])
        uniform[k] = rng.random(uniform.shape[1], dtype=np.float32)
        shading[k] = rng.standard_normal((1, 4, 4), dtype=np.float32)
        noise[k] = rng.standard_normal((SIDE, SIDE), dtype=np.float32)
    u = torch.from_numpy(uniform)
    three_B, ground_B = u[:, 0] < 0.5, u[:, 2]
    style_B = (4 * u[:, 1]).long()
    styles_B2 = torch.stack((style_B // 2, style_B % 2), 1)
    u_BS8 = u[:, 3:].unflatten(1, (3, 8))
    there_BS = torch.stack((torch.ones_like(three_B), torch.ones_like(three_B), three_B), 1)
    inside_BSHW = (
        shapes((3 * u_BS8[..., 0]).long(), u_BS8[..., 1:3], u_BS8[..., 3]) & there_BS[..., None, None]
    )
    class_BS = 1 + (3 * u_BS8[..., 4]).long()
    colour_BSC = torch.tensor(COLOURS)[class_BS - 1] + JITTER * (2 * u_BS8[..., 5:8] - 1)
    # painted from far to near: by class, and those of one class as they come
    order_BS = class_BS.argsort(stable=True, dim=1)
    slow_BHW = torch.nn.functional.interpolate(
        torch.from_numpy(shading), size=(SIDE, SIDE), mode="bilinear", align_corners=False
    )[:, 0]
    level_BHW = GROUND[0] + (GROUND[1] - GROUND[0]) * ground_B[:, None, None] + SHADING * slow_BHW
    bright_B = torch.tensor(list(BRIGHTNESS.values()))[styles_B2[:, 0]]
    colour_BSC = bright_B[:, None, None] * colour_BSC
    images_BCHW = level_BHW[:, None].repeat(1, 3, 1, 1)
    classes_BHW = torch.zeros(n, SIDE, SIDE, dtype=torch.long)
    rows = torch.arange(n)
    for shape_B in order_BS.unbind(1):
        inside_BHW = inside_BSHW[rows, shape_B]
        classes_BHW = torch.where(inside_BHW, class_BS[rows, shape_B][:, None, None], classes_BHW)
        images_BCHW = torch.where(
            inside_BHW[:, None], colour_BSC[rows, shape_B][..., None, None], images_BCHW
        )
    rough_B = torch.tensor(list(TEXTURE.values()))[styles_B2[:, 1]]
    grain_BHW = rough_B[:, None, None] * torch.from_numpy(noise).clamp(-LARGEST_GRAIN, LARGEST_GRAIN)
    images_BCHW = (images_BCHW + grain_BHW[:, None]).clamp(0, 1)
    captions = [caption_of(style) for style in styles_B2.tolist()]
    return Scenes(captions, styles_B2, images_BCHW, classes_BHW, edges_of(classes_BHW), depth_of(classes_BHW))


def shapes(kind_BS: Tensor, centre_BS2: Tensor, radius_BS: Tensor) -> Tensor:
    """(B, S, 16, 16) bool: where each shape is, its centre and radius given as shares of their ranges."""
    pixel_H = torch.arange(SIDE) + 0.5
    centre_BS2 = CENTRE[0] + (CENTRE[1] - CENTRE[0]) * centre_BS2
    r = (RADIUS[0] + (RADIUS[1] - RADIUS[0]) * radius_BS)[..., None, None]
    x, y = torch.broadcast_tensors(
        pixel_H - centre_BS2[..., 0, None, None], pixel_H[:, None] - centre_BS2[..., 1, None, None]
    )
    disk = torch.hypot(x, y) < r
    square = torch.maximum(x.abs(), y.abs()) < r
    triangle = (y.abs() < r) & (x.abs() < (y + r) / 2)
    kinds = torch.stack((disk, square, triangle))
    return torch.gather(kinds, 0, kind_BS[None, ..., None, None].expand(1, *r.shape[:2], SIDE, SIDE))[0]


def edges_of(classes_BHW: Tensor) -> Tensor:
    """(B, 16, 16) bool: pixels whose neighbour to the right or below is of another class."""
    right = torch.nn.functional.pad(classes_BHW[:, :, 1:] != classes_BHW[:, :, :-1], (0, 1))
    below = torch.nn.functional.pad(classes_BHW[:, 1:] != classes_BHW[:, :-1], (0, 0, 0, 1))
    return right | below


def depth_of(classes_BHW: Tensor) -> Tensor:
    """(B, 16, 16) nearness in [0, 1]: 0 the ground, 1 blue, which nothing occludes."""
    return classes_BHW.float() / (len(CLASSES) - 1)


# -- style ---------------------------------------------------------------------------------------------------


def chroma(images_BCHW: Tensor) -> Tensor:
    """(B, 3, 16, 16) the pictures less their grey: untouched by texture and shading."""
    return images_BCHW - images_BCHW.mean(1, keepdim=True)


def style_of(images_BCHW: Tensor, classes_BHW: Tensor) -> Tensor:
    """(B, 2) styles of pictures, from pixels: brightness by the strongest colours, texture by the median Laplacian.

    Args:
        images_BCHW: in [0, 1].
        classes_BHW: of their pixels. A picture without a shape counts as dim.
    """
    pure_K = chroma(torch.tensor(COLOURS)[:, :, None, None]).norm(dim=1).flatten()
    pure_K = torch.cat((torch.ones(1), pure_K)).to(images_BCHW)
    shape_BHW = classes_BHW > 0
    strength_BHW = chroma(images_BCHW).norm(dim=1) / pure_K[classes_BHW]
    strength_BN = strength_BHW.masked_fill(~shape_BHW, torch.nan).flatten(1)
    strength_B = strength_BN.nanquantile(STRONGEST, 1).nan_to_num(0.0)
    grey = images_BCHW.mean(1)
    inner = (slice(None), slice(1, -1), slice(1, -1))
    sides_BHW = grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:] + grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1]
    laplacian_BN = (sides_BHW - 4 * grey[inner]).abs().flatten(1)
    # only where no outline passes
    edges = edges_of(classes_BHW)
    edge_BHW = edges[inner] | edges[:, 1:-1, :-2] | edges[:, :-2, 1:-1]
    laplacian_BN = laplacian_BN.masked_fill(edge_BHW.flatten(1), torch.nan)
    grain_B = laplacian_BN.nanmedian(1).values / MEDIAN_LAPLACIAN
    return torch.stack((strength_B < DIM_BELOW, grain_B > ROUGH_ABOVE), 1).long()
