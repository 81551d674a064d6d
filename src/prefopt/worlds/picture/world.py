"""The picture world: captioned coloured shapes with exact rewards, and a small Stable Diffusion that draws them half well.

    >>> from prefopt.worlds import get_world
    >>> world = get_world("picture", seed=0)
    >>> [prompt] = world.prompts(1)
    >>> prompt
    'a large green triangle, top right'
    >>> picture = world.pictures(1)                          # what the prompt says, with its mask and edges
    >>> world.rewards(picture.captions, picture.images_BCHW)["match"].item()
    1.0
    >>> rows = world.comparisons(400, split="train")         # doctest: +SKIP
    >>> model = world.model_dir()                            # doctest: +SKIP

A picture is 16 x 16 pixels with one object of four attributes (shape, colour, place, size: 192 captions) on a dark
ground. Its saturation, grain and exact position are in no caption. Two rewards are exact: whether the attributes are
the caption's, and whether the picture is colourful without grain.

The model is pretrained on the spot (a minute or two on two cores, then cached) on pictures whose captions are often
wrong, so that it *can* draw what is asked and often does not: over three seeds its pictures had 0.73 of the attributes
right, 0.28 had all four, and utility was 3.47, where the right pictures through its autoencoder have 4.48.

Legend of shape suffixes: B pictures, C = 3 channels, H = W = 16 rows and columns, T templates, 4 attributes.
Pictures are float32 in [0, 1].
"""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from prefopt.cache import built_once
from prefopt.worlds.base import (
    Estimate,
    Split,
    cache_place,
    check_positive,
    check_shares,
    check_split,
    seed_of,
)
from prefopt.worlds.diffusion import kept_images, sample_images
from prefopt.worlds.picture import annotator
from prefopt.worlds.picture.task import (
    ATTRIBUTES,
    Pictures,
    aesthetic,
    caption_of,
    draw,
    parse_caption,
    read,
    soft_match,
    split_of,
)
from prefopt.worlds.pixels import as_batch, as_png

CODE_VERSION = 1
"""Part of every cache key. Raise it with any change that changes a model or a sample."""

MATCH_WEIGHT = 4.0
"""Of the share of right attributes in the utility."""
SINGLES_BASELINE = 3.0
"""About the median utility of a picture with a mismatch of 0.5: a single picture above it is more often liked."""


