"""SoPo steps on motions with K = 4 candidates: prefopt beside plain loops, alternating in one run.

A plain step is written as a script after the paper's is, around the same network: for one candidate after the other, all reverse steps on
motions filled up to the longest that the model has; the judge reads each candidate by itself; then four passes with noise of their own,
winner and loser under policy and reference; under guidance, each reverse step is two passes.

    texts     as the first releases of MDM: CLIP reads the texts, filled up to its 77 tokens, in every pass
    plain     the texts are embedded once a step, as later releases do

prefopt keeps text embeddings on disk and the judge's in memory, draws motions no longer than they need to be, and scores winner and loser
in one pass of the policy and one of the reference:

    one       one candidate after the other, each for the whole batch, filled up to its longest
    batched   all candidates of the batch together, on a CPU by length; under guidance both halves in one pass
    reuse 4   the same, and four updates on each round of candidates

All train the same network in float32: of MDM's size (width 512, 8 layers, 263 features, 196 frames, its CLIP beside it), or of the motion
world's (width 64, 3 layers, 36 features, 32 frames). Weights are random; lengths are spread as HumanML3D's are.

    python benchmarks/motion_speed.py --threads 1            # both sizes, an estimate: half an hour on one idle core
    python benchmarks/motion_speed.py --size world --rounds 5

Each measurement is a process of its own; with --threads 1 processor time is right on a busy machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from alternating import Measured, against, alternated, clocks, machine, measure, peak, per_step

K = 4
WAYS = ("texts", "plain", "one", "batched", "reuse 4")
OURS = {"one": (True, 1), "batched": (False, 1), "reuse 4": (False, 4)}
"""Candidates one after the other; updates on a round."""
ROWS = 16
TOKENS = 77
"""Of CLIP."""


class Size(NamedTuple):
    """Of network, data and step."""

    network: dict[str, int]
    text: tuple[int, int]
    """Width and layers of the text encoder."""
    codec: str
    batch: int
    sampling_steps: int
    steps: int
    """Timed."""


SIZES = {
    "mdm": Size(
        {"features": 263, "max_frames": 196, "width": 512, "layers": 8, "heads": 4, "feedforward": 1024}, (512, 12), "humanml3d",
        2, 4, 1,
    ),
    "world": Size(
        {"features": 36, "max_frames": 32, "width": 64, "layers": 3, "heads": 4, "feedforward": 128}, (64, 1), "stick", 32, 10, 4,
    ),
}  # fmt: skip


def build(folder: Path, size: Size) -> None:
    """A random pipeline, a random judge, and rows of noise."""
    import numpy as np
    import torch
    from diffusers import DDPMScheduler
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    from prefopt.motion.codec import find_codec
    from prefopt.motion.denoiser import MotionDenoiser
    from prefopt.motion.pipeline import MotionPipeline
    from prefopt.motion.retrieval import MotionEncoder, MotionTextModel, TextProjection
    from prefopt.motion.stats import MotionStats
    from prefopt.worlds.diffusion import build_tokenizer

    torch.manual_seed(0)
    words = [f"w{n}" for n in range(200)]
    tokenizer = build_tokenizer(words, TOKENS)
    width, layers = size.text
    text = CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
            num_attention_heads=8, max_position_embeddings=TOKENS, projection_dim=width, bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip
    features, frames = size.network["features"], size.network["max_frames"]
    codec = find_codec(size.codec)
    stats = MotionStats.of(size.codec, torch.zeros(features), torch.ones(features), fps=codec.fps)
    pipe = MotionPipeline(
        MotionDenoiser(text_width=width, dropout=0.0, **size.network),
        DDPMScheduler(
            num_train_timesteps=50, beta_schedule="squaredcos_cap_v2", prediction_type="sample", variance_type="fixed_small",
            clip_sample=False,
        ),
        stats,
        text,
        tokenizer,
        max_text_tokens=22,
    )  # fmt: skip
    pipe.save_pretrained(folder / "model")
    inner = size.network["width"] // 2
    MotionTextModel(
        MotionEncoder(
            features=features, max_frames=frames, width=inner, layers=max(2, size.network["layers"] - 2), heads=4,
            feedforward=4 * inner, dropout=0.0, embedding=inner,
        ),
        TextProjection(width, inner), stats, text, tokenizer, TOKENS,
    ).save_pretrained(folder / "judge")  # fmt: skip
    rng = np.random.default_rng(0)
    rows = []
    for n in range(ROWS * max(1, size.batch // 4)):
        length = int(rng.triangular(40, 196, 196) / 196 * frames) // 4 * 4
        motion = rng.normal(size=(max(length, 4), features)).astype(np.float32)
        np.save(folder / f"{n}.npy", motion)
        rows.append({"prompt": " ".join(rng.choice(words, 12)), "motion": f"{n}.npy"})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


# -- plain loops ---------------------------------------------------------------------------------------------


def plain(folder: Path, size: Size, guidance: float, way: str) -> dict[str, float]:
    """The obvious loop, with the same network, diffusers' scheduler and the same judge."""
    import copy

    import numpy as np
    import torch
    from torch.nn.functional import logsigmoid

    from prefopt.motion.pipeline import MotionPipeline
    from prefopt.motion.retrieval import MotionTextModel

    pipe = MotionPipeline.from_pretrained(folder / "model")
    judge = MotionTextModel.from_pretrained(folder / "judge")
    policy, scheduler = pipe.denoiser, pipe.scheduler
    pipe.text_encoder.requires_grad_(False).eval()
    reference = copy.deepcopy(policy).requires_grad_(False).eval()
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-6)
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    frames, batch = size.network["max_frames"], size.batch
    scheduler.set_timesteps(size.sampling_steps)

    @torch.no_grad()
    def embed(prompts: list[str]) -> Any:
        tokens = pipe.tokenizer(
            prompts, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt"
        )
        return pipe.text_encoder(**tokens).text_embeds

    def texts_of(prompts: list[str]) -> Callable[[], Any]:
        known = None if way == "texts" else embed(prompts)
        return lambda: embed(prompts) if known is None else known

    @torch.no_grad()
    def sample(texts: Callable[[], Any], length_B: Any) -> Any:
        x_BFD = torch.randn(batch, frames, size.network["features"])
        for t in scheduler.timesteps:
            t_B = torch.full((batch,), int(t))
            out = policy(x_BFD, t_B, texts(), length_B)
            if guidance != 1:
                without = policy(x_BFD, t_B, torch.zeros_like(texts()), length_B)
                out = without + guidance * (out - without)
            x_BFD = scheduler.step(out, t, x_BFD).prev_sample
        return x_BFD

    def error(network: Any, x_BFD: Any, texts: Callable[[], Any], length_B: Any) -> Any:
        t_B, noise = torch.randint(0, 50, (batch,)), torch.randn_like(x_BFD)
        out = network(scheduler.add_noise(x_BFD, noise, t_B), t_B, texts(), length_B)
        inside_BF = (torch.arange(frames) < length_B[:, None]).float()
        return ((out - x_BFD).square().mean(-1) * inside_BF).sum(1) / length_B

    def score(prompts: list[str], x_BFD: Any, length_B: Any) -> tuple[Any, Any]:
        judge.forget_texts()
        return judge.score(prompts, x_BFD, length_B), judge.encode_motions(x_BFD, length_B)

    sampling = 0.0

    def step(n: int) -> None:
        nonlocal sampling
        chosen = [rows[(n * batch + k) % len(rows)] for k in range(batch)]
        prompts = [row["prompt"] for row in chosen]
        motions = [torch.from_numpy(np.load(folder / row["motion"])) for row in chosen]
        length_B = torch.tensor([len(x) for x in motions])
        win_BFD = torch.zeros(batch, frames, size.network["features"])
        for x_FD, motion in zip(win_BFD, motions, strict=True):
            x_FD[: len(motion)] = motion
        texts = texts_of(prompts)
        policy.eval()
        began = time.process_time()
        candidates = [sample(texts, length_B) for _ in range(K)]
        sampling += time.process_time() - began
        scored = [score(prompts, x_BFD, length_B) for x_BFD in candidates]
        worst_B = torch.stack([r for r, _ in scored]).argmin(0)
        lose_BFD = torch.stack(candidates)[worst_B, torch.arange(batch)]
        win_BE = score(prompts, win_BFD, length_B)[1]
        similarity_B = torch.stack([((e * win_BE).sum(-1) + 1) / 2 for _, e in scored]).min(0).values
        policy.train()
        with torch.no_grad():
            anchor_w, anchor_l = (error(reference, x, texts, length_B) for x in (win_BFD, lose_BFD))
        rho_w = anchor_w - error(policy, win_BFD, texts, length_B)
        rho_l = anchor_l - error(policy, lose_BFD, texts, length_B)
        loss = -logsigmoid((2 - similarity_B) * rho_w - rho_l).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    step(0)  # the first allocates
    sampling = 0.0
    began = clocks()
    for n in range(1, size.steps + 1):
        step(n)
    return per_step(began, clocks(), size.steps) | {"sampling": sampling / size.steps}


