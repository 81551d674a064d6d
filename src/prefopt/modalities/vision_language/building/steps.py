"""Steps of a build in which models are asked: each has a journal, and nothing in it is asked for again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefopt.generation.base import Prompt, Request, Response, Settings
from prefopt.generation.journal import collect
from prefopt.modalities.vision_language.building.modes import digest_of
from prefopt.modalities.vision_language.generating import Speaker


@dataclass
class Steps:
    """Journals of a build.

    Attributes:
        folder: that they lie in.
        counts: by step, how many answers were needed, and how many of them came now.
    """

    folder: Path
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    _known: dict[str, set[str]] = field(default_factory=dict, init=False, repr=False)

    def journal(self, step: str) -> Path:
        """Of one step."""
        return self.folder / f"{step}.journal.jsonl"

    def ask(
        self,
        step: str,
        speaker: Speaker,
        requests: Iterable[Request],
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> dict[str, list[Response]]:
        """Responses by id of the request, in the order of their samples; equal requests are asked once.

        Args:
            step: names the journal; called again for the same step, it adds to it.
            speaker: who is asked.
            requests: whose ids name their content.
            max_new_tokens: of a response.
            temperature: 0 takes the likeliest token.
            seed: of what is drawn, at a temperature above 0.

        Raises:
            ValueError: a journal of another model or other settings.
            OSError: a server cannot be reached, or nothing can be written; what had arrived stays.
        """
        distinct = list({request.id: request for request in requests}.values())
        before = lines_in(self.journal(step))
        settings = Settings(max_new_tokens, temperature, seed=seed if temperature else 0)
        found: dict[str, list[Response]] = {request.id: [] for request in distinct}
        for response in collect(speaker, distinct, settings, self.journal(step), f"writing {step}"):
            found[response.id].append(response)
        count = self.counts.setdefault(step, {"needed": 0, "asked": 0})
        known = self._known.setdefault(step, set())
        count["needed"] += sum(request.n for request in distinct if request.id not in known)
        known.update(found)
        count["asked"] += max(0, lines_in(self.journal(step)) - before)
        return found


def said(prompt: Prompt) -> list[dict[str, Any]]:
    """A prompt as messages."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt


def in_words(text: str) -> Request:
    """A request of a user's message that shows nothing, named by its content."""
    return Request(digest_of(text), said(text))


def lines_in(journal: Path) -> int:
    """Answers in a journal, its header and a torn end left out."""
    if not journal.exists():
        return 0
    with journal.open("rb") as file:
        return max(0, sum(line.endswith(b"\n") for line in file) - 1)
