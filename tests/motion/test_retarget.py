"""Figures of usual rigs brought to HumanML3D's joints."""

import json
from pathlib import Path

import pytest
import torch

from prefopt.motion.arrays import MotionFileError
from prefopt.motion.bvh import BvhMotion
from prefopt.motion.humanml3d import HUMANML3D
from prefopt.motion.retarget import JOINTS, find_partners, retarget
from walking_figures import wander

SIDED = ["hip", "knee", "ankle", "foot", "collar", "shoulder", "elbow", "wrist"]


def rig(spine: str, limbs: str, sides: tuple[str, str]) -> dict[str, str]:
    """Names of the 22 joints; `spine` is pelvis, three of the spine, neck, head; "{}" stands for the side."""
    names = dict(zip(["pelvis", "spine1", "spine2", "spine3", "neck", "head"], spine.split(), strict=True))
    for part, name in zip(SIDED, limbs.split(), strict=True):
        names |= {"l_" + part: name.format(sides[0]), "r_" + part: name.format(sides[1])}
    return {joint: name.replace("~", " ") for joint, name in names.items()}


MAYA = "{}UpLeg {}Leg {}Foot {}ToeBase {}Shoulder {}Arm {}ForeArm {}Hand"
RIGS = {
    "ours": {joint: joint for joint in JOINTS},
    "mixamo": rig(
        "mixamorig:Hips mixamorig:Spine mixamorig:Spine1 mixamorig:Spine2 mixamorig:Neck mixamorig:Head",
        " ".join("mixamorig:" + name for name in MAYA.split()),
        ("Left", "Right"),
    ),
    "lafan1": rig("Hips Spine Spine1 Spine2 Neck Head", MAYA.replace("ToeBase", "Toe"), ("Left", "Right")),
    "cmu": rig("Hips LowerBack Spine Spine1 Neck Head", MAYA, ("Left", "Right")),
    "biped": rig(
        "Bip01~Pelvis Bip01~Spine Bip01~Spine1 Bip01~Spine2 Bip01~Neck Bip01~Head",
        "Bip01~{0}~Thigh Bip01~{0}~Calf Bip01~{0}~Foot Bip01~{0}~Toe0 "
        "Bip01~{0}~Clavicle Bip01~{0}~UpperArm Bip01~{0}~Forearm Bip01~{0}~Hand",
        ("L", "R"),
    ),
    "smpl": rig(
        "m_avg_Pelvis m_avg_Spine1 m_avg_Spine2 m_avg_Spine3 m_avg_Neck m_avg_Head",
        "m_avg_{}_Hip m_avg_{}_Knee m_avg_{}_Ankle m_avg_{}_Foot "
        "m_avg_{}_Collar m_avg_{}_Shoulder m_avg_{}_Elbow m_avg_{}_Wrist",
        ("L", "R"),
    ),
    "smplx": rig(
        "pelvis spine1 spine2 spine3 neck head",
        "{}_hip {}_knee {}_ankle {}_foot {}_collar {}_shoulder {}_elbow {}_wrist",
        ("left", "right"),
    ),
    "unreal": rig(
        "pelvis spine_01 spine_02 spine_03 neck_01 head",
        "thigh_{} calf_{} foot_{} ball_{} clavicle_{} upperarm_{} lowerarm_{} hand_{}",
        ("l", "r"),
    ),
    "biovision": rig(
        "Hips Chest Chest2 Chest3 Neck Head",
        "{}Hip {}Knee {}Ankle {}Toe {}Collar {}Shoulder {}Elbow {}Wrist",
        ("Left", "Right"),
    ),
}


def figure(names: dict[str, str], x: torch.Tensor, without: tuple[str, ...] = ()) -> BvhMotion:
    """The 22 joints under other names, in another order, with fingers that nobody asked for."""
    order = [n for n in range(21, -1, -1) if JOINTS[n] not in without]
    joints = tuple(names[JOINTS[n]] for n in order)
    positions = torch.cat([x[:, order], torch.full((len(x), 1, 3), 99.0)], 1)
    tips = {names[joint]: x[:, JOINTS.index(joint)] + 1 for joint in ("l_ankle", "r_ankle")}
    return BvhMotion((*joints, "Finger"), (), torch.zeros(0), positions, 30.0, tips)


@pytest.mark.parametrize("name", RIGS)
def test_joints_of_usual_rigs_are_found(name: str) -> None:
    x = wander(4)
    out = retarget(figure(RIGS[name], x), unit=1.0)
    torch.testing.assert_close(out, x)


