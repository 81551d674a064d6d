"""The mirror image of a motion and of its caption: left and right change places.

Legend: F frames, J joints, D features; leading axes are kept.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from prefopt.motion.codec import Codec
from prefopt.motion.humanml3d import JointCodec
from prefopt.motion.skeleton import Skeleton

SIDES = {"left": "right", "right": "left"}
WORDS = re.compile(
    r"\b(?:(?P<side>left|right)(?=(?:s|ward|wards|most|y|hand|handed|side|sided|foot|footed)?\b)"
    r"|(?P<against>counter[- ]?clockwise|anti[- ]?clockwise)\b|(?P<clockwise>clockwise)\b)",
    re.IGNORECASE,
)


def mirrored_positions(positions_FJ3: Tensor, skeleton: Skeleton) -> Tensor:
    """(..., J, 3) the figure in a mirror at x = 0, its joints named by their new side.

    Raises:
        ValueError: another number of joints.
    """
    if positions_FJ3.shape[-2:] != (len(skeleton), 3):
        raise ValueError(
            f"positions of shape {tuple(positions_FJ3.shape)}; the skeleton {skeleton.name!r} needs "
            f"(frames, {len(skeleton)}, 3)"
        )
    return positions_FJ3[..., list(skeleton.mirrored), :] * positions_FJ3.new_tensor([-1.0, 1.0, 1.0])


def mirrored(features_FD: Tensor, codec: Codec) -> Tensor:
    """(..., F, D) features of the mirrored motion, in physical units.

    With HumanML3D's and KIT's codecs every feature is exactly one of the motion's own or its negative, and frames behind the end
    of a padded motion stay 0. Others decode, mirror and encode.

    Raises:
        ValueError: another width.
    """
    if features_FD.shape[-1] != codec.width:
        raise ValueError(
            f"{features_FD.shape[-1]} features for the codec {codec.name!r}, which has {codec.width}"
        )
    if isinstance(codec, JointCodec):
        place_D, sign_D = _signed_places(codec)
        return features_FD[..., place_D.to(features_FD.device)] * sign_D.to(features_FD)
    return codec.features(mirrored_positions(codec.positions(features_FD), codec.skeleton))


def _signed_places(codec: JointCodec) -> tuple[Tensor, Tensor]:
    """(D) where each feature's mirror image stands, and (D) its sign."""
    other = list(codec.skeleton.mirrored)
    of_3 = torch.tensor([-1.0, 1.0, 1.0])
    # a mirrored matrix is M R M with M = diag(-1, 1, 1); these are its first two columns
    of_6 = torch.tensor([1.0, -1.0, -1.0, -1.0, 1.0, 1.0])
    place_D, sign_D = torch.arange(codec.width), torch.ones(codec.width)
    blocks = codec.blocks
    sign_D[blocks["turn"]], sign_D[blocks["walk"].start] = -1, -1
    behind_root = [joint - 1 for joint in other[1:]]
    for name, per, joints, signs in (
        ("places", 3, behind_root, of_3),
        ("turns", 6, behind_root, of_6),
        ("speeds", 3, other, of_3),
    ):
        place_D[blocks[name]] = place_D[blocks[name]].unflatten(0, (-1, per))[joints].flatten()
        sign_D[blocks[name]] = signs.repeat(len(joints))
    feet = list(codec.skeleton.feet)
    place_D[blocks["contacts"]] = place_D[blocks["contacts"]][[feet.index(other[foot]) for foot in feet]]
    return place_D, sign_D


def mirrored_caption(text: str) -> str:
    """The caption with the words of sides and of turning exchanged, wherever they stand, as HumanML3D's mirrored captions are.

    "right" is always taken for a side, also where it means something else ("right away").

    Example:
        >>> mirrored_caption("Left foot first, he turns clockwise to the right.")
        'Right foot first, he turns counterclockwise to the left.'
        >>> mirrored_caption("anti-clockwise, standing upright")
        'clockwise, standing upright'
    """
    return WORDS.sub(_exchanged, text)


def _exchanged(match: re.Match[str]) -> str:
    word = match.group()
    new = SIDES[word.lower()] if match["side"] else "clockwise" if match["against"] else "counterclockwise"
    if word.isupper():
        return new.upper()
    return new.capitalize() if word[0].isupper() else new
