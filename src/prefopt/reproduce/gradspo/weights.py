"""E2 of `prefopt reproduce gradspo`: how hard each reverse step pulls, and which steps the clip silences.

Also the algebra behind it: without a clip GradSPO is SPO with other time weights, and neither the halved noise nor the
anchor matters.

Legend: S steps, P states, E comparisons.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from prefopt.likelihoods.steps import EncodedStep, GuidedTarget, State, TimeWeight
from prefopt.objectives.sides import Sides
from prefopt.reproduce import plots
from prefopt.reproduce.core import Claim, Part, Plot, Table, directional, within
from prefopt.reproduce.gradspo.train import GRADSPO, RELEASED, SPO, Run, StepLog, Variant, score, written
from prefopt.reproduce.gradspo.world import PROMPTS, SHAPE, World
from prefopt.reproduce.paired import mean
from prefopt.sources.online import Tally

LATE = 4
"""The last steps, of low noise."""
UNCLIPPED_TOLERANCE = 1e-3
COLOURS = {"SPO": plots.VERMILION, "GradSPO": plots.BLUE}
MARKERS = {"SPO": "s", "GradSPO": "o"}


def moved(reference: nn.Module, seed: int) -> nn.Module:
    """A policy away from the reference: every weight with 2 % noise."""
    model = copy.deepcopy(reference).requires_grad_(True)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.02 * p.std() * torch.randn(p.shape, generator=generator))
    return model


def unclipped(world: World, states: int) -> dict[str, float]:
    """Relative differences, without a clip, on the same pairs of the reference.

    Returns:
        weights: between the margins of SPO and of GradSPO with SPO's time weights and g = 1.
        noise, anchor: between the gradients of GradSPO with and without averaged noise, with its anchor at the
            reference and at the policy.
    """
    policy = moved(world.reference, world.seed)
    prompts = [(f"E2/{b}", PROMPTS[b % len(PROMPTS)]) for b in range(states)]

    def sides_of(variant: Variant, anchor: nn.Module) -> Sides:
        pairs = variant.collector(world).collect(world.reference, prompts, 0, Tally())
        likelihood = variant.scored_by(world.guided, anchor, None)
        return score(likelihood, variant.objective, policy, world.reference, pairs)[1]

    def margin(variant: Variant) -> Tensor:
        sides = sides_of(variant, policy)
        return (sides.rho_w - sides.rho_l).detach()

    def gradient(variant: Variant, anchor: nn.Module) -> Tensor:
        sides = sides_of(variant, anchor)
        loss = variant.objective.losses(sides, None, {}).mean()
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(policy.parameters()))])

    plain = replace(GRADSPO, clip_eps=None)
    spo = margin(replace(SPO, clip_eps=None))
    same = margin(replace(plain, temporal_weight="spo", grad_scale=1.0))
    at_policy = gradient(plain, policy)
    own_noise = gradient(replace(plain, average_noise=False), policy)
    at_reference = gradient(plain, world.reference)
    return {
        "weights": float((same - spo).abs().max() / spo.abs().max()),
        "noise": float((own_noise - at_policy).norm() / at_policy.norm()),
        "anchor": float((at_reference - at_policy).norm() / at_policy.norm()),
    }


def time_weights(world: World) -> dict[str, list[float]]:
    """Factor of the unclipped margin by step compared: |b_t| / sigma_t of SPO, 2 g sqrt(1 - abar_t) of GradSPO."""
    none = torch.zeros(SHAPE)
    steps = world.steps_S2[RELEASED["first_compared_step"] :].tolist()
    items = [EncodedStep(State(none, t, t_prev, PROMPTS[0]), none) for t, t_prev in steps]

    def weights(of: TimeWeight, grad_scale: float) -> list[float]:
        likelihood = GuidedTarget(guided=world.guided, temporal_weight=of)
        return (2 * grad_scale * likelihood.time_weight(likelihood.plan(items))).tolist()

    return {
        "SPO": weights("spo", 1.0),
        "GradSPO": weights(GRADSPO.temporal_weight, GRADSPO.grad_scale),
    }


Runs = Mapping[str, Mapping[float, Sequence[Run]]]
"""variant -> learning rate -> one a seed"""


def clipped(step: StepLog) -> float:
    """Share of a step's pairs without a gradient."""
    return step.clipped / max(step.pairs, 1)


def pull(step: StepLog) -> float:
    """Mean gradient norm of a step's pairs."""
    return step.gradient / max(step.pairs, 1)


def late_share(run: Run) -> float:
    """Share of the last steps in the pull, each step counted once."""
    by_step = [pull(step) for step in run.by_step.values()]
    return sum(by_step[-LATE:]) / max(sum(by_step), 1e-30)


def clipped_overall(run: Run) -> float:
    """Share of all pairs without a gradient."""
    pairs = sum(step.pairs for step in run.by_step.values())
    return sum(step.clipped for step in run.by_step.values()) / max(pairs, 1)


def sides_clipped(run: Run) -> float:
    """Share of all sides outside the clip."""
    pairs = sum(step.pairs for step in run.by_step.values())
    return sum(step.sides for step in run.by_step.values()) / 2 / max(pairs, 1)


