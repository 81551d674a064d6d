"""One image of a data set: named, looked at without decoding, decoded to RGB, resized to a model's pixels.

    ImageRef    where an image is (file, bytes, cell of a table); read when asked, equal content has an equal digest
    problem     why an image cannot be used, if so
    decode      the image as 8-bit RGB, upright, transparency on white
    to_pixels   resized, cropped, in [-1, 1]

Shapes: H, W are height and width of the model's input in pixels. Sizes of images are (width, height) as in Pillow,
those for a diffusion model's micro-conditioning (height, width) as in diffusers.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from prefopt.comparisons import UnusableItem
from prefopt.sources.cells import shown

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

# Pillow reads many more; some of them start other programs (EPS)
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "MPO", "AVIF")
MAX_PIXELS = 89_478_485  # where Pillow suspects a decompression bomb; 256 MiB as RGB
EXIF_ORIENTATION = 0x0112

Crop = Literal["center", "none"]


class Facts(NamedTuple):
    """What can be said of an image without decoding it."""

    digest: str
    """Of the file's bytes; the same wherever they are kept."""
    bytes: int
    format: str
    mode: str
    """Pillow's name of the pixels' kind: RGB, L, RGBA, P, CMYK, I;16, ..."""
    width: int
    """Pixels, of the upright image."""
    height: int
    complete: bool
    """Whether the file ends as its format ends; where False, only decoding tells."""


@dataclass(frozen=True)
class Cell:
    """An image inside a table on disk (a `datasets.Dataset`), which is larger than memory more often than not."""

    table: Any
    row: int
    column: str
    folder: Path
    place: int | None = None
    """Of the image in a cell that holds several."""

    def read(self) -> bytes:
        """The bytes in the cell, or of the file that it names."""
        value = self.table[self.row][self.column]
        value = value if self.place is None else value[self.place]
        inner = as_ref(value, self.column, self.folder)
        return inner.read()


