"""The language-model head at the scored places only, in pieces, with exact gradients.

Peers that project every place of every row hold R * T * V logits, several times over. Here the head reads the K
hidden states that predict a scored token, `PIECE` bytes of logits at a time. The backward pass makes each piece again,
unless all of them together take less than `KEPT`. What a model does to its logits after the projection (`Finish`) is read off its configuration and then
checked against the model itself, see `capability`.

Legend: K scored tokens, D hidden width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

PIECE = {"cpu": 32 * 2**20, "cuda": 256 * 2**20}
"""Bytes of float32 logits made at a time: on a CPU about what its caches hold, on a GPU what fills it."""

BLOCK = 2**20
"""Bytes of float32 logits that elementwise operators take at a time on a CPU: what stays in the cache of a core."""

KEPT = {"cpu": 256 * 2**20, "cuda": 512 * 2**20}
"""Bytes of float32 logits that are kept from the forward to the backward pass rather than made again."""


MEASURES = ("log_p2", "entropy", "top1")
"""What `measures` knows."""


@dataclass(frozen=True, slots=True)
class Finish:
    """What a model does to its logits: z = softcap * tanh(scale * x / softcap), in float32 or wider.

    Attributes:
        scale: factor.
        softcap: largest magnitude; None for no cap.
    """

    scale: float = 1.0
    softcap: float | None = None

    @classmethod
    def of(cls, config: Any) -> Finish:
        """As transformers' models name it: Gemma's soft cap, Cohere's factor, Granite's divisor."""
        scale = getattr(config, "logit_scale", None) or 1.0
        divisor = getattr(config, "logits_scaling", None) or 1.0
        return cls(float(scale) / float(divisor), getattr(config, "final_logit_softcapping", None))

    def __call__(self, logits_KV: Tensor) -> Tensor:
        """The finished logits, in float32 or wider: sums of hundreds of tokens lose the margin in bf16."""
        z_KV = logits_KV.to(torch.promote_types(logits_KV.dtype, torch.float32))
        if self.scale != 1.0:
            z_KV = z_KV * self.scale
        return z_KV if self.softcap is None else self.softcap * torch.tanh(z_KV / self.softcap)

    def backward(self, z_KV: Tensor, grad_KV: Tensor) -> Tensor:
        """Gradient at the raw logits from the finished logits and their gradient; may overwrite the gradient."""
        if self.softcap is not None:
            grad_KV = grad_KV.mul_(1 - (z_KV / self.softcap).square())
        return grad_KV if self.scale == 1.0 else grad_KV.mul_(self.scale)


def logsumexp(z_KV: Tensor) -> Tensor:
    """(K,) without gradient, by blocks of rows: torch's makes a second table as large as the logits, twice."""
    if z_KV.device.type != "cpu":
        return z_KV.logsumexp(-1)
    rows = max(1, BLOCK // (4 * z_KV.shape[-1]))
    return torch.cat([block.logsumexp(-1) for block in z_KV.split(rows)])


def token_logp(z_KV: Tensor, target_K: Tensor) -> Tensor:
    """(K,) log-probability of the targets under finished logits."""
    return z_KV.gather(-1, target_K[:, None])[:, 0] - z_KV.logsumexp(-1)


@torch.no_grad()
def measures(z_KV: Tensor, target_K: Tensor, names: Collection[str]) -> dict[str, Tensor]:
    """(K,) quantities of a token's whole distribution, without gradient.

    Args:
        z_KV: finished logits.
        target_K: token ids.
        names: "log_p2" (log sum_v p(v)^2), "entropy" (nats), "top1" (1 where the target is the likeliest token).
    """
    out: dict[str, Tensor] = {}
    if not names:
        return out
    lse_K = z_KV.logsumexp(-1)
    if "log_p2" in names:
        out["log_p2"] = (2 * z_KV).logsumexp(-1) - 2 * lse_K
    if "entropy" in names:
        out["entropy"] = lse_K - ((z_KV - lse_K[:, None]).exp() * z_KV).sum(-1)
    if "top1" in names:
        out["top1"] = (z_KV.argmax(-1) == target_K).to(z_KV.dtype)
    return out


def head_logp(
    head: nn.Module, hidden_KD: Tensor, target_K: Tensor, finish: Finish, extras: Collection[str] = ()
) -> tuple[Tensor, dict[str, Tensor]]:
    """(K,) log-probabilities of the targets in float32 or wider, and the `measures` asked for.

    Args:
        head: the model's output projection; any module, in pieces of its own if it is a plain linear one.
        hidden_KD: last hidden states at the places that predict the targets.
        target_K: token ids.
        finish: what the model does to its logits.
        extras: names of `measures`.

    Example:
        >>> head = nn.Linear(8, 100, bias=False)
        >>> logp_K, _ = head_logp(head, torch.randn(5, 8), torch.arange(5), Finish())
        >>> logp_K.shape
        torch.Size([5])
    """
    width = getattr(head, "out_features", None) or 8 * hidden_KD.shape[-1]
    rows = max(16, PIECE.get(hidden_KD.device.type, PIECE["cuda"]) // (4 * width))
    if is_plain(head):
        logp_K, *found = HeadLogp.apply(
            hidden_KD, target_K, head.weight, head.bias, finish, rows, tuple(extras)
        )
        return logp_K, dict(zip(extras, found, strict=True))

    def piece_logp(h_KD: Tensor, t_K: Tensor) -> Tensor:
        return token_logp(finish(head(h_KD)), t_K)

    pieces = list(zip(hidden_KD.split(rows), target_K.split(rows), strict=True))
    logp_K = torch.cat([checkpoint(piece_logp, h, t, use_reentrant=False) for h, t in pieces])
    with torch.no_grad():
        parts = [measures(finish(head(h)), t, extras) for h, t in pieces] if extras else []
    return logp_K, {name: torch.cat([part[name] for part in parts]) for name in extras}


def is_plain(head: nn.Module) -> bool:
    """A linear layer whose weight is an ordinary local tensor: not quantized, sharded, adapted or hooked."""
    return type(head) is nn.Linear and type(head.weight.data) is Tensor and not head._forward_hooks


class HeadLogp(torch.autograd.Function):
    """Log-probabilities under a linear head, `rows` tokens at a time; beyond `KEPT` no logits are kept.

    d logp_k / d z_kv = [v = y_k] - p_kv. The weight's gradient adds up in float32 or wider.
    """

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any,
        hidden_KD: Tensor,
        target_K: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        finish: Finish,
        rows: int,
        extras: tuple[str, ...],
    ) -> tuple[Tensor, ...]:
        kind = hidden_KD.device.type
        ctx.dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight_VD.dtype
        ctx.finish, ctx.rows = finish, rows
        size = len(target_K) * len(weight_VD) * 4
        keep = any(ctx.needs_input_grad) and size <= KEPT.get(kind, KEPT["cuda"])
        ctx.kept = [] if keep else None
        logp: list[Tensor] = []
        lse: list[Tensor] = []
        found: list[dict[str, Tensor]] = []
        for h_KD, t_K in zip(hidden_KD.split(rows), target_K.split(rows), strict=True):
            z_KV = finished_logits(ctx.dtype, h_KD, weight_VD, bias_V, finish)
            lse.append(logsumexp(z_KV))
            logp.append(z_KV.gather(-1, t_K[:, None])[:, 0] - lse[-1])
            found.append(measures(z_KV, t_K, extras))
            if ctx.kept is not None:
                ctx.kept.append(z_KV)
        ctx.save_for_backward(hidden_KD, target_K, weight_VD, bias_V, torch.cat(lse))
        more = tuple(torch.cat([part[name] for part in found]) for name in extras)
        ctx.mark_non_differentiable(*more)
        return torch.cat(logp), *more

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:  # noqa: D102
        hidden_KD, target_K, weight_VD, bias_V, lse_K = ctx.saved_tensors
        wants_hidden, _, wants_weight, wants_bias, *_ = ctx.needs_input_grad
        wide = torch.promote_types(weight_VD.dtype, torch.float32)
        grad_hidden_KD = torch.empty_like(hidden_KD) if wants_hidden else None
        pieces = range(0, len(target_K), ctx.rows)
        # a first product writes what zeros and a sum would read and write once more
        grad_VD = torch.zeros_like(weight_VD, dtype=wide) if wants_weight and len(pieces) != 1 else None
        grad_V = torch.zeros_like(bias_V, dtype=wide) if wants_bias else None
        kept, ctx.kept = ctx.kept, None  # used up: a second backward pass makes them again
        for k, start in enumerate(pieces):
            piece = slice(start, start + ctx.rows)
            g_K1, t_K1 = grads[0][piece, None], target_K[piece, None]
            if kept is None:
                z_KV = finished_logits(ctx.dtype, hidden_KD[piece], weight_VD, bias_V, ctx.finish)
            else:
                z_KV, kept[k] = kept[k], None
            # in place where the logits are not asked for again: fresh memory costs as much as the arithmetic
            shifted_KV = z_KV.sub_ if ctx.finish.softcap is None else z_KV.sub
            grad_KV = shifted_KV(lse_K[piece, None]).exp_().mul_(-g_K1).scatter_add_(1, t_K1, g_K1)
            grad_KV = ctx.finish.backward(z_KV, grad_KV).to(ctx.dtype)
            with torch.autocast(hidden_KD.device.type, enabled=False):
                if grad_hidden_KD is not None:
                    grad_hidden_KD[piece] = grad_KV @ weight_VD.to(ctx.dtype)
                if wants_weight and grad_VD is None:
                    grad_VD = (grad_KV.T @ hidden_KD[piece].to(ctx.dtype)).to(wide)
                elif grad_VD is not None and ctx.dtype == wide:
                    grad_VD.addmm_(grad_KV.T, hidden_KD[piece].to(ctx.dtype))
                elif grad_VD is not None:
                    grad_VD += grad_KV.T @ hidden_KD[piece].to(ctx.dtype)
                if grad_V is not None:
                    grad_V += grad_KV.sum(0)
        return (
            grad_hidden_KD,
            None,
            None if grad_VD is None else grad_VD.to(weight_VD.dtype),
            None if grad_V is None else grad_V.to(bias_V.dtype),
            *(None, None, None),
        )


def finished_logits(
    dtype: torch.dtype, hidden_KD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, finish: Finish
) -> Tensor:
    """(K, V) finished logits, multiplied in the dtype that the model would use here."""
    with torch.autocast(hidden_KD.device.type, enabled=False):
        bias = None if bias_V is None else bias_V.to(dtype)
        return finish(linear(hidden_KD.to(dtype), weight_VD.to(dtype), bias))