# -- prefopt -------------------------------------------------------------------------------------------------


def ours(folder: Path, size: Size, guidance: float, way: str) -> dict[str, float]:
    """`prefopt.train`, timed between updates; what it measures before and behind them is left out."""
    import torch

    import prefopt
    from prefopt.modalities import semi_online
    from prefopt.sources import drawer
    from prefopt.sources.drawer import Drawer
    from prefopt.training.loop import Loop

    class Done(Exception):
        """The last step was taken."""

    one, reuse = OURS[way]
    semi_online.CALIBRATION = 1  # type: ignore[misc]
    marks: list[tuple[float, float]] = []
    sampled: list[float] = []
    update, draw = Loop.update, Drawer.draw

    def timed(self: Loop, examples: Any) -> None:
        update(self, examples)
        marks.append(clocks())
        if len(marks) == reuse * (size.steps + 1):
            raise Done

    if one:
        drawer.FULL = 0.0  # type: ignore[misc]

    def drawn(self: Drawer, model: Any, items: Any, names: Any, round_: int) -> Any:
        began = time.process_time()
        size = len(items) // K if one else len(items)
        starts = range(0, len(items), size)
        found = torch.cat(
            [draw(self, model, items[n : n + size], names[n : n + size], round_) for n in starts]
        )
        sampled.append(time.process_time() - began)
        return found

    Loop.update = timed  # type: ignore[method-assign]
    Drawer.draw = drawn  # type: ignore[method-assign]
    with contextlib.suppress(Done):
        prefopt.train(
            "sopo", model=folder / "model", data=folder / "rows.jsonl", judge=f"retrieval:{folder / 'judge'}", candidates=K,
            candidate_steps=size.sampling_steps,
            candidate_guidance_scale=guidance, reuse_candidates=reuse, tau=0.99, learning_rate=1e-6, max_steps=size.steps + 1,
            per_device_train_batch_size=size.batch, sample_prompts=0, eval_size=0, eval_steps=10_000, logging_steps=10_000,
            save_strategy="no", overwrite=True, bf16=False, output_dir=str(folder / "run"),
        )  # fmt: skip
    assert len(marks) == reuse * (size.steps + 1)
    found = per_step(marks[reuse - 1], marks[-1], reuse * size.steps)
    return found | {"sampling": sum(sampled[-size.steps :]) / (reuse * size.steps)}


