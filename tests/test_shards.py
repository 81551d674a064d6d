"""Vectors on disk by content key: whole or not at all, shared by writers, read when asked for."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from prefopt.shards import ShardCache


def key(n: int) -> str:
    return hashlib.blake2b(str(n).encode(), digest_size=16).hexdigest()


def vector(n: int) -> np.ndarray:
    """Of n % 4 numbers, so that some are empty."""
    return np.arange(n % 4, dtype=np.float32) + n


def open_cache(root: Path, **options: object) -> ShardCache:
    return ShardCache("things", {"model": "a"}, root, **options)


def shards_of(cache: ShardCache) -> list[Path]:
    return sorted(cache.folder.glob("*.safetensors"))


def threes(items: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(items), 3):
        yield items[start : start + 3]


def fill(cache: ShardCache, numbers: range, seen: list[int], **options: object) -> int:
    """Fill, noting in `seen` what is computed."""

    def compute(batch: list[int]) -> list[np.ndarray]:
        seen.extend(batch)
        return [vector(n) for n in batch]

    return cache.fill({key(n): n for n in numbers}, compute, threes, **options)


def holds(cache: ShardCache, numbers: range) -> bool:
    return all(np.array_equal(cache[key(n)], vector(n)) for n in numbers)


# ---- values


def test_values_of_any_length_come_back_in_a_new_process(tmp_path):
    cache = open_cache(tmp_path)
    cache.add({key(n): vector(n) for n in range(9)})
    cache.add({key(100): np.linspace(0, 1, 100_000, dtype=np.float32)})
    for found in (cache, open_cache(tmp_path)):
        assert len(found) == 10
        assert holds(found, range(9))
        assert found[key(100)][-1] == 1
        assert key(50) not in found
        with pytest.raises(KeyError):
            found[key(50)]


def test_values_of_nothing_at_all(tmp_path):
    """What is kept of items that were looked at and are of no use."""
    open_cache(tmp_path).add({key(n): np.zeros(0) for n in range(3)})
    assert [len(open_cache(tmp_path)[key(n)]) for n in range(3)] == [0, 0, 0]


def test_dtype_is_the_caches(tmp_path):
    open_cache(tmp_path, dtype=np.float16).add({key(1): np.array([1 / 3, 5e4])})
    found = open_cache(tmp_path, dtype=np.float16)[key(1)]
    assert found.dtype == np.float16
    assert found.tolist() == np.array([1 / 3, 5e4], np.float16).tolist()


def test_another_identity_is_another_folder(tmp_path):
    one = ShardCache("things", {"model": "a", "size": 1}, tmp_path)
    one.add({key(1): vector(1)})
    assert key(1) not in ShardCache("things", {"model": "a", "size": 2}, tmp_path)
    assert key(1) not in ShardCache("others", {"model": "a", "size": 1}, tmp_path)
    assert key(1) in ShardCache("things", {"size": 1, "model": "a"}, tmp_path)


def test_values_are_read_when_asked_for(tmp_path):
    """A cache may be larger than memory: what changes in the file after opening is seen."""
    open_cache(tmp_path).add({key(n): np.full(10_000, n, np.float32) for n in range(1, 4)})
    cache = open_cache(tmp_path)
    (path,) = shards_of(cache)
    before, after = (np.float32(n).tobytes() * 10_000 for n in (2, 5))
    with path.open("r+b") as file:
        file.seek(path.read_bytes().index(before))
        file.write(after)
    assert [cache[key(n)][0] for n in range(1, 4)] == [1, 5, 3]


# ---- damage


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "other"])
def test_damaged_shard_is_computed_again(tmp_path, damage):
    first, seen = open_cache(tmp_path), []
    fill(first, range(6), seen, shard_items=3)
    lost, kept = shards_of(first)
    whole = lost.read_bytes()
    lost.write_bytes(
        {
            "cut": whole[:-1],
            "garbage": b"\xff" * len(whole),
            "empty": b"",
            # a whole file of something else
            "other": whole.replace(b'"values"', b'"valued"'),
        }[damage]
    )
    again = open_cache(tmp_path)
    assert len(again) == 3
    seen.clear()
    assert fill(again, range(6), seen) == 3
    assert len(seen) == 3
    assert holds(again, range(6))
    assert holds(open_cache(tmp_path), range(6))
    assert kept.exists()


def test_values_that_do_not_fit_their_lengths_are_damage(tmp_path):
    from safetensors.numpy import load_file, save_file

    cache = open_cache(tmp_path)
    cache.add({key(n): vector(n) for n in range(4)})
    (path,) = shards_of(cache)
    tensors = load_file(path)
    tensors["lengths"][1] += 1
    save_file(tensors, path)
    assert len(open_cache(tmp_path)) == 0


KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
import numpy as np
from prefopt import shards
root = Path(sys.argv[1])
cache = shards.ShardCache("things", {"model": "a"}, root)
os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)  # written, not yet renamed
cache.add({"00" * 16: np.zeros(3)})
"""


