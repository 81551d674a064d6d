"""`prefopt build motion-evaluator`: the released T2M evaluator as a folder that judges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from prefopt.modalities.commands import errors_told


@click.command("motion-evaluator")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--glove", required=True, metavar="DIR", help="Folder with our_vab_data.npy, our_vab_words.pkl, our_vab_idx.pkl."
)  # fmt: skip
@click.option(
    "--mean", required=True, metavar="FILE", help="The evaluator's own, not the data set's Mean.npy."
)
@click.option("--std", required=True, metavar="FILE", help="The evaluator's own, not the data set's Std.npy.")
@click.option(
    "--output", "-o", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder to write."
)
@click.option("--force", is_flag=True, help="Replace a folder that is there already.")
def motion_evaluator(checkpoint: Path, output: Path, **given: Any) -> None:
    """Convert the evaluator of text-to-motion papers (text_mot_match/model/finest.tar), for `--judge t2m:DIR`.

    Weights and word lists are read without running code of their files.

    \b
        prefopt build motion-evaluator t2m/text_mot_match/model/finest.tar --glove glove \\
            --mean t2m_mean.npy --std t2m_std.npy -o evaluator
        prefopt evaluate runs/mine --data HumanML3D --judge t2m:evaluator
    """
    with errors_told():
        facts = run(checkpoint, output, given)
    click.echo(
        f"{output}: reads {facts['features']} features a frame ({facts['codec']}) and {facts['words']:,} words"
    )


def run(checkpoint: Path, output: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Convert; returns what the judge reads."""
    from prefopt.modalities.motion.building.saving import check_output, save
    from prefopt.motion.converting import convert_t2m_evaluator
    from prefopt.motion.t2m_evaluator import T2MEvaluator

    check_output(output, given["force"])
    save(
        output,
        lambda folder: convert_t2m_evaluator(
            checkpoint, given["glove"], folder, mean=given["mean"], std=given["std"]
        ),
        "the evaluator",
    )
    config = T2MEvaluator.from_pretrained(str(output)).config
    return {"features": config.features, "codec": config.codec, "words": len(config.vocabulary)}
