"""Small images, rows of them, and files that name them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from PIL import Image


def picture(seed: int, size: tuple[int, int] = (8, 8), format: str = "PNG") -> bytes:
    colours = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(colours).save(buffer, format)
    return buffer.getvalue()


CAT, DOG, COW = map(picture, range(3))
PAIR = {"prompt": "a cat", "chosen_image": CAT, "rejected_image": DOG}
PICK = {"caption": "a cat", "jpg_0": CAT, "jpg_1": DOG, "label_0": 1.0}
SINGLE = {"prompt": "a cat", "image": CAT, "label": True}


def save(folder: Path, **images: bytes) -> None:
    """Files named by the keywords."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in images.items():
        (folder / f"{name}.png").write_bytes(data)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Rows as a file of the format that the name ends in."""
    match path.suffix:
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        case ".json":
            path.write_text(json.dumps(rows))
        case ".csv":
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, rows[0])
                writer.writeheader()
                writer.writerows(rows)
        case ".parquet":
            pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)
    return path
