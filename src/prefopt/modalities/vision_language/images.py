"""What a processor makes of one picture: the tokens that stand for it in a text, and the tensors that the model reads.

Each picture is processed alone, once, and put together with others of a batch as the processor would: entries are
concatenated, and those of different shapes padded with zeros. So a batch needs each picture once, however many rows hold it.
Where a processor treats a picture otherwise in company (LLaVA-OneVision does), a prompt's pictures are processed together, as
one unit. How a text is expanded depends on a picture's size alone; what is expanded here is held against the processor's own
words as it is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prefopt.comparisons import UnusableItem
from prefopt.modalities.vision_language.contrasts import Picture
from prefopt.modalities.vision_language.kept import AROUND, Kept, name_of

TOKENWISE = frozenset({"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "labels"})
SUFFIXED = ("PaliGemmaProcessor",)
"""Processors of models that read a prompt in both directions, so that they must be told where the completion begins."""


Unit = tuple[Picture, ...]
"""Pictures that are processed together; mostly one."""


@dataclass(frozen=True)
class Processed:
    """One unit.

    Attributes:
        text: what the placeholder in a text becomes, or all of them.
        tokens: how many of the token that stands for features.
        tensors: by the processor's names, for a batch of this unit alone.
    """

    text: str
    tokens: int
    tensors: Mapping[str, Tensor]


class Images:
    """A processor, picture by picture.

    Args:
        processor: of the model.
        image_token_id: id of the token at whose places the model puts features of pictures.
    """

    def __init__(self, processor: Any, image_token_id: int) -> None:
        self.processor = processor
        self.image_token_id = image_token_id
        # Gemma 3 writes another token in its templates than the one that stands for features
        self.placeholder: str = getattr(processor, "boi_token", None) or processor.image_token
        tokenizer = processor.tokenizer
        self.lends_template = not tokenizer.chat_template and bool(processor.chat_template)
        if self.lends_template:  # conversations are rendered by the tokenizer
            tokenizer.chat_template = processor.chat_template
        words = tokenizer.get_vocab()
        self.place = (
            f"{AROUND[0]}{self.placeholder}{AROUND[1]}" if set(AROUND) <= set(words) else self.placeholder
        )
        self.suffixed = type(processor).__name__ in SUFFIXED
        self._texts: dict[tuple[int, int], tuple[str, int]] = {}
        self._kept = Kept[Processed]()

    @property
    def typed(self) -> bool:
        """Whether the model is told the kind of each token beside its id."""
        return "token_type_ids" in self.processor.model_input_names

    def expansion(self, picture: Picture) -> tuple[str, int]:
        """What a placeholder becomes for this picture, and how many image tokens that holds; decodes no second of a size."""
        if picture.size not in self._texts:
            found = self.processed((picture,))
            self._texts[picture.size] = found.text, found.tokens
        return self._texts[picture.size]

    def processed(self, unit: Unit) -> Processed:
        """Pictures as the model reads them.

        Raises:
            UnusableItem: an image cannot be read, or the processor refuses it.
        """
        key = name_of(unit)
        found = self._kept.get(key)
        if found is None:
            found = self._process(unit)
            self._kept.put(key, found, found.tensors)
        return found

    def _process(self, unit: Unit) -> Processed:
        what = f"the picture {unit[0].ref}"
        out = self.whole(self.placeholder * len(unit), [picture.image() for picture in unit], what=what)
        ids = out.pop("input_ids")[0].tolist()
        tensors = {name: value for name, value in out.items() if name not in TOKENWISE}
        if any(picture.change in ("noise", "blank") for picture in unit):
            tensors = merged_of(
                [picture.seen(part) for picture, part in zip(unit, apart(tensors, len(unit)), strict=True)]
            )
        start = len(self.processor.tokenizer("")["input_ids"])  # tokens that begin every text
        text = self.processor.tokenizer.decode(
            ids[0 if self.suffixed else start :], skip_special_tokens=False
        )
        return Processed(text, ids.count(self.image_token_id), tensors)

    def whole(
        self, text: str, images: Sequence[Any], what: str = "the row", **options: Any
    ) -> dict[str, Tensor]:
        """The processor's own output for one text and its images.

        Raises:
            UnusableItem: it refuses them.
        """
        try:
            out = self.processor(text=[text], images=[list(images)], return_tensors="pt", **options)
        except (ValueError, TypeError, IndexError, RuntimeError, ZeroDivisionError) as error:
            raise UnusableItem(
                f"{what}: {type(self.processor).__name__} refuses it ({' '.join(str(error).split())[:200]})",
                "unusable_image",
            ) from None
        return dict(out)

    def batch(self, units: Sequence[Unit]) -> tuple[dict[str, Tensor], list[int]]:
        """Tensors of a batch of units, and the number of tokens of each."""
        found = [self.processed(unit) for unit in units]
        return merged_of([one.tensors for one in found]), [one.tokens for one in found]


def apart(tensors: Mapping[str, Tensor], count: int) -> list[dict[str, Tensor]]:
    """Tensors of several pictures as those of each.

    Raises:
        UnusableItem: they do not come apart.
    """
    if any(len(value) != count for value in tensors.values() if count > 1):
        raise UnusableItem(
            "several images of one prompt cannot be noised with a processor that joins them: give one a prompt",
            "image_places",
        )
    return [
        {name: value[n : n + 1] if count > 1 else value for name, value in tensors.items()}
        for n in range(count)
    ]


def merged_of(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of several batches as those of one."""
    return {name: merged([part[name] for part in parts]) for name in (parts[0] if parts else {})}


def merged(parts: Sequence[Tensor]) -> Tensor:
    """Tensors one behind the other; where other sides than the first differ, the smaller are padded with zeros.

    >>> merged([torch.ones(1, 2, 3), torch.ones(2, 1, 3)]).shape
    torch.Size([3, 2, 3])
    """
    if len({part.shape[1:] for part in parts}) == 1:
        return torch.cat(list(parts))
    sides = [max(sizes) for sizes in zip(*(part.shape[1:] for part in parts), strict=True)]
    out = parts[0].new_zeros((sum(len(part) for part in parts), *sides))
    start = 0
    for part in parts:
        out[(slice(start, start + len(part)), *(slice(size) for size in part.shape[1:]))] = part
        start += len(part)
    return out
