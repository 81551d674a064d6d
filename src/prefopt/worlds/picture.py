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

import hashlib
import io
import itertools
import json
import math
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from prefopt.cache import built_once, cache_dir
from prefopt.worlds.text import Estimate, Split

CODE_VERSION = 1
"""Part of every cache key. Raise it with any change that changes a model or a sample."""

SIDE = 16
SHAPES = ("circle", "square", "triangle", "cross")
COLOURS = {
    "red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1),
    "yellow": (1, 1, 0), "magenta": (1, 0, 1), "cyan": (0, 1, 1),
}  # fmt: skip
PLACES = {
    "top left": (4.5, 4.5), "top right": (11.5, 4.5), "bottom left": (4.5, 11.5), "bottom right": (11.5, 11.5),
}  # fmt: skip
"""Centre (x, y) of each place; the centre of the first pixel is (0.5, 0.5)."""
SIZES = {"small": 2.4, "large": 3.8}
"""Radius in pixels."""

ATTRIBUTES = {"shape": SHAPES, "colour": tuple(COLOURS), "place": tuple(PLACES), "size": tuple(SIZES)}
"""Values of each attribute; an attribute row holds one index for each, in this order."""
N_CAPTIONS = math.prod(map(len, ATTRIBUTES.values()))

GROUND = 0.12
SATURATION = (0.3, 1.0)
GRAIN = (0.0, 0.08)
JITTER = 0.5
TEMPLATE_SATURATIONS = (0.3, 0.65, 1.0)
TEMPLATE_JITTERS = ((0.0, 0.0), (0.3, 0.3), (-0.3, 0.3), (0.3, -0.3), (-0.3, -0.3))
"""Of the templates that a picture is compared with. The shifted ones take parsing errors from 1 in 2000 to 1 in 20000."""

CHROMATIC_PIXELS = 20
MATCH_WEIGHT = 4.0
SINGLES_BASELINE = 3.0
"""About the median utility of a picture with a mismatch of 0.5: a single picture above it is more often liked."""

_CAPTION = re.compile(
    rf"\s*a\s+({'|'.join(SIZES)})\s+({'|'.join(COLOURS)})\s+({'|'.join(SHAPES)})\s*,\s*({'|'.join(PLACES)})\s*",
    re.IGNORECASE,
)


# -- captions ------------------------------------------------------------------------------------------------


def caption_of(attributes: Sequence[int]) -> str:
    """The caption of an attribute row.

    >>> caption_of((0, 0, 0, 0))
    'a small red circle, top left'
    """
    shape, colour, place, size = (
        values[int(k)] for values, k in zip(ATTRIBUTES.values(), attributes, strict=True)
    )
    return f"a {size} {colour} {shape}, {place}"


def parse_caption(caption: str) -> tuple[int, int, int, int]:
    """The attribute row of a caption.

    >>> parse_caption("a small red circle, top left")
    (0, 0, 0, 0)

    Raises:
        ValueError: not a caption of this world.
    """
    match = _CAPTION.fullmatch(caption)
    if match is None:
        raise ValueError(
            f"not a caption of the picture world: {caption!r}. Needed: size, colour, shape and place, for example "
            f'"a small red circle, top left"; there are {"; ".join(", ".join(v) for v in ATTRIBUTES.values())}'
        )
    size, colour, shape, place = (text.lower() for text in match.groups())
    return (
        SHAPES.index(shape),
        ATTRIBUTES["colour"].index(colour),
        ATTRIBUTES["place"].index(place),
        ATTRIBUTES["size"].index(size),
    )


def split_of(attributes: Sequence[int]) -> Split:
    """Where a caption belongs: one in four is "test", and equally many of every pair of attribute values are."""
    shape, colour, place, size = attributes
    return "test" if (shape + colour + place + 2 * size) % 4 == 3 else "train"


# -- rendering -----------------------------------------------------------------------------------------------


