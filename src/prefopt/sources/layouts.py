"""Where a row's prompt stands: in `prompt`, in the columns of other tools' layouts, or in what both sides share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prefopt.comparisons import UnusableItem
from prefopt.sources import cells

Prompt = str | list[dict[str, Any]]

KNOWN: tuple[tuple[str, ...], ...] = (
    ("prompt",),
    ("instruction", "input"),
    ("question",),
    ("conversations",),
    ("messages",),
)
"""Columns that make up a prompt, the first of each decides: TRL's; Alpaca's; Orca's; ShareGPT's and OpenAI's conversation
before two answers, as LLaMA-Factory reads them. Texts are joined by a line break."""
SYSTEM = ("system", "system_prompt")


@dataclass(frozen=True)
class PromptColumns:
    """The columns that a table's prompts are made of.

    Attributes:
        parts: of the prompt; empty where there is none.
        system: column of the system message, if any.
        columns: all columns of the table.
    """

    parts: tuple[str, ...]
    system: str | None
    columns: tuple[str, ...] = ()

    @property
    def missing(self) -> str:
        """What to say of a row that has no prompt."""
        return (
            f"there is no column of prompts (the columns are {', '.join(self.columns)}), and the sides share no beginning "
            "that could be one. Name the column, for example rename_columns={query: prompt}; for texts without any "
            'prompt, give an empty one ("prompt": "")'
        )

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.parts, *((self.system,) if self.system else ()))

    @property
    def note(self) -> str | None:
        """A sentence where the prompt is made of anything but a column `prompt`."""
        if not self.names or self.names == ("prompt",):
            return None
        prompt = " and ".join(map(repr, self.parts)) or "what both sides share"
        behind = f", behind the system message in {self.system!r}" if self.system else ""
        return f"the prompt is read from {prompt}{behind}"

    def read(self, row: Mapping[str, Any], strip_nones: bool) -> Prompt | None:
        """The prompt of a row without its system message; None where its columns are absent."""
        first = row.get(self.parts[0]) if self.parts else None
        if first is None:
            return None
        prompt = cells.as_sample(first, self.parts[0], strip_nones)
        for name in self.parts[1:]:
            more = row.get(name)
            more = str(more) if isinstance(more, int | float) and not isinstance(more, bool) else more
            if more is None or more == "" or more == []:
                continue
            if not isinstance(more, str) or not isinstance(prompt, str):
                raise UnusableItem(
                    f"{name} is {cells.shown(more)} beside {self.parts[0]}; needed text in both "
                    f"(if {name} is no part of the prompt: ignore_columns=[{name}])",
                    "wrong_type",
                )
            if more.strip():
                prompt = f"{prompt}\n{cells.as_text(more, name)}" if prompt else cells.as_text(more, name)
        return prompt

    def with_system(self, prompt: Prompt, row: Mapping[str, Any]) -> Prompt:
        """The prompt behind the row's system message, if it has one and does not hold it yet.

        Raises:
            UnusableItem: the conversation begins with another system message.
        """
        text = row.get(self.system) if self.system else None
        if text is None or text == "":
            return prompt
        if not isinstance(text, str):
            raise UnusableItem(f"{self.system} is {cells.shown(text)}; needed text", "wrong_type")
        text = cells.as_text(text, str(self.system))
        if isinstance(prompt, str):
            return f"{text}\n\n{prompt}"
        if prompt and prompt[0]["role"] in ("system", "developer"):
            if prompt[0].get("content") == text:
                return prompt
            raise UnusableItem(
                f"{self.system} and the conversation's own system message differ; "
                f"leave one out (ignore_columns=[{self.system}])",
                "contradicting_labels",
            )
        return [{"role": "system", "content": text}, *prompt]


def prompt_columns(columns: Sequence[str]) -> PromptColumns:
    """Which columns of a table make up its prompts.

    Example:
        >>> prompt_columns(["instruction", "input", "system", "chosen", "rejected"]).names
        ('instruction', 'input', 'system')
    """
    parts = next((known for known in KNOWN if known[0] in columns), ())
    return PromptColumns(
        tuple(name for name in parts if name in columns),
        next((name for name in SYSTEM if name in columns), None),
        tuple(columns),
    )
