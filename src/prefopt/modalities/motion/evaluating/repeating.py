"""Repetitions of an evaluation: each with motions, noise, captions and pools of its own; what arrives stays in a journal.

All chance is counted: what repetition r draws of row i follows from (seed, r, i), for model and baseline alike.

Legend: N motions, T texts, R motions of each, E width of an embedding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prefopt.generation.journal import Journal
from prefopt.metrics import retrieval
from prefopt.modalities.motion.evaluating import measuring
from prefopt.modalities.motion.evaluating.judges import Judge
from prefopt.modalities.motion.evaluating.material import Material, Sample
from prefopt.modalities.motion.likelihood import draw
from prefopt.sources.progress import with_bar
from prefopt.worlds.base import seed_of

TEXTS, EACH = 100, 30
"""Of MultiModality: texts, and motions of each."""


@dataclass(frozen=True)
class How:
    """How motions are drawn.

    Attributes:
        samples: motions a repetition.
        repetitions: of drawing and measuring.
        multimodality: whether many motions of one text are drawn besides.
        num_inference_steps: reverse steps; None for as many as the model was trained with.
        guidance_scale: of classifier-free guidance.
        seed: of all that is drawn.
        batch_size: motions at a time.
    """

    samples: int
    repetitions: int
    multimodality: bool
    num_inference_steps: int | None
    guidance_scale: float
    seed: int
    batch_size: int


@dataclass(frozen=True)
class Evaluation:
    """What all models are measured by.

    Attributes:
        material: true motions and captions.
        judge: of texts and motions.
        texts: its embeddings of all captions.
        truth: what it sees in the true motions.
        codec: of the features.
        how: motions are drawn.
    """

    material: Material
    judge: Judge
    texts: measuring.Texts
    truth: measuring.Seen
    codec: Any
    how: How

    @property
    def order(self) -> measuring.Order | None:
        """Pools of a world have no program twice."""
        return None if self.material.world is None else measuring.in_world_pools

    def chosen(self, repetition: int) -> list[int]:
        """Places of the rows that a repetition takes, ascending."""
        count = len(self.material.samples)
        if count <= self.how.samples:
            return list(range(count))
        drawn = np.random.default_rng([self.how.seed, 23, repetition]).permutation(count)[: self.how.samples]
        return sorted(int(n) for n in drawn)

    def caption(self, sample: Sample, repetition: int) -> str:
        """The caption that a repetition takes."""
        if len(sample.captions) == 1:
            return sample.captions[0]
        share = draw(self.how.seed, f"evaluated caption of {sample.id}", repetition)
        return sample.captions[int(share * len(sample.captions))]

    def real(self, repetition: int) -> dict[str, float]:
        """The numbers of the true motions that a repetition takes."""
        places = self.chosen(repetition)
        captions = [self.caption(self.material.samples[n], repetition) for n in places]
        found = self.truth.some(places)
        told, _ = self._by_judge(captions, found.embedding_NE, repetition)
        told |= measuring.by_body(found)
        if self.material.world is not None:
            motions = [self.material.samples[n].read() for n in places]
            told |= measuring.by_rules(self.material.world, captions, motions)
        return told

    def drawn(self, pipe: Any, repetition: int) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """The numbers of what a model draws in a repetition, and a row of each motion, in the order of the data.

        Raises:
            ValueError: motions that are not finite.
        """
        places = self.chosen(repetition)
        samples = [self.material.samples[n] for n in places]
        captions = [self.caption(sample, repetition) for sample in samples]
        seeds = [seed_of(f"evaluate {self.how.seed} {repetition} {sample.id}") for sample in samples]
        motions = self._motions(pipe, captions, samples, seeds)
        found = measuring.seen(motions, self.judge, self.codec)
        told, rank_N = self._by_judge(captions, found.embedding_NE, repetition)
        told |= measuring.by_body(found)
        if self.material.world is not None:
            told |= measuring.by_rules(self.material.world, captions, motions)
        if self.how.multimodality:
            told["multimodality"] = self._multimodality(pipe, captions, samples, repetition)
        distance_N = (self.texts.embed(captions) - found.embedding_NE).norm(dim=-1)
        rows = [
            {
                "id": sample.id,
                "prompt": caption,
                "frames": sample.length,
                "seed": seed,
                "distance": round(distance, 6),
                "rank": None if math.isnan(rank) else rank,
            }
            for sample, caption, seed, distance, rank in zip(
                samples, captions, seeds, distance_N.tolist(), rank_N.tolist(), strict=True
            )
        ]
        return told, rows

    def _by_judge(
        self, captions: Sequence[str], motion_NE: Tensor, repetition: int
    ) -> tuple[dict[str, float], Tensor]:
        seed = seed_of(f"pools {self.how.seed} {repetition}")
        return measuring.by_judge(captions, self.texts, motion_NE, self.truth.embedding_NE, seed, self.order)

    def _multimodality(
        self, pipe: Any, captions: Sequence[str], samples: Sequence[Sample], repetition: int
    ) -> float:
        name = f"{self.how.seed} {repetition}"
        order = np.random.default_rng([self.how.seed, 29, repetition]).permutation(len(samples))
        some = [int(n) for n in order[:TEXTS]]
        wanted = [(n, k) for n in some for k in range(EACH)]
        motions = self._motions(
            pipe,
            [captions[n] for n, _ in wanted],
            [samples[n] for n, _ in wanted],
            [seed_of(f"multimodality {name} {k} {samples[n].id}") for n, k in wanted],
        )
        parts = [
            self.judge.motions(motions[start : start + measuring.BATCH])
            for start in range(0, len(motions), measuring.BATCH)
        ]
        motion_TRE = torch.cat(parts).unflatten(0, (len(some), EACH))
        return retrieval.multimodality(motion_TRE, seed=seed_of(f"pairs {name}"))

    def _motions(
        self, pipe: Any, captions: Sequence[str], samples: Sequence[Sample], seeds: Sequence[int]
    ) -> list[Tensor]:
        """(F, D) features each, of the lengths of the true motions."""
        found: list[Tensor] = pipe(
            list(captions),
            [sample.length for sample in samples],
            num_inference_steps=self.how.num_inference_steps,
            guidance_scale=self.how.guidance_scale,
            seeds=seeds,
            batch_size=self.how.batch_size,
            text_embeds_BE=embeddings(pipe, captions),
        ).features
        for sample, motion in zip(samples, found, strict=True):
            if not bool(motion.isfinite().all()):
                raise ValueError(
                    f"the motion that the model draws for {sample.id} is not finite: it has diverged"
                )
        return found


def embeddings(pipe: Any, captions: Sequence[str]) -> Tensor:
    """(N, E) of the pipeline's own text encoder, each caption once."""
    known = list(dict.fromkeys(captions))
    place = {text: n for n, text in enumerate(known)}
    parts = [pipe.encode_texts(known[start : start + 64]) for start in range(0, len(known), 64)]
    found: Tensor = torch.cat(parts)[[place[text] for text in captions]]
    return found


