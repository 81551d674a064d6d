"""What is asked of a generator and what it answers: requests, settings, responses."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

Prompt = str | list[dict[str, Any]]
"""Plain text to continue, or the messages of a conversation to reply to."""


def last_turn(prompt: Prompt) -> str:
    """What a verifier, scorer or judge reads of a prompt: the text, or the last message's."""
    return prompt if isinstance(prompt, str) else str(prompt[-1]["content"])


def text_of(answer: Any) -> str:
    """The text of an answer, in either form of a row: text, or a list of one message."""
    return answer if isinstance(answer, str) else str(answer[-1]["content"])


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt and how many answers to it are wanted.

    Attributes:
        id: unique among the requests; randomness and the journal go by it.
        prompt: plain text, or messages of the form {"role": ..., "content": ...}.
        n: number of answers.
        first: number of the first of them; samples `first` to `first + n - 1` are made.
        template: what else the chat template is given: tools, chat_template_kwargs.

    Raises:
        ValueError: n below 1, first below 0, or an empty prompt.
    """

    id: str
    prompt: Prompt
    n: int = 1
    first: int = 0
    template: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.n < 1 or self.first < 0:
            raise ValueError(
                f"request {self.id!r} asks for n={self.n} samples from number {self.first}: needed n >= 1, first >= 0"
            )
        if not self.prompt:
            raise ValueError(f"request {self.id!r} has an empty prompt; needed text or a list of messages")

    @property
    def samples(self) -> range:
        """Numbers of the samples asked for."""
        return range(self.first, self.first + self.n)


@dataclass(frozen=True, slots=True)
class Settings:
    """How answers are drawn; the same for all requests of a call.

    Attributes:
        max_new_tokens: answers are cut there.
        temperature: divides the logits; 0 takes the likeliest token.
        top_p: only the likeliest tokens that together reach this probability are drawn; 1 keeps all.
        seed: of the randomness, from which each sample's own is derived.

    Raises:
        ValueError: a value out of its range.
    """

    max_new_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1; given {self.max_new_tokens}")
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature must be 0 (greedy) or positive; given {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is a probability in (0, 1]; given {self.top_p}")


@dataclass(frozen=True, slots=True)
class Response:
    """One answer.

    Attributes:
        id: of the request.
        sample: its number among the answers to that request.
        text: the answer; outer white space is removed from replies to messages, and kept behind plain text.
        tokens: length, the end token included; 0 where a server does not tell.
        ended: whether the model ended it by itself, rather than being cut.
        ids: its tokens, of a model in this process; a journal does not keep them.
    """

    id: str
    sample: int
    text: str
    tokens: int
    ended: bool
    ids: tuple[int, ...] = ()


class Generator(Protocol):
    """Anything that answers requests.

    A sample follows from the settings, the request and the sample's number alone, so that neither the order nor the
    company of the requests matters, as far as the backend allows: arithmetic in batches of another make-up differs in
    the last digits, and a server may or may not honour seeds.
    """

    @property
    def identity(self) -> str:
        """Names the model, so that a journal is not continued with another; empty if unknown."""
        ...

    def generate(self, requests: Sequence[Request], settings: Settings) -> Iterator[list[Response]]:
        """Responses as they arrive, in any order; every sample of every request once.

        Raises:
            ValueError: a request that cannot be answered, before anything is generated.
            OSError: the backend cannot be reached; what has arrived was handed out before.
        """
        ...


def sample_seed(seed: int, request: str, sample: int, bits: int = 63) -> int:
    """The seed of one sample's randomness, in [0, 2**bits).

    Args:
        seed: of the settings.
        request: id of the request.
        sample: number of the sample.
        bits: 63 at most; servers take 31.

    Example:
        >>> sample_seed(0, "p1", 0) == sample_seed(0, "p1", 1)
        False
    """
    key = f"{seed}/{sample}/{request}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") >> (64 - bits)
