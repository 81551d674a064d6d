"""Stick figures of motions: animated GIF and WebP, strips of stills as PNG and SVG.

The camera stands before the figure (of heading 0), to its left and above it, and goes with its root, so that the floor moves: lines half a metre
apart. Left limbs are blue and right ones orange, the figure's own left and right.

Legend: F frames, J joints, S figures side by side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prefopt.motion.skeleton import Skeleton

Array = NDArray[np.float64]

YAW, PITCH = 0.6, 0.22
"""Of the camera, radians; the player of the report has the same."""
DISTANCE = 4.2
"""Of the camera from the figure, in radii of what it reaches."""
FILLED = 0.42
"""Share of the square's side that reach takes; the rest is for the head and the camera's perspective."""
SPACING = 0.5
"""Metres between lines of the floor."""
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


class View(NamedTuple):
    """What a camera has to show: how far joints are from the root's upright line, and half the figure's height."""

    reach: float
    middle: float


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
    motion = checked(positions, skeleton)
    _check_call(fps, (), 1, size)
    view, palette = view_of([motion]), palette or Palette()
    panels = [
        _panel(motion, n, skeleton, view, size, palette, f"{n / fps:.1f} s")
        for n in moments(len(motion), stills)
    ]
    _beside(panels).save(path, optimize=True)
    return path


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


# -- geometry ------------------------------------------------------------------------------------------------


class Stroke(NamedTuple):
    """A bone, or where `radius` is not 0 the head."""

    side: str
    start: tuple[float, float]
    end: tuple[float, float]
    width: float
    radius: float
    depth: float


def view_of(motions: Sequence[Array]) -> View:
    """A view in which all of these motions fit, at one scale."""
    top = max(float(motion[..., 1].max()) for motion in motions)
    middle = max(top, 0.1) / 2
    reach = 0.1
    for motion in motions:
        around = motion - np.stack(
            [motion[:, :1, 0], np.full_like(motion[:, :1, 0], middle), motion[:, :1, 2]], -1
        )
        reach = max(reach, float(np.linalg.norm(around, axis=-1).max()))
    return View(reach, middle)


def project(points_N3: Array, centre_3: Array, view: View, size: float) -> Array:
    """(N, 3) pixels from the left, pixels from the top, and depth (metres towards the camera) of points in metres."""
    x, y, z = (points_N3 - centre_3).T
    x, z = math.cos(YAW) * x - math.sin(YAW) * z, math.sin(YAW) * x + math.cos(YAW) * z
    y, z = math.cos(PITCH) * y - math.sin(PITCH) * z, math.cos(PITCH) * z + math.sin(PITCH) * y
    away = DISTANCE * view.reach
    scale = FILLED * size / view.reach * away / np.maximum(away - z, 0.05 * away)
    return np.stack([size / 2 + scale * x, size / 2 - scale * y, z], -1)


def centre_of(pose_J3: Array, view: View) -> Array:
    """What the camera looks at: on the root's upright line."""
    return np.array([pose_J3[0, 0], view.middle, pose_J3[0, 2]])


def sides(skeleton: Skeleton) -> list[str]:
    """left, right or middle of each joint, by its name."""
    return [{"l_": "left", "r_": "right"}.get(name[:2], "middle") for name in skeleton.joints]


def figure(pose_J3: Array, skeleton: Skeleton, view: View, size: float) -> list[Stroke]:
    """What is drawn of a pose, the farthest first."""
    seen_J3 = project(pose_J3, centre_of(pose_J3, view), view, size)
    thick = 0.03 * size
    strokes = []
    for joint, (parent, side) in enumerate(zip(skeleton.parents, sides(skeleton), strict=True)):
        if parent < 0:
            continue
        a, b = seen_J3[parent], seen_J3[joint]
        strokes.append(Stroke(side, (a[0], a[1]), (b[0], b[1]), thick, 0.0, (a[2] + b[2]) / 2))
    if "head" in skeleton.joints:
        x, y, depth = seen_J3[skeleton.joints.index("head")]
        strokes.append(Stroke("middle", (x, y), (x, y), thick, 0.05 * size, depth))
    return sorted(strokes, key=lambda stroke: stroke.depth)


def floor_lines(
    pose_J3: Array, view: View, size: float, share: float = 1.0
) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Lines of the floor around the root, which stay where they are in the world; of a `share` of the picture."""
    half = share * view.reach
    spacing = SPACING * max(1, math.ceil(half / (6 * SPACING)))
    lines = []
    for axis in (0, 2):
        other = 2 - axis
        at, across = pose_J3[0, axis], pose_J3[0, other]
        for k in range(math.ceil((at - half) / spacing), math.floor((at + half) / spacing) + 1):
            # a disc: what stands at its edge comes and goes without a jump
            extent = math.sqrt(max(half**2 - (k * spacing - at) ** 2, 0.0))
            ends = np.zeros((2, 3))
            ends[:, axis] = k * spacing
            ends[:, other] = (across - extent, across + extent)
            a, b = project(ends, centre_of(pose_J3, view), view, size)
            lines.append(((a[0], a[1]), (b[0], b[1])))
    return lines


# -- checks --------------------------------------------------------------------------------------------------


def checked(positions: ArrayLike, skeleton: Skeleton) -> Array:
    """The positions as an array, if they can be drawn.

    Raises:
        ValueError: another shape, no frames, numbers that are not finite.
    """
    detached: Any = positions
    if hasattr(detached, "detach"):
        detached = detached.detach().cpu()
    array = np.asarray(detached, dtype=np.float64)
    if array.ndim != 3 or array.shape[1:] != (len(skeleton), 3) or not len(array):
        raise ValueError(
            f"positions of the shape {array.shape}; needed (frames, {len(skeleton)}, 3) of the skeleton {skeleton.name}, one frame or "
            "more: features are turned into positions by their codec"
        )
    finite_F = np.isfinite(array).all((1, 2))
    if not finite_F.all():
        raise ValueError(
            f"{int((~finite_F).sum())} of {len(array)} frames hold numbers that are not finite, the first is frame "
            f"{int((~finite_F).argmax())}: there is nothing to draw there"
        )
    return array


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
    from PIL import Image, ImageDraw, ImageFont

    fine = size * OVERSAMPLING
    picture = Image.new("RGB", (fine, fine), palette.paper)
    draw = ImageDraw.Draw(picture)
    for a, b in floor_lines(motion[n], view, fine):
        draw.line([a, b], fill=palette.floor, width=OVERSAMPLING)
    for stroke in figure(motion[n], skeleton, view, fine):
        colour, (x, y) = getattr(palette, stroke.side), stroke.start
        if not stroke.radius:
            draw.line([stroke.start, stroke.end], fill=colour, width=max(1, round(stroke.width)))
        ends = [(x, y)] if stroke.radius else [stroke.start, stroke.end]
        r = stroke.radius or stroke.width / 2
        for x, y in ends:
            draw.ellipse([x - r, y - r, x + r, y + r], fill=colour)
    picture = picture.resize((size, size), Image.Resampling.LANCZOS)
    if not label:
        return picture
    font = ImageFont.load_default(max(11, size // 20))
    whole = Image.new("RGB", (size, size + 2 * round(font.size)), palette.paper)
    whole.paste(picture)
    draw = ImageDraw.Draw(whole)
    draw.text((size // 2, size + font.size), label, fill=palette.ink, font=font, anchor="mm")
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
