"""`prefopt evaluate` of a text-to-motion model: how well motions follow their texts, how real they are, how they vary."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prefopt.modalities.commands import errors_told

if TYPE_CHECKING:
    from prefopt.modalities.motion.evaluating.material import Material

REPETITIONS, WITH_MULTIMODALITY = 20, 5
SURE = 0.9
"""Share of sides that a judge must tell of true motions, or what it says of sides means nothing."""


@click.command("evaluate")
@click.argument("model")
@click.option("--baseline", metavar="MODEL", help="What MODEL is compared with, from the same noise.")
@click.option(
    "--data", required=True, metavar="DIR|FILE|world:motion",
    help="True motions and captions: a folder of HumanML3D or KIT-ML, rows, or a world.",
)  # fmt: skip
@click.option("--split", help="[default: test where there is one, else the one to judge by]")
@click.option(
    "--judge", metavar="NAME",
    help="t2m:DIR, retrieval:DIR, world:motion:evaluator: another than trained with. [default: a world's evaluator]",
)  # fmt: skip
@click.option(
    "--samples", type=click.IntRange(min=32), default=1000, show_default=True,
    help="Motions a repetition; all of a smaller split.",
)  # fmt: skip
@click.option(
    "--repetitions", type=click.IntRange(min=1),
    help=f"[default: {REPETITIONS}; {WITH_MULTIMODALITY} with --multimodality]",
)  # fmt: skip
@click.option("--multimodality", is_flag=True, help="Draw 30 motions of each of 100 texts besides.")
@click.option("--limit", type=click.IntRange(min=32), help="Take only the first so many rows.")
@click.option(
    "--num_inference_steps", "--num-inference-steps", type=click.IntRange(min=1),
    help="Reverse steps. [default: as many as the model was trained with]",
)  # fmt: skip
@click.option(
    "--guidance_scale", "--guidance-scale", type=click.FloatRange(min=1), default=2.5, show_default=True
)
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 2), default=0, show_default=True, help="Of all that is drawn."
)
@click.option(
    "--batch_size",
    "--batch-size",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Motions at a time.",
)
@click.option(
    "--output", type=click.Path(path_type=Path, file_okay=False), default=Path("runs/evaluation"), show_default=True,
    help="Folder for evaluation.json, samples.jsonl and the journal.",
)  # fmt: skip
def evaluate(**given: Any) -> None:
    """Draw motions for the captions of a test set, and measure them as papers do, beside the true motions.

    MODEL and --baseline are folders of text-to-motion models or of runs, or world:motion. Motions have the lengths of the true ones.
    Repetitions stay in the output folder: the same command again continues.

    \b
        prefopt evaluate runs/mine --baseline base --data HumanML3D --judge t2m:evaluator
    """
    from rich.console import Console

    from prefopt.locking import FolderLock
    from prefopt.modalities.motion.evaluating.summary import table

    with errors_told(), FolderLock(given["output"], "evaluation", "give another --output"):
        told = run(given)
    console = Console(highlight=False)
    console.print(table(told))
    for note in told["notes"]:
        console.print("[cyan]note:[/] ", end="")
        console.print(note, markup=False, soft_wrap=True)
    click.echo(f"wrote {given['output'] / 'evaluation.json'} and samples.jsonl beside it")


COMMAND = evaluate


def run(given: dict[str, Any]) -> dict[str, Any]:
    """Judge, models and data first, the true motions next, then repetition after repetition."""
    import torch

    from prefopt.files import write_lines, write_whole
    from prefopt.generation.journal import Journal
    from prefopt.modalities.motion.building.motions import load
    from prefopt.modalities.motion.evaluating import measuring, summary
    from prefopt.modalities.motion.evaluating.judges import check_judge, get_judge
    from prefopt.modalities.motion.evaluating.material import read_material
    from prefopt.modalities.motion.evaluating.repeating import Evaluation, How, identity, repeat

    spec = given["judge"] or (f"{given['data']}:evaluator" if given["data"].startswith("world:") else None)
    if spec is None:
        raise ValueError(
            "--judge is needed for data that are no world: t2m:DIR (a converted T2M evaluator) or retrieval:DIR (`prefopt build "
            "motion-retrieval` trains one)"
        )
    judge = get_judge(spec, "cuda" if torch.cuda.is_available() else "cpu")
    pipes = {"model": load(given["model"])}
    pipe = pipes["model"]
    check_judge(judge, pipe.stats.codec)
    facts = {
        "codec": pipe.stats.codec,
        "max_frames": pipe.max_frames,
        "unit_length": int(pipe.config.unit_length),
    }
    material = read_material(given["data"], given["split"], given["limit"], facts)
    material = material.tagged_only() if judge.reads_tags else material
    check_number(material)
    if given["baseline"] is not None:
        pipes["baseline"] = load(given["baseline"])
        check_baseline(pipes["baseline"], pipe, material)
    how = How(
        samples=given["samples"],
        repetitions=given["repetitions"] or (WITH_MULTIMODALITY if given["multimodality"] else REPETITIONS),
        multimodality=given["multimodality"],
        num_inference_steps=given["num_inference_steps"],
        guidance_scale=given["guidance_scale"],
        seed=given["seed"],
        batch_size=given["batch_size"],
    )
    texts = measuring.texts_of(judge, material)
    truth = measuring.seen_truth(material, judge, pipe.codec)
    evaluation = Evaluation(material, judge, texts, truth, pipe.codec, how)
    real = summary.means([evaluation.real(r) for r in range(how.repetitions)])
    header = {
        **{k: v for k, v in asdict(how).items() if k not in ("repetitions", "batch_size")},
        "data": [(s.id, s.ref.digest, s.length, *s.captions) for s in material.samples],
        "judge": digest(truth.embedding_NE),
        **{side: identity(one) for side, one in pipes.items()},
    }
    header["data"] = digest_of(repr(header["data"]))
    told: dict[str, Any] = {
        "data": material.source,
        "split": material.split,
        "judge": judge.name,
        "samples": len(evaluation.chosen(0)),
        "repetitions": how.repetitions,
        "settings": {k: str(v) if isinstance(v, Path) else v for k, v in given.items()} | asdict(how),
        "real": real,
    }
    rows: dict[str, list[dict[str, Any]]] = {}
    with Journal(given["output"] / "journal.jsonl", header) as journal:
        for side, one in pipes.items():
            measured, rows[side] = repeat(evaluation, one, side, journal)
            told[side] = summary.means(measured)
    if "baseline" in told:
        told["change"] = summary.change(told["baseline"], told["model"], real)
    told["notes"] = notes(given, told, material, truth.embedding_NE.shape[1])
    told["dropped"] = [asdict(drop) for drop in material.dropped]
    write_lines(given["output"] / "samples.jsonl", beside(rows))
    write_whole(given["output"] / "evaluation.json", json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    return told


def check_number(material: Material) -> None:
    """Raise ValueError for too few motions to rank."""
    from prefopt.metrics.retrieval import POOL

    if len(material.samples) < POOL:
        dropped = f", {len(material.dropped)} more cannot be used" if material.dropped else ""
        raise ValueError(
            f"{material.source} ({material.split}) has {len(material.samples)} motions{dropped}; R-precision ranks pools of {POOL}: needed "
            f"{POOL} or more. Take a larger split (--split)"
        )


def check_baseline(baseline: Any, pipe: Any, material: Material) -> None:
    """Raise ValueError for a baseline whose motions cannot be compared with the model's."""
    if baseline.stats.codec != pipe.stats.codec:
        raise ValueError(
            f"--baseline makes features of {baseline.stats.codec}, and MODEL those of {pipe.stats.codec}: needed two models of the same data"
        )
    baseline.check_lengths([sample.length for sample in material.samples])


