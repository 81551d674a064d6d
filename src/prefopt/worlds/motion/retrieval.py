"""What judges motions of the motion world without its rules: pairs of encoders of texts and motions, as real data has them.

There are two: the reward picks and vetoes samples while a model is trained, the evaluator measures it. They have the same
architecture, but neither weights nor motions in common, so that what pleases one by its mistakes does not please the other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from prefopt.motion.retrieval import MotionTextModel
from prefopt.motion.retrieval_training import train_pair
from prefopt.worlds.base import seed_of
from prefopt.worlds.diffusion import quiet
from prefopt.worlds.motion.kinematics import Motions
from prefopt.worlds.motion.model import MAX_TOKENS, stats_of
from prefopt.worlds.motion.task import NUMBERS, parse_caption
from prefopt.worlds.pretraining import few_threads, progress_bar

Role = Literal["reward", "evaluator"]


def train(
    folder: Path, role: Role, *, motions: Motions, seed: int, steps: int, progress: bool = True
) -> None:
    """Train a pair of encoders from nothing on motions with right captions; save it to `folder` (safetensors).

    Pairs of one program are no negatives of each other.

    Args:
        folder: an existing folder.
        role: what it is for; another one has other weights.
        motions: what to learn from.
        seed: of weights and batches.
        steps: optimizer steps.
        progress: show a bar if standard error is a terminal.
    """
    with few_threads(), progress_bar(f"training the motion world's {role}", steps, progress) as advance:
        model = train_pair(
            motions.captions,
            motions.features_BFD,
            motions.lengths_B,
            [NUMBERS[parse_caption(caption)] for caption in motions.captions],
            stats=stats_of(motions.features_BFD, f"the motion world's {role}"),
            max_text_tokens=MAX_TOKENS,
            steps=steps,
            seed=seed_of(f"motion {role} {seed}"),
            report=lambda step, loss: advance(f"loss {loss:.2f}"),
        )
    with quiet():
        model.save_pretrained(folder)


def load(folder: Path) -> MotionTextModel:
    """The `MotionTextModel` of a folder."""
    with quiet():
        model: MotionTextModel = MotionTextModel.from_pretrained(folder)
    return model
