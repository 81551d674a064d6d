"""How close is the memory forecast to the measured peak? Real runs, each in a process of its own.

    python benchmarks/memory_forecast.py                       # every shape; some five minutes on two idle cores
    python benchmarks/memory_forecast.py --only long           # shapes whose name holds this
    python benchmarks/memory_forecast.py --set dtype=bfloat16  # with further configuration keys

Random models of up to 24 million parameters with a vocabulary of 16384 take three steps of DPO through
`prefopt.train` on rows of random words, all of the same length. The forecast is the one that the run writes into its
manifest before the first step, the peak is the process's own (`ru_maxrss` on a CPU). Printed: both, and their
quotient. Exits with 1 where the forecast is off by more than LIMIT.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LIMIT = 0.2
VOCABULARY, STEPS = 16384, 3
MIB = 2**20

TINY = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
SMALL = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 6, "num_attention_heads": 4}
LARGE = {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 6, "num_attention_heads": 6}


@dataclass(frozen=True)
class Shape:
    """One run.

    Attributes:
        name: printed.
        architecture: "llama" (own head) or "qwen3" (head tied to the embedding, keys shared by two heads).
        sizes: of the model.
        batch: pairs of a micro-batch.
        prompt: tokens of a prompt.
        completion: tokens of a completion.
        rows: pairs to train on.
        options: further configuration keys.
    """

    name: str
    architecture: str
    sizes: dict[str, int]
    batch: int
    prompt: int
    completion: int
    rows: int = 16
    options: dict[str, Any] = field(default_factory=dict)


CHECKPOINTING = {"gradient_checkpointing": True}
SMALL_EVALUATION = {"per_device_eval_batch_size": 1}
SHAPES = [
    Shape("tiny", "llama", TINY, 2, 32, 32),
    Shape("tiny, batch 16", "llama", TINY, 16, 32, 32),
    Shape("small", "llama", SMALL, 4, 64, 64),
    Shape("small, batch 16", "llama", SMALL, 16, 64, 64, rows=32),
    Shape("small, long prompt", "llama", SMALL, 2, 448, 64),
    Shape("small, long completion", "llama", SMALL, 2, 64, 448),
    Shape("small, the same, checkpointing", "llama", SMALL, 2, 64, 448, options=CHECKPOINTING),
    Shape("small, few rows", "llama", SMALL, 4, 128, 128, rows=4, options=SMALL_EVALUATION),
    Shape("small, live reference", "llama", SMALL, 8, 64, 64, options={"reference": "live"}),
    Shape("small, LoRA", "llama", SMALL, 8, 64, 192, options={"use_peft": True}),
    Shape("large", "qwen3", LARGE, 4, 64, 192),
    Shape("large, long", "qwen3", LARGE, 2, 512, 512, rows=2),
    Shape("large, long, checkpointing", "qwen3", LARGE, 2, 512, 512, rows=2, options=CHECKPOINTING),
    Shape("large, sgd", "llama", LARGE, 1, 64, 64, options={"optim": "sgd"}),
    Shape("large, bf16", "llama", LARGE, 4, 128, 128, rows=4, options={"bf16": True}),
]
SAMPLED = {"sample_prompts": 4, "sample_max_new_tokens": 16, "eval_size": 8, "max_length": 512}
LORA = {"use_peft": True, **SAMPLED}
REAL = [  # of a model and rows that are given; prompt and completion are what they are
    Shape("real, whole", "given", {}, 4, 0, 0, options=SAMPLED),
    Shape("real, whole, batch 8", "given", {}, 8, 0, 0, options=SAMPLED),
    Shape("real, LoRA, batch 8", "given", {}, 8, 0, 0, options=LORA),
    Shape("real, LoRA on all layers", "given", {}, 4, 0, 0, options=LORA | {"lora_target_modules": "all-linear"}),
    Shape(
        "real, LoRA on all layers, batch 8", "given", {}, 8, 0, 0, options=LORA | {"lora_target_modules": "all-linear"}
    ),
]  # fmt: skip


def build(shape: Shape, folder: Path) -> None:
    """A random model, its tokenizer of whole words, and rows."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {f"w{k}": k for k in range(VOCABULARY - 3)} | {
        t: VOCABULARY - 3 + k for k, t in enumerate(["<s>", "</s>", "<pad>"])
    }
    backend = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **special)
    torch.manual_seed(0)
    shared = {"vocab_size": VOCABULARY, "bos_token_id": None, "eos_token_id": None, **shape.sizes}
    model: Any
    if shape.architecture == "llama":
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**shared))
    else:
        heads = shape.sizes["num_attention_heads"]
        more = {"num_key_value_heads": heads // 2, "head_dim": shape.sizes["hidden_size"] // heads}
        model = transformers.Qwen3ForCausalLM(
            transformers.Qwen3Config(**shared, **more, tie_word_embeddings=True)
        )
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    draw = random.Random(0)

    def text(length: int) -> str:
        return " ".join(f"w{draw.randrange(VOCABULARY - 3)}" for _ in range(length))

    with (folder / "rows.jsonl").open("w") as f:
        for _ in range(shape.rows):
            sides = [" " + text(shape.completion - 1) + " </s>" for _ in range(2)]
            f.write(
                json.dumps({"prompt": text(shape.prompt), "chosen": sides[0], "rejected": sides[1]}) + "\n"
            )


def train(shape: Shape, folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Run, and return the manifest."""
    import prefopt

    given = {
        "max_steps": STEPS,
        "eval_size": 0,
        "sample_prompts": 0,
        "save_strategy": "no",
        "bf16": False,
        "max_length": None,
    }
    here = {"model": folder / "model", "data": folder / "rows.jsonl"}
    prefopt.train(
        "dpo_rk", output_dir=str(folder / "run"), per_device_train_batch_size=shape.batch,
        **{**here, **given, **shape.options, **options},
    )  # fmt: skip
    return json.loads((folder / "run" / "record" / "manifest.json").read_text())


def apart(part: str, shape: Shape, folder: Path, options: dict[str, Any]) -> None:
    """One part in a process of its own: building a model must not count in the peak of a run."""
    done = subprocess.run(
        [sys.executable, __file__, "--part", part, "--shape", shape.name, "--folder", str(folder),
         "--options", json.dumps(options)],
        capture_output=True, text=True, env={**os.environ, "PREFOPT_CACHE": str(folder / "cache")},
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{shape.name}: exit status {done.returncode}\n{done.stderr[-2000:]}")


def measure(shape: Shape, options: dict[str, Any]) -> tuple[list[dict[str, Any]], int]:
    """Forecast by part, and measured peak in bytes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if shape.architecture != "given":
            apart("build", shape, folder, options)
        apart("train", shape, folder, options)
        manifest = json.loads((folder / "run" / "record" / "manifest.json").read_text())
    return manifest["memory_forecast"], manifest["peak_memory_bytes"]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="shapes whose name holds this")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="configuration keys")
    parser.add_argument(
        "--real",
        nargs=2,
        metavar=("MODEL", "ROWS"),
        help="a model's folder and rows of yours, whole and with LoRA",
    )
    parser.add_argument("--part", choices=("build", "train"), help=argparse.SUPPRESS)
    parser.add_argument("--shape", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--options", type=json.loads, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        shape = next(s for s in (*SHAPES, *REAL) if s.name == given.shape)
        if given.part == "build":
            build(shape, given.folder)
        else:
            train(shape, given.folder, given.options)
        return 0
    import torch
    import transformers

    from prefopt.config import parse_overrides

    options = parse_overrides(given.set)
    if given.real:
        options |= dict(zip(("model", "data"), given.real, strict=True))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} cores"
    print(
        f"{platform.platform()}, {device}, torch {torch.__version__}, transformers {transformers.__version__}"
    )
    print(f"{'shape':30} {'forecast':>9} {'peak':>7}  quotient  MiB by part")
    worst = 0.0
    for shape in REAL if given.real else SHAPES:
        if given.only not in shape.name:
            continue
        parts, peak = measure(shape, options)
        total = sum(part["bytes"] for part in parts)
        detail = ", ".join(f"{part['part']} {part['bytes'] / MIB:.0f}" for part in parts)
        print(
            f"{shape.name:30} {total / MIB:9.0f} {peak / MIB:7.0f} {total / peak:9.2f}  {detail}", flush=True
        )
        worst = max(worst, abs(total / peak - 1))
    print(f"furthest from 1: {worst:.0%}; limit {LIMIT:.0%}")
    return int(worst > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
