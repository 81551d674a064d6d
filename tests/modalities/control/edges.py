"""Rows of pictures of noise with their edges, which a detector reads, at the size of the tiny pipelines."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from modalities.battery import picture_rows
from prefopt.modalities.control.detectors import find

DETECTOR = "canny_torch"


def edge_rows(folder: Path) -> Path:
    """Pictures of noise at the model's size, and their edges."""
    rows = picture_rows(folder, ("image", "condition"))
    detector = find(DETECTOR)
    for path in folder.glob("*-image.png"):
        image = Image.open(path).convert("RGB").resize((32, 32))
        image.save(path)
        levels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        drawn = detector.draw(detector.detect(levels[None].float() / 255))[0]
        edges = Image.fromarray(drawn.mul(255).byte().permute(1, 2, 0).numpy())
        edges.save(folder / path.name.replace("image", "condition"))
    return rows


def condition_rows(folder: Path) -> Path:
    """Each row's losing condition is the next one's true one."""
    rows = edge_rows(folder)
    told = [json.loads(line) for line in rows.read_text().splitlines()]
    for n, row in enumerate(told):
        row |= {
            "chosen_condition": row.pop("condition"),
            "rejected_condition": f"{(n + 1) % len(told)}-condition.png",
        }
    rows.write_text("".join(json.dumps(row) + "\n" for row in told))
    return rows
