"""`prefopt build conditions`: comparisons of conditions, made by the model that is to be trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prefopt.modalities.commands import errors_told
from prefopt.modalities.control import options

if TYPE_CHECKING:
    from prefopt.modalities.control.building import Built


@click.command("conditions")
@click.argument("data")
@click.option(
    "--model", required=True, metavar="DIR", help="ControlNet pipeline, or a base with --controlnet."
)
@click.option("--controlnet", metavar="DIR", help="ControlNet beside a base pipeline.")
@click.option(
    "--detector", required=True, metavar="NAME", help=options.DETECTORS,
)  # fmt: skip
@click.option(
    "--output", "-o", required=True, type=click.Path(path_type=Path, file_okay=False),
    help="Folder for rows.jsonl, its pictures, dropped.jsonl and build.json.",
)  # fmt: skip
@click.option("--split", default="train", show_default=True, help="Of the data.")
@click.option("--limit", type=click.IntRange(min=1), help="Take only the first so many rows.")
@options.of_drawing
@click.option(
    "--min_agreement", "--min-agreement", type=float,
    help="Leave out rows whose two conditions agree less, in [0, 1].",
)  # fmt: skip
@click.option(
    "--max_agreement", "--max-agreement", type=float,
    help="Leave out rows whose two conditions agree more. Identical ones always are.",
)  # fmt: skip
def conditions(output: Path, **given: Any) -> None:
    """Let a ControlNet draw under true conditions, and take what a detector sees in its samples as the losing ones.

    DATA holds rows of `prompt`, `image` and `condition` (or `chosen_condition`, `winner_KIND`). The same command again
    goes on where it stopped.

    \b
        prefopt build conditions data.jsonl --model runs/start/model --detector canny -o pairs
        prefopt train condition_po model=runs/start/model data=pairs/rows.jsonl
    """
    from prefopt.locking import FolderLock

    with errors_told(), FolderLock(output, "build", "give another --output"):
        built = run(output, given)
    left = "".join(f"; {n} {reason}" for reason, n in built.dropped.items())
    there = built.kept + sum(built.dropped.values()) - built.drawn
    again = f" ({there} were there already)" if built.drawn == 0 else ""
    click.echo(f"{built.path}: {built.kept} comparisons of conditions{left}{again}")


def run(output: Path, given: dict[str, Any]) -> Built:
    """Read the rows, then load detector and model, then draw."""
    from prefopt.modalities.control.building import Filter, build
    from prefopt.modalities.control.detectors import files_of, find
    from prefopt.modalities.control.rows import conditions_of

    keep = Filter(given["min_agreement"], given["max_agreement"])
    detector = find(given["detector"], device=options.device())
    found = conditions_of(given["data"], given["split"], given["limit"])
    source = (given["model"], given["controlnet"])
    options.check(*source)
    return build(
        found,
        options.artist(options.load(*source, given["seed"]), given),
        detector,
        output,
        keep=keep,
        batch_size=given["batch_size"],
        files=files_of(given["detector"]),
        provenance={
            "data": given["data"], "source": source[0], "controlnet": source[1], "rows": found.rows,
        },
    )  # fmt: skip


COMMANDS = (conditions,)
