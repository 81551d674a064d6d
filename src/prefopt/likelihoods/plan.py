"""The batch plan: rows of tokens as tensors, and which places are scored for which item.

A plan is made once a batch, on the host, before any model runs; `describe` says what it saves. Objectives and
references see only per-item scores, so the layout can change without them.

Legend: N items, R rows, T row length, K scored tokens of the whole batch, P scored places (one predicts several tokens
where completions part), L longest completion.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor

from prefopt.likelihoods.branches import WORTHWHILE, Branches
from prefopt.likelihoods.layout import UNLIMITED, Layout, Sharing, lay_out
from prefopt.likelihoods.rotary import Switch

ALIGN = 8  # row lengths a multiple of it, where rows need a mask anyway: kernels like even strides


@dataclass(frozen=True, slots=True)
class EncodedText:
    """One item as token ids.

    Attributes:
        ids: prompt and completion in one int32 array, already cut to the maximum length.
        start: index of the first completion token, the first that is scored.
        truncated: whether the completion lost tokens to the maximum length.
        cut: tokens that were cut off the beginning to fit it; of the prompt, and of the completion where that alone is longer.
        reference: what the reference scores instead, where its condition differs; same completion tokens.
        changed: for each completion token whether the comparison's other side lacks it; None: not asked for.
    """

    ids: array[int]
    start: int
    truncated: bool = False
    reference: EncodedText | None = None
    changed: bytes | None = None
    cut: int = 0

    @property
    def length(self) -> int:
        """Number of scored tokens."""
        return len(self.ids) - self.start


@dataclass(frozen=True, slots=True)
class Plan:
    """Rows of tokens, and a flat list of the scored ones."""

    input_ids_RT: Tensor
    attention_mask_RT: Tensor
    """1 for a token, 0 for padding (always on the right)."""
    position_RT: Tensor
    """Place of a token within its own sequence, what positional encodings count."""
    sequence_RT: Tensor
    """Tokens of that sequence, the last one included; of sequences that share the token, the longest. Padding: 0."""
    until_RT: Tensor | None
    """Place where a token's descendants end: place q sees k if k <= q < until[k]. None: plain causal rows."""
    branches: Branches | None
    """The same for attention branch by branch; None where that would not pay."""
    scored_branches: Branches | None
    """And for queries of scored places alone, also where rows are plain."""
    scored_P: Tensor
    """Every scored place once, as r * T + t."""
    row_K: Tensor
    """Row of each scored token."""
    position_K: Tensor
    """Place whose output predicts the token."""
    target_K: Tensor
    """Token id."""
    item_K: Tensor
    """Item that the token belongs to."""
    offset_K: Tensor
    """Place of the token within its item's completion."""
    length_N: Tensor
    """Scored tokens of each item, int64."""
    changed_NL: Tensor | None
    """1 for completion tokens that the comparison's other side lacks, where items say so."""
    layout: Layout
    """Which tokens lie where, on the host."""
    longest: int
    """L, the largest of them, known on the host."""
    tokens: int
    """Tokens laid out, without padding."""
    dense_tokens: int
    """Places that one padded row an item would take."""

    def to(self, device: torch.device) -> Self:
        """The same plan on another device."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in values.items():
            if isinstance(value, Plan):
                values[name] = value.to(device)
            elif hasattr(value, "to"):
                values[name] = value.to(device, non_blocking=True)
        return type(self)(**values)

    @property
    def places(self) -> int:
        """R * T."""
        return self.input_ids_RT.numel()

    def describe(self) -> str:
        """One line: rows, tokens, padding, scored tokens, and what one padded row an item would take."""
        rows, width = self.input_ids_RT.shape
        text = (
            f"{len(self.length_N)} items in {rows} rows of {width}: {self.tokens} tokens, "
            f"{1 - self.tokens / self.places:.0%} padding, {len(self.target_K)} scored"
        )
        return text + (f"; padded one a row: {self.dense_tokens}" if self.until_RT is not None else "")


def plan_rows(
    items: Sequence[EncodedText],
    pad_token_id: int,
    sharing: Sharing = "plain",
    hidden: int = 1024,
    longest: int = UNLIMITED,
    apart: bool | None = None,
    switch: Switch | None = None,
    sequences: Sequence[array[int]] | None = None,
) -> Plan:
    """Lay items out in rows padded on the right.

    Right padding keeps positions 0, 1, 2, ... for every architecture, and no token sees it. The last token of an
    item predicts nothing and is left out.

    Args:
        items: encoded items.
        pad_token_id: any id: it is neither seen nor scored.
        sharing: what the model allows, see `layout`.
        hidden: width of the model.
        longest: most places of a row of several sequences.
        apart: whether attention is taken branch by branch (on a CPU); None: where that pays.
        switch: of models that read long rows with other positions, which share nothing with short ones.
        sequences: what tells the items' tokens apart, where that is more than their ids (which picture a token stands for).

    Raises:
        ValueError: an item without a prompt token or without a completion token.
    """
    for n, item in enumerate(items):
        if not 1 <= item.start < len(item.ids):
            raise ValueError(
                f"item {n} has {len(item.ids)} tokens of which {item.length} are scored; needed at least one token "
                "before the completion (its prompt) and one in it"
            )
    kinds = None if switch is None else [switch.kind(len(item.ids)) for item in items]
    layout = lay_out(
        [one[:-1] for one in sequences or [item.ids for item in items]], sharing, hidden, longest, kinds
    )
    rows, width = layout.rows, layout.width
    causal = layout.causal
    if not causal and width + -width % ALIGN <= longest:
        width += -width % ALIGN
    input_ids_RT = torch.full((len(rows), width), pad_token_id)
    attention_mask_RT = torch.zeros((len(rows), width), dtype=torch.long)
    position_RT = torch.arange(width).repeat(len(rows), 1)
    until_RT = torch.full(
        (len(rows), width), width
    )  # padding sees padding: a row of attention is never empty
    for r, row in enumerate(rows):
        length = len(row.ids)
        attention_mask_RT[r, :length] = 1
        position_RT[r, :length] = torch.tensor(row.depth)
        position_RT[r, length:] = 0  # learned positions have no more places than the model was made for
        until_RT[r, :length] = torch.tensor(row.until)
    sequence_RT = torch.zeros((len(rows), width), dtype=torch.long)
    for item, r, path in sorted(
        zip(items, layout.row_of, layout.path_of, strict=True), key=lambda x: len(x[0].ids)
    ):
        sequence_RT[r, path] = len(item.ids)
        input_ids_RT[r, path] = torch.tensor(item.ids[:-1])
    scored = scored_places(items, layout)
    scored_P = (scored["row_K"] * width + scored["position_K"]).unique()
    places = [(scored_P[scored_P // width == r] % width).tolist() for r in range(len(rows))]
    branches = Branches.of([row.until for row in rows], width)
    at_scored = branches.at(places)
    one_call = len(rows) * width**2 / (2 if causal else 1)
    whole = min(branches.cost, one_call) if branches.worthwhile else one_call
    if apart is None:
        apart, scored_apart = branches.worthwhile, at_scored.cost < WORTHWHILE * whole
    else:
        scored_apart = apart
    return Plan(
        input_ids_RT=input_ids_RT,
        attention_mask_RT=attention_mask_RT,
        position_RT=position_RT,
        sequence_RT=sequence_RT,
        until_RT=None if causal else until_RT,
        branches=branches if apart and not causal else None,
        scored_branches=at_scored if scored_apart else None,
        scored_P=scored_P,
        changed_NL=changed_of(items),
        layout=layout,
        longest=max(item.length for item in items),
        tokens=sum(len(row.ids) for row in rows),
        dense_tokens=len(items) * max(len(item.ids) for item in items),
        **scored,
    )


def changed_of(items: Sequence[EncodedText]) -> Tensor | None:
    """(N, L) what items say of their tokens, 0 for those that say nothing (branches); None where none says anything."""
    if all(item.changed is None for item in items):
        return None
    told = [list(item.changed or bytes(item.length)) for item in items]
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(flags, dtype=torch.float32) for flags in told], True)


def scored_places(items: Sequence[EncodedText], layout: Layout) -> dict[str, Tensor]:
    """The fields of a plan that say where each item's tokens are predicted."""
    row: list[int] = []
    position: list[int] = []
    target: list[int] = []
    of: list[int] = []
    offset: list[int] = []
    for n, item in enumerate(items):
        row += [layout.row_of[n]] * item.length
        position += layout.path_of[n][item.start - 1 :]
        target += item.ids[item.start :]
        of += [n] * item.length
        offset += range(item.length)
    return {
        "row_K": torch.tensor(row),
        "position_K": torch.tensor(position),
        "target_K": torch.tensor(target),
        "item_K": torch.tensor(of),
        "offset_K": torch.tensor(offset),
        "length_N": torch.tensor([item.length for item in items]),
    }
