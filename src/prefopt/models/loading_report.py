"""Weights that a checkpoint lacks, or has besides: libraries fill gaps with random numbers and go on; here they are refused."""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from prefopt.models.sources import config_values, file_of

SHOWN = 4
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


def load_whole(kind: Any, source: str | Path, *, part: bool = False, **options: Any) -> Any:
    """`kind.from_pretrained(source)`, refused unless every weight is there and has its place.

    Args:
        kind: a class of transformers or diffusers, or an auto class.
        source: folder or hub id.
        part: whether the model is meant to be a part of what the files hold (one tower of a CLIP).
        options: of `from_pretrained`.

    Raises:
        ValueError: weights are missing, have another shape, or have no place in the model. Tied weights, buffers and what
            the class declares as of no account are no weights in this sense.
        OSError: no weights, or not as safetensors.
    """
    with _no_table(), damaged(source):
        model, report = kind.from_pretrained(
            source, output_loading_info=True, ignore_mismatched_sizes=True, use_safetensors=True, **options
        )
    buffers = {name for name, _ in model.named_buffers()}
    unexpected = [] if part else [name for name in report["unexpected_keys"] if not is_remade(name)]
    if unexpected:
        constant = {
            name for file in files_of(source) for name, of in header_of(file).items() if is_constant(*of)
        }
        unexpected = [name for name in unexpected if not any(_same(name, other) for other in constant)]
    check_report(
        source,
        model,
        missing=set(report["missing_keys"]) - buffers,
        unexpected=unexpected,
        mismatched=report["mismatched_keys"],
    )
    return model


def check_report(
    source: str | Path,
    model: nn.Module,
    *,
    missing: Collection[str] = (),
    unexpected: Collection[str] = (),
    mismatched: Iterable[tuple[str, Any, Any]] = (),
    todo: str | None = None,
) -> None:
    """Raise ValueError, in one sentence, if a model did not get its weights or a checkpoint did not get rid of them.

    Args:
        source: folder or hub id.
        model: as loaded.
        missing: names of weights that the files lack.
        unexpected: names of tensors that the model has no place for.
        mismatched: names with the shapes in the file and in the model.
        todo: what to do instead; None: what is to be done about a whole model.
    """
    shapes = [
        f"{name} is {_size(there)} in the file and {_size(here)} in the model"
        for name, there, here in sorted(mismatched, key=str)
    ]
    found = []
    if missing:
        found.append(f"it lacks {listed(missing)}, which would start as random numbers")
    if shapes:
        found.append(
            "; ".join(shapes[:SHOWN]) + (f"; and {len(shapes) - SHOWN} more" if len(shapes) > SHOWN else "")
        )
    if unexpected:
        found.append(
            f"it holds {listed(unexpected)}, for which the model has no place and which would be lost"
        )
    if not found:
        return
    kind = type(model).__name__
    saved_as = saved_classes(source, model)
    if todo is not None:
        pass
    elif saved_as and kind not in saved_as:
        todo = (
            f"It was saved as {', '.join(saved_as)}: needed the checkpoint of a {kind}, saved by that class's "
            "save_pretrained"
        )
    else:
        todo = f"Download it again, or save the whole {kind} with save_pretrained"
    raise ValueError(f"{source} does not fit a {kind}: {'; '.join(found)}. {todo}")


REMADE = re.compile(
    r"(^|\.)(inv_freq|original_inv_freq|position_ids|masked_bias|embed_positions\.weights|version)$"
)
"""Buffers that old files hold under these names and every model makes again."""


def is_remade(name: str) -> bool:
    """Whether a tensor of an old file is one that the class computes by itself, by its name."""
    return REMADE.search(name) is not None


def is_constant(dtype: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is no weight: a mask of places by places, numbers that count, or a single number.

    Args:
        dtype: as safetensors writes it, such as "F32".
        shape: of the tensor.
    """
    mask = len(shape) == 4 and shape[:2] == (1, 1) and shape[2] == shape[3]
    return mask or dtype in ("BOOL", "U8", "I64", "I32") or shape == ()


def _same(name: str, other: str) -> bool:
    """Whether two names are of one tensor, but for what stands before them."""
    return name == other or name.endswith(f".{other}") or other.endswith(f".{name}")


def files_of(source: str | Path) -> list[Path]:
    """The safetensors files of a folder or hub id that a model is loaded from."""
    whole = file_of(str(source), WEIGHTS)
    if whole is not None:
        return [whole]
    index = file_of(str(source), INDEX)
    if index is None:
        return []
    names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
    return [path for name in names if (path := file_of(str(source), name)) is not None]


def header_of(file: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Names of the tensors in a safetensors file, each with its dtype and shape, from its header.

    Raises:
        ValueError: the file is damaged.
    """
    from safetensors import safe_open

    with damaged(file), safe_open(file, framework="pt") as opened:
        slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
        return {name: (str(x.get_dtype()), tuple(x.get_shape())) for name, x in slices.items()}


@contextlib.contextmanager
def damaged(source: str | Path) -> Iterator[None]:
    """Turn what safetensors and transformers raise about files that are not whole into one sentence.

    Raises:
        ValueError: a file is cut short, is no such file at all, or one of several is missing.
    """
    try:
        yield
    except Exception as error:
        if type(error).__name__ == "SafetensorError":
            raise ValueError(
                f"the weights of {source} are damaged or cut short ({error}); a file of a few hundred bytes is a pointer of "
                "Git LFS: download them again"
            ) from error
        if isinstance(error, FileNotFoundError) and "safetensors" in str(error):
            raise ValueError(
                f"a file of the weights of {source} is missing ({Path(str(error.filename or error)).name}): download it again"
            ) from error
        raise


def listed(names: Collection[str]) -> str:
    """Some names, and how many more there are.

    Example:
        >>> listed(["b", "a"])
        'a, b'
        >>> listed([str(n) for n in range(10)])
        '0, 1, 2, 3 and 6 more'
    """
    ordered = sorted(names)
    more = len(ordered) - SHOWN
    return ", ".join(ordered[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def saved_classes(source: str | Path, model: nn.Module) -> list[str]:
    """The class that a checkpoint says it was saved as; none where it is diffusers', which say it otherwise."""
    config = getattr(model, "config", None)
    if isinstance(config, Mapping):
        return []
    return list(
        config_values(str(source)).get("architectures") or getattr(config, "architectures", None) or []
    )


def _size(shape: Any) -> str:
    return " x ".join(map(str, shape))


@contextlib.contextmanager
def _no_table() -> Iterator[None]:
    """Without the libraries' own tables of what did not fit, which is judged here."""

    def wanted(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        return (
            "LOAD REPORT" not in text and "newly initialized" not in text and "were not used when" not in text
        )

    loggers = [logging.getLogger(f"{name}.modeling_utils") for name in ("transformers", "diffusers.models")]
    for logger in loggers:
        logger.addFilter(wanted)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(wanted)
