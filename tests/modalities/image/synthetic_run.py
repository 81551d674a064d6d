"""Made-up run folders of image methods, close to what real runs of Diffusion-DPO and SPO write.

Run as a script to look at the page: python tests/report/synthetic_run.py FOLDER [offline|online] [SIDE]
"""

from __future__ import annotations

import json
import math
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from report.synthetic_run import NASTY

STEPS = 400
EVALUATIONS = 10
PROMPTS = [
    "a lighthouse at dusk, calm sea",
    "a red hot-air balloon over green hills, early morning, long shadows, photograph",
    f"a sign that says {NASTY}",
    "two moons",
]


def write_image_run(folder: Path, *, online: bool = False, side: int = 48, seed: int = 0) -> Path:
    """Write all files of a finished run; returns the folder."""
    rng = random.Random(seed)
    record = folder / "record"
    (record / "images").mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config(online), sort_keys=False), "utf-8")
    lines = online_metrics(rng) if online else offline_metrics(rng)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    values = {"manifest": manifest(online), "data": data(online), "samples": samples(record, side)}
    if not online:
        values |= {"margins": margins(rng), "first_pair": first_pair(record, side)}
    for name, value in values.items():
        (record / f"{name}.json").write_text(json.dumps(value, indent=1), "utf-8")
    model = folder / "model"
    (model / "unet").mkdir(parents=True, exist_ok=True)
    if online:
        (model / "pytorch_lora_weights.safetensors").write_bytes(b"")
    else:
        (model / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"")
        index = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
        (model / "model_index.json").write_text(json.dumps(index))
    return folder


def scene(side: int, which: int, vivid: float, grain: float) -> Image.Image:
    """Sky, a disc and hills: something that an eye can follow through training."""
    y_H1, x_1W = np.mgrid[0 : 1 : side * 1j, 0 : 1 : side * 1j]
    noise = np.random.default_rng(which)
    sky = np.stack([0.55 + 0.4 * y_H1, 0.6 + 0.1 * y_H1, 0.85 - 0.35 * y_H1], -1)
    middle = 0.25 + 0.17 * which
    disc = ((x_1W - middle) ** 2 + (y_H1 - 0.35) ** 2 < 0.02)[..., None]
    image = np.where(disc, np.array([0.95, 0.5 + 0.1 * which, 0.25]), sky)
    for k in range(3):
        ridge = 0.6 + 0.13 * k + 0.06 * np.sin(7 * x_1W * (1 + 0.3 * which) + 2 * k + which)
        hill = np.array([0.2 + 0.05 * k, 0.45 - 0.08 * k, 0.3 - 0.05 * which % 0.3])
        image = np.where((y_H1 > ridge)[..., None], hill, image)
    grey = image.mean(-1, keepdims=True)
    image = grey + vivid * (image - grey) + noise.normal(0, grain, image.shape)
    return Image.fromarray((255 * image.clip(0, 1)).astype(np.uint8))


def config(online: bool) -> dict[str, Any]:
    shared = {
        "model": "org/sd-1.5", "output_dir": "runs/pictures", "eval_size": 0.1, "max_length": 1024, "dtype": "float32",
        "seed": 0, "logging_steps": 5, "sample_max_new_tokens": 64, "sample_temperature": 1.0, "load_in_4bit": False,
        "max_steps": STEPS, "num_inference_steps": 20, "guidance_scale": 5.0,
    }  # fmt: skip
    if online:
        own = {
            "method": "spo",
            "data": "prompts.txt",
            "beta": 10.0,
            "clip_eps": 0.1,
            "use_peft": True,
            "lora_r": 4,
            "judge": "lrm:judges/lrm",
        }
    else:
        own = {"method": "diffusion_dpo", "data": "org/pick-pairs", "beta": 5000.0, "use_peft": False, "ties": "drop",
               "reward": "pickscore:judges/pick", "resolution": 512}  # fmt: skip
    return {**own, **shared}


