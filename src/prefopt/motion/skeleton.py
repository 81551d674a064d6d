"""Joints of a figure: their names, which hangs on which, and which is whose mirror image."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Skeleton:
    """A tree of joints.

    Attributes:
        name: of the skeleton.
        joints: names, the root first; a joint stands behind the one that it hangs on.
        parents: index of the joint that each hangs on; -1 for the root.
        chains: bones in rows, as they are drawn and solved: each begins at the root or at a joint of an earlier chain.
        feet: joints whose contact with the floor is a feature: left ankle, left toe, right ankle, right toe, or left and right foot.
    """

    name: str
    joints: tuple[str, ...]
    parents: tuple[int, ...]
    chains: tuple[tuple[int, ...], ...]
    feet: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.joints) != len(self.parents) or self.parents[0] != -1:
            raise ValueError(
                f"skeleton {self.name}: {len(self.joints)} joints and parents {self.parents}; needed one parent a joint, -1 first"
            )
        if any(not 0 <= parent < n for n, parent in enumerate(self.parents[1:], 1)):
            raise ValueError(
                f"skeleton {self.name}: parents {self.parents}; each must stand before its child"
            )

    def __len__(self) -> int:
        return len(self.joints)

    @property
    def mirrored(self) -> tuple[int, ...]:
        """Index of each joint's mirror image, by its name: l_knee of r_knee, others their own."""
        place = {name: n for n, name in enumerate(self.joints)}
        return tuple(place[_other_side(name)] for name in self.joints)


def _other_side(name: str) -> str:
    """The name of the joint on the other side."""
    if name[:2] in ("l_", "r_"):
        return ("r_" if name[0] == "l" else "l_") + name[2:]
    return name


def from_chains(
    name: str, joints: tuple[str, ...], chains: tuple[tuple[int, ...], ...], feet: tuple[int, ...]
) -> Skeleton:
    """A skeleton whose parents follow from its chains."""
    parents = [-1] * len(joints)
    for chain in chains:
        for parent, child in pairwise(chain):
            parents[child] = parent
    return Skeleton(name, joints, tuple(parents), chains, feet)


HUMANML3D = from_chains(
    "humanml3d",
    (
        *("pelvis", "l_hip", "r_hip", "spine1", "l_knee", "r_knee", "spine2", "l_ankle", "r_ankle", "spine3"),
        *("l_foot", "r_foot", "neck", "l_collar", "r_collar", "head", "l_shoulder", "r_shoulder"),
        *("l_elbow", "r_elbow", "l_wrist", "r_wrist"),
    ),
    ((0, 2, 5, 8, 11), (0, 1, 4, 7, 10), (0, 3, 6, 9, 12, 15), (9, 14, 17, 19, 21), (9, 13, 16, 18, 20)),
    (7, 10, 8, 11),
)
"""The 22 joints of SMPL's body, as HumanML3D has them (arXiv 2204.14109)."""

KIT = from_chains(
    "kit",
    (
        *("pelvis", "spine1", "spine3", "neck", "head", "l_shoulder", "l_elbow", "l_wrist"),
        *("r_shoulder", "r_elbow", "r_wrist", "l_hip", "l_knee", "l_ankle", "l_heel", "l_foot"),
        *("r_hip", "r_knee", "r_ankle", "r_heel", "r_foot"),
    ),
    ((0, 11, 12, 13, 14, 15), (0, 16, 17, 18, 19, 20), (0, 1, 2, 3, 4), (3, 5, 6, 7), (3, 8, 9, 10)),
    (19, 20, 14, 15),
)
"""The 21 joints of KIT-ML (arXiv 1607.03827), left and right as in its source, the Master Motor Map, and so as in the
captions. The script that made text-to-motion's files of it took left for right: what it turned to +Z has its left at negative x."""

STICK = from_chains(
    "stick",
    (
        *("pelvis", "neck", "head", "l_knee", "l_foot", "r_knee", "r_foot"),
        *("l_elbow", "l_hand", "r_elbow", "r_hand"),
    ),
    ((0, 1, 2), (0, 3, 4), (0, 5, 6), (1, 7, 8), (1, 9, 10)),
    (4, 6),
)
"""The 11 joints of the motion world's figure."""

SKELETONS = {skeleton.name: skeleton for skeleton in (HUMANML3D, KIT, STICK)}
"""By name, which is that of the codec of their features, too."""
