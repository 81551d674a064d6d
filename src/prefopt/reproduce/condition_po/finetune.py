"""C3 to C5 of `prefopt reproduce condition_po`: what the same number of steps from the same model does to its pictures."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from prefopt.reproduce import plots
from prefopt.reproduce.condition_po.world import Kind, Run, Size, rows_of, samples_behind, world_of
from prefopt.reproduce.core import Claim, Part, Plot, Table, directional, everywhere
from prefopt.reproduce.paired import mean, minus

START = "start"
DIFFUSION, CONSISTENCY = "diffusion loss", "consistency reward"
SIGMOID, GATED = "condition PO (sigmoid)", "condition PO (gated)"
DPO, DPO_DIFFUSION = "image DPO", "image DPO, same loss"
DPO_FEWER = "image DPO, as many samples"
OURS, THEIRS = (SIGMOID, GATED), (DPO, DPO_DIFFUSION)

FRECHET_MARGIN = 0.05
"""A rise of the Frechet distance that would not matter, as a share of the start's."""
STYLE_MARGIN = 2.0
"""A loss of prompt accuracy that would not matter, percentage points."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A method with its settings, which are those of the specification's pilot on a world alike.

    Attributes:
        method: its name.
        options: hyper-parameters.
        kind: of the pairs that it is given.
        share: of the seed's rows.
    """

    method: str
    options: Mapping[str, Any]
    kind: Kind = "conditions"
    share: float = 1.0


BETA, LAMBDA = 200.0, 0.05
SIGMOID_FORM = {"form": "sigmoid", "beta": BETA, "diffusion_weight": LAMBDA, "diffusion_draw": "pair"}
GATED_FORM = {**SIGMOID_FORM, "form": "gated", "margin": 0.2}
VARIANTS: dict[str, Variant] = {
    DIFFUSION: Variant("sft", {}),
    CONSISTENCY: Variant("controlnet_pp", {"detector": "world:scene"}),
    SIGMOID: Variant("condition_po", SIGMOID_FORM),
    GATED: Variant("condition_po", GATED_FORM),
    DPO: Variant("diffusion_dpo", {"beta": BETA}, "images"),
    DPO_DIFFUSION: Variant("condition_po", SIGMOID_FORM, "images"),
    DPO_FEWER: Variant("diffusion_dpo", {"beta": BETA}, "images", 1 / 3),
}
SHARED: dict[str, Any] = {
    "learning_rate": 3e-4,
    "lr_scheduler_type": "constant",
    "warmup_steps": 0,
    "weight_decay": 0.01,
    "reference": "live",
}
REFERENCE_FREE = {"sft", "controlnet_pp"}


class Measured(NamedTuple):
    """What a model draws for held-out conditions."""

    miou: float
    """Of the maps that the independent detector sees, against the conditions."""
    frechet: float
    style: float
    """Share of the pictures in their prompt's style."""


class Trained(NamedTuple):
    """One run."""

    measured: Measured
    samples: int
    """Drawn to make its rows."""
    seconds: float
    """Processor time of training."""
    logs: dict[str, float]
    """Means over the run of what the method logs."""


Found = Mapping[str, Sequence[Trained]]
"""variant, or the start -> one a seed"""


def measure(pipeline: Any, seed: int, size: Size) -> Measured:
    """Draw and judge; under one seed all models start from the same noise."""
    found = world_of(size).fidelity(pipeline, size.pictures, seed=seed)
    return Measured(found.control.mean, found.frechet, found.style.mean)


def train(name: str, seed: int, size: Size) -> Trained:
    """One variant's run, or the model that all start from."""
    if name == START:
        from prefopt.worlds.scene.model import load

        return Trained(measure(load(world_of(size).model_dir(progress=False)), seed, size), 0, 0.0, {})
    variant = VARIANTS[name]
    rows = rows_of(variant.kind, seed, size)
    rows = rows[: round(variant.share * len(rows))]
    options = SHARED | dict(variant.options)
    if variant.method in REFERENCE_FREE:
        del options["reference"]
    with Run(rows, seed, size, method=variant.method, **options) as run:
        loop, began = run.course.loop, time.process_time()
        loop.fit(lambda: None)
        seconds = time.process_time() - began
        logs = loop.train_metrics()
        measured = measure(run.pipeline(), seed, size)
    needed = size.drawn(variant.kind) if variant.method not in REFERENCE_FREE else 0
    return Trained(measured, samples_behind(rows, needed), seconds, logs)


def mious(by_seed: Sequence[Trained]) -> list[float]:
    """In points of 100."""
    return [100 * run.measured.miou for run in by_seed]


def frechets(by_seed: Sequence[Trained]) -> list[float]:
    """One a seed."""
    return [run.measured.frechet for run in by_seed]


def styles(by_seed: Sequence[Trained]) -> list[float]:
    """In percent."""
    return [100 * run.measured.style for run in by_seed]


