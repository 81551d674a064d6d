"""Latents and prompt embeddings of a run, computed once and kept on disk.

An image is stored as mean and standard deviation of the VAE's posterior, so that training still draws a fresh sample each
epoch; half precision, whose rounding is far below that spread. Keys are content: the bytes of the image with VAE,
resolution and crop, the text with its encoders. Once filled, VAE and text encoders can leave memory.

Legend: N items, C channels, H W latent height and width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from prefopt.comparisons import UnusableItem
from prefopt.modalities.image.models.denoiser import Conditions
from prefopt.modalities.image.models.pipelines import LoadedPipeline, borrowed, text_identity, vae_identity
from prefopt.modalities.image.models.tensors import encode_images, encode_prompts, encode_unconditional
from prefopt.shards import ShardCache, chunks, text_key
from prefopt.sources.pictures import Crop, ImageRef, decode, problem, to_pixels

T = TypeVar("T")

IMAGE_BATCH = 8
PROMPT_BATCH = 32
SHARD_ITEMS = 256  # about 30 MB of latents at 512 pixels


class CachedImages:
    """What a denoiser is trained on, by content key.

    Args:
        loaded: the pipeline.
        resolution: side in pixels.
        crop: how images become square.
        options: `share`, `wait` and `progress` of `ShardCache.fill`.
    """

    def __init__(self, loaded: LoadedPipeline, resolution: int, crop: Crop, **options: Any) -> None:
        factor = int(loaded.pipe.vae_scale_factor)
        if resolution % factor:
            raise ValueError(f"resolution must be divisible by {factor}, as the VAE is; given {resolution}")
        self.loaded, self.resolution, self.crop, self.options = loaded, resolution, crop, options
        channels = int(loaded.vae.config.latent_channels)
        self.shape = (channels, resolution // factor, resolution // factor)
        vae = {"vae": vae_identity(loaded), "resolution": resolution, "crop": crop, "version": 1}
        text = {"text": text_identity(loaded), "version": 1}
        self.identity: Mapping[str, Any] = {"latents": vae, "prompts": text}
        self._latents = ShardCache("latents", vae, dtype=np.float16)
        self._empty = encode_unconditional(loaded)
        self._places = {name: value.shape[1:] for name, value in self._empty.tensors.items()}
        half = self._empty.tensors["prompt_embeds"].dtype in (torch.float16, torch.bfloat16)
        self._prompts = ShardCache("prompts", text, dtype=np.float16 if half else np.float32)

    def add_images(self, refs: Mapping[str, ImageRef]) -> tuple[int, dict[str, UnusableItem]]:
        """Encode images that the cache lacks; returns how many, and what is wrong with those that cannot be decoded.

        Raises:
            UnusableItem: a file has gone since it was looked at.
        """

        def read(ref: ImageRef) -> Tensor:
            return to_pixels(decode(ref), self.resolution, self.crop).pixels_3HW

        def encode(pixels: list[Tensor]) -> np.ndarray:
            mean_NCHW, std_NCHW = encode_images(self.loaded, torch.stack(pixels))
            return torch.cat([mean_NCHW.flatten(1), std_NCHW.flatten(1)], 1).cpu().numpy()

        with borrowed(self.loaded, "vae"):
            return self.fill(
                self._latents, refs, read, encode, batch=IMAGE_BATCH, shard_items=SHARD_ITEMS, label="Latents"
            )

    def fill(
        self,
        cache: ShardCache,
        refs: Mapping[str, ImageRef],
        read: Callable[[ImageRef], T],
        encode: Callable[[list[T]], Iterable[np.ndarray]],
        *,
        batch: int,
        shard_items: int,
        label: str,
    ) -> tuple[int, dict[str, UnusableItem]]:
        """Put pictures that a cache lacks into it, and remember those that cannot be decoded as nothing.

        Args:
            cache: of vectors by content key.
            refs: pictures by content key.
            read: decodes one, or raises `UnusableItem`.
            encode: a vector for each of those that were read.
            batch: pictures at once.
            shard_items: vectors a file.
            label: for the progress bar.

        Returns:
            How many were computed, and what is wrong with those that cannot be decoded, now or in an earlier run.

        Raises:
            UnusableItem: a file has gone since it was looked at.
        """
        broken: dict[str, UnusableItem] = {}

        def compute(items: list[tuple[str, ImageRef]]) -> list[np.ndarray]:
            found: dict[int, T] = {}
            for n, (key, ref) in enumerate(items):
                try:
                    found[n] = read(ref)
                except UnusableItem as error:
                    if error.reason == "missing_image":
                        raise  # says nothing of the content, which is what the cache would remember
                    broken[key] = error
            vectors = [np.zeros(0, cache.dtype)] * len(items)  # nothing: looked at, and of no use
            if found:
                for n, vector in zip(found, encode(list(found.values())), strict=True):
                    vectors[n] = vector
            return vectors

        wanted = {key: (key, ref) for key, ref in refs.items()}
        computed = cache.fill(
            wanted, compute, chunks(batch), shard_items=shard_items, label=label, **self.options
        )
        for key, ref in refs.items():
            if not len(cache[key]) and key not in broken:  # found by another process, or an earlier run
                broken[key] = problem(ref) or UnusableItem(
                    f"{ref.name} could not be decoded in an earlier run; now it can: remove {cache.folder}",
                    "broken_image",
                )
        return computed, broken

    def add_prompts(self, prompts: Sequence[str]) -> int:
        """Encode texts that the cache lacks; returns how many."""

        def compute(batch: list[str]) -> list[np.ndarray]:
            found = encode_prompts(self.loaded, batch, PROMPT_BATCH)
            flat = [found.tensors[name].flatten(1) for name in self._places]
            return list(torch.cat([x.float() for x in flat], 1).numpy())

        wanted = {text_key(prompt): prompt for prompt in prompts if prompt}
        with borrowed(self.loaded, "text_encoders"):
            return self._prompts.fill(
                wanted,
                compute,
                chunks(PROMPT_BATCH),
                shard_items=SHARD_ITEMS,
                label="Prompt embeddings",
                **self.options,
            )

    def latents(self, keys: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, (N, C, H, W) float32 each."""
        flat = torch.from_numpy(np.stack([self._latents[key] for key in keys])).float()
        mean_NCHW, std_NCHW = flat.unflatten(1, (2, *self.shape)).unbind(1)
        return mean_NCHW, std_NCHW

    def conditions(
        self, prompts: Sequence[str], sizes: Sequence[Sequence[int]] | None = None
    ) -> dict[str, Tensor]:
        """What the network is given; the empty text stands for no prompt, by the pipeline's own rule."""
        return self.conditions_of(prompts, sizes).tensors

    def conditions_of(
        self, prompts: Sequence[str], sizes: Sequence[Sequence[int]] | None = None
    ) -> Conditions:
        """The same as `Conditions`. Sizes are those of a whole image of the run's resolution where not given."""
        kinds = self._empty.tensors
        rows: dict[str, list[Tensor]] = {name: [] for name in self._places}
        for prompt in prompts:
            if not prompt:
                for name in rows:
                    rows[name].append(kinds[name][0])
                continue
            vector, start = torch.from_numpy(self._prompts[text_key(prompt)].copy()), 0
            for name, shape in self._places.items():
                end = start + shape.numel()
                rows[name].append(vector[start:end].view(shape).to(kinds[name].dtype))
                start = end
        found = Conditions({name: torch.stack(values) for name, values in rows.items()})
        if self.loaded.family == "sdxl":
            side = self.resolution
            found = found.with_sizes([(side, side, 0, 0, side, side)] if sizes is None else sizes)
        return found

    @property
    def unconditional(self) -> Conditions:
        """One row, of no prompt."""
        return self._empty
