"""Diffusion-DPO steps: prefopt beside the plain path of training scripts, alternating in one run.

The plain path encodes images and prompts in every step, scores winner and loser in separate forward passes, and runs the
reference live: the structure of the diffusers example without its accelerations. prefopt caches latents and embeddings and
scores both sides in one pass; a third column also has the reference's errors cached (counted noise that repeats each
epoch). All three train the same U-Net, of Stable Diffusion 1.5's layout with fewer channels, in float32.

    python benchmarks/image_speed.py                      # about 5 minutes on two idle cores
    python benchmarks/image_speed.py --channels 64 --resolution 128 --rounds 3

Every measurement is a process of its own, so that peak memory can be read; timings are medians over alternations.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PAIRS = 16
BATCH = 4


def build(folder: Path, channels: int, resolution: int) -> None:
    """A random pipeline of SD 1.5's layout, and pairs of noise images."""
    import numpy as np
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from PIL import Image
    from transformers import CLIPTextConfig, CLIPTextModel

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from tiny_pipelines import clip_tokenizer

    torch.manual_seed(0)
    tokenizer = clip_tokenizer()
    width = 768 * channels // 320
    width -= width % 8
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=width, intermediate_size=4 * width, num_hidden_layers=12,
            num_attention_heads=8, max_position_embeddings=77,
        )
    )  # fmt: skip
    levels = (channels, 2 * channels, 4 * channels, 4 * channels)
    unet = UNet2DConditionModel(
        sample_size=resolution // 8, cross_attention_dim=width, block_out_channels=levels, attention_head_dim=8,
        norm_num_groups=min(32, channels),
    )  # fmt: skip
    base = max(32, 128 * channels // 320 // 32 * 32)
    vae = AutoencoderKL(
        block_out_channels=(base, 2 * base, 4 * base, 4 * base), layers_per_block=2, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip
    StableDiffusionPipeline(
        vae=vae, text_encoder=text, tokenizer=tokenizer, unet=unet, scheduler=scheduler, safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder / "model")  # fmt: skip
    rng = np.random.default_rng(0)
    rows = []
    for n in range(PAIRS):
        row = {"prompt": f"picture number {n}"}
        for side in ("chosen_image", "rejected_image"):
            pixels = rng.integers(0, 255, (resolution, resolution, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{n}-{side}.png")
            row[side] = f"{n}-{side}.png"
        rows.append(json.dumps(row))
    (folder / "pairs.jsonl").write_text("\n".join(rows))


def plain(folder: Path, steps: int) -> dict[str, float]:
    """The obvious loop, with diffusers alone."""
    import copy

    import numpy as np
    import torch
    import torch.nn.functional as F
    from diffusers import StableDiffusionPipeline
    from PIL import Image

    pipe = StableDiffusionPipeline.from_pretrained(folder / "model", safety_checker=None)
    unet, vae, text, scheduler = pipe.unet, pipe.vae, pipe.text_encoder, pipe.scheduler
    reference = copy.deepcopy(unet).requires_grad_(False)
    vae.requires_grad_(False)
    text.requires_grad_(False)
    unet.train()
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-6)
    rows = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]

    def pixels(side: str, batch: list[dict[str, str]]) -> Any:
        arrays = [np.asarray(Image.open(folder / row[side]), dtype=np.float32) for row in batch]
        return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2) / 127.5 - 1

    def step(n: int) -> None:
        batch = [rows[(n * BATCH + k) % len(rows)] for k in range(BATCH)]
        tokens = pipe.tokenizer(
            [row["prompt"] for row in batch], padding="max_length", truncation=True, return_tensors="pt"
        )
        with torch.no_grad():
            states = text(tokens.input_ids)[0]
        t, noise, errors = torch.randint(0, 1000, (BATCH,)), None, {}
        for side in ("chosen_image", "rejected_image"):
            with torch.no_grad():
                latents = vae.encode(pixels(side, batch)).latent_dist.sample() * vae.config.scaling_factor
            noise = torch.randn_like(latents) if noise is None else noise
            noisy = scheduler.add_noise(latents, noise, t)
            errors[side] = (unet(noisy, t, states).sample - noise).square().mean((1, 2, 3))
            with torch.no_grad():
                anchor = (reference(noisy, t, states).sample - noise).square().mean((1, 2, 3))
            errors[side] = errors[side] - anchor
        loss = -F.logsigmoid(-2500 * (errors["chosen_image"] - errors["rejected_image"])).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    step(0)  # the first allocates
    began = time.perf_counter()
    for n in range(1, steps + 1):
        step(n)
    return {"seconds": (time.perf_counter() - began) / steps}


def ours(folder: Path, steps: int, reference: str) -> dict[str, float]:
    """`prefopt.train`, timed between its first and last step."""
    import prefopt
    from prefopt.training.loop import Loop

    marks: list[float] = []
    update = Loop.update

    def timed(self: Loop, examples: Any) -> None:
        update(self, examples)
        marks.append(time.perf_counter())

    Loop.update = timed  # type: ignore[method-assign]
    prefopt.train(
        "diffusion_dpo", model=folder / "model", data=folder / "pairs.jsonl", reference=reference, noise_epochs=1,
        learning_rate=1e-6, max_steps=steps + 1, per_device_train_batch_size=BATCH, sample_prompts=0, eval_size=0,
        eval_steps=10_000, logging_steps=10_000, save_checkpoints=False, overwrite=True, bf16=False,
        output_dir=str(folder / f"run-{reference}"),
    )  # fmt: skip
    return {"seconds": (marks[-1] - marks[0]) / steps}


def measure(folder: Path, way: str, steps: int) -> dict[str, float]:
    """One way in a process of its own: seconds a step and peak memory."""
    command = [sys.executable, __file__, "--way", way, "--folder", str(folder), "--steps", str(steps)]
    out = subprocess.run(command, capture_output=True, text=True, check=False)
    if out.returncode:
        raise SystemExit(out.stderr[-2000:])
    found: dict[str, float] = json.loads(out.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--channels", type=int, default=64, help="of the U-Net's first level; SD 1.5 has 320")
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", choices=["plain", "live", "cached"])
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    if given.way:
        found = (
            plain(given.folder, given.steps)
            if given.way == "plain"
            else ours(given.folder, given.steps, given.way)
        )
        found["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as name:
        import os

        folder = Path(name)
        os.environ["PREFOPT_CACHE"] = str(folder / "cache")
        build(folder, given.channels, given.resolution)
        ways = ("plain", "live", "cached")
        runs: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
        for _ in range(given.rounds):
            for way in ways:
                runs[way].append(measure(folder, way, given.steps))
        plain_s = statistics.median(r["seconds"] for r in runs["plain"])
        print(
            f"U-Net of {given.channels} channels, {given.resolution} px, batch {BATCH} pairs, {given.rounds} rounds"
        )
        print("| way | s/step | speed-up | peak GB |\n|---|---|---|---|")
        for way in ways:
            seconds = statistics.median(r["seconds"] for r in runs[way])
            peak = max(r["peak_gb"] for r in runs[way])
            print(f"| {way} | {seconds:.2f} | {plain_s / seconds:.2f} | {peak:.2f} |")


if __name__ == "__main__":
    main()
