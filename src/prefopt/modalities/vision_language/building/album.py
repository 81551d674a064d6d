"""Pictures of a build: those that are made become files beside its rows, named by their content; others stay where they are."""

from __future__ import annotations

import io
import os
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from prefopt.files import write_whole
from prefopt.modalities.vision_language.contrasts import Picture
from prefopt.sources.pictures import ImageRef, decode

if TYPE_CHECKING:
    from PIL import Image

PICTURES = "pictures"
SUFFIXES = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tiff"}
"""Of files that are written as they were given; others, raw pixels for one, become PNG."""


class Album:
    """A folder of pictures.

    Args:
        folder: of the rows; pictures lie in `pictures` within it.
        pictures: name of that folder.
    """

    def __init__(self, folder: Path, pictures: str = PICTURES) -> None:
        self.folder, self.pictures = folder, pictures

    def file(self, name: str) -> Path:
        """Where a picture of that name lies, or will."""
        return self.folder / self.pictures / f"{name}.png"

    def keep(self, image: Image.Image, name: str = "") -> Picture:
        """A picture that was made, as a file.

        Args:
            image: 8-bit RGB.
            name: of the file; named by its pixels if left out.
        """
        image = image.convert("RGB")
        name = name or pixels_digest(image)
        if not self.file(name).exists():
            file = io.BytesIO()
            image.save(file, format="PNG")
            self._write(self.file(name), file.getvalue())
        return self.made(name)

    def made(self, name: str) -> Picture:
        """A picture that is there."""
        return Picture(ImageRef(self.file(name), f"{self.pictures}/{name}.png"))

    def path(self, picture: Picture) -> str:
        """What a row says of a picture: a path from its folder; what is no file yet is written."""
        source = picture.ref.source
        if isinstance(source, Path):
            return Path(os.path.relpath(source.resolve(), self.folder.resolve())).as_posix()
        facts = picture.ref.facts
        suffix = SUFFIXES.get(facts.format)
        if suffix is None:
            return self.path(self.keep(decode(picture.ref), facts.digest))
        place = self.folder / self.pictures / f"{facts.digest}.{suffix}"
        if not place.exists():
            self._write(place, picture.ref.read())
        return f"{self.pictures}/{place.name}"

    def _write(self, place: Path, data: bytes) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_whole(place, data)


def pixels_digest(image: Image.Image) -> str:
    """32 hexadecimal digits that name size and pixels."""
    digest = blake2b(f"{image.mode} {image.size}".encode(), digest_size=16)
    digest.update(image.tobytes())
    return digest.hexdigest()


def same_pixels(first: Picture, second: Picture) -> bool:
    """Whether two pictures look the same, whatever files they are in."""
    if first.ref.digest == second.ref.digest:
        return True
    if first.ref.size != second.ref.size:
        return False
    return decode(first.ref).tobytes() == decode(second.ref).tobytes()