def render(
    attributes_B4: Tensor, saturation_B: Tensor, grain_B: Tensor, jitter_B2: Tensor, noise_BCHW: Tensor
) -> tuple[Tensor, Tensor]:
    """Pictures (B, 3, 16, 16) in [0, 1] and their masks (B, 16, 16), true where the object is.

    Args:
        attributes_B4: indices into the values of `ATTRIBUTES`.
        saturation_B: 1 is the pure colour, 0 its grey.
        grain_B: standard deviation of the white noise.
        jitter_B2: shift (x, y) from the place's centre, in pixels.
        noise_BCHW: standard normal.
    """
    shape_B, colour_B, place_B, size_B = attributes_B4.unbind(1)
    radius_B11 = torch.tensor(list(SIZES.values()))[size_B, None, None]
    centre_B2 = torch.tensor(list(PLACES.values()))[place_B] + jitter_B2
    pixel_H = torch.arange(SIDE) + 0.5
    x_BHW, y_BHW = torch.broadcast_tensors(
        pixel_H - centre_B2[:, 0, None, None], pixel_H[:, None] - centre_B2[:, 1, None, None]
    )
    distances = torch.stack(_inside(x_BHW, y_BHW, radius_B11))
    distance_BHW = distances[shape_B, torch.arange(len(shape_B))]
    cover_BHW = torch.sigmoid(4 * distance_BHW)
    pure_BC = torch.tensor(list(COLOURS.values()), dtype=torch.float32)[colour_B]
    colour_BC = pure_BC.mean(1, keepdim=True).lerp(pure_BC, saturation_B[:, None])
    clean_BCHW = GROUND + cover_BHW[:, None] * (colour_BC[:, :, None, None] - GROUND)
    return (clean_BCHW + grain_B[:, None, None, None] * noise_BCHW).clamp(0, 1), distance_BHW > 0


def _inside(x: Tensor, y: Tensor, r: Tensor) -> tuple[Tensor, ...]:
    """How far inside each shape of `SHAPES` with radius r a point is, in pixels; negative outside."""
    across, down = x.abs(), y.abs()
    base = 0.9 * r  # the triangle's vertices are (0, -r) and (+-r, base)
    triangle = torch.minimum(base - y, (r * (y + r) - (base + r) * across) / torch.hypot(r, base + r))
    arm = 0.28 * r
    cross = torch.maximum(
        torch.minimum(r - across, arm - down),
        torch.minimum(arm - across, r - down),
    )
    return r - torch.hypot(x, y), r - torch.maximum(across, down), triangle, cross


def edges_of(masks_BHW: Tensor) -> Tensor:
    """(B, 16, 16) bool: pixels of the object with a neighbour to a side, above or below that is not of it."""
    padded = torch.nn.functional.pad(masks_BHW, (1, 1, 1, 1))
    inner = padded[:, :-2, 1:-1] & padded[:, 2:, 1:-1] & padded[:, 1:-1, :-2] & padded[:, 1:-1, 2:]
    return masks_BHW & ~inner


def segment(images_BCHW: Tensor) -> Tensor:
    """(B, 16, 16) bool masks from pixels alone, also of pictures that a model made: nearer the object than the ground."""
    contrast_BCN = (images_BCHW - GROUND).flatten(2)
    clearest = contrast_BCN.norm(dim=1, keepdim=True).topk(6).indices
    colour_BC = contrast_BCN.gather(2, clearest.expand(-1, 3, -1)).mean(2)
    along_BN = torch.einsum("bcn,bc->bn", contrast_BCN, colour_BC) / colour_BC.square().sum(1, keepdim=True)
    return along_BN.unflatten(1, images_BCHW.shape[2:]) > 0.5


class Pictures(NamedTuple):
    """Pictures with everything that is known of them.

    Attributes:
        captions: what was asked for.
        attributes_B4: what the picture shows.
        images_BCHW: float32 in [0, 1].
        masks_BHW: bool, the object.
        edges_BHW: bool, the object's outline.
    """

    captions: list[str]
    attributes_B4: Tensor
    images_BCHW: Tensor
    masks_BHW: Tensor
    edges_BHW: Tensor


