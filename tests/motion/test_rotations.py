"""Rotations against scipy's."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from prefopt.motion import rotations

N = 200


@pytest.fixture
def turns() -> Rotation:
    return Rotation.random(N, random_state=np.random.default_rng(0))


def quaternions(turn: Rotation) -> torch.Tensor:
    return torch.tensor(turn.as_quat()[..., [3, 0, 1, 2]])


def test_quaternions_multiply_rotate_and_turn_back(turns: Rotation) -> None:
    others = Rotation.random(N, random_state=np.random.default_rng(1))
    q, p, v = quaternions(turns), quaternions(others), torch.randn(N, 3, dtype=torch.float64)
    product = rotations.matrix(rotations.multiply(q, p)).numpy()
    np.testing.assert_allclose(product, (turns * others).as_matrix(), atol=1e-12)
    np.testing.assert_allclose(rotations.rotate(q, v).numpy(), turns.apply(v.numpy()), atol=1e-12)
    back = rotations.rotate(rotations.conjugate(q), rotations.rotate(q, v))
    np.testing.assert_allclose(back.numpy(), v.numpy(), atol=1e-12)


def test_matrices_of_quaternions_of_any_length(turns: Rotation) -> None:
    q = quaternions(turns) * 3
    np.testing.assert_allclose(rotations.matrix(q).numpy(), turns.as_matrix(), atol=1e-12)


def test_six_numbers_are_two_columns_and_come_back(turns: Rotation) -> None:
    R = torch.tensor(turns.as_matrix())
    six = rotations.to_6d(R)
    assert torch.equal(six[0], torch.cat([R[0, :, 0], R[0, :, 1]]))
    np.testing.assert_allclose(rotations.from_6d(six).numpy(), R.numpy(), atol=1e-12)
    blurred = rotations.from_6d(six + torch.randn_like(six) * 0.3)
    np.testing.assert_allclose((blurred @ blurred.mT).numpy(), np.eye(3)[None].repeat(N, 0), atol=1e-12)
    np.testing.assert_allclose(torch.linalg.det(blurred).numpy(), 1, atol=1e-12)


@pytest.mark.parametrize("order", ["ZXY", "XYZ", "ZYX", "YXZ", "XZY", "YZX", "ZY", "X"])
def test_euler_angles_of_every_order(order: str) -> None:
    angles = torch.rand(N, len(order), dtype=torch.float64) * 6 - 3
    expected = Rotation.from_euler(order, angles.numpy()).as_matrix()
    np.testing.assert_allclose(rotations.from_euler(angles, order).numpy(), expected, atol=1e-12)


def test_euler_zxy_and_back(turns: Rotation) -> None:
    angles = rotations.to_euler_zxy(torch.tensor(turns.as_matrix()))
    np.testing.assert_allclose(angles.numpy(), turns.as_euler("ZXY"), atol=1e-10)


@pytest.mark.parametrize("x", [torch.pi / 2, -torch.pi / 2, torch.pi / 2 - 1e-6, 1.5707])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_euler_zxy_at_a_right_angle(x: float, dtype: torch.dtype) -> None:
    R = rotations.from_euler(torch.tensor([0.7, x, -1.1], dtype=dtype), "ZXY")
    again = rotations.from_euler(rotations.to_euler_zxy(R), "ZXY")
    torch.testing.assert_close(again, R, atol=1e-3 if dtype == torch.float32 else 1e-7, rtol=0)


def test_axis_and_angle_also_of_no_turn(turns: Rotation) -> None:
    turn = torch.tensor(np.concatenate([turns.as_rotvec(), np.zeros((1, 3)), [[1e-9, 0, 0]]]))
    expected = Rotation.from_rotvec(turn.numpy()).as_matrix()
    np.testing.assert_allclose(rotations.from_axis_angle(turn).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_shortest_arc(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    u, v = (torch.randn(N, 3, dtype=dtype, generator=generator) for _ in range(2))
    q = rotations.shortest_arc(u, v)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    turned = torch.nn.functional.normalize(rotations.rotate(q, u), dim=-1)
    torch.testing.assert_close(turned, torch.nn.functional.normalize(v, dim=-1), atol=tolerance, rtol=0)
    # no smaller turn does it: its angle is that between the vectors
    angle = 2 * torch.atan2(q[:, 1:].norm(dim=-1), q[:, 0])
    between = torch.acos(torch.cosine_similarity(u, v).clamp(-1, 1))
    torch.testing.assert_close(angle, between, atol=1e-2 if dtype == torch.float32 else 1e-6, rtol=0)


@pytest.mark.parametrize("u", [(0.0, -1.0, 0.0), (1.0, 0.0, 0.0), (0.3, -2.0, 1.0)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_shortest_arc_of_opposite_and_empty_vectors(u: tuple[float, ...], dtype: torch.dtype) -> None:
    start = torch.tensor(u, dtype=dtype)
    turned = rotations.rotate(rotations.shortest_arc(start, -start), start)
    torch.testing.assert_close(turned, -start, atol=1e-6, rtol=0)
    none = rotations.shortest_arc(start, torch.zeros(3, dtype=dtype))
    assert none.tolist() == [1, 0, 0, 0]
