"""Each picture of a batch encoded once, however many rows hold it.

Models of transformers ask themselves for the features of all pictures (`get_image_features`) and put these at the places of
image tokens, row by row. While a plan is read, that method is given each picture once, and what it gives is dealt out to the
places that hold the picture. Whatever it returns beside the features of the last layer (Qwen3-VL's of earlier ones) is dealt
out likewise.

Legend: S image tokens of all distinct pictures, D hidden width.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prefopt.likelihoods.capability import causal_lm, trunk_of

DEALT = ("pooler_output", "deepstack_features")
"""What is put at the places of image tokens, of all that `get_image_features` returns."""


@contextlib.contextmanager
def dealt_out(model: nn.Module, tokens: Sequence[int], order: Sequence[int]) -> Iterator[None]:
    """Within it, the features of a batch's distinct pictures are dealt out to the places that hold them.

    Args:
        model: holds a model of transformers that reads images.
        tokens: image tokens of each distinct picture, in the order in which they are given.
        order: which picture each image in the rows is, row by row.
    """
    inner = causal_lm(model)
    trunk: Any = None if inner is None else trunk_of(inner)
    if trunk is None or not hasattr(trunk, "get_image_features"):
        raise NotImplementedError("this model does not say how it encodes images")
    theirs = trunk.get_image_features

    def get_image_features(*args: Any, **options: Any) -> Any:
        out = theirs(*args, **options)
        if isinstance(out, Tensor | list | tuple):  # classes that return features and nothing else
            return deal(out, tokens, order)
        for name in DEALT:
            value = getattr(out, name, None)
            if value is not None:
                several = name == "deepstack_features"
                setattr(
                    out,
                    name,
                    [deal(layer, tokens, order) for layer in value]
                    if several
                    else deal(value, tokens, order),
                )
        return out

    before = vars(trunk).get("get_image_features")
    trunk.get_image_features = get_image_features
    try:
        yield
    finally:
        if before is None:
            del trunk.get_image_features
        else:
            trunk.get_image_features = before


def deal(value: Any, tokens: Sequence[int], order: Sequence[int]) -> Any:
    """Features of distinct pictures as those of all images, in the form in which they were given.

    Args:
        value: a tensor whose last side is D, or a list of such, S rows in all.
        tokens: rows of each distinct picture; they sum to S.
        order: which picture each image is.

    Raises:
        RuntimeError: there are other features than tokens for them.
    """
    parts = [value] if isinstance(value, Tensor) else list(value)
    flat_SD = torch.cat([part.reshape(-1, part.shape[-1]) for part in parts])
    if len(flat_SD) != sum(tokens):
        raise RuntimeError(
            f"the model gives {len(flat_SD)} features for pictures that take {sum(tokens)} tokens"
        )
    pieces = flat_SD.split(list(tokens))
    found = [pieces[k] for k in order]
    if isinstance(value, Tensor):
        return torch.cat(found).reshape(-1, *value.shape[1:])
    return found
