"""Features of HumanML3D and KIT against the golden vector, a plain computation frame by frame, and themselves."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from prefopt.motion import rotations
from prefopt.motion.codec import find_codec
from prefopt.motion.humanml3d import HUMANML3D, KIT, JointCodec
from walking_figures import wander

VECTORS = Path(__file__).parents[1] / "data" / "sopo.json"
CODECS = pytest.mark.parametrize("codec", [HUMANML3D, KIT], ids=["humanml3d", "kit"])


def plain_features(codec: JointCodec, x: np.ndarray) -> np.ndarray:
    """The features frame by frame, in the order of the published description, with scipy's filter and rotations."""
    x = x / codec.unit
    parents, J = codec.skeleton.parents, len(codec.skeleton)
    r_hip, l_hip, r_shoulder, l_shoulder = codec.across
    x[..., 1] -= x[..., 1].min()
    x -= x[0, 0] * [1, 0, 1]

    def forward(across: np.ndarray) -> np.ndarray:
        return np.cross([0, 1, 0], across / np.linalg.norm(across, axis=-1, keepdims=True))

    def to_z(way: np.ndarray) -> Rotation:
        return Rotation.from_euler("Y", -np.arctan2(way[0], way[2]))

    first = forward(x[0, r_hip] - x[0, l_hip] + x[0, r_shoulder] - x[0, l_shoulder])
    x = to_z(first).apply(x.reshape(-1, 3)).reshape(x.shape)
    across = x[:, r_shoulder] - x[:, l_shoulder] - (x[:, r_hip] - x[:, l_hip])
    ways = gaussian_filter1d(forward(across), 20, axis=0, mode="nearest")
    headings = [Rotation.identity(), *(to_z(way) for way in ways[1:])]
    out = []
    for k in range(len(x) - 1):
        turn = (headings[k + 1] * headings[k].inv()).as_quat(canonical=True)
        local = headings[k].apply(x[k] - x[k, 0] * [1, 0, 1])
        six = []
        for chain in codec.skeleton.chains:
            before = headings[k]
            for parent, child in pairwise(chain):
                assert parents[child] == parent
                bone = x[k, child] - x[k, parent]
                rest = codec.rest_J3[child].numpy()
                axis = np.cross(rest, bone / np.linalg.norm(bone))
                angle = np.arctan2(np.linalg.norm(axis), rest @ bone / np.linalg.norm(bone))
                arc = Rotation.from_rotvec(axis / np.linalg.norm(axis) * angle)
                six.append((child, (before.inv() * arc).as_matrix()[:, :2].T.ravel()))
                before = arc
        turns = [values for _, values in sorted(six, key=lambda pair: pair[0])]
        way = x[k + 1] - x[k]
        out.append(
            np.concatenate(
                [
                    [np.arcsin(turn[1])],
                    headings[k + 1].apply(way[0])[[0, 2]],
                    [x[k, 0, 1]],
                    local[1:].ravel(),
                    np.concatenate(turns),
                    headings[k].apply(way).ravel(),
                    [(way[foot] ** 2).sum() < codec.still for foot in codec.skeleton.feet],
                ]
            )
        )
        assert len(out[-1]) == 12 * J - 1
    return np.stack(out)


def test_names_widths_and_blocks() -> None:
    assert (find_codec("humanml3d").width, find_codec("kit").width) == (263, 251)
    assert find_codec("kit") is KIT
    assert {name: (block.start, block.stop) for name, block in HUMANML3D.blocks.items()} == {
        **{"turn": (0, 1), "walk": (1, 3), "height": (3, 4), "places": (4, 67)},
        **{"turns": (67, 193), "speeds": (193, 259), "contacts": (259, 263)},
    }
    with pytest.raises(ValueError, match="unknown codec 'smpl'; known: 'humanml3d', 'kit', 'stick'"):
        find_codec("smpl")


def test_root_as_in_the_golden_vector() -> None:
    case = next(c for c in json.loads(VECTORS.read_text()) if c["name"] == "root_recovery")
    given, expected = case["inputs"], case["expected"]
    features = torch.zeros(6, 263, dtype=torch.float64)
    features[:, 0] = torch.tensor(given["rot_vel"])
    features[:, 1:3] = torch.tensor(given["lin_vel_xz"], dtype=torch.float64)
    features[:, 3] = torch.tensor(given["root_height"])
    features[:, 0] = torch.tensor(given["rot_vel"], dtype=torch.float64)
    features[:, 3] = torch.tensor(given["root_height"], dtype=torch.float64)
    features[:, 6] = 1  # the left hip, one metre ahead
    positions = HUMANML3D.positions(features)
    np.testing.assert_allclose(positions[:, 0].numpy(), expected["root_pos"], atol=1e-10)
    ahead = positions[:, 1] - positions[:, 0]
    half = np.array(expected["half_angle"])
    np.testing.assert_allclose(ahead[:, [0, 2]].numpy(), np.stack([-np.sin(2 * half), np.cos(2 * half)], -1))


