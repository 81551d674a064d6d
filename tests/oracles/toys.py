"""A head, pairs and a scoring function, small enough for the obvious way."""

from __future__ import annotations

import torch
from torch import Tensor

from prefopt.oracles.head import Finish, Pair, Response


def response(
    tokens: int, vocabulary: int, width: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
) -> Response:
    hidden_TD = torch.randn(tokens, width, generator=generator, dtype=dtype)
    return Response(hidden_TD, torch.randint(vocabulary, (tokens,), generator=generator))


def toy(
    vocabulary: int = 20,
    width: int = 16,
    lengths: tuple[tuple[int, int], ...] = ((3, 5),),
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, list[Pair]]:
    """(weight_VD, pairs)."""
    generator = torch.Generator().manual_seed(seed)
    weight_VD = 0.3 * torch.randn(vocabulary, width, generator=generator, dtype=dtype)
    pairs = [
        (response(w, vocabulary, width, generator, dtype), response(l_, vocabulary, width, generator, dtype))
        for w, l_ in lengths
    ]
    return weight_VD, pairs


def logp(
    weight_VD: Tensor, side: Response, bias_V: Tensor | None = None, finish: Finish | None = None
) -> Tensor:
    """The definition: sum over tokens of log softmax(finish(h W^T + b))[token]."""
    logits_TV = side.hidden_TD @ weight_VD.T + (0 if bias_V is None else bias_V)
    logits_TV = logits_TV if finish is None else finish(logits_TV)
    return logits_TV.log_softmax(-1).gather(1, side.target_T[:, None]).sum()


def scored(
    weight_VD: Tensor, pairs: list[Pair], bias_V: Tensor | None = None, finish: Finish | None = None
) -> tuple[Tensor, Tensor]:
    sides = [[logp(weight_VD, side, bias_V, finish) for side in pair] for pair in pairs]
    return torch.stack([s[0] for s in sides]), torch.stack([s[1] for s in sides])
