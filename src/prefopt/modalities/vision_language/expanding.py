"""Texts whose placeholders stand for pictures and videos, as token ids: each placeholder becomes the tokens of its medium."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from prefopt.comparisons import UnusableItem
from prefopt.modalities.vision_language.contrasts import Picture
from prefopt.modalities.vision_language.images import Images
from prefopt.modalities.vision_language.media import Medium, marks_of
from prefopt.modalities.vision_language.prompts import KINDS, MARK, VIDEO_MARK, marks, placed_in
from prefopt.modalities.vision_language.video.processing import Clips
from prefopt.modalities.vision_language.video.videos import Video

AnyUnit = tuple[Any, ...]
"""Pictures, or clips, that are processed together; mostly one."""


class Expander:
    """A model's processor, for all that a prompt shows.

    Args:
        images: the processor, picture by picture.
        video_token_id: of the model's token for videos; None: it has none of its own.
    """

    def __init__(self, images: Images, video_token_id: int | None) -> None:
        self.images = images
        self.video_token_id = video_token_id
        self.shows_videos = False
        self._faithful: dict[int, bool] = {}

    @cached_property
    def clips(self) -> Clips:
        """The processor, clip by clip; made for the first video.

        Raises:
            ValueError: it reads no videos.
        """
        found = Clips(self.images.processor, self.images.image_token_id, self.video_token_id)
        self.shows_videos = True
        return found

    # -- places ----------------------------------------------------------------------------------------------

    def placed(self, text: str) -> str:
        """A text with what the model wants around each placeholder, in place of marks."""
        return placed_in(text, self.places(text, whole=True))

    def places(self, text: str, whole: bool = False) -> dict[str, str]:
        """Placeholders by mark; of videos, only where a text has a mark of one.

        Args:
            text: that they are for, or its marks.
            whole: with what the model wants around them.
        """
        found = {MARK: self.images.place if whole else self.images.placeholder}
        if VIDEO_MARK in text:
            found[VIDEO_MARK] = self.clips.place if whole else self.clips.placeholder
        return found

    # -- units -----------------------------------------------------------------------------------------------

    def units(self, media: Sequence[Medium]) -> list[AnyUnit]:
        """Pictures and clips as they are processed: each alone, or several together where company matters."""
        pictures = sum(isinstance(medium, Picture) for medium in media)
        if pictures > 1 and pictures == len(media) and not self._faithful.get(pictures, True):
            return [tuple(media)]
        found: list[AnyUnit] = []
        for medium in media:
            found += self.clips.units(medium) if isinstance(medium, Video) else [(medium,)]
        return found

    def tokens(self, unit: AnyUnit) -> int:
        """Tokens that stand for features of a unit."""
        if self.is_clip(unit):
            return self.clips.tokens(unit)
        return self.images.expansion(unit[0])[1] if len(unit) == 1 else self.images.processed(unit).tokens

    def tensors(self, unit: AnyUnit) -> Mapping[str, Any]:
        """What the model reads of a unit."""
        return self.clips.processed(unit) if self.is_clip(unit) else self.images.processed(unit).tensors

    def is_clip(self, unit: AnyUnit) -> bool:
        """Whether a unit is of a video."""
        return not isinstance(unit[0], Picture)

    @property
    def feature_tokens(self) -> frozenset[int]:
        """Ids of the tokens at whose places the model puts features."""
        found = {self.images.image_token_id}
        if self.shows_videos and self.video_token_id is not None:
            found.add(self.video_token_id)
        return frozenset(found)

    def in_videos(self, unit: AnyUnit) -> bool:
        """Whether the model takes a unit's features for those of a video, not of images."""
        return self.is_clip(unit) and not self.clips.as_images

    # -- tokens ----------------------------------------------------------------------------------------------

    def alike(self, some: Sequence[Medium], others: Sequence[Medium]) -> bool:
        """Whether texts are the same with some videos as with others; False where that is not known."""
        if len(some) != len(others) or not all(isinstance(medium, Video) for medium in (*some, *others)):
            return False
        return [self.clips.expansion(one) for one in some if isinstance(one, Video)] == [
            self.clips.expansion(other) for other in others if isinstance(other, Video)
        ]

    def ids(self, text: str, media: Sequence[Medium], chat: bool) -> list[int]:
        """Tokens of a text whose placeholders stand for pictures and videos.

        The placeholders are expanded here, by what the processor makes of each alone. The first text with so many pictures
        and no video is given to the processor as a whole, too; where that reads otherwise, all such texts are.

        Raises:
            UnusableItem: it has places for others than these.
        """
        kinds = marks_of(media)
        by_place = {place: mark for mark, place in self.places(kinds).items()}
        pieces = re.split("(" + "|".join(map(re.escape, by_place)) + ")", text)
        here = "".join(by_place[piece] for piece in pieces[1::2])
        if here != kinds:
            told = f" ({self.images.placeholder})" if set(kinds) <= {MARK} else ""
            raise UnusableItem(
                f"the texts have places for {counted(here)}, and {counted(kinds)} are given: needed a placeholder{told} for each, in "
                "their order, or none at all",
                "image_places",
            )
        options = {"add_special_tokens": False} if chat else {}
        inserted = [
            self.clips.expansion(medium) if isinstance(medium, Video) else self.images.expansion(medium)[0]
            for medium in media
        ]
        pieces[1::2] = inserted
        ids: list[int] = self.images.processor.tokenizer("".join(pieces), **options)["input_ids"]
        if media and VIDEO_MARK not in kinds:
            count = len(media)
            if count not in self._faithful:
                self._faithful[count] = self._asked(text, media, options) == ids
            if not self._faithful[count]:
                ids = self._asked(text, media, options)
        self._check(ids, media)
        return ids

    def _check(self, ids: Sequence[int], media: Sequence[Medium]) -> None:
        """Refuse tokens whose places are not as many as features."""
        expected: dict[int, int] = {self.images.image_token_id: 0}
        if any(isinstance(medium, Video) for medium in media) and self.video_token_id is not None:
            expected[self.video_token_id] = 0
        for unit in self.units(media):
            token = self.video_token_id if self.in_videos(unit) else self.images.image_token_id
            assert token is not None  # a stream of videos has one
            expected[token] += self.tokens(unit)
        for token, count in expected.items():
            if (held := ids.count(token)) != count:
                raise UnusableItem(
                    f"the tokens hold {held} places of features, and {counted(marks_of(media))} need {count}: does a "
                    "text hold the token of images or videos itself?",
                    "image_places",
                )

    def _asked(self, text: str, media: Sequence[Medium], options: Mapping[str, Any]) -> list[int]:
        out = self.images.whole(text, [medium.image() for medium in media], **options)  # type: ignore[union-attr]
        ids: list[int] = out["input_ids"][0].tolist()
        return ids

    def with_suffix(
        self, prompt: str, completion: str, media: Sequence[Medium]
    ) -> tuple[list[int], list[int]]:
        """For processors that write prompts in a form of their own, which no text shows."""
        if marks(prompt) != marks_of(media) or not media:
            raise UnusableItem(
                f"the prompt has places for {counted(marks(prompt))}, and {counted(marks_of(media))} are given",
                "image_places",
            )
        ids = self._asked(self.placed(prompt), media, {})
        tail: list[int] = self.images.processor.tokenizer(completion, add_special_tokens=False)["input_ids"]
        return ids, ids + tail


def counted(marked: str) -> str:
    """How many of each kind.

    >>> counted(MARK + VIDEO_MARK * 2), counted("")
    ('1 image(s) and 2 video(s)', 'no image')
    """
    return (
        " and ".join(f"{marked.count(m)} {kind}(s)" for m, kind in KINDS.items() if m in marked) or "no image"
    )
