"""Motion files of every kind, told by their content."""

from pathlib import Path

import numpy as np
import pytest
import torch

from prefopt.motion.arrays import MotionFileError
from prefopt.motion.bvh_writing import write_bvh
from prefopt.motion.humanml3d import HUMANML3D, KIT
from prefopt.motion.kinematics import resampled
from prefopt.motion.loading import load_motion
from walking_figures import wander


@pytest.fixture
def x() -> torch.Tensor:
    return wander(41, turning=0.02)


def close(out: torch.Tensor, x: torch.Tensor, tolerance: float = 1e-4) -> None:
    assert out.dtype == torch.float32
    expected = HUMANML3D.features(x)
    # turns of bones from positions of six decimals are the least exact
    torch.testing.assert_close(out.double(), expected, atol=tolerance, rtol=0)


def test_arrays_are_told_apart_by_their_shape(tmp_path: Path, x: torch.Tensor) -> None:
    np.save(tmp_path / "a.npy", HUMANML3D.features(x).numpy())
    np.save(tmp_path / "b.npy", x.numpy())
    close(load_motion(tmp_path / "a.npy", HUMANML3D), x)
    close(load_motion(tmp_path / "b.npy", HUMANML3D), x)


@pytest.mark.parametrize("key", ["motion", "positions"])
def test_archives(tmp_path: Path, x: torch.Tensor, key: str) -> None:
    np.savez(tmp_path / "a.npz", **{key: x.float().numpy()})
    close(load_motion(tmp_path / "a.npz", HUMANML3D), x)
    twice = resampled(x, 20, 40)
    np.savez_compressed(tmp_path / "b.npz", **{key: twice.numpy(), "fps": 40})
    close(load_motion(tmp_path / "b.npz", HUMANML3D), x)


def test_bvh_files_in_centimetres_at_another_rate(tmp_path: Path, x: torch.Tensor) -> None:
    write_bvh(tmp_path / "a.bvh", resampled(x, 20, 60), HUMANML3D.skeleton, 60, unit=0.01)
    (tmp_path / "a.bvh").rename(tmp_path / "a.txt")
    close(load_motion(tmp_path / "a.txt", HUMANML3D), x, 5e-3)
    close(load_motion(tmp_path / "a.txt", HUMANML3D, unit=0.01), x, 5e-3)


def test_amass_files_are_resampled(tmp_path: Path) -> None:
    poses = np.zeros((121, 156))
    poses[:, 0] = np.pi / 2
    trans = np.zeros((121, 3))
    trans[:, 1] = -np.arange(121) / 120  # forward at 1 m/s, for one second
    np.savez(tmp_path / "a.npz", poses=poses, trans=trans, mocap_framerate=120.0, gender="male")
    out = load_motion(tmp_path / "a.npz", HUMANML3D)
    assert out.shape == (20, 263)
    torch.testing.assert_close(out[:, 2], torch.full((20,), 0.05), atol=1e-5, rtol=0)
    assert 0.8 < float(out[0, 3]) < 1.0


def test_kit_takes_its_own_positions_and_nothing_else(tmp_path: Path, x: torch.Tensor) -> None:
    kit = wander(30, codec=KIT)
    np.save(tmp_path / "a.npy", kit.numpy())
    out = load_motion(tmp_path / "a.npy", KIT)
    torch.testing.assert_close(out, KIT.features(kit).float(), atol=1e-3, rtol=0)
    write_bvh(tmp_path / "a.bvh", x, HUMANML3D.skeleton, 20)
    with pytest.raises(MotionFileError, match="the codec is 'kit'"):
        load_motion(tmp_path / "a.bvh", KIT)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.npy", b"", "a.npy is empty"),
        ("a.npy", b"junk" * 50, "a.npy is damaged"),
        ("a.npz", b"PK\x03\x04junk", "a.npz is damaged"),
        ("a.bvh", b"Kaydara FBX Binary  \x00", "an FBX file"),
        ("a.bvh", b"MOTION", "begins with HIERARCHY"),
        ("a.pkl", b"\x80\x04junk", "none of the files that hold motions here"),
        ("a.mp4", b"\x00\x00\x00\x20ftyp", "none of the files"),
    ],
)
def test_files_that_hold_no_motion(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MotionFileError, match=said):
        load_motion(tmp_path / name, HUMANML3D)


def test_archives_that_hold_no_motion(tmp_path: Path, x: torch.Tensor) -> None:
    def refused(said: str, **arrays: object) -> None:
        np.savez(tmp_path / "a.npz", **arrays)
        with pytest.raises(MotionFileError, match=said):
            load_motion(tmp_path / "a.npz", HUMANML3D)

    refused("has neither `motion` nor `positions`.*in it: pose_data", pose_data=x.numpy())
    refused("has both `motion` and `positions`", motion=x.numpy(), positions=x.numpy())
    refused("features of 30 frames a second", motion=np.zeros((50, 263)), fps=30)
    refused("a.npz: motion has the shape", motion=np.zeros((50, 251)))
    refused("holds Python objects", motion=np.array([None], dtype=object))
    refused("a.npz: motion has numbers that are not finite", motion=np.full((50, 263), np.inf))
    np.savez_compressed(tmp_path / "a.npz", motion=np.random.default_rng(0).random((50, 263)))
    whole = (tmp_path / "a.npz").read_bytes()
    for place in (60, 200, 5000, len(whole) - 30):
        content = bytearray(whole)
        content[place : place + 20] = bytes(20)
        (tmp_path / "a.npz").write_bytes(bytes(content))
        with pytest.raises(MotionFileError, match=r"a\.npz is damaged|in it: nothing"):
            load_motion(tmp_path / "a.npz", HUMANML3D)


def test_other_files_that_are_refused(tmp_path: Path, x: torch.Tensor) -> None:
    with pytest.raises(MotionFileError, match=r"none\.npy is not there"):
        load_motion(tmp_path / "none.npy", HUMANML3D)
    with pytest.raises(MotionFileError, match="is a folder"):
        load_motion(tmp_path, HUMANML3D)
    np.save(tmp_path / "a.npy", x[:1].numpy())
    with pytest.raises(MotionFileError, match=r"a\.npy: a motion of 1 frames"):
        load_motion(tmp_path / "a.npy", HUMANML3D)


def test_resampling() -> None:
    x = torch.arange(13.0).double()[:, None] ** 2
    assert torch.equal(resampled(x, 120, 20), x[::6])
    assert torch.equal(resampled(x, 20, 20), x)
    torch.testing.assert_close(resampled(x, 2, 3)[:4, 0], torch.tensor([0.0, 2 / 3, 2.0, 4.0]).double())
    torch.testing.assert_close(resampled(x[:3], 1, 2)[:, 0], torch.tensor([0, 0.5, 1, 2.5, 4]).double())
    assert torch.equal(resampled(x[:1], 30, 20), x[:1])
    with pytest.raises(ValueError, match="0 frames"):
        resampled(x[:0], 30, 20)
    with pytest.raises(ValueError, match="asked for at 0"):
        resampled(x, 30, 0)
