"""Lets torchvision be imported beside a torch that it was not built for: its operators are declared, and not there.

torchvision comes without a build for this CPU-only torch. What processors of transformers use of it (transforms of tensors) is
Python on top of torch; its compiled operators are never called, but their names must exist when it is imported.
"""

import importlib.abc
import importlib.machinery
import sys

OPERATORS = (
    "nms",
    "qnms",
    "box_iou_rotated",
    "deform_conv2d",
    "_deform_conv2d_backward",
    "roi_align",
    "_roi_align_backward",
    "qroi_align",
    "roi_pool",
    "_roi_pool_backward",
    "ps_roi_align",
    "_ps_roi_align_backward",
    "ps_roi_pool",
    "_ps_roi_pool_backward",
)


class Declaring(importlib.abc.MetaPathFinder):
    """Declares the operators when torchvision is about to be imported, so that torch is not imported for nothing."""

    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            library = torch.library.Library("torchvision", "FRAGMENT")
            for operator in OPERATORS:
                library.define(f"{operator}(Tensor x) -> Tensor")
            sys.modules[__name__].kept = library
        return None


sys.meta_path.insert(0, Declaring())
