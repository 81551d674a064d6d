"""From the moves and their answers to a direction of descent, and to the entries of it that are used.

Legend: M moves, D entries of what is moved (all axes flattened where a function takes any shape).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from prefopt.oracles.comparison import opens

BLOCK = 2**20
"""Entries looked at at a time: temporaries stay small beside a head."""


def normalize_(u: Tensor) -> float:
    """Divide by the Euclidean norm of all entries, in place, and return that norm; zero stays zero."""
    norm = float(torch.linalg.vector_norm(u, dtype=torch.promote_types(u.dtype, torch.float32)))
    if norm > 0:
        u.div_(norm)
    return norm


def direction(z_MD: Tensor, y_M: Tensor) -> tuple[Tensor, Tensor]:
    """(u, g): the vote u = sum_i y_i z_i, and g = u / |u|, zero if u is (paper, algorithm 2).

    The obvious formula, for small sizes. The probes sum as they draw.

    Args:
        z_MD: (M, ...) moves.
        y_M: (M,) answers, +1 or -1.

    Example:
        >>> direction(torch.tensor([[3.0, 4.0]]), torch.tensor([-1]))[1]
        tensor([-0.6000, -0.8000])
    """
    u = torch.tensordot(y_M.to(z_MD.dtype), z_MD, dims=1)
    g = u.clone()
    normalize_(g)
    return u, g


@dataclass(frozen=True, slots=True)
class Selection:
    """Which entries of a unit direction are used; the others are zeroed, and nothing is scaled up for them.

    Exactly one of three. An absolute threshold means something only beside the number of entries: at the paper's
    2.2e-4, 1.2% of a head of 32000 x 4096 remain, and all of one of 50 x 16.

    Attributes:
        lambda_g: keep magnitudes of at least this (the paper's).
        clip_sigma: the same in units of 1 / sqrt(D), which is what pure noise has; the paper's are 1.83 to 2.52.
        keep_fraction: keep this share of the entries, the largest, rounded up.

    Raises:
        ValueError: not exactly one of them, or out of range.

    Example:
        >>> Selection(keep_fraction=0.5)(torch.tensor([0.6, 0.0, -0.8, 0.0]))[0]
        tensor([ 0.6000,  0.0000, -0.8000,  0.0000])
    """

    lambda_g: float | None = None
    clip_sigma: float | None = None
    keep_fraction: float | None = None

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in self.__slots__ if getattr(self, name) is not None}
        if len(given) != 1:
            told = ", ".join(f"{name}={value}" for name, value in given.items()) or "none"
            raise ValueError(
                f"given {told}; needed exactly one of lambda_g, clip_sigma, keep_fraction "
                "(keep_fraction=0.01 is the usual choice, keep_fraction=1 keeps everything)"
            )
        name, value = next(iter(given.items()))
        if name == "keep_fraction" and not 0 < value <= 1:
            raise ValueError(f"keep_fraction is {value}; needed a share above 0 and up to 1")
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} is {value}; needed a finite number, 0 or more")

    def threshold(self, size: int) -> float | None:
        """The smallest magnitude that is kept among `size` entries; None if their number decides."""
        if self.clip_sigma is not None:
            return self.clip_sigma / math.sqrt(size)
        return self.lambda_g

    def apply_(self, g: Tensor) -> int:
        """Zero the entries that are not used, in place; returns how many are kept.

        Of equal magnitudes at the border of a share, the first ones in memory are kept.
        """
        g_D = g.view(-1)
        threshold = self.threshold(g_D.numel())
        if threshold is not None:
            return sum(_zero_below(block, threshold) for block in g_D.split(BLOCK))
        # as written in decimal: 0.07 of 100 entries are 7, though 0.07 * 100 > 7 in floating point
        count = math.ceil(Fraction(str(self.keep_fraction)) * g_D.numel())
        if count == g_D.numel():
            return count
        least = kth_magnitude(g_D, count)
        surplus = -count
        for block in g_D.split(BLOCK):
            surplus += _zero_below(block, least)
        for block in reversed(g_D.split(BLOCK)):
            if surplus <= 0:
                break
            tied = (block.abs() == least).nonzero()[:, 0][-surplus:]
            block[tied] = 0
            surplus -= len(tied)
        return count

    def __call__(self, g: Tensor) -> tuple[Tensor, int]:
        """(a new direction, how many entries it kept)."""
        g = g.clone(memory_format=torch.contiguous_format)
        return g, self.apply_(g)


def _zero_below(block: Tensor, threshold: float) -> int:
    """Zero what is smaller, in place; how much is not."""
    small = block.abs() < threshold
    block.masked_fill_(small, 0)
    return block.numel() - int(small.sum())


def kth_magnitude(g_D: Tensor, k: int) -> float:
    """The k-th largest magnitude, exactly.

    Magnitudes are sorted as their bits are, so the answer is found 16 bits at a time by counting. A sort or
    `topk` of a head would take several times the head's memory.

    Args:
        g_D: float32 or float64, one axis.
        k: from 1.

    Raises:
        TypeError: another dtype.

    Example:
        >>> kth_magnitude(torch.tensor([1.0, -3.0, 2.0]), 2)
        2.0
    """
    integer = {torch.float32: torch.int32, torch.float64: torch.int64}.get(g_D.dtype)
    if integer is None:
        raise TypeError(f"magnitudes of {g_D.dtype}; needed float32 or float64: keep a float32 master copy")
    known = 0  # the leading bits of the answer
    first = 8 * g_D.element_size() - 16
    for shift in range(first, -1, -16):
        count = torch.zeros(2**16, dtype=torch.long, device=g_D.device)
        for block in g_D.split(BLOCK):
            bits = block.abs().view(integer) >> shift
            if shift < first:
                bits = bits[bits >> 16 == known]
            count += torch.bincount(bits & 0xFFFF, minlength=2**16)
        at_least = count.flip(0).cumsum(0)
        place = int((at_least < k).sum())
        k -= int(at_least[place - 1]) if place else 0
        known = known << 16 | (2**16 - 1 - place)
    return float(torch.tensor(known, dtype=integer).view(g_D.dtype))


def onebit_sparse(u: Tensor, s: float) -> tuple[Tensor, float]:
    """(g, tau): g = argmax <u, g> over |g|_1 <= sqrt(s), |g|_2 <= 1, exactly (paper, algorithm 1).

    The answer is u soft-thresholded at tau, scaled to length 1. tau is 0 while the first bound does not bind. If k
    entries tie for the largest magnitude and k >= s, many g are best; the bound is then shared equally among the k.

    With the k largest magnitudes above tau, of mean mu and variance v, |g|_1 = sqrt(s) says
    k (mu - tau)^2 = s (v + (mu - tau)^2), hence tau = mu - sqrt(s v / (k - s)). Sorts, so it is for small sizes.

    Args:
        u: any shape.
        s: bound on the number of entries that matter, at least 1.

    Raises:
        ValueError: s below 1.

    Example:
        >>> onebit_sparse(torch.tensor([3.0, 1.0, 0.5]), 1.0)[0]
        tensor([1., 0., 0.])
    """
    if not s >= 1:
        raise ValueError(f"s is {s}; needed at least 1: no unit vector has a smaller squared 1-norm")
    a = u.abs().double().flatten()
    largest = float(a.max()) if a.numel() else 0.0
    if largest == 0:
        return torch.zeros_like(u), 0.0
    a = a / largest
    if float(a.sum() / torch.linalg.vector_norm(a)) <= math.sqrt(s):
        g = u / largest
        return g / torch.linalg.vector_norm(g), 0.0
    top = a.sort(descending=True).values
    ties = int((top == top[0]).sum())
    if ties >= s:
        following = float(top[ties]) if ties < len(top) else 0.0
        return u.sign() * (a == 1).reshape(u.shape) * (math.sqrt(s) / ties), following * largest
    # squared ratio of the norms if exactly the k largest stay above tau; it grows with k
    k = torch.arange(1, len(top) + 1, dtype=a.dtype, device=a.device)
    tau = torch.cat([top[1:], top.new_zeros(1)])
    sums, squares = top.cumsum(0), top.square().cumsum(0)
    ratio = (sums - k * tau).square() / (squares - 2 * tau * sums + k * tau.square())
    ratio[: ties - 1] = 0  # nothing is above tau there: 0/0
    active = max(int((ratio < s).sum()), math.floor(s)) + 1  # more than s, whatever rounding says
    chosen = top[: min(active, len(top))]
    mean, variance, n = float(chosen.mean()), float(chosen.var(correction=0)), len(chosen)
    level = mean - math.sqrt(s * variance / (n - s))
    g = u.sign() * (a - level).clamp(min=0).reshape(u.shape).to(u.dtype)
    return g / torch.linalg.vector_norm(g), level * largest


def update(theta: Tensor, g: Tensor, success_rate: float, gamma: float, gate: float) -> tuple[Tensor, bool]:
    """(theta - gamma p g, True) if the gate opens, else (theta, False) (paper, algorithm 2).

    Args:
        theta: weights.
        g: selected direction.
        success_rate: p, share of moves that helped.
        gamma: step size.
        gate: lambda; p must exceed it.

    Example:
        >>> update(torch.ones(1), torch.ones(1), 0.5, 0.1, 0.2)
        (tensor([0.9500]), True)
    """
    if not opens(success_rate, gate) or success_rate == 0:
        return theta, False
    return theta - gamma * success_rate * g, True


def expected_direction(a: Tensor, b: Tensor) -> tuple[float, Tensor]:
    """(p, E[y z]): the share of successes and the mean vote of Gaussian moves of vanishing size.

    p = 1/2 - phi / (2 pi), phi the angle between a and -b, and E[y z] = -(a/|a| - b/|b|) / sqrt(2 pi). The step thus
    climbs the sum of the two unit gradients, which never makes the chosen response less likely nor the rejected one
    likelier, to first order; the step of DPO, along a - b, can do both. If either gradient is zero no move helps: p = 0.

    Args:
        a: gradient of the chosen response's log-probability.
        b: the same of the rejected one.

    Example:
        >>> expected_direction(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))[0]
        0.25
    """
    wide = torch.promote_types(a.dtype, torch.float32)
    norm_a, norm_b = (float(torch.linalg.vector_norm(x, dtype=wide)) for x in (a, b))
    if norm_a == 0 or norm_b == 0:
        return 0.0, torch.zeros_like(a)
    mean = b / norm_b - a / norm_a
    apart = float(torch.linalg.vector_norm(mean))
    together = float(torch.linalg.vector_norm(a / norm_a + b / norm_b))
    angle = 2 * math.atan2(together, apart)  # an arc cosine loses half the digits near 0 and pi
    return 0.5 - angle / (2 * math.pi), mean.div_(math.sqrt(2 * math.pi))


def expected_cosine(success_rate: float, perturbations: int, size: int) -> float:
    """Cosine between a vote and its mean to be expected from m Gaussian moves of `size` entries.

    sqrt(m c^2 / (D + m c^2)) with c = |E[y z]| = 2 sin(pi p) / sqrt(2 pi).

    Example:
        >>> round(expected_cosine(0.25, 1600, 32000 * 4096), 4)
        0.002
    """
    signal = perturbations * 2 * math.sin(math.pi * success_rate) ** 2 / math.pi
    return math.sqrt(signal / (size + signal))
