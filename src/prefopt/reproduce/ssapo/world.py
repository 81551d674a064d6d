"""The few-label world of `prefopt reproduce ssapo`, and rounds of self-annotation in it.

Prompts have K candidate answers with D features; the true reward is linear in them, the policy is softmax(w . phi), the
reference uniform. A few labelled pairs make a first policy; in each round it samples two answers to new prompts, labels
them by its implicit reward (or, for the oracle, by the true one) and trains on them for an epoch. All seeds are one
tensor, whose weights never touch each other; random numbers belong to seed and prompt, so every method samples with
the same ones.

Shapes: S seeds, L labelled pairs, P prompts of a round, E pairs, K candidates, D features. Symbols as in
`sources/worst_case.py`; xi = beta w . (phi_w - phi_l), since the normaliser of a prompt cancels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from prefopt import objectives
from prefopt.objectives.base import Objective
from prefopt.reproduce import loglinear
from prefopt.reproduce.loglinear import Candidates
from prefopt.sources.annotation import least_confident
from prefopt.sources.worst_case import UNMOVED, worst_case

CANDIDATES, FEATURES = 8, 16
BETA = 1.0
PIECES = 6
SMOOTHING, DOUBTED = 0.1, 0.1
TEMPERATURE = 0.7
LEVEL = 0.8


@dataclass(frozen=True)
class Size:
    """How much of everything.

    Attributes:
        labels: most labelled pairs that a world can be asked for.
        prompts: of each round.
        test_prompts: for the exact win rate.
        seed_steps: updates on the labelled pairs, all of them at once.
        batch: pairs an update in the rounds.
        epochs: over each round's pairs.
        seed_rate: Adam's peak learning rate on the labelled pairs; warm-up over a tenth of the steps, then a cosine
            to 0.
        rate: the same in each round.
    """

    labels: int = 160
    prompts: tuple[int, ...] = (160, 400, 600)
    test_prompts: int = 400
    seed_steps: int = 60
    batch: int = 32
    epochs: int = 1
    seed_rate: float = 0.02
    rate: float = 0.02


FULL = Size()
QUICK = Size(labels=80, prompts=(40, 60), test_prompts=60, seed_steps=20)


@dataclass(frozen=True, slots=True)
class World:
    """Labelled pairs, the prompts of the rounds and the test, for S seeds."""

    delta_SLD: Tensor
    """Features of the better answer minus those of the worse one."""
    flip_SL: Tensor
    """Random numbers; the pairs with the smallest ones among those used are the ones flipped."""
    rounds: tuple[Candidates, ...]
    noise: tuple[Tensor, ...]
    """(S, P, 2, K) Gumbel noise of the two answers, a tensor a round."""
    test: Candidates


def make_world(seeds: range, size: Size) -> World:
    """A reward, prompts and noise of its own for each seed."""
    worlds = [one_world(seed, size) for seed in seeds]

    def candidates(i: int) -> Candidates:
        phi, utility = (torch.stack([w.candidates[i][j] for w in worlds]) for j in (0, 1))
        return Candidates(phi, utility, torch.full_like(utility, -math.log(CANDIDATES)))

    rounds = range(len(size.prompts))
    return World(
        torch.stack([w.delta_LD for w in worlds]),
        torch.stack([w.flip_L for w in worlds]),
        tuple(candidates(i) for i in rounds),
        tuple(torch.stack([w.noise[i] for w in worlds]) for i in rounds),
        candidates(-1),
    )


@dataclass(frozen=True, slots=True)
class OneWorld:
    """The same for one seed; `candidates` ends with the test's."""

    delta_LD: Tensor
    flip_L: Tensor
    candidates: list[tuple[Tensor, Tensor]]
    noise: list[Tensor]


