"""E1 of `prefopt reproduce gradspo`: what the noises of the best and the worst candidate say about the reward.

v = e_best - e_worst, u = the reward's gradient at the mean of the step, normalised.

Legend: B trajectories, K candidates, S steps, D = 32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from prefopt.likelihoods.steps import EncodedStep, transition
from prefopt.reproduce import plots
from prefopt.reproduce.core import Claim, Part, Plot, Table, directional, everywhere, within
from prefopt.reproduce.gradspo.train import GRADSPO, RELEASED
from prefopt.reproduce.gradspo.world import PROMPTS, SHAPE, World
from prefopt.reproduce.paired import mean
from prefopt.sources.online import Gap, Tally

CANDIDATES = (2, 3, 4, 5)
RELEASED_K: int = RELEASED["candidates"]
WITHIN = 0.05


@dataclass(frozen=True, slots=True)
class Direction:
    """Means over the states of each step, one a step.

    Attributes:
        timesteps: of the steps.
        along: <v, u>.
        cosine: of v and u.
        share: squared cosine, the part of v's squared length along u.
        best_along: <e_best, u>; the half difference has along / 2.
        best_off: mean square of e_best orthogonal to u, a dimension.
        half_off: the same of v / 2.
    """

    timesteps: list[int]
    along: list[float]
    cosine: list[float]
    share: list[float]
    best_along: list[float]
    best_off: list[float]
    half_off: list[float]


def expected_range(k: int) -> float:
    """Expected range of k standard normals, the integral of 1 - Phi^k - (1 - Phi)^k.

    >>> round(expected_range(2), 3), round(expected_range(4), 3)
    (1.128, 2.059)
    """
    x = torch.linspace(-10, 10, 4001, dtype=torch.float64)
    phi = torch.special.ndtr(x)
    return float(torch.trapezoid(1 - phi**k - (1 - phi) ** k, x))


def reward_gradient(world: World, state_mean: Tensor, t_prev: int, prompts: Sequence[str]) -> Tensor:
    """(B, D) unit gradients, at x_t', of the reward of what the reference takes for the clean sample."""
    x = state_mean.clone().requires_grad_(True)
    clean = x
    if t_prev > int(world.steps_S2[-1, 1]):
        t_B = torch.full((len(x),), t_prev)
        output = world.guided(world.reference, x, t_B, world.guided.prepare(prompts))
        clean = world.process.x0(output, x, t_B)
    (gradient,) = torch.autograd.grad(world.reward.of(clean).sum(), x)
    return torch.nn.functional.normalize(gradient.flatten(1), dim=-1)


def direction(world: World, candidates: int, states: int) -> Direction:
    """Compare candidates of every step of the reference's trajectories, and keep every pair."""
    collector = replace(
        GRADSPO.collector(world), gap=Gap(0.0, 0.0), candidates=candidates, first=0, store_noise="noise"
    )
    prompts = [(f"E1/{b}", PROMPTS[b % len(PROMPTS)]) for b in range(states)]
    pairs: dict[int, list[tuple[EncodedStep, EncodedStep]]] = {}
    for found in collector.collect(world.reference, prompts, 0, Tally()):
        best, worst = found.items
        pairs.setdefault(int(best.state.t), []).append((best, worst))
    result = Direction([], [], [], [], [], [], [])
    for t, of_step in pairs.items():
        seen = [best.state for best, _ in of_step]
        x = torch.stack([state.x_CHW for state in seen])
        texts, t_prev = [state.prompt for state in seen], int(seen[0].t_prev)
        t_B, t_prev_B = torch.full((len(x),), t), torch.full((len(x),), t_prev)
        output = world.guided(world.reference, x, t_B, world.guided.prepare(texts))
        mean = transition(world.process, output, x, t_B, t_prev_B, 1.0).mean_BCHW
        u_BD = reward_gradient(world, mean, t_prev, texts)
        best_BD, worst_BD = (
            torch.stack([ends[side].sample_CHW for ends in of_step]).flatten(1) for side in (0, 1)
        )
        v_BD = best_BD - worst_BD
        along_B, best_along_B = (v_BD * u_BD).sum(-1), (best_BD * u_BD).sum(-1)
        cosine_B = along_B / v_BD.norm(dim=-1)
        off = SHAPE[0] - 1
        result.timesteps.append(t)
        result.along.append(float(along_B.mean()))
        result.cosine.append(float(cosine_B.mean()))
        result.share.append(float(cosine_B.square().mean()))
        result.best_along.append(float(best_along_B.mean()))
        result.best_off.append(float((best_BD.square().sum(-1) - best_along_B.square()).mean()) / off)
        result.half_off.append(float((v_BD.square().sum(-1) - along_B.square()).mean()) / 4 / off)
    return result


