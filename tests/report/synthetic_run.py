"""A made-up run folder with everything a report may find, close to what a real run of DPO with ties writes.

Run as a script to look at the page: python tests/report/synthetic_run.py FOLDER
"""

from __future__ import annotations

import json
import math
import random
import sys
from pathlib import Path
from typing import Any

import yaml

STEPS = 600
NASTY = '<script>alert("x")</script><img src="http://evil.example/p.png" onerror="alert(1)">'


def write_run(folder: Path, *, seed: int = 0) -> Path:
    """Write all files of a finished run; returns the folder."""
    rng = random.Random(seed)
    record = folder / "record"
    record.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config(), sort_keys=False), "utf-8")
    lines = metrics(rng)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    for name, value in (
        ("manifest", manifest()),
        ("data", data(rng)),
        ("first_pair", first_pair()),
        ("margins", margins(rng)),
        ("samples", samples()),
    ):
        (record / f"{name}.json").write_text(json.dumps(value, indent=1), "utf-8")
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "model.safetensors").write_bytes(b"")
    return folder


def config() -> dict[str, Any]:
    return {
        "method": "dpo_rk", "model": "world:text", "data": "world:text", "output_dir": "runs/ties", "eval_data": None,
        "eval_size": 0.1, "max_length": 256, "beta": 0.3, "nu": 3.0, "dtype": "float32", "use_peft": False,
        "learning_rate": 5e-5, "optim": "adamw", "lr_scheduler_type": "linear", "warmup_steps": 20, "max_grad_norm": 1.0,
        "per_device_train_batch_size": 16, "gradient_accumulation_steps": 1, "num_train_epochs": 3.0, "max_steps": None,
        "seed": 0, "logging_steps": 5, "report_to": [],
    }  # fmt: skip


def metrics(rng: random.Random) -> list[dict[str, Any]]:
    lines = []
    for step in range(0, STEPS + 1, 5):
        t = step / STEPS
        gain = 1 - math.exp(-3.2 * t)
        epoch = round(3 * t, 4)

        def noisy(value: float, spread: float) -> float:
            return value + rng.gauss(0, spread)

        chosen, rejected = 0.35 * gain - 0.9 * t, -2.6 * gain
        if step:
            lines.append(
                {
                    "step": step, "epoch": epoch, "split": "train", "loss": noisy(0.9 - 0.42 * gain, 0.035),
                    "grad_norm": abs(noisy(1.6 + 0.8 * math.exp(-8 * t), 0.3)), "learning_rate": 5e-5 * min(1, step / 20) * (1 - t),
                    "num_tokens": step * 16 * 90, "rewards/chosen": noisy(chosen, 0.12), "rewards/rejected": noisy(rejected, 0.15),
                    "rewards/margins": noisy(chosen - rejected, 0.14), "rewards/accuracies": min(1.0, noisy(0.5 + 0.37 * gain, 0.05)),
                    "logps/chosen": noisy(-62 + 3 * chosen, 1.8), "logps/rejected": noisy(-60 + 3 * rejected, 2.0),
                    "displacement": min(1.0, max(0.0, noisy(0.5 + 0.14 * t, 0.05))), "length_gap": noisy(3.2, 2.1),
                    "ties/margin_abs": abs(noisy(0.35 * gain, 0.05)), "ties/share": min(1, abs(noisy(0.24, 0.05))),
                    "ties/loss": noisy(0.71 + 0.04 * t, 0.02), "ties/scale_win": noisy(0.4 - 0.2 * gain, 0.02),
                    "ties/scale_tie": noisy(0.05 + 0.02 * gain, 0.01),
                }
            )  # fmt: skip
        if step % 60 == 0:
            at_zero = step == 0
            lines.append(
                {
                    "step": step, "epoch": epoch, "split": "eval", "eval_loss": 0.9 if at_zero else noisy(0.91 - 0.36 * gain, 0.006),
                    "eval_rewards/chosen": 0.0 if at_zero else noisy(chosen * 0.9, 0.02),
                    "eval_rewards/rejected": 0.0 if at_zero else noisy(rejected * 0.85, 0.03),
                    "eval_rewards/margins": 0.0 if at_zero else noisy(0.85 * (chosen - rejected), 0.03),
                    "eval_rewards/accuracies": 0.5 if at_zero else (0.8313 if step == STEPS else noisy(0.5 + 0.33 * gain, 0.012)),
                    "eval_logps/chosen": -62 + 3 * chosen, "eval_logps/rejected": -60 + 2.8 * rejected,
                    "eval_displacement": 0.0 if at_zero else (0.6175 if step == STEPS else noisy(0.5 + 0.12 * t, 0.01)),
                    "eval_length_gap": 3.1, "eval_ties/margin_abs": 0.0 if at_zero else noisy(0.31 * gain, 0.01),
                    "eval_ties/share": 0.24, "eval_kl": 0.0 if at_zero else (4.217 if step == STEPS else noisy(4.3 * t**0.8, 0.1)),
                    "eval_reward": 0.312 if at_zero else (0.5829 if step == STEPS else noisy(0.31 + 0.28 * gain, 0.008)),
                    "eval_sample_length": noisy(41 + 6 * t, 0.6), "eval_sample_repetition": abs(noisy(0.03, 0.006)),
                }
            )  # fmt: skip
    return lines


