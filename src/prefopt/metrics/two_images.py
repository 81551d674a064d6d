"""Whether a vision-language model answers by its image: log-probabilities of two answers to two images.

Of an example with the images m and m', w is the right answer to m and c the right answer to m'. Log-probabilities are sums
over the tokens of an answer, in nats, of the policy alone (`swap_accuracy`, `image_sensitivity`, `chosen_drift`), or margins of
log-ratios to the reference (`margin_gap`).

Legend: N examples.
"""

from __future__ import annotations

import torch
from torch import Tensor


def swap_accuracy(logp_w_m_N: Tensor, logp_c_m_N: Tensor, logp_c_mc_N: Tensor, logp_w_mc_N: Tensor) -> Tensor:
    """Share of examples of which both images are answered right: w is likelier than c on m, and c likelier than w on m'.

    A tie is not right. A model that never looks is right on at most one image of each example, so it has 0.

    Args:
        logp_w_m_N, logp_c_m_N: (N,) log pi(w|m) and log pi(c|m).
        logp_c_mc_N, logp_w_mc_N: (N,) log pi(c|m') and log pi(w|m').

    Returns:
        () in double precision.

    Raises:
        ValueError: other shapes, no examples, or values that are not finite.

    Example:
        >>> at = torch.tensor
        >>> swap_accuracy(at([-1.0, -1.0]), at([-2.0, -2.0]), at([-1.0, -3.0]), at([-2.0, -2.0])).item()
        0.5
    """
    w_m_N, c_m_N, c_mc_N, w_mc_N = _checked(logp_w_m_N, logp_c_m_N, logp_c_mc_N, logp_w_mc_N)
    return ((w_m_N > c_m_N) & (c_mc_N > w_mc_N)).double().mean()


def image_sensitivity(logp_w_m_N: Tensor, logp_w_mc_N: Tensor) -> Tensor:
    """Mean of log pi(w|m) - log pi(w|m'): by how many nats the right image makes an answer likelier than the other one.

    Args:
        logp_w_m_N, logp_w_mc_N: (N,).

    Returns:
        () in double precision.

    Raises:
        ValueError: see `swap_accuracy`.
    """
    w_m_N, w_mc_N = _checked(logp_w_m_N, logp_w_mc_N)
    return (w_m_N - w_mc_N).mean()


def margin_gap(m1_N: Tensor, m2_N: Tensor) -> Tensor:
    """Mean |m1 - m2| of the two margins: m1 of w over c on m, m2 of c over w on m', in log-ratios (nats, not times beta).

    Args:
        m1_N, m2_N: (N,).

    Returns:
        () in double precision.

    Raises:
        ValueError: see `swap_accuracy`.
    """
    m1_N, m2_N = _checked(m1_N, m2_N)
    return (m1_N - m2_N).abs().mean()


def chosen_drift(logp_after_N: Tensor, logp_before_N: Tensor) -> Tensor:
    """Mean change of log pi(w|m) by training; negative where chosen answers have become less likely.

    Args:
        logp_after_N, logp_before_N: (N,) of the trained model and of the model before.

    Returns:
        () in double precision.

    Raises:
        ValueError: see `swap_accuracy`.
    """
    after_N, before_N = _checked(logp_after_N, logp_before_N)
    return (after_N - before_N).mean()


def _checked(*values: Tensor) -> tuple[Tensor, ...]:
    """In double precision; a ValueError unless they are finite, of one dimension and equally long."""
    shapes = [tuple(value.shape) for value in values]
    if len(set(shapes)) > 1 or len(shapes[0]) != 1 or not shapes[0][0]:
        raise ValueError(
            f"values of the shapes {', '.join(map(str, shapes))}: needed (N,) of each, and an example at least"
        )
    out = tuple(value.detach().double() for value in values)
    for value in out:
        if not torch.isfinite(value).all():
            place = int((~torch.isfinite(value)).nonzero()[0])
            raise ValueError(
                f"the value of example {place} is {value[place].item()}: needed finite numbers; leave it out"
            )
    return out