def draw(captions: Sequence[str], stream: str, mismatch: float) -> Pictures:
    """One picture a caption, each of its attributes replaced by a random value with probability `mismatch`.

    Picture k depends on (`stream`, k, its caption) alone.
    """
    wanted = np.array([parse_caption(c) for c in captions], dtype=np.int64).reshape(-1, 4)
    uniform = np.empty((len(wanted), 12), dtype=np.float32)
    noise = np.empty((len(wanted), 3, SIDE, SIDE), dtype=np.float32)
    key = number(stream)
    for k in range(len(wanted)):
        rng = np.random.default_rng([key, k])
        uniform[k] = rng.random(12, dtype=np.float32)
        noise[k] = rng.standard_normal((3, SIDE, SIDE), dtype=np.float32)
    counts = np.array([len(values) for values in ATTRIBUTES.values()])
    shown = np.where(uniform[:, :4] < mismatch, (uniform[:, 4:8] * counts).astype(np.int64), wanted)
    attributes_B4, u = torch.from_numpy(shown), torch.from_numpy(uniform[:, 8:])
    images_BCHW, masks_BHW = render(
        attributes_B4,
        SATURATION[0] + (SATURATION[1] - SATURATION[0]) * u[:, 0],
        GRAIN[0] + (GRAIN[1] - GRAIN[0]) * u[:, 1],
        JITTER * (2 * u[:, 2:] - 1),
        torch.from_numpy(noise),
    )
    return Pictures(list(captions), attributes_B4, images_BCHW, masks_BHW, edges_of(masks_BHW))


def number(text: str) -> int:
    """A seed made of a text: the same in every process, unlike `hash`."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7])


# -- rewards -------------------------------------------------------------------------------------------------


@cache
def _templates() -> tuple[Tensor, Tensor]:
    """(T, 4) attributes and (T, 768) pixels of clean pictures of every kind."""
    every = list(itertools.product(*(range(len(values)) for values in ATTRIBUTES.values())))
    looks = list(itertools.product(TEMPLATE_SATURATIONS, TEMPLATE_JITTERS))
    attributes_T4 = torch.tensor(every).repeat_interleave(len(looks), 0)
    n = len(attributes_T4)
    images, _ = render(
        attributes_T4,
        torch.tensor([saturation for saturation, _ in looks]).repeat(len(every)),
        torch.zeros(n),
        torch.tensor([jitter for _, jitter in looks]).repeat(len(every), 1),
        torch.zeros(n, 3, SIDE, SIDE),
    )
    return attributes_T4, images.flatten(1)


def _distances(images_BCHW: Tensor) -> Tensor:
    """(B, T) squared distances to the templates, less each picture's own squared norm."""
    pixels_T = _templates()[1].to(images_BCHW)
    return pixels_T.square().sum(1) - 2 * images_BCHW.flatten(1) @ pixels_T.T


def read(images_BCHW: Tensor) -> Tensor:
    """(B, 4) attributes of pictures, by the nearest template."""
    with torch.no_grad():
        nearest = [_distances(chunk).argmin(1) for chunk in images_BCHW.split(4096)]
    return _templates()[0].to(images_BCHW.device)[torch.cat(nearest)]


def soft_match(attributes_B4: Tensor, images_BCHW: Tensor) -> Tensor:
    """(B,) in [0, 1], differentiable: mean probability of the four attributes under a softmin of template distances."""
    chunks = zip(attributes_B4.split(4096), images_BCHW.split(4096), strict=True)
    return torch.cat([_soft_match(wanted, images) for wanted, images in chunks])


def _soft_match(attributes_B4: Tensor, images_BCHW: Tensor) -> Tensor:
    attributes_T4 = _templates()[0].to(images_BCHW.device)
    probability_BT = _distances(images_BCHW).neg().softmax(1)
    found = []
    for a, values in enumerate(ATTRIBUTES.values()):
        is_value = torch.nn.functional.one_hot(attributes_T4[:, a], len(values)).to(probability_BT)
        found.append((probability_BT @ is_value).gather(1, attributes_B4[:, a : a + 1]))
    return torch.cat(found, 1).mean(1)


