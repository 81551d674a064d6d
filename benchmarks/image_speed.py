"""Diffusion-DPO steps: prefopt beside the plain path of training scripts, alternating in one run.

The plain path encodes images and prompts in every step, scores winner and loser in separate forward passes, and runs the
reference live: the structure of the diffusers example without its accelerations. prefopt caches latents and embeddings and
scores both sides in one pass; a third column also has the reference's errors cached (counted noise that repeats each
epoch). All three train the same U-Net, of Stable Diffusion 1.5's layout with fewer channels, in float32.

    python benchmarks/image_speed.py                      # about 5 minutes on two idle cores
    python benchmarks/image_speed.py --channels 128 --resolution 256 --rounds 1 --steps 2
    python benchmarks/image_speed.py --ceilings           # what operation counts allow at full size; seconds

Every measurement is a process of its own, so that peak memory can be read; timings are medians over alternations.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from alternating import against, alternated, clocks, measure, peak, per_step

PAIRS = 16
BATCH = 4
LORA_RANK = 8
WAYS = ("plain", "live", "cached")


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
    base = max(8, round(128 * channels / 320 / 8) * 8)  # the VAE in proportion
    vae = AutoencoderKL(
        block_out_channels=(base, 2 * base, 4 * base, 4 * base), layers_per_block=2, latent_channels=4, norm_num_groups=8,
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


def ceilings() -> str:
    """How much faster ours can be by operations alone, at the sizes of SD 1.5 and SDXL.

    Counted on the meta device, for one pair: two images encoded, the text encoders, and forward and backward passes of
    the U-Net for policy and reference, against what is left of them. Everything else is taken to be free.
    """
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from peft import LoraConfig
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import CLIPTextConfig, CLIPTextModel

    def count(work: Any) -> int:
        with FlopCounterMode(display=False) as counter:
            work()
        return counter.get_total_flops()

    base: dict[str, Any] = {
        "block_out_channels": (320, 640, 1280, 1280),
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
    }
    large: dict[str, Any] = {
        "block_out_channels": (320, 640, 1280), "cross_attention_dim": 2048, "attention_head_dim": [5, 10, 20],
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": [1, 2, 10], "use_linear_projection": True, "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
    }  # fmt: skip
    lines = ["| model, pixels | trained | live reference | cached reference |", "|---|---|---|---|"]
    for name, pixels, options, widths in (("SD 1.5", 512, base, (768,)), ("SDXL", 1024, large, (768, 1280))):
        with torch.device("meta"):
            unet = UNet2DConditionModel(sample_size=pixels // 8, **options)
            vae = AutoencoderKL(
                block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4,
                down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            )  # fmt: skip
            x, states = (
                torch.randn(1, 4, pixels // 8, pixels // 8),
                torch.randn(1, 77, options["cross_attention_dim"]),
            )
            image, ids = torch.randn(1, 3, pixels, pixels), torch.zeros(1, 77, dtype=torch.long)
            added = (
                {"text_embeds": torch.randn(1, 1280), "time_ids": torch.randn(1, 6)}
                if len(widths) > 1
                else None
            )

            def forward(unet: Any = unet, x: Any = x, states: Any = states, added: Any = added) -> Any:
                return unet(x, torch.zeros(1), states, added_cond_kwargs=added).sample

            with torch.no_grad():
                once, encoded = count(forward), count(lambda vae=vae, image=image: vae.encode(image))
                text = sum(
                    count(lambda w=w, ids=ids: CLIPTextModel(CLIPTextConfig(
                        hidden_size=w, intermediate_size=4 * w, num_hidden_layers=12 if w == 768 else 32,
                        num_attention_heads=w // 64,
                    ))(ids)) for w in widths
                )  # fmt: skip
            for trained in ("all weights", "adapters"):
                if trained == "adapters":
                    unet.requires_grad_(False)
                    unet.add_adapter(
                        LoraConfig(r=LORA_RANK, target_modules=["to_q", "to_k", "to_v", "to_out.0"])
                    )
                both = count(lambda forward=forward: forward().sum().backward())
                plain = 2 * (encoded + once + both) + text
                lines.append(
                    f"| {name}, {pixels} | {trained} | {plain / (2 * once + 2 * both):.2f} | {plain / (2 * both):.2f} |"
                )
    return "\n".join(lines)


def plain(folder: Path, steps: int, lora: bool) -> dict[str, float]:
    """The obvious loop, with diffusers alone."""
    import copy

    import numpy as np
    import torch
    import torch.nn.functional as F
    from diffusers import StableDiffusionPipeline
    from PIL import Image

    pipe = StableDiffusionPipeline.from_pretrained(folder / "model", safety_checker=None)
    unet, vae, text, scheduler = pipe.unet, pipe.vae, pipe.text_encoder, pipe.scheduler
    vae.requires_grad_(False)
    text.requires_grad_(False)
    if lora:
        from peft import LoraConfig

        unet.requires_grad_(False)
        unet.add_adapter(LoraConfig(r=LORA_RANK, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    else:
        reference = copy.deepcopy(unet).requires_grad_(False)
    unet.train()
    trained = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6)

    def anchor_of(noisy: Any, t: Any, states: Any) -> Any:
        if not lora:
            return reference(noisy, t, states).sample
        unet.disable_adapters()
        found = unet(noisy, t, states).sample
        unet.enable_adapters()
        return found

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
                anchor = (anchor_of(noisy, t, states) - noise).square().mean((1, 2, 3))
            errors[side] = errors[side] - anchor
        loss = -F.logsigmoid(-2500 * (errors["chosen_image"] - errors["rejected_image"])).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    step(0)  # the first allocates
    began = clocks()
    for n in range(1, steps + 1):
        step(n)
    return per_step(began, clocks(), steps)


def ours(folder: Path, steps: int, reference: str, lora: bool) -> dict[str, float]:
    """`prefopt.train`, timed between its first and last step."""
    import prefopt
    from prefopt.training.loop import Loop

    marks: list[tuple[float, float]] = []
    update = Loop.update

    def timed(self: Loop, examples: Any) -> None:
        update(self, examples)
        marks.append(clocks())

    Loop.update = timed  # type: ignore[method-assign]
    prefopt.train(
        "diffusion_dpo", model=folder / "model", data=folder / "pairs.jsonl", reference=reference, noise_epochs=1,
        learning_rate=1e-6, max_steps=steps + 1, per_device_train_batch_size=BATCH, sample_prompts=0, eval_size=0,
        eval_steps=10_000, logging_steps=10_000, save_strategy="no", overwrite=True, bf16=False,
        use_peft=lora, lora_r=LORA_RANK, output_dir=str(folder / f"run-{reference}"),
    )  # fmt: skip
    return per_step(marks[0], marks[-1], steps)


def table(runs: dict[str, list[dict[str, float]]]) -> str:
    """Medians of seconds a step by both clocks, speed-ups as median and range over rounds, and peak memory."""
    lines = [
        "| way | s/step | speed-up | processor s/step | speed-up | peak GB |",
        "|---|---|---|---|---|---|",
    ]
    for way, rounds in runs.items():
        cells = against(runs["plain"], rounds)
        lines.append(f"| {way} | {' | '.join(cells)} | {max(r['peak_gb'] for r in rounds):.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--channels", type=int, default=64, help="of the U-Net's first level; SD 1.5 has 320")
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--lora", action="store_true", help="train adapters; the reference is the network without them"
    )
    parser.add_argument(
        "--threads", type=int, help="of each process; with 1, processor time is right on a busy machine"
    )
    parser.add_argument(
        "--ceilings", action="store_true", help="count operations at full size instead; measures nothing"
    )
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        if given.way == "plain":
            found = plain(given.folder, given.steps, given.lora)
        else:
            found = ours(given.folder, given.steps, given.way, given.lora)
        print(json.dumps(found | {"peak_gb": peak()}))
        return
    if given.ceilings:
        print(ceilings())
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build(folder, given.channels, given.resolution)
        options = ["--steps", str(given.steps), *(["--lora"] if given.lora else [])]
        runs = alternated(
            WAYS, given.rounds, lambda way: measure(__file__, way, folder, given.threads, options)
        )
        print(
            f"U-Net of {given.channels} channels, {given.resolution} px, batch {BATCH} pairs, "
            f"{'adapters, ' if given.lora else ''}{given.rounds} rounds of {given.steps} steps"
        )
        print(table(runs))


if __name__ == "__main__":
    main()
