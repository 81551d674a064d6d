"""Agreement of class maps: confusion over a whole set, mean IoU, and the IoU of single images.

Legend: B images, H W in pixels, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

IGNORED = 255
"""The class id of pixels that have no label, in all of the data sets that are common."""


@dataclass
class Confusion:
    """Which class was found where which was true, added up over a set.

    Attributes:
        num_classes: K.
        counts_KK: pixels by true class (rows) and found class (columns).
        missed_K: labelled pixels for which no class was found at all (255), by true class.

    Example:
        >>> confusion = Confusion(2)
        >>> confusion.add(torch.tensor([[0, 1, 255]]), torch.tensor([[0, 0, 1]]))
        >>> confusion.counts_KK.tolist()
        [[1, 0], [1, 0]]
        >>> confusion.mean_iou()
        0.25
    """

    num_classes: int
    counts_KK: Tensor = field(init=False)
    missed_K: Tensor = field(init=False)

    def __post_init__(self) -> None:
        if self.num_classes < 1:
            raise ValueError(f"num_classes is {self.num_classes}; needed 1 or more")
        self.counts_KK = torch.zeros(self.num_classes, self.num_classes, dtype=torch.int64)
        self.missed_K = torch.zeros(self.num_classes, dtype=torch.int64)

    def add(self, true: Tensor, found: Tensor) -> None:
        """Count the pixels of one or more maps.

        Args:
            true: integers of any shape: class ids, 255 where there is no label. Such pixels do not count.
            found: of the same shape. 255 where a label is true counts as missed.

        Raises:
            ValueError: other shapes, no integers, or ids that are neither a class nor 255.
        """
        check_class_maps(true, found)
        classes = self.num_classes
        valid = true != IGNORED
        true_P, found_P = true[valid].to("cpu", torch.int64), found[valid].to("cpu", torch.int64)
        for name, ids_P in (("true", true_P), ("found", found_P[found_P != IGNORED])):
            outside = ids_P[(ids_P < 0) | (ids_P >= classes)]
            if len(outside):
                raise ValueError(
                    f"the {name} map has the class ids {outside.unique().tolist()[:8]}, and there are {classes} classes: "
                    f"needed ids from 0 to {classes - 1}, or {IGNORED} for pixels without a label"
                )
        seen = found_P != IGNORED
        pairs = true_P[seen] * classes + found_P[seen]
        self.counts_KK += torch.bincount(pairs, minlength=classes**2).view(classes, classes)
        self.missed_K += torch.bincount(true_P[~seen], minlength=classes)

    def iou_K(self) -> Tensor:
        """TP / (TP + FP + FN) of each class in double precision; NaN for a class that is neither true nor found anywhere."""
        hits_K = self.counts_KK.diagonal()
        union_K = self.counts_KK.sum(0) + self.counts_KK.sum(1) + self.missed_K - hits_K
        return torch.where(union_K > 0, hits_K.double() / union_K, torch.nan)

    def mean_iou(self) -> float:
        """Mean over the classes that are true or found anywhere.

        Raises:
            ValueError: no labelled pixel was counted.
        """
        self._check_counted()
        return float(self.iou_K().nanmean())

    def pixel_accuracy(self) -> float:
        """Share of the labelled pixels whose class was found.

        Raises:
            ValueError: no labelled pixel was counted.
        """
        self._check_counted()
        return float(self.counts_KK.diagonal().sum() / (self.counts_KK.sum() + self.missed_K.sum()).double())

    def _check_counted(self) -> None:
        if not int(self.counts_KK.sum() + self.missed_K.sum()):
            raise ValueError(
                f"no pixel with a label was counted, so there is no accuracy: all were {IGNORED}, or there were no maps"
            )


def image_iou(a_BHW: Tensor, b_BHW: Tensor) -> Tensor:
    """Mean IoU of each pair of maps by itself, over the classes in either.

    Unlike the mean IoU of a set, in which rare classes weigh as much as others, this judges single images.

    Args:
        a_BHW, b_BHW: (B, H, W) class ids; pixels that are 255 in either do not count.

    Returns:
        (B,) in [0, 1], in double precision; 1 for maps without a common labelled pixel.

    Raises:
        ValueError: other shapes, or no integers.
    """
    check_class_maps(a_BHW, b_BHW)
    if a_BHW.ndim != 3:
        raise ValueError(f"class maps have the shape {tuple(a_BHW.shape)}; needed (B, H, W)")
    out = []
    for a_HW, b_HW in zip(a_BHW, b_BHW, strict=True):
        valid = (a_HW != IGNORED) & (b_HW != IGNORED)
        ids, pair_2P = torch.unique(torch.stack([a_HW[valid], b_HW[valid]]), return_inverse=True)
        if not len(ids):
            out.append(1.0)
            continue
        if len(ids) > IGNORED:  # their numbers stand for them, and 255 must not
            raise ValueError(f"class maps have {len(ids)} classes; needed at most {IGNORED}")
        confusion = Confusion(len(ids))
        confusion.add(pair_2P[0], pair_2P[1])
        out.append(confusion.mean_iou())
    return torch.tensor(out, dtype=torch.float64, device=a_BHW.device)


def check_class_maps(true: Tensor, found: Tensor) -> None:
    """Raise a ValueError unless two maps are of one shape and hold integers."""
    if true.shape != found.shape:
        raise ValueError(
            f"class maps of the shapes {tuple(true.shape)} and {tuple(found.shape)}: needed the same shape"
        )
    for maps in (true, found):
        if maps.is_floating_point() or maps.is_complex() or maps.dtype == torch.bool:
            raise ValueError(f"class maps of dtype {maps.dtype}: needed integers, the ids of classes")
