"""One prompt, K responses, and the exact population loss: where theorems about optima can be checked to the digit.

Shapes: K responses, E = K (K - 1) / 2 pairs of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prefopt.objectives.base import Objective


def pairs(responses: int) -> tuple[Tensor, Tensor]:
    """(E,) first and (E,) second response of every pair."""
    first_E, second_E = torch.triu_indices(responses, responses, 1)
    return first_E, second_E


def minimise(objective: Objective, log_ref_K: Tensor, shares_E3: Tensor, steps: int = 500) -> Tensor:
    """(K,) policy of least mean loss over all pairs, each with its exact outcome probabilities.

    Args:
        objective: from `prefopt.objectives.get`.
        log_ref_K: log pi_ref, float64; also where the descent starts.
        shares_E3: probabilities of (win, lose, tie) of the first response of each of `pairs(K)`.
        steps: most iterations of L-BFGS with a strong Wolfe line search.

    Example:
        >>> ref = torch.full((2,), 0.5, dtype=torch.float64).log()
        >>> from prefopt import objectives
        >>> minimise(objectives.get("dpo", beta=1.0), ref, torch.tensor([[0.8, 0.2, 0.0]], dtype=torch.float64))
        tensor([0.8000, 0.2000], dtype=torch.float64)
    """
    first_E, second_E = pairs(len(log_ref_K))
    logits_K = log_ref_K.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [logits_K],
        max_iter=steps,
        tolerance_grad=1e-13,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
        history_size=20,
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        rho_K = logits_K.log_softmax(-1) - log_ref_K
        loss = objective(rho_K[first_E], rho_K[second_E], shares_E3).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    return logits_K.detach().softmax(-1)
