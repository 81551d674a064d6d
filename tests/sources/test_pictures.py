"""Images as references, as RGB, and as a model's pixels; and what is said of those that cannot be used."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from prefopt.comparisons import UnusableItem
from prefopt.sources.pictures import MAX_PIXELS, Cell, ImageRef, as_ref, decode, problem, to_pixels


def noise(width: int = 24, height: int = 16, channels: int = 3, seed: int = 0) -> np.ndarray:
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def pixels(data: bytes | ImageRef) -> np.ndarray:
    image = decode(data if isinstance(data, ImageRef) else ImageRef(data))
    assert image.mode == "RGB"
    return np.asarray(image)


RGB = Image.fromarray(noise())
PNG = encoded(RGB)
JPEG = encoded(Image.fromarray(noise(160, 120)), "JPEG")


# -- where an image is -------------------------------------------------------------------------------------


def test_the_same_content_has_the_same_digest_wherever_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "b.jpg").write_bytes(PNG)  # named by its content, not by its suffix
    table = datasets.Dataset.from_list([{"image": b"other"}, {"image": PNG}])
    image_table = datasets.Dataset.from_list([{"image": {"bytes": None, "path": "a.png"}}]).cast_column(
        "image", datasets.Image(decode=False)
    )
    refs = [
        as_ref("a.png", "image", tmp_path),
        as_ref(tmp_path / "b.jpg", "image"),
        as_ref(PNG, "image"),
        as_ref(bytearray(PNG), "image"),
        as_ref({"bytes": PNG, "path": "nowhere.png"}, "image"),
        as_ref({"bytes": None, "path": "a.png"}, "image", tmp_path),
        ImageRef(Cell(table, 1, "image", tmp_path)),
        ImageRef(Cell(image_table, 0, "image", tmp_path)),
    ]
    assert {ref.digest for ref in refs} == {refs[0].digest}
    assert len(refs[0].digest) == 32
    assert {ref.size for ref in refs} == {(24, 16)}
    assert ImageRef(encoded(Image.fromarray(noise(seed=1)))).digest != refs[0].digest


def test_the_digest_is_the_same_in_the_next_version() -> None:
    # everything cached on disk goes by it
    assert ImageRef(b"P6 1 1 255 abc").digest == "f9340433d07872ec363903f759d4992b"


def test_images_in_memory_keep_their_pixels() -> None:
    for value in (RGB, noise()):
        ref = as_ref(value, "image")
        assert (pixels(ref) == noise()).all()
        assert ref.digest == as_ref(RGB.copy(), "image").digest
        assert ref.size == (24, 16)
        assert ref.facts.complete
    assert (pixels(as_ref(noise(channels=1), "image"))[..., 1] == noise(channels=1)).all()


def test_nothing_is_decoded_before_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = as_ref("late.png", "image", tmp_path)
    (tmp_path / "late.png").write_bytes(PNG)
    monkeypatch.setattr(Image.Image, "load", None)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", None)
    assert ref.size == (24, 16)
    assert ref.facts[1:] == (len(PNG), "PNG", "RGB", 24, 16, True)
    with pytest.raises(UnusableItem):
        decode(ref)


@pytest.mark.parametrize(
    ("value", "reason", "detail"),
    [
        (None, "missing_value", "jpg_0 is absent"),
        ("", "missing_value", "jpg_0 is absent"),
        ({"bytes": None, "path": None}, "missing_value", "jpg_0 is absent"),
        (3, "wrong_type", r"jpg_0 is 3 \(int\); needed an image"),
        ({"url": "x"}, "wrong_type", "jpg_0 is .* needed an image"),
        ("https://example.org/a.png", "wrong_type", "web address; download"),
        (
            noise().astype(np.float64),
            "wrong_type",
            r"array of float64 with shape \(16, 24, 3\).* needed uint8",
        ),
        (noise(channels=2)[..., None], "wrong_type", r"shape \(16, 24, 2, 1\)"),
        (Image.fromarray(noise(channels=1).astype(np.float32)), "broken_image", "floating-point"),
    ],
)
def test_values_that_are_no_images(value: Any, reason: str, detail: str) -> None:
    with pytest.raises(UnusableItem, match=detail) as error:
        as_ref(value, "jpg_0")
    assert error.value.reason == reason


# -- decoding ----------------------------------------------------------------------------------------------


def test_grey_black_and_white_and_16_bits() -> None:
    grey = noise(channels=1)
    assert (pixels(encoded(Image.fromarray(grey)))[..., 2] == grey).all()
    assert (pixels(encoded(Image.fromarray(grey > 127))) == (grey > 127)[..., None] * 255).all()
    deep = grey.astype(np.uint16) * 257
    for format in ("PNG", "TIFF"):
        assert (pixels(encoded(Image.fromarray(deep), format))[..., 0] == grey).all()
    # the nearest of 256 levels, not the upper byte: 0x01ff is nearer to 2 than to 1
    assert pixels(encoded(Image.fromarray(np.array([[0x01FF]], np.uint16))))[0, 0].tolist() == [2, 2, 2]


def test_transparent_parts_are_put_on_white() -> None:
    colours = noise(channels=4)
    shown = colours[..., :3] * (colours[..., 3:] / 255) + 255 - colours[..., 3:]
    assert np.abs(pixels(encoded(Image.fromarray(colours))) - shown).max() <= 1
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))  # black behind what is not seen
    assert (pixels(encoded(clear)) == 255).all()
    grey = Image.merge("LA", [Image.new("L", (4, 4), 10), Image.new("L", (4, 4), 0)])
    assert (pixels(encoded(grey)) == 255).all()
    keyed = encoded(Image.new("RGB", (4, 4), (1, 2, 3)), transparency=(1, 2, 3))
    assert (pixels(keyed) == 255).all()


def test_palettes_with_and_without_transparency() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putpixel((1, 0), 1)
    assert pixels(encoded(palette)).tolist() == [[[10, 20, 30], [200, 100, 50]]]
    assert pixels(encoded(palette, transparency=1)).tolist() == [[[10, 20, 30], [255, 255, 255]]]
    assert pixels(encoded(palette, "GIF")).tolist() == [[[10, 20, 30], [200, 100, 50]]]


def test_cmyk() -> None:
    # no black, full cyan; as a printer's file has it
    data = encoded(Image.new("CMYK", (16, 16), (255, 0, 0, 0)), "JPEG", quality=95)
    assert ImageRef(data).facts.mode == "CMYK"
    red, green, blue = pixels(data)[8, 8].tolist()
    assert red < 10
    assert min(green, blue) > 245


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation(orientation: int, format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"PNG": {}, "JPEG": {"quality": 95}, "WEBP": {"lossless": True}}[format]
    data = encoded(RGB, format, exif=exif.tobytes(), **options)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert (pixels(data) == np.asarray(expected)).all()
    assert ImageRef(data).size == expected.size == ((24, 16) if orientation < 5 else (16, 24))


TURNED = {  # where the 0th row and the 0th column of a stored image are to be seen (TIFF 6.0, tag 274)
    1: lambda x: x, 2: lambda x: x[:, ::-1], 3: lambda x: x[::-1, ::-1], 4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1), 6: lambda x: x.swapaxes(0, 1)[:, ::-1],
    7: lambda x: x.swapaxes(0, 1)[::-1, ::-1], 8: lambda x: x.swapaxes(0, 1)[::-1],
}  # fmt: skip


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["TIFF", "TIFF lzw", "PNG", "WEBP"])
def test_every_orientation_is_applied_once(orientation: int, format: str) -> None:
    """Against turns by hand: Pillow itself turns some formats while it loads them."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    name, _, compression = format.partition(" ")
    options = {"compression": "tiff_lzw"} if compression else {"lossless": True} if name == "WEBP" else {}
    data = encoded(RGB, name, exif=exif, **options)
    expected = TURNED[orientation](noise())
    assert np.array_equal(pixels(data), expected)
    assert ImageRef(data).size == expected.shape[1::-1]
    opened = as_ref(Image.open(io.BytesIO(data)), "image")
    assert np.array_equal(np.asarray(decode(opened)), expected)
    assert opened.size == expected.shape[1::-1]


