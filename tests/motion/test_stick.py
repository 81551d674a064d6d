"""The stick figure's features: positions of joints and back."""

from __future__ import annotations

import math

import pytest
import torch

from prefopt.motion.codec import find_codec
from prefopt.motion.stick import SKELETON, STICK

PLACE = {name: n for n, name in enumerate(SKELETON.joints)}


def walking(frames: int = 20, seed: int = 0) -> torch.Tensor:
    """(F, 11, 3) positions of a figure that turns and goes on, its joints anywhere but left ones on the left."""
    generator = torch.Generator().manual_seed(seed)
    local = 0.1 * torch.randn(frames, 11, 3, generator=generator).double()
    for name, n in PLACE.items():
        local[:, n, 0] += {"l": 0.5, "r": -0.5}.get(name[0] if name[1] == "_" else "", 0.0)
    local[:, :, 1] += 1
    local[:, 0, ::2] = 0
    heading = (0.3 * torch.randn(frames, generator=generator).double()).cumsum(0) + 3  # past pi and back
    path = (0.2 * torch.randn(frames, 3, generator=generator).double()).cumsum(0) + 3  # past pi and back
    path[:, 1] = 0
    return turned(local, heading[:, None]) + path[:, None]


def turned(points: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    """Points turned about y by a matrix, so that z goes towards x."""
    angle = torch.as_tensor(angle, dtype=points.dtype)
    c, s, o = angle.cos(), angle.sin(), torch.zeros_like(angle)
    matrix = torch.stack(
        [torch.stack([c, o, s], -1), torch.stack([o, o + 1, o], -1), torch.stack([-s, o, c], -1)], -2
    )
    return (matrix @ points[..., None])[..., 0]


def facing(positions: torch.Tensor) -> torch.Tensor:
    """Angle from z to where knees and elbows face, frame by frame."""
    found = []
    for frame in positions:
        across = sum(frame[PLACE[f"l_{part}"]] - frame[PLACE[f"r_{part}"]] for part in ("knee", "elbow"))
        forward = torch.linalg.cross(across, torch.tensor([0.0, 1.0, 0.0]).to(across))
        found.append(math.atan2(forward[0], forward[2]))
    return torch.tensor(found, dtype=torch.float64)


def test_the_codec_is_found_by_its_name():
    assert find_codec("stick") is STICK
    assert (STICK.name, STICK.width, STICK.fps) == ("stick", 36, 8)
    assert [SKELETON.joints[n] for n in SKELETON.feet] == ["l_foot", "r_foot"]
    assert [SKELETON.joints[n] for n in SKELETON.mirrored[3:7]] == ["r_knee", "r_foot", "l_knee", "l_foot"]
    assert SKELETON.parents == (-1, 0, 1, 0, 3, 0, 5, 1, 7, 1, 9)


def test_positions_come_back_but_for_where_they_stood_and_faced():
    original = walking()
    found = STICK.positions(STICK.features(original))
    moved = original - original[:1, :1] * torch.tensor([1.0, 0.0, 1.0])
    expected = turned(moved, -facing(original)[0])[:-1]
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    # what was moved and turned as a whole has the same features
    elsewhere = turned(original, torch.tensor(2.0)) + torch.tensor([3.0, 0.0, -1.0])
    torch.testing.assert_close(STICK.features(elsewhere), STICK.features(original), atol=1e-12, rtol=0)


def test_features_say_what_their_places_promise():
    original = walking(5)
    features, heading = STICK.features(original), facing(original)
    assert features.shape == (4, 36)
    for k, row in enumerate(features):
        change = heading[k + 1] - heading[k]
        assert row[0].item() == pytest.approx(math.remainder(change.item(), 2 * math.pi), abs=1e-12)
        step = original[k + 1, 0] - original[k, 0]
        forward = torch.stack([heading[k + 1].sin(), torch.zeros(()).double(), heading[k + 1].cos()])
        left = torch.stack([heading[k + 1].cos(), torch.zeros(()).double(), -heading[k + 1].sin()])
        assert row[1].item() == pytest.approx((step @ forward).item(), abs=1e-12)
        assert row[2].item() == pytest.approx((step @ left).item(), abs=1e-12)
        assert row[3] == original[k, 0, 1]
        for n in range(1, 11):
            away = turned(original[k, n] - original[k, 0], -heading[k])
            expected = [away[0], original[k, n, 1], away[2]]
            assert row[1 + 3 * n : 4 + 3 * n].tolist() == pytest.approx(
                [x.item() for x in expected], abs=1e-12
            )


def test_whoever_turns_to_the_left_and_walks_goes_around_counterclockwise():
    features = torch.zeros(40, 36)
    features[:, 0], features[:, 1] = 2 * math.pi / 40, 0.1
    path = STICK.positions(features)[:, 0]
    assert path[0].tolist() == [0, 0, 0]
    assert path[2, 2] > 0.15  # ahead is z
    centre = path.mean(0)
    radii = (path - centre).norm(dim=1)
    assert radii.std() < 1e-4
    assert centre[0] > 0.5  # left is x
    assert centre[2].abs() < 0.1


def test_a_foot_stands_that_is_low_and_still():
    standing = walking(4)
    standing[:] = standing[:1]
    standing[:, SKELETON.feet, 1] = 0.05
    assert STICK.features(standing)[:, 34:].tolist() == [[1, 1]] * 3
    left, right = SKELETON.feet
    standing[2, left, 2] += 0.06  # moves between frames 1 and 2, and back
    standing[:, right, 1] = 0.3
    assert STICK.features(standing)[:, 34:].tolist() == [[1, 0], [0, 0], [0, 0]]


def test_leading_axes_are_kept():
    both = torch.stack([walking(6, 1), walking(6, 2)])
    features = STICK.features(both)
    torch.testing.assert_close(features[1], STICK.features(both[1]))
    torch.testing.assert_close(STICK.positions(features)[1], STICK.positions(features[1]))


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match="width 263; those of a stick figure are 36"):
        STICK.positions(torch.zeros(4, 263))
    for wrong in ((1, 11, 3), (4, 22, 3)):
        with pytest.raises(ValueError, match="needed \\(frames, 11, 3\\) with two frames or more"):
            STICK.features(torch.zeros(wrong))
