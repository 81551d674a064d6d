"""The oracle and the rules around it: which pairs it is asked about, and when its answer counts.

Pure functions. Log-probabilities are sums over the tokens of a response, in nats, in float32 or wider.

Legend: M moves, S pairs of a batch, N pairs of a data set, B responses.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Mode = Literal["mean", "any", "all"]
MODES: tuple[Mode, ...] = ("mean", "any", "all")

SplitRule = Literal["two_sided", "release"]
SPLIT_RULES: tuple[SplitRule, ...] = ("two_sided", "release")

LIKELY_RATES = (0.02, 0.48)
"""Shares of success outside of which the radius is doubtful."""


def oracle(change_w_MS: Tensor, change_l_MS: Tensor, mode: Mode = "mean") -> Tensor:
    """(M,) int8 answers of the comparison oracle: -1 where a move helped, +1 where it did not.

    It helped if it made the chosen responses likelier and the rejected ones less likely, both strictly (paper,
    definition 3.1: -1 means that the hypothetical function to be minimised went down).

    Args:
        change_w_MS: (..., S) change of the chosen responses' log-probabilities by each move.
        change_l_MS: the same of the rejected responses.
        mode: "mean": of the changes averaged over the S pairs; "any": one pair is enough (the released code); "all":
            every pair. With one pair they agree.

    Raises:
        ValueError: unknown mode, or shapes that differ.
        FloatingPointError: a change is NaN or infinite. That is no failure of a move but of the model.

    Example:
        >>> oracle(torch.tensor([[0.5], [0.5]]), torch.tensor([[-0.1], [0.1]])).tolist()
        [-1, 1]
    """
    if mode not in MODES:
        raise ValueError(f"oracle mode {mode!r} is not one of: {', '.join(MODES)}")
    if change_w_MS.shape != change_l_MS.shape or not change_w_MS.shape[-1:].numel():
        raise ValueError(
            f"changes of shape {tuple(change_w_MS.shape)} for chosen and {tuple(change_l_MS.shape)} for rejected "
            "responses; needed the same shape (moves, pairs), with at least one pair"
        )
    for side, change in (("chosen", change_w_MS), ("rejected", change_l_MS)):
        if not bool(change.isfinite().all()):
            raise FloatingPointError(
                f"{int((~change.isfinite()).sum())} of {change.numel()} changes of the {side} responses' "
                "log-probabilities are NaN or infinite: look for such weights or hidden states, or lower the radius"
            )
    if mode == "mean":
        helped_M = (change_w_MS.mean(-1) > 0) & (change_l_MS.mean(-1) < 0)
    else:
        helped_MS = (change_w_MS > 0) & (change_l_MS < 0)
        helped_M = helped_MS.any(-1) if mode == "any" else helped_MS.all(-1)
    return 1 - 2 * helped_M.to(torch.int8)


def is_noisy(margin_N: Tensor, delta: float = 3.0, rule: SplitRule = "two_sided") -> Tensor:
    """(N,) bool: the pairs whose responses the reference finds about equally likely; the others are clean.

    Args:
        margin_N: log-probability of chosen minus rejected under the reference. Sums grow with length, so a fixed
            delta mostly picks short pairs or those of equal length.
        delta: in nats, at least 0.
        rule: "two_sided": |margin| <= delta (paper, section 4); "release": 0 < margin < delta (released code).

    Raises:
        ValueError: delta below 0, unknown rule, or a margin that is NaN.

    Example:
        >>> is_noisy(torch.tensor([3.0, -3.0, 0.0, 3.1])).tolist()
        [True, True, True, False]
    """
    if rule not in SPLIT_RULES:
        raise ValueError(f"rule {rule!r} is not one of: {', '.join(SPLIT_RULES)}")
    if not delta >= 0:
        raise ValueError(f"delta is {delta}; needed a margin in nats, 0 or more")
    if bool(margin_N.isnan().any()):
        raise ValueError(
            f"{int(margin_N.isnan().sum())} of {len(margin_N)} reference margins are NaN: score them again"
        )
    return margin_N.abs() <= delta if rule == "two_sided" else (margin_N > 0) & (margin_N < delta)


def opens(success_rate: float, gate: float) -> bool:
    """Whether so many moves helped that their vote counts: strictly more than the gate (paper, algorithm 2)."""
    return success_rate > gate


def release_accepts(successes: int, threshold: int, trial: int) -> bool:
    """The released code's rule: at least `threshold` successes, and the oracle's answer at a trial point is -1.

    Args:
        successes: number of moves that helped.
        threshold: 330 of 1800 in the released script.
        trial: answer at weights - 5 * direction.
    """
    return successes >= threshold and trial == -1


def damped(
    gamma: float, rho: float, allowance: float, policy_logp_B: Tensor, ref_logp_B: Tensor, length_B: Tensor
) -> tuple[float, float]:
    """A step size that shrinks as the policy drifts, and the drift (the journal version's online damping).

    gamma / (1 + rho * max(drift - allowance, 0)), where drift = mean_j (log pi - log pi_ref) / max(1, length).

    Args:
        gamma: undamped.
        rho: strength, at least 0.
        allowance: drift a token, in nats, that costs nothing.
        policy_logp_B: log-probabilities of the policy's own samples.
        ref_logp_B: of the same under the reference.
        length_B: their tokens.

    Raises:
        ValueError: rho below 0, or no sample.

    Example:
        >>> damped(1.0, 10.0, 0.1, torch.tensor([-9.0]), torch.tensor([-12.0]), torch.tensor([10]))[0]
        0.3333333333333333
    """
    if rho < 0 or not len(policy_logp_B):
        raise ValueError(
            f"rho is {rho} and there are {len(policy_logp_B)} samples; needed rho >= 0 and at least one"
        )
    gap_B = policy_logp_B.double() - ref_logp_B.double()
    drift = float((gap_B / length_B.clamp(min=1)).mean())
    return gamma / (1 + rho * max(drift - allowance, 0.0)), drift


def doubt(success_rate: float) -> str | None:
    """What a share of successes says against the radius of the moves; None if nothing.

    Example:
        >>> doubt(0.2) is None
        True
    """
    low, high = LIKELY_RATES
    if success_rate < low:
        return (
            f"only {success_rate:.1%} of the moves helped: the radius may be too large, or the two responses are so "
            "alike that few can; try a smaller radius"
        )
    if success_rate > high:
        return f"{success_rate:.1%} of the moves helped, close to a coin's half: the radius may be so small that round-off decides"
    return None
