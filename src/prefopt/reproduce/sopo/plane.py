"""E1 of `prefopt reproduce sopo`: points in a plane, a mixture of Gaussians as policy, densities exact.

What is preferred lies around two centres, the policy starts far off on the other side, and the losers that are given lie behind it. All
methods take the same number of updates; what differs is where winners and losers come from, and SoPo's weight and veto.

Legend: B = 64 points of a batch, K candidates, M parts of a mixture, N points, G places of a grid, 2 coordinates.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from prefopt import objectives
from prefopt.sources.selection import min_similarity, select

BASE, SFT = "base", "SFT (control)"
OFFLINE, ONLINE = "offline DPO", "online DPO"
DSOPO, USOPO, SOPO = "DSoPo", "USoPo", "SoPo"
PREFERRED = "the preferred distribution"
METHODS = (OFFLINE, ONLINE, DSOPO, USOPO, SOPO)
"""What depends on beta."""
VARIANTS: dict[str, Literal["dsopo", "usopo", "sopo"]] = {DSOPO: "dsopo", USOPO: "usopo", SOPO: "sopo"}

CENTRES = ((2.0, 2.0), (1.0, -2.5))
SPREAD, REACH = 0.6, 1.2
"""Standard deviation of what is preferred around a centre, and of the bumps of the reward."""
START, WIDE = (-2.0, 1.0), 2.0
"""Mean of the policy's parts at the start, and their variance."""
OFF, OFF_SPREAD = (-3.5, -2.5), 0.5
"""Of the losers that are given."""
GIVEN, PARTS, CANDIDATES = 64, 4, 4
TAU, C = 0.3, 2.0
RATE = 0.02
BETAS = (0.1, 0.5)
LARGE = 1.0
"""A beta at which SoPo alone is looked at."""
SHOWN = 400
"""Samples for the picture."""
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
NEAR, FAR = 1.5, 3.0
"""Distances from a centre within which it counts as covered, and beyond which, from both, a point is far off."""


class Measured(NamedTuple):
    """A distribution over the plane.

    Attributes:
        reward: its mean.
        coverage: share of the points near the centre that fewer are near to.
        far: share of the points far from both centres.
        nll: of preferred points, in nats.
    """

    reward: float
    coverage: float
    far: float
    nll: float


class Mixture(nn.Module):
    """M Gaussians with variances of their own in both coordinates."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        around = 0.3 * torch.randn(PARTS, 2, generator=generator)
        self.logits = nn.Parameter(torch.zeros(PARTS))
        self.means = nn.Parameter(torch.tensor(START) + around)
        self.log_std = nn.Parameter(torch.full((PARTS, 2), 0.5).mul(torch.tensor(WIDE).log()))

    def logp(self, x_N2: Tensor) -> Tensor:
        """(N,) log-densities."""
        z_NM2 = (x_N2[:, None] - self.means) * torch.exp(-self.log_std)
        part_NM = (-0.5 * z_NM2.square() - self.log_std - HALF_LOG_2PI).sum(-1)
        return (part_NM + self.logits.log_softmax(0)).logsumexp(-1)

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """(n, 2) points."""
        part_N = torch.multinomial(self.logits.softmax(0), n, replacement=True, generator=generator)
        return self.means[part_N] + self.log_std.exp()[part_N] * torch.randn(n, 2, generator=generator)


def distances(x_N2: Tensor) -> Tensor:
    """(N, 2) from both centres."""
    return torch.cdist(x_N2, torch.tensor(CENTRES))


def reward(x_N2: Tensor) -> Tensor:
    """(N,) in (0, 1], 1 at a centre."""
    return torch.exp(-distances(x_N2).square() / (2 * REACH**2)).amax(1)


def preferred(n: int, generator: torch.Generator) -> Tensor:
    """(n, 2) points, half of them around each centre."""
    centre_N = torch.randint(2, (n,), generator=generator)
    return torch.tensor(CENTRES)[centre_N] + SPREAD * torch.randn(n, 2, generator=generator)


SIDE = torch.arange(-11.0, 12.0)
PLACES_G2 = torch.cartesian_prod(SIDE, SIDE)
"""A unit apart, wider than where points are."""


def embedding(x_N2: Tensor) -> Tensor:
    """(N, G) bumps around each place; the cosine of two points' is e^(-d^2/8), d their distance."""
    return torch.exp(-torch.cdist(x_N2, PLACES_G2).square() / 4)


class Drawn(NamedTuple):
    """The worst and the best of K samples beside each winner, (B, 2) points, and (B,) what is known of them."""

    worst_B2: Tensor
    best_B2: Tensor
    reward_B: Tensor
    similarity_B: Tensor