EXACT = {
    "weights": (
        "without a clip GradSPO is SPO with other time weights",
        "largest difference of margins once GradSPO has SPO's weights / largest margin",
    ),
    "noise": (
        "without a clip averaging the noise changes nothing",
        "norm of the difference of the two gradients / norm",
    ),
    "anchor": (
        "without a clip the anchor changes nothing",
        "norm of the difference of the gradients, anchor at the reference and at the policy / norm",
    ),
}


def claims(runs: Runs, identities: Sequence[Mapping[str, float]], rates: Sequence[float]) -> list[Claim]:
    """The algebra, and G3 as pull and as clip, at a small and at a large learning rate."""
    result = [
        within(
            f"E2: {words}",
            [found[name] for found in identities],
            UNCLIPPED_TOLERANCE,
            source="derived here",
            how=how,
        )
        for name, (words, how) in EXACT.items()
    ]
    before_last = sorted(runs["SPO"][rates[0]][0].by_step)[1]
    for rate in rates:
        pairs = list(zip(runs["SPO"][rate], runs["GradSPO"][rate], strict=True))
        result += [
            directional(
                f"E2: SPO pulls less at the last {LATE} steps than GradSPO (learning rate {written(rate)})",
                [late_share(ours) - late_share(spo) for spo, ours in pairs],
                source="abstract: later steps get too little weight",
                how="their share in the gradient with respect to the predicted noise (norms), GradSPO - SPO",
            ),
            directional(
                f"E2: SPO's clip silences more pairs at t = {before_last} (learning rate {written(rate)})",
                [
                    clipped(spo.by_step[before_last]) - clipped(ours.by_step[before_last])
                    for spo, ours in pairs
                ],
                source="derived here, a reading of the abstract",
                how="share of pairs with both sides clipped at the step before the last, SPO - GradSPO",
            ),
            directional(
                f"E2: SPO's clip silences more pairs over all steps (learning rate {written(rate)})",
                [clipped_overall(spo) - clipped_overall(ours) for spo, ours in pairs],
                source="derived here",
                how="share of pairs with both sides clipped, SPO - GradSPO",
            ),
        ]
    return result


def experiment(
    runs: Runs,
    identities: Sequence[Mapping[str, float]],
    weights: Mapping[str, Sequence[float]],
    rates: Sequence[float],
) -> Part:
    """E2's claims, numbers and figure."""
    rate = rates[-1]
    timesteps = list(runs["SPO"][rate][0].by_step)
    by_method = {m: [run.by_step for run in runs[m][rate]] for m in ("SPO", "GradSPO")}
    rows = [
        [
            t,
            *(weights[m][s] for m in by_method),
            *(mean([pull(of[t]) for of in by]) for by in by_method.values()),
            *(mean([100 * clipped(of[t]) for of in by]) for by in by_method.values()),
        ]
        for s, t in enumerate(timesteps)
    ]
    columns = [f"{what}, {m}" for what in ("time weight", "pull", "both clipped (%)") for m in by_method]
    return Part(
        claims=claims(runs, identities, rates),
        tables=[Table(f"E2: by timestep, learning rate {written(rate)}", ["t", *columns], rows)],
        plots=[weights_plot(by_method, weights, rate)],
        settings={"E2": {"late_steps": timesteps[-LATE:], "learning_rates": list(rates)}},
    )


@plots.styled
def weights_plot(
    by_method: Mapping[str, Sequence[Mapping[int, StepLog]]],
    weights: Mapping[str, Sequence[float]],
    rate: float,
) -> Plot:
    """Time weight, pull and clip by step."""
    figure, axes = plots.panels(3, width=4.3, height=3.8)
    first = RELEASED["first_compared_step"]
    for method, by in by_method.items():
        colour, marker = COLOURS[method], MARKERS[method]
        timesteps = list(by[0])
        steps = [first + s for s in range(len(timesteps))]
        plots.curve(
            axes[0], steps, [[w] for w in weights[method]], label=method, colour=colour, marker=marker
        )
        for ax, of in ((axes[1], pull), (axes[2], lambda step: 100 * clipped(step))):
            columns = [[of(logs[t]) for logs in by] for t in timesteps]
            plots.curve(ax, steps, columns, label=method, colour=colour, marker=marker)
    axes[0].set_title("Time weight of the margin")
    axes[0].set_ylabel("factor (log scale)")
    axes[0].set_yscale("log")
    axes[1].set_title("Pull on the prediction")
    axes[1].set_ylabel("mean gradient norm of a pair")
    axes[1].set_ylim(bottom=0)
    axes[2].set_title("Silenced by the clip")
    axes[2].set_ylabel("pairs with both sides clipped (%)")
    axes[2].set_ylim(bottom=0)
    axes[0].legend()
    for ax in axes:
        ax.set_xlabel("denoising step (later: less noise)")
        ax.set_xticks(range(first, first + len(next(iter(weights.values()))), 3))
    return Plot(
        "gradspo_weights",
        "E2: time weight of the unclipped margin; mean norm of the loss's gradient with respect to the predicted noise "
        f"and share of pairs without any gradient while training at learning rate {written(rate)}. "
        f"Means of {len(by_method['SPO'])} seeds with 95 % intervals",
        figure,
    )
