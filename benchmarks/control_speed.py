"""Condition-PO steps: prefopt beside steps in diffusers' style, alternating in one run.

A plain step encodes image and prompt, runs ControlNet and U-Net on the stacked conditions [c_w; c_l], once for the policy and
once for a live reference, and goes back:

    plain        the base network frozen, the reference under no_grad: as such a script is written with care
    unfrozen     the base network as it is loaded, with gradients of its own; the reference's graph is made and not used
    own noise    `plain`, and the diffusion term has noise and timestep of its own, as in the authors' script: another pass

prefopt keeps latents, prompt embeddings and conditions in caches, and runs half of the base network once an image:

    live         the reference scored in each step; the diffusion term from the pair's pass (diffusion_draw=pair), as in `plain`
    live, own    the same with noise of its own for the diffusion term (diffusion_draw=own), as in `own noise`
    cached       as `live`, the reference's errors from the cache, too (counted noise that repeats each epoch)

All train the same ControlNet, of Stable Diffusion 1.5's layout with fewer channels, in float32.

    python benchmarks/control_speed.py                    # an estimate: 10 minutes on two idle cores
    python benchmarks/control_speed.py --channels 80 --resolution 512 --rounds 1 --steps 2
    python benchmarks/control_speed.py --counts           # operations at full size; a minute

Every measurement is a process of its own, so that peak memory can be read; timings are medians over alternations.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alternating import against, alternated, clocks, machine, measure, peak, per_step

PAIRS = 4
WAYS = ("plain", "unfrozen", "own noise", "live", "live, own", "cached")
OURS = {"live": ("live", "pair"), "live, own": ("live", "own"), "cached": ("cached", "pair")}
"""Reference and diffusion_draw of prefopt's."""
BETA, MARGIN, SMOOTHING, WEIGHT = 5000.0, 0.01, 0.1, 0.05


def build(folder: Path, channels: int, resolution: int) -> None:
    """A random pipeline of SD 1.5's layout with a ControlNet, and rows of noise."""
    import numpy as np
    import torch
    from diffusers import (
        AutoencoderKL,
        ControlNetModel,
        DDIMScheduler,
        StableDiffusionControlNetPipeline,
        UNet2DConditionModel,
    )
    from PIL import Image
    from transformers import CLIPTextConfig, CLIPTextModel

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from tiny_pipelines import clip_tokenizer

    torch.manual_seed(0)
    tokenizer = clip_tokenizer()

    def scaled(width: int) -> int:
        return max(8, round(width * channels / 320 / 8) * 8)

    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=scaled(768), intermediate_size=4 * scaled(768),
            num_hidden_layers=12, num_attention_heads=8, max_position_embeddings=77,
        )
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=resolution // 8, cross_attention_dim=scaled(768), attention_head_dim=8,
        block_out_channels=tuple(scaled(n) for n in (320, 640, 1280, 1280)), norm_num_groups=min(32, channels),
    )  # fmt: skip
    controlnet = ControlNetModel.from_unet(
        unet, conditioning_embedding_out_channels=tuple(scaled(n) for n in (16, 32, 96, 256))
    )
    for parameter in controlnet.parameters():
        if not parameter.any():  # a ControlNet that does something, as a trained one
            torch.nn.init.normal_(parameter, std=0.02)
    vae = AutoencoderKL(
        block_out_channels=tuple(scaled(n) for n in (128, 256, 512, 512)), layers_per_block=2, latent_channels=4,
        norm_num_groups=8, down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip
    StableDiffusionControlNetPipeline(
        vae=vae, text_encoder=text, tokenizer=tokenizer, unet=unet, controlnet=controlnet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder / "model")  # fmt: skip
    rng = np.random.default_rng(0)
    rows = []
    for n in range(PAIRS):
        row = {"prompt": f"picture number {n}"}
        for side in ("image", "chosen_condition", "rejected_condition"):
            pixels = rng.integers(0, 255, (resolution, resolution, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{n}-{side}.png")
            row[side] = f"{n}-{side}.png"
        rows.append(json.dumps(row))
    (folder / "rows.jsonl").write_text("\n".join(rows))


def plain(folder: Path, steps: int, batch: int, way: str) -> dict[str, float]:
    """The obvious loop, with diffusers alone."""
    import copy

    import numpy as np
    import torch
    from diffusers import StableDiffusionControlNetPipeline
    from PIL import Image

    imported = peak()
    pipe = StableDiffusionControlNetPipeline.from_pretrained(folder / "model", safety_checker=None)
    unet, vae, text, scheduler, policy = (
        pipe.unet,
        pipe.vae,
        pipe.text_encoder,
        pipe.scheduler,
        pipe.controlnet,
    )
    vae.requires_grad_(False)
    text.requires_grad_(False)
    unet.requires_grad_(way == "unfrozen")
    reference = copy.deepcopy(policy).requires_grad_(way == "unfrozen")
    policy.train()
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-6)
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]

    def pixels(side: str, chosen: list[dict[str, str]]) -> Any:
        arrays = [np.asarray(Image.open(folder / row[side]), dtype=np.float32) for row in chosen]
        return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2) / 255

    def errors(controlnet: Any, latents: Any, noise: Any, t: Any, states: Any, conditions: Any) -> Any:
        noisy = scheduler.add_noise(latents, noise, t)
        down, mid = controlnet(noisy, t, states, conditions, return_dict=False)
        output = unet(
            noisy, t, states, down_block_additional_residuals=down, mid_block_additional_residual=mid
        ).sample
        return (output - noise).square().mean((1, 2, 3))

    def step(n: int) -> None:
        chosen = [rows[(n * batch + k) % len(rows)] for k in range(batch)]
        tokens = pipe.tokenizer(
            [row["prompt"] for row in chosen], padding="max_length", truncation=True, return_tensors="pt"
        )
        with torch.no_grad():
            states = text(tokens.input_ids)[0]
            latents = vae.encode(2 * pixels("image", chosen) - 1).latent_dist.sample()
            latents = latents * vae.config.scaling_factor
        winner = pixels("chosen_condition", chosen)
        conditions = torch.cat([winner, pixels("rejected_condition", chosen)])
        t, noise = torch.randint(0, 1000, (batch,)), torch.randn_like(latents)
        pair = [torch.cat([x, x]) for x in (latents, noise, t, states)]
        error_w, error_l = errors(policy, *pair, conditions).chunk(2)
        with torch.set_grad_enabled(way == "unfrozen"):
            anchor_w, anchor_l = errors(reference, *pair, conditions).detach().chunk(2)
        delta = error_w - error_l
        gate = torch.sigmoid(BETA / 2 * (delta - (anchor_w - anchor_l))).detach()
        loss = (1 - SMOOTHING) * gate * (delta + MARGIN).relu() + SMOOTHING * (1 - gate) * (
            MARGIN - delta
        ).relu()
        if way == "own noise":
            other, noise = torch.randint(0, 1000, (batch,)), torch.randn_like(latents)
            error_w = errors(policy, latents, noise, other, states, winner)
        (loss + WEIGHT * error_w).mean().backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        unet.zero_grad()

    step(0)  # the first allocates
    began = clocks()
    for n in range(1, steps + 1):
        step(n)
    return per_step(began, clocks(), steps) | {"imported_gb": imported}


