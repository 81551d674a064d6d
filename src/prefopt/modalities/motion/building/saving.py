"""A new folder of a model, whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from prefopt.files import AGAIN, replace_folder, writing


def check_output(output: Path, force: bool) -> None:
    """Raise ValueError for a folder that holds something already."""
    if output.is_dir() and any(output.iterdir()) and not force:
        raise ValueError(
            f"{output} is there already; give --force to replace it with all that is in it, or another --output"
        )
    if output.is_file():
        raise ValueError(f"{output} is a file; a model is written as a folder: give another --output")


def save(output: Path, fill: Callable[[Path], object], what: str) -> None:
    """Fill a folder beside the output, and put it in its place once it is whole.

    What `fill` raises comes out as it is: most often a file that it reads is not there.
    """
    with writing(what, output.parent):
        output.parent.mkdir(parents=True, exist_ok=True)
        place = tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.")
    with place:
        made = Path(place.name) / "made"
        fill(made)
        replace_folder(output, lambda folder: os.replace(made, folder), what, AGAIN)
