"""The whole method in the text world: DPO on all pairs, on the clear ones, and ComPO on the doubtful ones after that.

A pair is doubtful if the pretrained model's log-probabilities of its two sides differ by at most `delta`. After DPO on the
clear pairs the head is untied from the embedding, and moves alone; the rest of the model is frozen, so each doubtful
pair's hidden states are computed once.

Legend: E pairs, D hidden width, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from prefopt import objectives
from prefopt.oracles.comparison import is_noisy
from prefopt.oracles.direction import Selection
from prefopt.oracles.head import HeadProbe, Pair, Response
from prefopt.oracles.step import Estimator, StepSettings, oracle_step
from prefopt.reproduce import lm, plots
from prefopt.reproduce.core import Asked, Claim, Part, Plot, Table, directional
from prefopt.reproduce.paired import mean, minus

BETA = 0.1
RADIUS_RELATIVE = 0.03
"""Times the deviation of the head's entries (the released radius belongs to heads of 7 billion parameter models)."""

ALL, CLEAN = "DPO, all pairs", "DPO, clear pairs"
COMPO, EVERY, LIMIT = "then ComPO", "then ComPO, all entries", "then ComPO, infinitely many moves"
ARMS = (ALL, CLEAN, COMPO, EVERY, LIMIT)
LIMIT_GAMMA = 0.1
"""The limit's steps have no noise: with the step size of 400 moves they go far too far."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything.

    Attributes:
        size: of the world, the data and DPO's training.
        delta: nats up to which a pair is doubtful (the paper's).
        doubtful: doubtful pairs that the oracle is asked about, one iteration each.
        moves: m.
        gamma: step size; a step is gamma times the share of successes long.
        keep: share of the entries used by ComPO; the other two arms use all.
        gate: share of moves that must help.
    """

    size: lm.Size
    delta: float = 3.0
    doubtful: int = 100
    moves: int = 400
    gamma: float = 1.0
    keep: float = 0.01
    gate: float = 0.2


FULL = Scale(lm.Size(prompts=200, test_prompts=100, samples=1, epochs=2))
QUICK = Scale(lm.QUICK, delta=10.0, doubtful=5, moves=20)  # a model barely trained has large margins


@dataclass(frozen=True, slots=True)
class Outcome:
    """One model, beside the pretrained one.

    Attributes:
        chosen_falls: share of the doubtful pairs whose chosen response is less likely than under the pretrained model.
        rejected_rises: share whose rejected one is likelier.
        chosen: mean change of the chosen response's log-probability there, nats.
        rejected: of the rejected one's.
        accuracy: share of held-out pairs whose log-ratio is larger on the chosen side, percent.
        score: mean exact score of samples on held-out prompts, percent.
        length: mean tokens of those samples.
        own_right: share of the steps that made their own pair's chosen response likelier and its rejected one less likely.
        stepped: share of the oracle's iterations that moved the head.
        success_rate: mean share of moves that helped.
        distance: how far the head moved in all.
    """

    chosen_falls: float
    rejected_rises: float
    chosen: float
    rejected: float
    accuracy: float
    score: float
    length: float
    own_right: float = 0.0
    stepped: float = 0.0
    success_rate: float = 0.0
    distance: float = 0.0


class Told(NamedTuple):
    """What the oracle's iterations report; see `Outcome`."""

    own_right: float
    stepped: float
    success_rate: float
    distance: float


def one_seed(seed: int, seeds: int, scale: Scale) -> dict[str, Outcome]:
    """All arms on a seed's own block of prompts."""
    size = scale.size
    start, tokenizer = lm.reference(size)
    rows = [row for row in lm.rows(size, seeds, seed) if not row[3]]
    chosen_E, rejected_E = lm.logp_of_rows(start, tokenizer, rows)
    doubtful_E = is_noisy(chosen_E - rejected_E, scale.delta).tolist()
    clear = [row for row, doubtful in zip(rows, doubtful_E, strict=True) if not doubtful]
    asked = [row for row, doubtful in zip(rows, doubtful_E, strict=True) if doubtful][: scale.doubtful]
    if not clear or not asked:
        raise ValueError(f"seed {seed} has {len(clear)} clear and {len(asked)} doubtful pairs; needed both")
    dpo = objectives.get("dpo", beta=BETA)
    first = lm.train(dpo, clear, size, seed)
    found = {
        ALL: outcome(lm.train(dpo, rows, size, seed), asked, scale, seed),
        CLEAN: outcome(first, asked, scale, seed),
    }
    every = replace(scale, keep=1.0)
    arms: dict[str, tuple[Scale, Estimator]] = {
        COMPO: (scale, "sampled"),
        EVERY: (every, "sampled"),
        LIMIT: (replace(every, gamma=LIMIT_GAMMA), "expected"),
    }
    for name, (of_arm, estimator) in arms.items():
        model = untied(first)
        told = ask(model, tokenizer, asked, of_arm, seed, estimator)
        found[name] = outcome(model, asked, scale, seed, told)
    return found


