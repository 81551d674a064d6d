"""Training of a pair of encoders of texts and motions by contrast (InfoNCE), on matching pairs alone.

Legend: N pairs, T texts, U different captions, B of a batch, F frames, D features, S tokens, E width of an embedding.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, normalize

from prefopt.motion.retrieval import (
    EPS,
    MotionEncoder,
    MotionTextModel,
    TextProjection,
    check_motions,
)
from prefopt.motion.small_texts import small_text_encoder
from prefopt.motion.stats import MotionStats
from prefopt.motion.texts import pooled, text_width

FINAL_LR = 0.02
"""Share of the learning rate that the linear decay ends at."""


def info_nce(
    text_BE: Tensor, motion_BE: Tensor, temperature: float = 0.1, keep_BB: Tensor | None = None
) -> Tensor:
    """Mean over both directions of -log softmax of the matching pair's cosine / temperature.

    Args:
        text_BE, motion_BE: embeddings; row n of each belongs together. Their lengths do not matter.
        temperature: of the softmax.
        keep_BB: text by motion, whether the pair stands in the denominators; the matching pairs always do. TMR removes pairs
            of nearly the same caption, which are no negatives.

    Returns:
        A scalar.
    """
    cosine_BB = normalize(text_BE, dim=-1, eps=EPS) @ normalize(motion_BE, dim=-1, eps=EPS).T
    logit_BB = cosine_BB / temperature
    if keep_BB is not None:
        own_BB = torch.eye(len(logit_BB), dtype=torch.bool, device=logit_BB.device)
        logit_BB = logit_BB.masked_fill(~(keep_BB | own_BB), -torch.inf)
    by_text_B, by_motion_B = (log_softmax(logit_BB, dim).diagonal() for dim in (1, 0))
    return -(by_text_B + by_motion_B).mean() / 2


def train_pair(
    captions: Sequence[str | Sequence[str]],
    features_NFD: Tensor,
    lengths_N: Tensor,
    groups: Sequence[Hashable] | None = None,
    *,
    stats: MotionStats,
    text_encoder: Any = None,
    tokenizer: Any = None,
    max_text_tokens: int = 77,
    train_text_encoder: bool = True,
    embedding: int = 32,
    width: int = 64,
    layers: int = 2,
    heads: int = 4,
    feedforward: int = 128,
    dropout: float = 0.0,
    steps: int = 500,
    batch_size: int = 128,
    lr: float = 1e-3,
    temperature: float = 0.1,
    seed: int = 0,
    device: str = "cpu",
    report: Callable[[int, float], None] | None = None,
) -> MotionTextModel:
    """A pair of encoders that knows these texts and motions; the same again from the same seed on the same machine.

    Args:
        captions: (N,) a text of each motion, or several, of which each visit takes one.
        features_NFD, lengths_N: motions, in physical units, and their frames.
        groups: (N,) pairs of the same group are no negatives of each other; None: those of the same caption.
        stats: that the model is to make z-scores with.
        text_encoder, tokenizer: of transformers, both or neither; the encoder given is copied, not changed. Without them a small
            one is made, which knows the captions' words alone.
        max_text_tokens: texts are cut to so many.
        train_text_encoder: whether the text encoder learns too; else its embeddings are taken once.
        embedding, width, layers, heads, feedforward, dropout: see `MotionEncoder`.
        steps, batch_size, lr: updates of AdamW, with a linear decay of the rate to a fiftieth and gradients clipped to norm 1.
        temperature: see `info_nce`.
        seed: of weights and batches.
        device: to train on; motions are brought there a batch at a time.
        report: called with the step and the loss of each.

    Raises:
        ValueError: other numbers of captions, motions and groups, fewer than two groups, broken motions, an encoder without tokenizer.
    """
    count = len(captions)
    said = [(some,) if isinstance(some, str) else tuple(some) for some in captions]
    texts_T = [text for some in said for text in some]
    many_N = torch.tensor([len(some) for some in said])
    first_N = many_N.cumsum(0) - many_N
    by_text = groups is None
    groups = said if groups is None else groups
    if not count == len(features_NFD) == len(lengths_N) == len(groups):
        raise ValueError(
            f"{count} captions, {len(features_NFD)} motions, {len(lengths_N)} lengths, {len(groups)} groups: needed as many of each"
        )
    if (text_encoder is None) != (tokenizer is None):
        raise ValueError("a text encoder and its tokenizer belong together: give both or neither")
    if not all(said):
        raise ValueError(f"motion {said.index(())} has no caption: needed one or more of each")
    of_T = texts_T if by_text else [group for group, some in zip(groups, said, strict=True) for _ in some]
    numbers = {group: n for n, group in enumerate(dict.fromkeys(of_T))}
    if len(numbers) < 2:
        raise ValueError(f"{count} pairs of {len(numbers)} group(s): needed two or more to tell apart")
    check_motions(features_NFD, lengths_N, len(stats.mean_D), features_NFD.shape[1])
    group_T = torch.tensor([numbers[group] for group in of_T])

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if text_encoder is None:
            text_encoder, tokenizer = small_text_encoder(texts_T, width, heads, max_text_tokens)
        model = MotionTextModel(
            MotionEncoder(
                features=features_NFD.shape[-1],
                max_frames=features_NFD.shape[1],
                width=width,
                layers=layers,
                heads=heads,
                feedforward=feedforward,
                dropout=dropout,
                embedding=embedding,
            ),
            TextProjection(text_width(text_encoder), embedding),
            copy.deepcopy(stats),
            copy.deepcopy(text_encoder).float(),
            tokenizer,
            min(max_text_tokens, int(tokenizer.model_max_length)),
        )
        model = model.to(device)
        texts = _Texts(model, texts_T, train_text_encoder)
        model.motion_encoder.train()
        model.text_projection.train()
        model.text_encoder.train(train_text_encoder)
        parts = [
            model.motion_encoder,
            model.text_projection,
            *([model.text_encoder] if train_text_encoder else []),
        ]
        parameters = [p.requires_grad_() for part in parts for p in part.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=lr, fused=True)
        decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, FINAL_LR, max(1, steps))
        generator = torch.Generator().manual_seed(seed)
        queue = torch.empty(0, dtype=torch.int64)
        for step in range(steps):
            while len(queue) < min(batch_size, count):
                queue = torch.cat([queue, torch.randperm(count, generator=generator)])
            batch_B, queue = queue[:batch_size], queue[batch_size:]
            text_B = first_N[batch_B]
            if len(texts_T) > count:
                text_B = text_B + (torch.rand(len(batch_B), generator=generator) * many_N[batch_B]).long()
            length_B = lengths_N[batch_B]
            features_BFD = features_NFD[batch_B, : int(length_B.max())].to(device, torch.float32)
            z_BFD = model.stats.normalize(features_BFD)
            motion_BE = model.motion_encoder(z_BFD, length_B.to(device))
            text_BE = model.text_projection(texts(text_B))
            keep_BB = group_T[text_B][:, None] != group_T[text_B]
            loss = info_nce(text_BE, motion_BE, temperature, keep_BB.to(device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            decay.step()
            if report is not None:
                report(step, float(loss.detach()))
    optimizer.zero_grad(set_to_none=True)
    for part in (model.motion_encoder, model.text_projection, model.text_encoder):
        part.eval()
    return model


class _Texts:
    """Embeddings of the captions of a batch: each different caption once, or all of them only once."""

    def __init__(self, model: MotionTextModel, captions: Sequence[str], learns: bool) -> None:
        unique = list(dict.fromkeys(captions))
        place = {text: n for n, text in enumerate(unique)}
        self.place_N = torch.tensor([place[text] for text in captions])
        self.encoder = model.text_encoder
        self.tokens = model.tokenizer(
            unique,
            padding=True,
            truncation=True,
            max_length=int(model.config.max_text_tokens),
            return_tensors="pt",
        )
        self.known_UW: Tensor | None = None
        if not learns:
            self.encoder.eval()
            with torch.no_grad():
                rows = torch.arange(len(unique)).split(256)
                self.known_UW = torch.cat([self._embed(row) for row in rows])

    def __call__(self, batch_B: Tensor) -> Tensor:
        """(B, W)."""
        place_B = self.place_N[batch_B]
        if self.known_UW is not None:
            return self.known_UW[place_B]
        different, inverse_B = place_B.unique(return_inverse=True)
        return self._embed(different)[inverse_B]

    def _embed(self, rows: Tensor) -> Tensor:
        mask = self.tokens["attention_mask"][rows].to(self.encoder.device)
        ids = self.tokens["input_ids"][rows].to(self.encoder.device)
        return pooled(self.encoder, self.encoder(input_ids=ids, attention_mask=mask), mask)
