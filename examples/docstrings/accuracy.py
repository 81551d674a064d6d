"""How often a model gives the preferred side of held-out pairs the higher likelihood; no reference involved.

    python examples/docstrings/accuracy.py MODEL examples/docstrings/data/test.jsonl

`rewards/accuracies` of a training run compares with the reference, so it starts at 0.5 whatever the model knows.
This is the model's own ranking, by log-probabilities summed over the completion and by their mean per token. Ties are
left out.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from prefopt.comparisons import Item
from prefopt.likelihoods.tokens import TokenLikelihood


def main() -> None:
    parser = argparse.ArgumentParser(description="Ranking accuracy by log-probability.")
    parser.add_argument("model")
    parser.add_argument("pairs", type=Path)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    model = AutoModelForCausalLM.from_pretrained(arguments.model).float().eval()
    likelihood = TokenLikelihood(AutoTokenizer.from_pretrained(arguments.model))
    rows = [json.loads(line) for line in arguments.pairs.read_text(encoding="utf-8").splitlines()]
    wins = [row for row in rows if row["label"] == "win"]
    items = [
        likelihood.encode(Item(condition={"prompt": row["prompt"]}, sample=row[side]))
        for row in wins
        for side in ("chosen", "rejected")
    ]
    logps, lengths = [], []
    with torch.inference_mode():
        for start in range(0, len(items), 64):
            scores = likelihood.score(model, likelihood.plan(items[start : start + 64]))
            logps.append(scores.logp_N)
            lengths.append(scores.length_N)
    logp_N, length_N = torch.cat(logps), torch.cat(lengths)
    for name, score_N in (("sum", logp_N), ("mean per token", logp_N / length_N)):
        right = score_N[0::2] > score_N[1::2]
        print(f"{name}: {right.double().mean():.3f} of {len(wins)} pairs ranked right")


if __name__ == "__main__":
    main()
