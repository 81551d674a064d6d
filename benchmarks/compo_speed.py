"""A step of ComPO: answers from the head alone beside one forward pass of both responses for each move, on a CPU.

    python benchmarks/compo_speed.py                     # m=100 moves, 350 prompt and 40 response tokens
    python benchmarks/compo_speed.py --rounds 3
    python benchmarks/compo_speed.py --runs              # memory of whole runs, beside DPO's
    python benchmarks/compo_speed.py --write docs/performance.md

The model is that of text_speed.py (19 million parameters, vocabulary of 16384, random weights), in float32, with
its head untied. Each measurement is a process of its own; its peak memory is the process's largest resident set, beside
that of one which only loads the model and makes one forward pass. What is timed:

    fast        the step as it is by default: hidden states once, moves drawn in their span, direction, selection
    exact       the same with `fast_sampling=False`: every move has all of the head's entries
    expected    the closed form without moves
    forward     logits at every place, as in the released code (whose two base passes a move are not counted)
    trimmed     logits at the response's places alone

The last two draw moves and run the model on (chosen, rejected); since all moves cost the same, 6 are timed, the first
is not counted, and the median is scaled to m.

`--runs` trains through `prefopt.train`, one pair a step, three steps, each run in a process of its own: the oracle's stage, and
`dpo` with a cached and with a live reference. "loaded" is the process that only loads the model for training.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

MOVES = 100
PROMPT, RESPONSE = 350, 40
VOCABULARY = 16384
TIMED = 6
BAR = 20.0
RUNS = {
    "loaded": "model loaded",
    "compo": "compo, oracle",
    "cached": "dpo, cached reference",
    "live": "dpo, live reference",
}
KINDS = ("loaded", "fast", "exact", "expected", "forward", "trimmed")


def build() -> tuple[Any, Any]:
    """(model, (2, T) token ids of chosen and rejected)."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=384, intermediate_size=1536, num_hidden_layers=6,
            num_attention_heads=6, num_key_value_heads=2, max_position_embeddings=4096, tie_word_embeddings=False,
            bos_token_id=None, eos_token_id=1, pad_token_id=0,
        )
    ).eval()  # fmt: skip
    ids_2T = torch.randint(2, VOCABULARY, (2, PROMPT + RESPONSE))
    ids_2T[1, :PROMPT] = ids_2T[0, :PROMPT]
    return model, ids_2T


def worker(kind: str, moves: int) -> None:
    """One measurement; prints one JSON line at the end."""
    import torch

    from prefopt.oracles.head import HeadProbe, Response
    from prefopt.oracles.perturbations import Perturbations
    from prefopt.oracles.plain import PlainProbe
    from prefopt.oracles.step import StepSettings, oracle_step

    model, ids_2T = build()
    weight_VD, target_2T = model.lm_head.weight.data, ids_2T[:, PROMPT:]

    def hidden() -> Any:
        return model.model(ids_2T).last_hidden_state[:, PROMPT - 1 : -1]

    def score() -> tuple[Any, Any]:
        logits = model.lm_head(hidden()) if kind == "trimmed" else model(ids_2T).logits[:, PROMPT - 1 : -1]
        logp_2 = logits.float().log_softmax(-1).gather(-1, target_2T[..., None]).sum((1, 2))
        return logp_2[:1], logp_2[1:]

    seconds: list[float] = []
    rate = 0.0
    with torch.inference_mode():
        score()
        if kind in ("fast", "exact", "expected"):
            # a gate of 0 and random weights: every step is taken, with all that belongs to it
            settings = StepSettings(
                moves, gate=0.0, radius=5e-4, estimator="expected" if kind == "expected" else "sampled"
            )
            for iteration in range(3):
                start = time.perf_counter()
                hidden_2TD = hidden()
                sides = [Response(h, t) for h, t in zip(hidden_2TD, target_2T, strict=True)]
                probe = HeadProbe(weight_VD, [(sides[0], sides[1])], fast_sampling=kind != "exact")
                report = oracle_step(probe, settings, seed=0, iteration=iteration)
                seconds.append(time.perf_counter() - start)
                rate = report.success_rate
                if report.skipped:
                    raise SystemExit(f"step {iteration} was skipped: {report.skipped}")
        elif kind != "loaded":
            probe_ = PlainProbe([weight_VD], score)
            for index in range(TIMED):
                start = time.perf_counter()
                probe_.survey(Perturbations(0, 0), [index], 5e-4)
                seconds.append((time.perf_counter() - start) * moves)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        json.dumps({"seconds": statistics.median(seconds[1:]) if seconds else 0, "peak": peak, "rate": rate})
    )


