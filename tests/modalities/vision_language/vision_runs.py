"""Short runs on tiny vision-language models, and rows for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import prefopt
import tiny_vision
from modalities.image.image_runs import QUIET, picture, png
from prefopt.comparisons import Item


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def chat(text: str, media: tuple[Any, ...], answer: str) -> Item:
    """An answer to a user's message with pictures or videos."""
    prompt = [{"role": "user", "content": text}]
    return Item({"prompt": prompt, "pictures": media}, said(answer))


def rows_of(folder: Path, count: int = 4, **more: Any) -> list[dict[str, Any]]:
    """SymMPO's rows: two images, three answers."""
    rows = []
    for n in range(count):
        for k, side in enumerate(("own", "other")):
            (folder / f"{n}-{side}.png").write_bytes(png(picture(2 * n + k)))
        rows.append(
            {
                "id": f"r{n}",
                "images": [f"{n}-own.png"],
                "contrast_image": f"{n}-other.png",
                "prompt": [{"role": "user", "content": f"what is in picture {tiny_vision.WORDS[n]} ?"}],
                "chosen": said("a red cat sits"),
                "rejected": said("no blue dog"),
                "contrast_chosen": said("two green house"),
                **more,
            }
        )
    return rows


def written(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def train(method: str, model: Path, data: Any, folder: Path, **options: Any) -> Any:
    given = {"max_steps": 2, "per_device_train_batch_size": 2, "learning_rate": 1e-3, **QUIET, **options}
    return prefopt.train(
        method,
        model=str(model),
        data=data if isinstance(data, list) else str(data),
        output_dir=str(folder),
        **given,
    )
