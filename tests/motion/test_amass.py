"""AMASS's files, against scipy's rotations one joint at a time."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from prefopt.motion.amass import read_amass
from prefopt.motion.arrays import MotionFileError
from prefopt.motion.humanml3d import HUMANML3D
from prefopt.motion.kinematics import ADULT_J3, bones, joined

PARENTS = HUMANML3D.skeleton.parents


def arrays(frames: int = 7, seed: int = 0, **changes: object) -> dict:
    rng = np.random.default_rng(seed)
    out = {
        "poses": rng.normal(0, 0.5, (frames, 156)),
        "trans": rng.normal(0, 1, (frames, 3)),
        "betas": rng.normal(0, 1, 16),
        "gender": np.array("male"),
        "mocap_framerate": np.array(120.0),
        "dmpls": rng.normal(0, 1, (frames, 8)),
    }
    out.update(changes)
    return {key: value for key, value in out.items() if value is not None}


def saved(path: Path, **changes: object) -> Path:
    np.savez(path / "x.npz", **arrays(**changes))
    return path / "x.npz"


def plain(data: dict, rest: np.ndarray) -> np.ndarray:
    """Joints of a body in the pose, z upwards turned to y upwards."""
    out = np.zeros((len(data["trans"]), 22, 3))
    for k in range(len(out)):
        turns = [Rotation.from_rotvec(data["poses"][k, :3])]
        out[k, 0] = rest[0] + data["trans"][k]
        for n in range(1, 22):
            parent = PARENTS[n]
            out[k, n] = out[k, parent] + turns[parent].apply(rest[n] - rest[parent])
            turns.append(turns[parent] * Rotation.from_rotvec(data["poses"][k, 3 * n : 3 * n + 3]))
    return np.stack([-out[..., 0], out[..., 2], out[..., 1]], -1)


def test_joints_of_the_common_body(tmp_path: Path) -> None:
    data = arrays()
    x, fps = read_amass(saved(tmp_path))
    assert (x.shape, x.dtype, fps) == ((7, 22, 3), torch.float64, 120)
    rest = joined(PARENTS, ADULT_J3, torch.zeros(3).double()).numpy()
    np.testing.assert_allclose(x.numpy(), plain(data, rest), atol=1e-5)


def test_a_body_that_stands_upright_in_amass_stands_upright(tmp_path: Path) -> None:
    poses = np.zeros((2, 156))
    poses[:, 0] = np.pi / 2  # SMPL's y upwards to AMASS's z upwards
    x, _ = read_amass(saved(tmp_path, frames=2, poses=poses, trans=np.zeros((2, 3))))
    assert float(x[0, 15, 1] - x[0, 7, 1]) > 1.3
    across = x[0, 2] - x[0, 1]
    assert abs(float(across[1])) < 1e-6
    # with z upwards such a body faces -y; HumanML3D's turn makes of that -z
    forward = torch.linalg.cross(torch.tensor([0.0, 1, 0]).double(), across)
    assert float(forward[2]) < 0


@pytest.fixture
def models(tmp_path: Path) -> tuple[Path, np.ndarray, dict]:
    """A body model of 30 vertices, and the rest of the person of `arrays()`."""
    rng = np.random.default_rng(1)
    kintree = np.stack([[4294967295, *PARENTS[1:], 20, 21], np.arange(24)]).astype("uint32")
    model = {
        "J_regressor": rng.random((24, 30)) / 30,
        "v_template": rng.normal(0, 1, (30, 3)),
        "shapedirs": rng.normal(0, 0.1, (30, 3, 10)),
        "kintree_table": kintree,
    }
    folder = tmp_path / "models"
    (folder / "male").mkdir(parents=True)
    np.savez(folder / "male" / "model.npz", **model)
    np.savez(folder / "SMPLH_FEMALE.npz", **{**model, "v_template": model["v_template"] * 2})
    shape = np.einsum("vdk,k->vd", model["shapedirs"], arrays()["betas"][:10])
    return folder, (model["J_regressor"] @ (model["v_template"] + shape))[:22], model


def test_bodies_of_models_have_the_persons_shape(tmp_path: Path, models) -> None:
    folder, rest, _ = models
    x, _ = read_amass(saved(tmp_path), folder)
    np.testing.assert_allclose(x.numpy(), plain(arrays(), rest), atol=1e-4)
    lengths = bones(PARENTS, x).norm(dim=-1)
    torch.testing.assert_close(lengths, lengths[:1].expand(7, -1))
    capital, _ = read_amass(saved(tmp_path, gender=np.array("Male")), folder)
    assert torch.equal(capital, x)
    other, _ = read_amass(saved(tmp_path, gender=np.array(b"FEMALE")), folder)
    assert not torch.allclose(other, x, atol=0.1)


def test_models_that_are_not_there_or_none(tmp_path: Path, models) -> None:
    folder, _, model = models
    with pytest.raises(FileNotFoundError, match=r"no body model of the gender 'neutral'.*SMPLH_NEUTRAL.npz"):
        read_amass(saved(tmp_path, gender=np.array("neutral")), folder)
    with pytest.raises(MotionFileError, match="has no gender and no betas"):
        read_amass(saved(tmp_path, gender=None, betas=None), folder)
    np.savez(folder / "male" / "model.npz", v_template=model["v_template"])
    with pytest.raises(MotionFileError, match=r"model\.npz has no J_regressor, shapedirs, kintree_table"):
        read_amass(saved(tmp_path), folder)
    tree = model["kintree_table"].copy()
    tree[0, 5] = 1
    np.savez(folder / "male" / "model.npz", **{**model, "kintree_table": tree})
    with pytest.raises(MotionFileError, match="SMPL's are needed"):
        read_amass(saved(tmp_path), folder)
    np.savez(folder / "male" / "model.npz", **{**model, "J_regressor": np.array([{}], dtype=object)})
    with pytest.raises(MotionFileError, match=r"model\.npz holds Python objects"):
        read_amass(saved(tmp_path), folder)


@pytest.mark.parametrize("key", ["mocap_framerate", "mocap_frame_rate", "fps"])
def test_names_of_the_rate(tmp_path: Path, key: str) -> None:
    assert read_amass(saved(tmp_path, **{"mocap_framerate": None, key: np.array(60)}))[1] == 60


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"poses": None}, "x.npz has no poses: no motion .* In it: trans, betas"),
        ({"poses": None, "trans": None}, "has no poses and no trans"),
        ({"mocap_framerate": None}, "does not say how many frames a second"),
        ({"mocap_framerate": np.array(0.0)}, "mocap_framerate is 0.0; needed a number above 0"),
        ({"mocap_framerate": np.array("fast")}, "mocap_framerate is fast"),
        ({"poses": np.zeros((7, 63))}, r"poses have the shape \(7, 63\)"),
        ({"trans": np.zeros((6, 3))}, r"trans \(6, 3\)"),
        ({"frames": 0}, r"poses have the shape \(0, 156\)"),
        ({"trans": np.full((7, 3), np.nan)}, "trans has numbers that are not finite in frame 0 and in 6"),
        ({"poses": np.array([None] * 7)}, "holds Python objects"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, changes: dict, said: str) -> None:
    with pytest.raises(MotionFileError, match=said):
        read_amass(saved(tmp_path, **changes))


def test_pickled_genders_do_not_matter_without_models(tmp_path: Path, models) -> None:
    path = saved(tmp_path, gender=np.array("male", dtype=object))
    assert read_amass(path)[0].shape == (7, 22, 3)
    with pytest.raises(MotionFileError, match="holds Python objects"):
        read_amass(path, models[0])
