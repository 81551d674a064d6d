"""How often a model gives the preferred side of held-out pairs the higher likelihood; no reference involved.

    python examples/docstrings/accuracy.py runs/docstrings/data/test.jsonl MODEL [MODEL ...]

`rewards/accuracies` of a training run compares with the reference, so it starts at 0.5 whatever the model knows. This
is each model's own ranking: by log-probabilities summed over the completion, and by their mean over its tokens. Ties
are left out. Intervals are 95 % percentiles of 2000 bootstrap samples over the modules that functions come from, since
functions of a module resemble each other; the gain over the first model is resampled in pairs.

Legend of shape suffixes: N pairs, M modules, S bootstrap samples.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from prefopt.comparisons import Item
from prefopt.likelihoods.tokens import TokenLikelihood

SAMPLES = 2000
BATCH = 64


def ranked_right(model_path: str, rows: list[dict[str, str]]) -> dict[str, np.ndarray]:
    """(N,) 1.0 where the chosen side scores higher, by kind of score."""
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32).eval()
    likelihood = TokenLikelihood(AutoTokenizer.from_pretrained(model_path))
    items = [
        likelihood.encode(Item(condition={"prompt": row["prompt"]}, sample=row[side]))
        for row in rows
        for side in ("chosen", "rejected")
    ]
    batches = [items[start : start + BATCH] for start in range(0, len(items), BATCH)]
    with torch.inference_mode():
        total = torch.cat([likelihood.score(model, likelihood.plan(batch)).logp_N for batch in batches])
    mean = total / torch.tensor([len(item.ids) - item.start for item in items])
    return {
        name: (score[0::2] > score[1::2]).double().numpy()
        for name, score in (("sum", total), ("mean per token", mean))
    }


def with_interval(value_N: np.ndarray, module_N: np.ndarray) -> str:
    """Mean of the values and its interval, modules resampled."""
    sum_M = np.bincount(module_N, weights=value_N)
    count_M = np.bincount(module_N)
    chosen_SM = np.random.default_rng(0).integers(len(sum_M), size=(SAMPLES, len(sum_M)))
    mean_S = sum_M[chosen_SM].sum(1) / count_M[chosen_SM].sum(1)
    low, high = np.percentile(mean_S, [2.5, 97.5])
    return f"{value_N.mean():.3f} [{low:.3f}, {high:.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description="Ranking accuracy by log-probability.")
    parser.add_argument("pairs", type=Path, help="test.jsonl of make_pairs.py")
    parser.add_argument("models", nargs="+", help="model folders; gains are over the first")
    arguments = parser.parse_args()
    if not arguments.pairs.is_file():
        parser.error(f"there is no file {arguments.pairs}: make it with examples/docstrings/make_pairs.py")
    if missing := [path for path in arguments.models if not Path(path, "config.json").is_file()]:
        parser.error(f"no model is saved in {', '.join(missing)}: give folders that hold a config.json")
    logging.disable_progress_bar()
    lines = arguments.pairs.read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["label"] == "win"]
    _, module_N = np.unique([row["source"] for row in rows], return_inverse=True)
    print(f"{len(rows)} held-out pairs of {module_N.max() + 1} modules; share ranked right")
    first: dict[str, np.ndarray] = {}
    for path in arguments.models:
        right = ranked_right(path, rows)
        first = first or right
        print(path)
        for name, right_N in right.items():
            gain = "" if right is first else f", gain {with_interval(right_N - first[name], module_N)}"
            print(f"  by {name}: {with_interval(right_N, module_N)}{gain}")


if __name__ == "__main__":
    main()