@dataclass(frozen=True)
class ImageRef:
    """An image that is read when asked for.

    Attributes:
        source: the file's path, its bytes, or the table's cell that holds it.
        name: what messages call it.

    Example:
        >>> ImageRef(b"P6 2 1 255 abcdef").size
        (2, 1)
    """

    source: Path | bytes | Cell
    name: str = field(default="image", compare=False)

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"ImageRef({self.name!r})"

    def read(self) -> bytes:
        """The encoded bytes.

        Raises:
            UnusableItem: there is no such file, or it cannot be read ("missing_image").
        """
        if isinstance(self.source, bytes):
            return self.source
        if isinstance(self.source, Cell):
            return self.source.read()
        if self.source.exists() and not (
            self.source.is_file() or self.source.is_dir()
        ):  # a pipe would be waited for
            raise UnusableItem(f"{self.source}: it is no regular file", "missing_image")
        try:
            return self.source.read_bytes()
        except OSError as error:
            why = "no such file" if isinstance(error, FileNotFoundError) else error.strerror or error
            raise UnusableItem(f"{self.source}: {why}", "missing_image") from None

    @cached_property
    def facts(self) -> Facts:
        """Digest, format and size, from one look at the bytes; raises `UnusableItem` as `decode` does."""
        data = self.read()
        image = _open(data, self.name)
        width, height = _stored_size(image)
        if _orientation(image) > 4:  # lies on its side
            width, height = height, width
        return Facts(
            digest=blake2b(data, digest_size=16).hexdigest(),
            bytes=len(data),
            format=image.format or "",
            mode=image.mode,
            width=width,
            height=height,
            complete=_complete(image, data),
        )

    @property
    def digest(self) -> str:
        """32 hexadecimal digits that name the content."""
        return self.facts.digest

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, upright."""
        return self.facts.width, self.facts.height


def as_ref(value: Any, name: str, folder: Path = Path()) -> ImageRef:
    """A row's value as an image.

    Args:
        value: bytes; a path; {"bytes": ..., "path": ...} as `datasets` stores images; a Pillow image; an array of
            uint8, (H, W) or (H, W, 3 or 4). The last two are kept as uncompressed RGB.
        name: of the column, for messages.
        folder: where relative paths start.

    Raises:
        UnusableItem: the value is absent, or none of these.

    Example:
        >>> as_ref("cat.png", "chosen_image", Path("data")).source.as_posix()
        'data/cat.png'
    """
    if isinstance(value, ImageRef):
        return value
    if isinstance(value, Mapping) and ("bytes" in value or "path" in value):
        value = value.get("bytes") or value.get("path")
    if value is None or (isinstance(value, str) and not value):
        raise UnusableItem(f"{name} is absent", "missing_value")
    if isinstance(value, bytes | bytearray | memoryview):
        return ImageRef(bytes(value), name)
    if isinstance(value, str) and value.startswith(("http://", "https://")):
        raise UnusableItem(f"{name} is a web address; download the image and give its path", "wrong_type")
    if isinstance(value, str | Path):
        return ImageRef(folder / Path(value).expanduser(), str(value))
    from PIL import Image

    if hasattr(value, "__array_interface__") and not isinstance(value, Image.Image):
        try:
            value = Image.fromarray(value)
        except (TypeError, ValueError) as error:
            raise UnusableItem(
                f"{name} is an array of {value.dtype} with shape {value.shape} ({error}); needed uint8, (height, width, 3)",
                "wrong_type",
            ) from None
    if isinstance(value, Image.Image):
        rgb = _guarded(lambda: _rgb(value), name)
        # raw pixels, because no encoder promises the same bytes in its next version, and digests are kept
        return ImageRef(b"P6 %d %d 255\n" % rgb.size + rgb.tobytes(), name)
    raise UnusableItem(
        f"{name} is {shown(value)}; needed an image: bytes, a path, a Pillow image", "wrong_type"
    )


def problem(ref: ImageRef, thorough: bool = True) -> UnusableItem | None:
    """Why an image cannot be used: its text says it in a sentence, its `reason` in a word. None if it can.

    Args:
        ref: the image.
        thorough: decode it, which alone finds damage in the middle. Otherwise only a file that is no image, is too
            large, or ends too early is found, at the cost of reading it.

    Example:
        >>> problem(ImageRef(b"", "cat.png"))
        UnusableItem('cat.png is empty: it has no bytes')
    """
    try:
        if not ref.facts.complete or thorough:
            decode(ref)
    except UnusableItem as error:
        return error
    return None


def decode(ref: ImageRef) -> Image.Image:
    """The image as 8-bit RGB, turned upright by its EXIF orientation; the first frame of several.

    Transparent parts are put on white. 16-bit grey is scaled to 8 bits. Colour profiles are not applied.

    Raises:
        UnusableItem: missing ("missing_image"), no image or damaged ("broken_image"), over `MAX_PIXELS`
            ("huge_image").

    Example:
        >>> decode(ImageRef(b"P6 2 1 255 abcdef")).getpixel((1, 0))
        (100, 101, 102)
    """
    image = _open(ref.read(), ref.name)
    return _guarded(lambda: _rgb(image), ref.name)


class Pixels(NamedTuple):
    """An image as a model's input, and the numbers that SDXL is conditioned on (arXiv 2307.01952, section 2.2)."""

    pixels_3HW: Tensor
    """float32 in [-1, 1]."""
    original_size: tuple[int, int]
    """(height, width) before resizing."""
    crop_top_left: tuple[int, int]
    """(top, left) of the crop in the resized image."""


def to_pixels(image: Image.Image, resolution: int, crop: Crop = "center") -> Pixels:
    """Resize to `resolution` x `resolution`, antialiased, bilinear.

    Args:
        image: RGB, from `decode`.
        resolution: of both sides in pixels.
        crop: "center" keeps the aspect ratio: the shorter side is resized to `resolution`, the longer one cut equally
            at both ends. "none" keeps the whole image and stretches it to the square, as LPO does (arXiv 2502.01051,
            released code).

    Returns:
        Pixels and micro-conditioning; an image of that size already comes through unchanged.

    Raises:
        ValueError: unknown crop, or a resolution below 1.

    Example:
        >>> from PIL import Image
        >>> to_pixels(Image.new("RGB", (64, 32)), 16).crop_top_left
        (0, 8)
    """
    import numpy as np
    import torch
    from PIL import Image

    new, (left, top) = geometry(image.size, resolution, crop)
    resized = image if image.size == new else image.resize(new, Image.Resampling.BILINEAR)
    cropped = resized.crop((left, top, left + resolution, top + resolution))
    pixels_HW3 = torch.from_numpy(np.array(cropped, dtype=np.uint8))
    return Pixels(
        pixels_3HW=pixels_HW3.permute(2, 0, 1).to(torch.float32).div_(127.5).sub_(1).contiguous(),
        original_size=image.size[::-1],
        crop_top_left=(top, left),
    )


