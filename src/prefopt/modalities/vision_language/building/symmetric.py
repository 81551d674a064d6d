"""SymMPO's pair core as plain pairs, for trainers that know one image a pair.

    {images: [m],  prompt, chosen: y_w,  rejected: y'_w}
    {images: [m'], prompt, chosen: y'_w, rejected: y_w}

DPO on both is the pair term of SymMPO, up to a factor; margin and anchor terms need a trainer that sees both images at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefopt.comparisons import UnusableItem
from prefopt.files import write_lines
from prefopt.modalities.vision_language.building.album import Album
from prefopt.modalities.vision_language.building.making import alike
from prefopt.modalities.vision_language.building.seeds import Seed, load_seeds, same, written_prompt
from prefopt.sources.report import Dropped


def symmetric_pairs(source: str, output: Path, split: str = "train") -> tuple[int, list[Dropped]]:
    """Write two rows for each that has a contrast image and an answer that is right for it.

    Args:
        source: rows, as `prefopt build contrast` writes them, or in any layout that training reads.
        output: JSON lines; pictures that are no files yet are written beside them.
        split: of the data.

    Returns:
        How many examples were split, and the rows that could not be.

    Raises:
        OSError, ValueError: no such rows; none can be split.
    """
    seeds = load_seeds(source, split)
    album = Album(output.parent, f"{output.stem}-pictures")
    rows: list[dict[str, Any]] = []
    dropped = list(seeds.dropped)
    for seed in seeds.found:
        try:
            rows += halves(seed, album)
        except UnusableItem as error:
            dropped.append(Dropped(seed.row, seed.id, error.reason, str(error)))
    if not rows:
        raise ValueError(
            f"no row of {source} can be split, the first because {dropped[0].detail}. `prefopt build contrast` makes rows that can"
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    write_lines(output, rows)
    return len(rows) // 2, dropped


def halves(seed: Seed, album: Album) -> list[dict[str, Any]]:
    """The two pairs of a row.

    Raises:
        UnusableItem: it lacks what they need.
    """
    for name in ("chosen", "contrast_chosen"):
        if getattr(seed, name) is None:
            raise UnusableItem(f"{name} is absent", "missing_value")
    if not seed.contrast:
        raise UnusableItem("contrast_image is absent", "missing_value")
    if len(seed.contrast) != len(seed.pictures):
        raise UnusableItem(
            f"{len(seed.pictures)} image(s) but {len(seed.contrast)} contrast image(s): needed as many",
            "image_places",
        )
    if same(seed.contrast, seed.pictures):
        raise UnusableItem(
            "image and contrast_image are the same picture: there is no contrast", "identical_images"
        )
    if alike(seed.chosen, seed.contrast_chosen):
        raise UnusableItem("chosen and contrast_chosen are the same: nothing to learn", "identical_answers")
    prompt = {**seed.condition, "prompt": written_prompt(seed.prompt)}
    return [
        {
            "id": f"{seed.id}-{name}",
            **prompt,
            "images": [album.path(picture) for picture in pictures],
            "chosen": chosen,
            "rejected": rejected,
        }
        for name, pictures, chosen, rejected in (
            ("own", seed.pictures, seed.chosen, seed.contrast_chosen),
            ("contrast", seed.contrast, seed.contrast_chosen, seed.chosen),
        )
    ]