def aesthetic(images_BCHW: Tensor) -> Tensor:
    """(B,) at most 1, differentiable: rewards saturation and punishes grain.

    Mean of (largest - smallest channel) over the 20 pixels where it is largest, minus twice the median absolute
    Laplacian over inner pixels and channels.
    """
    chroma = (images_BCHW.amax(1) - images_BCHW.amin(1)).flatten(1)
    inner = images_BCHW[..., 1:-1, 1:-1]
    sides = images_BCHW[..., 1:-1, :-2] + images_BCHW[..., 1:-1, 2:]
    laplacian = sides + images_BCHW[..., :-2, 1:-1] + images_BCHW[..., 2:, 1:-1] - 4 * inner
    return chroma.topk(CHROMATIC_PIXELS, 1).values.mean(1) - 2 * laplacian.abs().flatten(1).median(1).values


def as_batch(images: Any) -> Tensor:
    """Pictures as a (B, 3, 16, 16) tensor.

    Args:
        images: that tensor; or a sequence of PIL images, of `{"bytes": PNG}` as `datasets` has them, or of
            (3, 16, 16) tensors in [0, 1].

    Raises:
        ValueError: another shape.
    """
    if not isinstance(images, Tensor):
        each = [_as_tensor(image) for image in images]
        for image in each:
            _check_size(image.shape)
        images = torch.stack(each) if each else torch.zeros(0, 3, SIDE, SIDE)
    elif images.ndim != 4:
        raise ValueError(f"needed (B, 3, {SIDE}, {SIDE}) pictures; given {tuple(images.shape)}")
    else:
        _check_size(images.shape[1:])
    if not images.is_floating_point():
        return images.float() / 255
    return images if images.dtype == torch.float64 else images.float()


def _check_size(shape: Sequence[int]) -> None:
    if tuple(shape) != (3, SIDE, SIDE):
        raise ValueError(
            f"a picture of this world is (3, {SIDE}, {SIDE}); given {tuple(shape)}. Generate at the model's own size"
        )