Found = dict[int, list[Direction]]
"""candidates -> one a seed"""


def claims(found: Found) -> list[Claim]:
    """G1 and G2."""
    four = found[RELEASED_K]
    timesteps = four[0].timesteps
    ranges = {k: expected_range(k) for k in found}
    return [
        everywhere(
            f"E1: best minus worst noise points up the reward, at every step (K = {RELEASED_K})",
            {f"t = {t}": [d.along[s] for d in four] for s, t in enumerate(timesteps)},
            source="abstract: SPO is gradient guidance",
            how="mean of <v, u> over states, u the reward's normalised gradient",
        ),
        *(
            within(
                f"E1: its mean length that way is the expected range of K normals, over {words}",
                [
                    max(abs(mean(by[seed].along[first:]) / ranges[k] - 1) for k, by in found.items())
                    for seed in range(len(four))
                ],
                WITHIN,
                source="derived here, for a locally linear reward",
                how="|mean of <v, u> over states and steps / range - 1|, whatever the gradient's size; largest over "
                f"K = {min(found)}..{max(found)}",
            )
            for words, first in (
                ("all steps", 0),
                ("the steps that training compares", RELEASED["first_compared_step"]),
            )
        ),
        directional(
            f"E1: nearly all of the estimate is noise (K = {RELEASED_K}, 32 numbers)",
            [1 - 2 * mean(d.share) for d in four],
            source="abstract: substantial noise",
            how="share of the squared length off the gradient - share along it",
            unit="of the squared length",
        ),
        within(
            "E1: the half difference has the best candidate's length along the gradient",
            [abs(mean(d.along) / 2 / mean(d.best_along) - 1) for d in four],
            WITHIN,
            source="derived here",
            how="|<v / 2, u> / <e_best, u> - 1|, means over states and steps",
        ),
        within(
            "E1: and half of its variance off the gradient",
            [abs(2 * mean(d.half_off) / mean(d.best_off) - 1) for d in four],
            WITHIN,
            source="abstract: noise reduction",
            how="|2 variance of v / 2 / variance of e_best - 1|, orthogonal to u",
        ),
    ]


def experiment(found: Found, states: int) -> Part:
    """E1's claims, numbers and figure."""
    rows = []
    for k, by in found.items():
        expected, off = expected_range(k), 2 * (SHAPE[0] - 1)
        rows.append(
            [
                k,
                expected,
                mean([mean(d.along) for d in by]),
                (expected**2 / (off + expected**2)) ** 0.5,
                mean([mean(d.cosine) for d in by]),
            ]
        )
    return Part(
        claims=claims(found),
        tables=[
            Table(
                "E1: direction estimate of the pretrained model, means over states, steps and seeds",
                ["K", "range of K normals", "<v, u>", "cosine expected (about)", "cosine"],
                rows,
            )
        ],
        plots=[direction_plot(found)],
        settings={"E1": {"states_a_step": states, "candidates": list(found), "steps": 20, "eta": 1.0}},
    )


@plots.styled
def direction_plot(found: Found) -> Plot:
    """Length along the gradient by step, beside the cosine."""
    figure, (left, right) = plots.panels(2, width=4.8, height=3.9)
    for colour, (k, by) in zip(plots.SEQUENCE, found.items(), strict=False):
        steps = range(len(by[0].timesteps))
        plots.curve(left, steps, [[d.along[s] for d in by] for s in steps], label=f"K = {k}", colour=colour)
        left.axhline(expected_range(k), color=colour, linestyle=":", linewidth=1.2)
        plots.curve(right, steps, [[d.cosine[s] for d in by] for s in steps], label=f"K = {k}", colour=colour)
    left.set_ylabel("mean of <best - worst noise, gradient>")
    left.set_title("Right on average ...")
    right.set_ylabel("mean cosine with the gradient")
    right.set_title("... and nearly all noise")
    right.legend(ncols=2)
    left.set_ylim(bottom=0)
    right.set_ylim(0, 1)
    for ax in (left, right):
        ax.set_xlabel("denoising step (0 is the noisiest)")
        ax.set_xticks(range(0, 20, 4))
    return Plot(
        "gradspo_direction",
        "E1: the difference of best and worst noise against the reward's normalised gradient, by step; dotted: expected "
        f"range of K standard normals. Means of {len(next(iter(found.values())))} seeds with 95 % intervals",
        figure,
    )
