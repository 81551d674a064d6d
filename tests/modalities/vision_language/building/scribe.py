"""A server that plays captioner, answerer and rewriter: what it says follows from the picture that it is sent."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

from PIL import Image

from generation.fake_server import FakeServer

NAMES = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "black": (0, 0, 0)}


def colour_in(content: Any) -> str:
    """Name of the colour of the one picture of a message."""
    (url,) = (block["image_url"]["url"] for block in content if block["type"] == "image_url")
    with Image.open(io.BytesIO(base64.b64decode(url.partition("base64,")[2]))) as image:
        pixel = image.convert("RGB").getpixel((0, 0))
    return min(NAMES, key=lambda name: sum(abs(a - b) for a, b in zip(NAMES[name], pixel, strict=True)))


def reply(body: dict[str, Any]) -> str:
    """What the model says."""
    content = body["messages"][-1]["content"]
    if isinstance(content, list):
        words = " ".join(block["text"] for block in content if block["type"] == "text")
        colour = colour_in(content)
        if "Describe this picture" in words:
            return f"A {colour} field."
        return f"It is {colour}." if body["seed"] % 2 else "It is pink."
    if "JSON" in content:
        caption = (
            content.partition("is right")[2].partition("[Description of the picture]\n")[2].partition("\n")[0]
        )
        colour = caption.split()[1]
        said = [line for line in content.splitlines() if line.startswith("It is ")]
        sides = ([c for c in said if colour in c], [c for c in said if colour not in c])
        return "Here you are:\n" + json.dumps(dict(zip(("consistent", "conflicting"), sides, strict=True)))
    claims = [line.removeprefix("- ") for line in content.splitlines() if line.startswith("- ")]
    return "I see: " + " ".join(claims)


def scribe(**options: Any) -> FakeServer:
    """Such a server."""
    return FakeServer(reply=options.pop("reply", reply), **options)
