"""How examples become an update of the weights: by the gradient of their loss, or by asking which moves help."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from prefopt.comparisons import Encoded, collate
from prefopt.sources.schedule import shares
from prefopt.training.loop import Loop
from prefopt.training.pieces import Pieces


class GradientRule:
    """Forward, loss, backward, step: every example counts by its weight, however they are cut into micro-batches."""

    by_gradient = True

    def __call__(self, loop: Loop, examples: Sequence[Encoded[Any]]) -> None:
        """One step of the optimizer."""
        accelerator, model = loop.accelerator, loop.model
        total_weight = sum(edge.weight for e in examples for edge in e.comparisons)
        mine = shares(loop.cut(examples), accelerator.process_index, accelerator.num_processes)
        for k, batch in enumerate(mine):
            last = k == len(mine) - 1
            # a process without work scores one example of no weight, to take part in the synchronisation
            whole = collate(batch or examples[:1])
            size = loop.config.per_device_train_batch_items
            pieces = None if size is None or size >= len(whole.items) else Pieces(loop.scorer, whole, size)
            leaves: dict[str, Tensor] = {}
            loop.count_randomness(k)
            with nullcontext() if last and pieces is None else accelerator.no_sync(model):
                with accelerator.autocast():
                    if pieces is None:
                        scored = loop.scorer.sides(model, whole)
                    else:
                        scored, leaves = pieces.scored(model, partial(loop.count_randomness, k))
                sides, edges, width, auxiliary, aux_loss = scored
                counted_E = torch.full_like(edges.weight_E, float(bool(batch)))
                losses_E = loop.losses(sides, edges, counted_E)
                share_E = edges.weight_E * counted_E / total_weight
                loss = (losses_E * share_E).sum()
                if auxiliary is not None:
                    loss = loss + auxiliary * share_E.sum()
                if aux_loss is not None:
                    loop.metrics.add("aux_loss", aux_loss.expand_as(counted_E), counted_E)
                # data parallel wrappers average gradients over processes; this loss is a share of the sum
                accelerator.backward(loss * accelerator.num_processes)
            if pieces is not None:
                self.pull(loop, k, pieces, leaves, last)
            loop.tokens += width if batch else 0
        trained = [p for p in model.parameters() if p.requires_grad]
        loop.note_gradient(accelerator.clip_grad_norm_(trained, loop.config.max_grad_norm or math.inf))
        loop.optimizer.step()
        loop.optimizer.zero_grad()

    def pull(self, loop: Loop, k: int, pieces: Pieces, leaves: dict[str, Tensor], last: bool) -> None:
        """Push the derivatives of a loss with respect to scores back through each piece."""
        accelerator, model = loop.accelerator, loop.model
        for n in range(len(pieces.items)):
            loop.count_randomness(k, n)
            final = last and n == len(pieces.items) - 1
            with nullcontext() if final else accelerator.no_sync(model):
                with accelerator.autocast():
                    pulled = pieces.pulled(model, n, leaves)
                accelerator.backward(pulled)
