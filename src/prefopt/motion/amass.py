"""AMASS's .npz files (poses of the SMPL family), read to positions of HumanML3D's 22 joints.

Where joints are between the poses' turns depends on the body. SMPL's models are not free and come with no library: with a
folder of them, bodies have the recorded person's shape; without, everybody is the adult of `kinematics.ADULT_J3`: turns
and ways are the recorded ones, proportions are not. Nothing is unpickled, so models are to be .npz files.

Legend: F frames, J joints.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from prefopt.motion import rotations
from prefopt.motion.arrays import MotionFileError, as_numbers, opened_npz
from prefopt.motion.humanml3d import HUMANML3D
from prefopt.motion.kinematics import ADULT_J3, bones, forward_kinematics
from prefopt.motion.retarget import z_up_to_y_up

RATES = ("mocap_framerate", "mocap_frame_rate", "fps")
MODEL_FILES = ("{gender}/model.npz", "SMPLH_{GENDER}.npz", "SMPLX_{GENDER}.npz", "SMPL_{GENDER}.npz")
BODY = 22


def read_amass(path: Path, models: Path | None = None) -> tuple[Tensor, float]:
    """Positions of a motion and its frames a second.

    Args:
        path: of a file with `poses`, (F, 66 or more) turns as axes and angles, `trans`, (F, 3), and a rate; with `models`,
            `gender` and `betas` too.
        models: folder of body models: GENDER/model.npz (SMPL-H as AMASS uses it), or SMPLH_GENDER.npz and the like.

    Returns:
        (F, 22, 3) float64 in metres, y upwards, turned as HumanML3D turns AMASS; and the file's own rate.

    Raises:
        MotionFileError: damaged, pickled, arrays missing or of other shapes, numbers that are not finite.
        FileNotFoundError: no model of the gender.
    """
    with opened_npz(path) as arrays:
        there = list(arrays)
        if missing := [key for key in ("poses", "trans") if key not in there]:
            raise MotionFileError(
                f"{path} has no {' and no '.join(missing)}: no motion as AMASS has them. In it: {', '.join(there)}",
                "broken_motion",
            )
        poses, trans = arrays["poses"], arrays["trans"]
        fps = _rate(path, arrays, there)
        if poses.ndim != 2 or poses.shape[1] < 3 * BODY or trans.shape != (len(poses), 3) or not len(poses):
            raise MotionFileError(
                f"{path}: poses have the shape {poses.shape} and trans {trans.shape}; needed (frames, {3 * BODY} or more) "
                "and (frames, 3)",
                "wrong_width",
            )
        rest_J3 = ADULT_J3 if models is None else _body(path, arrays, there, models)
    turns_FJ3 = as_numbers(poses[:, : 3 * BODY], f"{path}: poses").double().unflatten(1, (BODY, 3))
    root_F3 = as_numbers(trans, f"{path}: trans").double() + rest_J3[0]
    offsets_J3 = rest_J3 if models is None else bones(HUMANML3D.skeleton.parents, rest_J3)
    R_FJ33 = rotations.from_axis_angle(turns_FJ3)
    x_FJ3, _ = forward_kinematics(HUMANML3D.skeleton.parents, offsets_J3, R_FJ33, root_F3)
    return z_up_to_y_up(x_FJ3), fps


def _rate(path: Path, arrays: Mapping[str, Any], there: list[str]) -> float:
    for key in RATES:
        if key in there:
            value = arrays[key]
            if value.size != 1 or value.dtype.kind not in "fiu" or not 0 < float(value.item()) < np.inf:
                raise MotionFileError(f"{path}: {key} is {value}; needed a number above 0", "broken_motion")
            return float(value.item())
    raise MotionFileError(
        f"{path} does not say how many frames a second it has: needed one of {', '.join(RATES)}; in it: {', '.join(there)}",
        "broken_motion",
    )


def _body(path: Path, arrays: Mapping[str, Any], there: list[str], models: Path) -> Tensor:
    """(22, 3) joints of the recorded person in the pose without turns."""
    if missing := [key for key in ("gender", "betas") if key not in there]:
        raise MotionFileError(
            f"{path} has no {' and no '.join(missing)}, which say what body it is; leave the models out for a common one",
            "broken_motion",
        )
    gender = arrays["gender"].item()
    gender = (gender.decode() if isinstance(gender, bytes) else str(gender)).lower()
    names = [name.format(gender=gender, GENDER=gender.upper()) for name in MODEL_FILES]
    file = next((models / name for name in names if (models / name).is_file()), None)
    if file is None:
        raise FileNotFoundError(
            f"{models} has no body model of the gender {gender!r}, which {path} asks for: needed one of {', '.join(names)}"
        )
    betas = np.asarray(arrays["betas"], dtype=np.float64).reshape(-1)
    with opened_npz(file) as model:
        needed = ("J_regressor", "v_template", "shapedirs", "kintree_table")
        if missing := [key for key in needed if key not in model]:
            raise MotionFileError(f"{file} has no {', '.join(missing)}: no model of SMPL", "broken_motion")
        parents = model["kintree_table"][0, :BODY].astype(np.int64)
        if tuple(parents[1:]) != HUMANML3D.skeleton.parents[1:]:
            raise MotionFileError(
                f"{file}: its first {BODY} joints hang on {parents[1:].tolist()}; SMPL's are needed",
                "broken_motion",
            )
        directions = model["shapedirs"].astype(np.float64)
        count = min(len(betas), directions.shape[-1])
        vertices = model["v_template"] + directions[..., :count] @ betas[:count]
        return as_numbers(model["J_regressor"][:BODY] @ vertices, f"{file}: joints").double()
