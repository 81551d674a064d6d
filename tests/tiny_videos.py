"""Videos of a few kilobytes, encoded on the spot."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

WIDTH, HEIGHT = 64, 48

ENCODINGS: dict[str, dict[str, Any]] = {
    "h264.mp4": {"codec": "libx264", "options": {"bf": "3", "g": "12"}},  # frames are stored out of order
    "h264.mkv": {"codec": "libx264", "options": {"bf": "3", "g": "12"}},
    "h264.ts": {"codec": "libx264", "options": {"bf": "3", "g": "12"}},
    "h264.flv": {"codec": "libx264", "options": {"bf": "2", "g": "12"}},
    "h264.avi": {"codec": "libx264", "options": {"bf": "3", "g": "100"}},  # without times
    "open.mp4": {
        "codec": "libx264",
        "options": {"bf": "3", "g": "12", "x264-params": "open-gop=1:bframes=3"},
    },
    "refresh.mp4": {"codec": "libx264", "options": {"g": "12", "x264-params": "intra-refresh=1"}},
    "mpeg4.mp4": {"codec": "mpeg4", "options": {"bf": "2"}},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"bf": "2"}},
    "vp9.webm": {
        "codec": "libvpx-vp9",
        "options": {"lag-in-frames": "20", "g": "12", "deadline": "realtime"},
    },
    "vp8.webm": {"codec": "libvpx", "options": {"auto-alt-ref": "1", "lag-in-frames": "16", "g": "20"}},
    "ffv1.mkv": {"codec": "ffv1", "pix_fmt": "bgr0"},
    "mjpeg.mov": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "gif.gif": {"codec": "gif", "pix_fmt": "rgb8"},
}


def drawing(index: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A frame unlike all others: its number as eight black or white blocks, and things that move."""
    pixels_HW3 = np.full((height, width, 3), 60, np.uint8)
    pixels_HW3[(index * 5) % height, :, 1] = 255
    pixels_HW3[:, (index * 3) % width, 2] = 255
    for bit in range(8):
        pixels_HW3[:8, bit * 8 : bit * 8 + 8] = 255 * (index >> bit & 1)
    return pixels_HW3


def number_in(pixels_HW3: np.ndarray) -> int:
    """Which frame was drawn."""
    return sum((pixels_HW3[2:6, bit * 8 + 2 : bit * 8 + 6].mean() > 128) << bit for bit in range(8))


def write(
    target: Path | io.BytesIO,
    frames: int = 40,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rate: int = 10,
    options: dict[str, str] | None = None,
    format: str | None = None,
    ticks: Sequence[int] | None = None,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    audio: bool = False,
) -> None:
    """A video of numbered frames; `ticks`: their times in 1/rate seconds, where those are not even."""
    with av.open(str(target) if isinstance(target, Path) else target, "w", format=format) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        sound = container.add_stream("aac", rate=8000, layout="mono") if audio else None
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(drawing(index, size[1], size[0]), format="rgb24").reformat(
                format=pix_fmt
            )
            frame.pts, frame.time_base = (ticks[index] if ticks else index), Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound is not None:
            silence = av.AudioFrame.from_ndarray(
                np.zeros((1, 8000), np.float32), format="fltp", layout="mono"
            )
            silence.sample_rate, silence.pts = 8000, 0
            container.mux(sound.encode(silence))
            container.mux(sound.encode())


def encoded(name: str = "h264.mp4", **changed: Any) -> bytes:
    """One of `ENCODINGS`, as bytes."""
    buffer = io.BytesIO()
    formats = {"mp4": "mp4", "mkv": "matroska", "ts": "mpegts", "webm": "webm", "mov": "mov"}
    suffix = name.rpartition(".")[2]
    write(buffer, format=formats.get(suffix, suffix), **{**ENCODINGS.get(name, {}), **changed})
    return buffer.getvalue()


def all_frames(data: bytes) -> list[np.ndarray]:
    """Every frame in the order in which it is shown, decoded from the beginning: the slow and sure way."""
    with av.open(io.BytesIO(data)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def packed_again(data: bytes, path: Path, drop: int = 0, **options: str) -> bytes:
    """The same packets in another file, without the first few."""
    with av.open(str(path), "w", options=options) as target, av.open(io.BytesIO(data)) as source:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if packet.size and number >= drop:
                packet.stream = stream
                target.mux(packet)
    return path.read_bytes()


def png() -> bytes:
    """An image, which is no video."""
    buffer = io.BytesIO()
    Image.fromarray(drawing(0)).save(buffer, "PNG")
    return buffer.getvalue()