def claims(found: Found) -> list[Claim]:
    """C3 against the same conditions without pairs, C4 against pairs of images, C5 against the start."""

    def more_control(ours: str, theirs: str, statement: str, source: str) -> Claim:
        return directional(
            statement,
            minus(mious(found[ours]), mious(found[theirs])),
            source=source,
            how=f"mIoU of held-out conditions by the independent detector, {ours} - {theirs}",
            unit="points",
        )

    conditions, fewer = (mean([run.samples for run in found[name]]) for name in (SIGMOID, DPO_FEWER))
    images = mean([run.samples for run in found[DPO]])
    table = "main table: 44.8 against 43.6 mIoU (ADE20K)"
    return [
        more_control(
            CONSISTENCY, DIFFUSION, "C3: continued consistency follows conditions better than the continued diffusion loss",
            "main table: 43.6 against 32.6 mIoU (ADE20K)",
        ),
        *(more_control(ours, CONSISTENCY, f"C3: {ours} follows conditions better than continued consistency", table) for ours in OURS),
        *(more_control(ours, START, f"C3: {ours} follows conditions better than the start", table) for ours in OURS),
        *(
            more_control(
                ours, DPO, f"C4: {ours} beats image DPO at equal steps, with {conditions:.0f} samples against {images:.0f}",
                "abstract: image pairs are confounded",
            )
            for ours in OURS
        ),
        *(
            more_control(
                ours, DPO_FEWER, f"C4: {ours} beats image DPO at equal steps and samples ({conditions:.0f} and {fewer:.0f})",
                "figures: one image a condition, not 20",
            )
            for ours in OURS
        ),
        *(
            everywhere(
                f"C4: {ours} draws pictures nearer to real ones than image DPO",
                {name: minus(frechets(found[name]), frechets(found[ours])) for name in THEIRS},
                source="abstract: image pairs are confounded",
                how=f"Frechet distance of pooled pixels, image DPO - {ours}",
            )
            for ours in OURS
        ),
        *(
            directional(
                f"C5: {ours} does not raise the Frechet distance of the start by {FRECHET_MARGIN:.0%}",
                minus([(1 + FRECHET_MARGIN) * d for d in frechets(found[START])], frechets(found[ours])),
                source="FID table",
                how=f"Frechet distance of pooled pixels, {1 + FRECHET_MARGIN:g} times the start's - {ours}",
            )
            for ours in OURS
        ),
        *(
            directional(
                f"C5: {ours} does not lower the prompt accuracy of the start by {STYLE_MARGIN:g} points",
                [d + STYLE_MARGIN for d in minus(styles(found[ours]), styles(found[START]))],
                source="CLIP score table",
                how=f"share of pictures in their prompt's style, {ours} - start, + {STYLE_MARGIN:g}",
                unit="percentage points",
            )
            for ours in OURS
        ),
    ]  # fmt: skip


def experiment(found: Found) -> Part:
    """Claims, numbers and figure."""

    def logged(by_seed: Sequence[Trained], key: str) -> str | float:
        return mean([run.logs[key] for run in by_seed]) if key in by_seed[0].logs else ""

    def spread(values: Sequence[float]) -> str:
        middle, half = plots.centre(values)
        return f"{middle:.2f} +- {half:.2f}"

    rows: list[list[str | float]] = [
        [
            name,
            spread(mious(by_seed)),
            spread(frechets(by_seed)),
            spread(styles(by_seed)),
            round(mean([run.samples for run in by_seed])),
            mean([run.seconds for run in by_seed]),
            logged(by_seed, "condition_po/gate_open"),
            logged(by_seed, "condition_po/weight"),
        ]
        for name, by_seed in found.items()
    ]
    return Part(
        claims=claims(found),
        tables=[
            Table(
                f"C3 to C5: after the same steps, means of {len(found[START])} seeds with 95 % intervals",
                [
                    "trained by",
                    "mIoU (points)",
                    "Frechet distance",
                    "prompt accuracy (%)",
                    "samples drawn for its rows",
                    "processor seconds",
                    "gates open (share)",
                    "weight w",
                ],
                rows,
            )
        ],
        plots=[plane(found)],
        settings={
            "C3-C5": {
                **{key: value for key, value in SHARED.items() if key != "reference"},
                "variants": {name: asdict(variant) for name, variant in VARIANTS.items()},
                "frechet_margin": FRECHET_MARGIN,
                "style_margin": STYLE_MARGIN,
            }
        },
    )


@plots.styled
def plane(found: Found) -> Plot:
    """Fidelity against quality: better is up and to the left."""
    figure, (ax,) = plots.panels(1, width=8.4, height=4.8)
    colours = [
        plots.INK,
        plots.QUIET,
        plots.ORANGE,
        plots.BLUE,
        plots.SKY,
        plots.VERMILION,
        plots.PURPLE,
        plots.GREEN,
    ]
    for (name, by_seed), colour, marker in zip(found.items(), colours, "*Xvo^sDP", strict=True):
        (x, dx), (y, dy) = plots.centre(frechets(by_seed)), plots.centre(mious(by_seed))
        ax.errorbar(x, y, xerr=dx, yerr=dy, fmt="none", ecolor=colour, elinewidth=1.2, alpha=0.6)
        ax.plot(
            x, y, marker, color=colour, label=name, markeredgecolor="white", linestyle="none",
            markersize=14 if name == START else 10,
        )  # fmt: skip
    ax.set_xlabel("Frechet distance to real pictures (less is better)")
    ax.set_ylabel("mIoU with the condition (points)")
    ax.set_title("Control against quality")
    figure.legend(loc="outside right center")
    return Plot(
        "condition_po_quality",
        "C3 to C5: mIoU by the independent detector against Frechet distance after the same number of steps; "
        f"means of {len(found[START])} seeds with 95 % intervals",
        figure,
    )
