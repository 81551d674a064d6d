"""Rotations in three dimensions: quaternions, matrices, 6-D, axis and angle, Euler angles, the shortest arc.

Every function takes any leading axes and any float type, and turns column vectors: v' = R v. Legend: quaternions are
(w, x, y, z); angles are radians; Euler angles are about the axes of the turned body, in the order of their names, as
BVH files have them: "ZXY" is R_z R_x R_y.
"""

from __future__ import annotations

import torch
from torch import Tensor


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """(..., 4) quaternion of turning by `b` first and by `a` then."""
    a_w, a_v = a[..., :1], a[..., 1:]
    b_w, b_v = b[..., :1], b[..., 1:]
    scalar = a_w * b_w - (a_v * b_v).sum(-1, keepdim=True)
    return torch.cat([scalar, a_w * b_v + b_w * a_v + _cross(a_v, b_v)], -1)


def conjugate(q: Tensor) -> Tensor:
    """(..., 4) the turn back, of unit quaternions."""
    return torch.cat([q[..., :1], -q[..., 1:]], -1)


def rotate(q: Tensor, v: Tensor) -> Tensor:
    """(..., 3) vectors turned by unit quaternions."""
    q_v = q[..., 1:]
    twice = 2 * _cross(q_v, v)
    return v + q[..., :1] * twice + _cross(q_v, twice)


def matrix(q: Tensor) -> Tensor:
    """(..., 3, 3) matrices of quaternions, which need not have length 1."""
    w, x, y, z = (q / q.norm(dim=-1, keepdim=True)).unbind(-1)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def to_6d(R: Tensor) -> Tensor:
    """(..., 6) the first two columns of matrices, one after the other (Zhou et al., arXiv 1812.07035)."""
    return torch.cat([R[..., 0], R[..., 1]], -1)


def from_6d(six: Tensor) -> Tensor:
    """(..., 3, 3) the rotation nearest to two columns that a network made: the first keeps its direction."""
    first = torch.nn.functional.normalize(six[..., :3], dim=-1)
    third = torch.nn.functional.normalize(_cross(first, six[..., 3:]), dim=-1)
    return torch.stack([first, _cross(third, first), third], -1)


def about(axis: str, angle: Tensor) -> Tensor:
    """(..., 3, 3) turns by `angle` about a main axis, "X", "Y" or "Z"."""
    cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    rows = {
        "X": ((one, zero, zero), (zero, cos, -sin), (zero, sin, cos)),
        "Y": ((cos, zero, sin), (zero, one, zero), (-sin, zero, cos)),
        "Z": ((cos, -sin, zero), (sin, cos, zero), (zero, zero, one)),
    }[axis]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def from_euler(angles: Tensor, order: str) -> Tensor:
    """(..., 3, 3) of (..., n) angles about the body's axes `order`, n letters; none is no turn."""
    R = torch.eye(3, dtype=angles.dtype, device=angles.device).expand(*angles.shape[:-1], 3, 3)
    for n, axis in enumerate(order):
        R = R @ about(axis, angles[..., n])
    return R


def to_euler_zxy(R: Tensor) -> Tensor:
    """(..., 3) angles about Z, X, Y; X is within a right angle, and where it is one, Y is 0."""
    sin_x = R[..., 2, 1].clamp(-1, 1)
    locked = sin_x.abs() > 1 - 4 * torch.finfo(R.dtype).eps
    z = torch.where(locked, torch.atan2(R[..., 1, 0], R[..., 0, 0]), torch.atan2(-R[..., 0, 1], R[..., 1, 1]))
    y = torch.where(locked, torch.zeros_like(z), torch.atan2(-R[..., 2, 0], R[..., 2, 2]))
    # the arc sine alone loses half the digits near a right angle
    x = torch.atan2(sin_x, torch.hypot(R[..., 0, 1], R[..., 1, 1]))
    return torch.stack([z, x, y], -1)


def from_axis_angle(turn: Tensor) -> Tensor:
    """(..., 3, 3) of (..., 3) axes whose length is the angle, as SMPL stores poses."""
    half = turn.norm(dim=-1, keepdim=True) / 2
    # torch.sinc(x) is sin(pi x) / (pi x), and 1 at 0
    return matrix(torch.cat([half.cos(), torch.sinc(half / torch.pi) * turn / 2], -1))


def shortest_arc(u: Tensor, v: Tensor) -> Tensor:
    """(..., 4) the smallest turn that brings the direction of `u` to that of `v`.

    Opposite directions are a half turn about an axis square to `u`; a vector of length 0 needs no turn.
    """
    u, v = torch.broadcast_tensors(u, v)
    lengths = (u.norm(dim=-1, keepdim=True) * v.norm(dim=-1, keepdim=True)).expand(*u.shape[:-1], 1)
    q = torch.cat([lengths + (u * v).sum(-1, keepdim=True), _cross(u, v)], -1)
    norm = q.norm(dim=-1, keepdim=True)
    tiny = torch.finfo(u.dtype).eps * 8
    least = torch.nn.functional.one_hot(u.abs().argmin(-1), 3).to(u.dtype)  # the axis that is least along u
    square = torch.nn.functional.normalize(_cross(u, least), dim=-1)
    half_turn = torch.cat([torch.zeros_like(lengths), square], -1)
    none = torch.zeros_like(q)
    none[..., 0] = 1
    q = torch.where(norm > tiny * lengths, q / norm.clamp_min(torch.finfo(u.dtype).tiny), half_turn)
    return torch.where(lengths > 0, q, none)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    a, b = torch.broadcast_tensors(a, b)
    return torch.linalg.cross(a, b)
