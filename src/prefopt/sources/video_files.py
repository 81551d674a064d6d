"""Video files: opened by PyAV without letting FFmpeg open anything else, and read packet by packet.

Files are opened by Python and handed over, so that FFmpeg opens nothing by itself: no address, no pipe, no file that
another file names.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from prefopt.comparisons import UnusableItem
from prefopt.sources.pictures import MAX_PIXELS

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.stream import VideoStream

# FFmpeg knows hundreds; some of them (playlists, scripts) are lists of other files and addresses, some are plain text,
# and a raw stream (.h264) does not know how fast it is to be shown
CONTAINERS = "mov,matroska,avi,gif,mpegts,mpeg,flv,ogg,asf,ivf,yuv4mpegpipe,apng"
MAX_PACKETS = 10_000_000  # two days at 60 frames a second


class Source(NamedTuple):
    """A file or its bytes, and what messages call it."""

    where: Path | bytes
    name: str


def content_digest(source: Source) -> bytes:
    """32 bytes that name the file's content, wherever it is kept."""
    if isinstance(source.where, bytes):
        return blake2b(source.where, digest_size=32).digest()
    return _cached_digest(source.where, mark(source.where))


def mark(path: Path) -> tuple[int, int]:
    """Size and time of change, by which a file is known to be the same."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        why = "no such file" if isinstance(error, FileNotFoundError) else getattr(error, "strerror", error)
        raise UnusableItem(f"{path}: {why}", "missing_video") from None
    if not path.is_file():  # a pipe would be waited for
        what = "a folder" if path.is_dir() else "no regular file"
        raise UnusableItem(f"{path}: it is {what}; needed a video file", "missing_video")
    return status.st_size, status.st_mtime_ns


@lru_cache(maxsize=4096)
def _cached_digest(path: Path, seen: tuple[int, int]) -> bytes:
    digest = blake2b(digest_size=32)
    with _file(Source(path, str(path))) as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.digest()


@contextmanager
def _file(source: Source) -> Iterator[Any]:
    if isinstance(source.where, bytes):
        yield io.BytesIO(source.where)
        return
    try:
        file = source.where.open("rb")
    except OSError as error:
        raise UnusableItem(f"{source.where}: {error.strerror or error}", "missing_video") from None
    with file:
        yield file


@contextmanager
def opened(source: Source) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The file and its first stream of moving pictures; whatever FFmpeg raises says that the video is broken."""
    try:
        import av
    except ImportError:
        raise ImportError(
            "reading videos needs PyAV, which is not here: pip install 'prefopt[video]'"
        ) from None

    # "none" is no protocol: nothing but the file that is handed over can be opened
    options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "none"}
    with _file(source) as file:
        if not file.read(1):
            raise UnusableItem(f"{source.name} is empty: it has no bytes", "broken_video")
        file.seek(0)
        try:
            with av.open(file, "r", container_options=options, metadata_errors="replace") as container:
                yield container, _stream(container, source.name)
        except UnusableItem:
            raise
        # PyAV raises UnicodeDecodeError, IndexError, MemoryError (of lengths that the file claims), ..., and one bad
        # file must not end a run
        except Exception as error:
            raise UnusableItem(
                f"{source.name} is no video that can be read here, damaged, or cut short ({_said(error)});"
                " encode it again, for instance as MP4",
                "broken_video",
            ) from None


def _said(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _stream(container: InputContainer, name: str) -> VideoStream:
    from av.stream import Disposition

    covers = Disposition.attached_pic | Disposition.timed_thumbnails
    streams = [stream for stream in container.streams.video if not stream.disposition & covers]
    if not streams:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise UnusableItem(f"{name} has no moving pictures: there is only {kinds} in it", "no_frames")
    stream = streams[0]
    if stream.codec_context is None:
        raise UnusableItem(f"{name} is in a format that cannot be decoded here", "broken_video")
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MAX_PIXELS:
        raise UnusableItem(
            f"{name} has frames of {width} x {height} pixels, more than {MAX_PIXELS:,} in all; make them smaller",
            "huge_video",
        )
    stream.thread_type = "AUTO"
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    return stream


def packets_of(container: InputContainer, stream: VideoStream, name: str) -> Iterator[av.Packet[Any]]:
    """Those that are there whole; ends where the file is cut short."""
    import av

    packets, number = container.demux(stream), 0
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError:
            return
        if packet is None:
            return
        if packet.size and not packet.is_corrupt:
            number += 1
            if number > MAX_PACKETS:
                raise UnusableItem(
                    f"{name} has more than {MAX_PACKETS:,} frames; cut it in pieces", "huge_video"
                )
            yield packet
