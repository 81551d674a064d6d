"""Other figures' joints brought to HumanML3D's 22, by their names, and lengths to metres.

Names are compared without case, punctuation and prefixes ("mixamorig:LeftUpLeg", "Bip01 L Thigh", "l_thigh"), with the
tables of usual rigs below; the one that leaves the fewest joints without a partner is taken. Only names count: the figure
keeps its own proportions (`kinematics.to_reference` gives it others), and nothing is turned.

Legend: F frames, J joints.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from prefopt.motion.arrays import MotionFileError
from prefopt.motion.bvh import BvhMotion
from prefopt.motion.humanml3d import HUMANML3D
from prefopt.motion.kinematics import ADULT_J3, bones

JOINTS = HUMANML3D.skeleton.joints
PREFIXES = re.compile(r"^(mixamorig\d*|bip0*1|[mf]avg|character\d*|root(?=.))")
LONG, SHORT = ("left", "right"), ("l", "r")

# what stands for a joint, the first that is there: "a+b" is midway between two, "a/tip" the End Site of a
Rig = dict[str, tuple[str, ...]]
_LEGS_OF_MAYA = {
    **{"hip": ("{}upleg", "{}upperleg"), "knee": ("{}leg", "{}lowerleg")},
    **{"ankle": ("{}foot",), "foot": ("{}toebase", "{}toe", "{}toes", "{}foot/tip")},
}
_ARMS_OF_MAYA = {
    **{"collar": ("{}shoulder", "{}collar"), "shoulder": ("{}arm", "{}upperarm")},
    **{"elbow": ("{}forearm", "{}lowerarm"), "wrist": ("{}hand",)},
}
_HEAD = {"neck": ("neck", "neck1"), "head": ("head", "neck/tip")}
RIGS: dict[str, tuple[tuple[str, str], Rig]] = {
    "CMU": (
        LONG,
        {
            **{"pelvis": ("hips",), "spine1": ("lowerback",), "spine2": ("spine",), "spine3": ("spine1",)},
            **_HEAD,
            **_LEGS_OF_MAYA,
            **_ARMS_OF_MAYA,
        },
    ),
    "Mixamo, LAFAN1, Rokoko": (
        LONG,
        {
            **{"pelvis": ("hips",), "spine1": ("spine",), "spine2": ("spine1", "spine+neck")},
            **{"spine3": ("spine2", "spine3", "chest", "spine1+neck"), **_HEAD},
            **_LEGS_OF_MAYA,
            **_ARMS_OF_MAYA,
        },
    ),
    "Daz, Poser": (
        SHORT,
        {
            **{"pelvis": ("hip", "pelvis"), "spine1": ("abdomen",), "spine2": ("abdomen2", "abdomen+chest")},
            **{"spine3": ("chest",), **_HEAD},
            **{"hip": ("{}thigh",), "knee": ("{}shin",), "ankle": ("{}foot",), "foot": ("{}toe", "{}foot/tip")},
            **{"collar": ("{}collar",), "shoulder": ("{}shldr",), "elbow": ("{}forearm",), "wrist": ("{}hand",)},
        },
    ),
    "3ds Max Biped, Truebones": (
        SHORT,
        {
            **{"pelvis": ("pelvis",), "spine1": ("spine",), "spine2": ("spine1", "spine+neck")},
            **{"spine3": ("spine2", "spine1+neck"), **_HEAD},
            **{"hip": ("{}thigh",), "knee": ("{}calf",), "ankle": ("{}foot",), "foot": ("{}toe0", "{}foot/tip")},
            **{"collar": ("{}clavicle",), "shoulder": ("{}upperarm",)},
            **{"elbow": ("{}forearm",), "wrist": ("{}hand",)},
        },
    ),
    "Unreal": (
        SHORT,
        {
            **{"pelvis": ("pelvis",), "spine1": ("spine01",), "spine2": ("spine02",), "spine3": ("spine03",)},
            **{"neck": ("neck01",), "head": ("head",)},
            **{"hip": ("thigh{}",), "knee": ("calf{}",), "ankle": ("foot{}",), "foot": ("ball{}", "foot{}/tip")},
            **{"collar": ("clavicle{}",), "shoulder": ("upperarm{}",)},
            **{"elbow": ("lowerarm{}",), "wrist": ("hand{}",)},
        },
    ),
    **{
        f"SMPL ({sides[0]})": (
            sides,
            {
                **{joint: (joint,) for joint in ("pelvis", "spine1", "spine2", "spine3", "neck", "head")},
                **{
                    part: ("{}" + part,)
                    for part in ("hip", "knee", "ankle", "collar", "shoulder", "elbow", "wrist")
                },
                "foot": ("{}foot", "{}toe"),
            },
        )
        for sides in (SHORT, LONG)
    },
    "Biovision": (
        LONG,
        {
            **{"pelvis": ("hips",), "spine1": ("chest", "chest1"), "spine2": ("chest2", "chest+neck")},
            **{"spine3": ("chest3", "chest4", "chest2+neck", "chest+neck"), **_HEAD},
            **{"hip": ("{}hip",), "knee": ("{}knee",), "ankle": ("{}ankle",), "foot": ("{}toe", "{}ankle/tip")},
            **{"collar": ("{}collar",), "shoulder": ("{}shoulder",)},
            **{"elbow": ("{}elbow",), "wrist": ("{}wrist",)},
        },
    ),
}  # fmt: skip


def retarget(
    motion: BvhMotion,
    mapping: Mapping[str, str] | Path | None = None,
    *,
    unit: float | None = None,
    up: Literal["y", "z"] | None = None,
    name: str = "the motion",
) -> Tensor:
    """(F, 22, 3) positions of HumanML3D's joints in metres, y upwards; float64, at the motion's own rate.

    Args:
        motion: of any figure.
        mapping: what stands for joints that the tables do not find, or find wrongly: {"l_hip": "LeftThigh"}, or the path of a
            JSON file of such; "A+B" is midway between two joints, "A/tip" the End Site of one.
        unit: metres of a unit of the motion's lengths; None: such that a leg, hip to ankle, is as long as that of
            `ADULT_J3`, 0.80 m.
        up: the axis that points upwards; None: y, and an error where the figure's height is rather along z.
        name: of the file, for messages.

    Raises:
        MotionFileError: joints without a partner; lists them, and the names there are ("unknown_joints").
        ValueError: a mapping that names joints that are not there; a unit of 0 or below; height along z.
    """
    partners = find_partners(motion, mapping, name)
    x_FJ3 = torch.stack([_place(motion, partners[joint]) for joint in JOINTS], 1)
    if up == "z":
        x_FJ3 = z_up_to_y_up(x_FJ3)
    elif up is None:
        ankles_F3 = x_FJ3[:, [JOINTS.index("l_ankle"), JOINTS.index("r_ankle")]].mean(1)
        height_3 = (x_FJ3[:, JOINTS.index("head")] - ankles_F3).mean(0).abs()
        if height_3[2] > 1.5 * height_3[1]:
            raise ValueError(
                f"{name}: the figure is {float(height_3[2]):.3g} high along z and {float(height_3[1]):.3g} along y: say which "
                'axis points upwards, up="z" or up="y"'
            )
    if unit is None:
        leg = [JOINTS.index(joint) for joint in ("l_knee", "r_knee", "l_ankle", "r_ankle")]
        parents = HUMANML3D.skeleton.parents
        own = bones(parents, x_FJ3)[:, leg].norm(dim=-1).mean(0).sum()
        if not own > 0:
            raise ValueError(f"{name}: its legs have length 0; give the metres of a unit, unit=...")
        unit = float(ADULT_J3[leg].norm(dim=-1).sum() / own)
    if not unit > 0:
        raise ValueError(f"unit={unit}; needed the metres of a unit, above 0")
    return x_FJ3 * unit


def z_up_to_y_up(x_3: Tensor) -> Tensor:
    """(..., 3) the same seen with y upwards, turned as HumanML3D turns AMASS: x, y, z become -x, z, y."""
    return torch.stack([-x_3[..., 0], x_3[..., 2], x_3[..., 1]], -1)


def find_partners(
    motion: BvhMotion, mapping: Mapping[str, str] | Path | None = None, name: str = "the motion"
) -> dict[str, str]:
    """What stands for each of the 22 joints, in the motion's own names; see `retarget`."""
    given = _given(mapping, motion)
    known = {_plain(joint): joint for joint in reversed(motion.joints)}
    tips = {_plain(joint) for joint in motion.tips}
    found = {rig: _partners(sides, table, known, tips) for rig, (sides, table) in RIGS.items()}
    rig = max(found, key=lambda rig: len(found[rig]))
    partners = {**found[rig], **given}
    if missing := [joint for joint in JOINTS if joint not in partners]:
        raise MotionFileError(
            f"{name}: no joint is known to stand for {', '.join(missing)} (nearest names: {rig}). There are: "
            f"{', '.join(motion.joints)}. Say which they are: {{{missing[0]!r}: NAME, ...}}",
            "unknown_joints",
        )
    return partners


