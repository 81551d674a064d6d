"""A text-to-motion model as a folder, and sampling from it: denoiser, scheduler, statistics and text encoder, each by its library.

The folder is a pipeline's of diffusers (`model_index.json`, a folder a part, safetensors); `from_pretrained` and
`save_pretrained` are diffusers' own.

Legend: B motions, F frames, D features, E width of a text's embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from prefopt.motion.codec import Codec, find_codec
from prefopt.motion.denoiser import MotionDenoiser
from prefopt.motion.stats import MotionStats
from prefopt.motion.texts import embed_texts


@dataclass(frozen=True)
class Motions:
    """What a model has drawn.

    Attributes:
        features: (F, D) float32 each, in physical units, on the CPU.
        codec: what features are.
        fps: frames a second.
    """

    features: list[Tensor]
    codec: Codec
    fps: float

    def positions(self) -> list[Tensor]:
        """(F, J, 3) positions of joints each, metres, y upwards."""
        return [self.codec.positions(x) for x in self.features]


class MotionPipeline(DiffusionPipeline):
    """Draws motions of given lengths for texts.

    Args:
        denoiser: of z-scores.
        scheduler: of diffusers, whose `prediction_type` says what the denoiser gives.
        stats: between z-scores and physical units.
        text_encoder, tokenizer: of transformers; see `embed_texts`.
        max_text_tokens: texts are cut to so many, start and end counted.
        unit_length: lengths of motions are multiples of this.

    Example:
        >>> pipe = MotionPipeline.from_pretrained("folder")  # doctest: +SKIP
        >>> pipe(["a person walks forward"], [60]).positions()[0].shape  # doctest: +SKIP
        torch.Size([60, 22, 3])
    """

    model_cpu_offload_seq = "text_encoder->denoiser"

    def __init__(
        self,
        denoiser: MotionDenoiser,
        scheduler: Any,
        stats: MotionStats,
        text_encoder: Any,
        tokenizer: Any,
        max_text_tokens: int = 22,
        unit_length: int = 4,
    ) -> None:
        super().__init__()
        self.register_modules(
            denoiser=denoiser,
            scheduler=scheduler,
            stats=stats,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
        )
        self.register_to_config(max_text_tokens=max_text_tokens, unit_length=unit_length)
        if denoiser.config.features != len(stats.mean_D):
            raise ValueError(
                f"the denoiser has {denoiser.config.features} features a frame and the statistics {len(stats.mean_D)}: they "
                "belong to different models"
            )
        if getattr(scheduler.config, "clip_sample", False) or getattr(
            scheduler.config, "thresholding", False
        ):
            raise ValueError(
                "the scheduler clips samples, which z-scores do not survive: set clip_sample=False and thresholding=False"
            )

    @property
    def codec(self) -> Codec:
        """What features are."""
        return find_codec(self.stats.codec)

    @property
    def max_frames(self) -> int:
        """Longest motion."""
        return int(self.denoiser.config.max_frames)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """(B, E) embeddings."""
        return embed_texts(self.text_encoder, self.tokenizer, texts, int(self.config.max_text_tokens))

    @torch.no_grad()
    def __call__(
        self,
        texts: Sequence[str],
        lengths: Sequence[int],
        *,
        num_inference_steps: int | None = None,
        guidance_scale: float = 2.5,
        seeds: Sequence[int] | None = None,
        batch_size: int = 64,
        text_embeds_BE: Tensor | None = None,
    ) -> Motions:
        """One motion a text.

        A motion depends on its text, length and seed, not on the others, up to rounding.

        Args:
            texts: descriptions; the empty one stands for none.
            lengths: frames of each motion.
            num_inference_steps: reverse steps; None: as many as there are train timesteps.
            guidance_scale: of classifier-free guidance; 1 is none. Both halves are one forward pass.
            seeds: of each motion; 0, 1, 2, ... where not given.
            batch_size: motions at a time.
            text_embeds_BE: of the texts, where they are known already.

        Raises:
            ValueError: another number of lengths or seeds than texts; a length that the model has not.
        """
        if isinstance(texts, str) or not len(texts) == len(lengths) == len(seeds or lengths):
            given = "a single string" if isinstance(texts, str) else f"{len(texts)} texts"
            raise ValueError(
                f"{given}, {len(lengths)} lengths, {len(seeds or lengths)} seeds; needed a list of texts, and one of each for every text"
            )
        self.check_lengths(lengths)
        seeds = range(len(texts)) if seeds is None else seeds
        embeds_BE = self.encode_texts(texts) if text_embeds_BE is None and texts else text_embeds_BE
        found: list[Tensor] = []
        modes = self.denoiser.training
        self.denoiser.eval()
        try:
            for start in range(0, len(texts), batch_size):
                some = slice(start, start + batch_size)
                assert embeds_BE is not None
                blank = torch.tensor([not text for text in texts[some]], device=self.device)
                text_BE = embeds_BE[some].to(self.device).masked_fill(blank[:, None], 0.0)
                x_BFD = self._sample(text_BE, lengths[some], seeds[some], num_inference_steps, guidance_scale)
                features = self.stats.denormalize(x_BFD).float().cpu()
                found += [x_FD[:n].clone() for x_FD, n in zip(features, lengths[some], strict=True)]
        finally:
            self.denoiser.train(modes)
        return Motions(found, self.codec, self.stats.fps)

    def check_lengths(self, lengths: Sequence[int]) -> None:
        """Raise ValueError for a length that the model has not."""
        for n in lengths:
            if not 0 < n <= self.max_frames:
                raise ValueError(
                    f"a motion of {n} frames; the model draws 1 to {self.max_frames} ({self.max_frames / self.stats.fps:.1f} s)"
                )

    def _sample(
        self,
        text_BE: Tensor,
        lengths: Sequence[int],
        seeds: Sequence[int],
        steps: int | None,
        guidance_scale: float,
    ) -> Tensor:
        """(B, F, D) z-scores of the model's whole length."""
        scheduler = type(self.scheduler).from_config(self.scheduler.config)
        scheduler.set_timesteps(
            scheduler.config.num_train_timesteps if steps is None else steps, device=self.device
        )
        generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        shape = (self.max_frames, int(self.denoiser.config.features))
        x_BFD = torch.stack([torch.randn(shape, generator=g) for g in generators]).to(self.device)
        x_BFD = x_BFD * scheduler.init_noise_sigma
        length_B = torch.tensor(list(lengths), device=self.device)
        guided = guidance_scale != 1
        if guided:
            text_BE, length_B = torch.cat([torch.zeros_like(text_BE), text_BE]), length_B.repeat(2)
        for t in self.progress_bar(scheduler.timesteps):
            x_in = scheduler.scale_model_input(torch.cat([x_BFD, x_BFD]) if guided else x_BFD, t)
            out = self.denoiser(x_in, t.repeat(len(x_in)), text_BE, length_B)
            if guided:
                without, given = out.chunk(2)
                out = without + guidance_scale * (given - without)
            x_BFD = scheduler.step(out, t, x_BFD, generator=generators).prev_sample
        return x_BFD
