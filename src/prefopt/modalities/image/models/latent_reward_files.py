"""A latent reward model as a folder.

config.json              what it is: `JudgeConfig`, the network's configuration, the text encoders' classes
model.safetensors        backbone, W_v, W_t, tau
text_encoder*/           as transformers saves them
tokenizer*/
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch

from prefopt.modalities.image.models.latent_features import FirstBlocks, HalfUNet
from prefopt.modalities.image.models.latent_reward_config import JudgeConfig
from prefopt.modalities.image.models.text_conditions import SUFFIXES, TextConditioner
from prefopt.models.loading import resolve_dtype
from prefopt.models.loading_report import load_whole

JudgeT = TypeVar("JudgeT")

BACKBONES = {"sd": "UNet2DConditionModel", "sdxl": "UNet2DConditionModel", "sd3": "SD3Transformer2DModel"}
"""The diffusers class of each family's network."""
FORMAT = "prefopt.latent_reward"
CONFIG = "config.json"
WEIGHTS = "model.safetensors"


def save_judge(judge: Any, folder: Path) -> None:
    """See `LatentRewardModel.save_pretrained`."""
    from safetensors.torch import save_file

    network = judge.backbone.network
    values = {
        "format": FORMAT,
        **asdict(judge.config),
        "text_encoders": [encoder and type(encoder).__name__ for encoder in judge.text.encoders],
        "backbone": {name: value for name, value in network.config.items() if not name.startswith("_")},
    }

    def write(place: Path) -> None:
        for suffix, encoder, tokenizer in zip(
            SUFFIXES, judge.text.encoders, judge.text.tokenizers, strict=False
        ):
            if encoder is not None:
                encoder.save_pretrained(place / f"text_encoder{suffix}")
                tokenizer.save_pretrained(place / f"tokenizer{suffix}")
        weights = {name: t.contiguous() for name, t in judge.state_dict().items() if not _is_text(name)}
        save_file(weights, place / WEIGHTS, metadata={"format": "pt"})
        (place / CONFIG).write_text(json.dumps(values, indent=1), "utf-8")

    _write_folder(folder, write)


def load_judge(made_of: Callable[..., JudgeT], folder: Path, dtype: str = "auto") -> JudgeT:
    """See `LatentRewardModel.from_pretrained`.

    Args:
        made_of: makes the judge of backbone, text encoders and configuration.
        folder: of the judge.
        dtype: by name.
    """
    import diffusers
    import transformers
    from accelerate import init_empty_weights
    from safetensors.torch import load_file

    if not is_judge(folder):
        raise FileNotFoundError(
            f"{folder} holds no latent reward model: needed {CONFIG} of format {FORMAT!r} and {WEIGHTS}, as "
            "LatentRewardModel.save_pretrained writes them"
        )
    kind = resolve_dtype(dtype)
    values = json.loads((folder / CONFIG).read_text("utf-8"))
    del values["format"]
    names, network_config = values.pop("text_encoders"), values.pop("backbone")
    config = JudgeConfig.from_dict(values)
    encoders: list[Any] = []
    tokenizers: list[Any] = []
    for suffix, name in zip(SUFFIXES, names, strict=False):
        if name is None:
            encoders.append(None)
            tokenizers.append(None)
        else:
            encoder = load_whole(getattr(transformers, name), folder / f"text_encoder{suffix}")
            encoders.append(encoder.to(kind) if isinstance(kind, torch.dtype) else encoder)
            tokenizers.append(transformers.AutoTokenizer.from_pretrained(folder / f"tokenizer{suffix}"))
    # without weights at first: filling gigabytes with random numbers takes longer than reading them
    with init_empty_weights(include_buffers=False):
        network = getattr(diffusers, BACKBONES[config.family]).from_config(network_config)
        backbone: HalfUNet | FirstBlocks
        if config.family == "sd3":
            backbone = FirstBlocks(network, config.feature_block or 0)
        else:
            backbone = HalfUNet(network, config.latent_space.spatial_factor)
        width = network_config.get("joint_attention_dim")
        judge: Any = made_of(backbone, TextConditioner(config.family, encoders, tokenizers, width), config)
    weights = load_file(folder / WEIGHTS)
    fit = judge.load_state_dict(weights, strict=False, assign=True)
    absent = [name for name in fit.missing_keys if not _is_text(name)]
    if absent or fit.unexpected_keys:
        raise ValueError(
            f"{folder / WEIGHTS} does not fit {CONFIG}: it lacks {absent[:3]} and has {fit.unexpected_keys[:3]} besides"
        )
    if isinstance(kind, torch.dtype):
        judge.backbone.to(kind)
    found: JudgeT = judge.eval()
    return found


def is_judge(folder: Path) -> bool:
    """Whether a folder holds a saved latent reward model."""
    try:
        values = json.loads((folder / CONFIG).read_text("utf-8"))
        return values.get("format") == FORMAT and (folder / WEIGHTS).is_file()
    except (OSError, ValueError, AttributeError):
        return False


def _is_text(name: str) -> bool:
    return name.startswith("text.")


def _write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Fill a new folder under a hidden name and rename it into place; an older judge gives way only then."""
    if folder.exists() and not is_judge(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise FileExistsError(
            f"{folder} holds something else, which would be lost: give a new or an empty folder"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.parent / f".{folder.name}-{uuid.uuid4().hex}"
    temporary.mkdir()
    try:
        write(temporary)
        if folder.exists():
            aside = folder.parent / f".{folder.name}-old-{uuid.uuid4().hex}"
            folder.rename(aside)
            try:
                temporary.rename(folder)
            except OSError:
                aside.rename(folder)
                raise
            shutil.rmtree(aside, ignore_errors=True)
        else:
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
