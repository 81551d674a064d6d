"""Each picture and clip of a batch encoded once, however many rows hold it.

Models of transformers ask themselves for the features of all pictures (`get_image_features`) and videos
(`get_video_features`), and put these at the places of their tokens, row by row. While a plan is read, these methods are given
each unit once, in chunks where there are many clips, and what they give is dealt out to the places that hold the unit; or they
are not called at all, and features come from disk. Whatever they return beside the features of the last layer (Qwen3-VL's of
earlier ones) is dealt out likewise.

Legend: S tokens of all distinct units, D hidden width.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from prefopt.likelihoods.capability import causal_lm, trunk_of
from prefopt.modalities.vision_language.streams import Stream

DEALT = ("pooler_output", "deepstack_features")
"""What is put at the places of tokens, of all that these methods return."""
METHODS = {"image": "get_image_features", "video": "get_video_features"}


@contextlib.contextmanager
def dealt_out(model: nn.Module, streams: Mapping[str, Stream]) -> Iterator[None]:
    """Within it, the features of a batch's distinct units are dealt out to the places that hold them.

    Args:
        model: holds a model of transformers that reads images, or videos.
        streams: by what the model takes them for, image or video.
    """
    inner = causal_lm(model)
    trunk: Any = None if inner is None else trunk_of(inner)
    if trunk is None or not hasattr(trunk, METHODS["image"]):
        raise NotImplementedError("this model does not say how it encodes images")
    dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
    within = Within()
    with contextlib.ExitStack() as stack:
        for kind, stream in streams.items():
            name = METHODS[kind]
            theirs = getattr(trunk, name)
            stack.enter_context(replaced(trunk, name, instead(theirs, stream, dtype, within)))
        yield


class Within:
    """Whether one of these methods is at work: a model may make features of videos by its method for images."""

    busy = False


def instead(
    theirs: Callable[..., Any], stream: Stream, dtype: torch.dtype, within: Within
) -> Callable[..., Any]:
    """A method that gives the features of all places in the rows."""

    def get_features(*args: Any, **options: Any) -> Any:
        if within.busy:
            return theirs(*args, **options)
        if stream.features_FSD is not None:
            return from_disk(stream, dtype)
        within.busy = True
        try:
            if len(stream.chunks) == 1:
                found = [theirs(*args, **options)]
            else:
                found = [theirs(**{**options, **known(theirs, chunk, dtype)}) for chunk in stream.chunks]
        finally:
            within.busy = False
        out = found[0]
        if isinstance(out, Tensor | list | tuple):  # classes that return features and nothing else
            return deal(found, stream.tokens_of, stream.order)
        for name in DEALT:
            values = [getattr(one, name, None) for one in found]
            if values[0] is None:
                continue
            if name == "deepstack_features":
                dealt: Any = [
                    deal(list(layer), stream.tokens_of, stream.order) for layer in zip(*values, strict=True)
                ]
            else:
                dealt = deal(values, stream.tokens_of, stream.order)
            setattr(out, name, dealt)
        return out

    return get_features


def known(theirs: Callable[..., Any], chunk: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Tensors that a method takes, in the model's type."""
    names = inspect.signature(theirs).parameters
    return {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in chunk.items()
        if name in names
    }


def from_disk(stream: Stream, dtype: torch.dtype) -> SimpleNamespace:
    """What a method would return, of features that were kept."""
    assert stream.features_FSD is not None
    layers = [[layer] for layer in stream.features_FSD.to(dtype)]
    dealt = [deal([layer], stream.tokens_of, stream.order) for layer in layers]
    first = dealt[0] if stream.form is None else torch.cat(dealt[0]).reshape(-1, *stream.form)
    return SimpleNamespace(**dict(zip(DEALT, (first, dealt[1:] or None), strict=True)))


@contextlib.contextmanager
def replaced(owner: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Within it, an object has another method."""
    before = vars(owner).get(name)
    setattr(owner, name, function)
    try:
        yield
    finally:
        if before is None:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


def deal(values: Sequence[Any], tokens: Sequence[int], order: Sequence[int]) -> Any:
    """Features of distinct units as those of all places, in the form in which they were given.

    Args:
        values: of each chunk: a tensor whose last side is D, or a list of such; S rows in all.
        tokens: rows of each distinct unit; they sum to S.
        order: which unit each place shows.

    Raises:
        RuntimeError: there are other features than tokens for them.
    """
    parts = [part for value in values for part in ([value] if isinstance(value, Tensor) else value)]
    flat_SD = torch.cat([part.reshape(-1, part.shape[-1]) for part in parts])
    if len(flat_SD) != sum(tokens):
        raise RuntimeError(
            f"the model gives {len(flat_SD)} features for pictures or clips that take {sum(tokens)} tokens"
        )
    pieces = flat_SD.split(list(tokens))
    found = [pieces[k] for k in order]
    if not isinstance(values[0], Tensor):
        return found
    form = values[0].shape[1:]
    dealt = torch.cat(found)
    alike = all(value.shape[1:] == form for value in values) and dealt.numel() % max(1, form.numel()) == 0
    return dealt.reshape(-1, *form) if alike else dealt
