"""Where what was read from a drawing departs from the condition that it was drawn under, as one picture.

Where both agree the map is pale and grey; what stands out is the departure. Three kinds of map are told apart by their pixels,
since every detector draws its own:

    edges     black and white alone     missing edges in one colour, added ones in another, a bit wider than they are
    amounts   grey                      darker and brighter than the condition in these two colours, by how much
    classes   anything else             what was read there in its full colour, with an outline

Legend: H W in pixels, C = 3 colours; arrays hold levels of 0 to 255.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from prefopt.report.pictures import CRISP_BELOW, Picture, as_uri, embed, opened

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

Kind = Literal["edges", "amounts", "classes"]

MISSING, ADDED = (213, 94, 0), (0, 90, 200)  # told apart by colour-blind eyes, and dark on paper
OUTLINE = (20, 20, 24)
PAPER, INK = 250, 150  # what agrees is drawn between these greys
TINT = (
    0.22  # share of its colour that an agreeing class keeps, so that it can still be told from its neighbour
)
COLOURS = {"missing": MISSING, "added": ADDED, "same": (INK,) * 3, "pale": (216, 190, 190)}
"""Of the key."""
SAME_LEVEL = 8  # levels of 255 within which two colours are one
FULL_AMOUNT = 64  # levels of 255: a departure of grey that gets the whole colour
FEW = 256  # colours of a picture that is kept without loss


def departures(folder: Path, given: Any, read: Any, side: int) -> tuple[Picture, Kind | None]:
    """What was read, marked where it departs from what was given; plain where the two cannot be held against each other.

    Args:
        folder: of the run.
        given, read: paths within it of the condition and of what a detector sees, as a record has them.
        side: most pixels of the longer side.

    Returns:
        The picture, and the kind of map; None where nothing is marked.
    """
    plain = embed(folder, read, side)
    if not plain.uri or not embed(folder, given, side).uri:
        return plain, None
    true, found = (opened(folder / path) for path in (given, read))
    return (plain, None) if true.size != found.size else drawn(true, found, side)


def drawn(given: Image, read: Image, side: int) -> tuple[Picture, Kind]:
    """The marked picture of two RGB images of Pillow of one size, and their kind of map."""
    import numpy as np
    from PIL import Image as images

    true_HWC, found_HWC = (np.asarray(image, dtype=np.int16) for image in (given, read))
    kind = kind_of(true_HWC, found_HWC)
    longest = max(given.size)
    enlarged = max(1, side // longest) if longest < CRISP_BELOW else 1
    if enlarged > 1:  # an outline is thinner than such a picture's pixels
        true_HWC, found_HWC = (x.repeat(enlarged, 0).repeat(enlarged, 1) for x in (true_HWC, found_HWC))
    shrink = max(1, -(-longest // side))
    marked = {"edges": _edges, "amounts": _amounts, "classes": _classes}[kind](true_HWC, found_HWC, shrink)
    image = images.fromarray(marked.clip(0, 255).astype(np.uint8))
    image.thumbnail((side, side), images.Resampling.LANCZOS)
    exact = image.getcolors(FEW) is not None or enlarged > 1
    uri = as_uri(image, exact)
    return Picture(uri, *image.size, crisp=False), kind


def kind_of(true_HWC: np.ndarray, found_HWC: np.ndarray) -> Kind:
    """What kind of map two control images are, by their pixels together."""
    both = (true_HWC, found_HWC)
    if any(bool((x.max(-1) - x.min(-1) > SAME_LEVEL).any()) for x in both):
        return "classes"
    flat = all(bool(((x <= SAME_LEVEL) | (x >= 255 - SAME_LEVEL)).all()) for x in both)
    return "edges" if flat else "amounts"


def _edges(true_HWC: np.ndarray, found_HWC: np.ndarray, shrink: int) -> np.ndarray:
    import numpy as np

    true_HW, found_HW = (x[..., 0] > 127 for x in (true_HWC, found_HWC))
    out_HWC = np.full(true_HWC.shape, float(PAPER))
    out_HWC[_wider(true_HW & found_HW, shrink - 1)] = INK
    for where_HW, colour in ((true_HW & ~found_HW, MISSING), (found_HW & ~true_HW, ADDED)):
        out_HWC[_wider(where_HW, shrink - 1)] = colour
    return out_HWC


def _amounts(true_HWC: np.ndarray, found_HWC: np.ndarray, shrink: int) -> np.ndarray:
    import numpy as np

    found_HW = found_HWC.mean(-1)
    gap_HW = found_HW - true_HWC.mean(-1)
    pale_HW1 = (PAPER - TINT * (PAPER - found_HW))[..., None]
    share_HW1 = (np.abs(gap_HW) / FULL_AMOUNT).clip(0, 1)[..., None]
    colour_HWC = np.where((gap_HW < 0)[..., None], np.array(MISSING), np.array(ADDED))
    out_HWC: np.ndarray = (1 - share_HW1) * pale_HW1 + share_HW1 * colour_HWC
    return out_HWC


def _classes(true_HWC: np.ndarray, found_HWC: np.ndarray, shrink: int) -> np.ndarray:
    import numpy as np

    wrong_HW = np.abs(true_HWC - found_HWC).max(-1) > SAME_LEVEL
    pale_HWC = PAPER - TINT * (PAPER - found_HWC)
    out_HWC: np.ndarray = np.where(wrong_HW[..., None], found_HWC, pale_HWC)
    out_HWC[_wider(wrong_HW, 2 * shrink) & ~wrong_HW] = OUTLINE
    return out_HWC


def _wider(where_HW: np.ndarray, by: int) -> np.ndarray:
    """Everything within so many pixels along rows and columns."""
    if by < 1:
        return where_HW
    from scipy.ndimage import binary_dilation

    found: np.ndarray = binary_dilation(where_HW, iterations=by)
    return found