def manifest() -> dict[str, Any]:
    return {
        "prefopt": "0.1.0", "run_name": "ties on the text world", "method": "dpo_rk", "title": "DPO with ties (Rao-Kupper)",
        "summary": "A tie is an observation too: it says that two answers differ by less than a threshold.",
        "paper": {
            "title": "On Extending Direct Preference Optimization to Accommodate Ties",
            "authors": "Jinghong Chen, Guangyu Yang, Weizhe Lin, Jingbiao Mei, Bill Byrne", "arxiv": "2409.17431", "year": 2024,
            "bibtex": "@article{chen2024extending,\n  title = {On Extending Direct Preference Optimization to Accommodate Ties},\n"
                      "  journal = {arXiv preprint arXiv:2409.17431},\n  year = {2024}\n}",
        },
        "status": "finished", "command": "prefopt train ties.yaml beta=0.3 seed=0",
        "started": "2026-11-23T10:02:11+00:00", "finished": "2026-11-23T10:07:23+00:00", "duration_s": 312.4,
        "versions": {"python": "3.11.9", "torch": "2.13.0", "transformers": "5.23.0", "peft": "0.19.1", "accelerate": "1.15.0"},
        "machine": {"device": "cpu", "cores": 2, "memory_gb": 15.6, "gpu": None},
        "model": {"source": "world:text", "class": "LlamaForCausalLM", "parameters": 1843200, "trainable": 1843200,
                  "dtype": "float32", "fingerprint": "9f2c4d11ab03e6a77c51b7a2"},
        "data": {"source": "world:text", "fingerprint": "51aa0c7712fe90b3a4d2", "examples": 3184, "eval_examples": 354},
        "seed": 0, "effective_batch_size": 16, "steps": STEPS, "epochs": 3.0,
        "memory_forecast": [
            {"part": "weights", "bytes": 7.4e6}, {"part": "gradients", "bytes": 7.4e6}, {"part": "optimizer", "bytes": 14.8e6},
            {"part": "activations of the longest batch", "bytes": 61.0e6}, {"part": "logits", "bytes": 22.0e6},
        ],
        "peak_memory_bytes": 104.3e6,
        "checks": [
            {"name": "zero margin", "status": "pass", "detail": "policy = reference gives 0.9003; expected 0.9003"},
            {"name": "first pair decoded", "status": "pass", "detail": "end of turn is scored on both sides; no doubled start token"},
            {"name": "longest batch first", "status": "pass", "detail": "16 pairs of at most 256 tokens, 104 MB at peak"},
            {"name": "trainable parameters", "status": "pass", "detail": "1,843,200 of 1,843,200"},
            {"name": "ties", "status": "note", "detail": "24.1% of comparisons tie; dpo_rk has a term for them"},
            {"name": "length", "status": "warn", "detail": "chosen is longer in 58.2% of pairs"},
        ],
        "zero_margin_loss": 0.9003, "non_default": {"beta": 0.1, "learning_rate": 1e-6, "num_train_epochs": 1.0, "warmup_steps": 0},
    }  # fmt: skip


