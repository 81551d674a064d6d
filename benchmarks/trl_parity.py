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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

LIMIT = 1e-4
STEPS, BATCH, SEED = 6, 4, 0
LEARNING_RATE, ADAM_EPSILON = 1e-3, 1e-6
COMPARED = ("loss", "rewards/chosen", "rewards/rejected", "rewards/margins", "kto/z0", "grad_norm")
TRL_NAMES = {"kto/z0": "kl"}
BEGIN, END = "<!-- table: written by benchmarks/trl_parity.py -->", "<!-- end of the table -->"


@dataclass(frozen=True)
class Case:
    """One loss as each tool spells it.

    Attributes:
        name: TRL's name.
        method: prefopt's method.
        options: prefopt's keys.
        trl: fields of `DPOConfig`, or of the configuration that goes with `trainer`.
        trainer: "DPO", "KTO", "CPO" or "TPO".
        rewards: False where the two tools mean different things by a reward; docs/parity.md says which.
        merging: prompts end in a space, which the tokenizer joins with the first word of some completions.
        vision: class of `tests/tiny_vision.py` that reads rows with images; None for text.
    """

    name: str
    method: str
    options: dict[str, Any] = field(default_factory=dict)
    trl: dict[str, Any] = field(default_factory=dict)
    rewards: bool = True
    merging: bool = False
    vision: str | None = None
    trainer: str = "DPO"

    @property
    def labelled(self) -> bool:
        """Whether rows are single labelled samples."""
        return self.trainer == "KTO"

    @property
    def inputs(self) -> str:
        """The folder of its model and rows."""
        return self.vision or f"merging-{self.merging}"

    @property
    def compared(self) -> tuple[str, ...]:
        """Which of COMPARED both tools log, with one meaning."""
        if self.labelled:
            z0 = ("kto/z0",) if self.method == "kto" else ()
            return ("loss", "rewards/chosen", "rewards/rejected", *z0, "grad_norm")
        return ("loss", *COMPARED[1:4], "grad_norm") if self.rewards else ("loss", "grad_norm")


def case(
    name: str,
    method: str,
    *,
    beta: float = 0.1,
    trl: dict[str, Any] | None = None,
    rewards: bool = True,
    merging: bool = False,
    **options: Any,
) -> Case:
    """A case whose beta is the same in both tools."""
    both = {"loss_type": [name], "beta": beta, **(trl or {})}
    return Case(name, method, {"beta": beta, **options}, both, rewards, merging)


def f_divergence(name: str, **options: Any) -> Case:
    """Sigmoid loss with another divergence."""
    spelt = {"js": "js_divergence", "forward_kl": "forward_kl", "alpha": "alpha_divergence"}[options["f"]]
    trl: dict[str, Any] = {"loss_type": ["sigmoid"], "f_divergence_type": spelt}
    if "alpha" in options:
        trl["f_alpha_divergence_coef"] = 1 - options["alpha"]
    return case(name, "f_dpo", trl=trl, **options)


def reference_free(name: str, method: str, *, trainer: str, trl: dict[str, Any], **options: Any) -> Case:
    """A case of one of TRL's trainers without a reference model.

    Where its loss is of averages a token, so are its rewards, and prefopt's of sums.
    """
    beta = options.pop("beta")
    sums = trl["loss_type"] in ("sigmoid", "hinge")
    options = {"beta": beta, **options}
    return Case(name, method, options, {"beta": beta, **trl}, rewards=sums, trainer=trainer)