# -- operations ----------------------------------------------------------------------------------------------


def counts(batch: int = 32, sampling_steps: int = 50) -> list[str]:
    """Operations of an update at MDM's size, the judge aside, as speeds against 'plain': what arithmetic alone allows.

    Two operations a multiplication with addition, of matrix products and attention; a backward pass is two forward ones.
    """
    import numpy as np
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    from prefopt.motion.denoiser import MotionDenoiser
    from prefopt.sources.drawer import FULL

    def count(work: Callable[[], Any]) -> float:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            work()
        return float(counter.get_total_flops())

    with torch.device("meta"):
        network = MotionDenoiser()
        clip = CLIPTextModelWithProjection(
            CLIPTextConfig(hidden_size=512, num_hidden_layers=12, projection_dim=512)
        ).eval()
        reading = count(lambda: clip(torch.zeros(1, TOKENS, dtype=torch.int64)))
        one = torch.zeros(1, dtype=torch.int64)
        passing = [
            count(lambda f=f: network(torch.zeros(1, f, 263), one, torch.zeros(1, 512)))
            for f in range(4, 200, 4)
        ]
    rng = np.random.default_rng(0)
    longest, drawn = passing[-1], 0.0
    for _ in range(200):
        first = 0
        for length in sorted((int(x) // 4 for x in rng.triangular(40, 196, 196, batch)), reverse=True):
            first = length if length < FULL * first or not first else first
            drawn += passing[first - 1] / batch / 200
    lines = ["| guidance | texts | plain | batched | reuse 4 |", "|---|---|---|---|---|"]
    for passes in (1, 2):
        total = K * sampling_steps * passes
        plain_ = (total + 8) * longest + reading
        found = {
            "texts": plain_ + (total + 3) * reading,
            "plain": plain_,
            "batched": total * drawn + 8 * longest,
            "reuse 4": total * drawn / 4 + 8 * longest,
        }
        speeds = " | ".join(f"{plain_ / operations:.2f}" for operations in found.values())
        lines.append(f"| {'no' if passes == 1 else 'yes'} | {speeds} |")
    share = f"a text costs {reading / longest:.2f} passes of the longest motion, a candidate's {drawn / longest:.2f}"
    return [*lines, share]


def table(runs: dict[str, list[Measured]], base: str) -> list[str]:
    """A line a way: seconds of an update, and the base's over them; the share of sampling."""
    lines = []
    for way, rounds in runs.items():
        share = statistics.median(r["sampling"] / r["processor_seconds"] for r in rounds)
        cells = against(runs[base], rounds)
        lines.append(
            f"| {way} | {' | '.join(cells)} | {share:.0%} | {max(r['peak_gb'] for r in rounds):.1f} |"
        )
    return lines


def main() -> None:
    """Measure, or take one measurement."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, action="append")
    parser.add_argument("--guidance", type=float, action="append", help="of candidates [default: 1 and 2.5]")
    parser.add_argument("--batch", type=int, help="examples a step")
    parser.add_argument("--sampling_steps", type=int)
    parser.add_argument("--steps", type=int, help="timed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="of each process")
    parser.add_argument("--counts", action="store_true", help="count operations instead; measures nothing")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()

    def sized(name: str) -> Size:
        own = {"batch": given.batch, "sampling_steps": given.sampling_steps, "steps": given.steps}
        return SIZES[name]._replace(**{key: value for key, value in own.items() if value})

    if given.way:
        run = ours if given.way in OURS else plain
        found = run(given.folder, sized(given.size[0]), given.guidance[0], given.way)
        sys.stdout.flush()
        print(json.dumps(found | {"peak_gb": peak()}))
        return
    if given.counts:
        print("\n".join(counts()))
        return
    print(machine())
    for name in given.size or SIZES:
        size = sized(name)
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            build(folder, size)
            for guidance in given.guidance or (1.0, 2.5):
                options = ["--size", name, "--guidance", str(guidance), "--batch", str(size.batch)]
                options += ["--sampling_steps", str(size.sampling_steps), "--steps", str(size.steps)]
                runs = alternated(
                    WAYS,
                    given.rounds,
                    lambda way, at=folder, more=options: measure(__file__, way, at, given.threads, more),  # type: ignore[misc]
                )
                print(
                    f"\n{name}: {size.batch} examples, {size.sampling_steps} reverse steps, guidance {guidance:g}; {given.rounds} "
                    f"rounds of {size.steps} steps; speeds against 'plain', median [range] over rounds\n"
                )
                print("| way | s an update | speed | processor s | speed | of it sampling | peak GB |")
                print("|---|---|---|---|---|---|---|")
                print("\n".join(table(runs, "plain")), flush=True)


if __name__ == "__main__":
    main()