@dataclass(frozen=True)
class PictureWorld:
    """Settings of the picture world; what it makes depends on them alone (and, in the last digits, on the machine).

    Attributes:
        seed: of pictures, model and samples.
        caption_mismatch: how likely each attribute of a caption is wrong in the model's pretraining.
        width: channels of the U-Net's first level, a multiple of 8; the second has twice as many.
        pretrain_pictures: pictures that the model is pretrained on.
        pretrain_steps: optimizer steps of the U-Net and the text encoder.
        pretrain_batch_size: pictures a step.
        pretrain_learning_rate: peak.
        codec_steps: optimizer steps of the autoencoder's decoder.
    """

    seed: int = 0
    caption_mismatch: float = 0.35
    width: int = 32
    pretrain_pictures: int = 6000
    pretrain_steps: int = 800
    pretrain_batch_size: int = 96
    pretrain_learning_rate: float = 3e-3
    codec_steps: int = 600

    def __post_init__(self) -> None:
        check_shares(caption_mismatch=self.caption_mismatch)
        if self.width < 8 or self.width % 8:
            raise ValueError(f"width must be a multiple of 8; given {self.width}")
        check_positive(self, ("pretrain_pictures", "pretrain_steps", "pretrain_batch_size", "codec_steps"))

    def prompts(self, n: int, split: Split = "train") -> list[str]:
        """`n` captions; the first k of them are `prompts(k)`. No caption is in both splits.

        There are 144 in "train" and 48 in "test"; all have come once before any comes again.
        """
        check_split(split)
        every = itertools.product(*(range(len(values)) for values in ATTRIBUTES.values()))
        captions = [caption_of(attributes) for attributes in every if split_of(attributes) == split]
        rng = random.Random(f"prompts {split} {self.seed}")
        found: list[str] = []
        while len(found) < n:
            found += rng.sample(captions, len(captions))
        return found[:n]

    def pictures(self, n: int, split: Split = "train", mismatch: float = 0.0) -> Pictures:
        """A picture for each of `prompts(n, split)`, with masks and edges.

        Args:
            n: pictures.
            split: "train" or "test".
            mismatch: how likely each attribute is not the caption's but drawn at random.
        """
        check_shares(mismatch=mismatch)
        return draw(self.prompts(n, split), f"pictures {split} {self.seed}", mismatch)

    def rewards(self, prompts: Sequence[str], images: Any) -> dict[str, Tensor]:
        """Exact rewards of pictures for prompts, each a (B,) tensor.

        `match`: share of the four attributes that are the prompt's. `full`: 1 if all are. `shape`, `colour`, `place`,
        `size`: 1 if that one is. `aesthetic`: see `aesthetic`. `soft_match`: see `soft_match`. `utility`:
        4 match + aesthetic. Only `aesthetic` and `soft_match` have useful gradients.

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
        wanted_B4 = torch.tensor([parse_caption(p) for p in prompts], device=images_BCHW.device)
        right_B4 = (read(images_BCHW) == wanted_B4).float()
        match, beauty = right_B4.mean(1), aesthetic(images_BCHW)
        return {
            "match": match,
            "full": right_B4.amin(1),
            **dict(zip(ATTRIBUTES, right_B4.unbind(1), strict=True)),
            "aesthetic": beauty,
            "soft_match": soft_match(wanted_B4, images_BCHW),
            "utility": MATCH_WEIGHT * match + beauty,
        }

    def verify(self, prompt: str, image: Any) -> float:
        """Utility of one picture for a prompt: 4 times the share of right attributes, plus the aesthetic reward."""
        return float(self.rewards([prompt], [image])["utility"])

    # -- the model --------------------------------------------------------------------------------------------

    def pretraining_pictures(self) -> Pictures:
        """What the model is pretrained on: pictures whose captions are often wrong."""
        captions = random.Random(f"pretraining {self.seed}").choices(
            [*self.prompts(144, "train"), *self.prompts(48, "test")], k=self.pretrain_pictures
        )
        return draw(captions, f"pretraining {self.seed}", self.caption_mismatch)

    def model_dir(self, progress: bool = True) -> Path:
        """Folder with the pretrained `StableDiffusionPipeline`, for `from_pretrained`; made on first use, then cached.

        Args:
            progress: show a bar if standard error is a terminal.
        """

        def build(folder: Path) -> None:
            from prefopt.worlds.picture import model as picture_model

            picture_model.pretrain(
                folder,
                pictures=self.pretraining_pictures(),
                seed=self.seed,
                width=self.width,
                steps=self.pretrain_steps,
                batch_size=self.pretrain_batch_size,
                learning_rate=self.pretrain_learning_rate,
                codec_steps=self.codec_steps,
                progress=progress,
            )

        return built_once(self._place("model"), build)

    def _place(self, kind: str, **more: Any) -> Path:
        """Cache folder named after everything its content depends on."""
        libraries = ("torch", "diffusers", "transformers", "tokenizers")
        return cache_place("picture", kind, self, CODE_VERSION, libraries, **more)

    def samples(self, n: int, per_prompt: int = 2, split: Split = "train", progress: bool = True) -> Tensor:
        """(n, per_prompt, 3, 16, 16) pictures that the pretrained model made of `prompts(n, split)`; cached on disk.

        20 DDIM steps, eta 1, guidance 2; 8 bits a channel, as in a file.
        """
        prompts = self.prompts(n, split)

        def make() -> Tensor:
            from prefopt.worlds.picture import model as picture_model

            return sample_images(
                picture_model.load(self.model_dir(progress)),
                [prompt for prompt in prompts for _ in range(per_prompt)],
                seed=seed_of(f"samples {split} {self.seed}"),
                progress=progress,
            )

        place = self._place("samples", n=n, per_prompt=per_prompt, split=split)
        return kept_images(place, make).unflatten(0, (n, per_prompt))

    def expected_rewards(
        self,
        pipeline: Any,
        n: int = 256,
        *,
        split: Split = "test",
        seed: int = 0,
        num_inference_steps: int = 20,
        eta: float = 1.0,
        guidance_scale: float = 2.0,
        progress: bool = False,
    ) -> dict[str, Estimate]:
        """Mean of each reward of `rewards` over a model's pictures of `prompts(n, split)`, with a 95 % interval.

        Args:
            pipeline: a `StableDiffusionPipeline`, on any device.
            n: pictures, at least 2.
            split: "test" or "train".
            seed: of the noise. Two models under one seed start from the same noise.
            num_inference_steps: of the pipeline's scheduler.
            eta: of DDIM; 0 takes deterministic steps.
            guidance_scale: of classifier-free guidance; 1 is none.
            progress: show a bar if standard error is a terminal.
        """
        if n < 2:
            raise ValueError(f"an interval needs n of at least 2; given {n}")
        prompts = self.prompts(n, split)
        images = sample_images(
            pipeline,
            prompts,
            seed=seed_of(f"evaluation {seed}"),
            num_inference_steps=num_inference_steps,
            eta=eta,
            guidance_scale=guidance_scale,
            progress=progress,
        )
        found = {}
        for name, values in self.rewards(prompts, images).items():
            mean, half = values.mean().item(), 1.96 * values.std().item() / math.sqrt(n)
            found[name] = Estimate(mean, mean - half, mean + half)
        return found

    # -- preferences ------------------------------------------------------------------------------------------

    def comparisons(
        self,
        n: int,
        split: Split = "train",
        label_noise: float = 0.0,
        seed: int = 0,
        *,
        candidates: Literal["renders", "model"] = "renders",
        tie_margin: float = 0.15,
        sharpness: float = 2.0,
        progress: bool = True,
    ) -> list[dict[str, Any]]:
        """Preference rows: two pictures for a prompt, and which of them an annotator prefers.

        The pictures tie if their utilities differ by at most `tie_margin`; otherwise the first wins with probability
        sigmoid(sharpness x difference of utilities), the model of Bradley and Terry.

        Args:
            n: rows, for `prompts(n, split)`.
            split: "train" or "test".
            label_noise: share of the wins whose sides are exchanged after that, in [0, 1]. What is flipped at some
                share is also flipped at a larger one.
            seed: of what the annotator says and of what is flipped; the pictures do not depend on it.
            candidates: "renders" draws clean pictures, each attribute replaced by a random value with probability
                0.5; "model" samples both from the pretrained model (`samples`), as in Pick-a-Pic.
            tie_margin: in units of utility, at least 0.
            sharpness: of the annotator; `math.inf` never errs.
            progress: show a bar if standard error is a terminal.

        Returns:
            Rows with `id`, `prompt`, `chosen_image`, `rejected_image` (`{"bytes": PNG, "path": None}`, as
            `datasets.Image` has them), `label` ("win" or "tie"), `score_chosen`, `score_rejected` (utilities),
            `aesthetic_gap`, `clip_gap`, `vqa_gap` (chosen minus rejected in `aesthetic`, `match` and `soft_match`,
            which stand for the predictors of multi-preference filtering), `num_example_per_prompt`, `source`.

        Raises:
            ValueError: a setting out of its range.
        """
        check_shares(label_noise=label_noise)
        if not tie_margin >= 0 or not sharpness >= 0:
            raise ValueError(
                f"tie_margin and sharpness must be at least 0; given {tie_margin} and {sharpness}"
            )
        prompts = self.prompts(n, split)
        twice = [prompt for prompt in prompts for _ in range(2)]
        if candidates == "renders":
            images_BCHW = draw(twice, f"comparisons {split} {self.seed}", 0.5).images_BCHW
        elif candidates == "model":
            images_BCHW = self.samples(n, 2, split, progress).flatten(0, 1)
        else:
            raise ValueError(f"candidates must be renders or model; given {candidates!r}")
        images_BCHW = images_BCHW.mul(255).round() / 255  # judged as stored
        rewards = self.rewards(twice, images_BCHW)
        told = annotator.prefers(rewards["utility"], tie_margin, sharpness, label_noise, seed)
        rows = annotator.preferences(prompts, images_BCHW, rewards, told)
        return [
            {"id": f"{split}-{k}", **row, "source": f"world:picture/{candidates}"}
            for k, row in enumerate(rows)
        ]

    def singles(
        self,
        n: int,
        split: Split = "train",
        label_noise: float = 0.0,
        seed: int = 0,
        *,
        sharpness: float = 2.0,
    ) -> list[dict[str, Any]]:
        """Single labelled pictures, for methods without pairs: liked with probability sigmoid(sharpness x (utility - 3)).

        Args:
            n: rows, for `prompts(n, split)`; each attribute of a picture is random with probability 0.5.
            split: "train" or "test".
            label_noise: share of the labels that are turned round after that.
            seed: of the labels; the pictures do not depend on it.
            sharpness: of the annotator; `math.inf` never errs.

        Returns:
            Rows with `id`, `prompt`, `image`, `label` (bool), `score` (utility), `source`.
        """
        check_shares(label_noise=label_noise)
        drawn = draw(self.prompts(n, split), f"singles {split} {self.seed}", 0.5)
        images_BCHW = drawn.images_BCHW.mul(255).round() / 255
        utility_N = self.rewards(drawn.captions, images_BCHW)["utility"].double()
        liked = annotator.likes(utility_N - SINGLES_BASELINE, sharpness, label_noise, seed)
        return [
            {
                "id": f"{split}-{k}",
                "prompt": prompt,
                "image": as_png(images_BCHW[k]),
                "label": liked[k],
                "score": float(utility_N[k]),
                "source": "world:picture/singles",
            }
            for k, prompt in enumerate(drawn.captions)
        ]

    def write(self, folder: str | Path, n: int, split: Split = "train", **settings: Any) -> Path:
        """Write `comparisons(n, split, **settings)` as PNG files and a `metadata.jsonl`, an image folder of `datasets`.

        Args:
            folder: made if it is not there; should hold nothing else.
            n: rows.
            split: "train" or "test".
            settings: as of `comparisons`.

        Returns:
            The folder. `load_dataset("imagefolder", data_dir=folder)` gives the rows back, images decoded.
        """
        folder = Path(folder)
        (folder / "images").mkdir(parents=True, exist_ok=True)
        with (folder / "metadata.jsonl").open("w", encoding="utf-8") as file:
            for k, row in enumerate(self.comparisons(n, split, **settings)):
                for side in ("chosen", "rejected"):
                    # no "train" or "test" in the names: `datasets` would take them for splits and lose the metadata
                    name = f"images/{k:05d}-{side}.png"
                    (folder / name).write_bytes(row.pop(f"{side}_image")["bytes"])
                    row[f"{side}_image_file_name"] = name
                file.write(json.dumps(row) + "\n")
        return folder
