"""Poses of people: a detector of objects finds them, a ViTPose model their keypoints: find("pose:DETECTOR:DIR").

Legend: B images, C = 3, H W in pixels, N people of an image, K = 17 keypoints in COCO's order.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prefopt.metrics.pose import pose_agreement
from prefopt.modalities.control.detectors.base import Labels, Metric, Poses
from prefopt.modalities.control.detectors.models import BATCH, config_of, exactly, frozen, place_of
from prefopt.modalities.control.detectors.preparing import image_processor
from prefopt.modalities.control.detectors.skeleton import draw_people
from prefopt.modalities.image.scorers import check_images

KEYPOINTS = 17
LEAST_BOX, LEAST_KEYPOINT = 0.2, 0.5
"""How sure a person and a keypoint must be, as in the release of condition preference optimization."""
SAME_BOX = 0.9
"""Boxes that overlap by this IoU are of one person."""


class Pose:
    """Where the keypoints of each person are.

    Args:
        people: folder or hub id of a model that detects objects, persons among them.
        source: folder or hub id of a ViTPose model of COCO's 17 keypoints.
        device: of both.

    Raises:
        FileNotFoundError: no model there.
        ValueError: other kinds of models, no class "person", or other keypoints.
    """

    metric: Metric = "pose"

    def __init__(self, people: str | Path, source: str | Path, device: str = "cpu") -> None:
        from transformers.models.auto.modeling_auto import MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES

        self.name = f"pose:{people}:{source}"
        self.people_place, self.place, self.device = place_of(people), place_of(source), device
        found = config_of(
            self.people_place, set(MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES), "detecting objects"
        )
        self.person_ids = [int(i) for i, label in found.id2label.items() if str(label).lower() == "person"]
        if not self.person_ids:
            labels = ", ".join(str(label) for label in list(found.id2label.values())[:8])
            raise ValueError(
                f"{people} detects {labels}, ...; needed a model with the class person in id2label"
            )
        config = config_of(self.place, {"vitpose"}, "poses")
        if config.num_labels != KEYPOINTS:
            raise ValueError(
                f"{source} finds {config.num_labels} keypoints; needed COCO's {KEYPOINTS} (num_labels in its config.json)"
            )
        # of ViTPose+, whose experts each know a data set; COCO is the first
        self.experts = getattr(config.backbone_config, "num_experts", 1) > 1

    @torch.no_grad()
    def detect(self, images_BCHW: Tensor) -> Poses:
        """The people of each image in [0, 1]: x, y in pixels and sureness, all 0 where a keypoint is not there."""
        check_images(images_BCHW)
        size = (images_BCHW.shape[2], images_BCHW.shape[3])
        levels_BHWC = (images_BCHW.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        found = []
        with exactly(self.device):
            for start in range(0, len(levels_BHWC), BATCH):
                some = levels_BHWC[start : start + BATCH]
                for image, boxes_N4 in zip(some, self._boxes(some), strict=True):
                    found.append(self._people(image, boxes_N4).to(images_BCHW.device))
        return Poses(found, size)

    def draw(self, labels: Labels) -> Tensor:
        """Skeletons on black, as OpenPose draws them, of the size of the images they were found in."""
        if not isinstance(labels, Poses):
            raise ValueError(
                f"poses are a {type(labels).__name__}, which does not say how large the picture is: needed what detect "
                "gives, or Poses(people, size=(height, width))"
            )
        if not labels:
            return torch.zeros(0, 3, *labels.size)
        return torch.stack(
            [draw_people(people_NK3, labels.size).to(people_NK3.device) for people_NK3 in labels]
        )

    def read(self, conditions_BCHW: Tensor) -> Labels:
        """Raises a ValueError: keypoints cannot be read from skeletons that hide one another."""
        raise ValueError(
            f"{self.name} cannot read keypoints from drawn poses: keep them beside the control images, as detect gives "
            "them for the real images"
        )

    def agreement(self, labels_a: Labels, labels_b: Labels) -> Tensor:
        """(B,) OKS of the best pairing of people, over the larger number of people."""
        return torch.tensor([pose_agreement(a, b) for a, b in zip(labels_a, labels_b, strict=True)])

    @cached_property
    def _models(self) -> tuple[Any, Any]:
        from transformers import AutoModelForObjectDetection, VitPoseForPoseEstimation

        return (
            frozen(AutoModelForObjectDetection, self.people_place, self.device),
            frozen(VitPoseForPoseEstimation, self.place, self.device),
        )

    @cached_property
    def _processors(self) -> tuple[Any, Any]:
        return image_processor(self.people_place), image_processor(self.place)

    def _boxes(self, images_BHWC: np.ndarray) -> list[Tensor]:
        """(N, 4) boxes of the people of each image, x0 y0 x1 y1, the surest first."""
        processor, model = self._processors[0], self._models[0]
        inputs = processor(list(images_BHWC), return_tensors="pt").to(self.device)
        sizes = [images_BHWC.shape[1:3]] * len(images_BHWC)
        results = processor.post_process_object_detection(
            model(**inputs), threshold=LEAST_BOX, target_sizes=sizes
        )
        out = []
        for result in results:
            boxes_M4, score_M = result["boxes"].float().cpu(), result["scores"].float().cpu()
            person_M = torch.isin(result["labels"].cpu(), torch.tensor(self.person_ids))
            wide_M = (boxes_M4[:, 2:] - boxes_M4[:, :2] >= 1).all(-1)
            kept_M = person_M & wide_M
            out.append(without_duplicates(boxes_M4[kept_M], score_M[kept_M]))
        return out

    def _people(self, image_HWC: np.ndarray, boxes_N4: Tensor) -> Tensor:
        """(N, 17, 3) of the people in these boxes of one image, without those that show no keypoint."""
        processor, model = self._processors[1], self._models[1]
        if not len(boxes_N4):
            return torch.zeros(0, KEYPOINTS, 3)
        # COCO's form of boxes: a corner, width and height
        boxes = [torch.cat([boxes_N4[:, :2], boxes_N4[:, 2:] - boxes_N4[:, :2]], -1).numpy()]
        pixels = (
            processor(image_HWC, boxes=boxes, return_tensors="pt")["pixel_values"].float().to(self.device)
        )
        which = {"dataset_index": torch.zeros(len(pixels), dtype=torch.int64, device=self.device)}
        outputs = model(pixel_values=pixels, **(which if self.experts else {}))
        people = processor.post_process_pose_estimation(outputs, boxes=boxes)[0]
        xy_NK2 = torch.stack([person["keypoints"] for person in people]).float()
        sure_NK1 = torch.stack([person["scores"] for person in people]).float().view(-1, KEYPOINTS, 1)
        people_NK3 = torch.cat([xy_NK2, sure_NK1], -1)
        people_NK3 = torch.where(sure_NK1 > LEAST_KEYPOINT, people_NK3, 0.0)
        return people_NK3[(people_NK3[..., 2] > 0).any(-1)]


def without_duplicates(boxes_N4: Tensor, score_N: Tensor, overlap: float = SAME_BOX) -> Tensor:
    """Boxes, the surest first, without those that overlap a surer one by an IoU of more than `overlap`.

    Args:
        boxes_N4: (N, 4) x0 y0 x1 y1.
        score_N: (N,).
        overlap: IoU.
    """
    boxes_N4 = boxes_N4[score_N.argsort(descending=True, stable=True)]
    area_N = (boxes_N4[:, 2:] - boxes_N4[:, :2]).prod(-1)
    low_NN2 = torch.maximum(boxes_N4[:, None, :2], boxes_N4[None, :, :2])
    high_NN2 = torch.minimum(boxes_N4[:, None, 2:], boxes_N4[None, :, 2:])
    common_NN = (high_NN2 - low_NN2).clamp(min=0).prod(-1)
    iou_NN = common_NN / (area_N[:, None] + area_N[None, :] - common_NN)
    kept: list[int] = []
    for n in range(len(boxes_N4)):
        if all(iou_NN[n, m] <= overlap for m in kept):
            kept.append(n)
    return boxes_N4[kept]