def ours(folder: Path, steps: int, batch: int, way: str) -> dict[str, float]:
    """`prefopt.train`, timed between its first and last step; what it measures before and behind them is left out."""
    from diffusers import StableDiffusionControlNetPipeline  # noqa: F401  the same libraries as beside

    import prefopt
    from prefopt.modalities.control import setup
    from prefopt.training.loop import Loop

    class Done(Exception):
        """The last step was taken."""

    imported = peak()
    reference, draw = OURS[way]
    setup.with_probe = lambda context, made, likelihood: made  # errors by timestep
    marks: list[tuple[float, float]] = []
    update = Loop.update

    def timed(self: Loop, examples: Any) -> None:
        update(self, examples)
        marks.append(clocks())
        if len(marks) > steps:
            raise Done

    Loop.update = timed  # type: ignore[method-assign]
    with contextlib.suppress(Done):
        prefopt.train(
            "condition_po", model=folder / "model", data=folder / "rows.jsonl", reference=reference, noise_epochs=1,
            learning_rate=1e-6, max_steps=steps + 1, per_device_train_batch_size=batch, sample_prompts=0, eval_size=0,
            eval_steps=10_000, logging_steps=10_000, save_strategy="no", overwrite=True, bf16=False, beta=BETA,
            margin=MARGIN, label_smoothing=SMOOTHING, diffusion_weight=WEIGHT, diffusion_draw=draw,
            output_dir=str(folder / f"run-{reference}"),
        )  # fmt: skip
    return per_step(marks[0], marks[-1], steps) | {"imported_gb": imported}


