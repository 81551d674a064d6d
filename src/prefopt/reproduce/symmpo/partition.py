"""A of `prefopt reproduce symmpo`: which comparisons have their minimum at the ideal policy, to the digit.

A few images and answers, a policy that is a table, a reward and a reference drawn at random. Judges prefer by Bradley and Terry:

    P(a beats b under m) = sigma(r(m, a) - r(m, b))        P(m beats m' for a) = sigma(r(m, a) - r(m', a))
    pi*(y | m) = pi_ref(y | m) e^(r(m, y) / beta) / Z(m)

Under pi* a margin between two answers is that of the rewards; one between two images lacks log Z(m) - log Z(m'). Soft labels are the
library's own losses on either outcome of both comparisons of a row, weighed by the outcomes' probability.

Shapes: S seeds, M images, K answers, Q rows (two images, two answers), 4 outcomes or cells of a row, E = S 4 Q. Symbols: see `objectives/images.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from prefopt.objectives import DPO, MDPO, SVCO, Score, Sides, SymMPO
from prefopt.reproduce import plots
from prefopt.reproduce.core import Claim, Part, Plot, Table, Ticker, directional, silent, within

if TYPE_CHECKING:
    from matplotlib.figure import Figure

IMAGES, ANSWERS, BETA = 6, 8, 0.5
STEPS, RATE, MOMENTUM = 200, 20.0, 0.9
STATIONARY, MOVED = 1e-12, 1e-4
"""Largest gradient of a loss whose minimum is at the ideal policy, and least of one whose is elsewhere."""
REACHED, APART = 1e-4, 0.1
"""The same of KL(pi* || pi) after training, nats."""
FLOOR = 1e-15
"""Rounding, below which a figure shows nothing."""
PAPERS_GAMMA = 1e-4
GAMMAS = (PAPERS_GAMMA, 1e-3, 1e-2, 1e-1)

Loss = Callable[[Tensor], Tensor]
"""(S,) losses of log-ratios (S, M, K)."""
Term = Callable[[Sides], Tensor]
Axis = Literal["answers", "images"]


@dataclass(frozen=True, slots=True)
class World:
    """Rewards and reference of S worlds."""

    reward_SMK: Tensor
    log_ref_SMK: Tensor

    @property
    def log_z_SM(self) -> Tensor:
        """Log of the partition function of every image."""
        return (self.log_ref_SMK + self.reward_SMK / BETA).logsumexp(-1)

    @property
    def log_ideal_SMK(self) -> Tensor:
        """log pi*."""
        return (self.log_ref_SMK + self.reward_SMK / BETA).log_softmax(-1)


def world(seeds: range) -> World:
    """Gaussian rewards, and references drawn evenly from all distributions."""
    reward, ref = [], []
    for seed in seeds:
        g = torch.Generator().manual_seed(seed)
        reward.append(torch.randn(IMAGES, ANSWERS, generator=g, dtype=torch.float64))
        uniform = torch.rand(IMAGES, ANSWERS, generator=g, dtype=torch.float64)
        ref.append((-(1 - uniform).log()).log().log_softmax(-1))  # exponentials, normalised: Dirichlet(1)
    return World(torch.stack(reward), torch.stack(ref))


def places() -> Tensor:
    """(4, Q) of every row (two images m and m', in either order, and two answers a and b) its cells of a flat (M, K) table:
    (m, a), (m, b), (m', a), (m', b)."""
    found = [
        (m * ANSWERS + a, m * ANSWERS + b, other * ANSWERS + a, other * ANSWERS + b)
        for m, other in product(range(IMAGES), repeat=2)
        for a in range(ANSWERS)
        for b in range(a)
        if m != other
    ]
    return torch.tensor(found).T


CELLS_4Q = places()
COMPARED: Mapping[Axis, tuple[tuple[int, int], tuple[int, int]]] = {
    "answers": ((0, 1), (3, 2)),
    "images": ((0, 2), (3, 1)),
}
"""Cells of a row's two comparisons, the one first that wins if nothing is turned: answers a with b under m, and b with a under m';
or images m with m' for a, and m' with m for b."""


def ends(axis: Axis) -> list[list[int]]:
    """Winner and loser of the first comparison, then of the second: a cell for each of the four outcomes."""
    first, second = COMPARED[axis]
    found = [
        (*first[:: -1 if turned else 1], *second[:: -1 if also else 1])
        for turned, also in product((False, True), repeat=2)
    ]
    return [list(cells) for cells in zip(*found, strict=True)]


def shares(here: World, axis: Axis) -> Tensor:
    """(S, 4, Q) probability of every outcome of a row, whose two comparisons are judged apart."""
    reward_S4Q = here.reward_SMK.flatten(1)[:, CELLS_4Q]
    won, lost, second_won, second_lost = (reward_S4Q[:, cells] for cells in ends(axis))
    return (won - lost).sigmoid() * (second_won - second_lost).sigmoid()


def sides(rho_SMK: Tensor, axis: Axis) -> Sides:
    """Sides of the S * 4 * Q comparisons that `shares` weighs."""
    rho_S4Q = rho_SMK.flatten(1)[:, CELLS_4Q]
    w, lost, cc, second_lost = (rho_S4Q[:, cells].flatten() for cells in ends(axis))
    # what loses to the first winner is the other answer, or the other image; likewise what loses to the second
    c, cw = (lost, second_lost) if axis == "answers" else (second_lost, lost)
    return Sides(rho_w=w, rho_l=lost, branches={"c": Score(rho=c), "cc": Score(rho=cc), "cw": Score(rho=cw)})


def expected(here: World, term: Term, axis: Axis, shifted: bool = False, agreeing: bool = True) -> Loss:
    """The mean over rows of a term's expectation over outcomes.

    Args:
        here: the worlds.
        term: (E,) losses of E comparisons.
        axis: what is compared.
        shifted: add the true log Z of its image to every log-ratio.
        agreeing: False leaves out the two outcomes in which one answer is right for both images.
    """
    more_SM1 = here.log_z_SM[..., None] if shifted else 0.0
    share_S4Q = shares(here, axis)
    if not agreeing:
        share_S4Q[:, 1:3] = 0.0

    def loss(rho_SMK: Tensor) -> Tensor:
        loss_S4Q = term(sides(rho_SMK + more_SM1, axis)).view_as(share_S4Q)
        return (share_S4Q * loss_S4Q).sum(1).mean(-1)

    return loss


def consistent_margins(gamma: float) -> Loss:
    """SymMPO's margin term on rows with two right answers (the outcomes 0 and 3, which have the same)."""
    of = SymMPO(beta=BETA, pair_weight=0.0, margin_weight=gamma, anchor_weight=0.0, response_weight=0.0)

    def loss(rho_SMK: Tensor) -> Tensor:
        return of.win_loss(sides(rho_SMK, "answers"), {}).view(len(rho_SMK), 4, -1)[:, 0].mean(-1)

    return loss


def added(*losses: Loss) -> Loss:
    """Their sum."""
    return lambda rho_SMK: torch.stack([loss(rho_SMK) for loss in losses]).sum(0)


def arms(here: World) -> dict[str, Loss]:
    """The library's losses, by what they compare."""
    symmpo = SymMPO(beta=BETA, pair_weight=1.0, margin_weight=0.0, anchor_weight=0.0, response_weight=0.0)
    image = MDPO(beta=BETA).terms["image"][1]

    def whole(of: DPO | SVCO | SymMPO) -> Term:
        return lambda these: of.win_loss(these, {})

    dpo = expected(here, whole(DPO(beta=BETA)), "answers")
    mdpo = expected(here, image, "images")
    return {
        "DPO": dpo,
        "SymMPO's pair term": expected(here, whole(symmpo), "answers"),
        "mDPO's image term": mdpo,
        "S-VCO": expected(here, whole(SVCO(beta=BETA)), "images"),
        "mDPO: response and image": added(dpo, mdpo),
        "mDPO's image term, log Z added": expected(here, image, "images", shifted=True),
        "S-VCO, log Z added": expected(here, whole(SVCO(beta=BETA)), "images", shifted=True),
        "SymMPO's pair term, disagreeing rows": expected(here, whole(symmpo), "answers", agreeing=False),
    }


RESPONSES = ("DPO", "SymMPO's pair term")
PICTURES = ("mDPO's image term", "S-VCO")


def gradient(loss: Loss, here: World, log_policy_SMK: Tensor) -> Tensor:
    """(S,) largest entry of the gradient with respect to the logits."""
    return slope(loss, here, log_policy_SMK.clone().requires_grad_()).abs().amax((1, 2))


def slope(loss: Loss, here: World, logits_SMK: Tensor) -> Tensor:
    """(S, M, K) gradient with respect to the logits; worlds do not touch each other."""
    rho_SMK = logits_SMK.log_softmax(-1) - here.log_ref_SMK
    (grad_SMK,) = torch.autograd.grad(loss(rho_SMK).sum(), [logits_SMK])
    return grad_SMK


def distance(here: World, logits_SMK: Tensor) -> Tensor:
    """(S,) mean over images of KL(pi* || pi), nats."""
    log_ideal_SMK = here.log_ideal_SMK
    gap_SMK = log_ideal_SMK - logits_SMK.detach().log_softmax(-1)
    return (log_ideal_SMK.exp() * gap_SMK).sum(-1).mean(-1)


def descend(loss: Loss, here: World, steps: int) -> Tensor:
    """(steps + 1, S) distance to the ideal policy, by gradient descent with momentum from the reference."""
    logits_SMK = here.log_ref_SMK.clone().requires_grad_()
    optimizer = torch.optim.SGD([logits_SMK], lr=RATE, momentum=MOMENTUM)
    seen = [distance(here, logits_SMK)]
    for _ in range(steps):
        logits_SMK.grad = slope(loss, here, logits_SMK)
        optimizer.step()
        seen.append(distance(here, logits_SMK))
    return torch.stack(seen)


def partition_functions(seeds: range, steps: int = STEPS, ticker: Ticker = silent) -> Part:
    """A: gradients of the library's losses at the ideal policy, and how far from it they end."""
    here = world(seeds)
    losses = arms(here)
    fitted = [name for name in losses if "log Z" not in name]  # with it the minimum is not the only one
    tick = ticker("images and answers", len(fitted) + len(GAMMAS))
    at_ideal = {name: gradient(loss, here, here.log_ideal_SMK) for name, loss in losses.items()}
    paths = {}
    for name in fitted:
        paths[name] = descend(losses[name], here, steps)
        tick()
    pair = losses["SymMPO's pair term"]
    biased = {}
    for gamma in GAMMAS:
        biased[gamma] = descend(added(pair, consistent_margins(gamma)), here, steps)[-1]
        tick()
    ended = {name: path[-1] for name, path in paths.items()}
    margin_gradient = gradient(consistent_margins(PAPERS_GAMMA), here, here.log_ideal_SMK)
    result = Part(claims=claims(at_ideal, ended, margin_gradient))
    start_S = distance(here, here.log_ref_SMK)
    result.tables = [
        Table(
            "A: where the losses have their minimum (means over seeds)",
            ["loss", "largest gradient at the ideal policy", f"KL to it after {steps} steps (nats)"],
            [
                ["(the reference)", "", float(start_S.mean())],
                *(
                    [name, float(at_ideal[name].mean()), float(ended[name].mean()) if name in ended else ""]
                    for name in losses
                ),
            ],
        ),
        Table(
            "A: SymMPO's pair term with its margin term (means over seeds)",
            ["gamma, nats", f"KL to the ideal policy after {steps} steps (nats)"],
            [[gamma, float(end_S.mean())] for gamma, end_S in biased.items()],
        ),
    ]
    shown = {name: path.mean(-1).clamp_min(FLOOR).tolist() for name, path in paths.items()}
    result.plots = [Plot("symmpo_partition", "Distance to the ideal policy while training", descents(shown))]
    result.settings["A"] = {
        "seeds": len(seeds), "images": IMAGES, "answers": ANSWERS, "beta": BETA, "steps": steps, "learning rate": RATE,
        "momentum": MOMENTUM, "gamma of the margin term": list(GAMMAS),
    }  # fmt: skip
    result.notes.append(
        "A: rows that are kept only where each image has another right answer (the disagreeing rows of the table) are a selection by the "
        "outcome, and no Bradley-Terry labels any more: the pair term's minimum on them is another policy, too"
    )
    return result


def claims(
    at_ideal: Mapping[str, Tensor], ended: Mapping[str, Tensor], margin_gradient_S: Tensor
) -> list[Claim]:
    """What the paper says of partition functions, and what the margin term does."""
    found = []
    gradient_of = (
        "largest entry of the gradient with respect to a table's logits at the ideal policy, float64"
    )
    fitted = "mean KL(pi* || pi) over images after full-batch descent from the reference"
    for name in RESPONSES:
        found += [
            within(
                f"A: {name} has no gradient at the ideal policy",
                at_ideal[name].tolist(),
                STATIONARY,
                source="the derivation of DPO: Z cancels",
                how=gradient_of,
            ),
            within(
                f"A: {name} leads to the ideal policy",
                ended[name].tolist(),
                REACHED,
                source="the derivation of DPO: Z cancels",
                how=fitted,
                unit="nats",
            ),
        ]
    for name in PICTURES:
        found += [
            directional(
                f"A: {name} has a gradient at the ideal policy",
                (at_ideal[name] - MOVED).tolist(),
                source="the critique of image pairs: Z does not cancel",
                how=f"{gradient_of}, minus {MOVED:g}",
            ),
            directional(
                f"A: {name} leads elsewhere",
                (ended[name] - APART).tolist(),
                source="the critique of image pairs: Z does not cancel",
                how=f"{fitted}, minus {APART:g}",
                unit="nats",
            ),
            within(
                f"A: with the true log Z ratio added {name} has no gradient at the ideal policy",
                at_ideal[f"{name}, log Z added"].tolist(),
                STATIONARY,
                source="the critique of image pairs: the term that is left out",
                how=gradient_of,
            ),
        ]
    found.append(
        directional(
            "A: SymMPO's margin term pulls away from the ideal policy",
            (margin_gradient_S - STATIONARY).tolist(),
            source="derived here: the two true margins differ in general",
            how=f"{gradient_of}, gamma {PAPERS_GAMMA:g}, minus {STATIONARY:g}",
        )
    )
    return found


@plots.styled
def descents(paths: Mapping[str, list[float]]) -> Figure:
    """KL to the ideal policy by step, a line a loss."""
    figure, (axes,) = plots.panels(width=7.2)
    for (name, path), colour in zip(paths.items(), plots.SEQUENCE, strict=False):
        axes.plot(path, color=colour, label=name)
    axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel("KL(ideal policy || policy), nats")
    axes.set_title("Answers lead to the ideal policy, images do not")
    axes.legend()
    return figure
