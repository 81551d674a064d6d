from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

import pytest

from prefopt.cache import MANIFEST, built_once, cache_dir, is_intact


def write_hello(folder: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "hello.txt").write_text("hello")


def test_the_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("PREFOPT_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "own"
    monkeypatch.delenv("PREFOPT_CACHE")
    assert cache_dir() == tmp_path / "xdg" / "prefopt"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "prefopt"
    assert not cache_dir().exists()


def test_builds_once_and_leaves_nothing_else(tmp_path):
    calls = []

    def build(folder: Path) -> None:
        calls.append(folder)
        write_hello(folder)

    for _ in range(3):
        place = built_once(tmp_path / "a" / "b", build)
        assert (place / "deep" / "hello.txt").read_text() == "hello"
    assert len(calls) == 1
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b"]


def damage_changed(place: Path) -> None:
    (place / "deep" / "hello.txt").write_text("hellO")


def damage_missing(place: Path) -> None:
    (place / "deep" / "hello.txt").unlink()


def damage_half_written(place: Path) -> None:
    (place / MANIFEST).unlink()


def damage_bad_manifest(place: Path) -> None:
    (place / MANIFEST).write_text('{"deep/hel')


def damage_other_json(place: Path) -> None:
    (place / MANIFEST).write_text("[]")


@pytest.mark.parametrize(
    "damage",
    [damage_changed, damage_missing, damage_half_written, damage_bad_manifest, damage_other_json],
)
def test_a_damaged_folder_is_rebuilt(tmp_path, damage):
    place = built_once(tmp_path / "x", write_hello)
    damage(place)
    assert not is_intact(place)
    built_once(place, write_hello)
    assert is_intact(place)
    assert (place / "deep" / "hello.txt").read_text() == "hello"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_failed_build_leaves_nothing(tmp_path):
    def fail(folder: Path) -> None:
        write_hello(folder)
        raise RuntimeError("no power")

    with pytest.raises(RuntimeError, match="no power"):
        built_once(tmp_path / "x", fail)
    assert list(tmp_path.iterdir()) == []


def test_a_slower_builder_uses_the_result_of_the_faster(tmp_path):
    def slow(folder: Path) -> None:
        write_hello(folder)
        built_once(tmp_path / "x", lambda f: (f / "winner.txt").write_text("first"))

    built_once(tmp_path / "x", slow)
    assert (tmp_path / "x" / "winner.txt").read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def slowly(folder: Path) -> None:
    write_hello(folder)
    time.sleep(0.05)


def build_and_read(place: Path) -> str:
    return (built_once(place, slowly) / "deep" / "hello.txt").read_text()


def test_many_builders_at_once(tmp_path):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        texts = pool.map(build_and_read, [tmp_path / "x"] * 12, chunksize=1)
    assert texts == ["hello"] * 12
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
