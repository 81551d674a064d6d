"""How well a motion fits a text: a pair of encoders of our own training, into one space (after TMR, arXiv 2305.00976).

Its folder is a pipeline's of diffusers (`model_index.json`, a folder a part, safetensors). Features come in physical units and
the model makes its own z-scores of them. `retrieval_training.py` trains one.

Legend: B motions (texts), F frames, D features, W width of the motion encoder, E width of an embedding.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from diffusers import ConfigMixin, DiffusionPipeline, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn.functional import normalize

from prefopt.metrics.retrieval import area_under_curve
from prefopt.motion.denoiser import Block, sinusoids
from prefopt.motion.stats import MotionStats
from prefopt.motion.texts import embed_texts

EPS = 1e-8
"""Least norm of an embedding: one of length 0 has the cosine 0 to all."""
BATCH = 256
"""Texts or motions that are encoded at once."""


class MotionEncoder(ModelMixin, ConfigMixin):
    """One vector of a motion's z-scores: a token a frame, a transformer, the mean over the frames, a projection.

    Args:
        features: D.
        max_frames: longest motion.
        width, layers, heads, feedforward, dropout: of the transformer, with norms before its parts.
        embedding: E.
    """

    @register_to_config
    def __init__(
        self,
        features: int = 263,
        max_frames: int = 196,
        width: int = 256,
        layers: int = 6,
        heads: int = 4,
        feedforward: int = 1024,
        dropout: float = 0.1,
        embedding: int = 256,
    ) -> None:
        super().__init__()
        self.embed_frame = nn.Linear(features, width)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, feedforward, dropout, True) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, embedding)

    def forward(self, z_BFD: Tensor, length_B: Tensor) -> Tensor:
        """(B, E) of z-scores; frames behind a motion's end are seen by none."""
        frames = z_BFD.shape[1]
        there_BF = torch.arange(frames, device=z_BFD.device) < length_B[:, None]
        z_BFD = z_BFD.masked_fill(~there_BF[..., None], 0.0)
        place_FW = sinusoids(torch.arange(frames, device=z_BFD.device), int(self.config.width))
        h_BFW = self.drop(self.embed_frame(z_BFD) + place_FW.to(z_BFD.dtype))
        for block in self.blocks:
            h_BFW = block(h_BFW, there_BF)
        weight_BF1 = there_BF[..., None].to(h_BFW.dtype)
        mean_BW = (self.norm(h_BFW) * weight_BF1).sum(1) / weight_BF1.sum(1)
        out_BE: Tensor = self.project(mean_BW)
        return out_BE


class TextProjection(ModelMixin, ConfigMixin):
    """From the embedding of a text encoder into the common space.

    Args:
        text_width: of the text encoder's embedding.
        embedding: E.
    """

    @register_to_config
    def __init__(self, text_width: int = 512, embedding: int = 256) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(text_width)
        self.project = nn.Linear(text_width, embedding)

    def forward(self, text_BW: Tensor) -> Tensor:
        """(B, E)."""
        out_BE: Tensor = self.project(self.norm(text_BW))
        return out_BE