def geometry(
    size: tuple[int, int], resolution: int, crop: Crop = "center"
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Size after resizing (width, height) and corner of the crop (left, top), as `to_pixels` applies them.

    Raises:
        ValueError: unknown crop, or a resolution below 1.
    """
    if resolution < 1:
        raise ValueError(f"resolution is {resolution}; needed a number of pixels, 1 or more")
    width, height = size
    new = (resolution, resolution)
    if crop == "center":
        shorter = min(width, height)
        # rounded down, as torchvision and with it the published training scripts do
        new = (resolution * width // shorter, resolution * height // shorter)
    elif crop != "none":
        raise ValueError(f"crop={crop!r} is not one of: center, none")
    left, top = (round((side - resolution) / 2) for side in new)
    return new, (left, top)


# -- Pillow --------------------------------------------------------------------------------------------------


@cache
def _formats() -> list[str]:
    """Those of `FORMATS` that this Pillow was built with."""
    from PIL import Image

    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _open(data: bytes, name: str) -> Image.Image:
    """The image with its header read and its pixels not."""
    from PIL import Image

    if not data:
        raise UnusableItem(f"{name} is empty: it has no bytes", "broken_image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # judged below
            image = _guarded(lambda: Image.open(io.BytesIO(data), formats=_formats()), name)
    except Image.DecompressionBombError:
        raise UnusableItem(
            f"{name} has more than {2 * MAX_PIXELS:,} pixels; make it smaller", "huge_image"
        ) from None
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise UnusableItem(
            f"{name} has {width} x {height} pixels, more than {MAX_PIXELS:,} in all; make it smaller",
            "huge_image",
        )
    if not width * height:
        raise UnusableItem(f"{name} has {width} x {height} pixels: there is nothing to see", "broken_image")
    return image


def _guarded(work: Any, name: str) -> Any:
    """The result of `work`; whatever it raises says that the image is broken."""
    from PIL import Image

    try:
        return work()
    except (UnusableItem, MemoryError, Image.DecompressionBombError):
        raise
    # decoders raise OSError, SyntaxError, ValueError, struct.error, IndexError, ..., and one bad file must not end a run
    except Exception as error:
        if isinstance(error, Image.UnidentifiedImageError):
            said = f"no image in a format that is read here ({', '.join(FORMATS)})"
        else:
            said = f"damaged or cut short ({error or type(error).__name__})"
        raise UnusableItem(f"{name} is {said}", "broken_image") from None


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 is upright."""
    # asking a PNG for EXIF that its header lacks would decode all of it, in the hope of a late one
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = image.getexif().get(EXIF_ORIENTATION, 1)
    except Exception:  # damaged EXIF does not spoil the pixels
        return 1
    return value if value in range(1, 9) else 1


def _stored_size(image: Image.Image) -> tuple[int, int]:
    """Width and height as the file holds them; of a TIFF that lies on its side, `size` is upright already."""
    tags: Any = getattr(image, "tag_v2", None)
    return image.size if tags is None else (int(tags[256]), int(tags[257]))


def _rgb(image: Image.Image) -> Image.Image:
    from PIL import Image

    image.load()
    orientation = _orientation(
        image
    )  # after loading: of a TIFF, Pillow has applied it by then, and taken it out
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    elif image.mode == "I" or image.mode.startswith("I;16"):
        image = _grey_of_16_bits(image)
    elif image.mode == "F":
        raise UnusableItem(
            "its pixels are floating-point numbers of unknown range; save it with 8 bits a channel",
            "broken_image",
        )
    image = image.convert("RGB")
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    return image if orientation == 1 else image.transpose(turns[orientation])


def _grey_of_16_bits(image: Image.Image) -> Image.Image:
    """Pillow's own conversion clips everything above 255 to white."""
    import numpy as np
    from PIL import Image

    grey_HW = np.asarray(image).astype(np.float64).clip(0, 65535)
    return Image.fromarray((grey_HW / 257 + 0.5).astype(np.uint8))


def _complete(image: Image.Image, data: bytes) -> bool:
    """Whether the end of the file is where its format says; False where that cannot be told from the end."""
    match image.format:
        case "JPEG" | "MPO":
            return data.endswith(b"\xff\xd9")
        case "PNG":
            return data.endswith(b"IEND\xae\x42\x60\x82")
        case "WEBP":
            return len(data) >= 8 + int.from_bytes(data[4:8], "little")
        case "GIF":
            return data.endswith(b";")
        case "PPM":  # as `as_ref` writes it
            header = b"P6 %d %d 255\n" % image.size
            return data.startswith(header) and len(data) >= len(header) + 3 * image.width * image.height
    return False
