"""Rows for `prefopt build contrast`, and what came of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from PIL import Image

from modalities.image.image_runs import picture, png
from modalities.vision_language.building.scribe import NAMES
from prefopt.cli.main import main
from prefopt.modalities.vision_language.rows import Wanted
from prefopt.objectives import Branch

TWO_PICTURES = Wanted(
    {
        "cc": Branch(condition="contrast", sample="contrast_chosen"),
        "c": Branch(condition="own", sample="contrast_chosen"),
    }
)
FUNCTIONS = '''
import numpy as np
from PIL import ImageOps

def colours(images):
    """Angles on a circle: the mean red of a picture."""
    with open({calls!r}, "a") as file:
        file.write("x" * len(images))
    angles = [np.asarray(image)[..., 0].mean() / 255 * 3 for image in images]
    return np.stack([np.cos(angles), np.sin(angles)], 1)

def zeros(images):
    return np.zeros((len(images), 2))

def wrong(images):
    return np.ones(3)

def inverted(image, row):
    with open({calls!r}, "a") as file:
        file.write("x")
    if "skip" in row["prompt"]:
        return None
    return ImageOps.invert(image), None if "silent" in row["prompt"] else f"not {{row['chosen']}}"

def same(image, row):
    return image, "another answer"

def failing(image, row):
    raise KeyError(row["id"])

NUMBER = 3
'''


def calls(tmp_path: Path) -> int:
    path = tmp_path / "calls"
    return len(path.read_text()) if path.exists() else 0


def row(n: int, image: str, **more: Any) -> dict[str, Any]:
    return {
        "id": f"r{n}", "images": [image], "prompt": [{"role": "user", "content": "what is this ?"}],
        "chosen": [{"role": "assistant", "content": f"right {n}"}],
        "rejected": [{"role": "assistant", "content": f"wrong {n}"}], **more,
    }  # fmt: skip


def reds(folder: Path, levels: list[int], **more: Any) -> list[dict[str, Any]]:
    """Rows of pictures of these levels of red."""
    for n, level in enumerate(levels):
        Image.new("RGB", (10, 8), (level, 0, 0)).save(folder / f"red-{n}.png")
    return [row(n, f"red-{n}.png", **more) for n in range(len(levels))]


def noisy(folder: Path, count: int = 4, **more: Any) -> list[dict[str, Any]]:
    """Rows of pictures of noise."""
    for n in range(count):
        (folder / f"noise-{n}.png").write_bytes(png(picture(n)))
    return [row(n, f"noise-{n}.png", **more) for n in range(count)]


def build(folder: Path, rows: list[dict[str, Any]], mode: str, *options: object, output: str = "out") -> Any:
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(one) + "\n" for one in rows))
    given = ["build", "contrast", str(data), "--mode", mode, "-o", str(folder / output), *map(str, options)]
    return CliRunner().invoke(main, given)


def read(folder: Path, name: str = "rows") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def built(
    folder: Path, rows: list[dict[str, Any]], mode: str, *options: object, output: str = "out"
) -> list[dict[str, Any]]:
    done = build(folder, rows, mode, *options, output=output)
    assert done.exit_code == 0, done.output
    return read(folder / output)


def reasons(folder: Path) -> dict[str, str]:
    return {drop["id"]: drop["reason"] for drop in read(folder / "out", "dropped")}


def opened(folder: Path, found: dict[str, Any], column: str = "contrast_images") -> Image.Image:
    (name,) = found[column]
    return Image.open(folder / "out" / name).convert("RGB")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def fields(folder: Path, colours: list[str]) -> list[dict[str, Any]]:
    """Rows without answers."""
    for colour in colours:
        Image.new("RGB", (10, 8), NAMES[colour]).save(folder / f"{colour}.png")
    return [
        {"id": colour, "image": f"{colour}.png", "prompt": f"What colour is number {n}?"}
        for n, colour in enumerate(colours)
    ]


def spec(url: str) -> list[str]:
    return [
        part for role in ("captioner", "answerer", "rewriter") for part in (f"--{role}", f"openai:tiny@{url}")
    ]
