"""What a processor makes of one picture: the tokens that stand for it in a text, and the tensors that the model reads.

Each picture is processed alone, once, and put together with others of a batch as the processor would: entries are
concatenated, and those of different shapes padded with zeros. So a batch needs each picture once, however many rows hold it.
How a text is expanded depends on a picture's size alone; both are held against the processor's own words as they are used.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prefopt.comparisons import UnusableItem
from prefopt.modalities.vision_language.contrasts import Picture

TOKENWISE = frozenset({"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "labels"})
KEPT_BYTES = 2**29
"""Processed pictures that stay in memory."""
SUFFIXED = ("PaliGemmaProcessor",)
"""Processors of models that read a prompt in both directions, so that they must be told where the completion begins."""


@dataclass(frozen=True)
class Processed:
    """One picture.

    Attributes:
        text: what the placeholder in a text becomes.
        tokens: how many of the image token.
        tensors: by the processor's names, for a batch of this picture alone.
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
        self.suffixed = type(processor).__name__ in SUFFIXED
        self._texts: dict[tuple[int, int], tuple[str, int]] = {}
        self._kept: OrderedDict[str, Processed] = OrderedDict()
        self._bytes = 0

    @property
    def typed(self) -> bool:
        """Whether the model is told the kind of each token beside its id."""
        return "token_type_ids" in self.processor.model_input_names

    def expansion(self, picture: Picture) -> tuple[str, int]:
        """What a placeholder becomes for this picture, and how many image tokens that holds; decodes no second of a size."""
        if picture.size not in self._texts:
            found = self.processed(picture)
            self._texts[picture.size] = found.text, found.tokens
        return self._texts[picture.size]

    def processed(self, picture: Picture) -> Processed:
        """The picture as the model reads it.

        Raises:
            UnusableItem: the image cannot be read, or the processor refuses it.
        """
        key = picture.digest
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        found = self._process(picture)
        self._kept[key] = found
        self._bytes += sum(map(nbytes, found.tensors.values()))
        while self._bytes > KEPT_BYTES and len(self._kept) > 1:
            _, gone = self._kept.popitem(last=False)
            self._bytes -= sum(map(nbytes, gone.tensors.values()))
        return found

    def _process(self, picture: Picture) -> Processed:
        out = self.whole(self.placeholder, [picture.image()], what=f"the picture {picture.ref}")
        ids = out.pop("input_ids")[0].tolist()
        tensors = {name: value for name, value in out.items() if name not in TOKENWISE}
        start = len(self.processor.tokenizer("")["input_ids"])  # tokens that begin every text
        text = self.processor.tokenizer.decode(
            ids[0 if self.suffixed else start :], skip_special_tokens=False
        )
        return Processed(text, ids.count(self.image_token_id), picture.seen(tensors))

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

    def batch(self, pictures: Sequence[Picture]) -> tuple[dict[str, Tensor], list[int]]:
        """Tensors of a batch of pictures, and the number of tokens of each."""
        found = [self.processed(picture) for picture in pictures]
        names = list(found[0].tensors) if found else []
        return {name: merged([one.tensors[name] for one in found]) for name in names}, [
            one.tokens for one in found
        ]


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


def nbytes(value: Tensor) -> int:
    """Bytes of a tensor."""
    return value.numel() * value.element_size()
