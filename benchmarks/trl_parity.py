"""Same model, rows, order and optimizer in prefopt and in TRL: do the two runs log the same numbers?

    pip install "trl==1.16.*"
    python benchmarks/trl_parity.py                       # every loss both have; about a minute on a CPU
    python benchmarks/trl_parity.py --only ipo,robust     # some of them
    python benchmarks/trl_parity.py --write docs/parity.md

A tiny Llama with random weights and rows of random words are written to a temporary folder. Each tool reads them
through its public entry (`prefopt.train`; `trl.DPOTrainer`, `trl.KTOTrainer`, and `CPOTrainer` and `TPOTrainer` of
`trl.experimental`) and takes a few AdamW steps. Compared at
every step: loss, rewards of both sides, their margin, KTO's reference point, and the gradient's norm before clipping. A
difference is divided by the largest absolute value of that quantity in the run, because rewards start at zero. Exits
with 1 if any of them exceeds LIMIT.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import io
import json
import logging
import os
import platform
import random
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trl_parity_cases import CASES, COMPARED, Case

LIMIT = 1e-4
STEPS, BATCH, SEED = 6, 4, 0
LEARNING_RATE, ADAM_EPSILON = 1e-3, 1e-6
TRL_NAMES = {"kto/z0": "kl"}
BEGIN, END = "<!-- table: written by benchmarks/trl_parity.py -->", "<!-- end of the table -->"


def joining_tokenizer(texts: list[str]) -> Any:
    """A space is a part of the word behind it, but stands alone before a digit, as in Llama 3's tokenizer."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    split = pre_tokenizers.Split(Regex(r" ?[a-z]+|[0-9]| "), "isolated")
    pieces = sorted({piece for text in texts for piece, _ in split.pre_tokenize_str(text)})
    inner = Tokenizer(
        models.WordLevel({p: n for n, p in enumerate(["<unk>", "<s>", "</s>", "<pad>", *pieces])}, "<unk>")
    )
    inner.pre_tokenizer, inner.decoder = split, decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