def untied(model: Any) -> Any:
    """A frozen copy whose head can move without moving the embedding."""
    model = copy.deepcopy(model).requires_grad_(False)
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone(), requires_grad=False)
    return model


@torch.no_grad()
def hidden_pair(model: Any, tokenizer: Any, row: lm.Row) -> Pair:
    """The head's inputs along both responses, their ends included."""
    from prefopt.worlds.text.model import prompt_text

    prompt = tokenizer(prompt_text(tokenizer, row[0]))["input_ids"]

    def side(text: str) -> Response:
        answer = tokenizer(text + tokenizer.eos_token)["input_ids"]
        ids = torch.tensor([prompt + answer])
        hidden_TD: Tensor = model.model(input_ids=ids, use_cache=False).last_hidden_state[0]
        return Response(hidden_TD[len(prompt) - 1 : -1], torch.tensor(answer))

    return side(row[1]), side(row[2])


def ask(
    model: Any, tokenizer: Any, rows: Sequence[lm.Row], scale: Scale, seed: int, estimator: Estimator
) -> Told:
    """An iteration for each pair; moves the head."""
    weight_VD: Tensor = model.lm_head.weight.data
    settings = StepSettings(
        perturbations=scale.moves,
        radius=RADIUS_RELATIVE * float(weight_VD.std()),
        gate=scale.gate,
        gamma=scale.gamma,
        selection=Selection(keep_fraction=scale.keep),
        estimator=estimator,
    )
    before_VD = weight_VD.clone()
    reports = []
    for iteration, row in enumerate(rows):
        probe = HeadProbe(weight_VD, [hidden_pair(model, tokenizer, row)])
        reports.append(oracle_step(probe, settings, seed, iteration))
    changes = [r.change_S2[0].tolist() for r in reports if not r.skipped]
    return Told(
        sum(w > 0 > r for w, r in changes) / max(1, len(changes)),
        len(changes) / len(reports),
        sum(r.success_rate for r in reports) / len(reports),
        float(torch.linalg.vector_norm(weight_VD - before_VD)),
    )


def outcome(
    model: Any,
    asked: Sequence[lm.Row],
    scale: Scale,
    seed: int,
    told: Told | None = None,
) -> Outcome:
    """Measure one model; the arms of a seed sample with the same random numbers."""
    size = scale.size
    start, tokenizer = lm.reference(size)
    held_out = [row for row in lm.rows(size, 1, None) if not row[3]]

    def log_ratios(rows: Sequence[lm.Row]) -> tuple[Tensor, Tensor]:
        now, then = (lm.logp_of_rows(m, tokenizer, rows) for m in (model, start))
        return now[0] - then[0], now[1] - then[1]

    rho_w_E, rho_l_E = log_ratios(asked)
    test_w_E, test_l_E = log_ratios(held_out)
    texts = lm.sample(model, size, 2 * seed)
    scores = lm.text_world(size).score_texts(*zip(*texts, strict=True))
    lengths = [len(tokenizer(completion)["input_ids"]) for _, completion in texts]
    return Outcome(
        float((rho_w_E < 0).float().mean()),
        float((rho_l_E > 0).float().mean()),
        float(rho_w_E.mean()),
        float(rho_l_E.mean()),
        100 * float((test_w_E > test_l_E).float().mean()),
        100 * sum(scores) / len(scores),
        sum(lengths) / len(lengths),
        *(told or ()),
    )


Found = Sequence[dict[str, Outcome]]
"""One a seed: the outcome of each arm."""


def of(found: Found, arm: str, what: str) -> list[float]:
    """One measure of an arm, one number a seed."""
    return [getattr(f[arm], what) for f in found]


COLUMNS = {
    "chosen_falls": "chosen falls (share)",
    "rejected_rises": "rejected rises (share)",
    "chosen": "chosen (nats)",
    "rejected": "rejected (nats)",
    "accuracy": "held-out accuracy (%)",
    "score": "score (%)",
    "length": "tokens a sample",
    "own_right": "own pair goes right (share of steps)",
    "stepped": "steps taken (share)",
    "success_rate": "p",
    "distance": "head moved by",
}


def experiment(asked: Asked, scale: Scale) -> Part:
    """The arms on the text world."""
    lm.prepare(asked, "compo", scale.size)
    jobs = [(seed, asked.seeds, scale) for seed in range(asked.seeds)]
    found: Found = asked.in_processes("compo: models", one_seed, jobs)
    table = Table(
        "Text world: doubtful pairs, and held-out prompts",
        ["model", *COLUMNS.values()],
        [[arm, *(mean(of(found, arm, what)) for what in COLUMNS)] for arm in ARMS],
    )
    settings = {
        "seeds": asked.seeds,
        "beta": BETA,
        "delta": scale.delta,
        "doubtful_pairs": scale.doubtful,
        **lm.chosen(scale.size),
        "moves": scale.moves,
        "radius_relative": RADIUS_RELATIVE,
        "gamma": {COMPO: scale.gamma, EVERY: scale.gamma, LIMIT: LIMIT_GAMMA},
        "keep_fraction": {COMPO: scale.keep, EVERY: 1.0, LIMIT: 1.0},
        "gate": scale.gate,
    }
    return Part(claims=claims(found), tables=[table], plots=[plot(found)], settings={"text world": settings})