def counts() -> str:
    """Operations of a step of one pair at the sizes of SD 1.5 and SDXL, counted on the meta device.

    Two operations a multiplication with addition, of matrix products, convolutions and attention; everything else is free.
    """
    import torch
    from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import CLIPTextConfig, CLIPTextModel

    from prefopt.modalities.control.network import ControlledNetwork, States

    def count(work: Callable[[], Any]) -> float:
        with FlopCounterMode(display=False) as counter:
            work()
        return counter.get_total_flops() / 1e12

    base: dict[str, Any] = {
        "block_out_channels": (320, 640, 1280, 1280),
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
    }
    sdxl: dict[str, Any] = {
        "block_out_channels": (320, 640, 1280), "cross_attention_dim": 2048, "attention_head_dim": [5, 10, 20],
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "transformer_layers_per_block": [1, 2, 10], "use_linear_projection": True, "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
    }  # fmt: skip
    up = {"up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")}
    lines = [
        "| model, pixels | way | encoders | policy | reference | backward | sum, TFLOP | `plain` / this |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, pixels, options, widths in (("SD 1.5", 512, base, (768,)), ("SDXL", 1024, sdxl, (768, 1280))):
        with torch.device("meta"):
            side = pixels // 8
            unet = UNet2DConditionModel(sample_size=side, **options, **(up if len(widths) > 1 else {}))
            network = ControlledNetwork(unet, ControlNetModel(**options))
            vae = AutoencoderKL(
                block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4,
                down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            )  # fmt: skip

            def forward(
                items: int,
                states: Any = None,
                network: Any = network,
                side: int = side,
                width: int = options["cross_attention_dim"],
                large: bool = len(widths) > 1,
            ) -> Any:
                added = (
                    {"text_embeds": torch.randn(items, 1280), "time_ids": torch.randn(items, 6)}
                    if large
                    else None
                )
                return network(
                    torch.randn(items, 4, side, side), torch.zeros(items), torch.randn(items, 77, width),
                    torch.randn(items, 3, 8 * side, 8 * side), added, states,
                )  # fmt: skip

            def forward_and_back(items: int, states: Any = None, run: Any = forward) -> float:
                return count(lambda: run(items, states).sum().backward())

            ids, image = torch.zeros(1, 77, dtype=torch.long), torch.randn(1, 3, pixels, pixels)
            with torch.no_grad():
                encoders = count(lambda vae=vae, image=image: vae.encode(image))
                for width in widths:
                    clip = CLIPTextModel(
                        CLIPTextConfig(
                            hidden_size=width, intermediate_size=4 * width, num_attention_heads=width // 64,
                            num_hidden_layers=12 if width == 768 else 32,
                        )
                    )  # fmt: skip
                    encoders += count(lambda clip=clip, ids=ids: clip(ids))
                single, pair = count(lambda run=forward: run(1)), count(lambda run=forward: run(2))
            all_of_it = forward_and_back(2) - pair
            unet.requires_grad_(False)
            back, alone = forward_and_back(2) - pair, forward_and_back(1) - single
            network.plain_because = None  # called in halves
            with torch.no_grad():
                states = States((0, 0), torch.device("meta"))
                policy = count(lambda run=forward, s=states: run(2, s))
                # the features are there
                reference = count(lambda run=forward, s=states: run(2, s))
        parts = {
            "plain": (encoders, pair, pair, back),
            "unfrozen": (encoders, pair, pair, all_of_it),
            "own noise": (encoders, pair + single, pair, back + alone),
            "live": (0.0, policy, reference, back),
            "live, own": (0.0, policy + single, reference, back + alone),
            "cached": (0.0, policy, 0.0, back),
        }
        for way, found in parts.items():
            cells = " | ".join(f"{x:.2f}" for x in (*found, sum(found), sum(parts["plain"]) / sum(found)))
            lines.append(f"| {name}, {pixels} | {way} | {cells} |")
    return "\n".join(lines)


def table(runs: dict[str, list[dict[str, float]]]) -> str:
    """Medians of seconds a step by both clocks, speed-ups as median and range over rounds, and peak memory.

    Memory is given whole, and without what the process held when its libraries were imported.
    """
    lines = [
        "| way | s/step | `plain` / this | processor s/step | `plain` / this | peak GB | libraries aside | this / `plain` |",
        "|---|---|---|---|---|---|---|---|",
    ]
    net = {way: max(r["peak_gb"] - r["imported_gb"] for r in rounds) for way, rounds in runs.items()}
    for way, rounds in runs.items():
        cells = against(runs["plain"], rounds)
        cells += [
            f"{max(r['peak_gb'] for r in rounds):.2f}",
            f"{net[way]:.2f}",
            f"{net[way] / net['plain']:.2f}",
        ]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--channels", type=int, default=64, help="of the U-Net's first level; SD 1.5 has 320")
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--batch", type=int, default=2, help="pairs a step")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--threads", type=int, help="of each process; with 1, processor time is right on a busy machine"
    )
    parser.add_argument(
        "--counts", action="store_true", help="count operations at full size instead; measures nothing"
    )
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        run = ours if given.way in OURS else plain
        found = run(given.folder, given.steps, given.batch, given.way)
        print(json.dumps(found | {"peak_gb": peak()}))
        return
    if given.counts:
        print(counts())
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build(folder, given.channels, given.resolution)
        options = ["--steps", str(given.steps), "--batch", str(given.batch)]
        runs = alternated(
            WAYS, given.rounds, lambda way: measure(__file__, way, folder, given.threads, options)
        )
        print(machine())
        print(
            f"ControlNet and U-Net of {given.channels} channels, {given.resolution} px, {given.batch} pairs a step, "
            f"{given.rounds} rounds of {given.steps} steps"
        )
        print(table(runs))


if __name__ == "__main__":
    main()
