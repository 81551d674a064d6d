"""Whole training steps of DPO: prefopt against TRL, side by side, each through its public entry, in float32 on a CPU.

    python benchmarks/text_speed.py                      # every shape, three alternations
    python benchmarks/text_speed.py --shape 350/40 --rounds 1
    python benchmarks/text_speed.py --compile            # both tools with torch_compile=true
    python benchmarks/text_speed.py --ingredients        # prefopt alone, one ingredient at a time
    python benchmarks/text_speed.py --profile            # prefopt alone: operators, and how near to the machine's peak
    python benchmarks/text_speed.py --write docs/performance.md

Needs the `trl` extra. The model has the shape of a small Qwen2 (19 million parameters, grouped queries, tied embeddings) and random weights, the vocabulary has
16384 tokens, the rows are random tokens of exact lengths. Each measurement is a process of its own that trains
`STEPS` steps; the first is not counted (it warms caches up). Its peak memory is the process's largest resident set.
Neither side recomputes activations.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from alternating import steps_timed

STEPS = 5
SEED = 0
VOCABULARY = 16384
LEARNING_RATE = 1e-5


@dataclass(frozen=True)
class Shape:
    """Rows of one size, or of sizes between the least and eight times the least.

    Attributes:
        name: as the table writes it.
        prompt: tokens of a prompt.
        response: tokens of each side.
        batch: pairs a step.
        spread: draw lengths between a quarter of the named and twice the named.
        bars: required ratios of speed (live, cached) and of memory.
    """

    name: str
    prompt: int
    response: int
    batch: int
    bars: tuple[float, float, float]
    spread: bool = False


SHAPES = (
    Shape("350/40", 350, 40, 4, (4.0, 4.5, 0.45)),
    Shape("150/300", 150, 300, 4, (2.0, 2.0, 0.6)),
    Shape("1500/60", 1500, 60, 2, (4.0, 4.5, 0.5)),
    Shape("64/64 spread", 64, 64, 16, (3.0, 3.0, 0.6), spread=True),
)
INGREDIENTS: dict[str, dict[str, Any]] = {
    "everything": {},
    "no sharing (packed)": {"batch_layout": "packed"},
    "no sharing, no packing": {"batch_layout": "plain"},
    "nor the head at scored places": {"batch_layout": "plain", "whole_head": True},
}


def make_inputs(folder: Path, shape: Shape) -> None:
    """Save model, tokenizer and rows. Every token of the vocabulary is a word, so lengths are exact."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<pad>", "<eos>", *(f"w{i}" for i in range(VOCABULARY - 2))]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>")
    tokenizer.save_pretrained(folder / "model")
    torch.manual_seed(SEED)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=384, intermediate_size=1536, num_hidden_layers=6,
            num_attention_heads=6, num_key_value_heads=2, max_position_embeddings=4096, tie_word_embeddings=True,
            bos_token_id=None, eos_token_id=1, pad_token_id=0,
        )
    ).save_pretrained(folder / "model")  # fmt: skip
    rng = random.Random(SEED)

    def text(length: int) -> str:
        if shape.spread:
            length = rng.randint(length // 4, 2 * length)
        return " ".join(rng.choices(words[2:], k=length))

    def row() -> dict[str, str]:
        # an end-of-sequence token is added to each side
        return {
            "prompt": text(shape.prompt),
            "chosen": " " + text(shape.response - 1),
            "rejected": " " + text(shape.response - 1),
        }

    lines = [json.dumps(row()) + "\n" for _ in range(STEPS * shape.batch)]
    (folder / "pairs.jsonl").write_text("".join(lines), encoding="utf-8")


def train_prefopt(folder: Path, shape: Shape, cached: bool, options: dict[str, Any]) -> list[float]:
    """Seconds of each step."""
    import prefopt
    from prefopt.likelihoods import tokens

    if options.pop("whole_head", False):
        adapt = tokens.TokenLikelihood.adapt

        def without_head(self: Any, *args: Any) -> Any:
            from dataclasses import replace

            self.ability = replace(adapt(self, *args), own_head=False)
            return self.ability

        tokens.TokenLikelihood.adapt = without_head  # type: ignore[method-assign]
    seconds = steps_timed()
    prefopt.train(
        "dpo",
        model=folder / "model",
        data=folder / "pairs.jsonl",
        output_dir=str(folder / "prefopt"),
        overwrite=True,
        eval_size=0,
        sample_prompts=0,
        save_strategy="no",
        max_steps=STEPS,
        max_length=4096,
        per_device_train_batch_size=shape.batch,
        reference="cached" if cached else "live",
        learning_rate=LEARNING_RATE,
        bf16=False,
        **options,
    )
    return seconds


def profile(folder: Path, shape: Shape) -> list[str]:
    """Lines of the third table: shares of operators in one step, and its rate beside that of a bare product.

    Floating-point operations are those that the layout needs: 6 a weight and token in the trunk (in the last layer's
    feed-forward part a scored token), 6 a weight and scored token in the head, and 14 a pair of places that attend,
    hidden number and layer; pairs as the kernels compute them, run by run or all of a row.
    """
    import torch
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    from prefopt.likelihoods.tokens import TokenLikelihood
    from prefopt.training.loop import Loop

    plans: list[Any] = []
    trained: list[Any] = []  # evaluations make plans too
    plan, update = TokenLikelihood.plan, Loop.update
    steps, table = 0, []

    def planned(self: Any, items: Any) -> Any:
        plans.append(plan(self, items))
        return plans[-1]

    def profiled(self: Any, examples: Any) -> None:
        nonlocal steps, table
        steps += 1
        if steps != STEPS:
            update(self, examples)
            return
        with profiler(activities=[ProfilerActivity.CPU]) as found:
            update(self, examples)
        trained.append(plans[-1])
        table = sorted(found.key_averages(), key=lambda e: -e.self_cpu_time_total)

    TokenLikelihood.plan, Loop.update = planned, profiled  # type: ignore[method-assign]
    seconds = train_prefopt(folder, shape, True, {})
    total = sum(event.self_cpu_time_total for event in table)
    shares = ", ".join(
        f"{event.key.removeprefix('aten::')} {event.self_cpu_time_total / total:.0%}" for event in table[:5]
    )
    config = json.loads((folder / "model" / "config.json").read_text())
    hidden, layers, inner = config["hidden_size"], config["num_hidden_layers"], config["intermediate_size"]
    heads, grouped = config["num_attention_heads"], config["num_key_value_heads"]
    last = trained[-1]
    rows, width = last.input_ids_RT.shape
    scored = len({*zip(last.row_K.tolist(), last.position_K.tolist(), strict=True)})
    mlp, projections = 3 * hidden * inner, hidden * hidden * (2 + 2 * grouped / heads)
    work = 6 * (layers * (projections + mlp) - mlp) * rows * width + 6 * mlp * scored
    work += 6 * hidden * VOCABULARY * len(last.target_K)
    pairs = rows * width**2
    if last.branches is not None:
        pairs = sum(run.pairs for runs in last.branches.rows for run in runs)
    work += 14 * pairs * hidden * layers
    a, b = torch.randn(2048, 1536), torch.randn(1536, 1536)
    rates = []
    for _ in range(10):
        start = time.perf_counter()
        a @ b
        rates.append(2 * 2048 * 1536 * 1536 / (time.perf_counter() - start))
    rate = work / statistics.median(seconds[1:-1])
    peak = statistics.median(rates)
    manifest = json.loads((folder / "prefopt" / "record" / "manifest.json").read_text())
    forecast = sum(part["bytes"] for part in manifest["memory_forecast"]) / manifest["peak_memory_bytes"]
    return [
        f"| {shape.name} | {rate / 1e9:.0f} of {peak / 1e9:.0f} | {rate / peak:.0%} | {shares} | {forecast:.2f} |"
    ]


def train_trl(folder: Path, shape: Shape, cached: bool, options: dict[str, Any]) -> list[float]:
    """Seconds of each step."""
    from datasets import load_dataset
    from transformers import TrainerCallback
    from trl import DPOConfig, DPOTrainer

    seconds: list[float] = []

    class Timer(TrainerCallback):
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.start = time.perf_counter()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            seconds.append(time.perf_counter() - self.start)

    config = DPOConfig(
        output_dir=str(folder / "trl"),
        max_steps=STEPS,
        max_length=4096,
        per_device_train_batch_size=shape.batch,
        precompute_ref_log_probs=cached,
        learning_rate=LEARNING_RATE,
        gradient_checkpointing=False,
        optim="adamw_torch_fused",  # its default
        bf16=False,
        use_cpu=True,
        logging_steps=STEPS,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        model_init_kwargs={"dtype": "float32"},
        **options,
    )
    data = load_dataset("json", data_files=str(folder / "pairs.jsonl"), split="train")
    DPOTrainer(str(folder / "model"), args=config, train_dataset=data, callbacks=[Timer()]).train()
    return seconds


def worker(args: argparse.Namespace) -> None:
    """One measurement; prints one JSON line at the end."""
    shape = next(s for s in SHAPES if s.name == args.shape)
    if args.tool == "profile":
        print(json.dumps({"lines": profile(args.folder, shape)}))
        return
    train = train_prefopt if args.tool == "prefopt" else train_trl
    seconds = train(args.folder, shape, args.cached, json.loads(args.options))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": statistics.median(seconds[1:]), "peak": peak}))


def measure(tool: str, shape: Shape, folder: Path, cached: bool, **options: Any) -> dict[str, Any]:
    """Run a worker."""
    command = [sys.executable, __file__, "--tool", tool, "--shape", shape.name, "--folder", str(folder)]
    command += ["--options", json.dumps(options), *(["--cached"] if cached else [])]
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "PREFOPT_QUIET": "1",
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def compare(shape: Shape, rounds: int, options: dict[str, Any]) -> str:
    """One line of the table; both tools alternate, with the same options."""
    found: dict[tuple[str, bool], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_inputs(folder, shape)
        for _ in range(rounds):
            for cached in (False, True):
                for tool in ("trl", "prefopt"):
                    found.setdefault((tool, cached), []).append(
                        measure(tool, shape, folder, cached, **options)
                    )
    cells = [shape.name]
    for cached in (False, True):
        ours, theirs = (found[tool, cached] for tool in ("prefopt", "trl"))
        ratios = [b["seconds"] / a["seconds"] for a, b in zip(ours, theirs, strict=True)]
        per_pair = [statistics.median(x["seconds"] for x in side) / shape.batch for side in (theirs, ours)]
        low, high = min(ratios), max(ratios)
        cells += [
            f"{per_pair[0]:.2f} / {per_pair[1]:.2f} s",
            f"{statistics.median(ratios):.1f}x ({low:.1f} to {high:.1f}; bar {shape.bars[cached]:g})",
        ]
    peaks = {key: statistics.median(x["peak"] for x in side) / 2**30 for key, side in found.items()}
    for cached in (False, True):
        ours, theirs = peaks["prefopt", cached], peaks["trl", cached]
        cells.append(f"{theirs:.1f} / {ours:.1f} GiB, {ours / theirs:.2f}x")
    cells.append(f"{shape.bars[2]:g}")
    return "| " + " | ".join(cells) + " |"


def ingredients(shape: Shape, rounds: int) -> list[str]:
    """Lines of the second table: prefopt with one ingredient after the other taken away."""
    found: dict[tuple[str, bool], list[float]] = {}
    peaks: dict[tuple[str, bool], float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_inputs(folder, shape)
        for _ in range(rounds):
            for label, options in INGREDIENTS.items():
                for cached in (True, False):
                    got = measure("prefopt", shape, folder, cached, **options)
                    found.setdefault((label, cached), []).append(got["seconds"])
                    peaks[label, cached] = got["peak"] / 2**30
    base = statistics.median(found["everything", True])
    return [
        f"| {shape.name} | {label} | {'cached' if cached else 'live'} "
        f"| {statistics.median(times) / base:.2f} | {peaks[label, cached]:.2f} |"
        for (label, cached), times in found.items()
    ]


def profiles(shape: Shape) -> list[str]:
    """Run `profile` in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        make_inputs(Path(name), shape)
        return list(measure("profile", shape, Path(name), True)["lines"])


HEADINGS = (
    "| prompt/response tokens | live: TRL / prefopt, a pair | ratio | cached: TRL / prefopt, a pair | ratio "
    "| peak, live | peak, cached | memory bar |\n|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=[s.name for s in SHAPES])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--ingredients", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--write", type=Path, help="put the tables into this page")
    parser.add_argument("--tool", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--options", default="{}", help=argparse.SUPPRESS)
    parser.add_argument("--cached", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.tool:
        worker(args)
        return
    shapes = [s for s in SHAPES if args.shape in (None, s.name)]
    versions = ", ".join(
        f"{name} {metadata.version(name)}" for name in ("prefopt", "trl", "transformers", "torch")
    )
    lines = [f"{versions}, Python {sys.version.split()[0]}; {os.cpu_count()}-core CPU, float32.\n"]
    if args.ingredients:
        lines += [
            "| shape | what is used | reference | seconds, relative | peak, GiB |\n|---|---|---|---|---|"
        ]
        print("\n".join(lines), flush=True)
        for shape in shapes:
            new = ingredients(shape, args.rounds)
            print("\n".join(new), flush=True)
            lines += new
    elif args.profile:
        lines += [
            "| shape | GFLOP/s of a bare product's | share | largest operators | forecast / peak memory |\n|---|---|---|---|---|"
        ]
        print("\n".join(lines), flush=True)
        for shape in shapes:
            new = profiles(shape)
            print("\n".join(new), flush=True)
            lines += new
    else:
        lines.append(HEADINGS)
        print("\n".join(lines), flush=True)
        for shape in shapes:
            lines.append(compare(shape, args.rounds, {"torch_compile": True} if args.compile else {}))
            print(lines[-1], flush=True)
    if args.write:
        name = next((k for k in ("compile", "ingredients", "profile") if getattr(args, k)), "speed")
        begin, end = f"<!-- {name}: written by benchmarks/text_speed.py -->\n", f"\n<!-- end of {name} -->"
        page = args.write.read_text(encoding="utf-8")
        before, after = page.split(begin)[0], page.split(end)[1]
        args.write.write_text(before + begin + "\n".join(lines) + end + after, encoding="utf-8")


if __name__ == "__main__":
    main()