OWN_PAIR = {
    COMPO: "ComPO",
    EVERY: "ComPO with all entries",
    LIMIT: "the limit of infinitely many moves",
}
SHARE, POINTS, ANALOGY = "share of doubtful pairs", "percentage points", "Table 1, by analogy"
COMPARED = (
    ("DPO on all pairs displaces more doubtful pairs than DPO on clear pairs", "chosen_falls", ALL, CLEAN, SHARE, "Sec. 1"),
    ("ComPO leaves fewer doubtful pairs displaced than DPO on clear pairs did", "chosen_falls", CLEAN, COMPO, SHARE, "Sec. 4, Table 3"),
    ("ComPO leaves fewer displaced than DPO on all pairs", "chosen_falls", ALL, COMPO, SHARE, "Sec. 4, Table 3"),
    ("ComPO with all entries leaves fewer displaced than DPO on clear pairs did", "chosen_falls", CLEAN, EVERY, SHARE, "Sec. 4, Table 3"),
    ("infinitely many moves leave fewer displaced than DPO on clear pairs did", "chosen_falls", CLEAN, LIMIT, SHARE, "closed form"),
    ("ComPO lowers the rejected responses of doubtful pairs", "rejected", CLEAN, COMPO, "nats", "Table 3"),
    ("ComPO raises held-out accuracy above DPO on clear pairs", "accuracy", COMPO, CLEAN, POINTS, ANALOGY),
    ("ComPO raises held-out accuracy above DPO on all pairs", "accuracy", COMPO, ALL, POINTS, ANALOGY),
    ("ComPO raises the score above DPO on clear pairs", "score", COMPO, CLEAN, POINTS, ANALOGY),
    ("ComPO raises the score above DPO on all pairs", "score", COMPO, ALL, POINTS, ANALOGY),
    ("samples are shorter after ComPO than after DPO on all pairs", "length", ALL, COMPO, "tokens", "Sec. 1: verbosity"),
)  # fmt: skip
"""(what is claimed, measure, arm that has more of it, arm that has less, unit, where the paper says it)"""


def claims(found: Found) -> list[Claim]:
    """Less displacement, better held-out, no longer; beside DPO on all pairs and on the clear ones."""
    return [
        *(
            directional(
                f"LM: {words} moves its own pair the right way, on both sides, in more than 90 % of the steps",
                [share - 0.9 for share in of(found, arm, "own_right")],
                source="Table 3",
                how="share of the steps taken - 0.9",
                unit="share of steps",
            )
            for arm, words in OWN_PAIR.items()
        ),
        *(
            directional(
                f"LM: {words}",
                minus(of(found, more, what), of(found, less, what)),
                source=source,
                how=f"{more} - {less}",
                unit=unit,
            )
            for words, what, more, less, unit, source in COMPARED
        ),
    ]


@plots.styled
def plot(found: Found) -> Plot:
    """Displacement, accuracy and score of each model, as paired differences from DPO on the clear pairs."""
    figure, axes = plots.panels(3, width=4.4, height=4.0)
    labels = {
        "chosen_falls": ("share of doubtful pairs", "Chosen less likely"),
        "accuracy": ("held-out pairs (points)", "Accuracy"),
        "score": ("exact score of samples (points)", "Score"),
    }
    arms = [arm for arm in ARMS if arm != CLEAN]
    for ax, (what, (label, title)) in zip(axes, labels.items(), strict=True):
        ax.axhline(0, color=plots.QUIET, linewidth=1.0)
        for place, (arm, marker) in enumerate(zip(arms, "osD^", strict=True)):
            middle, half = plots.centre(minus(of(found, arm, what), of(found, CLEAN, what)))
            ax.errorbar(
                [place],
                [middle],
                yerr=[half],
                fmt=marker,
                color=plots.SEQUENCE[place],
                markersize=9,
                elinewidth=1.4,
                label=arm if ax is axes[0] else None,
            )
        ax.set_xticks([])
        ax.set_xlim(-0.6, len(arms) - 0.4)
        ax.set_ylabel(label)
        ax.set_title(f"{title}, minus DPO's")
    figure.legend(loc="outside lower center", ncols=4)
    return Plot(
        "compo_lm",
        "The text world: paired differences from DPO on the clear pairs, with which the oracle begins; means of "
        f"{len(found)} seeds with 95 % intervals",
        figure,
    )
