"""`prefopt build motion-retrieval`: a judge of texts and motions, trained on one's own data.

Legend: N motions, F frames, D features.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from prefopt.modalities.commands import errors_told

if TYPE_CHECKING:
    from torch import Tensor

    from prefopt.modalities.motion.evaluating.material import Sample

RECOGNISED = 0.7
"""Area under the curve below which nothing should be trained with a judge."""
LEARNING_RATE, OF_GIVEN_ENCODER = 1e-3, 1e-4
FRAMES, UNIT = 196, 4


class Data(NamedTuple):
    """Motions in memory."""

    captions: list[tuple[str, ...]]
    features_NFD: Tensor
    lengths_N: Tensor


@click.command("motion-retrieval")
@click.argument("data")
@click.option(
    "--output", "-o", required=True, type=click.Path(path_type=Path, file_okay=False),
    help="Folder to write; training.json in it says how good it is.",
)  # fmt: skip
@click.option("--split", default="train", show_default=True, help="Of the data.")
@click.option("--limit", type=click.IntRange(min=2), help="Take only the first so many rows.")
@click.option(
    "--held_out", "--held-out", type=click.FloatRange(0, 0.9, max_open=True), default=0.1, show_default=True,
    help="Share of the clips that it is tried on and does not learn from.",
)  # fmt: skip
@click.option(
    "--text_encoder", "--text-encoder", metavar="DIR",
    help="Text model of transformers to start from, such as distilbert-base-uncased.  [default: a new one, of the captions' words]",
)  # fmt: skip
@click.option("--steps", type=click.IntRange(min=1), default=3000, show_default=True, help="Updates.")
@click.option("--batch_size", "--batch-size", type=click.IntRange(min=2), default=128, show_default=True)
@click.option(
    "--learning_rate", "--learning-rate", type=click.FloatRange(min=0, min_open=True),
    help=f"[default: {LEARNING_RATE:g}; {OF_GIVEN_ENCODER:g} with --text_encoder]",
)  # fmt: skip
@click.option(
    "--width",
    type=click.IntRange(min=8),
    default=128,
    show_default=True,
    help="Of the encoders; a multiple of 4.",
)
@click.option(
    "--layers", type=click.IntRange(min=1), default=3, show_default=True, help="Of the motion encoder."
)
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 2), default=0, show_default=True, help="Of all that is drawn."
)
@click.option("--force", is_flag=True, help="Replace a folder that is there already.")
def motion_retrieval(data: str, output: Path, **given: Any) -> None:
    """Train a pair of encoders that says how well a motion fits a text, for `judge=retrieval:DIR`.

    DATA is a folder of HumanML3D or KIT-ML, or rows of caption and motion. All motions are kept in memory. A run is trained with one judge and
    measured by another: train the second with another --seed and --split.

    \b
        prefopt build motion-retrieval HumanML3D -o judge
        prefopt train sopo model=mdm data=HumanML3D judge=retrieval:judge
    """  # fmt: skip
    with errors_told():
        told = run(data, output, given)
    for line in spelled(told):
        click.echo(line)
    click.echo(f"wrote {output} with training.json in it")


def run(source: str, output: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Read, hold out, train, try, save; returns how good it is.

    Raises:
        OSError, ValueError: data that cannot be read, or are too few.
    """
    from prefopt.files import write_whole
    from prefopt.modalities.motion.building.saving import check_output, save
    from prefopt.modalities.motion.evaluating.material import read_material

    check_output(output, given["force"])
    if given["width"] % 4:
        raise ValueError(f"--width {given['width']}: needed a multiple of 4, for as many attention heads")
    codec = codec_of(source, given["split"])
    facts = {"codec": codec, "max_frames": FRAMES, "unit_length": UNIT}
    material = read_material(source, given["split"], given["limit"], facts)
    learn, tried = divided(material.samples, given["held_out"], given["seed"])
    model, losses = train(in_memory(learn), codec, given)
    told: dict[str, Any] = {
        "data": source,
        "split": given["split"],
        "motions": {"trained": len(learn), "held_out": len(tried), "dropped": len(material.dropped)},
        "loss": {"first": losses[0], "last": sum(losses[-20:]) / len(losses[-20:])},
        "trained": quality(model, in_memory(learn[:1000]), given["seed"]),
        "held_out": quality(model, in_memory(tried), given["seed"]) if len(tried) > 1 else {},
        "settings": {name: value for name, value in given.items() if name != "force"},
    }

    def fill(folder: Path) -> None:
        model.save_pretrained(folder)
        write_whole(folder / "training.json", json.dumps(told, indent=1) + "\n")

    save(output, fill, "the encoders")
    return told


def codec_of(source: str, split: str) -> str:
    """Name of the codec of the features of a source."""
    from prefopt.modalities.motion.rows import guess_codec
    from prefopt.sources.files import load_rows
    from prefopt.sources.motion_folders import folder_codec, is_motion_folder
    from prefopt.worlds import world_of

    if world_of(source) is not None:
        return "stick"
    path = Path(source).expanduser()
    if is_motion_folder(path):
        return str(folder_codec(path).name)
    return guess_codec(load_rows(source, split))


