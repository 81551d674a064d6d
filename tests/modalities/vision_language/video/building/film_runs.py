"""Films of plain colours, a server that describes what it is sent, and what came of a build."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from click.testing import CliRunner, Result
from PIL import Image

from generation.fake_server import FakeServer
from prefopt.cli.main import main

COLOURS = {
    "red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220), "yellow": (220, 220, 20), "cyan": (20, 220, 220),
    "magenta": (220, 20, 220), "white": (235, 235, 235), "orange": (235, 130, 20), "grey": (125, 125, 125), "brown": (110, 60, 20),
}  # fmt: skip
FPS = 4
THREE = ("--distractors", 3, "--pool", 2)
EMBEDDER = '''
import numpy as np

def colours(images):
    """The mean colour of each image, seen from grey."""
    with open({calls!r}, "a") as file:
        file.write("x" * len(images))
    return np.stack([np.asarray(image, float).mean((0, 1)) for image in images]) - [128.5, 120.5, 119.5]

def asks(text):
    """A question about the colour."""
    return "Which colour is the field that can be seen?"

def yes(text):
    return "Yes."

def fails(text):
    raise KeyError("broken")

def number(text):
    return 3
'''


def film(
    path: Path, shots: Sequence[tuple[str, float]], fps: int = FPS, size: tuple[int, int] = (32, 32)
) -> Path:
    """A video of fields of colour, each so many seconds long."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"g": "4", "qp": "1"})
        (stream.width, stream.height), stream.pix_fmt = size, "yuv420p"
        count = 0
        for colour, seconds in shots:
            for _ in range(round(seconds * fps)):
                pixels_HW3 = np.full((*size[::-1], 3), COLOURS[colour], np.uint8)
                frame = av.VideoFrame.from_ndarray(pixels_HW3, format="rgb24").reformat(format="yuv420p")
                frame.pts, frame.time_base, count = count, Fraction(1, fps), count + 1
                container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def sound(path: Path) -> Path:
    """A file without pictures."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        silence.sample_rate, silence.pts = 8000, 0
        container.mux(stream.encode(silence))
        container.mux(stream.encode())
    return path


def fields(folder: Path, colours: Sequence[str], seconds: float = 2.0) -> Path:
    """A folder of clips, one of each colour; a colour may be named again."""
    for n, colour in enumerate(colours):
        film(folder / f"{n}-{colour}.mp4", [(colour, seconds)])
    return folder


def colour_at(url: str) -> str:
    """Name of the colour of an image within a text."""
    with Image.open(io.BytesIO(base64.b64decode(url.partition("base64,")[2]))) as image:
        pixel = image.convert("RGB").getpixel((0, 0))
    return min(COLOURS, key=lambda name: sum(abs(a - b) for a, b in zip(COLOURS[name], pixel, strict=True)))


def shown(body: dict[str, Any]) -> list[str]:
    """Colours of the frames that were sent, in order."""
    content = body["messages"][-1]["content"]
    blocks = content if isinstance(content, list) else []
    return [colour_at(block["image_url"]["url"]) for block in blocks if block["type"] == "image_url"]


def said(body: dict[str, Any]) -> str:
    """Words of the last message."""
    content = body["messages"][-1]["content"]
    if isinstance(content, str):
        return content
    return " ".join(block["text"] for block in content if block["type"] == "text")


def reply(body: dict[str, Any]) -> str:
    """Captioner, question writer, answerer and reader in one, of fields of colour."""
    text, colours = said(body), shown(body)
    if colours:
        return f"A {colours[0]} field." if "Describe this" in text else f"It is {colours[0]}."
    if "Write one question" in text:
        return "Which colour is the field that can be seen?"
    if "Do these two answers" in text:
        right, answer = re.findall(r"\[(?:Right answer|Answer to be judged)\]\n(.*)", text)
        return "Yes" if right.split()[-1] == answer.split()[-1] else "No"
    caption = re.search(r"A (\w+) field", text)
    return f"It is {caption[1]}." if caption else "I cannot know."


def server(**options: Any) -> FakeServer:
    """A server that does all of this."""
    return FakeServer(reply=options.pop("reply", reply), **options)


def functions(folder: Path) -> str:
    """A file of functions; its name, to which the function's is added."""
    path = folder / "functions.py"
    path.write_text(EMBEDDER.format(calls=str(folder / "calls")))
    return f"{path}:"


def arguments(
    command: str, folder: Path, data: Path, url: str, *options: object, output: str = "out"
) -> list[str]:
    """A command that asks a server everything."""
    models = ["--captioner", f"openai:tiny@{url}"]
    if command == "longvpo-1":
        models += ["--embedder", f"{functions(folder)}colours"]
    return ["build", command, str(data), "-o", str(folder / output), *models, *map(str, options)]


def run(*given: Any, **more: Any) -> Result:
    """What a command did."""
    return CliRunner().invoke(main, arguments(*given, **more))


def read(folder: Path, name: str = "rows") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def rows_built(command: str, folder: Path, *given: Any, **more: Any) -> list[dict[str, Any]]:
    """Rows of a command that must end well."""
    done = run(command, folder, *given, **more)
    assert done.exit_code == 0, done.output
    return read(folder / more.get("output", "out"))


def told(folder: Path) -> dict[str, Any]:
    """What a build says of itself."""
    found: dict[str, Any] = json.loads((folder / "out" / "build.json").read_text())
    return found


def reasons(folder: Path, output: str = "out") -> dict[str, str]:
    return {drop["id"]: drop["reason"] for drop in read(folder / output, "dropped")}


def colour_of(clip: dict[str, Any]) -> str:
    """Of a clip of `fields`, by its file's name."""
    return Path(clip["source"]).stem.partition("-")[2]
