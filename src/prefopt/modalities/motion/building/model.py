"""`prefopt build motion-model`: a released checkpoint of MDM as a folder that can be trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from prefopt.modalities.commands import errors_told


@click.command("motion-model")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--text_encoder", "--text-encoder", required=True, metavar="DIR",
    help="The CLIP that it was trained with: a folder of openai/clip-vit-base-patch32 for the released ones.",
)  # fmt: skip
@click.option(
    "--stats", required=True, metavar="DIR", help="Folder with the data set's Mean.npy and Std.npy."
)
@click.option(
    "--output", "-o", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder to write."
)
@click.option("--force", is_flag=True, help="Replace a folder that is there already.")
def motion_model(checkpoint: Path, output: Path, **given: Any) -> None:
    """Convert a checkpoint of MDM (model000750000.pt, args.json beside it) to a text-to-motion model.

    Checkpoints of the encoder architecture with CLIP, of HumanML3D or KIT-ML. Weights are read without running code of the file.

    \b
        prefopt build motion-model humanml_trans_enc_512/model000475000.pt --text_encoder clip-vit-base-patch32 \\
            --stats HumanML3D -o mdm
    """
    with errors_told():
        facts = run(checkpoint, output, given)
    click.echo(
        f"{output}: {facts['width']} features a frame ({facts['codec']}), up to {facts['max_frames']} frames, padding "
        f"{'hidden' if facts['mask_padding'] else 'seen'}"
    )


def run(checkpoint: Path, output: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Convert; returns what the new model is."""
    from prefopt.modalities.motion.building.saving import check_output, save
    from prefopt.modalities.motion.models import facts_of
    from prefopt.motion.converting import convert_mdm

    check_output(output, given["force"])
    save(
        output,
        lambda folder: convert_mdm(
            checkpoint, folder, text_encoder=given["text_encoder"], stats=given["stats"]
        ),
        "the model",
    )
    return facts_of(str(output))
