"""Trying moves of the output projection without running the model: it is linear in what moves.

The hidden states H at the scored places do not depend on the head, so they are computed once. A move r Z changes the
logits by r H Z^T, and a token's log-probability by

    r (H Z^T)[token] - log sum_v p_v exp(r (H Z^T)_v)

with p the present distribution. The sum is taken as log1p(sum_v p_v expm1(...)): what is compared is the change itself,
and not a difference of two sums a hundred times as large, so that round-off does not decide.

Fewer random numbers (`fast_sampling`): all that the answers depend on is Z Q, where the k columns of Q are an orthonormal
basis of the rows of H. With Z = A Q^T + B, A holds V k numbers instead of V D, and B is independent of the answers, so
sum_i y_i Z_i has the law of (sum_i y_i A_i) Q^T + sqrt(m) B_0 with a single B_0. The same law, other draws.

Memory beside the head: the vote (another head), two arrays of K V, and `chunk_bytes` for a chunk.

Legend: K scored tokens of all responses, D hidden width, V vocabulary, k columns of Q (D without fast sampling),
C moves of a chunk, M all moves, S pairs, I = 2 S responses (chosen and rejected of the first pair, of the second, ...).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from prefopt.oracles.comparison import Mode, oracle
from prefopt.oracles.direction import expected_direction
from prefopt.oracles.perturbations import Perturbations, add_signed

CHUNK_BYTES = {"cpu": 32 * 2**20, "cuda": 2**30}
"""Bytes of a chunk of moves and of its logits; at least one move is tried at a time."""


class Finish(Protocol):
    """What a model does to its logits after the projection (`prefopt.likelihoods.head.Finish` is one)."""

    def __call__(self, logits_KV: Tensor) -> Tensor:
        """The finished logits; any leading axes."""
        ...

    def backward(self, z_KV: Tensor, grad_KV: Tensor) -> Tensor:
        """Gradient at the raw logits from the finished ones and their gradient; may overwrite the gradient."""
        ...


@dataclass(frozen=True, slots=True)
class Response:
    """One side of a pair as the head sees it.

    Attributes:
        hidden_TD: what the head is applied to at the places that predict the response's tokens, so after the last
            norm; the first is that of the prompt's last token.
        target_T: ids of the response's tokens.
    """

    hidden_TD: Tensor
    target_T: Tensor


Pair = tuple[Response, Response]
"""(chosen, rejected)."""


class HeadProbe:
    """Tries moves of an output projection on one pair or a batch of pairs.

    Stands for one position of the weights: after `move`, make another one.

    Args:
        weight_VD: the master copy in float32 (float64 in toys), which `move` changes in place. A step changes an entry
            by about 1e-6, which bfloat16 loses. If the model ties it to the input embedding, untie them first.
        pairs: see `Response`.
        bias_V: of the projection; it does not move.
        finish: soft cap or scale of the logits; None if there is none.
        fast_sampling: draw in the span of the hidden states; the same law, far fewer numbers. Gaussian moves only.
        project_to_span: leave out what lies outside of the span, which is noise. Not the published method: the mean
            is the same, the noise far smaller.
        chunk_bytes: see `CHUNK_BYTES`.

    Raises:
        ValueError: no pair, an empty response, shapes or ids that do not fit the head, options that exclude each other.
        TypeError: weights below float32.
        FloatingPointError: a log-probability is NaN or infinite.

    Example:
        >>> weight_VD = torch.eye(4, 3)
        >>> chosen = Response(torch.eye(2, 3), torch.tensor([0, 1]))
        >>> rejected = Response(torch.eye(2, 3), torch.tensor([2, 3]))
        >>> probe = HeadProbe(weight_VD, [(chosen, rejected)])
        >>> y_M, total = probe.survey(Perturbations(seed=0, iteration=0), range(8), radius=0.01)
        >>> probe.direction(total, Perturbations(seed=0, iteration=0), y_M).shape
        torch.Size([4, 3])
    """

    @torch.no_grad()
    def __init__(
        self,
        weight_VD: Tensor,
        pairs: Sequence[Pair],
        bias_V: Tensor | None = None,
        finish: Finish | None = None,
        *,
        fast_sampling: bool = True,
        project_to_span: bool = False,
        chunk_bytes: int | None = None,
    ) -> None:
        self.weight_VD = _checked_weight(weight_VD)
        if project_to_span and not fast_sampling:
            raise ValueError("project_to_span needs fast_sampling, which finds the span; set both or neither")
        if chunk_bytes is not None and chunk_bytes <= 0:
            raise ValueError(f"chunk_bytes is {chunk_bytes}; needed a number of bytes above 0")
        responses = [
            _checked(r, weight_VD, s, side) for s, pair in enumerate(pairs) for side, r in enumerate(pair)
        ]
        if not responses:
            raise ValueError("no pair was given; needed at least one (chosen, rejected)")
        device, dtype = weight_VD.device, weight_VD.dtype
        self.identical = all(
            torch.equal(chosen.target_T, rejected.target_T)
            and torch.equal(chosen.hidden_TD, rejected.hidden_TD)
            for chosen, rejected in pairs
        )
        """Whether both sides of every pair are the same, so that no move can help."""
        self._finish, self._project = finish, project_to_span
        self._hidden_KD = torch.cat([r.hidden_TD.to(device, dtype) for r in responses])
        self._target_K = torch.cat([r.target_T.to(device) for r in responses])
        lengths = torch.tensor([len(r.target_T) for r in responses], device=device)
        owner_K = torch.arange(len(responses), device=device).repeat_interleave(lengths)
        self._owner_KI = torch.nn.functional.one_hot(owner_K, len(responses)).double()

        self._raw_KV = self._hidden_KD @ weight_VD.T
        if bias_V is not None:
            self._raw_KV += bias_V.detach().to(device, dtype)
        finished_KV = self._finished(self._raw_KV)
        self._lse_K = finished_KV.logsumexp(-1)
        self._p_KV = (finished_KV - self._lse_K[:, None]).exp_()
        logp_K = finished_KV.gather(1, self._target_K[:, None])[:, 0] - self._lse_K
        self.logp_S2 = (logp_K.double() @ self._owner_KI).view(-1, 2)
        """(S, 2) log-probabilities of chosen and rejected responses, float64."""
        if not bool(self.logp_S2.isfinite().all()):
            raise FloatingPointError(
                f"log-probabilities of (chosen, rejected) are {self.logp_S2.tolist()}: look for weights or hidden "
                "states that are NaN or infinite"
            )

        self._basis_Dk: Tensor | None = None
        self._rows_Kk = self._hidden_KD
        if fast_sampling and len(self._hidden_KD) < weight_VD.shape[1]:
            # never mind rank: a column too many is one more direction drawn for nothing
            self._basis_Dk = torch.linalg.qr(self._hidden_KD.T)[0]
            self._rows_Kk = self._hidden_KD @ self._basis_Dk
        self._fast = fast_sampling
        K, V, k = *self._raw_KV.shape, self._rows_Kk.shape[1]
        budget = chunk_bytes or CHUNK_BYTES.get(device.type, CHUNK_BYTES["cuda"])
        each = weight_VD.element_size() * V
        self._chunk = max(1, budget // (each * (k + K)))
        self._piece = max(1, min(K, budget // each))  # rows at a time, where one move's logits are too many

    @property
    def size(self) -> int:
        """Number of entries that move."""
        return self.weight_VD.numel()

    @torch.no_grad()
    def survey(
        self,
        moves: Perturbations,
        indices: Sequence[int],
        radius: float,
        mode: Mode = "mean",
        bits_M: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Try moves: (y_M, total), the oracle's answers and the signed sum of the moves, in coordinates of the span.

        Args:
            moves: what is tried.
            indices: which of them; a worker's share, or all.
            radius: r; weights + r z are tried.
            mode: of the oracle, over pairs.
            bits_M: answers already known, of other workers say: nothing is tried then, the moves are only summed up.

        Raises:
            ValueError: a sampler that fast sampling does not serve, or a wrong number of answers.
            FloatingPointError: a change is NaN or infinite.
        """
        if self._fast and moves.sampler != "gaussian":
            raise ValueError(
                f"fast_sampling gives the law of Gaussian moves, and the sampler is {moves.sampler!r}: set "
                "fast_sampling=False, or sampler='gaussian' (directions have the same law under both)"
            )
        if bits_M is not None and len(bits_M) != len(indices):
            raise ValueError(f"{len(bits_M)} answers for {len(indices)} moves; needed one for each")
        shape = self._shape
        total = self.weight_VD.new_zeros(shape)
        found = [torch.empty(0, dtype=torch.int8, device=total.device)]
        memory = total.new_empty(min(self._chunk, len(indices)), *shape)
        for start in range(0, len(indices), self._chunk):
            part = indices[start : start + self._chunk]
            z_C = moves.draw(part, shape, total.dtype, total.device, out=memory)
            if bits_M is None:
                change_CS2 = self._changes(partial(self._shift, z_C, radius))
                y_C = oracle(change_CS2[..., 0], change_CS2[..., 1], mode)
            else:
                y_C = bits_M[start : start + self._chunk].to(total.device)
            add_signed(total, z_C, y_C)
            found.append(y_C)
        return torch.cat(found), total

    @torch.no_grad()
    def direction(self, total: Tensor, moves: Perturbations, y_M: Tensor) -> Tensor:
        """(V, D) the vote u = sum_i y_i z_i, from the sum over all moves in coordinates of the span.

        Args:
            total: of `survey`, over indices 0 to M - 1; used up.
            moves: the moves surveyed.
            y_M: all answers.
        """
        if self._basis_Dk is None:
            return total
        if self._project:
            return total.T @ self._basis_Dk.T
        # what lies outside of the span is shared by z and -z, so of such a pair only unequal answers leave some
        signs = y_M.double()
        weight = float((signs[::2] - signs[1::2]).square().sum()) if moves.antithetic else len(y_M)
        u_VD = moves.rest(self.weight_VD.shape, total.dtype, total.device).mul_(math.sqrt(weight))
        total_Vk = total.T - u_VD @ self._basis_Dk
        return u_VD.addmm_(total_Vk, self._basis_Dk.T)

    @torch.no_grad()
    def changes_along(self, g_VD: Tensor, length: float) -> Tensor:
        """(S, 2) float64: how the log-probabilities of chosen and rejected change if the weights move by length * g."""
        # through all D columns: of the span's k, rounding would leave a little less than g
        return self._changes(lambda rows: (self._hidden_KD[rows] * length) @ g_VD.T[None])[0]

    @torch.no_grad()
    def move(self, g_VD: Tensor, length: float) -> None:
        """weights += length * g, in place. What this probe knows is out of date afterwards."""
        self.weight_VD.add_(g_VD, alpha=length)

    @torch.no_grad()
    def gradients(self) -> tuple[Tensor, Tensor]:
        """((V, D), (V, D)): gradients of the mean log-probability of chosen and of rejected responses.

        grad_W sum_t log p(y_t) = sum_t (onehot(y_t) - p_t) h_t^T (paper's setting, closed form).
        """
        grad_KV = (-self._p_KV).scatter_add_(
            1, self._target_K[:, None], torch.ones_like(self._lse_K)[:, None]
        )
        if self._finish is not None:
            grad_KV = self._finish.backward(self._finished(self._raw_KV), grad_KV)
        pairs = len(self.logp_S2)
        sides = []
        for side in range(2):
            mine_K = self._owner_KI[:, side::2].sum(1) > 0
            sides.append(grad_KV[mine_K].T @ self._hidden_KD[mine_K] / pairs)
        return sides[0], sides[1]

    def expected(self) -> tuple[float, Tensor]:
        """(p, (V, D) mean vote) of infinitely many, vanishing Gaussian moves under the oracle's mode "mean"."""
        return expected_direction(*self.gradients())

    @property
    def _shape(self) -> tuple[int, ...]:
        # in the span a move is kept as (k, V): the product with the rows then reads memory in order
        V, D = self.weight_VD.shape
        return (V, D) if self._basis_Dk is None else (self._basis_Dk.shape[1], V)

    def _finished(self, raw: Tensor) -> Tensor:
        return raw if self._finish is None else self._finish(raw).to(raw.dtype)

    def _shift(self, z_C: Tensor, radius: float, rows: slice) -> Tensor:
        """(C, rows, V) changes of the raw logits."""
        rows_Kk = self._rows_Kk[rows] * radius
        shift_CKV = rows_Kk.new_empty(len(z_C), len(rows_Kk), len(self.weight_VD))
        for z, out in zip(z_C, shift_CKV, strict=True):  # a product each: the same bits in chunks of any size
            torch.mm(rows_Kk, z.T if self._basis_Dk is None else z, out=out)
        return shift_CKV

    def _changes(self, shift: Callable[[slice], Tensor]) -> Tensor:
        """(C, S, 2) float64 changes of the log-probabilities, from a function of rows that gives the raw logits'.

        Sums of hundreds of tokens are compared with zero, hence float64.
        """
        sums = []
        for start in range(0, len(self._target_K), self._piece):
            rows = slice(start, start + self._piece)
            sums.append(self._token_changes(shift, rows).double() @ self._owner_KI[rows])
        return torch.stack(sums).sum(0).unflatten(-1, (-1, 2))

    def _token_changes(self, shift: Callable[[slice], Tensor], rows: slice) -> Tensor:
        """(C, rows) changes of the tokens' log-probabilities."""

        def finished_shift() -> Tensor:
            shift_CKV = shift(rows)
            if self._finish is None:
                return shift_CKV
            raw_KV = self._raw_KV[rows]
            return self._finished(shift_CKV + raw_KV) - self._finished(raw_KV)

        shift_CKV = finished_shift()
        index_CK1 = self._target_K[rows, None].expand(len(shift_CKV), -1, 1)
        at_target_CK = shift_CKV.gather(2, index_CK1)[..., 0]
        # in place: fresh memory costs as much as the arithmetic
        mass_CK = shift_CKV.expm1_().mul_(self._p_KV[rows]).sum(-1)
        change_CK = at_target_CK - mass_CK.log1p()
        # good to rounding while little mass moves; where much does, or exp overflows, the difference is large anyway
        large_C = ~(mass_CK.abs() <= 0.5).all(1)
        if bool(large_C.any()):
            moved_CKV = finished_shift()[large_C] + self._finished(self._raw_KV[rows])
            change_CK[large_C] = at_target_CK[large_C] - (moved_CKV.logsumexp(-1) - self._lse_K[rows])
        return change_CK


