"""Class maps as pictures: a colour a class, and back.

Legend: B images, C = 3, H W in pixels, K classes, P pixels.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from prefopt.metrics.segmentation import IGNORED
from prefopt.modalities.image.scorers import check_images

Colour = tuple[int, int, int]
BLACK: Colour = (0, 0, 0)
SHOWN = 6


@dataclass(frozen=True)
class Palette:
    """A colour for each class, and one for pixels without a label.

    Attributes:
        colours: of class 0, 1, ..., each 0..255 three times; no two alike.
        ignored: of pixels without a label; None: there must be none.

    Raises:
        ValueError: colours that are none, or two alike.
    """

    colours: tuple[Colour, ...]
    ignored: Colour | None = BLACK

    def __post_init__(self) -> None:
        given = [*self.colours, *([] if self.ignored is None else [self.ignored])]
        for colour in given:
            if len(colour) != 3 or any(
                not isinstance(level, int) or not 0 <= level <= 255 for level in colour
            ):
                raise ValueError(f"{colour!r} is no colour; needed three whole numbers from 0 to 255")
        if not self.colours or len(self.colours) > IGNORED:
            raise ValueError(f"a palette of {len(self.colours)} colours; needed 1 to {IGNORED}")
        if len(set(given)) < len(given):
            twice = next(colour for colour in given if given.count(colour) > 1)
            raise ValueError(f"the palette has the colour {twice} twice, so that masks cannot be read")

    def draw(self, labels_BHW: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1].

        Raises:
            ValueError: labels that are no class ids of this palette.
        """
        if labels_BHW.ndim != 3 or labels_BHW.is_floating_point() or labels_BHW.dtype == torch.bool:
            raise ValueError(
                f"labels are {labels_BHW.dtype} of the shape {tuple(labels_BHW.shape)}; needed class ids, (B, H, W) integers"
            )
        ids = labels_BHW.unique()
        last = len(self.colours) - 1
        outside = ids[((ids < 0) | (ids > last)) & (ids != IGNORED)].tolist()
        if outside:
            raise ValueError(f"labels have the class ids {outside[:SHOWN]}; needed 0 to {last}, or {IGNORED}")
        if self.ignored is None and bool((ids == IGNORED).any()):
            raise ValueError(
                "labels have pixels without a class (255), and the palette has no colour for them: add one at its end"
            )
        table = torch.zeros(IGNORED + 1, 3, dtype=torch.float32, device=labels_BHW.device)
        table[: last + 1] = torch.tensor(self.colours, device=labels_BHW.device) / 255
        table[IGNORED] = torch.tensor(self.ignored or BLACK, device=labels_BHW.device) / 255
        return table[labels_BHW.long()].permute(0, 3, 1, 2).contiguous()

    def read(self, conditions_BCHW: Tensor) -> Tensor:
        """(B, H, W) int64 class ids of coloured masks, or of grey ones whose levels are the ids.

        A picture is read by its colours if each of them is in the palette, else as ids if it is grey and they are classes.

        Raises:
            ValueError: a mask with unknown classes; names the colours.
        """
        check_images(conditions_BCHW)
        levels_BCHW = (conditions_BCHW.detach().clamp(0, 1) * 255).round().long()
        return torch.stack([self._read_one(levels_CHW, i) for i, levels_CHW in enumerate(levels_BCHW)])

    @cached_property
    def _known(self) -> tuple[Tensor, Tensor]:
        """Colours as sorted numbers, and the class id of each."""
        pairs = [(_number(colour), i) for i, colour in enumerate(self.colours)]
        if self.ignored is not None:
            pairs.append((_number(self.ignored), IGNORED))
        numbers, ids = zip(*sorted(pairs), strict=True)
        return torch.tensor(numbers), torch.tensor(ids)

    def _read_one(self, levels_CHW: Tensor, image: int) -> Tensor:
        red, green, blue = levels_CHW
        number_HW = (red << 16) + (green << 8) + blue
        numbers, ids = (x.to(levels_CHW.device) for x in self._known)
        place_HW = torch.searchsorted(numbers, number_HW).clamp(max=len(numbers) - 1)
        known_HW = numbers[place_HW] == number_HW
        if bool(known_HW.all()):
            return ids[place_HW]
        grey = bool(((red == green) & (green == blue)).all())
        if grey and bool(((red < len(self.colours)) | (red == IGNORED)).all()):
            return red
        unknown, count = number_HW[~known_HW].unique(return_counts=True)
        most = unknown[count.argsort(descending=True)][:SHOWN].tolist()
        named = ", ".join(str((n >> 16, n >> 8 & 255, n & 255)) for n in most)
        more = f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
        raise ValueError(
            f"control image {image} is a mask with unknown classes: {int(count.sum())} of its {number_HW.numel()} pixels "
            f"have the colours {named}{more}, which the palette of {len(self.colours)} classes lacks. Masks must be kept "
            "as PNG (JPEG and smooth resizing mix colours); another palette is given as segmentation:DIR:PALETTE.json"
        )


def default_palette(num_classes: int) -> Palette:
    """Distinct colours by the bits of a class's number, as PASCAL VOC's masks have them, but without its greys.

    Grey pictures are left to mean class ids, so classes 7, 56 and 63, grey there, are bluish here. Pixels without a label are
    (224, 224, 192), as there.

    Raises:
        ValueError: no classes, or more than 255.

    Example:
        >>> default_palette(3).colours
        ((0, 0, 0), (128, 0, 0), (0, 128, 0))
    """
    if not 1 <= num_classes <= IGNORED:
        raise ValueError(f"{num_classes} classes: needed 1 to {IGNORED}, since {IGNORED} is no label")
    return Palette(tuple(_colour(i) for i in range(num_classes)), _colour(IGNORED))


def read_palette(file: str | Path, num_classes: int) -> Palette:
    """A palette from a JSON file: a list of [red, green, blue], one a class; one more is that of pixels without a label.

    Without it such pixels are black, unless that is the colour of a class.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another content, or another number of colours.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"no palette at {file}; give a JSON file with a list of [red, green, blue]")
    try:
        values = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not valid JSON ({error})") from None
    if not isinstance(values, list) or not all(isinstance(value, list) for value in values):
        raise ValueError(f"{file} holds no list of lists; needed [[red, green, blue], ...], one a class")
    if len(values) not in (num_classes, num_classes + 1):
        raise ValueError(
            f"{file} has {len(values)} colours and the model {num_classes} classes: needed one each, and at most one more "
            "for pixels without a label"
        )
    colours = tuple(tuple(value) for value in values)
    ignored = colours[num_classes] if len(colours) > num_classes else (None if BLACK in colours else BLACK)
    try:
        return Palette(colours[:num_classes], ignored)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def _colour(number: int) -> Colour:
    """Bits 0, 3, 6 of a number are the high bits of red; 1, 4, 7 those of green; 2, 5 those of blue."""
    red, green, blue = (
        sum((number >> (3 * n + channel) & 1) << (7 - n) for n in range(3)) for channel in range(3)
    )
    grey = red == green == blue != 0
    return (red, green, blue + 32) if grey else (red, green, blue)


def _number(colour: Sequence[int]) -> int:
    return (colour[0] << 16) + (colour[1] << 8) + colour[2]