def test_killed_while_writing(tmp_path):
    cache = open_cache(tmp_path)
    cache.add({key(1): vector(1)})
    done = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, str(tmp_path)], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert len(list(cache.folder.iterdir())) == 3  # identity, shard, and what the dead process left
    again = open_cache(tmp_path)
    assert len(again) == 1
    assert holds(again, range(1, 2))
    again.add({"00" * 16: np.ones(3)})
    assert open_cache(tmp_path)["00" * 16].tolist() == [1, 1, 1]


def test_full_disk_leaves_older_values(tmp_path, monkeypatch):
    cache, seen = open_cache(tmp_path), []
    fill(cache, range(6), seen)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"things cache could not .*No space left.*PREFOPT_CACHE"):
        fill(cache, range(12), seen)
    monkeypatch.undo()
    assert not list(cache.folder.glob(".*"))
    again = open_cache(tmp_path)
    assert len(again) == 6
    assert holds(again, range(6))
    assert fill(again, range(12), seen) == 6


# ---- writers


def test_two_writers(tmp_path):
    one, other = open_cache(tmp_path), open_cache(tmp_path)
    one.add({key(n): vector(n) for n in range(4)})
    assert len(other) == 0  # until it looks
    other.add({key(n): vector(n) for n in range(2, 6)})  # in part the same
    other.refresh()
    assert holds(other, range(6))
    one.refresh()
    assert holds(one, range(6))
    one.add({key(n): vector(n) for n in range(4)})  # the same shard again
    assert len(shards_of(one)) == 2


# ---- fill


def test_fill_computes_once_and_in_order(tmp_path):
    cache, seen = open_cache(tmp_path), []
    cache.add({key(n): vector(n) for n in (2, 5)})
    assert fill(cache, range(8), seen) == 6
    assert seen == [0, 1, 3, 4, 6, 7]
    assert holds(cache, range(8))
    assert fill(cache, range(8), seen) == 0
    assert fill(open_cache(tmp_path), range(8), seen) == 0
    assert len(seen) == 6


def test_fill_writes_as_it_goes(tmp_path):
    """An interrupted pass keeps what it had written."""

    def compute(batch: list[int]) -> list[np.ndarray]:
        if 9 in batch:
            raise KeyboardInterrupt
        return [vector(n) for n in batch]

    cache = open_cache(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        cache.fill({key(n): n for n in range(12)}, compute, threes, shard_items=6)
    again, seen = open_cache(tmp_path), []
    assert len(again) == 6
    fill(again, range(12), seen, shard_items=6)
    assert seen == [*range(6, 12)]
    assert len(shards_of(again)) == 2


def test_fill_refuses_vectors_that_are_not_one_an_item(tmp_path):
    """Otherwise everything after the missing one would lie under another's key."""
    cache = open_cache(tmp_path)
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        cache.fill({key(n): n for n in range(6)}, lambda batch: [vector(n) for n in batch][1:], threes)
    assert len(open_cache(tmp_path)) == 0


def test_fill_shares_between_processes(tmp_path):
    """Also where one of them opened the cache after another had begun to write."""
    barrier, seen = threading.Barrier(3), [[], [], []]
    numbers = range(20)
    late = open_cache(tmp_path)
    late.add({key(n): vector(n) for n in (4, 5)})
    caches = [open_cache(tmp_path), open_cache(tmp_path), open_cache(tmp_path)]
    late.add({key(n): vector(n) for n in (6, 7, 8)})
    caches[2].refresh()  # knows three more than the others
    counts = [0, 0, 0]

    def work(rank: int) -> None:
        counts[rank] = fill(
            caches[rank], numbers, seen[rank], share=(rank, 3), wait=lambda: barrier.wait(60), shard_items=2
        )

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    computed = [n for part in seen for n in part]
    assert len(set(computed)) == len(computed)
    assert set(numbers) - {4, 5, 6, 7, 8} <= set(computed)  # 6 and 7 by those who did not know of them
    assert counts == [len(part) for part in seen] == [7, 6, 4]
    assert all(holds(cache, numbers) for cache in caches)


def test_fill_notices_what_another_process_never_wrote(tmp_path):
    cache, seen = open_cache(tmp_path), []
    with pytest.raises(RuntimeError, match="3 values are missing"):
        fill(cache, range(6), seen, share=(0, 2))


def test_fill_shows_progress_of_what_is_missing(tmp_path):
    cache, seen, shown = open_cache(tmp_path), [], []

    def progress(batches: list[list[int]], label: str) -> Iterator[list[int]]:
        shown.append((len(batches), label))
        return iter(batches)

    fill(cache, range(7), seen, progress=progress, label="Things")
    fill(cache, range(7), seen, progress=progress, label="Things")
    assert shown == [(3, "Things")]  # and no bar for nothing
