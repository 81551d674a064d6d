"""Made-up run folders of control methods, close to what real runs of condition preference optimization write.

Run as a script to look at the page: python tests/modalities/control/synthetic_run.py FOLDER [edges|classes|amounts] [SIDE]
"""

from __future__ import annotations

import json
import math
import random
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from PIL import Image

from modalities.image import synthetic_run as image_run

Kind = Literal["edges", "classes", "amounts"]
STEPS, EVERY, IMAGES = 400, 100, 12
T = [62, 187, 312, 437, 562, 687, 812, 937]
METRICS = {"edges": "edge_f1", "classes": "miou", "amounts": "rmse"}
COLOURS = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128]], dtype=np.uint8)
PROMPTS = image_run.PROMPTS


def write_control_run(folder: Path, *, kind: Kind = "edges", side: int = 48, gain: float = 0.3) -> Path:
    """Write all files of a finished run whose images follow better by `gain`; returns the folder."""
    rng = random.Random(0)
    image_run.write_image_run(folder, side=side)
    record = folder / "record"
    config = yaml.safe_load((folder / "config.yaml").read_text("utf-8"))
    config |= {
        "method": "condition_po",
        "detector": f"{kind}_detector",
        "data": "pairs/rows.jsonl",
        "reward": None,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), "utf-8")
    manifest = json.loads((record / "manifest.json").read_text("utf-8"))
    manifest |= {
        "modality": "control",
        "method": "condition_po",
        "title": "Condition preference optimization",
    }
    agreement = {step: agreements(step, gain) for step in range(0, STEPS + 1, EVERY)}
    values: dict[str, Any] = {
        "manifest": manifest,
        "samples": samples(record, kind, side, agreement),
        "first_pair": first_pair(record, kind, side),
        "timesteps": timesteps(rng),
        "fidelity": {
            "detector": f"{kind}_detector", "metric": METRICS[kind], "higher_is_better": kind != "amounts",
            "steps": [{"step": step, "agreement": values} for step, values in agreement.items()],
        },
    }  # fmt: skip
    for name, value in values.items():
        (record / f"{name}.json").write_text(json.dumps(value, indent=1), "utf-8")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    for line in lines:
        line.pop("eval_reward", None)
        if line["split"] == "eval" and line["step"] in agreement:
            mean = sum(agreement[line["step"]]) / IMAGES
            line["eval_sample_agreement"] = line["eval_reward"] = mean
            line[f"eval_fidelity_{METRICS[kind]}"] = 60 * (1 - mean) if kind == "amounts" else mean + 0.02
            line["eval_sample_diversity"] = 0.3 - 0.02 * line["step"] / STEPS
            line["eval_sample_saturation"] = 0.21
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    index = {
        "_class_name": "StableDiffusionControlNetPipeline",
        "controlnet": ["diffusers", "ControlNetModel"],
    }
    (folder / "model" / "model_index.json").write_text(json.dumps(index))
    return folder


def agreements(step: int, gain: float) -> list[float]:
    """Of each image; they differ more than they gain."""
    rise = 1 - math.exp(-3 * step / STEPS)
    return [0.35 + 0.03 * n + gain * rise * (1 + 0.3 * math.sin(n)) for n in range(IMAGES)]


def layout(side: int, which: int, off: float) -> np.ndarray:
    """(H, W) class ids: two hills and a disc, moved by a share of the side."""
    y_H1, x_1W = np.mgrid[0 : 1 : side * 1j, 0 : 1 : side * 1j]
    x_1W = x_1W + off
    ids_HW = np.zeros((side, side), dtype=np.int64)
    for k in range(2):
        ids_HW[y_H1 > 0.6 + 0.17 * k + 0.08 * np.sin(7 * x_1W * (1 + 0.3 * which) + 2 * k + which)] = k + 1
    ids_HW[(x_1W - 0.25 - 0.17 * which) ** 2 + (y_H1 - 0.35) ** 2 < 0.02 + off / 10] = 3 + which % 2
    return ids_HW


