"""The batch plan: how encoded items are laid out in rows, and which positions are scored for which item.

A plan is computed once a batch, on the host, before any model runs. Objectives and references see only per-item
scores, so a denser layout (prompts shared between items, several items packed in a row) replaces `plan_padded`
and nothing else.

Legend: N items, R rows, T row length, K scored tokens of the whole batch, L longest completion.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class EncodedText:
    """One item as token ids.

    Attributes:
        ids: prompt and completion in one int32 array, already cut to the maximum length.
        start: index of the first completion token, the first that is scored.
        truncated: whether the completion lost tokens to the maximum length.
        reference: what the reference scores instead, where its condition differs; same completion tokens.
    """

    ids: array[int]
    start: int
    truncated: bool = False
    reference: EncodedText | None = None

    @property
    def length(self) -> int:
        """Number of scored tokens."""
        return len(self.ids) - self.start


@dataclass(frozen=True, slots=True)
class Plan:
    """Rows of tokens, and a flat list of the scored ones."""

    input_ids_RT: Tensor
    attention_mask_RT: Tensor
    row_K: Tensor
    """Row of each scored token."""
    position_K: Tensor
    """Position whose output predicts the token (one before the token itself)."""
    target_K: Tensor
    """Token id."""
    item_K: Tensor
    """Item that the token belongs to."""
    offset_K: Tensor
    """Place of the token within its item's completion."""
    length_N: Tensor
    """Scored tokens of each item, int64."""
    longest: int
    """L, the largest of them, known on the host."""

    def to(self, device: torch.device) -> Plan:
        """The same plan on another device."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "longest"}
        return Plan(
            **{name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()},
            longest=self.longest,
        )

    def describe(self) -> str:
        """One line: rows, tokens, padding, scored tokens."""
        rows, width = self.input_ids_RT.shape
        real = int(self.attention_mask_RT.sum())
        return (
            f"{len(self.length_N)} items in {rows} rows of {width}: {real} tokens, "
            f"{1 - real / (rows * width):.0%} padding, {len(self.target_K)} scored"
        )


def plan_padded(items: Sequence[EncodedText], pad_token_id: int) -> Plan:
    """One item a row, padded on the right to the longest.

    Right padding keeps positions 0, 1, 2, ... for every architecture, learned or rotary; the padded tail is never
    scored, and causal attention cannot see it.
    """
    width = max(len(item.ids) for item in items)
    input_ids_RT = torch.full((len(items), width), pad_token_id)
    attention_mask_RT = torch.zeros((len(items), width), dtype=torch.long)
    row: list[int] = []
    position: list[int] = []
    offset: list[int] = []
    for n, item in enumerate(items):
        if not 1 <= item.start < len(item.ids):
            raise ValueError(
                f"item {n} has {len(item.ids)} tokens of which {item.length} are scored; needed at least one token "
                "before the completion (its prompt) and one in it"
            )
        input_ids_RT[n, : len(item.ids)] = torch.tensor(item.ids)
        attention_mask_RT[n, : len(item.ids)] = 1
        row += [n] * item.length
        position += range(item.start - 1, len(item.ids) - 1)
        offset += range(item.length)
    row_K, position_K = torch.tensor(row), torch.tensor(position)
    return Plan(
        input_ids_RT=input_ids_RT,
        attention_mask_RT=attention_mask_RT,
        row_K=row_K,
        position_K=position_K,
        target_K=input_ids_RT[row_K, position_K + 1],
        item_K=row_K,
        offset_K=torch.tensor(offset),
        length_N=torch.tensor([item.length for item in items]),
        longest=max(item.length for item in items),
    )
