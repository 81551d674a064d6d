"""What a detector is: it reads from an image what a control image shows, and draws control images.

Legend: B images, C = 3, H W in pixels, N people.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, Protocol, SupportsIndex, TypeAlias, get_args, overload

from torch import Tensor

Metric: TypeAlias = Literal["miou", "edge_f1", "ssim", "rmse", "pose"]
METRICS: tuple[str, ...] = get_args(Metric)
PARTS = ("name", "metric", "detect", "draw", "read", "agreement")


class Poses(list[Tensor]):
    """The people of each image, (N, 17, 3), and the size of the images, without which they cannot be drawn.

    Args:
        people: one tensor an image: x and y in pixels, and how sure the keypoint is (0: not there), in COCO's order.
        size: (height, width) of the images.
    """

    def __init__(self, people: Iterable[Tensor], size: tuple[int, int]) -> None:
        super().__init__(people)
        self.size = size

    @overload
    def __getitem__(self, place: SupportsIndex) -> Tensor: ...
    @overload
    def __getitem__(self, place: slice) -> Poses: ...
    def __getitem__(self, place: Any) -> Tensor | Poses:
        found = super().__getitem__(place)
        return Poses(found, self.size) if isinstance(place, slice) else found


Labels: TypeAlias = Tensor | list[Tensor]
"""(B, H, W) int64 class ids, with 255 where there is none; (B, H, W) floats in [0, 1]; or poses, a `Poses`."""


class Detector(Protocol):
    """Reads from images what control images show, and measures whether two readings agree.

    Attributes:
        name: for logs and tables.
        metric: by which a set is judged, see `fidelity`.
    """

    name: str
    metric: Metric

    def detect(self, images_BCHW: Tensor) -> Labels:
        """What (B, 3, H, W) images in [0, 1] show, at their size; without gradients, and each image by itself."""
        ...

    def draw(self, labels: Labels) -> Tensor:
        """(B, 3, H, W) control images in [0, 1]."""
        ...

    def read(self, conditions_BCHW: Tensor) -> Labels:
        """The labels that control images show: `read(draw(labels))` gives them back, where it can be done.

        Raises:
            ValueError: no control images of this kind, or of a kind that does not hold the labels.
        """
        ...

    def agreement(self, labels_a: Labels, labels_b: Labels) -> Tensor:
        """(B,) in [0, 1]: how alike the labels of each image are, 1 where they are the same."""
        ...


class DifferentiableDetector(Detector, Protocol):
    """A detector through which gradients reach the images; its weights have none."""

    def loss(self, images_BCHW: Tensor, labels: Labels) -> Tensor:
        """(B,) how far each image is from its label, in single precision."""
        ...


def read(detector: Detector, names: Sequence[str], conditions_BCHW: Tensor) -> Labels:
    """The labels that control images show, as `Detector.read`.

    Args:
        detector: not of poses.
        names: of the control images, for messages.
        conditions_BCHW: (B, 3, H, W) in [0, 1].

    Raises:
        ValueError: one that the detector cannot read, such as a mask with a class it lacks; says which.
    """
    try:
        return detector.read(conditions_BCHW)
    except ValueError:
        for name, condition_CHW in zip(names, conditions_BCHW, strict=True):
            try:
                detector.read(condition_CHW[None])
            except ValueError as error:
                raise ValueError(
                    f"the condition of {name} cannot be read by {detector.name}: {error}"
                ) from error
        raise


def require_loss(detector: Detector) -> DifferentiableDetector:
    """The same detector, if gradients pass through it.

    Raises:
        ValueError: they do not.
    """
    if not callable(getattr(detector, "loss", None)):
        raise ValueError(
            f"the detector {detector.name} has no loss, as no gradient passes through it: for a loss of consistency use "
            "canny_torch, segmentation:DIR, depth:DIR, or a detector of your own with loss(images, labels)"
        )
    return detector  # type: ignore[return-value]


def check_detector(found: Any, name: str) -> Detector:
    """An object as a detector, after a look at what it offers.

    Raises:
        ValueError: a part is missing, or the metric is unknown; says which.
    """
    missing = [part for part in PARTS if not hasattr(found, part)]
    if missing:
        raise ValueError(
            f"{name} gives a {type(found).__name__} without {', '.join(missing)}: a detector has {', '.join(PARTS)}"
        )
    if found.metric not in METRICS:
        raise ValueError(f"{name} has the metric {found.metric!r}; needed one of: {', '.join(METRICS)}")
    detector: Detector = found
    return detector
