"""The motion world: a stick figure that does what a caption says, told exactly whether it did, and a small diffusion model of it.

The model learned from captions of which some had every side and direction exchanged, so it often waves with the wrong hand; the
world's own motions and captions are all right.

>>> from prefopt.worlds import get_world
>>> world = get_world("motion", seed=0)
>>> world.prompts(1)
['the figure walks forward quickly and raises the left arm']

Legend of shape suffixes: B motions, F = 32 frames, D = 36 features. Features are in physical units (`prefopt.motion.stick`).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from prefopt.cache import built_once
from prefopt.motion.stick import STICK
from prefopt.worlds.base import (
    Split,
    cache_place,
    check_positive,
    check_shares,
    check_split,
    flipped,
)
from prefopt.worlds.motion import task
from prefopt.worlds.motion.kinematics import Motions, generate, moved
from prefopt.worlds.motion.verify import verdicts

if TYPE_CHECKING:
    from prefopt.motion.pipeline import MotionPipeline
    from prefopt.motion.retrieval import MotionTextModel
    from prefopt.worlds.motion.measures import Accuracy, Measures

CODE_VERSION = 1
"""Part of every cache key. Raise it with any change that changes a motion or a model."""


@dataclass(frozen=True)
class MotionWorld:
    """Settings of the motion world; what it makes depends on them alone (and, in the last digits, on the machine).

    Attributes:
        seed: of captions, motions and models.
        swap_share: share of the captions of the model's pretraining in which sides and directions are exchanged.
        width: of the denoiser and its text encoder, a multiple of 8.
        layers: of the denoiser.
        pretrain_motions: motions that the models learn from: those of the first `prompts` of "train".
        pretrain_steps: optimizer steps of the model.
        pretrain_batch_size: motions a step.
        pretrain_learning_rate: peak.
        scorer_steps: optimizer steps of the reward's and of the evaluator's encoders.
    """

    seed: int = 0
    swap_share: float = 0.35
    width: int = 64
    layers: int = 3
    pretrain_motions: int = 4000
    pretrain_steps: int = 1200
    pretrain_batch_size: int = 64
    pretrain_learning_rate: float = 2e-3
    scorer_steps: int = 350

    def __post_init__(self) -> None:
        check_shares(swap_share=self.swap_share)
        if self.width < 8 or self.width % 8:
            raise ValueError(f"width must be a multiple of 8 (four attention heads); given {self.width}")
        check_positive(
            self, ("layers", "pretrain_motions", "pretrain_steps", "pretrain_batch_size", "scorer_steps")
        )

    # -- the task ---------------------------------------------------------------------------------------------

    def prompts(self, n: int, split: Split = "train") -> list[str]:
        """`n` captions; the first k of them are `prompts(k)`. No caption is in both splits, every program is.

        All 69 programs have come once before any comes again; how fast one walks is said in a third of the captions of walking.
        """
        check_split(split)
        return task.draw_captions(n, split, random.Random(f"motion prompts {split} {self.seed}"))

    def reference_motions(self, n: int, split: Split = "train") -> Motions:
        """A motion for each of `prompts(n, split)` that does what it says: the truth."""
        return moved(self.prompts(n, split), f"motions {split} {self.seed}")

    def verdicts(self, prompts: Sequence[str], motions: Any) -> dict[str, Tensor]:
        """Which words of its caption each motion does, see `prefopt.worlds.motion.verify`.

        Args:
            prompts: captions.
            motions: as many, each as of `verify`; or features in one (B, F, 36) tensor.

        Returns:
            (B,) float tensors: verdicts of `move`, `direction`, `gesture`, `side`, `count`, `speed`, NaN where a caption says
            nothing of it; `pass`, 1 if all are 1; `attr`, their mean.

        Raises:
            ValueError: a prompt that is no caption, what is no motion of this world, or different numbers of them.
        """
        features = [_features_of(motion) for motion in motions]
        if len(features) != len(prompts):
            raise ValueError(
                f"needed one caption a motion; given {len(prompts)} captions and {len(features)} motions"
            )
        programs = [task.parse_caption(prompt) for prompt in prompts]
        found: dict[str, Tensor] = {}
        for length in sorted({len(x) for x in features}):
            places = [k for k, x in enumerate(features) if len(x) == length]
            some = verdicts([programs[k] for k in places], torch.stack([features[k] for k in places]))
            for name, values in some.items():
                found.setdefault(name, torch.full((len(features),), torch.nan))[places] = values.float()
        return found

    def verify(self, prompt: str, motion: Any) -> float:
        """Share of what a caption says that a motion does; 1 if all.

        Args:
            prompt: a caption.
            motion: (F, 36) features in physical units, or (F, 11, 3) positions in metres; a tensor, an array or nested lists.

        Raises:
            ValueError: no caption or no motion of this world.
        """
        return float(self.verdicts([prompt], [motion])["attr"])

    # -- models -----------------------------------------------------------------------------------------------

    def pretraining_motions(self) -> Motions:
        """What the model is pretrained on: the first motions of "train", sides and directions of some captions exchanged."""
        clean = self.reference_motions(self.pretrain_motions)
        captions = list(clean.captions)
        for k in flipped(range(len(captions)), self.swap_share, self.seed):
            captions[k] = task.swapped(captions[k])
        return clean._replace(captions=captions)

    def model_dir(self, progress: bool = True) -> Path:
        """Folder with the pretrained `MotionPipeline`, for `from_pretrained`; made on first use, then cached.

        Args:
            progress: show a bar if standard error is a terminal.
        """

        def build(folder: Path) -> None:
            from prefopt.worlds.motion.model import pretrain

            pretrain(
                folder,
                motions=self.pretraining_motions(),
                seed=self.seed,
                width=self.width,
                layers=self.layers,
                steps=self.pretrain_steps,
                batch_size=self.pretrain_batch_size,
                learning_rate=self.pretrain_learning_rate,
                progress=progress,
            )

        return built_once(self._place("model"), build)

    def scorer_dir(self, role: Literal["reward", "evaluator"], progress: bool = True) -> Path:
        """Folder with a trained `MotionTextModel`; made on first use, then cached.

        Args:
            role: "reward", for training; "evaluator", for measuring: other weights, which learned from other motions.
            progress: show a bar if standard error is a terminal.

        Raises:
            ValueError: another role.
        """
        if role not in ("reward", "evaluator"):
            raise ValueError(f"a scorer of the motion world is the reward or the evaluator; given {role!r}")

        def build(folder: Path) -> None:
            from prefopt.worlds.motion.retrieval import train

            motions = moved(self.prompts(self.pretrain_motions), f"motions of the {role} {self.seed}")
            train(folder, role, motions=motions, seed=self.seed, steps=self.scorer_steps, progress=progress)

        return built_once(self._place(role), build)

    def scorer(self, role: Literal["reward", "evaluator"], progress: bool = True) -> MotionTextModel:
        """The trained encoders of texts and motions, loaded; see `scorer_dir`."""
        from prefopt.worlds.motion.retrieval import load

        return load(self.scorer_dir(role, progress))

    def _place(self, kind: Literal["model", "reward", "evaluator"]) -> Path:
        """Cache folder named after everything its content depends on; scorers know nothing of the model, nor it of them."""
        plain = type(self)
        names = ["scorer_steps"]
        if kind != "model":
            names = ["swap_share", "width", "layers"]
            names += ["pretrain_steps", "pretrain_batch_size", "pretrain_learning_rate"]
        of = replace(self, **{name: getattr(plain, name) for name in names})
        return cache_place(
            "motion", kind, of, CODE_VERSION, ("torch", "diffusers", "transformers", "tokenizers")
        )

    def pipeline(self, progress: bool = True) -> MotionPipeline:
        """The pretrained model, loaded; see `model_dir`."""
        from prefopt.worlds.motion.model import load

        return load(self.model_dir(progress))

    def measured(
        self,
        pipeline: Any,
        n: int = 640,
        *,
        split: Split = "test",
        seed: int = 0,
        num_inference_steps: int = 20,
        guidance_scale: float = 1.0,
        progress: bool = True,
    ) -> Measures:
        """How well a model does what `prompts(n, split)` say, by the rules, the evaluator and the reward; FID is to their truth.

        Args:
            pipeline: a `MotionPipeline`, on any device.
            n: motions; fewer than some hundreds say little, and R-precision needs 32 of different programs.
            split: "test" or "train".
            seed: of the noise. Two models under one seed start from the same noise.
            num_inference_steps: of the pipeline's scheduler.
            guidance_scale: of classifier-free guidance; 1 is none.
            progress: show bars, if standard error is a terminal, of what has to be trained first.
        """
        from prefopt.worlds.motion.measures import measures
        from prefopt.worlds.motion.model import sample

        truth = self.reference_motions(n, split)
        made_BFD = sample(
            pipeline,
            truth.captions,
            seed=seed,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
        )
        scorers = [self.scorer(role, progress) for role in ("evaluator", "reward")]
        return measures(truth.captions, made_BFD, truth, *scorers)

    def accuracy(self, scorer: Any, n: int = 640, split: Split = "test") -> Accuracy:
        """How surely a scorer tells the captions of `reference_motions(n, split)` from wrong ones, see `measures.Accuracy`.

        Args:
            scorer: a `MotionTextModel`, such as `scorer("reward")`, or another with its `score`.
            n: motions.
            split: "test" or "train".
        """
        from prefopt.worlds.motion.measures import accuracy

        return accuracy(scorer, self.reference_motions(n, split))

    # -- preferences ------------------------------------------------------------------------------------------

    def comparisons(
        self, n: int, split: Split = "train", label_noise: float = 0.0, seed: int = 0
    ) -> list[dict[str, Any]]:
        """Rows of two motions for a caption: one that does what it says, and one that does one thing otherwise.

        Chosen are `reference_motions(n, split)`; rejected are motions of programs with another side, count, direction or speed
        (`task.neighbours`).

        Args:
            n: rows, for `prompts(n, split)`.
            split: "train" or "test".
            label_noise: share of the rows whose sides are exchanged, in [0, 1]. What is exchanged at some share is
                also exchanged at a larger one.
            seed: of what is exchanged; all else does not depend on it.

        Returns:
            Rows with `id`, `prompt`, `chosen_motion`, `rejected_motion` ((32, 36) float32 arrays of features in physical units),
            `changed` (which attribute differs), `score_chosen`, `score_rejected` (`verify`), `source`.
        """
        check_shares(label_noise=label_noise)
        chosen = self.reference_motions(n, split)
        rng = random.Random(f"motion neighbours {split} {self.seed}")
        programs = [task.parse_caption(caption) for caption in chosen.captions]
        changed: list[str] = []
        others: list[task.Program] = []
        for program in programs:
            near = task.neighbours(program)
            changed.append(rng.choice(sorted(near)))
            others.append(rng.choice(near[changed[-1]]))
        rejected_BFD = generate(others, f"rejected motions {split} {self.seed}")
        scores = [verdicts(programs, x)["attr"].tolist() for x in (chosen.features_BFD, rejected_BFD)]
        rows = [
            {
                "id": f"{split}-{k}",
                "prompt": chosen.captions[k],
                "chosen_motion": chosen.features_BFD[k].numpy(),
                "rejected_motion": rejected_BFD[k].numpy(),
                "changed": changed[k],
                "score_chosen": scores[0][k],
                "score_rejected": scores[1][k],
                "source": "world:motion",
            }
            for k in range(len(programs))
        ]
        for row in flipped(rows, label_noise, seed):
            for name in ("{}_motion", "score_{}"):
                one, other = name.format("chosen"), name.format("rejected")
                row[one], row[other] = row[other], row[one]
        return rows


def _features_of(motion: Any) -> Tensor:
    """(F, 36) float32 features of a motion in any form of `MotionWorld.verify`."""
    if isinstance(motion, Mapping):
        raise ValueError(f"needed a motion; given a mapping with {', '.join(motion)}")
    x = motion if isinstance(motion, Tensor) else torch.from_numpy(np.asarray(motion, dtype=np.float32))
    x = x.detach().float().cpu()
    if x.dim() == 3 and x.shape[1:] == (len(STICK.skeleton), 3):
        return STICK.features(x)
    if x.dim() != 2 or x.shape[1] != STICK.width:
        raise ValueError(
            f"a motion of the motion world is (frames, {STICK.width}) features or (frames, {len(STICK.skeleton)}, 3) positions; "
            f"given {tuple(x.shape)}"
        )
    return x
