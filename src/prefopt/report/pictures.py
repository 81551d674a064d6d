"""Pictures of a run folder, made small enough to travel inside the page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

CRISP_BELOW = 96  # pixels; smaller ones are shown with their pixels as squares instead of blurred
EXACT_UP_TO = 128  # pixels; kept losslessly
MOST_PIXELS = 64_000_000  # of a file; beyond, it is taken for a mistake
JPEG_QUALITY = 87


@dataclass(frozen=True)
class Picture:
    """A picture as a `data:` address, or the reason why it cannot be shown.

    Attributes:
        uri: the embedded picture; empty where there is none.
        width, height: of the file, in pixels.
        crisp: tiny, to be enlarged without smoothing.
        problem: why there is none.
    """

    uri: str = ""
    width: int = 0
    height: int = 0
    crisp: bool = False
    problem: str = ""


def embed(folder: Path, relative: Any, side: int) -> Picture:
    """A picture file of a run folder, its longer side at most `side` pixels.

    Args:
        folder: of the run.
        relative: path within it, as the record has it; anything else is a problem, not an error.
        side: in pixels.

    Example:
        >>> embed(Path("runs/none"), "record/images/first-chosen.png", 320).problem
        'record/images/first-chosen.png is not there'
    """
    if not isinstance(relative, str) or not relative:
        return Picture(problem="no picture was recorded")
    path = folder / relative
    try:
        # a record must not be able to put any other file of this machine into a page that is sent around
        if not path.resolve().is_relative_to(folder.resolve()):
            return Picture(problem=f"{relative} lies outside the run folder")
        if not path.is_file():
            return Picture(problem=f"{relative} is not there")
        return _read(path, side)
    except Exception as error:  # a damaged picture raises anything from OSError to SyntaxError
        return Picture(problem=f"{relative} cannot be read ({type(error).__name__})")


def opened(path: Path) -> Image:
    """A picture file as RGB.

    Raises:
        ValueError: it is too large to be what it should be.
        OSError, SyntaxError: it is damaged.
    """
    from PIL import Image

    with Image.open(path) as file:
        width, height = file.size
        if width * height > MOST_PIXELS:
            raise ValueError("too large")
        return file.convert("RGB")


def as_uri(image: Image, exact: bool) -> str:
    """A picture as a `data:` address, without loss if `exact`."""
    buffer = io.BytesIO()
    if exact:
        image.save(buffer, "PNG", optimize=True)
    else:
        image.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return f"data:image/{'png' if exact else 'jpeg'};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _read(path: Path, side: int) -> Picture:
    from PIL import Image

    image = opened(path)
    width, height = image.size
    longest = max(width, height)
    if longest > side:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return Picture(as_uri(image, longest <= EXACT_UP_TO), width, height, longest < CRISP_BELOW)
