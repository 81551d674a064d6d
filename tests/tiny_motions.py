"""A random text-to-motion pipeline, small enough to build in a moment, and motions of the world's figure.

folder = tiny_mdm(tmp_path / "m")            # MotionPipeline: 36 features, 32 frames, 10 cosine steps
rows = stick_rows(6)                         # pairs: what a caption says, and a neighbour of it
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

WIDTH = 16
WORDS = (
    "a",
    "person",
    "the",
    "figure",
    "walks",
    "waves",
    "left",
    "right",
    "hand",
    "jumps",
    "twice",
    "forward",
)


def tiny_mdm(
    folder: Path,
    *,
    seed: int = 0,
    features: int = 36,
    codec: str = "stick",
    prediction_type: str = "sample",
    **network: Any,
) -> Path:
    """Fills a folder as `save_pretrained` does, and returns it."""
    import torch
    from diffusers import DDPMScheduler
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    from prefopt.motion.codec import find_codec
    from prefopt.motion.denoiser import MotionDenoiser
    from prefopt.motion.pipeline import MotionPipeline
    from prefopt.motion.stats import MotionStats
    from prefopt.worlds.diffusion import build_tokenizer

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tokenizer = build_tokenizer(WORDS, 16)
        text = CLIPTextModelWithProjection(
            CLIPTextConfig(
                vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=1,
                num_attention_heads=2, max_position_embeddings=16, projection_dim=WIDTH, bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
            )
        )  # fmt: skip
        shape = {"max_frames": 32, "width": WIDTH, "layers": 2, "heads": 2, "feedforward": 2 * WIDTH}
        pipe = MotionPipeline(
            MotionDenoiser(features=features, text_width=WIDTH, **(shape | network)),
            DDPMScheduler(
                num_train_timesteps=10, beta_schedule="squaredcos_cap_v2", prediction_type=prediction_type,
                variance_type="fixed_small", clip_sample=False,
            ),
            MotionStats.of(codec, torch.linspace(-0.5, 0.5, features), torch.linspace(0.2, 0.6, features), fps=find_codec(codec).fps),
            text,
            tokenizer,
            max_text_tokens=16,
        )  # fmt: skip
    pipe.save_pretrained(folder)
    return folder


def stick_rows(n: int) -> list[dict[str, Any]]:
    """Pairs of the motion world, as nested lists."""
    from prefopt.worlds import get_world

    rows = get_world("motion").comparisons(n)
    keep = ("id", "prompt", "chosen_motion", "rejected_motion")
    return [{k: row[k].round(4).tolist() if k.endswith("_motion") else row[k] for k in keep} for row in rows]


def save_judge(folder: Path, pipe: Any, stats: Any = None, *, seed: int = 0) -> Path:
    """Encoders of texts and motions that have learned nothing, with the text encoder of a pipeline; returns the folder."""
    import torch

    from prefopt.motion.retrieval import MotionEncoder, MotionTextModel, TextProjection

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        stats = pipe.stats if stats is None else stats
        made = MotionTextModel(
            motion_encoder=MotionEncoder(
                features=len(stats.mean_D),
                max_frames=64,
                width=16,
                layers=1,
                heads=2,
                feedforward=16,
                embedding=8,
            ),
            text_projection=TextProjection(text_width=WIDTH, embedding=8),
            stats=stats,
            text_encoder=pipe.text_encoder,
            tokenizer=pipe.tokenizer,
        )
    made.save_pretrained(folder)
    return folder
