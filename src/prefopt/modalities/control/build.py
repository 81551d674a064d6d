"""`prefopt build conditions`: comparisons of conditions, made by the model that is to be trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.command("conditions")
@click.argument("data")
@click.option(
    "--model", required=True, metavar="DIR", help="ControlNet pipeline, or a base with --controlnet."
)
@click.option("--controlnet", metavar="DIR", help="ControlNet beside a base pipeline.")
@click.option(
    "--detector", required=True, metavar="NAME",
    help="What reads conditions from images: canny, segmentation:DIR, depth:DIR, pose:DETECTOR:DIR, world:NAME, FILE.py:NAME.",
)  # fmt: skip
@click.option(
    "--output", "-o", required=True, type=click.Path(path_type=Path, file_okay=False),
    help="Folder for rows.jsonl, its pictures, dropped.jsonl and build.json.",
)  # fmt: skip
@click.option("--split", default="train", show_default=True, help="Of the data.")
@click.option("--limit", type=click.IntRange(min=1), help="Take only the first so many rows.")
@click.option(
    "--num_inference_steps", "--num-inference-steps", type=click.IntRange(min=1), default=20, show_default=True,
    help="Reverse steps of a sample.",
)  # fmt: skip
@click.option(
    "--guidance_scale", "--guidance-scale", type=click.FloatRange(min=1), default=7.5, show_default=True
)
@click.option("--resolution", type=click.IntRange(min=8), help="[default: what the model was made for]")
@click.option(
    "--crop",
    type=click.Choice(["center", "none"]),
    default="center",
    show_default=True,
    help="As in training.",
)
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of the samples."
)
@click.option(
    "--batch_size", "--batch-size", type=click.IntRange(min=1), default=8, show_default=True,
    help="Samples at a time.",
)  # fmt: skip
@click.option(
    "--min_agreement", "--min-agreement", type=float,
    help="Leave out rows whose two conditions agree less, in [0, 1].",
)  # fmt: skip
@click.option(
    "--max_agreement", "--max-agreement", type=float,
    help="Leave out rows whose two conditions agree more. Identical ones always are.",
)  # fmt: skip
def conditions(data: str, model: str, controlnet: str | None, output: Path, **options: Any) -> None:
    """Let a ControlNet draw under true conditions, and take what a detector sees in its samples as the losing ones.

    DATA holds rows of `prompt`, `image` and `condition` (or `chosen_condition`, `winner_KIND`). The same command again
    goes on where it stopped.

    \b
        prefopt build conditions data.jsonl --model runs/start/model --detector canny -o pairs
        prefopt train condition_po model=runs/start/model data=pairs/rows.jsonl
    """
    import os

    from prefopt.locking import FolderLock

    try:
        with FolderLock(output, "build", "give another --output"):
            built = run(data, model, controlnet, output, options)
    except (ValueError, OSError) as error:
        if "PREFOPT_DEBUG" in os.environ:
            raise
        raise click.ClickException(str(error)) from error
    left = "".join(f"; {n} {reason}" for reason, n in built.dropped.items())
    there = built.kept + sum(built.dropped.values()) - built.drawn
    again = f" ({there} were there already)" if built.drawn == 0 else ""
    click.echo(f"{built.path}: {built.kept} comparisons of conditions{left}{again}")


def run(data: str, model: str, controlnet: str | None, output: Path, options: dict[str, Any]) -> Any:
    """Read the rows, then load detector and model, then draw."""
    from prefopt.modalities.control.building import Filter, build
    from prefopt.modalities.control.detectors import files_of, find
    from prefopt.modalities.control.drawing import Artist, Drawing
    from prefopt.modalities.control.models import families, load_control
    from prefopt.modalities.control.rows import conditions_of
    from prefopt.modalities.image.models.pipelines import check_pipeline_source
    from prefopt.modalities.models import folder_of

    keep = Filter(options["min_agreement"], options["max_agreement"])
    detector = find(options["detector"], device=device())
    found = conditions_of(data, options["split"], options["limit"])
    source = folder_of(model)
    check_pipeline_source(source, families(controlnet))
    loaded = load_control(source, controlnet=controlnet, seed=options["seed"], trainable=False)
    loaded.to(device())
    drawing = Drawing(
        resolution=options["resolution"] or loaded.image_size,
        crop=options["crop"],
        num_inference_steps=options["num_inference_steps"],
        guidance_scale=options["guidance_scale"],
        seed=options["seed"],
    )
    return build(
        found,
        Artist(loaded, drawing),
        detector,
        output,
        keep=keep,
        batch_size=options["batch_size"],
        files=files_of(options["detector"]),
        provenance={"data": data, "source": model, "controlnet": controlnet, "rows": found.report["rows"]},
    )


def device() -> str:
    """Where models work here."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


COMMANDS = (conditions,)
