"""Scores of images for prompts, behind one call: CLIP-like models, aesthetics, latent judges, worlds, functions.

    scorer = get_scorer("pickscore:yuvalkirstain/PickScore_v1")
    score_B = scorer.score(["a red circle"], images_BCHW)

    specification               score
    world:picture[:REWARD]      exact reward of a world (`utility` unless named)
    clip:DIR                    cosine of image and text
    pickscore:DIR               exp(logit_scale) cosine, about 20 to 23 (arXiv 2305.01569)
    hps:DIR                     cosine, from a preference-tuned CLIP (arXiv 2306.09341; tables show it times 100)
    aesthetic:DIR:HEAD          CLIP checkpoint and the head's safetensors file; about 1 to 10
    lrm:DIR[:VAE]               latent reward model on the clean latent; without VAE, that of its base model

DIR is a folder that `save_pretrained` wrote, or a hub id. Models are loaded when first used; safetensors only.

Shapes: B images, C = 3, H, W; D width of embeddings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from prefopt.modalities.image.preprocessing import ImagePreprocessing
from prefopt.models.loading_report import load_whole
from prefopt.models.sources import check_source, config_values, refuse_remote_code

ScoreFunction = Callable[[list[str], Tensor], Tensor]
"""From B prompts and (B, 3, H, W) images in [0, 1] to (B,) scores; higher is better."""

FORMS = {
    "world": "world:NAME or world:NAME:REWARD",
    "clip": "clip:DIR",
    "pickscore": "pickscore:DIR",
    "hps": "hps:DIR",
    "aesthetic": "aesthetic:DIR:HEAD",
    "lrm": "lrm:DIR or lrm:DIR:VAE",
}


class Scorer(Protocol):
    """Anything that scores images for prompts."""

    @property
    def name(self) -> str:
        """What logs and tables call it."""
        ...

    def score(self, prompts: Sequence[str], images_BCHW: Tensor) -> Tensor:
        """(B,) scores of (B, 3, H, W) images in [0, 1]; higher is better."""
        ...


@dataclass
class LazyScorer:
    """A scorer whose model is loaded on first use, and which checks what goes in and comes out.

    Attributes:
        name: for logs and tables.
        load: makes the function that scores.
        batch_size: images a call of that function.
    """

    name: str
    load: Callable[[], ScoreFunction]
    batch_size: int = 32
    _function: ScoreFunction | None = field(default=None, init=False, repr=False)

    @torch.no_grad()
    def score(self, prompts: Sequence[str], images_BCHW: Tensor) -> Tensor:
        """Scores in single precision, on the CPU.

        Args:
            prompts: one an image.
            images_BCHW: (B, 3, H, W) in [0, 1].

        Returns:
            (B,) scores; higher is better.

        Raises:
            ValueError: another number of prompts, another shape or range, or scores that are not B finite numbers.
        """
        if isinstance(prompts, str) or len(prompts) != len(images_BCHW):
            given = 1 if isinstance(prompts, str) else len(prompts)
            raise ValueError(
                f"{given} prompts for {len(images_BCHW)} images: needed a list with one an image"
            )
        check_images(images_BCHW)
        if not len(prompts):
            return torch.zeros(0)
        if self._function is None:
            self._function = self.load()
        chunks = []
        for start in range(0, len(prompts), self.batch_size):
            some = list(prompts[start : start + self.batch_size])
            score_b = torch.as_tensor(self._function(some, images_BCHW[start : start + self.batch_size]))
            if score_b.shape != (len(some),) or not bool(score_b.isfinite().all()):
                raise ValueError(
                    f"{self.name} gave scores of shape {tuple(score_b.shape)}, finite: "
                    f"{bool(score_b.isfinite().all())}, for {len(some)} images; needed one finite number each"
                )
            chunks.append(score_b.float().cpu())
        return torch.cat(chunks)


def check_images(images_BCHW: Tensor) -> None:
    """Raise a ValueError unless images are (B, 3, H, W) numbers in [0, 1], up to rounding."""
    if images_BCHW.ndim != 4 or images_BCHW.shape[1] != 3 or not images_BCHW.is_floating_point():
        raise ValueError(
            f"images have shape {tuple(images_BCHW.shape)} and dtype {images_BCHW.dtype}; needed (B, 3, H, W) floats"
        )
    if images_BCHW.numel():
        low, high = images_BCHW.min().item(), images_BCHW.max().item()
        if not (low >= -0.01 and high <= 1.01):  # written so that NaN fails too
            raise ValueError(
                f"images have values from {low:.3g} to {high:.3g}; needed [0, 1]: map [-1, 1] by (x + 1) / 2, bytes by "
                "x / 255"
            )


# -- functions and worlds ------------------------------------------------------------------------------------


def callable_scorer(function: ScoreFunction, name: str, batch_size: int = 32) -> LazyScorer:
    """Your own function as a scorer.

    Example:
        >>> redness = callable_scorer(lambda prompts, images: images[:, 0].mean((1, 2)), "redness")
        >>> redness.score(["a", "b"], torch.ones(2, 3, 4, 4)).tolist()
        [1.0, 1.0]
    """
    return LazyScorer(name, lambda: function, batch_size)


def world_scorer(world: Any, reward: str = "utility", name: str | None = None) -> LazyScorer:
    """An exact reward of a world.

    Args:
        world: its name, or a world that has `rewards(prompts, images)`, a dictionary of (B,) tensors.
        reward: key of that dictionary.
        name: for logs; None: "world:NAME:REWARD".

    Raises:
        ValueError: no such world, or one without rewards of images.
    """
    if isinstance(world, str):
        from prefopt.worlds import get_world

        name = name or f"world:{world}:{reward}"
        world = get_world(world)
    if not hasattr(world, "rewards"):
        raise ValueError(f"the world {type(world).__name__} has no rewards of images; world:picture has")

    def function(prompts: list[str], images_BCHW: Tensor) -> Tensor:
        rewards = world.rewards(prompts, images_BCHW)
        if reward not in rewards:
            raise ValueError(f"the world has no reward {reward!r}; it has {', '.join(rewards)}")
        chosen: Tensor = rewards[reward]
        return chosen

    return callable_scorer(function, name or f"world:{type(world).__name__}:{reward}")


# -- CLIP-like models ----------------------------------------------------------------------------------------


def clip_scorer(
    source: str | Path,
    kind: Literal["clip", "pickscore", "hps"] = "clip",
    *,
    processor: str | Path | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    batch_size: int = 32,
) -> LazyScorer:
    """How well an image fits its prompt, by a CLIP checkpoint.

    Args:
        source: folder or hub id of a transformers CLIP model.
        kind: "pickscore" multiplies the cosine by the model's temperature; "clip" and "hps" do not.
        processor: where tokenizer and image preprocessing come from, if not from `source`. (PickScore's authors use
            that of laion/CLIP-ViT-H-14-laion2B-s32B-b79K.)
        device: of the model.
        dtype: of the model; cosines are taken in single precision.
        batch_size: images at once.

    Texts are cut to the model's length, as their authors do. HPS's own code pads images that are not square; here they
    are cropped, so only square ones give its numbers.

    Raises:
        FileNotFoundError: a folder was meant that is not there.
        ValueError: unknown kind; on first use, a model without image and text features.
    """
    if kind not in ("clip", "pickscore", "hps"):
        raise ValueError(f"kind {kind!r} is not one of: clip, pickscore, hps")
    place = _place(source)
    tools = place if processor is None else str(Path(processor).expanduser())

    def load() -> ScoreFunction:
        from transformers import AutoModel, AutoTokenizer

        refuse_remote_code(str(place), config_values(str(place)))
        model = (
            load_whole(AutoModel, place, part=True, dtype=dtype, trust_remote_code=False).eval().to(device)
        )
        if not (hasattr(model, "get_image_features") and hasattr(model, "logit_scale")):
            raise ValueError(f"{place} holds a {type(model).__name__}; needed a CLIP model with both towers")
        tokenizer = AutoTokenizer.from_pretrained(tools)
        prepare = ImagePreprocessing.of(tools, model.config.vision_config.image_size)
        length = min(tokenizer.model_max_length, model.config.text_config.max_position_embeddings)

        def function(prompts: list[str], images_BCHW: Tensor) -> Tensor:
            tokens = tokenizer(
                prompts, padding=True, truncation=True, max_length=length, return_tensors="pt"
            ).to(device)
            pixels_BCHW = prepare(images_BCHW.to(device)).to(dtype)
            image_BD = features(model.get_image_features(pixel_values=pixels_BCHW))
            text_BD = features(model.get_text_features(tokens.input_ids, tokens.attention_mask))
            cosine_B = F.cosine_similarity(image_BD, text_BD, dim=-1)
            return cosine_B * model.logit_scale.float().exp() if kind == "pickscore" else cosine_B

        return function

    return LazyScorer(f"{kind}:{source}", load, batch_size)


def aesthetic_scorer(
    clip: str | Path, head: str | Path, *, device: str = "cpu", batch_size: int = 32
) -> LazyScorer:
    """How pleasing an image is, whatever its prompt: a linear head on CLIP's embedding of length 1.

    The head is LAION's aesthetic predictor: linear layers (768-1024-128-64-16-1 for ViT-L/14) without activations.

    Args:
        clip: folder or hub id of the CLIP model that the head was trained on.
        head: safetensors file with a weight and a bias a layer, numbered by their names; the sizes are read from it.

    Raises:
        FileNotFoundError: a file or folder is not there.
        ValueError: a head in another format; on first use, layers that do not fit each other or the CLIP model.
    """
    place, file = _place(clip), Path(head).expanduser()
    if file.suffix != ".safetensors":
        raise ValueError(
            f"{head} is not a safetensors file. Heads in other formats are not read, since they can run code: convert "
            "it once, safetensors.torch.save_file(torch.load(FILE, weights_only=True), NEW)"
        )
    if not file.is_file():
        raise FileNotFoundError(f"no head at {head}; give the safetensors file of the aesthetic predictor")

    def load() -> ScoreFunction:
        from transformers import AutoConfig, AutoModel, CLIPVisionModelWithProjection

        vision_only = AutoConfig.from_pretrained(place).model_type == "clip_vision_model"
        found = CLIPVisionModelWithProjection if vision_only else AutoModel
        model = load_whole(found, place, part=vision_only, dtype=torch.float32).eval().to(device)
        vision = model.config if vision_only else model.config.vision_config
        prepare = ImagePreprocessing.of(place, vision.image_size)
        layers = [(w.to(device), None if b is None else b.to(device)) for w, b in linear_layers(file)]
        if layers[0][0].shape[1] != model.config.projection_dim:
            raise ValueError(
                f"the head {head} reads embeddings of width {layers[0][0].shape[1]}, and {clip} makes "
                f"{model.config.projection_dim}; needed the CLIP model that the head was trained on"
            )

        def function(prompts: list[str], images_BCHW: Tensor) -> Tensor:
            pixels_BCHW = prepare(images_BCHW.to(device))
            embed = model if vision_only else model.get_image_features
            h_BD = F.normalize(features(embed(pixel_values=pixels_BCHW)), dim=-1)
            for weight, bias in layers:
                h_BD = F.linear(h_BD, weight, bias)
            return h_BD[:, 0]

        return function

    return LazyScorer(f"aesthetic:{clip}", load, batch_size)


def features(output: Any) -> Tensor:
    """Embeddings in single precision: transformers 5 wraps them in an object, older versions return the tensor."""
    if not isinstance(output, Tensor):
        output = output.image_embeds if "image_embeds" in output else output.pooler_output
    embeddings: Tensor = output.float()
    return embeddings


def linear_layers(file: Path) -> list[tuple[Tensor, Tensor | None]]:
    """Weights and biases of a chain of linear layers that ends in one number, in the order of their names' numbers.

    Raises:
        ValueError: the sizes do not make such a chain.
    """
    from safetensors.torch import load_file

    tensors = load_file(file)
    names = [name for name, tensor in tensors.items() if name.endswith("weight") and tensor.ndim == 2]
    names.sort(key=lambda name: [int(n) for n in re.findall(r"\d+", name)])
    layers = [
        (tensors[n].float(), bias if (bias := tensors.get(f"{n[:-6]}bias")) is None else bias.float())
        for n in names
    ]
    sizes = [tuple(weight.shape) for weight, _ in layers]
    if not sizes or sizes[-1][0] != 1 or any(a[0] != b[1] for a, b in pairwise(sizes)):
        raise ValueError(
            f"{file} holds linear layers of the sizes {sizes or 'none'} (out, in); needed a chain that ends in one number"
        )
    return layers


# -- latent reward models ------------------------------------------------------------------------------------


def latent_reward_scorer(
    folder: str | Path, vae: Any = None, *, device: str = "cpu", batch_size: int = 16
) -> LazyScorer:
    """A latent reward model's opinion of finished images: of the clean latent, at its smallest timestep.

    Args:
        folder: of the judge, as `LatentRewardModel.save_pretrained` wrote it.
        vae: what encodes the images: a VAE or a pipeline, loaded, or its folder or hub id. None: that of the pipeline
            which the judge started from.
        device: of judge and VAE.
        batch_size: images at once.

    Raises:
        FileNotFoundError: no judge there.
        ValueError: on first use, no VAE, one of another latent space, or images that it cannot divide.
    """
    from prefopt.modalities.image.models.latent_reward_files import is_judge

    place = Path(folder).expanduser()
    if not is_judge(place):
        raise FileNotFoundError(
            f"{folder} holds no latent reward model; give a folder that save_pretrained wrote"
        )

    def load() -> ScoreFunction:
        from prefopt.modalities.image.models.latent_reward import LatentRewardModel

        judge = LatentRewardModel.from_pretrained(place).to(device)
        source = judge.config.base_model if vae is None else vae
        if source is None:
            raise ValueError(
                f"{folder} does not say which VAE it belongs to: give one, as in lrm:{folder}:VAE"
            )
        encoder = _vae(source).to(device)
        judge.check_latent_space(encoder)
        space, t = judge.config.latent_space, judge.config.timestep_range[0]

        def function(prompts: list[str], images_BCHW: Tensor) -> Tensor:
            if any(side % space.spatial_factor for side in images_BCHW.shape[2:]):
                raise ValueError(
                    f"images are {images_BCHW.shape[2]} x {images_BCHW.shape[3]}; the judge's VAE needs sides divisible "
                    f"by {space.spatial_factor}"
                )
            pixels_BCHW = images_BCHW.to(device, next(encoder.parameters()).dtype) * 2 - 1
            return judge.score(space.encode(encoder, pixels_BCHW), t, judge.encode_prompts(prompts))

        return function

    return LazyScorer(f"lrm:{folder}", load, batch_size)


def _vae(source: Any) -> Any:
    """A VAE from itself, a pipeline, or the folder or hub id of either."""
    if not isinstance(source, str | Path):
        return getattr(source, "vae", source)
    from diffusers import AutoencoderKL

    place = str(Path(source).expanduser()) if Path(source).expanduser().exists() else str(source)
    errors = []
    for subfolder in ("vae", None):
        try:
            return load_whole(AutoencoderKL, place, subfolder=subfolder, torch_dtype=torch.float32).eval()
        except (OSError, ValueError) as error:
            errors.append(error)
    raise ValueError(
        f"no VAE at {source}, which a latent reward model needs to read images: give the folder or hub id of a VAE or "
        f"of the judge's pipeline, as in lrm:DIR:VAE ({errors[0]})"
    )


# -- by name -------------------------------------------------------------------------------------------------


def get_scorer(specification: str, device: str = "cpu") -> LazyScorer:
    """A scorer by its specification; see the top of this file.

    Raises:
        ValueError: unknown kind or a part is missing; says which.
        FileNotFoundError: a folder or file is not there.

    Example:
        >>> get_scorer("world:picture:match").name
        'world:picture:match'
    """
    kind, *parts = specification.split(":")
    if kind not in FORMS:
        raise ValueError(f"no scorer is called {kind!r}; there are: {'; '.join(FORMS.values())}")
    least, most = {"world": (1, 2), "lrm": (1, 2), "aesthetic": (2, 2)}.get(kind, (1, 1))
    if not (least <= len(parts) <= most and all(parts)):
        names = FORMS[kind].split(" or ")[0].split(":")[1:]
        missing = [n for i, n in enumerate(names) if i >= len(parts) or not parts[i]]
        what = f"{' and '.join(missing)} is missing" if missing else "it has an empty or a superfluous part"
        raise ValueError(f"scorer {specification!r}: {what}; write {FORMS[kind]}")
    match kind:
        case "world":
            return world_scorer(*parts)
        case "aesthetic":
            return aesthetic_scorer(*parts, device=device)
        case "lrm":
            return latent_reward_scorer(*parts, device=device)
        case "clip" | "pickscore" | "hps":
            return clip_scorer(parts[0], kind, device=device)
    raise AssertionError(kind)


def _place(source: str | Path) -> str:
    """A folder or hub id as transformers takes it, after a plain error where a folder is not there."""
    check_source(str(source))
    folder = Path(source).expanduser()
    return str(folder) if folder.is_dir() else str(source)
