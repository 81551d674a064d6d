"""Rows of other tools and papers as rows of ours.

    ms-swift        messages (the last one is the better answer), rejected_response or rejected_messages, images, rejected_images
    RLHF-V          text: a JSON object with question, chosen and rejected; image
    SymMPO          question, resp_1_w, resp_1_l, resp_2_w, resp_2_l, image_1, image_2, as released

TRL's and LLaMA-Factory's need no change: text reads their columns, and `<image>` in a text is a picture's place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from prefopt.comparisons import UnusableItem
from prefopt.sources import cells

SYMMPO = {
    "question": "prompt",
    "resp_1_w": "chosen",
    "resp_1_l": "rejected",
    "resp_2_w": "contrast_chosen",
    "resp_2_l": "contrast_rejected",
    "image_1": "image",
    "image_2": "contrast_image",
    "idx": "id",
}
"""The released parquet's columns by what they are here."""
SYMMPO_REST = ("image_path_1", "image_path_2", "origin_dataset", "origin_split", "logps")


def renamed(columns: tuple[str, ...]) -> Mapping[str, str]:
    """Columns of a paper's own table by their names here; empty where there is nothing to rename."""
    if {"resp_1_w", "resp_2_w", "image_1", "image_2"} <= set(columns):
        return {old: new for old, new in SYMMPO.items() if old in columns}
    return {}


def columns_here(columns: tuple[str, ...]) -> tuple[str, ...]:
    """The columns that rows have once `as_ours` has read them."""
    if is_swift(columns):
        rest = [
            name for name in columns if name not in ("messages", "rejected_response", "rejected_messages")
        ]
        return (*rest, "prompt", "chosen", "rejected")
    if is_rlhf_v(columns):
        return (*(name for name in columns if name != "text"), "prompt", "chosen", "rejected")
    return columns


def is_swift(columns: tuple[str, ...]) -> bool:
    """Whether rows are ms-swift's."""
    rejected = {"rejected_response", "rejected_messages", "rejected_images"} & set(columns)
    return "messages" in columns and bool(rejected) and "chosen" not in columns


def is_rlhf_v(columns: tuple[str, ...]) -> bool:
    """Whether rows may be RLHF-V's, as its authors publish them."""
    return {"text", "image"} <= set(columns) and not {"chosen", "rejected", "prompt"} & set(columns)


def as_ours(row: Mapping[str, Any], columns: tuple[str, ...]) -> Mapping[str, Any]:
    """A row under our names.

    Raises:
        UnusableItem: it lacks what its layout needs.
    """
    if is_swift(columns):
        return from_swift(row)
    if is_rlhf_v(columns):
        return from_rlhf_v(row)
    return row


def from_swift(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """ms-swift: one conversation that ends with the better answer, and the other answer; or the same under other images."""
    messages, rejected = row.get("messages"), row.get("rejected_messages")
    if not isinstance(messages, list) or len(messages) < 2:
        raise UnusableItem(
            f"messages is {cells.shown(messages)}; needed a conversation that ends with the better answer",
            "wrong_type",
        )
    if rejected is None:
        answer = row.get("rejected_response")
        if answer is None and row.get("rejected_images"):
            answer = messages[-1].get("content")  # the same answer under other images
        if isinstance(answer, list):
            rejected = [*messages[:-1], *answer]
        elif isinstance(answer, str):
            rejected = [*messages[:-1], {"role": "assistant", "content": answer}]
        else:
            raise UnusableItem("neither rejected_response nor rejected_messages is there", "missing_value")
    rest = {k: v for k, v in row.items() if k not in ("messages", "rejected_messages", "rejected_response")}
    start = shared(messages, rejected)
    return {**rest, "prompt": messages[:start], "chosen": messages[start:], "rejected": rejected[start:]}


def shared(messages: list[Any], rejected: list[Any]) -> int:
    """Messages that both conversations begin with, the last answer left out."""
    most = min(len(messages), len(rejected)) - 1
    return next((n for n in range(most) if messages[n] != rejected[n]), most)


def from_rlhf_v(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """RLHF-V: all texts as JSON in one column."""
    try:
        texts = json.loads(row["text"]) if isinstance(row.get("text"), str) else row.get("text")
    except ValueError:
        texts = None
    if not isinstance(texts, Mapping) or not {"question", "chosen", "rejected"} <= set(texts):
        raise UnusableItem(
            f"text is {cells.shown(row.get('text'))}; needed chosen and rejected columns, or RLHF-V's JSON object with "
            "question, chosen and rejected",
            "wrong_type",
        )
    rest = {k: v for k, v in row.items() if k != "text"}
    return {**rest, "prompt": texts["question"], "chosen": texts["chosen"], "rejected": texts["rejected"]}