def test_damaged_exif_does_not_spoil_the_pixels() -> None:
    data = encoded(RGB, "WEBP", lossless=True, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff nonsense")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (pixels(data) == noise()).all()


def test_the_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert pixels(data)[0, 0].tolist() == [255, 0, 0]


# -- what cannot be used -------------------------------------------------------------------------------------


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def header_only(width: int, height: int) -> bytes:
    """A PNG that claims a size, whatever follows."""
    start = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + start + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


BROKEN = [
    (b"", "broken_image", "cat is empty: it has no bytes"),
    (b"not an image", "broken_image", r"cat is no image in a format that is read here \(JPEG, PNG"),
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "broken_image", "no image in a format"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "broken_image", "no image in a format"),
    (PNG[:-30], "broken_image", "cat is damaged or cut short"),
    (PNG[: len(PNG) // 2], "broken_image", "damaged or cut short"),
    (PNG[:20], "broken_image", "cat is "),
    (JPEG[: len(JPEG) // 2], "broken_image", "truncated"),
    (JPEG[:-600], "broken_image", "truncated"),
    (encoded(RGB, "WEBP")[:-8], "broken_image", "cat is "),
    (encoded(RGB, "BMP")[:-8], "broken_image", "truncated"),
    (encoded(RGB, "TIFF")[:-400], "broken_image", "cat is "),
    (b"P6 24 16 255\n" + noise().tobytes()[:-1], "broken_image", "cat is "),
    (header_only(0, 16), "broken_image", "cat is "),
    (
        header_only(10_000, 10_000),
        "huge_image",
        r"10000 x 10000 pixels, more than 89,478,485.*make it smaller",
    ),
    (header_only(60_000, 60_000), "huge_image", "make it smaller"),
]


@pytest.mark.parametrize("thorough", [True, False])
@pytest.mark.parametrize(("data", "reason", "detail"), BROKEN)
def test_broken_images_are_found_without_decoding_the_good_ones(
    data: bytes, reason: str, detail: str, thorough: bool
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = problem(ImageRef(data, "cat"), thorough)
    assert found is not None
    assert found.reason == reason
    with pytest.raises(UnusableItem, match=detail):
        raise found


def test_damage_in_the_middle_is_found_by_decoding() -> None:
    data = bytearray(PNG)
    data[len(data) // 2] ^= 0xFF
    ref = ImageRef(bytes(data), "cat")
    assert problem(ref, thorough=False) is None
    found = problem(ref)
    assert found is not None
    assert found.reason == "broken_image"


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "PPM", "BMP", "TIFF"])
def test_good_images_have_no_problem(format: str) -> None:
    ref = ImageRef(encoded(RGB, format))
    assert problem(ref) is None
    assert ref.facts.complete == (format not in ("BMP", "TIFF", "PPM"))
    # bytes after the end, as some cameras write them, are no damage
    assert problem(ImageRef(encoded(RGB, format) + b"extra"), thorough=False) is None


def test_missing_files_and_folders(tmp_path: Path) -> None:
    for name, detail in (("no.png", "no.png: no such file"), ("", "[Ii]s a directory")):
        found = problem(ImageRef(tmp_path / name, name))
        assert found is not None
        assert found.reason == "missing_image"
        with pytest.raises(UnusableItem, match=detail):
            raise found


def test_the_limit_is_pillows_own() -> None:
    assert MAX_PIXELS == Image.MAX_IMAGE_PIXELS


# -- a model's pixels ------------------------------------------------------------------------------------------


def test_an_image_of_the_right_size_comes_through_unchanged() -> None:
    image = Image.fromarray(noise(16, 16))
    for crop in ("center", "none"):
        made = to_pixels(image, 16, crop)  # type: ignore[arg-type]
        assert made.pixels_3HW.dtype == torch.float32
        assert made.pixels_3HW.is_contiguous()
        back = ((made.pixels_3HW + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
        assert (back == noise(16, 16)).all()
        assert made[1:] == ((16, 16), (0, 0))
    ends = to_pixels(Image.fromarray(np.array([[[0, 128, 255]]], np.uint8)), 1).pixels_3HW.flatten().tolist()
    assert ends == pytest.approx([-1, 1 / 255, 1], abs=1e-6)


@pytest.mark.parametrize(
    ("size", "resolution", "original", "top_left"),
    [
        ((64, 32), 16, (32, 64), (0, 8)),
        ((32, 64), 16, (64, 32), (8, 0)),
        ((100, 75), 32, (75, 100), (0, 5)),  # 42.67 wide, of which 42 are kept: 5 to the left, 5 to the right
        ((10, 8), 16, (8, 10), (0, 2)),  # enlarged
        ((1, 500), 8, (500, 1), (1996, 0)),
    ],
)
def test_the_shorter_side_is_resized_and_the_longer_one_cut(
    size: tuple[int, int], resolution: int, original: tuple[int, int], top_left: tuple[int, int]
) -> None:
    made = to_pixels(Image.new("RGB", size), resolution)
    assert made.pixels_3HW.shape == (3, resolution, resolution)
    assert made.original_size == original
    assert made.crop_top_left == top_left


def test_the_centre_is_kept_and_the_aspect_ratio_with_it() -> None:
    image = Image.new("RGB", (60, 20), "black")
    image.paste("white", (20, 0, 40, 20))
    assert (to_pixels(image, 20).pixels_3HW == 1).all()
    whole = to_pixels(image, 20, "none")
    assert whole[1:] == ((20, 60), (0, 0))
    assert whole.pixels_3HW[0, 10, [0, 10, 19]].tolist() == [-1, 1, -1]


def test_resizing_is_antialiased() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255  # one pixel wide: without antialiasing, what is left is black or white
    inner = to_pixels(Image.fromarray(stripes), 8).pixels_3HW[:, 1:-1, 1:-1]
    assert inner.abs().max() < 0.1


def test_resizing_is_a_triangle_filter() -> None:
    """The definition, one output pixel at a time: weights fall linearly to 0 at `scale` input pixels."""
    image = noise(40, 30)
    scale = 30 / 12
    made = to_pixels(Image.fromarray(image), 12).pixels_3HW
    y, x = 5, 7  # in the crop, which starts at 2
    weights = []
    for centre, length in (((y + 0.5) * scale, 30), ((x + 2 + 0.5) * scale, 40)):
        w = np.maximum(0, 1 - np.abs(np.arange(length) + 0.5 - centre) / scale)
        weights.append(w / w.sum())
    expected = np.einsum("i,j,ijc->c", *weights, image.astype(float))
    assert ((made[:, y, x] + 1) * 127.5).numpy() == pytest.approx(expected, abs=1.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 0}, "resolution is 0"),
        ({"resolution": 8, "crop": "top"}, "'top' is not one of: center, none"),
    ],
)
def test_settings_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_pixels(RGB, **options)
