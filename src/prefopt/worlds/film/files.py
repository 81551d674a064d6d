"""Clips as files on disk: H.264 without loss, so that what is read from them is what was drawn, to the last bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from prefopt.worlds.film.task import ANSWERS, FPS, OBJECTS, SIDE, Clip

CODEC = "libx264rgb"
OPTIONS = {"qp": "0", "threads": "1"}
"""No loss, in red, green and blue, as they are drawn."""


def pool(renders: int) -> list[Clip]:
    """Every object doing everything, so many times each: clip `number(clip, r, renders)` is render r."""
    return [
        Clip(object_, answer)
        for object_ in range(len(OBJECTS))
        for answer in range(len(ANSWERS))
        for _ in range(renders)
    ]


def number(clip: Clip, render: int, renders: int) -> int:
    """Place in the pool of one render of a clip."""
    return (clip.object * len(ANSWERS) + clip.answer) * renders + render


def name_of(k: int) -> str:
    """Name of the file of clip k of the pool."""
    return f"{k:05d}.mp4"


def write(folder: Path, pixels_NFHWC: np.ndarray) -> Iterator[Path]:
    """A file for each clip, one after the other.

    Raises:
        ModuleNotFoundError: PyAV is not installed.
    """
    for k, frames in enumerate(pixels_NFHWC):
        path = folder / name_of(k)
        encode(path, frames)
        yield path


def encode(path: Path, pixels_FHWC: np.ndarray) -> None:
    """Write a clip.

    Args:
        path: of the file, which ends in .mp4.
        pixels_FHWC: uint8.

    Raises:
        ModuleNotFoundError: PyAV is not installed.
    """
    try:
        import av
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "the film world's clips are video files, which PyAV writes: pip install 'prefopt[video]'"
        ) from None

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(CODEC, rate=round(FPS), options=OPTIONS)
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "rgb24"
        for k, pixels in enumerate(pixels_FHWC):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts = k
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
