"""Vectors on disk by content key: reference scores, latents, prompt embeddings.

A folder, named by everything that a value depends on besides its item, holds safetensors shards. Each shard is written
under a temporary name and renamed, so that several runs may add to a folder at once and an interrupted write leaves
nothing half-done. A shard that cannot be read is ignored and its items are computed again. Values are read through
memory maps: a cache may be larger than memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from prefopt.cache import ELSEWHERE, cache_dir
from prefopt.files import check_room, write_whole, writing


class _Place(NamedTuple):
    """Where a value lies."""

    values: Any
    start: int
    end: int


class ShardCache:
    """A mapping from content keys (hex digests of 16 bytes) to vectors.

    Args:
        kind: name of the parent folder, such as "references".
        identity: everything besides the item that a value depends on; hashed into the folder's name and stored
            beside the shards in `identity.json`.
        root: parent of `kind`'s folder; the user's cache by default.
        dtype: of the stored values.
    """

    def __init__(
        self, kind: str, identity: Mapping[str, Any], root: Path | None = None, dtype: Any = np.float32
    ) -> None:
        text = json.dumps(identity, sort_keys=True, default=str)
        name = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        self.kind = kind
        self.folder = (root or cache_dir()) / kind / name
        self.dtype = np.dtype(dtype)
        self._what = f"the {kind} cache"
        if not (self.folder / "identity.json").exists():
            with writing(self._what, self.folder, ELSEWHERE):
                self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(self.folder / "identity.json", text + "\n", self._what, ELSEWHERE)
        self._places: dict[str, _Place] = {}
        self._read: set[str] = set()
        self.refresh()

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __getitem__(self, key: str) -> np.ndarray:
        place = self._places[key]
        if place.start == place.end:  # safetensors refuses an empty slice at the end of a tensor
            return np.zeros(0, self.dtype)
        return np.asarray(place.values[place.start : place.end])

    def refresh(self) -> None:
        """Read shards that appeared since the last time (written by other processes)."""
        for path in sorted(self.folder.glob("*.safetensors")):
            if path.name not in self._read:
                self._index(path)

    def _index(self, path: Path) -> None:
        from safetensors import SafetensorError, safe_open

        self._read.add(path.name)
        try:
            shard = safe_open(path, "numpy")
            keys, lengths = shard.get_tensor("keys"), shard.get_tensor("lengths")
            values = shard.get_slice("values")
            whole = list(values.get_shape()) == [int(lengths.sum())] and len(keys) == len(lengths)
        except (SafetensorError, OSError):
            return  # damaged: its items will be computed again
        if not whole:
            return
        ends = np.cumsum(lengths)
        for key, end, length in zip(keys, ends.tolist(), lengths.tolist(), strict=True):
            self._places[key.tobytes().hex()] = _Place(values, end - length, end)

    def add(self, vectors: Mapping[str, np.ndarray]) -> None:
        """Write one shard of vectors by key.

        Raises:
            WriteError: the disk is full or not writable; what was there is untouched.
        """
        from safetensors.numpy import save

        if not vectors:
            return
        payload = save(
            {
                "keys": np.stack([np.frombuffer(bytes.fromhex(key), dtype=np.uint8) for key in vectors]),
                "lengths": np.array([len(v) for v in vectors.values()], dtype=np.int64),
                "values": np.concatenate([np.asarray(v, self.dtype) for v in vectors.values()]),
            }
        )
        path = self.folder / f"{hashlib.blake2b(payload, digest_size=12).hexdigest()}.safetensors"
        write_whole(path, payload, self._what, ELSEWHERE)
        self._index(path)

    def fill(
        self,
        wanted: Mapping[str, Any],
        compute: Callable[[list[Any]], Sequence[np.ndarray]],
        batches: Callable[[list[Any]], Iterator[list[Any]]],
        *,
        shard_items: int = 1024,
        share: tuple[int, int] = (0, 1),
        wait: Callable[[], None] = lambda: None,
        progress: Callable[[Sequence[Any], str], Iterator[Any]] | None = None,
        label: str = "",
    ) -> int:
        """Compute whatever is missing; returns how many items this process computed.

        Args:
            wanted: items by key, in the order in which they should be computed.
            compute: vectors of a batch of items, in their order.
            batches: cuts a list of items into batches, in order.
            shard_items: an interrupted pass loses at most about this many.
            share: (rank, processes); each process computes its part of what is missing.
            wait: barrier between processes.
            progress: wraps the list of batches, for a progress bar.
            label: of the bar.

        Raises:
            WriteError: nothing can be written there; found before anything is computed.
        """
        rank, processes = share
        # shares are of all items: what is missing differs between processes, since some may have written already
        mine = {k: wanted[k] for k in list(wanted)[rank::processes] if k not in self}
        keys = iter(mine)
        cut = list(batches(list(mine.values())))
        if cut:  # a cache that holds everything may be read-only
            check_room(self.folder, self._what, ELSEWHERE)
        pending: dict[str, np.ndarray] = {}
        for batch in progress(cut, label) if progress and cut else cut:
            pending |= dict(zip(islice(keys, len(batch)), compute(batch), strict=True))
            if len(pending) >= shard_items:
                self.add(pending)
                pending = {}
        self.add(pending)
        wait()
        self.refresh()
        if lost := [k for k in wanted if k not in self]:
            raise RuntimeError(f"{len(lost)} values are missing from {self.folder} after computing them")
        return len(mine)


def chunks(size: int) -> Callable[[list[Any]], Iterator[list[Any]]]:
    """A function that cuts lists into pieces of `size`."""

    def cut(items: list[Any]) -> Iterator[list[Any]]:
        for start in range(0, len(items), size):
            yield items[start : start + size]

    return cut


def text_key(text: str) -> str:
    """Content key of a prompt."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
