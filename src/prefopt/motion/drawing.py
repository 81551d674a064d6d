"""Stick figures of motions: animated GIF and WebP, strips of stills as PNG and SVG.

Left limbs are blue and right ones orange, the figure's own left and right; where it is seen from says `camera.py`.

Legend: F frames, J joints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from prefopt.motion.camera import Array, View, checked, figure, floor_lines, trail, view_of
from prefopt.motion.skeleton import Skeleton

STILLS = 5
NARROW = 0.7
"""Width of a pose among others, by its height."""
ANIMATED, STILL = (".gif", ".webp"), (".png", ".svg")
OVERSAMPLING = 2
FASTEST = 50.0
"""Frames a second that viewers of GIF show at their speed; of faster motions frames are left out."""


@dataclass(frozen=True)
class Palette:
    """Colours, as CSS has them."""

    left: str = "#2450c8"
    right: str = "#c14f1c"
    middle: str = "#4f5660"
    floor: str = "#d9d5cd"
    ink: str = "#69707b"
    paper: str = "#ffffff"


# -- pictures ------------------------------------------------------------------------------------------------


def animate(
    positions: ArrayLike | Sequence[ArrayLike],
    skeleton: Skeleton,
    fps: float,
    path: str | Path,
    *,
    labels: Sequence[str] = (),
    size: int = 320,
    palette: Palette | None = None,
) -> Path:
    """Write a moving stick figure, or several side by side, that begins again at its end.

    Args:
        positions: (F, J, 3) metres, y upwards; or a list of such, of which a shorter one waits in its last frame.
        skeleton: whose joints.
        fps: frames a second.
        path: of a `.gif` or `.webp`; its folder is there.
        labels: one a figure, written below it.
        size: pixels, of the side of a figure's square.
        palette: colours.

    Returns:
        The path.

    Raises:
        ValueError: another suffix, other shapes, numbers that are not finite, no frames, another number of labels.

    Example:
        >>> animate(positions_FJ3, HUMANML3D, 20, "walk.gif")  # doctest: +SKIP
        PosixPath('walk.gif')
    """
    path = _suffixed(path, ANIMATED)
    motions = _several(positions, skeleton)
    _check_call(fps, labels, len(motions), size)
    palette = palette or Palette()
    view = view_of(motions)
    stride = math.ceil(fps / FASTEST) if path.suffix.lower() == ".gif" else 1
    frames = max(len(motion) for motion in motions)
    shown = range(0, frames, stride)
    pictures = []
    for n in shown:
        panels = [
            _panel(motion, min(n, len(motion) - 1), skeleton, view, size, palette, label)
            for motion, label in zip(motions, labels or [""] * len(motions), strict=True)
        ]
        pictures.append(_beside(panels))
    # a format counts in whole hundredths (GIF) or thousandths of a second: rounding must not add up
    tick = 10 if path.suffix.lower() == ".gif" else 1
    ends = [round(1000 * (n + stride) / fps / tick) * tick for n in shown]
    durations = [max(tick, b - a) for a, b in zip([0, *ends], ends, strict=False)]
    _save(pictures, durations, path)
    return path


def strip(
    positions: ArrayLike,
    skeleton: Skeleton,
    fps: float,
    path: str | Path,
    *,
    stills: int = STILLS,
    size: int = 160,
    palette: Palette | None = None,
) -> Path:
    """Write poses along time, side by side, for paper.

    Args:
        positions: (F, J, 3) metres, y upwards.
        skeleton: whose joints.
        fps: frames a second, for the times below.
        path: of a `.png` or `.svg`; its folder is there.
        stills: number of poses.
        size: pixels, of the side of a pose's square.
        palette: colours.

    Returns:
        The path.

    Raises:
        ValueError: as of `animate`.
    """
    path = _suffixed(path, STILL)
    if path.suffix.lower() == ".svg":
        text = strip_svg(positions, skeleton, fps, stills=stills, size=size, palette=palette)
        path.write_text(text + "\n", "utf-8")
        return path
    strip_picture(positions, skeleton, fps, stills=stills, size=size, palette=palette).save(
        path, optimize=True
    )
    return path


def strip_picture(
    positions: ArrayLike,
    skeleton: Skeleton,
    fps: float,
    *,
    stills: int = STILLS,
    size: int = 160,
    palette: Palette | None = None,
) -> Any:
    """The same as a picture of Pillow; arguments as of `strip`."""
    from PIL import Image, ImageDraw

    motion = checked(positions, skeleton)
    _check_call(fps, (), 1, size)
    palette, view = palette or Palette(), view_of([motion])
    shown, across, fine = moments(len(motion), stills), round(NARROW * size), size * OVERSAMPLING
    picture = Image.new("RGB", (across * len(shown) * OVERSAMPLING, fine), palette.paper)
    draw = ImageDraw.Draw(picture)
    for k, n in enumerate(shown):
        left = OVERSAMPLING * (k * across - (size - across) / 2)
        _draw(draw, motion[n], skeleton, view, fine, palette, left, NARROW)
    picture = picture.resize((across * len(shown), size), Image.Resampling.LANCZOS)
    return _captioned(picture, [f"{n / fps:.1f} s" for n in shown], size, palette)


def strip_svg(
    positions: ArrayLike,
    skeleton: Skeleton,
    fps: float,
    *,
    stills: int = STILLS,
    size: int = 160,
    palette: Palette | None = None,
    view: View | None = None,
    title: str = "",
) -> str:
    """The same strip as SVG, with colours that may be CSS variables.

    Args:
        positions: see `strip`.
        skeleton: see `strip`.
        fps: see `strip`.
        stills: see `strip`.
        size: in units of the picture.
        palette: colours.
        view: of the camera, where strips are to be compared; of this motion alone by default.
        title: for whoever cannot see it.

    Raises:
        ValueError: as of `animate`.
    """
    motion = checked(positions, skeleton)
    _check_call(fps, (), 1, size)
    palette, view = palette or Palette(), view or view_of([motion])
    shown = moments(len(motion), stills)
    across = round(NARROW * size)
    width, height = across * len(shown), size + 20
    name = f' role="img" aria-label="{_escaped(title)}"' if title else ' aria-hidden="true"'
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"{name}>']
    for k, n in enumerate(shown):
        # a square each, of which neighbours share the empty edges
        out.append(f'<g transform="translate({k * across - (size - across) / 2:.1f} 0)">')
        out += [_line_svg(a, b, palette.floor, 1.0) for a, b in floor_lines(motion[n], view, size, NARROW)]
        for drawn in figure(motion[n], skeleton, view, size):
            colour = getattr(palette, drawn.side)
            if drawn.radius:
                (x, y), r = drawn.start, drawn.radius
                out.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r:.1f}" style="fill:{colour}"/>')
            else:
                out.append(_line_svg(drawn.start, drawn.end, colour, drawn.width))
        text = f'<text x="{size / 2:.0f}" y="{size + 12}" text-anchor="middle" font-size="14" style="fill:{palette.ink}">'
        out.append(f"{text}{n / fps:.1f} s</text></g>")
    return "".join([*out, "</svg>"])


def moments(frames: int, stills: int) -> list[int]:
    """Numbers of frames as even as can be, the first and the last among them; each once."""
    if stills < 2:
        return [0]
    return sorted({round(k * (frames - 1) / (stills - 1)) for k in range(stills)})


# -- checks --------------------------------------------------------------------------------------------------


def _several(positions: Any, skeleton: Skeleton) -> list[Array]:
    if isinstance(positions, list | tuple) and len(positions) and np.ndim(positions[0]) == 3:
        return [checked(motion, skeleton) for motion in positions]
    return [checked(positions, skeleton)]


def _check_call(fps: float, labels: Sequence[str], figures: int, size: int) -> None:
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"fps is {fps}; needed a number above 0")
    if isinstance(labels, str) or len(labels) not in (0, figures):
        given = "a single string" if isinstance(labels, str) else f"{len(labels)} labels"
        raise ValueError(f"{given} for {figures} figure(s); needed a list with one for each, or none")
    if size < 32:
        raise ValueError(f"size is {size} pixels; a figure needs 32 or more")


def _suffixed(path: str | Path, known: Sequence[str]) -> Path:
    path = Path(path)
    if path.suffix.lower() not in known:
        raise ValueError(f"{path.name} ends in {path.suffix or 'nothing'}; needed {' or '.join(known)}")
    return path


# -- drawing -------------------------------------------------------------------------------------------------


def _panel(
    motion: Array, n: int, skeleton: Skeleton, view: View, size: int, palette: Palette, label: str
) -> Any:
    """One figure in its square, with a line of text below or none."""
    from PIL import Image, ImageDraw

    fine = size * OVERSAMPLING
    picture = Image.new("RGB", (fine, fine), palette.paper)
    way = trail(motion, n, view, fine)
    _draw(ImageDraw.Draw(picture), motion[n], skeleton, view, fine, palette, way=way)
    picture = picture.resize((size, size), Image.Resampling.LANCZOS)
    return _captioned(picture, [label], size, palette) if label else picture


def _draw(
    draw: Any,
    pose_J3: Array,
    skeleton: Skeleton,
    view: View,
    size: int,
    palette: Palette,
    left: float = 0.0,
    share: float = 1.0,
    way: Sequence[tuple[float, float]] = (),
) -> None:
    """A figure in a square that begins at `left`, on a floor of a `share` of it with the way that it came."""
    for (ax, ay), (bx, by) in floor_lines(pose_J3, view, size, share):
        draw.line([(ax + left, ay), (bx + left, by)], fill=palette.floor, width=OVERSAMPLING)
    if len(way) > 1:
        draw.line(list(way), fill=palette.ink, width=OVERSAMPLING * 2)
    for stroke in figure(pose_J3, skeleton, view, size):
        colour = getattr(palette, stroke.side)
        ends = [(x + left, y) for x, y in (stroke.start, stroke.end)]
        if not stroke.radius:
            draw.line(ends, fill=colour, width=max(1, round(stroke.width)))
        r = stroke.radius or stroke.width / 2
        for x, y in ends:
            draw.ellipse([x - r, y - r, x + r, y + r], fill=colour)


def _captioned(picture: Any, labels: Sequence[str], size: int, palette: Palette) -> Any:
    """The picture over a line of labels, each in the middle of its share of the width."""
    from PIL import Image, ImageDraw, ImageFont

    high = max(11, size // 20)
    font = ImageFont.load_default(high)
    whole = Image.new("RGB", (picture.width, picture.height + 2 * high), palette.paper)
    whole.paste(picture)
    draw = ImageDraw.Draw(whole)
    for k, label in enumerate(labels):
        x = (k + 0.5) * picture.width / len(labels)
        draw.text((x, picture.height + high), label, fill=palette.ink, font=font, anchor="mm")
    return whole


def _beside(panels: Sequence[Any]) -> Any:
    from PIL import Image

    width, height = panels[0].size[0], max(panel.size[1] for panel in panels)
    whole = Image.new("RGB", (width * len(panels), height), panels[0].getpixel((0, 0)))
    for k, panel in enumerate(panels):
        whole.paste(panel, (k * width, 0))
    return whole


def _save(pictures: Sequence[Any], durations: Sequence[int], path: Path) -> None:
    if path.suffix.lower() == ".webp":
        pictures[0].save(
            path,
            save_all=True,
            append_images=pictures[1:],
            duration=list(durations),
            loop=0,
            quality=60,
            method=2,
        )
        return
    from PIL import Image

    # one palette for all frames: colours that flicker would pass for motion
    palette = pictures[0].quantize(64)
    flat = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    flat[0].save(
        path, save_all=True, append_images=flat[1:], duration=list(durations), loop=0, optimize=False
    )


def _line_svg(a: tuple[float, float], b: tuple[float, float], colour: str, width: float) -> str:
    return (
        f'<line x1="{a[0]:.1f}" y1="{a[1]:.1f}" x2="{b[0]:.1f}" y2="{b[1]:.1f}" '
        f'style="stroke:{colour};stroke-width:{width:.1f};stroke-linecap:round"/>'
    )


def _escaped(text: str) -> str:
    from html import escape

    return escape(" ".join(text.split()))