def notes(given: dict[str, Any], told: dict[str, Any], material: Material, width: int) -> list[str]:
    """What a reader of the numbers must know."""
    from prefopt.metrics.retrieval import DIVERSITY_PAIRS
    from prefopt.modalities.motion.evaluating.judges import same_judge, training_judge

    found = []
    trained = training_judge(given["model"])
    if trained is not None and same_judge(trained, told["judge"]):
        found.append(
            f"MODEL was trained with this judge, {trained}: what pleases it by its mistakes counts as good here. Take another"
        )
    if "diversity" not in told["model"]:
        found.append(
            f"Diversity is left out: it draws {DIVERSITY_PAIRS} pairs of more than {DIVERSITY_PAIRS} motions, and there are "
            f"{told['samples']}. `Diversity (exact)` is its exact expectation"
        )
    if told["samples"] <= width:
        found.append(
            f"FID of {told['samples']} motions in {width} dimensions is far too large; compare it with that of as many motions only"
        )
    sure = told["real"].get("side_accuracy", {}).get("mean")
    if sure is None:
        found.append("no caption tells a side: how often it is right is not measured")
    elif sure < SURE:
        found.append(
            f"the judge tells left from right in {sure:.0%} of the true motions (needed {SURE:.0%}): `right side` says little"
        )
    if material.dropped:
        found.append(f"{len(material.dropped)} rows left out, see evaluation.json")
    return found


def beside(rows: dict[str, list[dict[str, Any]]]) -> Sequence[dict[str, Any]]:
    """The motions of the first repetition in the order of the data, the baseline's numbers beside the model's."""
    found = [dict(row) for row in rows["model"]]
    for row, other in zip(found, rows.get("baseline", []), strict=False):
        row |= {"baseline_distance": other["distance"], "baseline_rank": other["rank"]}
    return found


def digest(x: Any) -> str:
    """Of a tensor."""
    import hashlib

    return hashlib.blake2b(x.contiguous().numpy().tobytes(), digest_size=16).hexdigest()


def digest_of(text: str) -> str:
    """Of a text."""
    import hashlib

    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
