"""Trying moves of any parameters by running the model each time: slow, obvious, and the judge of the fast path.

Legend: M moves, C moves of a chunk, S pairs, P entries of all parameters one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from prefopt.oracles.comparison import Mode, oracle
from prefopt.oracles.perturbations import Perturbations, add_signed

Score = Callable[[], tuple[Tensor, Tensor]]
"""() -> ((S,), (S,)) log-probabilities of chosen and rejected responses under the model as it is, float32 or wider."""


class PlainProbe:
    """Tries moves of chosen parameters, two forward passes for each.

    All parameters are moved as one long vector, so that one of them alone gets the moves that `HeadProbe` without fast
    sampling gives it. The model must be in evaluation mode and `score` a function of the weights alone: dropout, or
    another batch shape, would decide the comparisons.

    Args:
        parameters: what moves; changed in place and put back exactly.
        score: see `Score`.
        masters: float32 copies that outlive the probe, for parameters of less precision: `move` changes them and copies
            them to the parameters. None: made here from the parameters.

    Raises:
        ValueError: no parameter, or masters of other shapes.
        TypeError: masters below float32, or parameters that are not floating point.
        FloatingPointError: a log-probability is NaN or infinite.

    Example:
        >>> w = torch.zeros(2)
        >>> probe = PlainProbe([w], lambda: (w[:1].clone(), w[1:].clone()))
        >>> y_M, u = probe.survey(Perturbations(seed=0, iteration=0), range(8), radius=0.1)
        >>> u.shape, w
        (torch.Size([2]), tensor([0., 0.]))
    """

    identical = False

    @torch.no_grad()
    def __init__(
        self, parameters: Sequence[Tensor], score: Score, masters: Sequence[Tensor] | None = None
    ) -> None:
        if not parameters:
            raise ValueError("no parameters were given; needed at least one to move")
        self.parameters = [p.detach() for p in parameters]
        for p in self.parameters:
            if not p.is_floating_point():
                raise TypeError(f"a parameter is {p.dtype}, which has no small moves; needed floating point")
        wide = [p.clone().to(torch.promote_types(p.dtype, torch.float32)) for p in self.parameters]
        self.masters = wide if masters is None else list(masters)
        if [m.shape for m in self.masters] != [p.shape for p in self.parameters]:
            raise ValueError(
                f"masters of shapes {[tuple(m.shape) for m in self.masters]} for parameters of shapes "
                f"{[tuple(p.shape) for p in self.parameters]}; needed the same"
            )
        if any(m.dtype not in (torch.float32, torch.float64) for m in self.masters):
            raise TypeError(f"masters are {[m.dtype for m in self.masters]}; needed float32 or float64")
        self._score = score
        self.logp_S2 = self._scored()
        """(S, 2) log-probabilities of chosen and rejected responses, float64."""

    @property
    def size(self) -> int:
        """Number of entries that move."""
        return sum(m.numel() for m in self.masters)

    @torch.no_grad()
    def survey(
        self,
        moves: Perturbations,
        indices: Sequence[int],
        radius: float,
        mode: Mode = "mean",
        bits_M: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Try moves: (y_M, (P,) signed sum of the moves). See `HeadProbe.survey`."""
        if bits_M is not None and len(bits_M) != len(indices):
            raise ValueError(f"{len(bits_M)} answers for {len(indices)} moves; needed one for each")
        total = self.masters[0].new_zeros(self.size)
        found = [torch.empty(0, dtype=torch.int8, device=total.device)]
        for place, index in enumerate(indices):
            z_CP = moves.draw([index], total.shape, total.dtype, total.device)
            if bits_M is None:
                change_S2 = self.changes_along(z_CP[0], radius).to(total.device)
                y_C = oracle(change_S2[None, :, 0], change_S2[None, :, 1], mode)
            else:
                y_C = bits_M[place : place + 1].to(total.device)
            add_signed(total, z_CP, y_C)
            found.append(y_C)
        return torch.cat(found), total

    def direction(self, total: Tensor, moves: Perturbations, y_M: Tensor) -> Tensor:
        """(P,) the vote, which is the sum itself."""
        return total

    @torch.no_grad()
    def changes_along(self, g_P: Tensor, length: float) -> Tensor:
        """(S, 2) float64: how the log-probabilities of chosen and rejected change if the weights move by length * g."""
        kept = [p.clone() for p in self.parameters]
        try:
            for p, master, g in zip(self.parameters, self.masters, self._parts(g_P), strict=True):
                p.copy_(master + length * g.to(master.device, master.dtype))
            return self._scored() - self.logp_S2
        finally:
            for p, old in zip(self.parameters, kept, strict=True):
                p.copy_(old)

    @torch.no_grad()
    def move(self, g_P: Tensor, length: float) -> None:
        """weights += length * g in the master copies, which are then copied to the parameters."""
        for p, master, g in zip(self.parameters, self.masters, self._parts(g_P), strict=True):
            master.add_(g.to(master.device, master.dtype), alpha=length)
            p.copy_(master)

    def expected(self) -> tuple[float, Tensor]:
        """Not available: it needs gradients.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            "the expected direction needs gradients, which this path does without: use HeadProbe and move the head "
            "alone, or sample"
        )

    def _parts(self, flat_P: Tensor) -> list[Tensor]:
        pieces = flat_P.split([m.numel() for m in self.masters])
        return [piece.view(m.shape) for piece, m in zip(pieces, self.masters, strict=True)]

    def _scored(self) -> Tensor:
        logp_w_S, logp_l_S = self._score()
        if logp_w_S.dim() != 1 or logp_w_S.shape != logp_l_S.shape or not len(logp_w_S):
            raise ValueError(
                f"score gave shapes {tuple(logp_w_S.shape)} and {tuple(logp_l_S.shape)}; needed (pairs,) for both sides"
            )
        logp_S2 = torch.stack([logp_w_S, logp_l_S], -1).double()
        if not bool(logp_S2.isfinite().all()):
            raise FloatingPointError(
                f"log-probabilities of (chosen, rejected) are {logp_S2.tolist()}: look for weights that are NaN or "
                "infinite, or lower the radius"
            )
        return logp_S2
