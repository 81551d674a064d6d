"""`prefopt build contrast` and `prefopt build symmetric-pairs`: rows of two pictures and their answers.

Builders of videos are in `video/build.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prefopt.modalities.commands import errors_told
from prefopt.modalities.vision_language.video import build as video

if TYPE_CHECKING:
    from prefopt.modalities.vision_language.building.album import Album
    from prefopt.modalities.vision_language.building.answers import Writers
    from prefopt.modalities.vision_language.building.making import Built
    from prefopt.modalities.vision_language.building.modes import Found
    from prefopt.modalities.vision_language.building.seeds import Seeds

MODES = ("similar", "edit", "black", "crop", "noise", "shuffle", "mask")
PIXELS = ("black", "crop", "noise", "mask")
WRITING = ("captioner", "answerer", "rewriter")
OF_WRITING = ("samples", "temperature", "max_new_tokens", "prompts")
BELONGS = {
    "embedder": ("similar",), "max_similarity": ("similar",), "min_similarity": ("similar",), "edit": ("edit",), "answer": PIXELS,
}  # fmt: skip
"""Options that mean something under some modes alone."""
SPEC = "A model's folder, or openai:MODEL@URL of a server that takes images."


@click.command("contrast")
@click.argument("data")
@click.option(
    "--output", "-o", required=True, type=click.Path(path_type=Path, file_okay=False),
    help="Folder for rows.jsonl, its pictures, dropped.jsonl and build.json.",
)  # fmt: skip
@click.option("--mode", required=True, type=click.Choice(MODES), help="What contrasts with a row's picture.")
@click.option("--split", default="train", show_default=True, help="Of the data.")
@click.option("--limit", type=click.IntRange(min=1), help="Take only the first so many rows.")
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 2), default=0, show_default=True, help="Of all that is drawn."
)
@click.option(
    "--embedder", metavar="DIR|FILE.py:NAME",
    help="similar: a vision model (CLIP, SigLIP, DINOv2), or a function of Pillow images that returns an array.",
)  # fmt: skip
@click.option(
    "--max_similarity", "--max-similarity", type=click.FloatRange(-1, 1),
    help="similar: closer pictures are taken for copies.  [default: 0.98]",
)  # fmt: skip
@click.option(
    "--min_similarity", "--min-similarity", type=click.FloatRange(-1, 1),
    help="similar: farther pictures are not taken.  [default: 0.5]",
)  # fmt: skip
@click.option(
    "--edit", metavar="FILE.py:NAME",
    help="edit: a function of (Pillow image, row) that returns (Pillow image, answer or None).",
)  # fmt: skip
@click.option(
    "--answer", metavar="TEXT", help="black, crop, noise, mask: the right answer to such a picture."
)
@click.option("--captioner", metavar="SPEC", help=f"Writes a caption of each picture. {SPEC}")
@click.option("--answerer", metavar="SPEC", help="Draws candidate answers: the model that is to be trained.")
@click.option(
    "--rewriter", metavar="SPEC", help="Sorts claims by the caption, and writes answers. Sees no picture."
)
@click.option("--samples", type=click.IntRange(min=1), help="Candidate answers of a prompt.  [default: 10]")
@click.option("--temperature", type=click.FloatRange(min=0), help="Of candidate answers.  [default: 0.7]")
@click.option(
    "--max_new_tokens",
    "--max-new-tokens",
    type=click.IntRange(min=1),
    help="Of an answer or caption.  [default: 512]",
)
@click.option(
    "--prompts", type=click.Path(path_type=Path, file_okay=False),
    help="Folder with templates of your own: caption.jinja, claims.jinja, compose.jinja.",
)  # fmt: skip
@click.option(
    "--batch_size", "--batch-size", type=click.IntRange(min=1), default=8, show_default=True,
    help="Pictures or answers at once.",
)  # fmt: skip
def contrast(output: Path, **given: Any) -> None:
    """Give each row a contrasting picture, and the answer that is right for it.

    DATA holds rows of `prompt` and `images` (or `image`), with or without `chosen` and `rejected`. Rows that end up without
    `contrast_chosen` are left out. The same command again goes on where it stopped. Nothing is sent anywhere but to servers
    that an option names.

    \b
        prefopt build contrast data.jsonl --mode similar --embedder clip-vit-large -o pairs
        prefopt train symmpo model=llava data=pairs/rows.jsonl
    """
    from prefopt.locking import FolderLock

    with errors_told():
        check(given)
        with FolderLock(output, "build", "give another --output"):
            built = run(output, given)
    left = "".join(f"; {n} {reason}" for reason, n in built.dropped.items())
    click.echo(f"{built.path}: {built.kept} rows with a contrast{left}")
    if built.answers:
        steps = ", ".join(f"{step} {n['asked']} of {n['needed']}" for step, n in built.answers.items())
        click.echo(f"asked for now: {steps}")
    if built.without_rejected:
        click.echo(
            f"{built.without_rejected} rows have no rejected answer: train with an objective that needs none "
            "(symmpo with response_weight=0), or have one written"
        )


def check(given: dict[str, Any]) -> None:
    """Refuse options that mean nothing together.

    Raises:
        ValueError: there are some.
    """
    mode = given["mode"]
    for name, modes in BELONGS.items():
        if given[name] is not None and mode not in modes:
            raise ValueError(f"--{name} means nothing with --mode {mode}: it is for {', '.join(modes)}")
    for name in ("embedder", "edit"):
        if mode in BELONGS[name] and given[name] is None:
            raise ValueError(f"--mode {mode} needs --{name}: see `prefopt build contrast --help`")
    most, least = bounds(given)
    if least > most:
        raise ValueError(f"min_similarity is {least:g} and max_similarity {most:g}: nothing lies between")
    if given["answer"] is not None and not given["answer"].strip():
        raise ValueError("--answer is empty: give the answer that is right for a picture that shows nothing")
    writing = [name for name in WRITING if given[name] is not None]
    if writing and len(writing) < len(WRITING):
        lacking = [f"--{name}" for name in WRITING if given[name] is None]
        raise ValueError(
            f"--{writing[0]} needs {' and '.join(lacking)} too: answers are written by all three, or not at all"
        )
    if not writing and (alone := [name for name in OF_WRITING if given[name] is not None]):
        raise ValueError(f"--{alone[0]} means nothing without --captioner, --answerer and --rewriter")


def bounds(given: dict[str, Any]) -> tuple[float, float]:
    """Largest and smallest similarity."""
    from prefopt.modalities.vision_language.building.modes import MAX_SIMILARITY, MIN_SIMILARITY

    most, least = given["max_similarity"], given["min_similarity"]
    return MAX_SIMILARITY if most is None else most, MIN_SIMILARITY if least is None else least


def run(output: Path, given: dict[str, Any]) -> Built:
    """Read the rows, look at the models, then make pictures and answers."""
    from prefopt.modalities.vision_language.building.album import Album
    from prefopt.modalities.vision_language.building.making import build
    from prefopt.modalities.vision_language.building.seeds import load_seeds

    writers = writers_of(output, given)
    if writers is not None:
        writers.check()
    seeds = load_seeds(given["data"], given["split"], given["limit"])
    output.mkdir(parents=True, exist_ok=True)
    album = Album(output)
    contrasts = contrasts_of(seeds, album, given)
    return build(
        seeds,
        contrasts,
        album,
        given["mode"],
        answer=given["answer"],
        writers=writers,
        provenance={name: value for name, value in given.items() if value is not None},
    )


def contrasts_of(seeds: Seeds, album: Album, given: dict[str, Any]) -> Found:
    """A contrast for each row, as the mode has it."""
    from prefopt.modalities.vision_language.building import modes
    from prefopt.modalities.vision_language.building.embedders import Embedder

    mode = given["mode"]
    if mode == "similar":
        most, least = bounds(given)
        return modes.similar(
            seeds.found, Embedder(given["embedder"], given["batch_size"]), most=most, least=least
        )
    if mode == "shuffle":
        return modes.shuffled(seeds.found, given["seed"])
    if mode == "edit":
        return modes.edited(seeds.found, given["edit"], album, album.folder / "edits.journal.jsonl")
    return modes.pixels(seeds.found, mode, given["seed"], album)


def writers_of(output: Path, given: dict[str, Any]) -> Writers | None:
    """Who writes answers; None where nobody is named."""
    if given["rewriter"] is None:
        return None
    from prefopt.modalities.vision_language.building.answers import Writers
    from prefopt.modalities.vision_language.building.wording import wording
    from prefopt.modalities.vision_language.generating import Speaker

    def speaker(name: str) -> Speaker:
        return Speaker(given[name], name, given["batch_size"], texts=name == "rewriter")

    more = {name: given[name] for name in OF_WRITING if name != "prompts" and given[name] is not None}
    captioner, answerer, rewriter = map(speaker, WRITING)
    words = wording(given["prompts"])
    return Writers(captioner, answerer, rewriter, words, output, seed=given["seed"], **more)


@click.command("symmetric-pairs")
@click.argument("rows")
@click.option(
    "--output",
    "-o",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="JSON lines to write.",
)
@click.option("--split", default="train", show_default=True, help="Of the rows.")
@click.option("--force", is_flag=True, help="Overwrite the output.")
def symmetric_pairs(rows: str, output: Path, split: str, force: bool) -> None:
    """Split rows of two pictures into plain pairs, two a row, for trainers that know one image a pair.

    ROWS hold `images`, `contrast_images`, `chosen` and `contrast_chosen`, as `prefopt build contrast` writes them. DPO on the
    result is the pair term of SymMPO; TRL reads it.

    \b
        prefopt build symmetric-pairs pairs/rows.jsonl -o split.jsonl
    """
    from prefopt.modalities.vision_language.building import symmetric

    with errors_told():
        if output.exists() and not force:
            raise ValueError(f"{output} is there already; give --force to overwrite it, or another name")
        if output.suffix != ".jsonl":
            raise ValueError(f"{output}: pairs are written as JSON lines; let the name end in .jsonl")
        count, dropped = symmetric.symmetric_pairs(rows, output, split)
    from collections import Counter

    left = "".join(f"; {n} {reason}" for reason, n in Counter(drop.reason for drop in dropped).items())
    click.echo(f"{output}: {2 * count} pairs of {count} rows{left}")


COMMANDS = (contrast, symmetric_pairs, *video.COMMANDS)
