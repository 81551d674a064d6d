"""Embeddings of images, by which similar ones are found.

    DIR             folder or hub id of a vision model of transformers: CLIP, SigLIP, DINOv2, ...; through its image tower
    FILE.py:NAME    a function of a list of Pillow images that returns an array, a row an image

Vectors are kept in the user's cache by content: of the image, and of the model's or function's file.

Legend: B images of a batch, N images, D numbers of an embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prefopt.shards import ShardCache
from prefopt.sources.pictures import ImageRef, decode
from prefopt.sources.progress import with_bar

if TYPE_CHECKING:
    from PIL import Image

    Embed = Callable[[list[Image.Image]], Any]

AT_ONCE = 256
"""Images whose embeddings are written together: an interrupted pass loses no more."""


@dataclass
class Embedder:
    """Embeddings by name; see the top of this file.

    Attributes:
        name: of a model or function.
        batch_size: images at once.

    Raises:
        FileNotFoundError, ValueError: no such model or function.
    """

    name: str
    batch_size: int = 32

    def __post_init__(self) -> None:
        if ".py:" in self.name:
            self._function: Embed | None = function_of(self.name, "embedder")
        else:
            from prefopt.models.sources import check_source

            self._function = None
            check_source(self.name)

    @cached_property
    def identity(self) -> dict[str, str]:
        """What embeddings depend on beside the image."""
        from prefopt.models.identity import saved_fingerprint

        if ".py:" in self.name:
            return {"function": self.name.rpartition(":")[2], "file": file_digest(self.name)}
        folder = Path(self.name).expanduser()
        return {"model": saved_fingerprint(folder) if folder.is_dir() else self.name}

    def embed(self, images: Sequence[ImageRef]) -> np.ndarray[Any, Any]:
        """(N, D) float32 embeddings of length 1, those of images that were seen before from the cache.

        Raises:
            ValueError: the function returns something else, or vectors without a direction.
            UnusableItem: an image that cannot be decoded.
        """
        cache = ShardCache("embeddings", self.identity)
        by_digest = {image.digest: image for image in images}
        cache.fill(
            by_digest,
            self._vectors,
            self._batches,
            shard_items=AT_ONCE,
            progress=_bar,
            label="embedding images",
        )
        lengths = {len(cache[digest]) for digest in by_digest}
        if len(lengths) > 1:
            raise ValueError(
                f"the embeddings of {self.name} have {', '.join(map(str, sorted(lengths)))} numbers: needed as many for each image"
            )
        return np.stack([cache[image.digest] for image in images])

    def _batches(self, images: list[ImageRef]) -> Iterator[list[ImageRef]]:
        for start in range(0, len(images), self.batch_size):
            yield images[start : start + self.batch_size]

    def _vectors(self, images: list[ImageRef]) -> list[np.ndarray[Any, Any]]:
        return list(self.of([decode(image) for image in images]))

    def of(self, images: list[Image.Image]) -> np.ndarray[Any, Any]:
        """(B, D) float32 embeddings of length 1 of images that are held in memory; nothing is kept of them.

        Raises:
            ValueError: the function returns something else, or vectors without a direction.
        """
        if self._function is None:
            self._function = tower(self.name)
        found: Any = self._function(images)
        found = found.detach().cpu().numpy() if hasattr(found, "detach") else found
        try:
            vectors_BD = np.asarray(found, np.float32)
        except (TypeError, ValueError) as error:
            raise ValueError(f"the embedder {self.name} returns no numbers ({error})") from None
        if vectors_BD.ndim != 2 or len(vectors_BD) != len(images) or not np.isfinite(vectors_BD).all():
            raise ValueError(
                f"the embedder {self.name} returns {vectors_BD.shape} for {len(images)} images: needed an array of finite numbers, "
                "a row an image"
            )
        length_B1 = np.linalg.norm(vectors_BD, axis=1, keepdims=True)
        if not length_B1.all():
            raise ValueError(
                f"the embedder {self.name} returns zeros, which point nowhere: needed other vectors"
            )
        unit_BD: np.ndarray[Any, Any] = vectors_BD / length_B1
        return unit_BD


def _bar(batches: Sequence[Any], label: str) -> Iterator[Any]:
    return with_bar(batches, label)


def tower(source: str) -> Embed:
    """The image tower of a vision model, on the GPU where there is one.

    Args:
        source: folder or hub id.

    Raises:
        FileNotFoundError, ValueError: no model there, or one that embeds no images.
    """
    import torch
    from transformers import AutoImageProcessor, AutoModel

    from prefopt.models.loading_report import load_whole
    from prefopt.models.sources import config_values, refuse_remote_code

    place = str(Path(source).expanduser()) if Path(source).expanduser().is_dir() else source
    refuse_remote_code(place, config_values(place))
    try:
        prepare = AutoImageProcessor.from_pretrained(place, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"{source} has no preprocessor_config.json that could be read, so it is not known how its model sees an image: save "
            "the image processor beside the model"
        ) from error
    model: Any = load_whole(AutoModel, place, part=True, dtype=torch.float32, trust_remote_code=False)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.eval().requires_grad_(False).to(device)
    embed = getattr(model, "get_image_features", model)

    def vectors(images: list[Image.Image]) -> Any:
        pixels = prepare(images=images, return_tensors="pt")["pixel_values"].to(device)
        with torch.no_grad():
            out = embed(pixel_values=pixels)
        found = out if isinstance(out, torch.Tensor) else getattr(out, "pooler_output", None)
        if found is None:
            raise ValueError(
                f"{source} holds a {type(model).__name__}, which gives no single vector of an image: needed CLIP, SigLIP, "
                "DINOv2 or the like"
            )
        return found.float().flatten(1)

    return vectors


def function_of(name: str, role: str) -> Callable[..., Any]:
    """The function that FILE.py:NAME names.

    Raises:
        FileNotFoundError, ValueError: none there.
    """
    from prefopt.evaluation.user_files import object_of

    found = object_of(name, role, "function")
    if not callable(found):
        raise ValueError(f"{name} is a {type(found).__name__} and no function, which --{role} needs")
    function: Callable[..., Any] = found
    return function


def file_digest(name: str) -> str:
    """Digest of the file in FILE.py:NAME: another function is another source."""
    data = Path(name.rpartition(":")[0]).expanduser().read_bytes()
    return blake2b(data, digest_size=16).hexdigest()