def make_inputs(folder: Path, merging: bool) -> list[dict[str, Any]]:
    """Save model and rows; one full batch a step, each row once."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from prefopt.worlds.text.model import train_tokenizer

    rng = random.Random(SEED)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(rng.choices(letters, k=rng.randint(2, 6))) for _ in range(80)]

    def text(low: int, high: int) -> str:
        return " ".join(rng.choices(words, k=rng.randint(low, high)))

    def completion() -> str:
        if (
            merging
        ):  # behind the prompt's space; half of them begin with a digit, which that space is not joined to
            return rng.choice(["", f"{rng.randrange(10)} "]) + text(2, 12)
        return " " + text(2, 12)

    rows = [
        {
            "prompt": text(2, 8) + " " * merging,
            **{name: completion() for name in ("chosen", "rejected", "reference")},
        }
        for _ in range(STEPS * BATCH)
    ]
    if merging:
        tokenizer = joining_tokenizer(
            [row["prompt"] + row[side] for row in rows for side in ("chosen", "rejected", "reference")]
        )
    else:
        tokenizer = train_tokenizer((t for row in rows for t in row.values()), 200)
    torch.manual_seed(SEED)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=128,
            initializer_range=0.2,  # logits far from uniform, so that a wrong token or mask shows
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    for name, part in (("pairs", rows), ("labelled", labelled(rows))):
        lines = "".join(json.dumps(row) + "\n" for row in part)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return rows


def make_vision_inputs(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The same with images and conversations, for a tiny model of a real class."""
    import numpy as np
    from PIL import Image

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    import tiny_vision

    tiny_vision.save_tiny(kind, folder / "model")
    rng = random.Random(SEED)

    def said(role: str, low: int, high: int) -> list[dict[str, str]]:
        return [{"role": role, "content": " ".join(rng.choices(tiny_vision.WORDS, k=rng.randint(low, high)))}]

    rows = []
    for n in range(STEPS * BATCH):
        pixels = np.random.default_rng(n).integers(0, 256, (40, 56, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{n}.png")
        answers = {side: said("assistant", 2, 9) for side in ("chosen", "rejected")}
        rows.append({"images": [str(folder / f"{n}.png")], "prompt": said("user", 2, 6), **answers})
    for name, part in (("pairs", rows), ("labelled", labelled(rows))):
        lines = "".join(json.dumps(row) + "\n" for row in part)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return rows


def labelled(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One side of each pair, for KTO: the chosen side as desirable, of the next row the rejected one as undesirable."""
    return [
        {
            **({"images": row["images"]} if "images" in row else {}),
            "prompt": row["prompt"],
            "completion": row["rejected" if i % 2 else "chosen"],
            "label": not i % 2,
        }
        for i, row in enumerate(rows)
    ]


def run_prefopt(case: Case, folder: Path) -> list[dict[str, float]]:
    """What `prefopt.train` logs, a mapping a step."""
    import prefopt

    result = prefopt.train(
        case.method,
        model=folder / "model",
        data=folder / ("labelled.jsonl" if case.labelled else "pairs.jsonl"),
        output_dir=str(folder / "prefopt"),
        overwrite=True,
        eval_size=0,
        sample_prompts=0,
        save_strategy="no",
        logging_steps=1,
        max_steps=STEPS,
        per_device_train_batch_size=STEPS * BATCH if case.labelled else BATCH,
        learning_rate=LEARNING_RATE,
        adam_epsilon=ADAM_EPSILON,
        lr_scheduler_type="constant",
        seed=SEED,
        bf16=False,
        **({"freeze": []} if case.vision else {}),
        **case.options,
    )
    return [line for line in result.history if "loss" in line and "grad_norm" in line]


def run_trl(case: Case, folder: Path, rows: list[dict[str, Any]]) -> list[dict[str, float]]:
    """What TRL's trainer logs, a mapping a step, on the rows in prefopt's order.

    KTO's z0 needs each prompt with another prompt's completion. prefopt takes the next one in the order of prompts, TRL
    the previous row's within the batch. One batch of all rows, sorted backwards for TRL, gives both the same ones.
    """
    from datasets import Dataset
    from transformers.trainer_callback import PrinterCallback

    from prefopt.sources.schedule import Schedule

    make_config, make_trainer = trainer_of(case)
    schedule = Schedule(len(rows), BATCH, 1, 1, 1.0, STEPS, SEED)
    ordered: list[Any] = [rows[i] for step in range(STEPS) for i in schedule.examples(step)]
    if case.labelled:
        ordered = sorted(labelled(rows), key=key_of, reverse=True)
    config = make_config(
        output_dir=str(folder / "trl"),
        train_sampling_strategy="sequential",
        max_steps=STEPS,
        per_device_train_batch_size=STEPS * BATCH if case.labelled else BATCH,
        learning_rate=LEARNING_RATE,
        adam_epsilon=ADAM_EPSILON,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=1.0,
        optim="adamw_torch",
        seed=SEED,
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        model_init_kwargs={"dtype": "float32"},
        **({"max_length": None} if case.vision else {}),
        **case.trl,
    )
    more: dict[str, Any] = {}
    if case.vision:
        from PIL import Image

        from prefopt.modalities.vision_language.processor import load_processor

        ordered = [
            {**row, "images": [Image.open(path).convert("RGB") for path in row["images"]]} for row in ordered
        ]
        more = {"processing_class": load_processor(str(folder / "model"))}
    if (
        case.trainer == "CPO"
    ):  # it puts one before every prompt, and prefopt and the others only if the tokenizer does
        from transformers import AutoTokenizer

        more = {"processing_class": AutoTokenizer.from_pretrained(folder / "model")}
        more["processing_class"].bos_token = None
    data = Dataset.from_list(ordered)
    trainer = make_trainer(str(folder / "model"), args=config, train_dataset=data, **more)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return [line for line in trainer.state.log_history if "loss" in line and "grad_norm" in line]


def trainer_of(case: Case) -> tuple[Any, Any]:
    """TRL's configuration and trainer of a case."""
    import trl
    from trl.experimental import cpo, tpo

    module: Any = {"DPO": trl, "KTO": trl, "CPO": cpo, "TPO": tpo}[case.trainer]
    return getattr(module, f"{case.trainer}Config"), getattr(module, f"{case.trainer}Trainer")


def key_of(row: dict[str, Any]) -> str:
    """What prefopt sorts labelled rows by to find each a completion of another prompt."""
    from prefopt.modalities.splits import condition_key
    from prefopt.modalities.vision_language.rows import load_pictured

    if "images" not in row:
        return json.dumps({"prompt": row["prompt"]})
    (example,) = load_pictured([row]).examples
    return condition_key(example.items[0].condition)


def differences(
    case: Case, ours: list[dict[str, float]], theirs: list[dict[str, float]]
) -> dict[str, float | None]:
    """Largest difference over the steps, relative to the run's largest absolute value; None: not comparable."""
    if not len(ours) == len(theirs) == STEPS:
        raise RuntimeError(f"expected {STEPS} logged steps; prefopt has {len(ours)}, TRL {len(theirs)}")
    out: dict[str, float | None] = {}
    for name in COMPARED:
        if name not in case.compared:
            out[name] = None
            continue
        trl_name = TRL_NAMES.get(name, name)
        pairs = [(float(a[name]), float(b[trl_name])) for a, b in zip(ours, theirs, strict=True)]
        scale = max(abs(b) for _, b in pairs)
        worst = max(abs(a - b) for a, b in pairs)
        out[name] = worst / scale if scale else worst
    return out


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Neither tool's own output; what was said is shown if the block fails."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except BaseException:
        sys.stderr.write(said.getvalue())
        raise


def passed(found: dict[str, float | None]) -> bool:
    """Whether every comparable quantity is within the limit (a NaN is not)."""
    return all(value <= LIMIT for value in found.values() if value is not None)


def cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.0e}"


def markdown(results: list[tuple[Case, dict[str, float | None]]]) -> str:
    """The table and how it was made."""
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("prefopt", "trl", "transformers", "torch")
    )
    lines = [
        f"`python benchmarks/trl_parity.py --write docs/parity.md`; {versions}, Python {platform.python_version()}; "
        f"{os.cpu_count()}-core {platform.machine()} CPU, float32.",
        "",
        "| TRL | prefopt | " + " | ".join(COMPARED) + " | |",
        "| --- | --- |" + " ---: |" * len(COMPARED) + " --- |",
    ]
    for one, found in results:
        options = " ".join(f"{k}={v}" for k, v in one.options.items())
        numbers = " | ".join(cell(found[name]) for name in COMPARED)
        verdict = "pass" if passed(found) else "MISS"
        lines.append(f"| {one.name} | `{one.method} {options}` | {numbers} | {verdict} |")
    return "\n".join(lines)


def main() -> int:
    from rich.console import Console
    from rich.table import Table

    parser = argparse.ArgumentParser(description="Compare prefopt's runs with TRL's.")
    parser.add_argument("--only", help="prefixes of TRL's names, separated by commas")
    parser.add_argument("--write", type=Path, help="page whose table to replace")
    arguments = parser.parse_args()
    prefixes = tuple(arguments.only.split(",")) if arguments.only else ("",)
    chosen = [
        one for one in CASES if one.name.startswith(prefixes) or (one.vision or "-").startswith(prefixes)
    ]
    if not chosen:
        parser.error(f"--only {arguments.only!r} selects none of: " + "; ".join(one.name for one in CASES))

    heads = (name.removeprefix("rewards/") for name in COMPARED)
    table = Table("TRL", "prefopt", *heads, "", title="largest difference over the steps")
    results = []
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["PREFOPT_CACHE"] = str(folder / "cache")
        with quiet():
            rows: dict[str, Any] = {}
            for one in chosen:
                if one.inputs not in rows:
                    inside = folder / one.inputs
                    inside.mkdir()
                    made = (
                        make_vision_inputs(inside, one.vision)
                        if one.vision
                        else make_inputs(inside, one.merging)
                    )
                    rows[one.inputs] = made
        for one in chosen:
            with quiet():
                inside = folder / one.inputs
                found = differences(one, run_prefopt(one, inside), run_trl(one, inside, rows[one.inputs]))
            results.append((one, found))
            verdict = "[green]pass[/green]" if passed(found) else "[red]MISS[/red]"
            table.add_row(one.name, one.method, *(cell(found[name]) for name in COMPARED), verdict)
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    if arguments.write:
        page = arguments.write.read_text(encoding="utf-8")
        between = re.compile(f"(?<={re.escape(BEGIN)}\n).*(?={re.escape(END)})", re.DOTALL)
        if not between.search(page):
            parser.error(f"{arguments.write} has no lines {BEGIN!r} and {END!r} to write between")
        arguments.write.write_text(between.sub(lambda _: markdown(results) + "\n", page), encoding="utf-8")
    misses = [one.name for one, found in results if not passed(found)]
    print(
        f"{len(results) - len(misses)} of {len(results)} within {LIMIT:g}"
        + (f"; missed: {misses}" if misses else "")
    )
    return 1 if misses else 0


if __name__ == "__main__":
    raise SystemExit(main())