class MotionTextModel(DiffusionPipeline):
    """Embeds texts and motions and scores how well they fit; also a judge for `prefopt.metrics.retrieval`.

    Args:
        motion_encoder: of z-scores.
        text_projection: behind the text encoder.
        stats: between z-scores and physical units, its own.
        text_encoder, tokenizer: of transformers; see `embed_texts`.
        max_text_tokens: texts are cut to so many, start and end counted.

    Example:
        >>> model = MotionTextModel.from_pretrained("folder")  # doctest: +SKIP
        >>> model.score(["a person waves"], features_1FD, torch.tensor([60]))  # doctest: +SKIP
        tensor([0.91])
    """

    range = (0.0, 1.0)
    """Of `score`."""
    model_cpu_offload_seq = "text_encoder->text_projection->motion_encoder"

    def __init__(
        self,
        motion_encoder: MotionEncoder,
        text_projection: TextProjection,
        stats: MotionStats,
        text_encoder: Any,
        tokenizer: Any,
        max_text_tokens: int = 77,
    ) -> None:
        super().__init__()
        self.register_modules(
            motion_encoder=motion_encoder,
            text_projection=text_projection,
            stats=stats,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
        )
        self.register_to_config(max_text_tokens=max_text_tokens)
        if motion_encoder.config.features != len(stats.mean_D):
            raise ValueError(
                f"the motion encoder has {motion_encoder.config.features} features a frame and the statistics "
                f"{len(stats.mean_D)}: they belong to different models"
            )
        if motion_encoder.config.embedding != text_projection.config.embedding:
            raise ValueError(
                f"motions have embeddings of width {motion_encoder.config.embedding} and texts of "
                f"{text_projection.config.embedding}: they belong to different models"
            )
        self._known_texts: dict[str, Tensor] = {}

    @torch.no_grad()
    def encode_texts(self, prompts: Sequence[str]) -> Tensor:
        """(B, E) float32 embeddings of length 1, so that distances order like cosines; each text is encoded once, then remembered.

        Raises:
            ValueError: a single string in place of a list.
        """
        if isinstance(prompts, str):
            raise ValueError(f"a single string {prompts[:40]!r}: needed a list of texts")
        modes = self._modes()
        try:
            new = [text for text in dict.fromkeys(prompts) if text not in self._known_texts]
            for start in range(0, len(new), BATCH):
                some = new[start : start + BATCH]
                text_BW = embed_texts(
                    self.text_encoder, self.tokenizer, some, int(self.config.max_text_tokens)
                )
                embedding_BE = _unit(self.text_projection(text_BW), "text")
                self._known_texts |= dict(zip(some, embedding_BE.float().cpu(), strict=True))
        finally:
            self._modes(modes)
        if not prompts:
            return torch.zeros(0, int(self.text_projection.config.embedding), device=self.device)
        return torch.stack([self._known_texts[text] for text in prompts]).to(self.device)

    @torch.no_grad()
    def encode_motions(self, features_BFD: Tensor, lengths_B: Tensor) -> Tensor:
        """(B, E) float32 embeddings of length 1.

        Args:
            features_BFD: physical units; what stands behind a motion's end is not looked at.
            lengths_B: frames of each.

        Raises:
            ValueError: other shapes, lengths that the model has not, numbers that are not finite; says which motions.
        """
        check_motions(
            features_BFD, lengths_B, len(self.stats.mean_D), int(self.motion_encoder.config.max_frames)
        )
        if not len(lengths_B):
            return torch.zeros(0, int(self.motion_encoder.config.embedding), device=self.device)
        modes, found = self._modes(), []
        try:
            for some_BFD, some_B in zip(features_BFD.split(BATCH), lengths_B.split(BATCH), strict=True):
                some_BFD = some_BFD[:, : int(some_B.max())].to(self.device, torch.float32)
                z_BFD = self.stats.normalize(some_BFD)
                found.append(self.motion_encoder(z_BFD, some_B.to(self.device)))
        finally:
            self._modes(modes)
        return _unit(torch.cat(found).float(), "motion")

    def score(self, prompts: Sequence[str], features_BFD: Tensor, lengths_B: Tensor) -> Tensor:
        """(B,) in [0, 1]: (cosine + 1) / 2 of each text and motion (SoPo, arXiv 2412.05095); arguments as for encoding.

        Raises:
            ValueError: another number of texts than motions, or what encoding raises.
        """
        if len(prompts) != len(features_BFD):
            raise ValueError(f"{len(prompts)} texts for {len(features_BFD)} motions: needed one for each")
        cosine_B = (self.encode_texts(prompts) * self.encode_motions(features_BFD, lengths_B)).sum(-1)
        return (cosine_B.clamp(-1, 1) + 1) / 2

    def forget_texts(self) -> None:
        """Embed texts anew, as is needed where weights have changed."""
        self._known_texts.clear()

    def _modes(self, modes: Sequence[bool] = (False, False, False)) -> list[bool]:
        """Put the parts into training mode or, as is meant where nothing is said, out of it; says how they were."""
        parts = [self.motion_encoder, self.text_projection, self.text_encoder]
        found = [part.training for part in parts]
        for part, mode in zip(parts, modes, strict=True):
            part.train(mode)
        return found