@CODECS
@pytest.mark.parametrize("turning", [0.0, 0.12])
def test_features_are_those_of_the_plain_computation(codec: JointCodec, turning: float) -> None:
    x = wander(70, seed=1, turning=turning, codec=codec)
    np.testing.assert_allclose(codec.features(x).numpy(), plain_features(codec, x.numpy()), atol=1e-9)


@CODECS
def test_round_trip_of_positions_is_exact(codec: JointCodec) -> None:
    x = wander(90, seed=2, turning=0.05, codec=codec)
    canonical = codec.canonical(x)
    again = codec.positions(codec.features(x))
    torch.testing.assert_close(again, canonical[:-1], atol=1e-12, rtol=0)
    single = codec.positions(codec.features(x.float()))
    torch.testing.assert_close(single, canonical[:-1].float(), atol=1e-4, rtol=0)


def test_canonical_is_on_the_floor_over_the_origin_facing_z() -> None:
    x = HUMANML3D.canonical(wander(30, seed=3))
    assert float(x[..., 1].min()) == 0
    torch.testing.assert_close(x[0, 0, ::2], torch.zeros(2, dtype=torch.float64))
    across = x[0, 2] - x[0, 1] + x[0, 17] - x[0, 16]
    assert across[0] < 0
    assert abs(float(across[2])) < 1e-12


def test_round_trip_of_features_is_exact_where_the_heading_is_constant() -> None:
    x = wander(60, seed=4)
    x = x[:1].repeat(60, 1, 1) + torch.arange(60.0)[:, None, None] * torch.tensor([0.01, 0.002, 0.03])
    features = HUMANML3D.features(x.double())
    again = HUMANML3D.features(HUMANML3D.positions(features))
    torch.testing.assert_close(again, features[:-1], atol=1e-12, rtol=0)


def test_round_trip_of_features_of_a_turning_figure_differs_by_the_smoothing_at_the_end() -> None:
    features = HUMANML3D.features(wander(196, seed=5, turning=0.03))
    again = HUMANML3D.features(HUMANML3D.positions(features))
    error = (again - features[:-1]).abs()
    # frames further than the filter's 80 from the end do not see the frame that is lost
    assert float(error[:110, :259].max()) < 1e-10
    assert 1e-4 < float(error.max()) < 0.05


def test_turning_past_straight_backwards_is_no_jump() -> None:
    turns = rotations.about("Y", 0.03 * torch.arange(300, dtype=torch.float64))
    x = (turns[:, None] @ wander(1)[..., None])[..., 0]  # a stiff figure, once and a half around
    inner = HUMANML3D.features(x)[80:-80, 0]  # where the filter sees no end
    torch.testing.assert_close(inner, torch.full_like(inner, -0.015), atol=1e-9, rtol=0)


@CODECS
def test_leading_axes_are_motions_of_their_own(codec: JointCodec) -> None:
    x = torch.stack([wander(20, seed, codec=codec) for seed in range(6)]).reshape(2, 3, 20, -1, 3)
    features = codec.features(x)
    assert features.shape == (2, 3, 19, codec.width)
    torch.testing.assert_close(features[1, 2], codec.features(x[1, 2]))
    torch.testing.assert_close(codec.positions(features)[1, 0], codec.positions(features[1, 0]))


def test_what_stands_behind_the_end_does_not_matter() -> None:
    features = HUMANML3D.features(wander(30))
    padded = torch.cat([features, torch.zeros(10, 263)])
    assert torch.equal(HUMANML3D.positions(padded)[:29], HUMANML3D.positions(features))


def test_feet_are_still_below_the_bound_of_each_data_set() -> None:
    still = wander(20)[:1].repeat(20, 1, 1)
    assert bool((HUMANML3D.features(still)[:, 259:] == 1).all())
    for step, expected in ((0.0446, 1), (0.0448, 0)):  # the root of .002 is .04472
        moved = still + torch.arange(20.0)[:, None, None] * torch.tensor([step, 0, 0])
        assert bool((HUMANML3D.features(moved)[:, 259:] == expected).all())
    lifted = still.clone()
    lifted[1::2, 7] += 0.1  # the left ankle alone
    assert HUMANML3D.features(lifted)[0, 259:].tolist() == [0, 1, 1, 1]


def test_kit_counts_in_its_own_unit() -> None:
    x = wander(20, codec=KIT)
    height = KIT.features(x)[:, 3]
    torch.testing.assert_close(height * 0.75 / 480, KIT.canonical(x)[:-1, 0, 1])


def test_degenerate_figures_give_finite_numbers() -> None:
    for x in (torch.zeros(5, 22, 3), wander(5) * torch.tensor([0.0, 1.0, 0.0])):
        assert bool(HUMANML3D.features(x).isfinite().all())


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="251 features for the codec 'humanml3d', which has 263"):
        HUMANML3D.positions(torch.zeros(4, 251))
    with pytest.raises(ValueError, match="24 joints for the codec 'humanml3d', which has 22"):
        HUMANML3D.features(torch.zeros(4, 24, 3))
    with pytest.raises(ValueError, match="1 frames has no velocities"):
        HUMANML3D.features(torch.zeros(1, 22, 3))
    with pytest.raises(ValueError, match=r"the shape \(4, 66\); needed"):
        HUMANML3D.features(torch.zeros(4, 66))
