"""BVH files: read against scipy's rotations, written and read again, and every fault."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from prefopt.motion.arrays import MotionFileError
from prefopt.motion.bvh import BvhMotion, read_bvh
from prefopt.motion.bvh_writing import write_bvh
from prefopt.motion.humanml3d import HUMANML3D, KIT
from prefopt.motion.kinematics import bones
from prefopt.motion.skeleton import Skeleton
from walking_figures import smooth, wander

ARM = """HIERARCHY
ROOT Hips
{
\tOFFSET 1.0 2.0 3.0
\tCHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
\tJOINT Left Arm
\t{
\t\tOFFSET 0 1 0
\t\tCHANNELS 3 Yrotation Xrotation Zrotation
\t\tJOINT Hand {
\t\t\tOFFSET 1 0 0
\t\t\tCHANNELS 2 xrotation YPOSITION
\t\t\tEnd Site
\t\t\t{
\t\t\t\tOFFSET 0 0 2
\t\t\t}
\t\t}
\t}
}
MOTION
Frames: 2
Frame Time: 0.0333333
0 1 0 0 0 0 0 0 0 0 0
4 5 6 10 20 30 40 50 60 70 0.5
"""


def written(path: Path, text: str, encoding: str = "utf-8") -> Path:
    (path / "x.bvh").write_bytes(text.encode(encoding))
    return path / "x.bvh"


def test_positions_are_those_of_the_chain_of_turns(tmp_path: Path) -> None:
    motion = read_bvh(written(tmp_path, ARM))
    assert motion.joints == ("Hips", "Left Arm", "Hand")
    assert motion.parents == (-1, 0, 1)
    assert motion.fps == 30
    assert motion.offsets_J3.tolist() == [[1, 2, 3], [0, 1, 0], [1, 0, 0]]
    hips = Rotation.from_euler("ZXY", [10, 20, 30], degrees=True)
    arm = hips * Rotation.from_euler("YXZ", [40, 50, 60], degrees=True)
    hand = arm * Rotation.from_euler("X", 70, degrees=True)
    root = np.array([4, 5, 6.0])  # channels stand in the place of the offset
    shoulder = root + hips.apply([0, 1, 0])
    wrist = shoulder + arm.apply([1, 0.5, 0])  # of x and z the offset stays
    expected = [root, shoulder, wrist]
    np.testing.assert_allclose(motion.positions_FJ3[1].numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(motion.tips["Hand"][1].numpy(), wrist + hand.apply([0, 0, 2]), atol=1e-12)
    np.testing.assert_allclose(motion.positions_FJ3[0].numpy(), [[0, 1, 0], [0, 2, 0], [1, 2, 0]])


@pytest.mark.parametrize("change", ["\r\n", "bom", "spaces", "one line", "latin"])
def test_usual_ways_of_writing(tmp_path: Path, change: str) -> None:
    text, encoding = ARM, "utf-8"
    if change == "\r\n":
        text = ARM.replace("\n", "\r\n")
    elif change == "bom":
        encoding = "utf-8-sig"
    elif change == "spaces":
        text = ARM.replace("\t", "    ").replace("Frames: 2", "Frames:\t2 ").replace("\n", " \n\n")
    elif change == "one line":
        head, motion = ARM.split("0.0333333\n")
        text = head + "0.0333333\n" + motion.replace("\n", " ")
    elif change == "latin":
        text, encoding = ARM.replace("Hand", "Händ"), "latin-1"
    motion = read_bvh(written(tmp_path, text, encoding))
    plain = read_bvh(written(tmp_path, ARM))
    assert torch.equal(motion.positions_FJ3, plain.positions_FJ3)


@pytest.mark.parametrize(
    ("frame_time", "fps"),
    [("0.0083333", 120), ("0.05", 20), ("0.08", 12.5), ("0.033366700", 29.97), ("7.0", 1 / 7)],
)
def test_frames_a_second(tmp_path: Path, frame_time: str, fps: float) -> None:
    motion = read_bvh(written(tmp_path, ARM.replace("0.0333333", frame_time)))
    assert motion.fps == pytest.approx(fps, rel=1e-6)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("HIERARCHY", "SKELETON", r"line 1: 'SKELETON'; a BVH file begins with HIERARCHY"),
        (ARM, "", "a BVH file begins with HIERARCHY"),
        (ARM, "HIERARCHY", "line 1: the file ends before MOTION"),
        ("CHANNELS 6 X", "CHANNELS 5 X", "line 5: CHANNELS declares 5 and names 6"),
        ("CHANNELS 3 Yrotation Xrotation Zrotation", "CHANNELS", "line 9: CHANNELS declares 0 and names 0"),
        ("CHANNELS 3 Y", "CHANNELS x Y", "line 9: CHANNELS declares x and names 3"),
        ("Yrotation Xr", "Wrotation Xr", "unknown channel 'Wrotation'"),
        ("Yrotation Xr", "Xrotation Xr", "a channel is named twice"),
        ("\tOFFSET 1.0 2.0 3.0\n", "", "joint 'Hips' has no OFFSET"),
        ("OFFSET 0 1 0", "OFFSET 0 1", "line 8: OFFSET '0 1'; needed 3 numbers"),
        ("OFFSET 0 1 0", "OFFSET 0 nan 0", "OFFSET '0 nan 0'; needed 3 numbers"),
        ("Hand", "Hips", "a second joint with the name 'Hips'"),
        ("JOINT Left Arm", "JOINT", "line 6: JOINT without a name"),
        ("JOINT Left Arm", "ROOT Left Arm", "ROOT 'Left Arm' in the wrong place"),
        ("ROOT Hips", "JOINT Hips", "JOINT 'Hips' in the wrong place"),
        ("}\nMOTION", "}\nROOT Other\n{\nOFFSET 0 0 0\n}\nMOTION", "a second ROOT"),
        ("}\nMOTION", "MOTION", "MOTION before the brace of 'Hips' is closed"),
        ("}\nMOTION", "}\n}\nMOTION", "line 20: '}' is not understood here"),
        ("End Site", "End", "'End' is not understood here"),
        ("MOTION\n", "", "'Frames: 2' is not understood here"),
        ("Frames: 2\n", "", "'Frame Time: 0.0333333'; needed `Frames: ...`"),
        ("Frames: 2", "Frames: 2.5", "2.5 frames; needed a whole number"),
        ("Frames: 2", "Frames: 0", "0 frames; needed a whole number"),
        ("Frames: 2", "Frames: many", "FRAMES 'many'; needed 1 number"),
        ("Frames: 2", "Frames: 9", "declares 9 frames and holds 2: is it cut short"),
        ("Frames: 2", "Frames: 1", "declares 1 frames and holds 2"),
        ("0.0333333", "0", "a frame lasts 0 s"),
        (" 70 0.5", " 70", "line 24: 10 values; the joints have 11 channels"),
        (" 70 0.5", " 70 here", "line 24: 'here' is no number"),
        (" 70 0.5", " 70 nan", "frame 1: numbers that are not finite"),
        ("0 1 0 0 0 0 0 0 0 0 0\n4 5 6 10 20 30 40 50 60 70 0.5\n", "", "declares 2 frames and holds 0"),
    ],
)
def test_faults_are_told_by_file_and_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in ARM
    path = written(tmp_path, ARM.replace(old, new, 1))
    with pytest.raises(MotionFileError) as error:
        read_bvh(path)
    assert said in str(error.value)
    assert str(error.value).startswith(f"{path}, ")


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "x.bvh").write_bytes(b"Kaydara FBX Binary  \x00\x1a\x00")
    with pytest.raises(MotionFileError, match="is binary and no BVH file: an FBX file"):
        read_bvh(tmp_path / "x.bvh")
    with pytest.raises(MotionFileError, match="is not there") as error:
        read_bvh(tmp_path / "y.bvh")
    assert error.value.reason == "missing_motion"


def test_no_channels_at_all(tmp_path: Path) -> None:
    still = "HIERARCHY\nROOT a\n{\nOFFSET 0 0 0\n}\nMOTION\nFrames: 1\nFrame Time: 1\n"
    with pytest.raises(MotionFileError, match="no joint has CHANNELS"):
        read_bvh(written(tmp_path, still))


# -- written ---------------------------------------------------------------------------------------------------


def in_order(motion: BvhMotion, skeleton: Skeleton) -> torch.Tensor:
    return motion.positions_FJ3[:, [motion.joints.index(name) for name in skeleton.joints]]


@pytest.mark.parametrize("codec", [HUMANML3D, KIT], ids=["humanml3d", "kit"])
@pytest.mark.parametrize("unit", [1.0, 0.01])
def test_written_and_read_again_joints_are_the_same(tmp_path: Path, codec, unit: float) -> None:
    x = wander(50, seed=3, turning=0.1, codec=codec)
    told = write_bvh(tmp_path / "x.bvh", x, codec.skeleton, codec.fps, unit)
    motion = read_bvh(tmp_path / "x.bvh")
    assert sorted(motion.joints) == sorted(codec.skeleton.joints)
    assert motion.fps == codec.fps
    for name, parent in zip(motion.joints, motion.parents, strict=True):
        of = codec.skeleton.parents[codec.skeleton.joints.index(name)]
        assert (parent == of == -1) or motion.joints[parent] == codec.skeleton.joints[of]
    error = (in_order(motion, codec.skeleton) * unit - x).abs().max()
    assert float(error) < 5e-6
    assert told < 1e-9


def test_joints_that_hang_loosely_on_a_branch_are_where_they_were(tmp_path: Path) -> None:
    skeleton = Skeleton("loose", ("a", "b", "c", "d"), (-1, 0, 0, 2), ((0, 1), (0, 2, 3)), (1, 3))
    generator = torch.Generator().manual_seed(0)
    x = smooth((4, 3), 40, generator)
    x[:, 3] = x[:, 2] + torch.nn.functional.normalize(smooth((3,), 40, generator), dim=-1)
    assert write_bvh(tmp_path / "x.bvh", x, skeleton, 20) < 1e-9
    torch.testing.assert_close(in_order(read_bvh(tmp_path / "x.bvh"), skeleton), x, atol=2e-6, rtol=0)


def test_lengths_that_vary_are_told_and_bones_aimed_from_where_joints_came_to_lie(tmp_path: Path) -> None:
    x = wander(60, seed=4)
    generator = torch.Generator().manual_seed(1)
    noisy = x + 0.005 * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    told = write_bvh(tmp_path / "x.bvh", noisy, HUMANML3D.skeleton, 20)
    motion = read_bvh(tmp_path / "x.bvh")
    error = (in_order(motion, HUMANML3D.skeleton) - noisy).norm(dim=-1)
    assert float(error.max()) == pytest.approx(told, abs=1e-5)
    assert float(error.mean()) < 0.0045
    lengths = bones(HUMANML3D.skeleton.parents, noisy).norm(dim=-1)
    written_lengths = bones(HUMANML3D.skeleton.parents, in_order(motion, HUMANML3D.skeleton)).norm(dim=-1)
    elbow = HUMANML3D.skeleton.joints.index("l_elbow")
    torch.testing.assert_close(
        written_lengths[:, elbow], lengths[:, elbow].mean().expand(60), atol=1e-5, rtol=0
    )


def test_the_pelvis_turns_with_the_figure(tmp_path: Path) -> None:
    write_bvh(tmp_path / "x.bvh", wander(60, seed=5, turning=0.1), HUMANML3D.skeleton, 20)
    lines = (tmp_path / "x.bvh").read_text().splitlines()
    rows = np.array([line.split() for line in lines[lines.index("MOTION") + 3 :]], dtype=float)
    about_y = rows[:, 5]  # root: three positions, then Z, X, Y
    assert abs(about_y[-1] - about_y[0] - np.rad2deg(5.9)) < 30  # unwrapped, beyond a half turn
    assert abs(np.diff(about_y)).max() < 30


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    x = wander(3)
    with pytest.raises(ValueError, match=r"needed \(frames, 21, 3\)"):
        write_bvh(tmp_path / "x.bvh", x, KIT.skeleton, 20)
    with pytest.raises(ValueError, match="1 frame at the least"):
        write_bvh(tmp_path / "x.bvh", x[:0], HUMANML3D.skeleton, 20)
    x[1, 4, 2] = torch.nan
    with pytest.raises(ValueError, match="frame 1 has positions that are not finite"):
        write_bvh(tmp_path / "x.bvh", x, HUMANML3D.skeleton, 20)
    with pytest.raises(ValueError, match="fps=0"):
        write_bvh(tmp_path / "x.bvh", wander(3), HUMANML3D.skeleton, 0)
    assert list(tmp_path.iterdir()) == []
