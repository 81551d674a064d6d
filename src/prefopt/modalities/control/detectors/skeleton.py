"""Poses drawn as OpenPose draws them: 18 keypoints, 17 limbs, a hue each.

Legend: N people, K = 17 keypoints in COCO's order, J = 18 in OpenPose's, H W in pixels.
"""

from __future__ import annotations

import colorsys
import math

import torch
from torch import Tensor

OPENPOSE = (0, None, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
"""Place of each OpenPose keypoint among COCO's; the neck is none of them."""
NECK, SHOULDERS = 1, (5, 6)
LIMBS = (
    *((1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7)),  # shoulders and arms, right first
    *((1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13)),  # legs
    *((1, 0), (0, 14), (14, 16), (0, 15), (15, 17)),  # head
)
COLOURS = tuple(
    tuple(round(255 * level) for level in colorsys.hsv_to_rgb(n / 18, 1, 1)) for n in range(len(OPENPOSE))
)
LIMB_LIGHT = 0.6
"""Limbs are darker than keypoints by this factor."""
WIDTH_AT_512 = 4
"""Half the width of a limb, and the radius of a keypoint, in a picture of 512 pixels."""


def openpose_keypoints(people_NK3: Tensor) -> Tensor:
    """(N, 18, 3) of (N, 17, 3) COCO keypoints: the neck is the mean of both shoulders, and there where both are.

    Example:
        >>> person = torch.ones(1, 17, 3)
        >>> person[0, 5, :2] = 3
        >>> openpose_keypoints(person)[0, 1].tolist()
        [2.0, 2.0, 1.0]
    """
    left_N3, right_N3 = (people_NK3[:, place] for place in SHOULDERS)
    both_N1 = ((left_N3[:, 2:] > 0) & (right_N3[:, 2:] > 0)).to(people_NK3.dtype)
    sure_N1 = torch.minimum(left_N3[:, 2:], right_N3[:, 2:])
    neck_N3 = torch.cat([(left_N3[:, :2] + right_N3[:, :2]) / 2, sure_N1], -1) * both_N1
    columns = [neck_N3 if place is None else people_NK3[:, place] for place in OPENPOSE]
    return torch.stack(columns, 1)


def draw_people(people_NK3: Tensor, size: tuple[int, int]) -> Tensor:
    """(3, H, W) in [0, 1]: people on black.

    Args:
        people_NK3: x and y in pixels, and more than 0 where the keypoint is there.
        size: (height, width).
    """
    import numpy as np
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", size[::-1])
    brush = ImageDraw.Draw(picture)
    radius = max(1.0, WIDTH_AT_512 * min(size) / 512)
    points_NJ3 = openpose_keypoints(people_NK3.detach().cpu().double()).tolist()
    for person in points_NJ3:
        for (start, end), colour in zip(LIMBS, COLOURS, strict=False):
            if person[start][2] > 0 and person[end][2] > 0:
                shade = tuple(int(LIMB_LIGHT * level) for level in colour)
                brush.polygon(_ellipse(person[start], person[end], radius), fill=shade)
    for person in points_NJ3:
        for (x, y, sure), colour in zip(person, COLOURS, strict=True):
            if sure > 0:
                brush.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    return torch.from_numpy(np.array(picture, dtype=np.float32).transpose(2, 0, 1) / 255)


def _ellipse(start: list[float], end: list[float], half_width: float) -> list[tuple[float, float]]:
    """Outline of an ellipse from one keypoint to the other."""
    middle_x, middle_y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
    half_length = math.hypot(end[0] - start[0], end[1] - start[1]) / 2
    angle = math.atan2(end[1] - start[1], end[0] - start[0])
    cos, sin = math.cos(angle), math.sin(angle)
    outline = []
    for n in range(36):
        along = half_length * math.cos(math.radians(10 * n))
        across = half_width * math.sin(math.radians(10 * n))
        outline.append((middle_x + along * cos - across * sin, middle_y + along * sin + across * cos))
    return outline
