"""The pictures of the picture world: captions, rendering with masks and edges, and what is read off a picture exactly.

Legend of shape suffixes: B pictures, C = 3 channels, H = W = 16 rows and columns, T templates, 4 attributes.
Pictures are float32 in [0, 1].
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from prefopt.worlds.base import Split, seed_of
from prefopt.worlds.pixels import SIDE

SHAPES = ("circle", "square", "triangle", "cross")
COLOURS = {
    "red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1),
    "yellow": (1, 1, 0), "magenta": (1, 0, 1), "cyan": (0, 1, 1),
}  # fmt: skip
PLACES = {
    "top left": (4.5, 4.5), "top right": (11.5, 4.5), "bottom left": (4.5, 11.5), "bottom right": (11.5, 11.5),
}  # fmt: skip
"""Centre (x, y) of each place; the centre of the first pixel is (0.5, 0.5)."""
SIZES = {"small": 2.4, "large": 3.8}
"""Radius in pixels."""

ATTRIBUTES = {"shape": SHAPES, "colour": tuple(COLOURS), "place": tuple(PLACES), "size": tuple(SIZES)}
"""Values of each attribute; an attribute row holds one index for each, in this order."""

GROUND = 0.12
SATURATION = (0.3, 1.0)
GRAIN = (0.0, 0.08)
JITTER = 0.5
TEMPLATE_SATURATIONS = (0.3, 0.65, 1.0)
TEMPLATE_JITTERS = ((0.0, 0.0), (0.3, 0.3), (-0.3, 0.3), (0.3, -0.3), (-0.3, -0.3))
"""Of the templates that a picture is compared with. The shifted ones take parsing errors from 1 in 2000 to 1 in 20000."""

CHROMATIC_PIXELS = 20

_CAPTION = re.compile(
    rf"\s*a\s+({'|'.join(SIZES)})\s+({'|'.join(COLOURS)})\s+({'|'.join(SHAPES)})\s*,\s*({'|'.join(PLACES)})\s*",
    re.IGNORECASE,
)


# -- captions ------------------------------------------------------------------------------------------------


def caption_of(attributes: Sequence[int]) -> str:
    """The caption of an attribute row.

    >>> caption_of((0, 0, 0, 0))
    'a small red circle, top left'
    """
    shape, colour, place, size = (
        values[int(k)] for values, k in zip(ATTRIBUTES.values(), attributes, strict=True)
    )
    return f"a {size} {colour} {shape}, {place}"


def parse_caption(caption: str) -> tuple[int, int, int, int]:
    """The attribute row of a caption.

    >>> parse_caption("a small red circle, top left")
    (0, 0, 0, 0)

    Raises:
        ValueError: not a caption of this world.
    """
    match = _CAPTION.fullmatch(caption)
    if match is None:
        raise ValueError(
            f"not a caption of the picture world: {caption!r}. Needed: size, colour, shape and place, for example "
            f'"a small red circle, top left"; there are {"; ".join(", ".join(v) for v in ATTRIBUTES.values())}'
        )
    size, colour, shape, place = (text.lower() for text in match.groups())
    return (
        SHAPES.index(shape),
        ATTRIBUTES["colour"].index(colour),
        ATTRIBUTES["place"].index(place),
        ATTRIBUTES["size"].index(size),
    )


def split_of(attributes: Sequence[int]) -> Split:
    """Where a caption belongs: one in four is "test", and equally many of every pair of attribute values are."""
    shape, colour, place, size = attributes
    return "test" if (shape + colour + place + 2 * size) % 4 == 3 else "train"


# -- rendering -----------------------------------------------------------------------------------------------


def render(
    attributes_B4: Tensor, saturation_B: Tensor, grain_B: Tensor, jitter_B2: Tensor, noise_BCHW: Tensor
) -> tuple[Tensor, Tensor]:
    """Pictures (B, 3, 16, 16) in [0, 1] and their masks (B, 16, 16), true where the object is.

    Args:
        attributes_B4: indices into the values of `ATTRIBUTES`.
        saturation_B: 1 is the pure colour, 0 its grey.
        grain_B: standard deviation of the white noise.
        jitter_B2: shift (x, y) from the place's centre, in pixels.
        noise_BCHW: standard normal.
    """
    shape_B, colour_B, place_B, size_B = attributes_B4.unbind(1)
    radius_B11 = torch.tensor(list(SIZES.values()))[size_B, None, None]
    centre_B2 = torch.tensor(list(PLACES.values()))[place_B] + jitter_B2
    pixel_H = torch.arange(SIDE) + 0.5
    x_BHW, y_BHW = torch.broadcast_tensors(
        pixel_H - centre_B2[:, 0, None, None], pixel_H[:, None] - centre_B2[:, 1, None, None]
    )
    distances = torch.stack(_inside(x_BHW, y_BHW, radius_B11))
    distance_BHW = distances[shape_B, torch.arange(len(shape_B))]
    cover_BHW = torch.sigmoid(4 * distance_BHW)
    pure_BC = torch.tensor(list(COLOURS.values()), dtype=torch.float32)[colour_B]
    colour_BC = pure_BC.mean(1, keepdim=True).lerp(pure_BC, saturation_B[:, None])
    clean_BCHW = GROUND + cover_BHW[:, None] * (colour_BC[:, :, None, None] - GROUND)
    return (clean_BCHW + grain_B[:, None, None, None] * noise_BCHW).clamp(0, 1), distance_BHW > 0


def _inside(x: Tensor, y: Tensor, r: Tensor) -> tuple[Tensor, ...]:
    """How far inside each shape of `SHAPES` with radius r a point is, in pixels; negative outside."""
    across, down = x.abs(), y.abs()
    base = 0.9 * r  # the triangle's vertices are (0, -r) and (+-r, base)
    triangle = torch.minimum(base - y, (r * (y + r) - (base + r) * across) / torch.hypot(r, base + r))
    arm = 0.28 * r
    cross = torch.maximum(
        torch.minimum(r - across, arm - down),
        torch.minimum(arm - across, r - down),
    )
    return r - torch.hypot(x, y), r - torch.maximum(across, down), triangle, cross


def edges_of(masks_BHW: Tensor) -> Tensor:
    """(B, 16, 16) bool: pixels of the object with a neighbour to a side, above or below that is not of it."""
    padded = torch.nn.functional.pad(masks_BHW, (1, 1, 1, 1))
    inner = padded[:, :-2, 1:-1] & padded[:, 2:, 1:-1] & padded[:, 1:-1, :-2] & padded[:, 1:-1, 2:]
    return masks_BHW & ~inner


def segment(images_BCHW: Tensor) -> Tensor:
    """(B, 16, 16) bool masks from pixels alone, also of pictures that a model made: nearer the object than the ground."""
    contrast_BCN = (images_BCHW - GROUND).flatten(2)
    clearest = contrast_BCN.norm(dim=1, keepdim=True).topk(6).indices
    colour_BC = contrast_BCN.gather(2, clearest.expand(-1, 3, -1)).mean(2)
    along_BN = torch.einsum("bcn,bc->bn", contrast_BCN, colour_BC) / colour_BC.square().sum(1, keepdim=True)
    return along_BN.unflatten(1, images_BCHW.shape[2:]) > 0.5


class Pictures(NamedTuple):
    """Pictures with everything that is known of them.

    Attributes:
        captions: what was asked for.
        attributes_B4: what the picture shows.
        images_BCHW: float32 in [0, 1].
        masks_BHW: bool, the object.
        edges_BHW: bool, the object's outline.
    """

    captions: list[str]
    attributes_B4: Tensor
    images_BCHW: Tensor
    masks_BHW: Tensor
    edges_BHW: Tensor


def draw(captions: Sequence[str], stream: str, mismatch: float) -> Pictures:
    """One picture a caption, each of its attributes replaced by a random value with probability `mismatch`.

    Picture k depends on (`stream`, k, its caption) alone.
    """
    wanted = np.array([parse_caption(c) for c in captions], dtype=np.int64).reshape(-1, 4)
    uniform = np.empty((len(wanted), 12), dtype=np.float32)
    noise = np.empty((len(wanted), 3, SIDE, SIDE), dtype=np.float32)
    key = seed_of(stream)
    for k in range(len(wanted)):
        rng = np.random.default_rng([key, k])
        uniform[k] = rng.random(12, dtype=np.float32)
        noise[k] = rng.standard_normal((3, SIDE, SIDE), dtype=np.float32)
    counts = np.array([len(values) for values in ATTRIBUTES.values()])
    shown = np.where(uniform[:, :4] < mismatch, (uniform[:, 4:8] * counts).astype(np.int64), wanted)
    attributes_B4, u = torch.from_numpy(shown), torch.from_numpy(uniform[:, 8:])
    images_BCHW, masks_BHW = render(
        attributes_B4,
        SATURATION[0] + (SATURATION[1] - SATURATION[0]) * u[:, 0],
        GRAIN[0] + (GRAIN[1] - GRAIN[0]) * u[:, 1],
        JITTER * (2 * u[:, 2:] - 1),
        torch.from_numpy(noise),
    )
    return Pictures(list(captions), attributes_B4, images_BCHW, masks_BHW, edges_of(masks_BHW))


# -- rewards -------------------------------------------------------------------------------------------------


@cache
def _templates() -> tuple[Tensor, Tensor]:
    """(T, 4) attributes and (T, 768) pixels of clean pictures of every kind."""
    every = list(itertools.product(*(range(len(values)) for values in ATTRIBUTES.values())))
    looks = list(itertools.product(TEMPLATE_SATURATIONS, TEMPLATE_JITTERS))
    attributes_T4 = torch.tensor(every).repeat_interleave(len(looks), 0)
    n = len(attributes_T4)
    images, _ = render(
        attributes_T4,
        torch.tensor([saturation for saturation, _ in looks]).repeat(len(every)),
        torch.zeros(n),
        torch.tensor([jitter for _, jitter in looks]).repeat(len(every), 1),
        torch.zeros(n, 3, SIDE, SIDE),
    )
    return attributes_T4, images.flatten(1)


def _distances(images_BCHW: Tensor) -> Tensor:
    """(B, T) squared distances to the templates, less each picture's own squared norm."""
    pixels_T = _templates()[1].to(images_BCHW)
    return pixels_T.square().sum(1) - 2 * images_BCHW.flatten(1) @ pixels_T.T