def draw(ids_HW: np.ndarray, kind: Kind) -> Image.Image:
    """A control image."""
    if kind == "classes":
        return Image.fromarray(COLOURS[ids_HW])
    if kind == "amounts":
        return Image.fromarray(np.repeat((ids_HW * 60)[..., None], 3, -1).astype(np.uint8))
    edges_HW = np.zeros(ids_HW.shape, dtype=bool)
    edges_HW[1:] |= ids_HW[1:] != ids_HW[:-1]
    edges_HW[:, 1:] |= ids_HW[:, 1:] != ids_HW[:, :-1]
    return Image.fromarray(np.repeat(255 * edges_HW[..., None], 3, -1).astype(np.uint8))


def samples(record: Path, kind: Kind, side: int, agreement: dict[int, list[float]]) -> dict[str, Any]:
    entries = []
    for n, prompt in enumerate(PROMPTS):
        draw(layout(side, n, 0.0), kind).save(record / "images" / f"given-{n}.png")
        drawn = []
        for step, values in agreement.items():
            name = f"step-{step:06d}-{n}"
            image_run.scene(side, n, 1.0, 0.05).save(record / "images" / f"{name}.png")
            draw(layout(side, n, 0.12 * (1 - 0.8 * step / STEPS)), kind).save(
                record / "images" / f"{name}-read.png"
            )
            label = "before" if step == 0 else "after" if step == STEPS else f"step {step}"
            drawn.append(
                {
                    "step": step, "label": label, "image": f"record/images/{name}.png", "given": f"record/images/given-{n}.png",
                    "read": f"record/images/{name}-read.png", "agreement": values[n], "score": values[n],
                }
            )  # fmt: skip
        entries.append({"prompt": prompt, "generations": drawn})
    return {
        "settings": {"num_inference_steps": 20, "guidance_scale": 7.5, "seeds": [0, 1, 2, 3]},
        "prompts": entries,
    }


def first_pair(record: Path, kind: Kind, side: int) -> dict[str, Any]:
    sides = []
    for name, off in (("chosen", 0.0), ("rejected", 0.08)):
        draw(layout(side, 2, off), kind).save(record / "images" / f"first-{name}.png")
        sides.append({"name": name, "prompt": PROMPTS[1], "image": f"record/images/first-{name}.png"})
    image_run.scene(side, 2, 1.0, 0.01).save(record / "images" / "first-image.png")
    shared = {"name": "image", "image": "record/images/first-image.png"}
    return {"id": "row-17", "outcome": [1.0, 0.0, 0.0], "sides": sides, "shared": shared, "made": False}


def timesteps(rng: random.Random, pairs: int = 48) -> dict[str, Any]:
    """Errors that fall with t, and a Delta that is a share of them."""
    found: dict[str, Any] = {"split": "held-out", "paired": True, "timesteps": T}
    shift = [rng.gauss(0.06, 0.06) for _ in range(pairs)]
    for when, factor in (("before", 1.0), ("reference", 1.0), ("after", 2.2)):
        chosen = [[0.9 * math.exp(-t / 250) + 0.01] * pairs for t in T]
        rejected = [[e * (1 + factor * s) for e, s in zip(row, shift, strict=True)] for row in chosen]
        found[when] = {"chosen": chosen, "rejected": rejected}
        if when != "reference":
            found[when]["accuracy"] = [0.5 if when == "before" else 0.8] * len(T)
    return found


if __name__ == "__main__":
    from prefopt.report import write_model_card, write_report

    which: Any = sys.argv[2] if len(sys.argv) > 2 else "edges"
    target = write_control_run(
        Path(sys.argv[1]), kind=which, side=int(sys.argv[3]) if len(sys.argv) > 3 else 48
    )
    print(write_report(target), write_model_card(target))
