"""`prefopt evaluate` of a control model: how closely its images follow their conditions, and how good they are."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from prefopt.modalities.commands import errors_told
from prefopt.modalities.control import options


@click.command("evaluate")
@click.argument("model")
@click.option("--controlnet", metavar="DIR", help="ControlNet beside a base pipeline, of MODEL.")
@click.option("--baseline", metavar="DIR", help="ControlNet pipeline that MODEL is compared with.")
@click.option(
    "--data", required=True, metavar="FILE|world:NAME",
    help="Rows of `prompt` and `condition`; `image`, the real one, for oracle and Frechet distance.",
)  # fmt: skip
@click.option(
    "--split", help="Of a data set or world that has splits. [default: test, validation, or the only one]"
)
@click.option(
    "--detector", required=True, metavar="NAME",
    help=f"{options.DETECTORS} Take another than trained with.",
)  # fmt: skip
@click.option(
    "--features",
    metavar="DIR|pixels",
    help="Vision model of transformers for a Frechet distance to the real images.",
)
@click.option(
    "--scorer", metavar="NAME", help="How well images fit their prompts: clip:DIR, pickscore:DIR, ..."
)
@click.option(
    "--samples", type=click.IntRange(min=1), default=1, show_default=True, help="Of each condition."
)
@click.option("--limit", type=click.IntRange(min=2), help="Take only the first so many rows.")
@options.of_drawing
@click.option(
    "--output", type=click.Path(path_type=Path, file_okay=False), default=Path("runs/evaluation"), show_default=True,
    help="Folder for evaluation.json and the samples.",
)  # fmt: skip
def evaluate(**given: Any) -> None:
    """Draw under the true conditions of rows, and measure how closely the images follow them.

    Model and baseline draw from the same noise. Samples stay in the output folder: the same command again continues.

    \b
        prefopt evaluate runs/mine/model --baseline runs/start/model --data test.jsonl --detector canny
    """
    from prefopt.locking import FolderLock

    with errors_told(), FolderLock(given["output"], "evaluation", "give another --output"):
        told = run(given)
    show(told)
    click.echo(f"wrote {given['output'] / 'evaluation.json'} and samples beside it")


COMMAND = evaluate


def run(given: dict[str, Any]) -> dict[str, Any]:
    """Data and names first, then one model after the other."""
    from prefopt.files import write_whole
    from prefopt.modalities.control import judging
    from prefopt.modalities.control.detectors import find
    from prefopt.modalities.control.drawing import Artist
    from prefopt.modalities.control.features import get_features
    from prefopt.modalities.control.rows import conditions_of
    from prefopt.modalities.image.scorers import get_scorer

    place = options.device()
    detector = find(given["detector"], device=place)
    match = None if given["scorer"] is None else get_scorer(given["scorer"], device=place)
    found = conditions_of(given["data"], given["split"], given["limit"])
    sources = {"model": (given["model"], given["controlnet"])}
    if given["baseline"] is not None:
        sources["baseline"] = (given["baseline"], None)
    for source in sources.values():
        options.check(*source)
    measures = judging.Measures(
        features=None if given["features"] is None else get_features(given["features"], place),
        match=None if match is None else match.score,
    )
    artist = options.artist(options.load(*sources["model"], given["seed"]), given)
    data = judging.usable(found.found, artist.how, found.dropped)
    if measures.features is not None and len(data.images) < 2:
        raise ValueError(
            f"--features measures the distance to real images, and {given['data']} has {len(data.images)}: add a column "
            "`image`, with two rows at least, or leave --features out"
        )
    true = judging.true_of(detector, data)
    oracle = None
    if data.images:
        oracle = judging.judged(data, true, [data.images], detector, replace(measures, features=None))
    sides: dict[str, dict[str, Any]] = {}
    for side, source in sources.items():
        if side != "model":  # one model in memory at a time, and all at the resolution of the first
            artist = Artist(options.load(*source, given["seed"]), artist.how)
        folder = given["output"] / "samples" / side
        groups = [
            judging.samples(artist, data, folder, number, given["batch_size"])
            for number in range(given["samples"])
        ]
        sides[side] = judging.judged(data, true, groups, detector, measures)
    told = {
        "settings": {
            **{k: str(v) if isinstance(v, Path) else v for k, v in given.items()},
            **asdict(artist.how),
        },
        "n": len(data.wanted),
        "dropped": [asdict(drop) for drop in data.dropped],
        **judging.summary(sides, detector, oracle),
    }
    write_whole(given["output"] / "evaluation.json", json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    return told


def show(told: dict[str, Any]) -> None:
    """A table: what is measured, of model, baseline and real images."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    sides = [side for side in ("model", "baseline", "oracle") if side in told]
    table = Table("", *("real images" if side == "oracle" else side for side in sides), title_justify="left")
    table.title = (
        f"{told['n']} conditions, {told['settings']['samples']} sample(s) each, read by {told['detector']}"
    )
    for name in told["model"]:
        if name != "agreement":
            table.add_row(name, *(f"{told[side][name]:.4f}" if name in told[side] else "" for side in sides))
    table.add_row("agreement", *(spelled(told[side]["agreement"], ".4f") for side in sides))
    console.print(table)
    if (gain := told.get("agreement_gain")) is not None:
        console.print(
            f"agreement, model minus baseline: {spelled(gain, '+.4f')} (95 % over conditions)", markup=False
        )
    if (reduced := told.get("error_rate_reduction")) is not None:
        console.print(f"error rate ({told['metric']}) reduced by {reduced:.1%}")
    if told["dropped"]:
        console.print(f"[cyan]note:[/] {len(told['dropped'])} rows left out, see evaluation.json")


def spelled(found: dict[str, float | None], form: str) -> str:
    """A mean and its interval, where there is one."""
    if found["low"] is None:
        return f"{found['mean']:{form}}"
    return f"{found['mean']:{form}} [{found['low']:{form}}, {found['high']:{form}}]"