SIGMOID = {"loss_type": ["sigmoid"]}
ALL_THREE = {"ld_alpha": 0.5, "use_weighting": True}
CASES = [
    case("sigmoid", "dpo"),
    case("sigmoid, merged boundaries", "dpo", trl=SIGMOID, merging=True),
    case("hinge", "hinge"),
    case("ipo", "ipo"),
    case("exo_pair", "exo", label_smoothing=1e-3, trl={"label_smoothing": 1e-3}),
    case("nca_pair", "nca"),
    case("robust", "robust", label_smoothing=0.1, trl={"label_smoothing": 0.1}),
    case("bco_pair", "bco_pair"),
    case("sppo_hard", "sppo"),
    case("aot", "aot"),
    case("aot_unpaired", "aot_unpaired"),
    case("apo_zero", "apo_zero"),
    case("apo_down", "apo_down"),
    case("discopop", "discopop", beta=0.05),
    Case("sft", "sft", {"average": "batch"}, {"loss_type": ["sft"]}, rewards=False),
    case(
        "sigmoid + 0.5 sft",
        "dpo+0.5*sft",
        average="batch",
        trl={"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5]},
    ),
    case("sigmoid_norm", "dpo", beta=5.0, margin="average"),
    f_divergence("sigmoid, js_divergence", f="js"),
    f_divergence("sigmoid, forward_kl", f="forward_kl"),
    f_divergence("sigmoid, alpha_divergence 0.7", f="alpha", alpha=0.3),
    case("sigmoid, ld_alpha 0.5", "dpo", ld_alpha=0.5, trl={**SIGMOID, "ld_alpha": 0.5}, rewards=False),
    *(
        case(
            f"{name}, ld_alpha 0.5",
            method,
            ld_alpha=0.5,
            trl={"loss_type": [name], "ld_alpha": 0.5},
            rewards=False,
        )
        for name, method in (
            ("ipo", "ipo"),
            ("apo_zero", "apo_zero"),
            ("aot", "aot"),
            ("aot_unpaired", "aot_unpaired"),
        )
    ),
    case("sigmoid, use_weighting", "dpo", use_weighting=True, trl={**SIGMOID, "use_weighting": True}),
    *(
        case(
            f"{name}, use_weighting",
            name,
            use_weighting=True,
            trl={"loss_type": [name], "use_weighting": True},
        )
        for name in ("ipo", "bco_pair")
    ),
    case(
        "sigmoid + 0.2 bco_pair + 0.5 sft, both",
        "dpo+0.2*bco_pair",
        rpo_alpha=0.5,
        average="batch",
        **ALL_THREE,
        trl={"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [1.0, 0.2, 0.5], **ALL_THREE},
        rewards=False,
    ),
    Case("kto, one batch", "kto", {"beta": 0.1}, {"loss_type": "kto", "beta": 0.1}, trainer="KTO"),
    Case(
        "apo_zero_unpaired",
        "apo_zero_unpaired",
        {"beta": 0.1, "desirable_weight": 1.3},
        {"loss_type": "apo_zero_unpaired", "beta": 0.1, "desirable_weight": 1.3},
        trainer="KTO",
    ),
    *(
        reference_free(
            f"CPO {loss}",
            "contrastive_po",
            trainer="CPO",
            beta=0.1,
            loss=loss,
            average="batch",
            trl={"loss_type": loss},
        )
        for loss in ("sigmoid", "hinge", "ipo")
    ),
    reference_free(
        "CPO sigmoid, cpo_alpha 0.3, label_smoothing 0.1",
        "contrastive_po",
        trainer="CPO",
        beta=0.1,
        alpha=0.3,
        label_smoothing=0.1,
        average="batch",
        trl={"loss_type": "sigmoid", "cpo_alpha": 0.3, "label_smoothing": 0.1},
    ),
    reference_free(
        "CPO simpo",
        "simpo",
        trainer="CPO",
        beta=2.0,
        gamma=0.5,
        trl={"loss_type": "simpo", "cpo_alpha": 0.0, "simpo_gamma": 0.5},
    ),
    reference_free(
        "CPO simpo, cpo_alpha 0.2",
        "simpo",
        trainer="CPO",
        beta=2.0,
        gamma=0.5,
        rpo_alpha=0.2,
        average="batch",
        trl={"loss_type": "simpo", "cpo_alpha": 0.2, "simpo_gamma": 0.5},
    ),
    reference_free(
        "CPO alphapo, alpha 0.25",
        "alpha_po",
        trainer="CPO",
        beta=2.0,
        gamma=0.5,
        alpha=0.25,
        trl={"loss_type": "alphapo", "simpo_gamma": 0.5, "alpha": 0.25},
    ),
    *(
        reference_free(
            f"TPO {loss}",
            "tpo",
            trainer="TPO",
            beta=2.0 if loss == "tpo-l" else 0.1,
            loss=loss,
            tpo_alpha=0.7,
            average="batch",
            trl={"loss_type": loss, "tpo_alpha": 0.7},
        )
        for loss in ("sigmoid", "hinge", "ipo", "tpo-l")
    ),
]
VISION = ("llava", "llava_next", "qwen2_5_vl", "gemma3")
CASES += [
    replace(one, name=f"{one.name}, images ({vision})", vision=vision)
    for vision in VISION
    for one in CASES
    if one.name in (("sigmoid", "ipo", "kto, one batch") if vision == "llava" else ("sigmoid",))
]


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
    if case.trainer == "CPO":  # it puts one before every prompt, and prefopt and the others only if the tokenizer does
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