def data(rng: random.Random) -> dict[str, Any]:
    edges = [float(10 * i) for i in range(21)]

    def counts(middle: float) -> list[int]:
        return [int(900 * math.exp(-((e + 5 - middle) ** 2) / (2 * 28**2))) for e in edges[:-1]]

    return {
        "source": "world:text", "rows": 3600, "examples": 3538,
        "comparisons": {"wins": 2685, "ties": 853, "soft": 0, "desirable": 0, "undesirable": 0},
        "dropped": {"identical_sides": 41, "empty_completion": 14, "prompt_too_long": 7}, "truncated": {"chosen": 12, "rejected": 9},
        "identical_sides": 41, "duplicates": 3, "conflicts": 6,
        "lengths": {
            "unit": "tokens",
            "prompt": {"min": 4, "median": 22, "p95": 48, "max": 71, "mean": 24.31},
            "chosen": {"min": 3, "median": 44, "p95": 118, "max": 186, "mean": 51.72},
            "rejected": {"min": 3, "median": 41, "p95": 109, "max": 180, "mean": 48.61},
        },
        "length_gap": {"mean": 3.11, "share_chosen_longer": 0.582},
        "histograms": {"chosen": {"edges": edges, "counts": counts(62)}, "rejected": {"edges": edges, "counts": counts(55)}},
        "label_balance_hint": None,
        "hints": [
            {"level": "warn", "text": "6 pairs are judged in both orders: they pull the model both ways. Make them ties."},
            {"level": "note", "text": "Chosen is longer in 58.2% of pairs; watch the sampled length."},
        ],
    }  # fmt: skip


def first_pair() -> dict[str, Any]:
    def side(name: str, answer: str, tokens: int, scored: int) -> dict[str, Any]:
        return {
            "name": name, "tokens": tokens, "scored": scored, "truncated": False,
            "segments": [
                {"text": "<|start|>user\n", "scored": False, "token_count": 3},
                {"text": "Write three even numbers, smallest first.", "scored": False, "token_count": 9},
                {"text": "<|end|>\n<|start|>assistant\n", "scored": False, "token_count": 5},
                {"text": answer + "<|end|>", "scored": True, "token_count": scored},
            ],
        }  # fmt: skip

    return {
        "id": "row-17", "outcome": [1.0, 0.0, 0.0],
        "sides": [side("chosen", "Two, four, eight. <b>Done</b>", 27, 10), side("rejected", "Four, two and then seven, I think.", 30, 13)],
    }  # fmt: skip


def margins(rng: random.Random) -> dict[str, Any]:
    return {
        "unit": "beta*(rho_w-rho_l), nats",
        "split": "held-out",
        "before": {"wins": [0.0] * 268, "ties": [0.0] * 86},
        "after": {
            "wins": [rng.gauss(1.75, 1.8) for _ in range(268)],
            "ties": [rng.gauss(0.03, 0.45) for _ in range(86)],
        },
    }


def samples() -> dict[str, Any]:
    tasks = [
        (
            "Write three even numbers, smallest first.",
            "Four and two and nine.",
            "Two, four, eight.",
            0.33,
            1.0,
        ),
        ("Name a colour and an animal.", "A colour and an animal.", "Green, and a heron.", 0.0, 1.0),
        ("Count down from five.", "Five, four, three, three, one.", "Five, four, three, two, one.", 0.6, 1.0),
        ("Say hello politely.", "Hello, how do you do?", "Good morning! How do you do? " + NASTY, 0.9, 0.7),
        ("Add two and six.", "Nine.", "Eight.", 0.0, 1.0),
        ("Spell cat backwards.", "t a c", "t a c", 1.0, 1.0),
    ]
    return {
        "settings": {"temperature": 1.0, "max_new_tokens": 64, "seed": 0},
        "prompts": [
            {
                "prompt": prompt,
                "generations": [
                    {
                        "step": 0,
                        "label": "before",
                        "text": before,
                        "score": low,
                        "length": len(before.split()),
                    },
                    {
                        "step": 300,
                        "label": "step 300",
                        "text": before,
                        "score": low,
                        "length": len(before.split()),
                    },
                    {
                        "step": STEPS,
                        "label": "after",
                        "text": after,
                        "score": high,
                        "length": len(after.split()),
                    },
                ],
            }
            for prompt, before, after, low, high in tasks
        ],
    }


if __name__ == "__main__":
    from prefopt.report import write_model_card, write_report

    target = write_run(Path(sys.argv[1]))
    print(write_report(target), write_model_card(target))