def offline_metrics(rng: random.Random) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for step in range(0, STEPS + 1, 5):
        t = step / STEPS
        gain = 1 - math.exp(-3 * t)
        better, worse = 0.02 * gain - 0.3 * t, -0.75 * gain  # rewards: 2500 times the fall of the error
        if step:
            level = rng.gauss(0, 0.03)
            lines.append(
                {
                    "step": step, "epoch": 2 * t, "split": "train", "loss": 0.693 - 0.07 * gain + rng.gauss(0, 0.06),
                    "rewards/chosen": better + rng.gauss(0, 0.4), "rewards/rejected": worse + rng.gauss(0, 0.4),
                    "rewards/margins": better - worse + rng.gauss(0, 0.3), "rewards/accuracies": min(1, 0.5 + 0.13 * gain + rng.gauss(0, 0.06)),
                    "logps/chosen": -0.12 - level + better / 2500, "logps/rejected": -0.121 - level + worse / 2500,
                    "displacement": min(1, max(0, 0.5 + 0.1 * t + rng.gauss(0, 0.05))), "length_gap": 0.0, "num_tokens": 4096.0 * step,
                    "grad_norm": abs(0.4 + rng.gauss(0, 0.06)), "learning_rate": 6e-7 * min(1, step / 50),
                }
            )  # fmt: skip
        if step % (STEPS // EVALUATIONS) == 0:
            lines.append(
                {
                    "step": step, "epoch": 2 * t, "split": "eval", "eval_loss": 0.693 - 0.06 * gain, "eval_rewards/chosen": better,
                    "eval_rewards/rejected": worse, "eval_rewards/margins": better - worse,
                    "eval_rewards/accuracies": 0.5 if step == 0 else (0.6124 if step == STEPS else 0.5 + 0.12 * gain),
                    "eval_logps/chosen": -0.12 + better / 2500, "eval_logps/rejected": -0.121 + worse / 2500,
                    "eval_displacement": 0.0 if step == 0 else 0.45 + 0.18 * t, "eval_reward": 20.4 + 0.7 * gain,
                    "eval_sample_change": 0.11 * gain, "eval_sample_saturation": 0.21 + 0.16 * t,
                }
            )  # fmt: skip
    return lines


def online_metrics(rng: random.Random) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for step in range(0, STEPS + 1, 5):
        t = step / STEPS
        if step:
            out = max(0.0, 0.35 * t + rng.gauss(0, 0.03))
            lines.append(
                {
                    "step": step, "epoch": t, "split": "train", "loss": 0.692 - 0.02 * t + rng.gauss(0, 0.002),
                    "rewards/chosen": 0.02 * t + rng.gauss(0, 0.01), "rewards/rejected": -0.06 * t + rng.gauss(0, 0.01),
                    "rewards/margins": 0.08 * t + rng.gauss(0, 0.01), "rewards/accuracies": min(1, 0.55 + 0.15 * t + rng.gauss(0, 0.04)),
                    "logps/chosen": 0.4, "logps/rejected": 0.39, "displacement": 0.3 + rng.gauss(0, 0.03), "num_tokens": 640.0 * step,
                    "step_dpo/clipped_chosen": min(1, 1.2 * out), "step_dpo/clipped_rejected": min(1, 1.5 * out), "step_dpo/clipped_both": out,
                    "collect/pairs": 800.0, "collect/kept": 0.34 + rng.gauss(0, 0.03), "collect/score": 20.1 + 0.9 * t + rng.gauss(0, 0.1),
                    "collect/gap": 0.22 - 0.05 * t + rng.gauss(0, 0.01), "collect/network_calls": 960.0, "collect/updates": 26.0,
                    "grad_norm": abs(0.5 + rng.gauss(0, 0.05)), "learning_rate": 6e-5,
                }
            )  # fmt: skip
        if step % (STEPS // EVALUATIONS) == 0:
            lines.append(
                {"step": step, "epoch": t, "split": "eval", "eval_sample_change": 0.13 * t**0.7,
                 "eval_sample_saturation": 0.21 + 0.03 * t, "eval_reward": 20.1 + 0.8 * t}
            )  # fmt: skip
    return lines


def manifest(online: bool) -> dict[str, Any]:
    papers = {
        False: {"title": "Diffusion Model Alignment Using Direct Preference Optimization", "authors": "Bram Wallace, Meihua Dang",
                "year": 2023, "arxiv": "2311.12908", "venue": "CVPR 2024", "bibtex": "@article{wallace2023diffusion,\n}"},
        True: {"title": "A Gradient Guidance Perspective", "authors": "Joshua Tian Jin Tee", "year": 2025, "arxiv": "",
               "openreview": "d6lIOnvOX2", "venue": "NeurIPS 2025", "bibtex": "@article{tee2025a,\n}"},
    }  # fmt: skip
    own = (
        {"method": "spo", "title": "Step-by-step preference optimization", "data": {"source": "prompts.txt", "examples": 0, "eval_examples": 0},
         "summary": "DPO on single denoising steps: best against worst of K candidates from the same noisy image."}
        if online
        else {"method": "diffusion_dpo", "title": "Diffusion-DPO", "zero_margin_loss": 0.6931,
              "data": {"source": "org/pick-pairs", "examples": 5120, "eval_examples": 569},
              "summary": "DPO with the denoising error at one shared noise level in place of log-likelihoods."}
    )  # fmt: skip
    return {
        "prefopt": "0.1.0", "run_name": "pictures", "modality": "image", "paper": papers[online], "status": "finished",
        "command": "prefopt train " + own["method"], "started": "2026-11-23T10:02:11+00:00", "duration_s": 8123.0,
        "versions": {"python": "3.11.9", "torch": "2.13.0"}, "machine": {"device": "cuda", "cores": 16, "memory_gb": 128.0, "gpu": "NVIDIA H100"},
        "model": {"source": "org/sd-1.5", "class": "UNet2DConditionModel", "parameters": 859520964, "trainable": 859520964, "dtype": "float32"},
        "seed": 0, "effective_batch_size": 64, "steps": STEPS, "epochs": 2.0,
        "memory_forecast": [{"part": "weights", "bytes": 3.4e9}, {"part": "gradients", "bytes": 3.4e9}, {"part": "optimizer", "bytes": 6.9e9}],
        "peak_memory_bytes": 21.3e9,
        "checks": [{"name": "start value", "status": "pass", "detail": "policy equals reference; loss 0.6931"},
                   {"name": "latent cache", "status": "note", "detail": "10,240 images and 812 prompts encoded now"}],
        **own,
    }  # fmt: skip


def data(online: bool) -> dict[str, Any]:
    if online:
        return {"source": "prompts.txt", "rows": 4000, "examples": 3998, "comparisons": {"prompts": 3998}, "dropped": {"empty_prompt": 2},
                "truncated": {}, "hints": []}  # fmt: skip
    return {
        "source": "org/pick-pairs", "rows": 6400, "examples": 5689, "comparisons": {"wins": 5689, "ties": 0}, "dropped": {"tie": 640, "image_unreadable": 71},
        "truncated": {"chosen": 0, "rejected": 0}, "identical_sides": 0, "duplicates": 5, "conflicts": 2,
        "lengths": {"unit": "characters", "prompt": {"min": 3, "median": 61.0, "p95": 240.0, "max": 512, "mean": 88.4}, "chosen": None, "rejected": None},
        "length_gap": {"mean": None, "share_chosen_longer": None}, "histograms": {}, "label_balance_hint": None,
        "hints": [{"level": "warn", "text": "the chosen image is the larger one in 91% of the pairs: once resized, a model can learn sharpness instead of quality"}],
        "images": {
            "count": 11378, "distinct": 11001, "megabytes": 1523.4, "formats": {"JPEG": 11000, "PNG": 378}, "modes": {"RGB": 11370, "L": 8},
            "sizes": {"512 x 512": 9800, "768 x 768": 1200, "1024 x 1024": 300, "other": 78},
            "width": {"min": 512, "median": 512.0, "p95": 768.0, "max": 1024, "mean": 559.0},
            "height": {"min": 512, "median": 512.0, "p95": 768.0, "max": 1024, "mean": 559.0}, "mixed_sizes": 214,
        },
    }  # fmt: skip


def margins(rng: random.Random) -> dict[str, Any]:
    return {
        "unit": "beta * (rho_w - rho_l), nats", "split": "held-out", "before": {"wins": [0.0] * 569, "ties": []},
        "after": {"wins": [rng.gauss(0.35, 1.1) for _ in range(569)], "ties": []},
    }  # fmt: skip


def first_pair(record: Path, side: int) -> dict[str, Any]:
    sides = []
    for name, vivid, grain in (("chosen", 1.0, 0.01), ("rejected", 0.5, 0.15)):
        scene(side, 2, vivid, grain).save(record / "images" / f"first-{name}.png")
        sides.append({"name": name, "prompt": PROMPTS[1], "image": f"record/images/first-{name}.png"})
    return {"id": "row-17", "outcome": [1.0, 0.0, 0.0], "sides": sides}


def samples(record: Path, side: int) -> dict[str, Any]:
    entries = []
    for n, prompt in enumerate(PROMPTS):
        drawn = []
        for step in range(0, STEPS + 1, STEPS // EVALUATIONS):
            t = step / STEPS
            name = f"step-{step:06d}-{n}.png"
            scene(side, n, 0.7 + 0.7 * t, 0.12 * (1 - t) + 0.01).save(record / "images" / name)
            label = "before" if step == 0 else "after" if step == STEPS else f"step {step}"
            score = 20.0 + n / 2 + (1.4 * t if n != 1 else -0.3 * t)
            drawn.append({"step": step, "label": label, "image": f"record/images/{name}", "score": score})
        entries.append({"prompt": prompt, "generations": drawn})
    settings = {"num_inference_steps": 20, "guidance_scale": 5.0, "seeds": [0, 1, 2, 3]}
    return {"settings": settings, "prompts": entries}


if __name__ == "__main__":
    from prefopt.report import write_model_card, write_report

    target = write_image_run(
        Path(sys.argv[1]), online="online" in sys.argv, side=int(sys.argv[3]) if len(sys.argv) > 3 else 48
    )
    print(write_report(target), write_model_card(target))