def divided(samples: Sequence[Sample], share: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Samples to learn from and to be tried on: parts and mirror images of one clip stay together.

    Raises:
        ValueError: fewer than two to learn from.
    """
    import numpy as np

    clips = list(dict.fromkeys(clip_of(sample) for sample in samples))
    order = np.random.default_rng([seed, 31]).permutation(len(clips))
    out = {clips[n] for n in order[: round(share * len(clips))]}
    learn = [sample for sample in samples if clip_of(sample) not in out]
    if len(learn) < 2:
        raise ValueError(
            f"{len(samples)} motions, of which {len(samples) - len(learn)} are held out: needed two or more to learn from"
        )
    return learn, [sample for sample in samples if clip_of(sample) in out]


def clip_of(sample: Sample) -> str:
    """The recording that a sample is of: HumanML3D's mirrored clips begin with M, parts end with ":LINE"."""
    return sample.id.partition(":")[0].removeprefix("M")


def in_memory(samples: Sequence[Sample]) -> Data:
    """All motions, zeros behind their ends."""
    from prefopt.modalities.motion.scorers import padded

    return Data([sample.captions for sample in samples], *padded([sample.read() for sample in samples]))


def train(data: Data, codec: str, given: dict[str, Any]) -> tuple[Any, list[float]]:
    """The trained pair, on the CPU, and the losses of its steps."""
    import torch

    from prefopt.motion.clips import MotionClip
    from prefopt.motion.codec import find_codec
    from prefopt.motion.folders import measured_stats
    from prefopt.motion.retrieval_training import train_pair
    from prefopt.worlds.pretraining import progress_bar

    encoder = tokenizer = None
    if given["text_encoder"] is not None:
        from transformers import AutoModel, AutoTokenizer

        encoder = text_model(AutoModel.from_pretrained(given["text_encoder"], dtype=torch.float32))
        tokenizer = AutoTokenizer.from_pretrained(given["text_encoder"])
    stats = measured_stats(
        (
            MotionClip(str(n), texts, x_FD, codec, 0, length)
            for n, (texts, x_FD, length) in enumerate(
                zip(data.captions, data.features_NFD, data.lengths_N.tolist(), strict=True)
            )
        ),
        find_codec(codec),
        "training motions",
    )
    losses: list[float] = []
    rate = given["learning_rate"] or (LEARNING_RATE if encoder is None else OF_GIVEN_ENCODER)
    with progress_bar("training encoders of texts and motions", given["steps"], True) as advance:

        def report(step: int, loss: float) -> None:
            losses.append(loss)
            advance(f"loss {loss:.2f}")

        model = train_pair(
            data.captions,
            data.features_NFD,
            data.lengths_N,
            stats=stats,
            text_encoder=encoder,
            tokenizer=tokenizer,
            embedding=given["width"],
            width=given["width"],
            layers=given["layers"],
            feedforward=2 * given["width"],
            steps=given["steps"],
            batch_size=given["batch_size"],
            lr=rate,
            seed=given["seed"],
            device="cuda" if torch.cuda.is_available() else "cpu",
            report=report,
        )
    return model.to("cpu"), losses


def text_model(model: Any) -> Any:
    """The part that reads texts, of a model of texts and images."""
    return getattr(model, "text_model", model)


def quality(model: Any, data: Data, seed: int) -> dict[str, Any]:
    """How surely the pair tells which caption belongs to which motion: area under the curve, R-precision, sides.

    What needs more motions, or other captions, than there are is left out.
    """
    from prefopt.metrics.retrieval import POOL, ranking
    from prefopt.modalities.motion.evaluating.measuring import Texts, side_accuracy
    from prefopt.motion.mirror import mirrored_caption
    from prefopt.motion.retrieval import separation

    captions = [texts[0] for texts in data.captions]
    found: dict[str, Any] = {"motions": len(captions)}
    if len(set(captions)) > 1:
        found["separation"] = separation(model, captions, data.features_NFD, data.lengths_N)
    motion_NE = model.encode_motions(data.features_NFD, data.lengths_N).cpu()
    known = list(dict.fromkeys([*captions, *map(mirrored_caption, captions)]))
    texts = Texts(dict(zip(known, model.encode_texts(known).cpu(), strict=True)))
    if len(captions) >= POOL:
        found["r_precision"] = ranking(texts.embed(captions), motion_NE, seed=seed).r_precision
    sides = side_accuracy(captions, texts, motion_NE)
    return found if sides is None else found | {"side_accuracy": sides}


def spelled(told: dict[str, Any]) -> list[str]:
    """How good it is, in sentences."""
    count = told["motions"]
    lines = [
        f"{count['trained']:,} motions to learn from, {count['held_out']:,} held out, {count['dropped']:,} that cannot be used; loss "
        f"{told['loss']['first']:.2f} to {told['loss']['last']:.2f}"
    ]
    for name, words in (("held_out", "held-out motions"), ("trained", "motions that it has learned")):
        found = told[name]
        parts = []
        if "separation" in found:
            parts.append(f"tells their captions from others' with AUC {found['separation']:.3f}")
        if "r_precision" in found:
            parts.append("R-precision@1 to 3 " + " ".join(f"{x:.3f}" for x in found["r_precision"]))
        if "side_accuracy" in found:
            parts.append(f"right side of {found['side_accuracy']:.0%}")
        if parts:
            lines.append(f"{words}: {', '.join(parts)}")
    surest = told["held_out"].get("separation")
    if surest is None:
        lines.append(
            "note: nothing is held out that could tell how good it is on motions that it has not seen"
        )
    elif surest < RECOGNISED:
        lines.append(
            f"note: AUC {surest:.3f} is below {RECOGNISED}: do not train with this judge. More motions or more --steps may help"
        )
    return lines
