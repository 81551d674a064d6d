"""Short runs on a tiny model of videos, and rows for them; clips are lists of images on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from modalities.image.image_runs import png


def clip_row(folder: Path, name: str, frames: int = 4) -> dict[str, Any]:
    """A clip of a colour that its name decides, with a moving stripe, as a row holds it."""
    colour = np.random.default_rng(list(name.encode())).integers(40, 255, 3)
    files = []
    for k in range(frames):
        pixels_HW3 = np.zeros((32, 32, 3), np.uint8)
        pixels_HW3[:, 4 * k : 4 * k + 12] = colour
        file = folder / f"{name}-{k}.png"
        file.write_bytes(png(Image.fromarray(pixels_HW3)))
        files.append(file.name)
    return {"source": files, "fps": 2.0}


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def anchored_rows(
    folder: Path, count: int = 4, clips: int = 3, pool: int = 2, **more: Any
) -> list[dict[str, Any]]:
    """Rows of LongVPO's first stage."""
    made = [clip_row(folder, f"clip{n}") for n in range(count * (clips + pool))]
    answers = ["a red cat sits", "two green house", "no blue dog", "it stands on the mat"]
    rows = []
    for n in range(count):
        own = made[n * (clips + pool) : (n + 1) * (clips + pool)]
        rows.append(
            {
                "id": f"r{n}",
                "video": own[:clips],
                "anchor": n % clips,
                "pinned": (n + 1) % clips,
                "pool": own[clips:],
                "reference_context": "anchor",
                "prompt": [{"role": "user", "content": "what is in this picture ?"}],
                "chosen": said(answers[n % 4]),
                "rejected": said(answers[(n + 1) % 4]),
                **more,
            }
        )
    return rows


def written(folder: Path, rows: list[dict[str, Any]], name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def column(folder: Path, name: str) -> list[float]:
    """A metric of each training step."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text("utf-8").splitlines())
    return [line[name] for line in lines if line["split"] == "train"]