def repeat(
    evaluation: Evaluation, pipe: Any, side: str, journal: Journal
) -> tuple[list[dict[str, float]], list[dict[str, Any]]]:
    """The numbers of all repetitions of one model, those in the journal not drawn again; and the rows of the first.

    Args:
        evaluation: what is measured.
        pipe: the model.
        side: of the journal: "model" or "baseline".
        journal: kept between calls.
    """
    there = {line["repetition"]: line for _, line in journal.lines if line["side"] == side}
    missing = [r for r in range(evaluation.how.repetitions) if r not in there]
    for r in with_bar(missing, f"repetitions of the {side}"):
        told, rows = evaluation.drawn(pipe, r)
        line = {"side": side, "repetition": r, "measures": told, "rows": rows if r == 0 else []}
        journal.append([line])
        there[r] = line
    wanted = [there[r] for r in range(evaluation.how.repetitions)]
    return [line["measures"] for line in wanted], wanted[0]["rows"]


def identity(pipe: Any) -> Mapping[str, str]:
    """Digests of what a model's motions follow from."""
    from prefopt.modalities.motion.store import text_identity
    from prefopt.models.identity import fingerprint

    return {
        "denoiser": fingerprint(pipe.denoiser),
        "stats": fingerprint(pipe.stats),
        "text_encoder": text_identity(pipe),
        "scheduler": repr(sorted(dict(pipe.scheduler.config).items(), key=str)),
    }
