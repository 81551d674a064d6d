"""A made-up run folder of SoPo on motions, close to what a real run writes.

Run as a script to look at the page: python tests/modalities/motion/report/synthetic_motion_run.py FOLDER [humanml3d|kit]
"""

from __future__ import annotations

import json
import math
import random
import sys
from pathlib import Path
from typing import Any

import yaml

from prefopt.motion.humanml3d import HUMANML3D, KIT
from report.synthetic_run import NASTY
from walking_figures import wander

STEPS = 200
PROMPTS = [
    "a person walks forward",
    "a man waves with his left hand twice",
    f"someone writes {NASTY}",
    "a figure turns",
]


def write_motion_run(folder: Path, *, codec: str = "humanml3d", frames: int = 40, prompts: int = 4) -> Path:
    """Write all files of a finished run; returns the folder."""
    record = folder / "record"
    record.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config(), sort_keys=False), "utf-8")
    lines = metrics(random.Random(0))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    values = {
        "manifest": manifest(), "data": data(codec), "samples": samples(codec, frames, prompts), "first_pair": first_pair(codec, frames),
        "margins": margins(), "calibration": calibration(),
    }  # fmt: skip
    for name, value in values.items():
        (record / f"{name}.json").write_text(json.dumps(value), "utf-8")
    (folder / "model" / "denoiser").mkdir(parents=True, exist_ok=True)
    (folder / "model" / "denoiser" / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    (folder / "model" / "model_index.json").write_text(json.dumps({"_class_name": "MotionPipeline"}))
    return folder


def motion(codec: str, frames: int, seed: int) -> list[list[list[float]]]:
    """Positions as a record has them."""
    known = {"humanml3d": HUMANML3D, "kit": KIT}[codec]
    return [
        [[round(x, 3) for x in joint] for joint in frame]
        for frame in wander(frames, seed, codec=known).tolist()
    ]


def shape(codec: str) -> dict[str, Any]:
    known = {"humanml3d": HUMANML3D, "kit": KIT}[codec]
    return {"fps": known.fps, "codec": codec, "parents": list(known.skeleton.parents)}


def samples(codec: str, frames: int, prompts: int) -> dict[str, Any]:
    moments = [(0, "before", 0.25), (STEPS // 2, f"step {STEPS // 2}", 0.5), (STEPS, "after", 0.75)]
    return {
        "settings": {"num_inference_steps": 50, "guidance_scale": 2.5, "seeds": list(range(prompts)), **shape(codec)},
        "prompts": [
            {
                "prompt": PROMPTS[n % len(PROMPTS)],
                "generations": [
                    {"step": step, "label": label, "motion": motion(codec, frames, 10 * n + k), "length": frames, "score": score}
                    for k, (step, label, score) in enumerate(moments)
                ],
            }
            for n in range(prompts)
        ],
    }  # fmt: skip


def first_pair(codec: str, frames: int) -> dict[str, Any]:
    ends = [("chosen", frames, 1), ("rejected", frames // 2, 2)]
    sides = [
        {"name": name, "prompt": PROMPTS[0], "text": f"{n} frames", "motion": motion(codec, n, seed)} for name, n, seed in ends
    ]  # fmt: skip
    return {"id": "train-0", "outcome": [1.0, 0.0, 0.0], "sides": sides, **shape(codec)}


def config() -> dict[str, Any]:
    return {
        "method": "sopo", "model": "models/mdm", "data": "data/HumanML3D", "judge": "retrieval:judges/tmr", "output_dir": "runs/moves",
        "beta": 1.0, "C": 2.0, "candidates": 4, "candidate_steps": 10, "error_scale": "steps", "use_peft": False, "max_steps": STEPS,
        "num_inference_steps": 50, "guidance_scale": 2.5, "seed": 0, "learning_rate": 1e-5,
    }  # fmt: skip


def manifest() -> dict[str, Any]:
    return {
        "prefopt": "0.1.0", "run_name": "moves", "modality": "motion", "status": "finished", "method": "sopo",
        "title": "Semi-online preference optimization", "summary": "Winners from the data, losers sampled now.",
        "started": "2026-01-02T10:00:00+00:00", "finished": "2026-01-02T11:00:00+00:00", "duration_s": 3600.0, "steps": STEPS, "epochs": 1.0,
        "seed": 0, "zero_margin_loss": 0.6931, "effective_batch_size": 32, "checks": [{"name": "calibration", "status": "note", "detail": "d"}],
        "model": {"source": "models/mdm", "class": "MotionDenoiser", "parameters": 17_900_000, "trainable": 17_900_000},
        "data": {"source": "data/HumanML3D", "examples": 6000, "eval_examples": 400, "fingerprint": "f00d", "not_held_out": None},
        "machine": {"device": "cuda", "gpu": "RTX"}, "versions": {"torch": "2.13.0"},
        "paper": {"title": "SoPo", "authors": "Tan et al.", "year": 2024, "arxiv": "2412.05095", "bibtex": "@article{x}"},
    }  # fmt: skip


def data(codec: str) -> dict[str, Any]:
    return {
        "source": "data/HumanML3D", "rows": 6400, "examples": 6000, "comparisons": {"wins": 6000, "ties": 0, "soft": 0}, "dropped": {"too_short": 12},
        "lengths": {"unit": "characters", "prompt": {"min": 8, "median": 50, "p95": 110, "max": 300, "mean": 55}, "chosen": None},
        "hints": [{"level": "note", "text": "12 motion(s) are longer than 196 frames: each epoch shows a stretch"}],
        "motions": {
            "codec": codec, "count": 12_000, "distinct": 11_990, "captions": 18_000, "fps": 20.0,
            "frames": {"min": 40, "median": 120, "p95": 190, "max": 199, "mean": 118.4},
        },
    }  # fmt: skip


def calibration() -> dict[str, Any]:
    return {
        "examples": 64, "recognition": 0.93, "matched_reward": 0.81, "worst_rewards": [0.3, 0.4, 0.5, 0.6, 0.7], "tau": 0.45, "share": 0.5,
        "candidates": 4,
    }  # fmt: skip


def margins() -> dict[str, Any]:
    rng = random.Random(1)
    wins = [rng.gauss(0.2, 0.4) for _ in range(400)]
    return {
        "split": "eval",
        "unit": "beta*(rho_w-rho_l)",
        "before": {"wins": [0.0] * 400, "ties": []},
        "after": {"wins": wins, "ties": []},
    }


def metrics(
    rng: random.Random, slope: float | None = None, kept: float | None = None
) -> list[dict[str, Any]]:
    """Lines of a run; `slope` and `kept` hold throughout where they are given."""
    lines: list[dict[str, Any]] = []
    for step in range(0, STEPS + 1, 5):
        t = step / STEPS
        gain = 1 - math.exp(-3 * t)
        if step:
            lines.append(
                {
                    "step": step, "split": "train", "loss": 0.693 - 0.1 * gain + rng.gauss(0, 0.02), "rewards/accuracies": 0.5 + 0.2 * gain,
                    "rewards/margins": 0.3 * gain, "rewards/chosen": 0.1 * gain, "rewards/rejected": -0.2 * gain, "logps/chosen": -4.5,
                    "logps/rejected": -4.7, "displacement": 0.3, "num_tokens": 100.0 * step, "grad_norm": 2.0, "learning_rate": 1e-5,
                    "sopo/slope": 0.5 - 0.2 * gain if slope is None else slope, "sopo/weight": 1.4, "sopo/z": 0.4 * gain,
                    "sopo/kept": 0.5, "collect/kept": 0.5 - 0.1 * t if kept is None else kept, "collect/rejected_reward": 0.4 + 0.1 * t,
                    "collect/best_reward": 0.7 + 0.05 * t, "collect/reward": 0.55 + 0.1 * t, "collect/similarity": 0.6, "collect/network_calls": 20.0,
                }
            )  # fmt: skip
        if step % 50 == 0:
            lines.append(
                {
                    "step": step, "split": "eval", "eval_loss": 0.693 - 0.1 * gain, "eval_rewards/accuracies": 0.5 + 0.2 * gain,
                    "eval_rewards/margins": 0.3 * gain, "eval_rewards/chosen": 0.1 * gain, "eval_rewards/rejected": -0.2 * gain,
                    "eval_logps/chosen": -4.5 + 0.1 * gain, "eval_logps/rejected": -4.7 - 0.2 * gain, "eval_displacement": 0.3 * gain,
                    "eval_sopo/slope": 0.5 - 0.1 * gain, "eval_sopo/kept": 1.0, "eval_reward": 0.5 + 0.2 * gain, "eval_sample_change": 0.3 * gain,
                    "eval_sample_jerk": 60.0 + 5 * gain,
                }
            )  # fmt: skip
    return lines


if __name__ == "__main__":
    from prefopt.report import write_report

    print(write_report(write_motion_run(Path(sys.argv[1]), codec=[*sys.argv, "humanml3d"][2], frames=120)))
