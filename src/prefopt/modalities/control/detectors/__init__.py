"""Detectors: what a control image should show, read from an image; found by name.

    from prefopt.modalities.control.detectors import fidelity, find

    detector = find("canny")
    labels = detector.detect(images_BCHW)
    conditions_BCHW = detector.draw(labels)

See docs/control.md for the names, and `base.py` for what a detector offers.
"""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path
from typing import Any

from prefopt.modalities.control.detectors.base import (
    Detector,
    DifferentiableDetector,
    Labels,
    Metric,
    Poses,
    check_detector,
    read,
    require_loss,
)
from prefopt.modalities.control.detectors.fidelity import HEADLINE, fidelity

__all__ = [
    "FORMS",
    "HEADLINE",
    "Detector",
    "DifferentiableDetector",
    "Labels",
    "Metric",
    "Poses",
    "fidelity",
    "files_of",
    "find",
    "read",
    "require_loss",
]

FORMS = {
    "canny": "canny or canny:LOW,HIGH (of 0..255)",
    "canny_torch": "canny_torch or canny_torch:LOW,HIGH (of 0..1)",
    "segmentation": "segmentation:DIR or segmentation:DIR:PALETTE.json",
    "depth": "depth:DIR",
    "pose": "pose:DETECTOR:DIR",
    "world": "world:NAME or world:NAME:independent",
    "FILE.py": "FILE.py:NAME",
}
"""How each detector is written; DIR and DETECTOR are folders that `save_pretrained` wrote, or hub ids."""
NOT_HERE = ("hed", "lineart")


def find(spec: str, device: str = "cpu") -> Detector:
    """A detector by its name; models are loaded when first used.

    Args:
        spec: one of `FORMS`.
        device: of its models.

    Raises:
        ValueError: unknown form, a part is missing or superfluous, or it cannot be a detector; says which.
        FileNotFoundError: a folder or file is not there.

    Example:
        >>> find("canny_torch:0.1,0.3").name
        'canny_torch:0.1,0.3'
    """
    if ".py:" in spec:
        return _of_file(spec)
    kind, *parts = spec.split(":")
    if kind in NOT_HERE:
        raise ValueError(
            f"the detector {kind} is not here: its published weights are pickles (.pth), which can run code when they are "
            "read, and no package on PyPI has them as safetensors. Convert them once where you trust them, write "
            f"detect, draw, read and agreement round them in a file, and give FILE.py:NAME (with metric = 'ssim')"
        )
    if kind not in FORMS:
        raise ValueError(f"no detector is called {spec!r}; there are: {'; '.join(FORMS.values())}")
    least, most = {"canny": (0, 1), "canny_torch": (0, 1), "pose": (2, 2), "depth": (1, 1)}.get(kind, (1, 2))
    if not (least <= len(parts) <= most and all(parts)):
        raise ValueError(
            f"detector {spec!r} has {len(parts)} parts after {kind!r}, some may be empty; write {FORMS[kind]}"
        )
    match kind:
        case "canny":
            from prefopt.modalities.control.detectors.canny import Canny

            return Canny(*_thresholds(spec, parts))
        case "canny_torch":
            from prefopt.modalities.control.detectors.canny import TorchCanny

            return TorchCanny(*_thresholds(spec, parts))
        case "segmentation":
            from prefopt.modalities.control.detectors.segmentation import Segmentation

            return Segmentation(parts[0], parts[1] if parts[1:] else None, device=device)
        case "depth":
            from prefopt.modalities.control.detectors.depth import Depth

            return Depth(parts[0], device=device)
        case "pose":
            from prefopt.modalities.control.detectors.pose import Pose

            return Pose(parts[0], parts[1], device=device)
    return _of_world(spec, parts)


def files_of(spec: str) -> dict[str, str]:
    """Digests of the folders and files that a detector's name refers to: what it reads may change under the same name.

    Example:
        >>> files_of("canny_torch:0.1,0.3")
        {}
    """
    from prefopt.models.identity import saved_fingerprint

    parts = [spec.rpartition(":")[0]] if ".py:" in spec else spec.split(":")[1:]
    found = {}
    for part in parts:
        path = Path(part).expanduser()
        if path.is_dir():
            found[part] = saved_fingerprint(path)
        elif path.is_file():
            found[part] = blake2b(path.read_bytes(), digest_size=16).hexdigest()
    return found


def _thresholds(spec: str, parts: list[str]) -> list[float]:
    if not parts:
        return []
    try:
        low, high = (float(number) for number in parts[0].split(","))
    except ValueError:
        raise ValueError(
            f"detector {spec!r}: the thresholds {parts[0]!r} are not two numbers with a comma; write "
            f"{FORMS[spec.split(':')[0]]}"
        ) from None
    return [low, high]


def _of_world(spec: str, parts: list[str]) -> Detector:
    from prefopt.worlds import world_of

    world = world_of(f"world:{parts[0]}")
    make = getattr(world, "detector", None)
    if not callable(make):
        raise ValueError(f"the world {parts[0]} has no detector, as its images follow no control images")
    if parts[1:] not in ([], ["independent"]):
        raise ValueError(
            f"detector {spec!r}: a world has two detectors; write {FORMS['world']}, the second to judge by"
        )
    return check_detector(make(independent=bool(parts[1:])), spec)


def _of_file(spec: str) -> Detector:
    from prefopt.evaluation.user_files import object_of

    found: Any = object_of(spec, "detector")
    if isinstance(found, type) or (callable(found) and not hasattr(found, "detect")):
        try:
            found = found()
        except Exception as error:  # whatever a user's code raises
            raise ValueError(
                f"{spec} cannot be called without arguments: {type(error).__name__}: {error}; needed a detector, or a "
                "function or class that gives one"
            ) from error
    return check_detector(found, spec)
