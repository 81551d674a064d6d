"""Pictures and videos of an item, each with a place in its prompt."""

from __future__ import annotations

from typing import Any

from prefopt.comparisons import Item, UnusableItem
from prefopt.modalities.vision_language.expanding import counted
from prefopt.modalities.vision_language.media import Medium, marks_of
from prefopt.modalities.vision_language.prompts import KINDS, marks


def pictured(item: Item, media: tuple[Medium, ...]) -> Item:
    """An item with its pictures and videos, each with a place in the prompt.

    Raises:
        UnusableItem: the prompt has places for more or fewer.
    """
    prompt = item.condition["prompt"]
    here = marks(prompt)
    if not media and not here:
        return item
    if not here:
        prompt = with_places(prompt, marks_of(media))
    elif sorted(here) != sorted(marks_of(media)):
        raise UnusableItem(
            f"the prompt has places for {counted(here)}, and the row holds {counted(marks_of(media))}: needed as many, or no "
            "place at all, which puts them at its beginning",
            "image_places",
        )
    else:  # in the order of their places
        queues = {mark: iter([one for one in media if marks_of([one]) == mark]) for mark in KINDS}
        media = tuple(next(queues[mark]) for mark in here)
    return Item({**item.condition, "prompt": prompt, "pictures": media}, item.sample)


def with_places(prompt: Any, places: str) -> Any:
    """A prompt with marks at its beginning; of a conversation, in the user's first message."""
    if isinstance(prompt, str):
        return places + "\n" + prompt
    first = next((n for n, message in enumerate(prompt) if message["role"] == "user"), 0)
    content = prompt[first].get("content")
    if isinstance(content, list):
        content = [{"type": "text", "text": places}, *content]
    else:
        content = places + (content or "")
    return [*prompt[:first], {**prompt[first], "content": content}, *prompt[first + 1 :]]
