"""Counted random moves of weights: the i-th of an iteration follows from (seed, iteration, i) alone.

So it does not matter in what order, in how many pieces or on how many workers the moves are tried, and none has to be
kept: who knows the index can make the move again. The same kind of device gives the same bits; a GPU draws other
numbers than a CPU does.

Legend: C moves of a chunk, then the shape of what is moved.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

import torch
from torch import Tensor

Sampler = Literal["gaussian", "sphere"]
SAMPLERS: tuple[Sampler, ...] = ("gaussian", "sphere")

MOST = 2**16 - 1
"""Largest number of moves in one iteration; the index after the last is that of `rest`."""


def sphere_radius(gaussian_radius: float, size: int) -> float:
    """The radius on the unit sphere that moves as far as a Gaussian of this deviation an entry (paper, section 4).

    Args:
        gaussian_radius: standard deviation of one entry's move.
        size: number of entries.

    Example:
        >>> round(sphere_radius(0.0005, 32000 * 4096), 2)
        5.72
    """
    return gaussian_radius * math.sqrt(size)


@dataclass(frozen=True, slots=True)
class Perturbations:
    """The random moves z_0, z_1, ... of one iteration.

    Attributes:
        seed: the run's seed.
        iteration: counts iterations from 0; each has fresh moves.
        sampler: "gaussian", entries N(0, 1); or "sphere", uniform on the unit sphere (the paper's text, whose radius
            must then be that of `sphere_radius` to mean the same).
        antithetic: moves come in pairs z, -z.

    Raises:
        ValueError: unknown sampler, or a negative iteration.

    Example:
        >>> moves = Perturbations(seed=0, iteration=3)
        >>> z_CVD = moves.draw(range(4, 6), (7, 2))
        >>> bool((z_CVD[1] == moves.draw([5], (7, 2))[0]).all())
        True
    """

    seed: int
    iteration: int
    sampler: Sampler = "gaussian"
    antithetic: bool = False

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise ValueError(f"sampler {self.sampler!r} is not one of: {', '.join(SAMPLERS)}")
        if self.iteration < 0:
            raise ValueError(f"iteration is {self.iteration}; needed a count from 0")

    def draw(
        self,
        indices: Sequence[int],
        shape: Sequence[int],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        out: Tensor | None = None,
    ) -> Tensor:
        """(C, *shape) the moves with these indices.

        Args:
            indices: each at least 0 and below `MOST`.
            shape: of what is moved; another shape has other numbers.
            dtype: float32 or float64, whose numbers differ.
            device: where they are drawn.
            out: memory to use, for C moves or more: blocks of a head's size, taken and given back, leave holes.

        Raises:
            ValueError: an index out of range.
        """
        z = (
            torch.empty(len(indices), *shape, dtype=dtype, device=device)
            if out is None
            else out[: len(indices)]
        )
        generator = torch.Generator(device=device)
        for place, index in enumerate(indices):
            if not 0 <= index < MOST:
                raise ValueError(f"index {index} of a perturbation is out of range: needed 0 to {MOST - 1}")
            mirrored = self.antithetic and index % 2 == 1
            if mirrored and place and indices[place - 1] == index - 1:
                torch.neg(z[place - 1], out=z[place])
                continue
            self._fill(z[place], index - mirrored, generator)
            if mirrored:
                z[place].neg_()
        return z

    def rest(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
        """(*shape) one more Gaussian, independent of all moves."""
        z = torch.empty(*shape, dtype=dtype, device=device)
        z.normal_(generator=torch.Generator(device=device).manual_seed(self.key(MOST)))
        return z

    def key(self, index: int) -> int:
        """The 32-bit seed of a move.

        torch's CPU generator keeps 32 bits of a seed, so hashing alone would give some moves the same numbers. The
        iteration's and the index's lowest 16 bits are scrambled one to one instead: no two moves of 65536 iterations
        in a row share a seed.
        """
        digest = blake2b(f"{self.seed:d}/{self.iteration >> 16:d}".encode(), digest_size=4).digest()
        x = ((self.iteration & 0xFFFF) << 16 | index) ^ int.from_bytes(digest, "little")
        for factor in (0x7FEB352D, 0x846CA68B):  # odd, hence one to one, as is the shift
            x ^= x >> 16
            x = x * factor & 0xFFFFFFFF
        return x ^ x >> 16

    def _fill(self, z: Tensor, index: int, generator: torch.Generator) -> None:
        z.normal_(generator=generator.manual_seed(self.key(index)))
        if self.sampler == "sphere":
            z.div_(torch.linalg.vector_norm(z))


def add_signed(total: Tensor, z_C: Tensor, y_C: Tensor) -> None:
    """total += sum_i y_i z_i in place, one after the other, so that chunks of any size give the same bits.

    Args:
        total: of the shape of one move.
        z_C: (C, *shape) moves.
        y_C: (C,) their answers, +1 or -1.
    """
    for z, y in zip(z_C, y_C.tolist(), strict=True):
        total.add_(z, alpha=y)