def one_world(seed: int, size: Size) -> OneWorld:
    """Draw a seed's world; float64."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    reward_D = normal(FEATURES)
    reward_D = reward_D / reward_D.norm()
    delta_LD = normal(size.labels, FEATURES) - normal(size.labels, FEATURES)  # two answers of the reference
    sign_L1 = torch.sign(delta_LD @ reward_D)[:, None]
    flip_L = uniform(size.labels)
    sides = []
    for prompts in (*size.prompts, size.test_prompts):
        phi_PKD = normal(prompts, CANDIDATES, FEATURES)
        sides.append((phi_PKD, phi_PKD @ reward_D))
    noise = [-torch.log(-torch.log(uniform(p, 2, CANDIDATES))) for p in size.prompts]
    return OneWorld(sign_L1 * delta_LD, flip_L, sides, noise)


def labelled(world: World, labels: int, flipped: float) -> Tensor:
    """(S, L, D) feature differences of the first `labels` pairs, a share `flipped` of them with the wrong sign.

    Raises:
        ValueError: the world has fewer labelled pairs.
    """
    if labels > world.delta_SLD.shape[1]:
        raise ValueError(
            f"{labels} labelled pairs asked of a world of {world.delta_SLD.shape[1]}; make it larger"
        )
    rank_SL = world.flip_SL[:, :labels].argsort(-1).argsort(-1)
    wrong_SL = rank_SL < round(flipped * labels)
    return world.delta_SLD[:, :labels] * torch.where(wrong_SL, -1.0, 1.0)[..., None]


# -- methods ---------------------------------------------------------------------------------------------------

Labels = Literal["none", "again", "self", "truth"]


@dataclass(frozen=True)
class Method:
    """How the rounds are labelled and trained.

    Attributes:
        labels: of the rounds' pairs; "none" stops after the labelled ones, "again" goes on training on them for as many
            updates as the rounds have.
        objective: of the rounds; the labelled pairs always get DPO's.
        epsilon: radius of the ball, in units of the objective's space; 0: no adversary.
    """

    labels: Labels
    objective: Objective
    epsilon: float = 0.0


DPO = objectives.get("dpo", beta=BETA)
SHIFT = objectives.get("ssapo", beta=BETA)
DUAL = objectives.get("ssapo", beta=BETA, leader="dual")
RELEASED = objectives.get("ssapo", beta=BETA, leader="prob_atoms", floor="clamp", pieces=PIECES)
LINEAR = objectives.get("ssapo", beta=BETA, leader="prob_atoms", floor="linear", pieces=PIECES)
SPA = objectives.get("spa", beta=BETA, alpha=SMOOTHING)

SEED_ONLY, AGAIN = "labelled pairs only", "labelled pairs, as long"
SELF, ORACLE, SPA_ROUNDS = "self-labels, eps 0", "true labels", "SPA"


def margin_name(epsilon: float, leader: str = "shift") -> str:
    """Name of SSAPO at a radius in units of the gap."""
    return f"SSAPO {leader} {epsilon:g}"


def released_name(epsilon: float) -> str:
    """Name of the released leader at a radius in units of probability."""
    return f"released {epsilon:g}"


BASELINES = {
    SEED_ONLY: Method("none", DPO),
    AGAIN: Method("again", DPO),
    SELF: Method("self", DPO),
    ORACLE: Method("truth", DPO),
    SPA_ROUNDS: Method("self", SPA),
}


# -- rounds ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RoundPairs:
    """What a round made.

    Attributes:
        delta_SPD: features of chosen minus rejected; 0 where both answers are the same one.
        keep_SP: True where they differ.
        xi_SP: implicit-reward gap of the labels.
        right_S: share of the kept labels that the true reward agrees with.
    """

    delta_SPD: Tensor
    keep_SP: Tensor
    xi_SP: Tensor
    right_S: Tensor


def annotated(world: Candidates, noise_SP2K: Tensor, w_SD: Tensor, labels: Labels = "self") -> RoundPairs:
    """Sample two answers a prompt from the policy, independently, and label them.

    `sources.annotation.annotate` for two answers of a log-linear policy and all seeds at once.
    """
    log_p_SPK = loglinear.log_policy(world, w_SD)
    drawn_SP2 = (log_p_SPK[:, :, None] / TEMPERATURE + noise_SP2K).argmax(-1)
    index_SP2D = drawn_SP2[..., None].expand(*drawn_SP2.shape, world.phi_SNKD.shape[-1])
    phi_SP2D = world.phi_SNKD.gather(2, index_SP2D)
    delta_SPD = phi_SP2D[:, :, 0] - phi_SP2D[:, :, 1]
    truth_SP2 = world.utility_SNK.gather(2, drawn_SP2)
    truth_SP = truth_SP2[..., 0] - truth_SP2[..., 1]
    gap_SP = BETA * (delta_SPD @ w_SD[:, :, None])[..., 0]  # the reference is uniform: its terms cancel
    sign_SP = torch.where((gap_SP if labels == "self" else truth_SP) >= 0, 1.0, -1.0).to(gap_SP.dtype)
    keep_SP = drawn_SP2[..., 0] != drawn_SP2[..., 1]
    right_SP = (truth_SP * sign_SP > 0) & keep_SP
    return RoundPairs(
        delta_SPD * sign_SP[..., None],
        keep_SP,
        gap_SP * sign_SP,
        right_SP.double().sum(-1) / keep_SP.sum(-1),
    )


def constants(method: Method, pairs: RoundPairs) -> dict[str, Tensor]:
    """(S, P) columns of the pairs that the method's objective reads: the adversary's answer, or SPA's flags."""
    columns = {
        name: torch.full_like(pairs.xi_SP, UNMOVED.get(name, 0.0))
        for name in getattr(method.objective, "columns", {})
    }
    for s, keep_P in enumerate(pairs.keep_SP):
        xi_N = pairs.xi_SP[s, keep_P].numpy()
        if "spa_flag" in columns:
            columns["spa_flag"][s, keep_P] = torch.from_numpy(least_confident(xi_N, DOUBTED)).double()
        elif method.epsilon > 0:
            space = method.objective.space  # type: ignore[attr-defined]
            pieces = PIECES if space == "probability" else None
            found = worst_case(xi_N, epsilon=method.epsilon, space=space, pieces=pieces)
            columns["robust_moved"][s, keep_P] = torch.from_numpy(found.moved_N)
            columns["robust_shift"][s, keep_P] = torch.from_numpy(found.shift_N)
            if space == "margin":
                columns["robust_lambda"][s, keep_P] = torch.from_numpy(found.lambda_N)
                columns["robust_low"][s, keep_P] = found.low
    return columns


