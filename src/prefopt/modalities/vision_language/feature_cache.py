"""Features of images on disk, where nothing that makes them is trained: the vision tower runs once an image, and never again.

A vector holds how many layers, tokens and numbers a token its features have, the grid of its patches where the model counts
positions by it, and the features. 576 tokens of 4096 numbers are 9 MB: worth it for small data and large towers, and asked
for by `cache_vision_features`.

Legend: F layers of features, S tokens, D hidden width.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prefopt.config import ConfigError, TrainConfig
from prefopt.likelihoods.capability import causal_lm, trunk_of
from prefopt.modalities.vision_language.features import DEALT, deal
from prefopt.modalities.vision_language.images import Images, Unit, name_of
from prefopt.modalities.vision_language.parts import part_of
from prefopt.shards import ShardCache

HEADER = 6
SHARD_ITEMS = 64
FEATURES = "features"
"""The name under which a plan's images hold what was read from disk."""


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
    """Features by picture.

    Args:
        model: a vision-language model on its device; asked once for the form in which it wants features.
        images: its processor.
        likelihood: settings that features depend on.
        precision: of forward passes.
    """

    def __init__(self, model: nn.Module, images: Images, settings: Mapping[str, Any], precision: str) -> None:
        inner: Any = causal_lm(model)
        self.model, self.images, self.trunk = inner, images, trunk_of(inner)
        identity = {
            "weights": vision_digest(model),
            "settings": dict(settings),
            "precision": precision,
            "version": 1,
        }
        self.cache = ShardCache("vision-features", identity)
        self.form: Any = None

    @torch.no_grad()
    def encoded(self, unit: Unit) -> np.ndarray:
        """A vector of one unit."""
        dtype, device = next((p.dtype, p.device) for p in self.model.parameters() if p.is_floating_point())
        tensors, _ = self.images.batch([unit])
        inputs = {k: (v.to(dtype) if v.is_floating_point() else v).to(device) for k, v in tensors.items()}
        out = asked(self.trunk, inputs)
        value = out.pooler_output
        self.form = None if not isinstance(value, Tensor) else tuple(value.shape[1:])
        layers = [value, *(getattr(out, "deepstack_features", None) or [])]
        flat = [torch.cat(list(one)).reshape(-1, one[0].shape[-1]) for one in layers]
        features_FSD = torch.stack(flat).float().cpu().numpy()
        grid = inputs.get("image_grid_thw")
        place = [0, 0, 0] if grid is None or len(grid) != 1 else grid[0].tolist()
        return np.concatenate([np.array([*features_FSD.shape, *place], np.float32), features_FSD.ravel()])

    def vector(self, unit: Unit) -> np.ndarray:
        """Header and features, from disk; of a picture that no row has (prompts of rows that were dropped), made now."""
        key = hashed(name_of(unit))
        return self.cache[key] if key in self.cache else self.encoded(unit)

    def fill(self, units: Mapping[str, Unit], **options: Any) -> int:
        """Encode what the cache lacks; returns how many. Options as of `ShardCache.fill`."""
        if units and self.form is None:
            self.encoded(next(iter(units.values())))  # to learn the form
        wanted = {hashed(name): unit for name, unit in units.items()}
        return self.cache.fill(
            wanted,
            lambda batch: [self.encoded(unit) for unit in batch],
            lambda todo: ([one] for one in todo),
            shard_items=SHARD_ITEMS,
            label="Vision features",
            **options,
        )

    def batch(self, units: Sequence[Unit]) -> tuple[dict[str, Tensor], list[int]]:
        """What a plan holds in place of pixels, and the number of tokens of each unit."""
        if not units:
            return {}, []
        found = [self.vector(unit) for unit in units]
        shapes = [tuple(int(x) for x in vector[:3]) for vector in found]
        parts = [
            torch.from_numpy(np.array(vector[HEADER:])).reshape(shape)
            for vector, shape in zip(found, shapes, strict=True)
        ]
        images = {"pixel_values": torch.zeros(1), FEATURES: torch.cat(parts, 1)}
        if found[0][3]:
            images["image_grid_thw"] = torch.tensor([[int(x) for x in vector[3:HEADER]] for vector in found])
        return images, [shape[1] for shape in shapes]


def asked(trunk: Any, inputs: Mapping[str, Tensor]) -> Any:
    """Features of images, by the arguments that the trunk's method knows."""
    import inspect

    known = inspect.signature(trunk.get_image_features).parameters
    return trunk.get_image_features(**{k: v for k, v in inputs.items() if k in known}, return_dict=True)


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


@contextlib.contextmanager
def read_from_disk(
    model: nn.Module, features_FSD: Tensor, form: Any, tokens: Sequence[int], order: Sequence[int]
) -> Iterator[None]:
    """Within it, the model is given features in place of making them.

    Args:
        model: holds a model of transformers that reads images.
        features_FSD: of a batch's distinct pictures.
        form: sides behind the first in which the model wants them; None: a list.
        tokens, order: as of `features.dealt_out`.
    """
    trunk: Any = trunk_of(causal_lm(model))
    dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())

    def get_image_features(*args: Any, **options: Any) -> Any:
        layers = [deal([layer], tokens, order) for layer in features_FSD.to(dtype)]
        first = layers[0] if form is None else torch.cat(layers[0]).reshape(-1, *form)
        return SimpleNamespace(**dict(zip(DEALT, (first, layers[1:] or None), strict=True)))

    trunk.get_image_features = get_image_features
    try:
        yield
    finally:
        del trunk.get_image_features
