"""Features of images and clips on disk, where nothing that makes them is trained: the vision tower runs once, and never again.

A vector holds how many layers, tokens and numbers a token its features have, the grid of its patches where the model counts
positions by it, and the features. 576 tokens of 4096 numbers are 9 MB: worth it for small data and large towers, and asked
for by `cache_vision_features`.

Legend: F layers of features, S tokens, D hidden width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prefopt.config import ConfigError, TrainConfig
from prefopt.likelihoods.capability import causal_lm, trunk_of
from prefopt.modalities.vision_language.expanding import AnyUnit, Expander
from prefopt.modalities.vision_language.features import METHODS, known
from prefopt.modalities.vision_language.kept import name_of
from prefopt.modalities.vision_language.parts import part_of
from prefopt.shards import ShardCache

HEADER = 6
SHARD_ITEMS = 64


def check_frozen(config: TrainConfig) -> None:
    """Raise ConfigError where features change while a model is trained."""
    parts = {"vision_tower", "projector"}
    moving = parts & set(config.lora_parts) if config.use_peft else parts - set(config.freeze)
    if moving:
        key = "leave them out of lora_parts" if config.use_peft else "freeze=[vision_tower, projector]"
        raise ConfigError(
            f"cache_vision_features=true keeps what vision tower and projector give, but {' and '.join(sorted(moving))} would be "
            f"trained: set {key}, or leave cache_vision_features out"
        )


class FeatureCache:
    """Features by picture and clip.

    Args:
        model: a vision-language model on its device; asked once of each kind for the form in which it wants features.
        expander: its processor.
        settings: of the likelihood, that features depend on.
        precision: of forward passes.
    """

    def __init__(
        self, model: nn.Module, expander: Expander, settings: Mapping[str, Any], precision: str
    ) -> None:
        inner: Any = causal_lm(model)
        self.model, self.expander, self.trunk = inner, expander, trunk_of(inner)
        identity = {
            "weights": vision_digest(model),
            "settings": dict(settings),
            "precision": precision,
            "version": 1,
        }
        self.cache = ShardCache("vision-features", identity)
        self.forms: dict[str, tuple[int, ...] | None] = {}
        """Sides behind the first in which the model wants features of images, and of videos; None: a list."""

    @torch.no_grad()
    def encoded(self, unit: AnyUnit) -> np.ndarray:
        """A vector of one unit."""
        dtype, device = next((p.dtype, p.device) for p in self.model.parameters() if p.is_floating_point())
        kind = "video" if self.expander.in_videos(unit) else "image"
        inputs = {name: value.to(device) for name, value in self.expander.tensors(unit).items()}
        theirs = getattr(self.trunk, METHODS[kind])
        out = theirs(**known(theirs, inputs, dtype), return_dict=True)
        value = out.pooler_output
        self.forms[kind] = None if not isinstance(value, Tensor) else tuple(value.shape[1:])
        layers = [value, *(getattr(out, "deepstack_features", None) or [])]
        flat = [torch.cat(list(one)).reshape(-1, one[0].shape[-1]) for one in layers]
        features_FSD = torch.stack(flat).float().cpu().numpy()
        grid = inputs.get("image_grid_thw")
        place = [0, 0, 0] if grid is None or len(grid) != 1 else grid[0].tolist()
        return np.concatenate([np.array([*features_FSD.shape, *place], np.float32), features_FSD.ravel()])

    def vector(self, unit: AnyUnit) -> np.ndarray:
        """Header and features, from disk; of a picture that no row has (prompts of rows that were dropped), made now."""
        key = hashed(name_of(unit))
        return self.cache[key] if key in self.cache else self.encoded(unit)

    def fill(self, units: Mapping[str, AnyUnit], **options: Any) -> int:
        """Encode what the cache lacks; returns how many. Options as of `ShardCache.fill`."""
        for unit in {self.expander.in_videos(unit): unit for unit in units.values()}.values():
            self.encoded(unit)  # to learn the form
        wanted = {hashed(name): unit for name, unit in units.items()}
        return self.cache.fill(
            wanted,
            lambda batch: [self.encoded(unit) for unit in batch],
            lambda todo: ([one] for one in todo),
            shard_items=SHARD_ITEMS,
            label="Vision features",
            **options,
        )

    def features(self, units: Sequence[AnyUnit]) -> Tensor:
        """(F, S, D) features of units, one behind the other."""
        found = [self.vector(unit) for unit in units]
        shapes = [tuple(int(x) for x in vector[:3]) for vector in found]
        parts = [
            torch.from_numpy(np.array(vector[HEADER:])).reshape(shape)
            for vector, shape in zip(found, shapes, strict=True)
        ]
        return torch.cat(parts, 1)

    def grid(self, unit: AnyUnit) -> Tensor | None:
        """(1, 3) patches of an image, where the model counts positions by them."""
        place = [int(x) for x in self.vector(unit)[3:HEADER]]
        return torch.tensor([place]) if place[0] else None


def hashed(name: str) -> str:
    """A key of the cache."""
    return hashlib.blake2b(name.encode(), digest_size=16).hexdigest()


def vision_digest(model: nn.Module) -> str:
    """Digest of the weights that make features."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        if part_of(name) != "language_model" and "lora_" not in name:
            data = tensor.detach().contiguous().cpu().reshape(-1).view(torch.uint8)
            digest.update(
                f"{name.replace('base_model.model.', '')}|{tensor.dtype}|{tuple(tensor.shape)}|".encode()
            )
            digest.update(data.numpy().data)
    return digest.hexdigest()
