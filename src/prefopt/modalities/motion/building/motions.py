"""`prefopt build motions`: what a text-to-motion model makes of texts, as files for other programs and as rows.

Legend: F frames, J joints, D features.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from prefopt.modalities.commands import errors_told

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

FORMATS = ("bvh", "npy", "gif", "webp")
INDEX = "motions.jsonl"
LONGEST_NAME = 40


class Wanted(NamedTuple):
    """One motion to draw."""

    prompt: str
    name: str
    seed: int


@click.command("motions")
@click.argument("model")
@click.option(
    "--output", "-o", required=True, type=click.Path(path_type=Path, file_okay=False), help=f"Folder for the files and {INDEX}."
)  # fmt: skip
@click.option("--text", multiple=True, metavar="TEXT", help="What is to be done; may be given again.")
@click.option("--texts", metavar="FILE", help="More texts: a .txt file with one a line, or rows with prompt, caption or text.")  # fmt: skip
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="Of each motion.  [default: the model's longest]")  # fmt: skip
@click.option("--samples", type=click.IntRange(min=1), default=1, show_default=True, help="Motions a text.")
@click.option(
    "--format", "formats", default="bvh", show_default=True, metavar="LIST",
    help="Of the files, by commas: bvh, npy (positions; features are always written), gif, webp.",
)  # fmt: skip
@click.option("--num_inference_steps", "--num-inference-steps", type=click.IntRange(min=1), help="[default: the model's train timesteps]")  # fmt: skip
@click.option("--guidance_scale", "--guidance-scale", type=click.FloatRange(min=1), default=2.5, show_default=True)  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**32 - 2), default=0, show_default=True, help="Of the samples.")  # fmt: skip
@click.option("--batch_size", "--batch-size", type=click.IntRange(min=1), default=64, show_default=True, help="Motions at a time.")  # fmt: skip
@click.option("--force", is_flag=True, help=f"Write over an {INDEX} that is there already.")
def motions(output: Path, **given: Any) -> None:
    """Let a model move, and write what it does as files that other programs open.

    MODEL is a folder of a text-to-motion model, the folder of a run, or world:motion. A text's noise depends on the text, --seed and the
    number of the sample alone: two models can be compared motion by motion. The rows of motions.jsonl have `prompt` and `motion`, which
    `prefopt check` and `prefopt train` read.

    \b
        prefopt build motions runs/sopo --text "a person waves" --seconds 4 --format bvh,gif -o moves
    """  # fmt: skip
    from prefopt.locking import FolderLock

    with errors_told(), FolderLock(output, "build", "give another --output"):
        rows = run(output, given)
    worst = max((row["bvh_error"] for row in rows if row["bvh_error"] is not None), default=None)
    click.echo(f"{output / INDEX}: {len(rows)} motions")
    if worst is not None:
        click.echo(
            f"bvh: bones keep one length there, which those of samples need not: joints moved by {1000 * worst:.1f} mm at most"
        )


def run(output: Path, given: dict[str, Any]) -> list[dict[str, Any]]:
    """Read texts, then load the model, then draw and write; returns the rows of the index."""
    from prefopt.files import write_lines, writing

    formats = formats_of(given["formats"])
    texts = texts_of(given["text"], given["texts"])
    if (output / INDEX).exists() and not given["force"]:
        raise ValueError(
            f"{output / INDEX} is there already; give --force to write over it, or another --output"
        )
    pipe = load(given["model"])
    frames = frames_of(given["seconds"], pipe)
    check_steps(given["num_inference_steps"], pipe)
    wanted = [
        Wanted(prompt, name_of(n * given["samples"] + k, prompt), seed_of(given["seed"], prompt, k))
        for n, prompt in enumerate(texts)
        for k in range(given["samples"])
    ]
    with writing(INDEX, output):
        output.mkdir(parents=True, exist_ok=True)
    rows = []
    size = given["batch_size"]
    for start in range(0, len(wanted), size):
        some = wanted[start : start + size]
        drawn = pipe(
            [one.prompt for one in some],
            [frames] * len(some),
            num_inference_steps=given["num_inference_steps"],
            guidance_scale=given["guidance_scale"],
            seeds=[one.seed for one in some],
            batch_size=size,
        )
        for one, features_FD in zip(some, drawn.features, strict=True):
            rows.append(write(output, one, features_FD, drawn.codec, drawn.fps, formats))
    write_lines(output / INDEX, rows)
    return rows


def write(
    output: Path, one: Wanted, features_FD: Tensor, codec: Any, fps: float, formats: tuple[str, ...]
) -> dict[str, Any]:
    """The files of one motion; returns its row.

    Raises:
        ValueError: a motion that is not finite.
    """
    from prefopt.files import write_whole, writing
    from prefopt.motion.drawing import animate

    if not bool(features_FD.isfinite().all()):
        raise ValueError(
            f"the motion of {one.prompt!r} is not finite: the model has diverged, or needs float32 where it has half precision"
        )
    positions_FJ3 = codec.positions(features_FD)
    files = {"motion": f"{one.name}.npy"}
    write_whole(output / files["motion"], as_npy(features_FD.numpy()))
    error = None
    for kind in formats:
        files[kind] = f"{one.name}.positions.npy" if kind == "npy" else f"{one.name}.{kind}"
        path = output / files[kind]
        if kind == "npy":
            write_whole(path, as_npy(positions_FJ3.float().numpy()))
        elif kind == "bvh":
            from prefopt.motion.bvh_writing import write_bvh

            error = write_bvh(path, positions_FJ3, codec.skeleton, fps)
        else:
            with writing(path.name, output):
                animate(positions_FJ3, codec.skeleton, fps, path)
    facts = {"id": one.name, "prompt": one.prompt, **files}
    return facts | {
        "frames": len(features_FD),
        "fps": fps,
        "codec": codec.name,
        "seed": one.seed,
        "bvh_error": error,
    }


# -- what is asked for ---------------------------------------------------------------------------------------


def formats_of(given: str) -> tuple[str, ...]:
    """The formats of a list.

    Raises:
        ValueError: one that is not known, or none.
    """
    found = tuple(dict.fromkeys(part.strip().lower() for part in given.split(",") if part.strip()))
    unknown = [part for part in found if part not in FORMATS]
    if unknown or not found:
        raise ValueError(
            f"--format {given!r}: {', '.join(unknown) or 'nothing'} is not known; needed some of {', '.join(FORMATS)}"
        )
    return found


def texts_of(given: tuple[str, ...], file: str | None) -> list[str]:
    """The texts, each once, in order.

    Raises:
        ValueError: none, an empty one, or a file without a column of texts.
        OSError: the file cannot be read.
    """
    texts = list(given)
    if file is not None:
        from prefopt.modalities.motion.rows import PROMPT, condition_of
        from prefopt.sources.files import load_rows

        rows = load_rows(file, lines="prompt")
        column = next((name for name in PROMPT if name in rows.columns), None)
        if column is None:
            raise ValueError(
                f"{file} has the columns {', '.join(rows.columns)}; needed texts under one of {', '.join(PROMPT)}"
            )
        for number, row in rows:
            try:
                texts.append(str(condition_of(row, column)["prompt"]))
            except ValueError as error:
                raise ValueError(f"{file}, row {number}: {error}") from error
    texts = list(dict.fromkeys(text.strip() for text in texts))
    if not texts or not all(texts):
        raise ValueError(
            f"{'an empty text' if texts else 'no text'} was given: needed --text TEXT or --texts FILE"
        )
    return texts


def load(model: str) -> Any:
    """The pipeline of a folder, a run or a world, on its device.

    Raises:
        OSError, ValueError: there is none.
    """
    import torch

    from prefopt.modalities.models import folder_of
    from prefopt.modalities.motion import trained
    from prefopt.modalities.motion.models import INDEX as PIPELINE
    from prefopt.modalities.motion.models import load_motion_model

    folder = Path(model).expanduser()
    if (folder / "config.yaml").is_file() and (folder / "model").is_dir():
        pipe = trained.load(folder)
    elif (
        folder.name == "model"
        and not (folder / PIPELINE).is_file()
        and (folder.parent / "config.yaml").is_file()
    ):
        pipe = trained.load(folder.parent)  # adapters, whose base the run's configuration names
    else:
        pipe = load_motion_model(folder_of(model), trainable=False).pipe
    pipe.set_progress_bar_config(disable=True)
    return pipe.to("cuda" if torch.cuda.is_available() else "cpu")


def frames_of(seconds: float | None, pipe: Any) -> int:
    """Frames of a motion, in the model's units.

    Raises:
        ValueError: longer or shorter than the model draws.
    """
    unit, fps = int(pipe.config.unit_length), float(pipe.stats.fps)
    if seconds is None:
        return int(pipe.max_frames) // unit * unit
    frames = round(seconds * fps / unit) * unit
    if not 0 < frames <= pipe.max_frames:
        raise ValueError(
            f"--seconds {seconds:g} is {seconds * fps:.0f} frames at {fps:g} a second; the model draws {unit / fps:.2g} to "
            f"{pipe.max_frames / fps:.3g} seconds"
        )
    return frames


def check_steps(steps: int | None, pipe: Any) -> None:
    """Raise ValueError for more reverse steps than the model has."""
    most = int(pipe.scheduler.config.num_train_timesteps)
    if steps is not None and steps > most:
        raise ValueError(
            f"--num_inference_steps {steps}; the model was trained with {most} steps: give as many or fewer"
        )


def name_of(number: int, prompt: str) -> str:
    """A file's name: a number that sorts, and the first words."""
    words = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:LONGEST_NAME].strip("-")
    return f"{number:04d}" + (f"-{words}" if words else "")


def seed_of(seed: int, prompt: str, sample: int) -> int:
    """Of the noise of one motion."""
    from prefopt.worlds import base

    return base.seed_of(f"build motions {seed} {sample} {prompt}")


def as_npy(array: np.ndarray) -> bytes:
    """The content of a .npy file."""
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()
