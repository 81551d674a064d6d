"""B of `prefopt reproduce symmpo`: arms that are trained on the same rows of the caption world, and what is measured of them.

A seed has a world of its own: pictures, pretrained model, rows, test pictures, order of training. Every arm starts from that model
and trains on the same rows in the same order; `both rows` has their swapped copies beside them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from prefopt.metrics.two_images import chosen_drift, image_sensitivity, margin_gap, swap_accuracy
from prefopt.objectives import SVCO
from prefopt.reproduce import runs
from prefopt.worlds.caption.measures import Measures
from prefopt.worlds.caption.world import CaptionWorld

START = "start"
DPO, ANCHORED = "DPO", "DPO and anchor"
MDPO, BOTH_ROWS = "mDPO", "mDPO, both rows"
SVCO_ANCHORED = "DPO, S-VCO and anchors"
SYMMPO = "SymMPO"
NO_PAIR, NO_ANCHOR = "SymMPO without pair", "SymMPO without anchor"

Kind = Literal["rows", "both rows"]
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Arm:
    """A method with what it does not take from `SHARED`.

    Attributes:
        method: its name.
        options: hyper-parameters that are not the method's own defaults.
        kind: of its rows.
    """

    method: str
    options: Mapping[str, float] = field(default_factory=dict)
    kind: Kind = "rows"


LAMBDA = 0.5
"""Weight of SymMPO's pair term, the paper's; S-VCO's terms, which pair the same numbers, are given the same."""
ARMS: dict[str, Arm] = {
    DPO: Arm("dpo"),
    ANCHORED: Arm("mdpo", {"image_weight": 0.0}),
    MDPO: Arm("mdpo"),
    BOTH_ROWS: Arm("mdpo", kind="both rows"),
    SVCO_ANCHORED: Arm(f"symmpo+{LAMBDA:g}*svco", {"pair_weight": 0.0, "margin_weight": 0.0}),
    SYMMPO: Arm("symmpo"),
    NO_PAIR: Arm("symmpo", {"pair_weight": 0.0}),
    NO_ANCHOR: Arm("symmpo", {"anchor_weight": 0.0}),
}
GAMMAS = (0.0, 1e-3, 1e-2, 1e-1)
"""Weights of the margin term that are compared; the paper's 1e-4 is SymMPO's own."""


def swept(gamma: float) -> str:
    """The name of an arm of the sweep.

    >>> swept(1e-3)
    'SymMPO, gamma 0.001'
    """
    return f"SymMPO, gamma {gamma:g}"


SWEEP: dict[str, Arm] = {swept(gamma): Arm("symmpo", {"margin_weight": gamma}) for gamma in GAMMAS}
SHARED: dict[str, Any] = {
    "beta": 0.1,
    "learning_rate": 4e-4,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0,
    "warmup_ratio": 0.1,
    "optim": "adamw",
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "weight_decay": 0.01,
    "max_grad_norm": 1.0,
    "reference": "cached",
    "contrast_image": "row",
}
"""Of every arm, whatever its method would take by itself."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything."""

    rows: int = 600
    steps: int = 200
    batch: int = 32
    """Rows a step, whose swapped copies come on top where an arm has them."""
    pictures: int = 500
    """Held out, that models are measured on."""
    world: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the world beside its seed."""


QUICK = Size(
    rows=8, steps=2, batch=4, pictures=6,
    world={"width": 16, "layers": 1, "pretrain_steps": 3, "batch_size": 4},
)  # fmt: skip
"""Only shows that everything runs: the model has learned nothing."""


BATCH = 250
"""Items scored at once."""


class Measured(NamedTuple):
    """A model on held-out pictures and their edits, which differ in one object."""

    captions: Measures
    """Of the pictures, greedy."""
    swap_accuracy: float
    """Share of the pairs of which each picture makes its own caption likelier than the other's."""
    sensitivity: float
    """log pi(y_w | m) - log pi(y_w | m'), nats."""
    gap: float
    """Mean |m_1 - m_2| of log-ratios to the start, nats."""
    drift: float
    """Of log pi(y_w | m) from the start, nats."""


class Trained(NamedTuple):
    """One run."""

    measured: Measured
    seconds: float
    """Processor time of its steps."""
    logs: dict[str, float]
    """Means over the run of what the method logs."""


def world_of(seed: int, size: Size) -> CaptionWorld:
    """A seed's world."""
    return CaptionWorld(seed=seed, **size.world)


def prepare(seed: int, size: Size) -> None:
    """Pretrain a seed's model and draw what its rows are made of, unless they are cached."""
    world_of(seed, size).comparisons(size.rows, progress=False)


def rows_of(kind: Kind, seed: int, size: Size) -> list[Row]:
    """A seed's rows, and for "both rows" of each, next to it, the one that starts from the other picture."""
    rows = world_of(seed, size).comparisons(size.rows, progress=False)
    if kind == "rows":
        return rows
    return [each for row in rows for each in (row, swapped(row))]