def train(kind: str, moves: int, folder: Path) -> None:
    """A whole run, or a loaded model; prints one JSON line at the end."""
    import prefopt
    from prefopt.models.loading import load_model

    shared = {
        "model": folder / "model", "data": folder / "pairs.jsonl", "output_dir": str(folder / "run"), "overwrite": True,
        "eval_size": 0, "sample_prompts": 0, "save_strategy": "no", "max_length": 4096, "bf16": False,
        "per_device_train_batch_size": 1,
    }  # fmt: skip
    if kind == "loaded":
        load_model(str(folder / "model"), dtype="float32")
    elif kind == "compo":
        prefopt.train(
            "compo",
            stage="oracle",
            perturbations=moves,
            noisy_pairs=3,
            gate=0.0,
            **shared,
        )
    else:
        prefopt.train("dpo", reference=kind, max_steps=3, **shared)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": 0, "peak": peak, "rate": 0}))


def runs(moves: int) -> list[str]:
    """Lines of the table of whole runs."""
    from text_speed import SHAPES, make_inputs

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_inputs(folder, next(s for s in SHAPES if s.name == f"{PROMPT}/{RESPONSE}"))
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        peaks = {kind: measure(kind, moves, folder)["peak"] / 2**30 for kind in RUNS}
    lines = ["| run | peak memory, GiB | above a loaded model | share of DPO's |", "|---|---|---|---|"]
    above = {kind: peak - peaks["loaded"] for kind, peak in peaks.items()}
    for kind, label in RUNS.items():
        share = "" if kind == "loaded" else f"{above[kind] / above['cached']:.2f}"
        lines.append(f"| {label} | {peaks[kind]:.2f} | {above[kind]:.2f} | {share} |")
    return lines


def measure(kind: str, moves: int, folder: Path | None = None) -> dict[str, float]:
    """Run a worker."""
    command = [sys.executable, __file__, "--kind", kind, "--moves", str(moves)]
    command += [] if folder is None else ["--folder", str(folder)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PREFOPT_QUIET": "1"},
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--moves", type=int, default=MOVES)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--write", type=Path, help="put the table into this page")
    parser.add_argument("--runs", action="store_true")
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.folder:
        train(args.kind, args.moves, args.folder)
        return
    if args.kind:
        worker(args.kind, args.moves)
        return
    if args.runs:
        lines = [about(args.moves) + "one pair a step.\n", *runs(args.moves)]
        finish(lines, args.write, "compo runs")
        return
    rounds = [{kind: measure(kind, args.moves) for kind in KINDS} for _ in range(args.rounds)]
    head = VOCABULARY * 384 * 4
    lines = [
        about(args.moves) + f"{args.rounds} rounds.\n",
        "| step | seconds | faster than a forward pass a move | than a trimmed one | memory above one forward pass, heads |",
        "|---|---|---|---|---|",
    ]
    for kind in KINDS[1:]:
        cells = [kind, f"{statistics.median(r[kind]['seconds'] for r in rounds):.2f}"]
        for other in ("forward", "trimmed"):
            ratios = [r[other]["seconds"] / r[kind]["seconds"] for r in rounds]
            bar = f"; bar {BAR:g}" if (kind, other) == ("fast", "forward") else ""
            spread = f" ({min(ratios):.1f} to {max(ratios):.1f}{bar})" if len(rounds) > 1 or bar else ""
            cells.append(f"{statistics.median(ratios):.1f}x{spread}")
        above = statistics.median(r[kind]["peak"] - r["loaded"]["peak"] for r in rounds)
        lines.append("| " + " | ".join([*cells, f"{above / head:.1f}"]) + " |")
    finish(lines, args.write, "compo")


def about(moves: int) -> str:
    """Versions, machine, sizes."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("prefopt", "transformers", "torch"))
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    return (
        f"{versions}, Python {sys.version.split()[0]}; {os.cpu_count()}-core CPU, {threads} threads, float32; {moves} moves, "
        f"{PROMPT}/{RESPONSE} tokens, "
    )


def finish(lines: list[str], path: Path | None, name: str) -> None:
    """Print the table, and put it into a page."""
    print("\n".join(lines))
    if path is None:
        return
    begin, end = f"<!-- {name}: written by benchmarks/compo_speed.py -->\n", f"\n<!-- end of {name} -->"
    page = path.read_text(encoding="utf-8")
    if begin not in page:
        raise SystemExit(f"{path} has no place for the table: add the lines\n{begin}{end}")
    before, after = page.split(begin)[0], page.split(end)[1]
    path.write_text(before + begin + "\n".join(lines) + end + after, encoding="utf-8")


if __name__ == "__main__":
    main()
