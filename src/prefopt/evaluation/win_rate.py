"""Win rates against a baseline, plain and with the judge's taste for length taken out.

Length control after Dubois et al. 2024, "Length-Controlled AlpacaEval": preferences are explained by a logistic
regression on the difference of lengths and a constant (and the prompts' difficulty, where known); the rate is what it
predicts at equal lengths. Against the original tool: no cross-validated L1 penalty but L2 = 1e-6, and no artificial
baselines among the rows.

Legend: N prompts, F features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import expit

L2 = 1e-6
RESAMPLES = 1000

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LengthControl:
    """Coefficients of the regression, on the logit scale.

    Attributes:
        coef_model: the constant: how much better the model is at equal lengths.
        coef_length: of tanh(baseline's length - model's length, in standard deviations); negative: length is liked.
        coef_difficulty: of the prompts' difficulty; None if it was not given.
    """

    coef_model: float
    coef_length: float
    coef_difficulty: float | None = None

    def win_rate(self, difficulty: ArrayLike | None = None) -> float:
        """The rate in percent at equal lengths.

        Args:
            difficulty: (N,) of the prompts; needed if there is a coefficient for it.

        Raises:
            ValueError: it is missing.

        Example:
            >>> LengthControl(0.0, -1.0).win_rate()
            50.0
        """
        if self.coef_difficulty is None:
            return 100 * float(expit(self.coef_model))
        if difficulty is None:
            raise ValueError("the regression used the prompts' difficulty: give it here too")
        difficulty_N = np.asarray(difficulty, dtype=np.float64)
        return 100 * float(np.mean(expit(self.coef_model + self.coef_difficulty * difficulty_N)))


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate in percent with its 95 % bootstrap interval over prompts."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class WinRates:
    """A model against a baseline.

    Attributes:
        n: judged prompts.
        wins: prompts with a preference above one half.
        draws: with exactly one half.
        losses: below.
        win_rate: mean preference.
        lc_win_rate: the same at equal lengths.
        control: the regression behind it.
        resamples: of the bootstrap.
    """

    n: int
    wins: int
    draws: int
    losses: int
    win_rate: Interval
    lc_win_rate: Interval
    control: LengthControl
    resamples: int


def length_control(
    length_model: ArrayLike,
    length_baseline: ArrayLike,
    preference: ArrayLike,
    difficulty: ArrayLike | None = None,
    l2: float = L2,
) -> LengthControl:
    """Fit preferences by cross-entropy: q = sigmoid(theta + phi tanh(dlen / std(dlen)) + psi difficulty).

    Args:
        length_model: (N,) lengths of the model's answers, in characters.
        length_baseline: (N,) of the baseline's.
        preference: (N,) for the model, in [0, 1]; one half is a draw.
        difficulty: (N,) of the prompts on any scale; None leaves the term out.
        l2: strength of the penalty l2 / 2 |w|^2 on all coefficients, beside the *sum* of cross-entropies.

    Raises:
        ValueError: fewer than two prompts, unequal numbers, values that are no preferences or not finite.

    Example:
        >>> found = length_control([10, 20, 30, 25], [20, 20, 20, 20], [0.3, 0.5, 0.7, 0.6])
        >>> found.coef_length < 0
        True
    """
    q_N, dlen_N, difficulty_N = _checked(length_model, length_baseline, preference, difficulty)
    w_F = _fit(dlen_N, q_N, difficulty_N, l2)
    return LengthControl(float(w_F[1]), float(w_F[0]), None if difficulty_N is None else float(w_F[2]))


def compare(
    length_model: ArrayLike,
    length_baseline: ArrayLike,
    preference: ArrayLike,
    difficulty: ArrayLike | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> WinRates:
    """Both win rates with paired percentile bootstrap intervals.

    A resample draws N prompts with replacement, each with both lengths and its preference, and repeats everything, the
    regression included. Resample k follows from (seed, k).

    Args:
        length_model: (N,) lengths of the model's answers, in characters.
        length_baseline: (N,) of the baseline's.
        preference: (N,) for the model, in [0, 1]; one half is a draw.
        difficulty: (N,) of the prompts; None leaves the term out.
        seed: of the resampling.
        resamples: how many.

    Raises:
        ValueError: see `length_control`; or resamples below 2.

    Example:
        >>> compare([10, 20, 30, 25], [20, 20, 20, 20], [0, 0.5, 1, 1], resamples=50).win_rate.value
        62.5
    """
    if resamples < 2:
        raise ValueError(f"an interval needs resamples of at least 2; given {resamples}")
    q_N, dlen_N, difficulty_N = _checked(length_model, length_baseline, preference, difficulty)

    whole_F = _fit(dlen_N, q_N, difficulty_N, L2)

    def rates(places_N: NDArray[np.int64]) -> tuple[float, float]:
        part = None if difficulty_N is None else difficulty_N[places_N]
        w_F = _fit(dlen_N[places_N], q_N[places_N], part, L2, whole_F)
        control = LengthControl(w_F[1], w_F[0], None if part is None else w_F[2])
        return 100 * float(q_N[places_N].mean()), control.win_rate(part)

    n = len(q_N)
    plain, controlled = rates(np.arange(n))
    drawn = [rates(np.random.default_rng([seed, k]).integers(0, n, n)) for k in range(resamples)]
    (low, high), (lc_low, lc_high) = (np.percentile([d[i] for d in drawn], [2.5, 97.5]) for i in (0, 1))
    return WinRates(
        n=n,
        wins=int((q_N > 0.5).sum()),
        draws=int((q_N == 0.5).sum()),
        losses=int((q_N < 0.5).sum()),
        win_rate=Interval(plain, float(low), float(high)),
        lc_win_rate=Interval(controlled, float(lc_low), float(lc_high)),
        control=length_control(length_model, length_baseline, preference, difficulty),
        resamples=resamples,
    )


def displacement_rate(logp_after: ArrayLike, logp_before: ArrayLike) -> float:
    """Share of answers that training has made less likely; of preferred answers, a sign of displacement.

    Args:
        logp_after: (N,) log-probabilities under the trained model, in nats.
        logp_before: (N,) under the model before.

    Raises:
        ValueError: no answers, or unequal numbers.

    Example:
        >>> displacement_rate([-3.0, -1.0], [-2.0, -2.0])
        0.5
    """
    after_N, before_N = np.asarray(logp_after, np.float64), np.asarray(logp_before, np.float64)
    if after_N.shape != before_N.shape or after_N.ndim != 1 or not len(after_N):
        raise ValueError(
            f"needed two equally long lists of log-probabilities; given shapes {after_N.shape} and {before_N.shape}"
        )
    return float((after_N < before_N).mean())


def hacking_hints(
    rates: WinRates, lengths: tuple[float, float], repetition: tuple[float, float]
) -> list[str]:
    """What in the answers suggests that the judge was pleased by other means than quality.

    Args:
        rates: of the model against the baseline.
        lengths: mean length of the model's answers and of the baseline's.
        repetition: mean share of repeated trigrams, likewise, in [0, 1].

    Returns:
        Sentences; none if nothing stands out.
    """
    out = []
    if min(lengths) > 0 and abs(math.log(lengths[0] / lengths[1])) > math.log(1.25):
        longer = "longer" if lengths[0] > lengths[1] else "shorter"
        change = abs(lengths[0] / lengths[1] - 1)
        out.append(f"answers are {change:.0%} {longer} than the baseline's: read the length-controlled rate")
    if rates.win_rate.value - rates.lc_win_rate.value > 5:
        out.append(
            f"{rates.win_rate.value - rates.lc_win_rate.value:.0f} points of the win rate go with length: the judge likes "
            "longer or shorter answers, and the model obliges"
        )
    if repetition[0] - repetition[1] > 0.05:
        out.append(
            f"{repetition[0]:.0%} of an answer's word trigrams repeat, {repetition[1]:.0%} of the baseline's: read some"
        )
    return out


def _checked(
    length_model: ArrayLike, length_baseline: ArrayLike, preference: ArrayLike, difficulty: ArrayLike | None
) -> tuple[Floats, Floats, Floats | None]:
    """Preferences, differences of lengths and difficulties, as float64 vectors of one length."""
    given = {"length_model": length_model, "length_baseline": length_baseline, "preference": preference}
    given |= {} if difficulty is None else {"difficulty": difficulty}
    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in given.items()}
    if len({a.shape for a in arrays.values()}) > 1 or arrays["preference"].ndim != 1:
        raise ValueError(
            "needed one value a prompt; given "
            + ", ".join(f"{name} of shape {a.shape}" for name, a in arrays.items())
        )
    if len(arrays["preference"]) < 2:
        raise ValueError(f"a win rate needs at least 2 judged prompts; given {len(arrays['preference'])}")
    for name, a in arrays.items():
        if not np.isfinite(a).all():
            place = int(np.flatnonzero(~np.isfinite(a))[0])
            raise ValueError(f"{name}[{place}] is {a[place]}; needed finite numbers: leave the prompt out")
    q_N = arrays["preference"]
    if q_N.min() < 0 or q_N.max() > 1:
        raise ValueError(f"preferences lie in [0, 1]; given {q_N.min():g} to {q_N.max():g}")
    return q_N, arrays["length_baseline"] - arrays["length_model"], arrays.get("difficulty")


def _fit(
    dlen_N: Floats, q_N: Floats, difficulty_N: Floats | None, l2: float, start_F: Floats | None = None
) -> Floats:
    """(F,) the coefficients: length, constant, difficulty where given; the loss is strictly convex."""
    spread = dlen_N.std(ddof=1)
    # equal differences everywhere say nothing about length
    feature_N = np.tanh(dlen_N / spread) if spread > 0 else np.zeros_like(dlen_N)
    columns = [feature_N, np.ones_like(dlen_N), *([] if difficulty_N is None else [difficulty_N])]
    x_NF = np.stack(columns, axis=1)

    def loss(w_F: Floats) -> float:
        z_N = x_NF @ w_F
        return float((np.logaddexp(0, z_N) - q_N * z_N).sum() + l2 / 2 * w_F @ w_F)

    def gradient(w_F: Floats) -> Floats:
        out: Floats = x_NF.T @ (expit(x_NF @ w_F) - q_N) + l2 * w_F
        return out

    def curvature(w_F: Floats) -> Floats:
        p_N = expit(x_NF @ w_F)
        out: Floats = (x_NF * (p_N * (1 - p_N))[:, None]).T @ x_NF + l2 * np.eye(x_NF.shape[1])
        return out

    start_F = np.zeros(x_NF.shape[1]) if start_F is None else start_F
    found = minimize(
        loss, start_F, jac=gradient, hess=curvature, method="trust-exact", options={"gtol": 1e-6}
    )
    w_F: Floats = found.x
    return w_F - np.linalg.solve(curvature(w_F), gradient(w_F))  # doubles the digits
