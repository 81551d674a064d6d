"""Adapters merged into the model that they were trained on: one whole model, which plain libraries load.

Each modality that has adapters says in `merge.py` how its models are put together, with a function

    merge(adapter: Path, folder: Path, dtype: str | None, run: Mapping[str, Any]) -> Merged

of the adapter's folder, the folder to write, the dtype to store (None: the base model's) and what the run was told (empty
where there is no run). It compares what the model gives for a few inputs before and after, and refuses what differs by more
than rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prefopt.files import replace_folder
from prefopt.runs.merged import FOLDER, is_current, note_merged

if TYPE_CHECKING:
    from torch import Tensor

ROUND_OFF = 1e-3
"""Largest difference that is taken for rounding of float32, as a share of the largest number (of 1, where all are smaller)."""


@dataclass(frozen=True)
class Merged:
    """A merged model.

    Attributes:
        folder: where it is.
        base: what the adapter was merged into.
        dtype: of its weights.
        compared: what was compared.
        difference: largest difference between the model with its adapter and the merged one, both in float32.
        stored: the same of the merged one as it was read back from the folder, in its dtype.
        notes: what else is to be known.
    """

    folder: Path
    base: str
    dtype: str
    compared: str
    difference: float
    stored: float
    notes: tuple[str, ...] = ()


def merge(run: str | Path, output: str | Path | None = None, dtype: str | None = None) -> Merged:
    """Merge the adapter that a run left, or that a folder holds, into its base model.

    Args:
        run: a run's folder, or an adapter's (of a language model; those of images and motions do not name their base).
        output: folder to write, which must not be there; `merged` in the run's folder, or beside the adapter, by default.
        dtype: of the weights as they are stored: float32, bfloat16 or float16; the base model's by default. Whatever it is,
            weights are added up in float32.

    Returns:
        Where the model is, and how far its numbers are from those of base and adapter.

    Raises:
        ValueError: there is no adapter, it cannot be merged, or the merged model would be another.
        OSError: the base model has gone, or the folder cannot be written.

    Example:
        >>> merge("runs/dpo").difference                                                     # doctest: +SKIP
        2.4e-06
    """
    from prefopt.config import read_yaml
    from prefopt.modalities import find, of_run

    folder = Path(run).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}: give a run's, or an adapter's")
    if dtype not in (None, "float32", "bfloat16", "float16"):
        raise ValueError(f"dtype={dtype} is not one of float32, bfloat16, float16")
    inside = folder.parent if folder.name == "model" and (folder.parent / "config.yaml").is_file() else folder
    if (inside / "config.yaml").is_file():
        modality, adapter, told = of_run(inside), inside / "model", read_yaml(inside / "config.yaml")
        place = inside / FOLDER
        if not adapter.is_dir():
            raise ValueError(f"{inside} holds no model: the run has not finished. Resume it first")
    elif (folder / "adapter_config.json").is_file():
        modality, adapter, told = find(_kind_of_base(folder)), folder, {}
        place = folder.resolve().with_name(f"{folder.resolve().name}-merged")
    else:
        raise ValueError(
            f"{folder} is neither a run's folder (config.yaml) nor an adapter's (adapter_config.json): give one of these. "
            "Adapters of images and motions do not say what they belong to: give their run"
        )
    part = modality.part_or_none("merge")
    if part is None:
        raise ValueError(f"{folder} is of {modality.noun} models, which have no adapters to merge")
    place = place if output is None else Path(output).expanduser()
    own = place.resolve() == (inside / FOLDER).resolve() and (inside / "config.yaml").is_file()
    if place.exists():
        earlier = ", of an earlier state of the run's model" if own and not is_current(inside) else ""
        raise ValueError(f"{place} is there already{earlier}: give another folder as output, or remove it")
    found: list[Merged] = []
    replace_folder(
        place, lambda partial: found.append(part.merge(adapter, partial, dtype, told)), "the merged model"
    )
    if own:
        note_merged(inside)
    result: Merged = found[0]
    return Merged(**{**vars(result), "folder": place})


def _kind_of_base(folder: Path) -> str:
    """Name of the modality of an adapter's base model."""
    from prefopt.modalities import of_model
    from prefopt.models.sources import whole_model

    return of_model(whole_model(str(folder))).name


def check_same(before: Tensor, after: Tensor, what: str) -> float:
    """The largest difference between numbers of the model before and after merging.

    Raises:
        ValueError: it is more than rounding.
    """
    worst = difference(before, after)
    limit = ROUND_OFF * max(1.0, float(before.double().abs().max()))
    if not worst <= limit:
        raise ValueError(
            f"the merged model would be another: {what} would differ by up to {worst:.3g}, where rounding explains {limit:.1g}. "
            "Nothing was written"
        )
    return worst


def difference(before: Tensor, after: Tensor) -> float:
    """The largest difference between two tensors."""
    return float((before.double() - after.double()).abs().max())