def check_motions(features_BFD: Tensor, lengths_B: Tensor, width: int, max_frames: int) -> None:
    """Raise ValueError for motions that a model of this width and longest motion cannot judge; says which."""
    shape = tuple(features_BFD.shape)
    if len(shape) != 3 or shape[-1] != width or tuple(lengths_B.shape) != shape[:1]:
        raise ValueError(
            f"features of the shape {shape} and lengths {tuple(lengths_B.shape)}: needed (motions, frames, {width}) in physical "
            "units, and a length of each"
        )
    if not len(lengths_B):
        return
    most = min(shape[1], max_frames)
    bad = ((lengths_B < 1) | (lengths_B > most)).nonzero().flatten().tolist()
    if bad:
        raise ValueError(
            f"motion {bad[0]} has the length {int(lengths_B[bad[0]])}; needed 1 to {most}, of {shape[1]} frames given and {max_frames} "
            "that the model knows"
        )
    there_BF = torch.arange(shape[1], device=features_BFD.device) < lengths_B.to(features_BFD.device)[:, None]
    broken_B = ((~features_BFD.isfinite()).any(-1) & there_BF).any(-1)
    bad = broken_B.nonzero().flatten().tolist()
    if bad:
        raise ValueError(
            f"motions {', '.join(map(str, bad[:8]))}{' ...' if len(bad) > 8 else ''} ({len(bad)} of {shape[0]}) hold numbers that are "
            "not finite: look for what made them"
        )


def _unit(x_BE: Tensor, what: str) -> Tensor:
    """Of length 1; says so where there is none."""
    bad = (x_BE.norm(dim=-1) < EPS).nonzero().flatten().tolist()
    if bad:
        warnings.warn(
            f"{what} embeddings {bad[:8]} have the length 0: their cosines count as 0", stacklevel=3
        )
    return normalize(x_BE, dim=-1, eps=EPS)


class Scores(Protocol):
    """Anything that scores motions for texts."""

    def score(self, prompts: Sequence[str], features_BFD: Tensor, lengths_B: Tensor) -> Tensor:
        """(B,) higher is better; features in physical units."""
        ...


def separation(
    model: Scores, prompts: Sequence[str], features_BFD: Tensor, lengths_B: Tensor, *, rotations: int = 4
) -> float:
    """How surely a motion with its own text scores above one with another's: area under the ROC curve.

    .5 is chance; a scorer of matching data that is below .7 does not recognise the motions, most often because they were
    normalised by other statistics than its own.

    Args:
        model: to check.
        prompts, features_BFD, lengths_B: matching pairs.
        rotations: other texts that each motion gets: those of motions at so many distances in the list. Equal texts are left out.

    Raises:
        ValueError: all texts are the same, or the scorer gives numbers that are not finite.
    """
    count = len(prompts)
    matched_B = model.score(prompts, features_BFD, lengths_B)
    steps = sorted({max(1, round(count * (n + 1) / (rotations + 1))) for n in range(rotations)})
    others = []
    for step in (step for step in steps if step < count):
        turned = [prompts[(n + step) % count] for n in range(count)]
        other_B = model.score(turned, features_BFD, lengths_B)
        differ_B = torch.tensor([a != b for a, b in zip(prompts, turned, strict=True)], device=other_B.device)
        others.append(other_B[differ_B])
    other_N = torch.cat(others) if others else matched_B[:0]
    if not len(other_N):
        raise ValueError(
            f"{count} pairs have no motion with another text: needed two or more different texts"
        )
    if not bool(matched_B.isfinite().all() and other_N.isfinite().all()):
        raise ValueError("the scorer gives numbers that are not finite: look for what made them")
    return area_under_curve(matched_B, other_N)