def drawn(policy: Mixture, winner_B2: Tensor, generator: torch.Generator) -> Drawn:
    """K samples for each winner."""
    x_KB2 = policy.sample(CANDIDATES * len(winner_B2), generator).view(CANDIDATES, -1, 2)
    chosen = select(reward(x_KB2.flatten(0, 1)).view(CANDIDATES, -1))
    g_KBG = embedding(x_KB2.flatten(0, 1)).unflatten(0, (CANDIDATES, -1))
    of_B = torch.arange(len(winner_B2))
    return Drawn(
        x_KB2[chosen.worst_B, of_B],
        x_KB2[chosen.best_B, of_B],
        chosen.worst_reward_B,
        min_similarity(embedding(winner_B2), g_KBG, "cosine"),
    )


def loss_of(
    method: str, beta: float, policy: Mixture, reference: Mixture, winner_B2: Tensor, given_B2: Tensor, generator: torch.Generator
) -> Tensor:  # fmt: skip
    """Mean loss of an update."""
    if method == SFT:
        logp_B, one_B = policy.logp(winner_B2), torch.ones(len(winner_B2))
        zero_B = torch.zeros_like(logp_B)
        return objectives.get("sft")(
            zero_B, zero_B, logp_w=logp_B, logp_l=zero_B, length_w=one_B, length_l=one_B
        ).mean()

    def rho(x_B2: Tensor) -> Tensor:
        with torch.no_grad():
            logp_B = reference.logp(x_B2)
        return policy.logp(x_B2) - logp_B

    if method == OFFLINE:
        return objectives.get("dpo", beta=beta)(rho(winner_B2), rho(given_B2)).mean()
    found = drawn(policy, winner_B2, generator)
    if method == ONLINE:
        return objectives.get("dpo", beta=beta)(rho(found.best_B2), rho(found.worst_B2)).mean()
    objective = objectives.get("sopo", beta=beta, C=C, tau=TAU, variant=VARIANTS[method])
    return objective(
        rho(winner_B2),
        rho(found.worst_B2),
        min_similarity=found.similarity_B,
        rejected_reward=found.reward_B,
    ).mean()


def trained(seed: int, method: str, beta: float, steps: int) -> Mixture:
    """A policy after so many updates of one method, from a seed's start and with its points."""
    reference = Mixture(torch.Generator().manual_seed(seed)).requires_grad_(False)
    policy = copy.deepcopy(reference).requires_grad_(True)
    points = torch.Generator().manual_seed(1000 + seed)
    winner_B2 = preferred(GIVEN, points)
    given_B2 = torch.tensor(OFF) + OFF_SPREAD * torch.randn(GIVEN, 2, generator=points)
    optimizer = torch.optim.Adam(policy.parameters(), lr=RATE, betas=(0.9, 0.99))
    generator = torch.Generator().manual_seed(2000 + seed)
    for _ in range(steps):
        loss = loss_of(method, beta, policy, reference, winner_B2, given_B2, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return policy


def measure(
    sample: Callable[[int, torch.Generator], Tensor], logp: Callable[[Tensor], Tensor] | None, n: int
) -> Measured:
    """Of a distribution, by samples of it and, for its density, of what is preferred; the same noise for all."""
    generator = torch.Generator().manual_seed(3000)
    x_N2 = sample(n, generator)
    apart_N2 = distances(x_N2)
    with torch.no_grad():
        fresh_N2 = preferred(n, torch.Generator().manual_seed(4000))
        nll = float("nan") if logp is None else float(-logp(fresh_N2).mean())
    return Measured(
        reward=float(reward(x_N2).mean()),
        coverage=float((apart_N2 < NEAR).double().mean(0).min()),
        far=float((apart_N2.amin(1) > FAR).double().mean()),
        nll=nll,
    )


Method = tuple[str, float]
"""Name and beta; 0 of what has none."""
JOBS: tuple[Method, ...] = (
    (BASE, 0.0),
    (SFT, 0.0),
    *((method, beta) for beta in BETAS for method in METHODS),
    (SOPO, LARGE),
)


class Outcome(NamedTuple):
    """One seed.

    Attributes:
        measured: by method.
        samples: (`SHOWN`, 2) points of each at the smallest beta, for the picture.
    """

    measured: dict[Method, Measured]
    samples: dict[str, list[list[float]]]


def one_seed(seed: int, steps: int = 300, n: int = 20000) -> Outcome:
    """All methods from a seed's start."""
    found = {(PREFERRED, 0.0): measure(preferred, None, n)}
    samples = {}
    for method, beta in JOBS:
        policy = trained(seed, method, beta, 0 if method == BASE else steps)
        found[method, beta] = measure(policy.sample, policy.logp, n)
        if beta <= BETAS[0]:
            samples[method] = policy.sample(SHOWN, torch.Generator().manual_seed(0)).tolist()
    return Outcome(found, samples)