def train(
    objective: Objective,
    delta_SED: Tensor,
    w_SD: Tensor,
    *,
    steps: int,
    rate: float,
    batch: int | None = None,
    keep_SE: Tensor | None = None,
    columns: dict[str, Tensor] | None = None,
) -> Tensor:
    """(S, D) weights after `steps` of Adam from `w_SD`; the mean of a batch counts kept pairs alone.

    Raises:
        FloatingPointError: weights stopped being finite.
    """
    columns = columns or {}
    pairs = delta_SED.shape[1]
    weight_SE = delta_SED.new_ones(delta_SED.shape[:2]) if keep_SE is None else keep_SE.to(delta_SED.dtype)
    w_SD = w_SD.clone().requires_grad_(True)
    opt = torch.optim.Adam([w_SD], lr=rate)
    warmup = max(1, steps // 10)
    order = torch.Generator().manual_seed(0)
    queue = torch.empty(0, dtype=torch.long)
    for step in range(steps):
        delta_SBD, weight_SB, chosen = delta_SED, weight_SE, columns
        if batch is not None:
            if len(queue) < min(batch, pairs):
                queue = torch.randperm(pairs, generator=order)
            index_B, queue = queue[:batch], queue[batch:]
            delta_SBD, weight_SB = delta_SED[:, index_B], weight_SE[:, index_B]
            chosen = {name: column[:, index_B] for name, column in columns.items()}
        rho_SB = (delta_SBD @ w_SD[:, :, None])[..., 0]
        flat = rho_SB.flatten()
        loss_SB = objective(
            flat,
            torch.zeros_like(flat),
            state=None,
            **{name: column.flatten() for name, column in chosen.items()},
        ).view_as(rho_SB)
        loss = ((loss_SB * weight_SB).sum(-1) / weight_SB.sum(-1).clamp(min=1)).sum()
        (w_SD.grad,) = torch.autograd.grad(loss, w_SD)
        rise, fall = (step + 1) / warmup, (step + 1 - warmup) / max(1, steps - warmup)
        for group in opt.param_groups:
            group["lr"] = rate * (rise if rise < 1 else 0.5 * (1 + math.cos(math.pi * fall)))
        opt.step()
    if not bool(w_SD.isfinite().all()):
        raise FloatingPointError(f"{objective} made the weights infinite within {steps} steps")
    return w_SD.detach()


@dataclass(frozen=True)
class Stage:
    """A policy after a stage, one value a seed; win rates against the reference in percent, exact over candidates.

    Attributes:
        win: an answer drawn from the policy wins.
        level: the same after scaling w to a KL of `LEVEL`, for all policies alike: how good its order of answers is,
            however sharp it has become.
        kl: nats a prompt.
        right: percent of the stage's self-made labels that are right; NaN for the first stage.
        moved: percent of the stage's mass that the adversary moved.
    """

    win: list[float]
    level: list[float]
    kl: list[float]
    right: list[float]
    moved: list[float]


def at_level(world: Candidates, w_SD: Tensor, level: float = LEVEL) -> Tensor:
    """(S, D) weights scaled so that KL(policy || uniform reference) is `level` nats a prompt; bisection."""
    score_SNK = loglinear.scores(world.phi_SNKD, w_SD)
    low_S, high_S = torch.full_like(w_SD[:, 0], -20.0), torch.full_like(w_SD[:, 0], 20.0)
    for _ in range(40):
        middle_S = (low_S + high_S) / 2
        log_p_SNK = (score_SNK * middle_S.exp()[:, None, None]).log_softmax(-1)
        kl_S = math.log(CANDIDATES) + (log_p_SNK.exp() * log_p_SNK).sum(-1).mean(-1)
        above_S = kl_S > level
        low_S, high_S = torch.where(above_S, low_S, middle_S), torch.where(above_S, middle_S, high_S)
    return w_SD * low_S.exp()[:, None]


def measure(world: World, w_SD: Tensor, pairs: RoundPairs | None, columns: dict[str, Tensor]) -> Stage:
    """Judge a policy on the test prompts by the true reward."""
    seeds = len(w_SD)
    moved_SP = columns.get("robust_moved")
    return Stage(
        (100 * loglinear.win_rate(world.test, w_SD)).tolist(),
        (100 * loglinear.win_rate(world.test, at_level(world.test, w_SD))).tolist(),
        loglinear.kl(world.test, w_SD).tolist(),
        [math.nan] * seeds if pairs is None else (100 * pairs.right_S).tolist(),
        [0.0] * seeds
        if pairs is None or moved_SP is None
        else (100 * moved_SP.sum(-1) / pairs.keep_SP.sum(-1)).tolist(),
    )


def run(method: Method, world: World, size: Size, labels: int, flipped: float) -> list[Stage]:
    """Labelled pairs, then every round: the stages, of which a method without rounds has one."""
    start_SD = world.delta_SLD.new_zeros(len(world.delta_SLD), FEATURES)
    human_SLD = labelled(world, labels, flipped)
    w_SD = train(DPO, human_SLD, start_SD, steps=size.seed_steps, rate=size.seed_rate)
    stages = [measure(world, w_SD, None, {})]
    if method.labels == "none":
        return stages
    for candidates, noise_SP2K in zip(world.rounds, world.noise, strict=True):
        steps = max(1, size.epochs * noise_SP2K.shape[1] // size.batch)
        if method.labels == "again":
            w_SD = train(DPO, human_SLD, w_SD, steps=steps, rate=size.rate, batch=size.batch)
            stages.append(measure(world, w_SD, None, {}))
            continue
        pairs = annotated(candidates, noise_SP2K, w_SD, method.labels)
        columns = constants(method, pairs)
        w_SD = train(
            method.objective,
            pairs.delta_SPD,
            w_SD,
            steps=steps,
            rate=size.rate,
            batch=size.batch,
            keep_SE=pairs.keep_SP,
            columns=columns,
        )
        stages.append(measure(world, w_SD, pairs, columns))
    return stages