def swapped(row: Row) -> Row:
    """The same row from the other picture: (m', y'_w, y'_l) with m as the contrast."""
    turned = {
        "image": "contrast_image", "contrast_image": "image", "chosen": "contrast_chosen",
        "contrast_chosen": "chosen", "rejected": "contrast_rejected", "contrast_rejected": "rejected",
    }  # fmt: skip
    return {
        "id": f"{row['id']}-swapped",
        "prompt": row["prompt"],
        **{name: row[other] for name, other in turned.items()},
    }


def run_of(arm: Arm, seed: int, size: Size) -> Any:
    """An arm's run, as a context: `prefopt train` from the world's model on rows in memory, nothing held out."""
    both = 2 if arm.kind == "both rows" else 1
    return runs.on_rows(
        rows_of(arm.kind, seed, size),
        model=str(world_of(seed, size).model_dir(progress=False)),
        method=arm.method,
        seed=seed,
        max_steps=size.steps,
        per_device_train_batch_size=both * size.batch,
        **SHARED | dict(arm.options),
    )


@dataclass(frozen=True)
class Exam:
    """Held-out pictures with their edits, and how likely the model that all start from finds their captions.

    Attributes:
        world: of the pictures.
        n: how many.
        likelihood: scores what it has laid out, one row an item.
        plans: of each branch.
        before: (N,) log-probabilities of each branch under the start.
    """

    world: CaptionWorld
    n: int
    likelihood: Any
    plans: Mapping[str, list[Any]]
    before: Mapping[str, Tensor]

    def measured(self, model: Any) -> Measured:
        """A model that is the start, or was trained from it."""
        model.eval()
        after = scored(model, self.likelihood, self.plans)
        rho = {name: after[name] - self.before[name] for name in after}
        captions = self.world.measured(model, self.likelihood.images.processor, self.n)
        return Measured(
            captions,
            float(swap_accuracy(after["w"], after["c"], after["cc"], after["cw"])),
            float(image_sensitivity(after["w"], after["cw"])),
            float(margin_gap(rho["w"] - rho["c"], rho["cc"] - rho["cw"])),
            float(chosen_drift(after["w"], self.before["w"])),
        )


@torch.no_grad()
def scored(model: Any, likelihood: Any, plans: Mapping[str, list[Any]]) -> dict[str, Tensor]:
    """(N,) log-probabilities of each branch."""
    return {
        name: torch.cat([likelihood.score(model, plan).logp_N for plan in batches])
        for name, batches in plans.items()
    }


@lru_cache(maxsize=1)
def exam_of(world: CaptionWorld, n: int) -> Exam:
    """The first `n` held-out pictures; kept, since arms of a seed follow each other."""
    from prefopt.modalities.vision_language.opening import open_images, pictured_likelihood
    from prefopt.worlds.caption.model import load

    folder = world.model_dir(progress=False)
    likelihood = pictured_likelihood(open_images(str(folder)), None, str(folder))
    plans = {}
    for name, items in crossed(world, n).items():
        encoded = [likelihood.encode(item) for item in items]
        plans[name] = [likelihood.plan(encoded[k : k + BATCH]) for k in range(0, n, BATCH)]
    return Exam(world, n, likelihood, plans, scored(load(folder)[0], likelihood, plans))


def crossed(world: CaptionWorld, n: int) -> dict[str, list[Any]]:
    """Held-out pictures and their edits, each with both exact captions, by the names of `objectives.images.BRANCHES`."""
    from prefopt.modalities.vision_language.rows import Wanted, load_pictured
    from prefopt.worlds.caption.model import prompt_messages
    from prefopt.worlds.caption.rows import answer
    from prefopt.worlds.pixels import as_png

    own, edited = world.pictures(n, "test"), world.contrasts(n, "test")
    captions, others = own.captions, edited.captions
    rows = [
        {
            "prompt": prompt_messages(),
            "image": as_png(own.images_BCHW[k]),
            "contrast_image": as_png(edited.images_BCHW[k]),
            "chosen": answer(captions[k]),
            "contrast_chosen": answer(others[k]),
        }
        for k in range(n)
    ]
    wanted = Wanted(SVCO.branches, reads_loser=SVCO.reads_loser)
    examples = load_pictured(rows, wanted=wanted).examples
    found: dict[str, list[Any]] = {name: [] for name in ("w", *SVCO.branches)}
    for example in examples:
        [edge] = example.comparisons
        for name, place in {"w": edge.first, **edge.branches}.items():
            found[name].append(example.items[place])
    return found


def train(name: str, seed: int, size: Size) -> Trained:
    """One arm's run, or the model that all start from."""
    from prefopt.worlds.caption.model import load

    world = world_of(seed, size)
    exam = exam_of(world, size.pictures)
    if name == START:
        return Trained(exam.measured(load(world.model_dir(progress=False))[0]), 0.0, {})
    with run_of((ARMS | SWEEP)[name], seed, size) as course:
        loop, began = course.loop, time.process_time()
        loop.fit(lambda: None)
        seconds = time.process_time() - began
        return Trained(exam.measured(loop.model), seconds, loop.train_metrics())


def percent(run: Trained, name: str) -> float:
    """A measure of the captions in percent; of a model that names nothing no mention is hallucinated, and none is right.

    Args:
        run: of an arm.
        name: of the measure.
    """
    value: float = getattr(run.measured.captions, name)
    return 0.0 if math.isnan(value) else 100 * value