def test_daz_has_two_joints_of_the_spine_and_no_toes() -> None:
    names = rig(
        "hip abdomen none chest neck head",
        "{}Thigh {}Shin {}Foot none{} {}Collar {}Shldr {}ForeArm {}Hand",
        ("l", "r"),
    )
    x = wander(4)
    out = retarget(figure(names, x, without=("spine2", "l_foot", "r_foot")), unit=1.0)
    between = {"spine2": (x[:, 3] + x[:, 9]) / 2, "l_foot": x[:, 7] + 1, "r_foot": x[:, 8] + 1}
    for n, joint in enumerate(JOINTS):
        torch.testing.assert_close(out[:, n], between.get(joint, x[:, n]))


def test_shoulders_are_collars_or_arms_as_the_other_names_say() -> None:
    assert find_partners(figure(RIGS["mixamo"], wander(2)))["l_collar"] == "mixamorig:LeftShoulder"
    assert find_partners(figure(RIGS["biovision"], wander(2)))["l_shoulder"] == "LeftShoulder"


def test_of_two_names_that_differ_in_punctuation_the_first_counts() -> None:
    names = {**RIGS["lafan1"], "r_wrist": "left_hand"}
    motion = figure(
        names, wander(2)
    )  # the right wrist, which stands first, is called almost like the left one
    with pytest.raises(MotionFileError, match="stand for r_wrist"):
        retarget(motion)
    assert find_partners(motion, {"r_wrist": "left_hand"})["l_wrist"] == "left_hand"


def test_missing_joints_and_those_there_are_are_listed() -> None:
    names = {**RIGS["mixamo"], "l_wrist": "Paw"}
    with pytest.raises(MotionFileError) as error:
        retarget(figure(names, wander(2)), name="cat.bvh")
    assert error.value.reason == "unknown_joints"
    said = str(error.value)
    assert said.startswith("cat.bvh: no joint is known to stand for l_wrist (nearest names: Mixamo")
    assert "Paw" in said
    assert "{'l_wrist': NAME, ...}" in said


def test_a_mapping_fills_and_overrules(tmp_path: Path) -> None:
    names, x = {**RIGS["mixamo"], "l_wrist": "Paw"}, wander(3)
    motion = figure(names, x)
    mapping = {"l_wrist": "Paw", "head": "Paw+mixamorig:Neck", "l_foot": "mixamorig:LeftFoot/tip"}
    out = retarget(motion, mapping, unit=1.0)
    torch.testing.assert_close(out[:, 20], x[:, 20])
    torch.testing.assert_close(out[:, 15], (x[:, 20] + x[:, 12]) / 2)
    torch.testing.assert_close(out[:, 10], x[:, 7] + 1)
    (tmp_path / "map.json").write_text(json.dumps(mapping))
    torch.testing.assert_close(retarget(motion, tmp_path / "map.json", unit=1.0), out)


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        ({"l_paw": "Paw"}, "unknown joint 'l_paw'; there are: pelvis"),
        ({"l_wrist": "Claw"}, "'l_wrist' is to be 'Claw', and 'Claw' is not there"),
        ({"l_wrist": "Finger/tip"}, "'Finger/tip' is not there; there are: mixamorig:LeftFoot"),
        (["l_wrist"], "is a list; needed"),
    ],
)
def test_mappings_that_do_not_fit(mapping, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        retarget(figure(RIGS["mixamo"], wander(2)), mapping)


def test_mapping_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text("{")
    for name in ("map.json", "none.json"):
        with pytest.raises(ValueError, match=f"{name}: not a readable JSON object"):
            retarget(figure(RIGS["mixamo"], wander(2)), tmp_path / name)


def test_lengths_are_those_of_the_unit_or_of_an_adults_leg() -> None:
    x = wander(3)  # the adult's own bones
    inches = figure(RIGS["cmu"], x / 0.0254)
    torch.testing.assert_close(retarget(inches, unit=0.0254), x)
    torch.testing.assert_close(retarget(inches), x)
    with pytest.raises(ValueError, match="unit=0"):
        retarget(inches, unit=0.0)
    with pytest.raises(ValueError, match="its legs have length 0"):
        retarget(figure(RIGS["cmu"], x * 0))


def test_z_upwards_is_asked_for_and_turned() -> None:
    x = wander(5)
    z_up = torch.stack([-x[..., 0], x[..., 2], x[..., 1]], -1)
    motion = figure(RIGS["cmu"], z_up)
    with pytest.raises(ValueError, match=r"high along z .* up=\"z\" or up=\"y\""):
        retarget(motion)
    torch.testing.assert_close(retarget(motion, up="z"), x)
    torch.testing.assert_close(retarget(motion, up="y"), z_up)
    assert HUMANML3D.features(retarget(motion, up="z")).isfinite().all()
