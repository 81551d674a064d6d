"""Figures from turns, and with other bones."""

import pytest
import torch

from prefopt.motion import kinematics, rotations
from prefopt.motion.humanml3d import HUMANML3D, KIT
from walking_figures import kit_bones, wander


def test_forward_kinematics_of_a_two_bone_arm() -> None:
    R = torch.stack([rotations.about("Z", torch.tensor(torch.pi / 2))] * 3)[None]
    offsets = torch.tensor([[9.0, 9, 9], [1, 0, 0], [0, 2, 0]])
    positions, turns = kinematics.forward_kinematics((-1, 0, 1), offsets, R, torch.tensor([[1.0, 2, 3]]))
    # a quarter turn takes x to y; the second bone is turned twice: y to -y
    torch.testing.assert_close(positions[0], torch.tensor([[1.0, 2, 3], [1, 3, 3], [1, 1, 3]]))
    torch.testing.assert_close(turns[0, 2], rotations.about("Z", torch.tensor(3 * torch.pi / 2)))


def test_bones_and_back() -> None:
    x, parents = wander(4), HUMANML3D.skeleton.parents
    torch.testing.assert_close(kinematics.joined(parents, kinematics.bones(parents, x), x[:, 0]), x)


@pytest.mark.parametrize(
    ("codec", "offsets"), [(HUMANML3D, kinematics.ADULT_J3), (KIT, kit_bones())], ids=["humanml3d", "kit"]
)
def test_to_reference_keeps_directions_and_takes_lengths(codec, offsets) -> None:
    x = wander(30, seed=1, codec=codec)
    child = x * 0.6  # a smaller figure
    out = kinematics.to_reference(child, offsets, codec)
    torch.testing.assert_close(out, x, atol=1e-9, rtol=0)
    odd = kinematics.to_reference(child, offsets * torch.linspace(0.5, 2, len(offsets))[:, None], codec)
    parents = codec.skeleton.parents
    old, new = (kinematics.bones(parents, one)[:, 1:] for one in (x, odd))
    torch.testing.assert_close(*(torch.nn.functional.normalize(b, dim=-1) for b in (old, new)))
    lengths = offsets.norm(dim=-1) * torch.linspace(0.5, 2, len(offsets))
    torch.testing.assert_close(new.norm(dim=-1), lengths[None, 1:].expand(30, -1).double())


def test_the_adult_is_a_mirror_image_of_itself_and_stands_upright() -> None:
    offsets = kinematics.ADULT_J3
    mirror = offsets[list(HUMANML3D.skeleton.mirrored)] * torch.tensor([-1.0, 1, 1])
    assert torch.equal(mirror, offsets)
    standing = kinematics.joined(HUMANML3D.skeleton.parents, offsets, torch.zeros(3).double())
    assert 1.4 < float(standing[:, 1].max() - standing[:, 1].min()) < 1.75
    assert float(standing[20, 0]) > 0.5  # the left wrist is at positive x


def test_errors_of_to_reference() -> None:
    with pytest.raises(ValueError, match="has 22 joints"):
        kinematics.to_reference(torch.zeros(3, 24, 3), kinematics.ADULT_J3)
    with pytest.raises(ValueError, match="a leg has length 0"):
        kinematics.to_reference(torch.zeros(3, 22, 3), kinematics.ADULT_J3)