def _checked_weight(weight_VD: Tensor) -> Tensor:
    if weight_VD.dim() != 2:
        raise ValueError(
            f"the head's weight has shape {tuple(weight_VD.shape)}; needed (vocabulary, hidden width)"
        )
    if weight_VD.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"the head's weight is {weight_VD.dtype}, which would lose the small steps: pass a float32 master copy, "
            "weight.detach().float(), keep it between steps, and copy it to the model after each"
        )
    return weight_VD.detach()


def _checked(response: Response, weight_VD: Tensor, pair: int, side: int) -> Response:
    name = f"the {('chosen', 'rejected')[side]} response of pair {pair}"
    hidden, target = response.hidden_TD, response.target_T
    V, D = weight_VD.shape
    if hidden.dim() != 2 or hidden.shape[1] != D or target.shape != hidden.shape[:1]:
        raise ValueError(
            f"{name} has hidden states of shape {tuple(hidden.shape)} and targets of shape {tuple(target.shape)}; "
            f"needed (tokens, {D}) and (tokens,)"
        )
    if not len(target):
        raise ValueError(f"{name} has no tokens: drop the pair")
    if not 0 <= int(target.min()) <= int(target.max()) < V:
        raise ValueError(
            f"{name} has token ids from {int(target.min())} to {int(target.max())}; the head has {V}"
        )
    return Response(hidden.detach(), target.long())
