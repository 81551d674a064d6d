"""E2 and E3 of `prefopt reproduce bpo`: the scale of the gradient, and what optimisers make of it.

Shapes: T steps, S seeds, L values of lambda, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from prefopt import objectives
from prefopt.objectives.base import Objective
from prefopt.reproduce import loglinear, plots
from prefopt.reproduce.bpo.losses import ba, sba
from prefopt.reproduce.bpo.world import NoisyPairs, noisy_pairs
from prefopt.reproduce.core import Part, Plot, directional, everywhere, within


def sgd(parameters: list[Tensor], lr: float = 0.002) -> torch.optim.Optimizer:
    """Plain SGD."""
    return torch.optim.SGD(parameters, lr=lr)


def adam(parameters: list[Tensor]) -> torch.optim.Optimizer:
    """Adam whose eps is too small to break its invariance to the gradient's scale."""
    return torch.optim.Adam(parameters, lr=0.01, eps=1e-30)


def gradient_norms(objective: Objective, data: NoisyPairs, steps: int) -> Tensor:
    """(steps, S) norms of the full-batch gradient along SGD."""
    norms: list[Tensor] = []
    loglinear.fit(
        objective,
        data.train,
        data.pairs,
        steps=steps,
        optimizer=sgd,
        watch=lambda step, w, grad: norms.append(grad.norm(dim=-1)),
    )
    return torch.stack(norms)


def gradient_scale(seeds: range, pairs: int, steps: int = 80) -> Part:
    """E2: SBA starts as hard as DPO whatever lambda is and stays comparable; BA grows with lambda."""
    data = noisy_pairs(seeds, min(pairs, 500), scale=1.0, dtype=torch.float64)
    lambdas = (-0.5, 0.0, 0.5, 1.0)
    dpo_TS = gradient_norms(objectives.get("dpo", beta=1.0), data, steps)
    sba_TS = {x: gradient_norms(sba(x), data, steps) for x in lambdas}
    ba_TS = {x: gradient_norms(ba(x), data, steps) for x in lambdas}
    result = Part()
    result.claims += [
        within(
            "E2: at policy = reference SBA's gradient is as large as DPO's, for every lambda",
            torch.stack([sba_TS[x][0] / dpo_TS[0] - 1 for x in lambdas]).abs().amax(0).tolist(),
            1e-9,
            source="Sec. 3.3, s = 4",
            how="|norm of SBA / norm of DPO - 1|, largest over lambda",
        ),
        within(
            "E2: there BA's is 4 (lambda + 1) times as large",
            torch.stack([ba_TS[x][0] / (4 * (x + 1) * sba_TS[x][0]) - 1 for x in lambdas])
            .abs()
            .amax(0)
            .tolist(),
            1e-9,
            source="derived here",
            how="|norm of BA / (4 (lambda + 1) norm of SBA) - 1|, largest over lambda",
        ),
        everywhere(
            "E2: along SGD BA's gradient grows with lambda",
            {
                f"lambda {a:g} -> {b:g}": (ba_TS[b].log().mean(0) - ba_TS[a].log().mean(0)).tolist()
                for a, b in pairwise(lambdas)
            },
            source="Fig. 10",
            how=f"difference of mean log gradient norm over {steps} steps",
            unit="log ratio",
        ),
        directional(
            "E2: along SGD SBA's gradient depends less on lambda than BA's",
            (spread(ba_TS) - spread(sba_TS)).tolist(),
            source="Fig. 10",
            how="range over lambda of the mean log gradient norm, BA - SBA",
            unit="log ratio",
        ),
    ]
    result.plots.append(gradient_plot(sba_TS, ba_TS, dpo_TS, lambdas))
    result.settings["E2"] = {
        "seeds": len(seeds),
        "pairs": min(pairs, 500),
        "steps": steps,
        "optimizer": "SGD 0.002, full batch",
        "lambda": lambdas,
        "dtype": "float64",
    }
    return result


def spread(norms_TS: dict[float, Tensor]) -> Tensor:
    """(S,) range over lambda of the mean log gradient norm."""
    means_LS = torch.stack([n.log().mean(0) for n in norms_TS.values()])
    return means_LS.amax(0) - means_LS.amin(0)


@plots.styled
def gradient_plot(
    sba_TS: dict[float, Tensor], ba_TS: dict[float, Tensor], dpo_TS: Tensor, lambdas: Sequence[float]
) -> Plot:
    """Gradient norm along SGD, BA beside SBA."""
    from matplotlib.ticker import LogLocator, NullLocator

    figure, axes = plots.panels(2, width=4.8, height=3.9)
    for ax, title, norms in ((axes[0], "BA", ba_TS), (axes[1], "SBA", sba_TS)):
        for colour, x in zip(plots.SEQUENCE, lambdas, strict=False):
            ax.plot(norms[x].mean(1), color=colour, label=f"λ = {x:g}")
        ax.plot(dpo_TS.mean(1), "--", color=plots.QUIET, label="DPO")
        ax.set_yscale("log")
        ax.set_xlabel("SGD step")
        ax.set_ylabel("gradient norm (loss units per weight unit)")
        ax.set_title(f"{title}: gradient norm")
    low = min(ax.get_ylim()[0] for ax in axes)
    high = max(ax.get_ylim()[1] for ax in axes)
    for ax in axes:
        ax.set_ylim(low, high)
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_locator(NullLocator())
    axes[1].legend(ncols=2)
    return Plot("bpo_gradients", "Gradient norm along SGD in the log-linear world, mean over seeds", figure)


def optimiser_caveat(seeds: range, pairs: int, lambda_: float = 1.2, steps: int = 60) -> Part:
    """E3: BA and SBA differ by a constant factor, which Adam undoes and SGD and norm clipping do not."""
    data = noisy_pairs(seeds, min(pairs, 500), scale=1.0, dtype=torch.float64)

    def apart(
        optimizer: Callable[[list[Tensor]], torch.optim.Optimizer], clip_norm: float | None
    ) -> list[float]:
        """Per seed: |w_BA - w_SBA| / |w_SBA| at the end."""
        a_SD, b_SD = (
            loglinear.fit(
                objective, data.train, data.pairs, steps=steps, optimizer=optimizer, clip_norm=clip_norm
            )
            for objective in (
                ba(lambda_),
                sba(lambda_),
            )
        )
        return ((a_SD - b_SD).norm(dim=-1) / b_SD.norm(dim=-1)).tolist()

    # a clip between the two losses' norms: it bites on BA and leaves SBA alone
    start_S = gradient_norms(sba(lambda_), data, 1)[0]
    clip = 2 * float(start_S.max())
    result = Part()
    how = f"|w_BA - w_SBA| / |w_SBA| after {steps} steps, lambda = {lambda_:g}"
    result.claims += [
        within(
            "E3: under Adam with tiny eps and no norm clip, BA and SBA are one method",
            apart(adam, None),
            1e-6,
            source="derived here (a constant factor)",
            how=how,
        ),
        directional("E3: under SGD they separate", apart(sgd, None), source="Sec. 3.3", how=how),
        directional(
            "E3: under Adam with a norm clip they separate",
            apart(adam, clip),
            source="derived here",
            how=f"{how}, gradient norm clipped at {clip:.3g}",
        ),
    ]
    result.settings["E3"] = {
        "seeds": len(seeds),
        "lambda": lambda_,
        "steps": steps,
        "adam": "lr 0.01, eps 1e-30",
        "sgd": "lr 0.002",
        "clip_norm": clip,
        "dtype": "float64",
    }
    return result