def read(images_BCHW: Tensor) -> Tensor:
    """(B, 4) attributes of pictures, by the nearest template."""
    with torch.no_grad():
        nearest = [_distances(chunk).argmin(1) for chunk in images_BCHW.split(4096)]
    return _templates()[0].to(images_BCHW.device)[torch.cat(nearest)]


def soft_match(attributes_B4: Tensor, images_BCHW: Tensor) -> Tensor:
    """(B,) in [0, 1], differentiable: mean probability of the four attributes under a softmin of template distances."""
    chunks = zip(attributes_B4.split(4096), images_BCHW.split(4096), strict=True)
    return torch.cat([_soft_match(wanted, images) for wanted, images in chunks])


def _soft_match(attributes_B4: Tensor, images_BCHW: Tensor) -> Tensor:
    attributes_T4 = _templates()[0].to(images_BCHW.device)
    probability_BT = _distances(images_BCHW).neg().softmax(1)
    found = []
    for a, values in enumerate(ATTRIBUTES.values()):
        is_value = torch.nn.functional.one_hot(attributes_T4[:, a], len(values)).to(probability_BT)
        found.append((probability_BT @ is_value).gather(1, attributes_B4[:, a : a + 1]))
    return torch.cat(found, 1).mean(1)


def aesthetic(images_BCHW: Tensor) -> Tensor:
    """(B,) at most 1, differentiable: rewards saturation and punishes grain.

    Mean of (largest - smallest channel) over the 20 pixels where it is largest, minus twice the median absolute
    Laplacian over inner pixels and channels.
    """
    chroma = (images_BCHW.amax(1) - images_BCHW.amin(1)).flatten(1)
    inner = images_BCHW[..., 1:-1, 1:-1]
    sides = images_BCHW[..., 1:-1, :-2] + images_BCHW[..., 1:-1, 2:]
    laplacian = sides + images_BCHW[..., :-2, 1:-1] + images_BCHW[..., 2:, 1:-1] - 4 * inner
    return chroma.topk(CHROMATIC_PIXELS, 1).values.mean(1) - 2 * laplacian.abs().flatten(1).median(1).values
