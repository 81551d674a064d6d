"""The examples for images over several seeds: does each raise the exact reward that it targets, and by how much?

    python benchmarks/image_examples.py --seeds 0 1 2     # about 90 s a run on an idle core, 27 runs

Each run is the command in the example's file with another seed, which changes the order of the data, all noise, the
samples' prompts and seeds; the world's pretrained model is one for all. Finished runs in `--folder` are kept. Gains are
paired by seed; intervals are 95 % t-intervals over seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples" / "images"
# the judge first: lpo asks it
METHODS = ("lrm", "diffusion_dpo", "ties", "diffusion_kto", "mapo", "spo", "gradspo", "d3po", "lpo")


def train(method: str, seed: int, folder: Path) -> Path:
    """Run an example unless it has finished; returns its folder."""
    run = folder / f"s{seed}" / method
    manifest = run / "record" / "manifest.json"
    if manifest.exists() and json.loads(manifest.read_text())["status"] == "finished":
        return run
    command = [sys.executable, "-m", "prefopt", "train", str(EXAMPLES / f"{method}.yaml"), f"seed={seed}"]
    command += [f"output_dir={run}", "overwrite=true"]
    if method == "lpo":
        command.append(f"judge=lrm:{folder / f's{seed}' / 'lrm' / 'model'}")
    out = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    if out.returncode:
        raise SystemExit(f"{' '.join(command)}\n{out.stderr[-2000:]}")
    return run


def ends(run: Path, name: str) -> tuple[float, float]:
    """The first and the last value of an evaluation's metric."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found = [line[name] for line in lines if name in line]
    return found[0], found[-1]


def interval(values: Sequence[float]) -> str:
    """Mean and 95 % t-interval."""
    from prefopt.reproduce.core import t_interval

    mean, (low, high) = statistics.fmean(values), t_interval(values)
    return f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=Path("runs/image_examples"))
    given = parser.parse_args()
    lines = [
        f"| example | before | after, seed {', '.join(map(str, given.seeds))} | gain |",
        "|---|---|---|---|",
    ]
    for method in METHODS:
        name = "eval_rewards/accuracies" if method == "lrm" else "eval_reward"
        pairs = [ends(train(method, seed, given.folder), name) for seed in given.seeds]
        before = statistics.fmean(first for first, _ in pairs)
        after = ", ".join(f"{last:.2f}" for _, last in pairs)
        gain = interval([last - first for first, last in pairs])
        lines.append(
            f"| `{method}`{' (accuracy)' if method == 'lrm' else ''} | {before:.2f} | {after} | {gain} |"
        )
        print(lines[-1], file=sys.stderr)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
