"""The 80 classes of COCO, and what COCO's own files say of its images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefopt.evaluation.benchmarks.base import ident
from prefopt.evaluation.benchmarks.objects import Vocabulary

CLASSES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light", "fire hydrant",
    "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra",
    "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite",
    "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle", "wine glass", "cup", "fork",
    "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut",
    "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard",
    "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear",
    "hair drier", "toothbrush",
)  # fmt: skip


def objects_in(content: Mapping[str, Any], vocabulary: Vocabulary) -> dict[str, set[str]]:
    """Classes of each image by an annotation file of COCO.

    Args:
        content: of instances_*.json (boxes and masks by category) or captions_*.json (reference captions, whose objects
            are found by the vocabulary).
        vocabulary: words and classes.

    Returns:
        Classes by image id.

    Raises:
        ValueError: annotations that are neither, or a category that the vocabulary lacks.
    """
    names = {category["id"]: str(category["name"]) for category in content.get("categories", [])}
    found: dict[str, set[str]] = {ident(image["id"]): set() for image in content.get("images", [])}
    for annotation in content["annotations"]:
        classes = found.setdefault(ident(annotation["image_id"]), set())
        if "caption" in annotation:
            classes |= set(vocabulary.classes(vocabulary.mentions(str(annotation["caption"]))))
        elif annotation.get("category_id") in names:
            name = names[annotation["category_id"]]
            of = vocabulary.class_of(name)
            if of is None:
                raise ValueError(
                    f"COCO's category {name!r} is no word of the vocabulary: add it as a word of its class"
                )
            classes.add(of)
        else:
            raise ValueError(
                "an annotation has neither `caption` nor the `category_id` of a category in the file: needed COCO's "
                "instances_*.json or captions_*.json"
            )
    return found
