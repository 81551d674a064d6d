"""Which picture contrasts with a row's own, mode by mode.

    similar    the most similar other picture of the data
    shuffle    another picture of the data, drawn
    edit       what a function of the user's makes of the picture
    black, crop, noise, mask    a change of its pixels

A contrast that comes from another row brings that row's answers along where both rows ask the same.

Legend: N pictures, D numbers of an embedding.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from prefopt.comparisons import UnusableItem
from prefopt.generation.journal import Journal
from prefopt.modalities.vision_language.building.album import Album
from prefopt.modalities.vision_language.building.changes import PIXEL_CHANGES, PixelChange, changed
from prefopt.modalities.vision_language.building.embedders import Embedder, file_digest, function_of
from prefopt.modalities.vision_language.building.neighbours import neighbours
from prefopt.modalities.vision_language.building.seeds import Seed, in_form_of, text_of, words_of
from prefopt.modalities.vision_language.contrasts import Picture
from prefopt.sources.pictures import decode, problem
from prefopt.sources.progress import with_bar

if TYPE_CHECKING:
    import numpy as np

Mode = Literal["similar", "edit", "black", "crop", "noise", "shuffle", "mask"]
MODES: tuple[Mode, ...] = ("similar", "edit", *PIXEL_CHANGES, "shuffle")
MAX_SIMILARITY, MIN_SIMILARITY = 0.98, 0.5


@dataclass(frozen=True)
class Contrast:
    """Pictures that contrast with a row's own.

    Attributes:
        pictures: as many as the row has.
        chosen, rejected: right and wrong answer under them, where the mode knows them.
        similarity: cosine to the row's own picture, where it was measured.
    """

    pictures: tuple[Picture, ...]
    chosen: Any = None
    rejected: Any = None
    similarity: float | None = None


Found = dict[str, Contrast | UnusableItem]
"""By id of the row; why there is none, otherwise."""


def single(seeds: Iterable[Seed], found: Found) -> list[Seed]:
    """Rows of one picture; the others are told in `found` that they have several."""
    ones = []
    for seed in seeds:
        if len(seed.pictures) == 1:
            ones.append(seed)
        else:
            found[seed.id] = UnusableItem(
                f"the row has {len(seed.pictures)} images: another row's contrasts with one alone",
                "several_images",
            )
    return ones


def by_image(seeds: Iterable[Seed]) -> dict[str, list[Seed]]:
    """Rows by their picture, equal files together."""
    rows: dict[str, list[Seed]] = {}
    for seed in seeds:
        rows.setdefault(seed.pictures[0].ref.digest, []).append(seed)
    return rows


def of_other(seed: Seed, others: Sequence[Seed], similarity: float | None = None) -> Contrast:
    """Another picture, with the answers of its row that asks the same."""
    same = next((other for other in others if other.asks == seed.asks and other.chosen is not None), None)
    chosen, rejected = (same.chosen, same.rejected) if same is not None else (None, None)
    return Contrast(others[0].pictures, chosen, rejected, similarity)


def similar(
    seeds: Sequence[Seed],
    embedder: Embedder,
    *,
    most: float = MAX_SIMILARITY,
    least: float = MIN_SIMILARITY,
) -> Found:
    """The picture with the nearest embedding, neither a copy nor one that holds the same objects.

    Args:
        seeds: rows, whose pictures are the pool.
        embedder: of images.
        most, least: of the cosine; see `neighbours`.

    Raises:
        ValueError: fewer than two pictures, or an embedder that gives something else.
    """
    found: Found = {}
    rows = by_image(single(seeds, found))
    pool, embeddings_ND = embedded(rows, embedder, found)
    objects = [
        next((row.objects for row in rows[digest] if row.objects is not None), None) for digest in pool
    ]
    nearest = neighbours(embeddings_ND, most=most, least=least, alike=objects)
    for digest, near in zip(pool, nearest, strict=True):
        for seed in rows[digest]:
            if near is None:
                found[seed.id] = UnusableItem(
                    f"no other image with other objects has a similarity between {least:g} and {most:g}",
                    "no_neighbour",
                )
            else:
                found[seed.id] = of_other(seed, rows[pool[near.place]], near.similarity)
    return found


def embedded(
    rows: dict[str, list[Seed]], embedder: Embedder, found: Found
) -> tuple[list[str], np.ndarray[Any, Any]]:
    """Pictures by digest, and their (N, D) embeddings; those damaged in their middle are told in `found` and left out."""
    while True:
        pool = list(rows)
        need_two(rows)
        try:
            return pool, embedder.embed([rows[digest][0].pictures[0].ref for digest in pool])
        except UnusableItem:  # which decoding alone finds
            broken = {d: error for d in pool if (error := problem(rows[d][0].pictures[0].ref)) is not None}
            if not broken:
                raise
            for digest, error in broken.items():
                found |= {seed.id: error for seed in rows.pop(digest)}


def need_two(rows: Mapping[str, Any]) -> None:
    """Refuse data with a single picture."""
    if len(rows) < 2:
        raise ValueError(
            f"the rows hold {len(rows)} different image(s) in rows of one: a contrast among them needs two. Give more data, or "
            "another --mode"
        )


def shuffled(seeds: Sequence[Seed], seed: int) -> Found:
    """Another picture of the data for each: a cycle through all of them in an order that the seed draws (Sattolo)."""
    found: Found = {}
    rows = by_image(single(seeds, found))
    need_two(rows)
    order = list(rows)
    draw = random.Random(seed)
    for n in range(len(order) - 1, 0, -1):
        other = draw.randrange(n)
        order[n], order[other] = order[other], order[n]
    for digest, other_digest in zip(rows, order, strict=True):
        for row in rows[digest]:
            found[row.id] = of_other(row, rows[other_digest])
    return found


def pixels(seeds: Sequence[Seed], change: PixelChange, seed: int, album: Album) -> Found:
    """Each picture of a row changed."""
    found: Found = {}
    for row in with_bar(seeds, f"making contrast images ({change})"):
        try:
            made = tuple(changed(picture, change, seed, album) for picture in row.pictures)
        except UnusableItem as error:
            found[row.id] = error
        else:
            found[row.id] = Contrast(made)
    return found


def edited(seeds: Sequence[Seed], name: str, album: Album, journal: Path) -> Found:
    """What a function makes of each row's picture; kept in a journal as it arrives.

    Args:
        seeds: rows.
        name: FILE.py:NAME of a function of (Pillow image, row) that returns (Pillow image, answer or None), or None for no
            edit. The row is a dictionary with id, prompt, chosen, rejected and objects, in words.
        album: where pictures are kept.
        journal: of what it returned.

    Raises:
        FileNotFoundError, ValueError: no such function; one that fails, or returns something else.
    """
    edit = function_of(name, "edit")
    found: Found = {}
    ones = single(seeds, found)
    with Journal(journal, {"function": name.rpartition(":")[2], "file": file_digest(name)}) as kept:
        there = {
            line["row"]: line
            for _, line in kept.lines
            if line["picture"] is None or album.file(line["picture"]).is_file()
        }
        for seed in with_bar(ones, "editing images"):
            told = as_told(seed)
            key = digest_of(seed.pictures[0].digest, json.dumps(told, sort_keys=True))
            if key not in there:
                try:
                    there[key] = {"row": key, **_edit(edit, name, seed, told, album)}
                except UnusableItem as error:
                    found[seed.id] = error
                    continue
                kept.append([there[key]])
            found[seed.id] = _of_line(there[key], seed, album)
    return found


def _edit(
    edit: Callable[..., Any], name: str, seed: Seed, told: dict[str, Any], album: Album
) -> dict[str, Any]:
    from PIL import Image

    image = decode(seed.pictures[0].ref)
    try:
        out = edit(image.copy(), told)
    except Exception as error:  # whatever a user's function raises
        raise ValueError(f"{name} failed on row {seed.id!r}: {type(error).__name__}: {error}") from error
    if out is None:
        return {"picture": None, "answer": None}
    good = isinstance(out, tuple) and len(out) == 2 and isinstance(out[0], Image.Image)
    if not good or not (out[1] is None or isinstance(out[1], str)):
        raise ValueError(
            f"{name} returned {type(out).__name__} for row {seed.id!r}: needed (Pillow image, answer or None), or None"
        )
    made = album.keep(out[0])
    return {"picture": Path(str(made.ref.source)).stem, "answer": out[1]}


def _of_line(line: Mapping[str, Any], seed: Seed, album: Album) -> Contrast | UnusableItem:
    if line["picture"] is None:
        return UnusableItem("the function makes no edit of it", "no_edit")
    answer = line["answer"]
    return Contrast((album.made(line["picture"]),), in_form_of(answer, seed) if answer else None)


def as_told(seed: Seed) -> dict[str, Any]:
    """A row in words, for a function of the user's."""
    return {
        "id": seed.id,
        "prompt": words_of(seed.prompt),
        "chosen": None if seed.chosen is None else text_of(seed.chosen),
        "rejected": None if seed.rejected is None else text_of(seed.rejected),
        "objects": None if seed.objects is None else sorted(seed.objects),
    }


def digest_of(*parts: str) -> str:
    """32 hexadecimal digits that name some texts."""
    digest = blake2b(digest_size=16)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()