def _partners(sides: tuple[str, str], table: Rig, known: Mapping[str, str], tips: set[str]) -> dict[str, str]:
    out = {}
    for joint in JOINTS:
        side, _, part = joint.rpartition("_")
        for choice in table[part]:
            words = choice.format(sides[side == "r"]).split("+")
            if all(w.removesuffix("/tip") in (tips if w.endswith("/tip") else known) for w in words):
                out[joint] = "+".join(
                    known[w.removesuffix("/tip")] + "/tip" * w.endswith("/tip") for w in words
                )
                break
    return out


def _given(mapping: Mapping[str, str] | Path | None, motion: BvhMotion) -> dict[str, str]:
    """The user's own partners, checked."""
    if mapping is None:
        return {}
    where = "the mapping of joints"
    if isinstance(mapping, Path):
        where = str(mapping)
        try:
            mapping = json.loads(mapping.read_text("utf-8-sig"))
        except (ValueError, OSError) as error:
            raise ValueError(f"{where}: not a readable JSON object of joints and names ({error})") from None
    if not isinstance(mapping, Mapping):
        raise ValueError(f"{where} is a {type(mapping).__name__}; needed {{'l_hip': 'LeftUpLeg', ...}}")
    for joint, value in mapping.items():
        if joint not in JOINTS:
            raise ValueError(f"{where}: unknown joint {joint!r}; there are: {', '.join(JOINTS)}")
        for word in str(value).split("+"):
            named = motion.tips if word.endswith("/tip") else motion.joints
            if word.removesuffix("/tip") not in named:
                raise ValueError(
                    f"{where}: {joint!r} is to be {value!r}, and {word!r} is not there; "
                    f"there are: {', '.join(named)}"
                )
    return {joint: str(value) for joint, value in mapping.items()}


def _place(motion: BvhMotion, partner: str) -> Tensor:
    """(F, 3) where a partner is."""
    places: Sequence[Tensor] = [
        motion.tips[word.removesuffix("/tip")]
        if word.endswith("/tip")
        else motion.positions_FJ3[:, motion.joints.index(word)]
        for word in partner.split("+")
    ]
    return torch.stack(list(places)).mean(0)


def _plain(name: str) -> str:
    """A name without what rigs put around it."""
    word = re.sub(r"[^a-z0-9]", "", re.split(r"[:|]", name)[-1].lower())
    return PREFIXES.sub("", word) or word
