"""Mirror images of motions and captions."""

import pytest
import torch

from prefopt.motion.humanml3d import HUMANML3D, KIT, JointCodec
from prefopt.motion.mirror import mirrored, mirrored_caption, mirrored_positions
from walking_figures import wander

CODECS = pytest.mark.parametrize("codec", [HUMANML3D, KIT], ids=["humanml3d", "kit"])


@CODECS
def test_mirrored_features_are_those_of_mirrored_positions(codec: JointCodec) -> None:
    x = wander(50, seed=7, turning=0.04, codec=codec)
    expected = codec.features(mirrored_positions(x, codec.skeleton))
    torch.testing.assert_close(mirrored(codec.features(x), codec), expected, atol=1e-9, rtol=0)


@CODECS
def test_mirrored_twice_is_the_same(codec: JointCodec) -> None:
    features = torch.randn(2, 9, codec.width)
    assert torch.equal(mirrored(mirrored(features, codec), codec), features)
    assert not torch.equal(mirrored(features, codec), features)


def test_joints_change_sides() -> None:
    x = wander(3)
    y = mirrored_positions(x, HUMANML3D.skeleton)
    torch.testing.assert_close(y[:, 20], x[:, 21] * torch.tensor([-1.0, 1, 1]))
    torch.testing.assert_close(y[:, 0], x[:, 0] * torch.tensor([-1.0, 1, 1]))


def test_codecs_without_a_mirror_of_their_own_decode_and_encode() -> None:
    class Plain:
        """Positions as they are."""

        name, skeleton, width, fps = "plain", HUMANML3D.skeleton, 66, 20.0

        def positions(self, features_FD: torch.Tensor) -> torch.Tensor:
            return features_FD.unflatten(-1, (22, 3))

        def features(self, positions_FJ3: torch.Tensor) -> torch.Tensor:
            return positions_FJ3.flatten(-2)

    x = wander(3)
    out = mirrored(x.flatten(-2), Plain())
    torch.testing.assert_close(out, mirrored_positions(x, HUMANML3D.skeleton).flatten(-2))


def test_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="66 features for the codec 'kit', which has 251"):
        mirrored(torch.zeros(2, 66), KIT)
    with pytest.raises(ValueError, match=r"needs \(frames, 21, 3\)"):
        mirrored_positions(torch.zeros(2, 22, 3), KIT.skeleton)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("walks left", "walks right"),
        ("RIGHT arm, Left leg", "LEFT arm, Right leg"),
        ("left and right", "right and left"),
        ("turns clockwise", "turns counterclockwise"),
        ("counter-clockwise circle", "clockwise circle"),
        ("Anticlockwise", "Clockwise"),
        ("anti clockwise", "clockwise"),
        ("counterclockwise, then clockwise", "clockwise, then counterclockwise"),
        ("right-handed, leftwards, righthand", "left-handed, rightwards, lefthand"),
        ("stands upright, bright, lefty copyright", "stands upright, bright, righty copyright"),
        ("a person jumps", "a person jumps"),
        ("", ""),
    ],
)
def test_captions(text: str, expected: str) -> None:
    assert mirrored_caption(text) == expected