def _as_tensor(image: Any) -> Tensor:
    if isinstance(image, Tensor):
        return image
    from PIL import Image

    if isinstance(image, dict):
        image = Image.open(io.BytesIO(image["bytes"]) if image.get("bytes") else image["path"])
    pixels = np.array(image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def as_png(image_CHW: Tensor) -> dict[str, Any]:
    """A picture as `datasets.Image` stores it: `{"bytes": PNG, "path": None}`. 8 bits a channel."""
    from PIL import Image

    pixels = image_CHW.detach().cpu().clamp(0, 1).mul(255).round().byte().permute(1, 2, 0)
    file = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(file, format="PNG")
    return {"bytes": file.getvalue(), "path": None}


# -- the world -----------------------------------------------------------------------------------------------


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
        _check_shares(caption_mismatch=self.caption_mismatch)
        if self.width < 8 or self.width % 8:
            raise ValueError(f"width must be a multiple of 8; given {self.width}")
        for name in ("pretrain_pictures", "pretrain_steps", "pretrain_batch_size", "codec_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; given {getattr(self, name)}")

    def prompts(self, n: int, split: Split = "train") -> list[str]:
        """`n` captions; the first k of them are `prompts(k)`. No caption is in both splits.

        There are 144 in "train" and 48 in "test"; all have come once before any comes again.
        """
        if split not in ("train", "test"):
            raise ValueError(f"split must be train or test; given {split!r}")
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
        _check_shares(mismatch=mismatch)
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

    def model_dir(self, progress: bool = True) -> Path:
        """Folder with the pretrained `StableDiffusionPipeline`, for `from_pretrained`; made on first use, then cached.

        Args:
            progress: show a bar if standard error is a terminal.
        """

        def build(folder: Path) -> None:
            from prefopt.worlds import picture_model

            captions = random.Random(f"pretraining {self.seed}").choices(
                [*self.prompts(144, "train"), *self.prompts(48, "test")], k=self.pretrain_pictures
            )
            picture_model.pretrain(
                folder,
                pictures=draw(captions, f"pretraining {self.seed}", self.caption_mismatch),
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
        key = {
            "world": asdict(self),
            "code": CODE_VERSION,
            "libraries": {
                name: version(name) for name in ("torch", "diffusers", "transformers", "tokenizers")
            },
            **more,
        }
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:20]
        return cache_dir() / "worlds" / f"picture-{kind}-{digest}"

    def samples(self, n: int, per_prompt: int = 2, split: Split = "train", progress: bool = True) -> Tensor:
        """(n, per_prompt, 3, 16, 16) pictures that the pretrained model made of `prompts(n, split)`; cached on disk.

        20 DDIM steps, eta 1, guidance 2; 8 bits a channel, as in a file.
        """
        prompts = self.prompts(n, split)

        def build(folder: Path) -> None:
            from safetensors.torch import save_file

            from prefopt.worlds import picture_model

            images = picture_model.sample_images(
                picture_model.load(self.model_dir(progress)),
                [prompt for prompt in prompts for _ in range(per_prompt)],
                seed=number(f"samples {split} {self.seed}"),
                progress=progress,
            )
            save_file({"images": images.mul(255).round().byte()}, folder / "images.safetensors")

        from safetensors.torch import load_file

        place = built_once(self._place("samples", n=n, per_prompt=per_prompt, split=split), build)
        images = load_file(place / "images.safetensors")["images"].float() / 255
        return images.unflatten(0, (n, per_prompt))

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
        from prefopt.worlds import picture_model

        prompts = self.prompts(n, split)
        images = picture_model.sample_images(
            pipeline,
            prompts,
            seed=number(f"evaluation {seed}"),
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
        _check_shares(label_noise=label_noise)
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
        utility_N2 = rewards["utility"].double().unflatten(0, (n, 2))
        gap_N = utility_N2[:, 0] - utility_N2[:, 1]
        ties = (gap_N.abs() <= tie_margin).tolist()
        first_wins = _says(gap_N, sharpness, f"annotator {seed}")
        wins = [k for k in range(n) if not ties[k]]
        random.Random(f"label_noise {seed}").shuffle(wins)
        for k in wins[: round(label_noise * len(wins))]:
            first_wins[k] = not first_wins[k]
        counts = Counter(prompts)
        rows = []
        for k, prompt in enumerate(prompts):
            w = 2 * k + (not first_wins[k])
            chosen, rejected = w, 4 * k + 1 - w
            gaps = {
                column: float(rewards[name][chosen] - rewards[name][rejected])
                for column, name in (
                    ("aesthetic_gap", "aesthetic"),
                    ("clip_gap", "match"),
                    ("vqa_gap", "soft_match"),
                )
            }
            rows.append(
                {
                    "id": f"{split}-{k}",
                    "prompt": prompt,
                    "chosen_image": as_png(images_BCHW[chosen]),
                    "rejected_image": as_png(images_BCHW[rejected]),
                    "label": "tie" if ties[k] else "win",
                    "score_chosen": float(rewards["utility"][chosen]),
                    "score_rejected": float(rewards["utility"][rejected]),
                    **gaps,
                    "num_example_per_prompt": counts[prompt],
                    "source": f"world:picture/{candidates}",
                }
            )
        return rows

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
        _check_shares(label_noise=label_noise)
        drawn = draw(self.prompts(n, split), f"singles {split} {self.seed}", 0.5)
        images_BCHW = drawn.images_BCHW.mul(255).round() / 255
        utility_N = self.rewards(drawn.captions, images_BCHW)["utility"].double()
        liked = _says(utility_N - SINGLES_BASELINE, sharpness, f"singles annotator {seed}")
        order = list(range(n))
        random.Random(f"label_noise {seed}").shuffle(order)
        for k in order[: round(label_noise * n)]:
            liked[k] = not liked[k]
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


def _check_shares(**shares: float) -> None:
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise ValueError(f"{name} is a share in [0, 1]; given {share}")


def _says(gap_N: Tensor, sharpness: float, stream: str) -> list[bool]:
    """A Bernoulli draw of sigmoid(sharpness x gap) for each row k, counted by k."""
    rng = np.random.default_rng(number(stream))
    chance = torch.sigmoid((sharpness * gap_N).nan_to_num(0.0))  # infinitely sharp and no gap: a coin
    return [bool(u < p) for u, p in zip(rng.random(len(gap_N)), chance.tolist(), strict=True)]
