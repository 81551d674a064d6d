"""Short runs on small images: what their tests share."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import prefopt

QUIET = {
    "eval_size": 0, "sample_prompts": 0, "save_strategy": "no", "logging_steps": 1, "eval_steps": 1000,
    "lr_scheduler_type": "constant", "weight_decay": 0.0,
}  # fmt: skip
LORA = {"use_peft": True, "lora_r": 2, "lora_alpha": 8}


def picture(seed: int) -> Image.Image:
    """42 pixels wide, 40 high."""
    noise = np.random.default_rng(seed)
    return Image.fromarray(noise.integers(0, 256, (40, 42, 3), dtype=np.uint8))


def png(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, options.pop("format", "PNG"), **options)
    return buffer.getvalue()


def rotten(data: bytes) -> bytes:
    """A PNG whose header and end are fine and whose pixels are not."""
    middle = data.index(b"IDAT") + 40
    return data[:middle] + b"\xff" * 100 + data[middle + 100 :]


def pair(n: int, **columns: Any) -> dict[str, Any]:
    return {"prompt": f"picture {n}", "chosen_image": png(picture(2 * n)), "rejected_image": png(picture(2 * n + 1)),
            **columns}  # fmt: skip


def train(name: str, model: Path, data: Path, folder: Path, **options: Any) -> prefopt.TrainResult:
    given = {**QUIET, "learning_rate": 5e-6, "max_steps": 3, **options}
    return prefopt.train(name, model=model, data=data, output_dir=str(folder), **given)


def column(result: prefopt.TrainResult, name: str) -> list[float]:
    return [line[name] for line in result.history if name in line]


def record(folder: Path, name: str) -> Any:
    return json.loads((folder / "record" / f"{name}.json").read_text())


def note(folder: Path, check: str) -> str:
    return next(c["detail"] for c in record(folder, "manifest")["checks"] if c["name"] == check)


def weights(folder: Path) -> bytes:
    (path,) = (p for p in (folder / "model").glob("**/*.safetensors") if p.parent.name in ("model", "unet"))
    return path.read_bytes()


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
