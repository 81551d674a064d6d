"""Answers to prompts behind one small interface: from a model in this process, or from a server.

    from prefopt.generation import LocalGenerator, Request, Settings, collect

    requests = [Request("p1", [{"role": "user", "content": "Sort: pear fig"}], n=2)]
    responses = collect(LocalGenerator(model, tokenizer), requests, Settings(max_new_tokens=24), "answers.jsonl")

Calling it again asks only for what `answers.jsonl` does not hold yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefopt.generation.base import Generator, Request, Response, Settings
from prefopt.generation.journal import Journal, collect

if TYPE_CHECKING:
    from prefopt.generation.local import LocalGenerator
    from prefopt.generation.server import ServerGenerator

__all__ = [
    "Generator",
    "Journal",
    "LocalGenerator",
    "Request",
    "Response",
    "ServerGenerator",
    "Settings",
    "collect",
]


def __getattr__(name: str) -> object:
    """The backends, imported on use: one needs torch, the other the openai package."""
    if name == "LocalGenerator":
        from prefopt.generation.local import LocalGenerator

        return LocalGenerator
    if name == "ServerGenerator":
        from prefopt.generation.server import ServerGenerator

        return ServerGenerator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
