"""The worlds of `prefopt reproduce compo`: one softmax head, and pairs that are nearly the same response.

A rejected response is the chosen one with another last token, and its hidden states are those of the chosen one, a
little noisy and 1.4 times as large. Its gradient b thus points almost where the chosen one's, a, does, and is longer:
where |b| cos(a, b) > |a|, DPO's direction a - b makes the chosen response less likely.

In the sparse world a bias leaves a few tokens all the probability, so that only their rows of the head have a gradient.

Legend: V vocabulary, D hidden width, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prefopt.oracles.direction import normalize_
from prefopt.oracles.head import HeadProbe, Pair, Response

TOKENS = 6
LONGER = 1.4
HIDDEN_NOISE = 0.3
WEIGHT_STD = 0.25
SHUT = -12.0
"""Bias of the tokens that the sparse world leaves out."""

RADIUS = 1e-3
STEP = 0.05
"""Length of one step."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything.

    Attributes:
        pairs: pairs of a seed's world (M1 to M3).
        draws: independent sets of moves for each pair.
        moves: numbers of moves; a smaller number's are the first of a larger one's.
        keep_pairs: pairs of each world of M4.
        keep_moves: moves there.
        memory_moves: the two numbers of moves whose memory M5 compares.
        memory_vocabulary: vocabularies of its models: one to vary the moves, one whose head is large.
    """

    pairs: int = 30
    draws: int = 2
    moves: tuple[int, ...] = (100, 400, 1600, 6400)
    keep_pairs: int = 10
    keep_moves: int = 1600
    memory_moves: tuple[int, int] = (100, 1000)
    memory_vocabulary: tuple[int, int] = (2048, 32768)


FULL = Size()
QUICK = Size(
    pairs=3,
    moves=(20, 80, 320),
    keep_pairs=2,
    keep_moves=100,
    memory_moves=(10, 40),
    memory_vocabulary=(512, 8192),
)


@dataclass(frozen=True, slots=True)
class World:
    """A head and pairs of responses as it sees them."""

    weight_VD: Tensor
    pairs: Sequence[Pair]
    bias_V: Tensor | None = None

    def probe(self, pair: int) -> HeadProbe:
        """For moves of the head on one pair."""
        return HeadProbe(self.weight_VD, [self.pairs[pair]], self.bias_V)


def make_world(
    seed: int,
    pairs: int,
    vocabulary: int = 50,
    width: int = 16,
    alive: int | None = None,
    tokens: int = TOKENS,
    longer: float = LONGER,
    noise: float = HIDDEN_NOISE,
) -> World:
    """A random head with pairs.

    Args:
        seed: of head and pairs.
        pairs: how many.
        vocabulary: V.
        width: D.
        alive: in the sparse world the number of tokens that have any probability; None is the dense world.
        tokens: T of each response.
        longer: how much larger the rejected response's hidden states are.
        noise: standard deviation of what is added to them before.

    Example:
        >>> make_world(0, 2).weight_VD.shape
        torch.Size([50, 16])
    """
    generator = torch.Generator().manual_seed(seed)
    used = vocabulary if alive is None else alive
    weight_VD = WEIGHT_STD * torch.randn(vocabulary, width, generator=generator)
    bias_V = None
    if alive is not None:
        bias_V = torch.full((vocabulary,), SHUT)
        bias_V[:alive] = 0.0
    made = []
    for _ in range(pairs):
        hidden_TD, noise_TD = torch.randn(2, tokens, width, generator=generator)
        chosen_T = torch.randint(used, (tokens,), generator=generator)
        rejected_T = chosen_T.clone()
        # another token than the chosen one
        rejected_T[-1] = (chosen_T[-1] + torch.randint(1, used, (), generator=generator)) % used
        rejected_TD = longer * (hidden_TD + noise * noise_TD)
        made.append((Response(hidden_TD, chosen_T), Response(rejected_TD, rejected_T)))
    return World(weight_VD, made, bias_V)


def unit(direction: Tensor) -> Tensor:
    """The same direction with length 1, a new tensor."""
    direction = direction.clone()
    normalize_(direction)
    return direction


def changes(probe: HeadProbe, climb: Tensor, length: float = STEP) -> tuple[float, float]:
    """Changes of (chosen, rejected) log-probability, in nats, by a step along `climb` as it is."""
    change_S2 = probe.changes_along(climb, length)
    return float(change_S2[0, 0]), float(change_S2[0, 1])
