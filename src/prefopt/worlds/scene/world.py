"""The scene world: pictures of shapes with exact maps of what is where, and a small ControlNet that follows them roughly.

    >>> from prefopt.worlds import get_world
    >>> world = get_world("scene", seed=0)
    >>> scenes = world.pictures(2)                           # pictures, class maps, edges, depth
    >>> detector = world.detector()
    >>> condition = detector.draw(scenes.classes_BHW)        # what a ControlNet is given
    >>> detector.agreement(detector.detect(scenes.images_BCHW), detector.read(condition)).tolist()
    [1.0, 1.0]
    >>> rows = world.comparisons(400, split="train")         # doctest: +SKIP
    >>> model = world.model_dir()                            # doctest: +SKIP

A picture is 16 x 16 pixels with two or three coloured shapes, some behind others. The prompt names its style (bright or
dim, smooth or rough); what is where is in the condition: a class map, edges or depth. An exact detector reads the map off
any picture, so that how well a model follows its condition is known without a mistake.

The model is pretrained on the spot (about five minutes of processor time, then cached): a base model, its ControlNet, and
some steps with a consistency reward, since methods that compare conditions are a second stage. It follows class maps roughly:
the mean IoU of its samples was 0.55 with seed 0, where real pictures have 1. Its rows are what such a method needs: a picture, its true
condition, and what the detector sees in the model's own sample under that condition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prefopt.cache import built_once
from prefopt.worlds.base import (
    Split,
    cache_place,
    check_positive,
    check_shares,
    check_split,
    flipped,
    seed_of,
)
from prefopt.worlds.diffusion import kept_images, sample_images
from prefopt.worlds.pixels import as_batch
from prefopt.worlds.scene import measures, rows
from prefopt.worlds.scene.detector import Kind, SceneDetector
from prefopt.worlds.scene.task import Scenes, draw, parse_caption, style_of

CODE_VERSION = 1
"""Part of every cache key. Raise it with any change that changes a model or a sample."""

PRETRAIN_LEARNING_RATE = 2e-3
CONTROL_LEARNING_RATE = 1e-3
CONSISTENCY_LEARNING_RATE = 3e-4
SAMPLING: dict[str, Any] = {"num_inference_steps": 10, "eta": 0.0, "guidance_scale": 1.0}
"""Of DDIM, wherever the world samples: without guidance."""


@dataclass(frozen=True)
class SceneWorld:
    """Settings of the scene world; what it makes depends on them alone (and, in the last digits, on the machine).

    Attributes:
        seed: of pictures, models and samples.
        condition: kind of control image: "mask", "edges" or "depth". All kinds share one base model.
        width: channels of the U-Net's first level, a multiple of 8; the others have twice as many.
        pretrain_pictures: pictures that all stages learn from.
        batch_size: pictures a step, in all stages.
        pretrain_steps: optimizer steps of the base model.
        control_steps: optimizer steps of the ControlNet.
        consistency_steps: further ones with the consistency reward; 0 for none.
    """

    seed: int = 0
    condition: Kind = "mask"
    width: int = 16
    pretrain_pictures: int = 4096
    batch_size: int = 64
    pretrain_steps: int = 600
    control_steps: int = 350
    consistency_steps: int = 150

    def __post_init__(self) -> None:
        SceneDetector(self.condition)
        if self.width < 8 or self.width % 8:
            raise ValueError(f"width must be a multiple of 8; given {self.width}")
        check_positive(self, ("pretrain_pictures", "batch_size", "pretrain_steps", "control_steps"))
        if self.consistency_steps < 0:
            raise ValueError(f"consistency_steps must be at least 0; given {self.consistency_steps}")

    # -- the task ---------------------------------------------------------------------------------------------

    def pictures(self, n: int, split: Split = "train") -> Scenes:
        """`n` pictures with their maps; the first k of them are `pictures(k)`. No picture is in both splits."""
        check_split(split)
        return draw(n, f"scenes {split} {self.seed}")

    def prompts(self, n: int, split: Split = "train") -> list[str]:
        """The captions of `pictures(n, split)`. They name the style: there are four, in both splits."""
        return self.pictures(n, split).captions

    def detector(self, independent: bool = False) -> SceneDetector:
        """Reads this world's kind of condition off pictures.

        Args:
            independent: another one than rows are made by and models may be trained on, to judge by.
        """
        return SceneDetector(self.condition, independent)

    def conditions(self, n: int, split: Split = "train") -> Tensor:
        """(n, 3, 16, 16) true control images of `pictures(n, split)`, in [0, 1]."""
        detector = self.detector()
        return detector.draw(detector.labels(self.pictures(n, split).classes_BHW))

    def rewards(self, prompts: Sequence[str], images: Any) -> dict[str, Tensor]:
        """Whether pictures have the style of their prompts, each a (B,) tensor.

        `brightness`, `texture`: 1 if that is right. `utility`: the mean of both. How well a picture follows its condition
        is not in the prompt: see `fidelity`.

        Args:
            prompts: captions.
            images: see `as_batch`.

        Raises:
            ValueError: a prompt that is no caption, pictures of another size, or different numbers of them.
        """
        images_BCHW = as_batch(images)
        if len(prompts) != len(images_BCHW):
            raise ValueError(
                f"needed one prompt a picture; given {len(prompts)} prompts and {len(images_BCHW)} pictures"
            )
        wanted_B2 = torch.tensor([parse_caption(p) for p in prompts], device=images_BCHW.device).reshape(
            -1, 2
        )
        classes_BHW = SceneDetector("mask", independent=True).detect(images_BCHW)
        right_B2 = (style_of(images_BCHW, classes_BHW) == wanted_B2).float()
        return {"brightness": right_B2[:, 0], "texture": right_B2[:, 1], "utility": right_B2.mean(1)}

    def verify(self, prompt: str, image: Any) -> float:
        """Share of the prompt's two words of style that are true of a picture."""
        return float(self.rewards([prompt], [image])["utility"])

    # -- the models -------------------------------------------------------------------------------------------

    def pretraining_pictures(self) -> Scenes:
        """What all stages learn from."""
        return draw(self.pretrain_pictures, f"scenes pretraining {self.seed}")

    def base_dir(self, progress: bool = True) -> Path:
        """Folder with the pretrained `StableDiffusionPipeline` that ControlNets of all kinds share; cached.

        Args:
            progress: show a bar if standard error is a terminal.
        """
        from prefopt.worlds.scene import model as scene_model

        def build(folder: Path) -> None:
            scene_model.pretrain(
                folder,
                self.pretraining_pictures(),
                seed=self.seed,
                width=self.width,
                course=scene_model.Course(self.pretrain_steps, self.batch_size, PRETRAIN_LEARNING_RATE),
                progress=progress,
            )

        # what the base model does not depend on must not be in its key
        plain = replace(self, condition="mask", control_steps=1, consistency_steps=0)
        return built_once(plain._place("base"), build)

    def model_dir(self, progress: bool = True) -> Path:
        """Folder with the `StableDiffusionControlNetPipeline`, for `from_pretrained`; made on first use, then cached.

        Args:
            progress: show a bar if standard error is a terminal.
        """
        from prefopt.worlds.scene import model as scene_model

        def build(folder: Path) -> None:
            shared: dict[str, Any] = {"seed": self.seed, "progress": progress}
            scenes, detector = self.pretraining_pictures(), self.detector()
            if self.consistency_steps:
                start = replace(self, consistency_steps=0).model_dir(progress)
                course = scene_model.Course(
                    self.consistency_steps, self.batch_size, CONSISTENCY_LEARNING_RATE
                )
                scene_model.tune(folder, start, scenes, detector, course=course, **shared)
            else:
                course = scene_model.Course(self.control_steps, self.batch_size, CONTROL_LEARNING_RATE)
                scene_model.add_control(
                    folder, self.base_dir(progress), scenes, detector, course=course, **shared
                )

        return built_once(self._place("model"), build)

    def _place(self, kind: str, **more: Any) -> Path:
        """Cache folder named after everything its content depends on."""
        libraries = ("torch", "diffusers", "transformers", "tokenizers")
        return cache_place("scene", kind, self, CODE_VERSION, libraries, **more)

    def samples(
        self, n: int, per_condition: int = 1, split: Split = "train", progress: bool = True
    ) -> Tensor:
        """(n, per_condition, 3, 16, 16) pictures that the model made under `conditions(n, split)`; cached on disk.

        10 DDIM steps, eta 0, no guidance; 8 bits a channel, as in a file.
        """

        def make() -> Tensor:
            from prefopt.worlds.scene import model as scene_model

            return sample_images(
                scene_model.load(self.model_dir(progress)),
                [prompt for prompt in self.prompts(n, split) for _ in range(per_condition)],
                seed=seed_of(f"scene samples {split} {self.seed}"),
                controls_BCHW=self.conditions(n, split).repeat_interleave(per_condition, 0),
                progress=progress,
                **SAMPLING,
            )

        place = self._place("samples", n=n, per_condition=per_condition, split=split)
        return kept_images(place, make).unflatten(0, (n, per_condition))

    def fidelity(
        self,
        pipeline: Any,
        n: int = 128,
        *,
        split: Split = "test",
        seed: int = 0,
        progress: bool = False,
        **sampling: Any,
    ) -> measures.Fidelity:
        """How well a model's pictures under `conditions(n, split)` follow them, by the independent detector.

        Args:
            pipeline: a `StableDiffusionControlNetPipeline`, on any device.
            n: pictures, at least 2.
            split: "test" or "train".
            seed: of the noise. Two models under one seed start from the same noise.
            progress: show a bar if standard error is a terminal.
            sampling: of `sample_images`, in place of `SAMPLING`: num_inference_steps, eta, guidance_scale.

        Raises:
            ValueError: n below 2.
        """
        if n < 2:
            raise ValueError(f"an interval needs n of at least 2; given {n}")
        images_BCHW = sample_images(
            pipeline,
            self.prompts(n, split),
            seed=seed_of(f"scene evaluation {seed}"),
            controls_BCHW=self.conditions(n, split),
            progress=progress,
            **(SAMPLING | sampling),
        )
        return self.judged(images_BCHW, split)

    def judged(self, images_BCHW: Tensor, split: Split = "test") -> measures.Fidelity:
        """The measures of `fidelity`, of pictures made under the first conditions of a split.

        Args:
            images_BCHW: picture k under condition k; in [0, 1].
            split: "test" or "train".
        """
        scenes = self.pictures(len(images_BCHW), split)
        real = draw(measures.REAL_PICTURES, f"scenes real {self.seed}")
        style_B = self.rewards(scenes.captions, images_BCHW)["utility"] == 1
        judge = self.detector(independent=True)
        return measures.fidelity(images_BCHW, scenes, judge, style_B, real.images_BCHW)

    # -- preferences ------------------------------------------------------------------------------------------

    def comparisons(
        self,
        n: int,
        split: Split = "train",
        label_noise: float = 0.0,
        seed: int = 0,
        *,
        progress: bool = True,
    ) -> list[dict[str, Any]]:
        """Rows of one picture under two conditions: the true one, and what the detector sees in the model's own sample.

        Where the sample follows the condition without a flaw there is nothing to compare: such a row is left out, and a
        later picture takes its place.

        Args:
            n: rows.
            split: "train" or "test".
            label_noise: share of the rows whose sides are exchanged, in [0, 1]. What is exchanged at some share is also
                exchanged at a larger one.
            seed: of what is exchanged; all else does not depend on it.
            progress: show a bar if standard error is a terminal.

        Returns:
            Rows with `id` (of the picture), `prompt`, `image`, `chosen_condition`, `rejected_condition`
            (`{"bytes": PNG, "path": None}`, as `datasets.Image` has them), `score` (agreement of the two conditions in
            [0, 1]), `source`.

        Raises:
            ValueError: a share out of its range, or too few rows whose sides differ.
        """
        check_shares(label_noise=label_noise)

        def made(count: int) -> list[dict[str, Any]]:
            samples_BCHW = self.samples(count, 1, split, progress)[:, 0]
            return rows.of_conditions(self.pictures(count, split), samples_BCHW, self.detector(), split)

        found = rows.enough(n, made)
        sides = ("chosen_condition", "rejected_condition")
        for row in flipped(found, label_noise, seed):
            row.update(zip(sides, [row[side] for side in sides[::-1]], strict=True))
        return found

    def singles(self, n: int, split: Split = "train") -> list[dict[str, Any]]:
        """Rows of `pictures(n, split)`, each under its true condition: no model has a part in which they are.

        Args:
            n: rows.
            split: "train" or "test".

        Returns:
            Rows with `id`, `prompt`, `image`, `condition`, `source`.
        """
        return rows.of_singles(self.pictures(n, split), self.detector(), split)

    def pairs(
        self, n: int, split: Split = "train", candidates: int = 3, *, progress: bool = True
    ) -> list[dict[str, Any]]:
        """Rows of two pictures under one true condition: the model's best and worst of some samples, by agreement.

        Where all samples agree with the condition alike, the row is left out, and a later condition takes its place.

        Args:
            n: rows.
            split: "train" or "test".
            candidates: samples a condition, at least 2.
            progress: show a bar if standard error is a terminal.

        Returns:
            Rows with `id`, `prompt`, `condition`, `chosen_image`, `rejected_image`, `score_chosen`, `score_rejected`
            (agreement with the condition), `source`.

        Raises:
            ValueError: fewer than two candidates, or too few rows whose sides differ.
        """
        if candidates < 2:
            raise ValueError(f"a pair needs at least 2 candidates; given {candidates}")

        def made(count: int) -> list[dict[str, Any]]:
            samples_BNCHW = self.samples(count, candidates, split, progress)
            return rows.of_images(self.pictures(count, split), samples_BNCHW, self.detector(), split)

        return rows.enough(n, made)
