"""Whatever a reader cannot take is a dropped row or one sentence: never a traceback, never a wait for ever."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from prefopt.modalities.image.rows import load_image_comparisons, load_prompts
from prefopt.modalities.text.rows import load_comparisons
from prefopt.sources.files import load_rows
from prefopt.sources.pictures import ImageRef, problem
from prefopt.sources.prompts import load_text_prompts
from prefopt.sources.report import write_dropped, write_report

GOOD = {"prompt": "1 + 1 =", "chosen": " 2", "rejected": " 3"}
DEEP = "[" * 20_000 + "]" * 20_000


def written(path: Path, *rows: str) -> Path:
    path.write_text("".join(row + "\n" for row in rows), "utf-8")
    return path


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_nesting_that_no_reader_survives(tmp_path, name):
    deep = f'{{"prompt": {DEEP}}}'
    path = (
        written(tmp_path / name, json.dumps(GOOD), deep)
        if name == "rows.jsonl"
        else written(tmp_path / name, f"[{deep}]")
    )
    with pytest.raises(ValueError, match="nested too deeply"):
        load_rows(path)


def test_nesting_that_only_the_reader_survives(tmp_path):
    value: Any = "x"
    for _ in range(900):
        value = {"a": value}
    tools = [{"type": "function", "function": value}]
    loaded = load_comparisons(
        [GOOD, GOOD | {"chat_template_kwargs": {"deep": value}}, GOOD | {"tools": tools}]
    )
    assert len(loaded) + len(loaded.dropped) == 3
    loaded = load_comparisons([GOOD, GOOD | {"tools": DEEP, "id": "deep"}])
    assert [(d.id, d.reason) for d in loaded.dropped] == [("deep", "wrong_type")]


def test_cells_of_a_csv_file(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text(f'prompt,chosen,rejected,votes\n1,2,3,"{DEEP}"\n1,2,3,{"9" * 5000}\n1,2,3,"[1,2,3]"\n')
    loaded = load_comparisons(path)
    assert [d.reason for d in loaded.dropped] == ["wrong_type", "wrong_type"]
    assert len(loaded) == 1


HUGE = int("9" * 400)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"votes": [HUGE, 1, 0]}, "bad_votes"),
        ({"target": [HUGE, 0, 0]}, "bad_target"),
        ({"weight": HUGE}, "bad_weight"),
        ({"label": HUGE}, "unknown_label"),
        ({"is_tie": HUGE}, "wrong_type"),
        ({"score_chosen": HUGE}, "wrong_type"),
    ],
)
def test_integers_of_hundreds_of_digits(columns, reason):
    loaded = load_comparisons([GOOD, GOOD | columns])
    assert [d.reason for d in loaded.dropped] == [reason]


def test_integers_of_thousands_of_digits(tmp_path):
    path = written(tmp_path / "rows.jsonl", json.dumps(GOOD), '{"votes": %s}' % ("9" * 5000))
    with pytest.raises(ValueError, match=r"line 2: .*4300 digits"):
        load_rows(path)


HALF = "smile \ud83d"


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": HALF},
        {"chosen": HALF},
        {
            "prompt": [{"role": "user", "content": HALF}],
            "chosen": [{"role": "assistant", "content": "a"}],
            "rejected": [{"role": "assistant", "content": "b"}],
        },
        {"tools": [{"name": HALF}]},
        {"chat_template_kwargs": {"x": HALF}},
        {"id": HALF},
    ],
)
def test_half_a_character_is_dropped_and_listed(row, tmp_path):
    loaded = load_comparisons([GOOD, GOOD | row])
    assert len(loaded) == 1
    assert loaded.dropped[0].reason == ("wrong_type" if "id" in row else "bad_text")
    write_dropped(loaded.dropped, tmp_path / "dropped.jsonl")
    write_report(loaded.report, tmp_path / "data.json")


def test_half_a_character_where_nothing_is_read_does_no_harm(tmp_path):
    loaded = load_comparisons([GOOD | {"source": HALF, "\ud83d": 1, "note": HALF}])
    assert len(loaded) == 1
    write_report(loaded.report, tmp_path / "data.json")
    with pytest.raises(ValueError, match="half of a surrogate"):
        load_text_prompts([{"prompt": HALF}])  # type: ignore[arg-type]
    assert [d.reason for d in load_prompts([{"prompt": HALF}, {"prompt": "a"}]).dropped] == ["bad_text"]


def test_a_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "rows.jsonl")
    for load in (load_rows, load_comparisons, load_image_comparisons, load_text_prompts):
        with pytest.raises(ValueError, match=r"is a pipe or a device.*write it to a file"):
            load(str(tmp_path / "rows.jsonl"))
    with pytest.raises(ValueError, match="is a pipe or a device"):
        load_rows("/dev/null")
    assert "no regular file" in str(problem(ImageRef(tmp_path / "rows.jsonl", "x")))


def test_a_configuration_that_is_a_pipe(tmp_path):
    from prefopt.config import ConfigError, read_yaml

    os.mkfifo(tmp_path / "run.yaml")
    with pytest.raises(ConfigError, match="is a pipe or a device"):
        read_yaml(tmp_path / "run.yaml")


# -- compressed files ----------------------------------------------------------------------------------------------


def arrow(codec: str) -> Callable[[bytes], bytes]:
    return lambda data: pyarrow.Codec(codec).compress(data, asbytes=True)


def zstd(data: bytes) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


CODECS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstd,
}


def contents(tmp_path: Path) -> dict[str, bytes]:
    table = pyarrow.Table.from_pylist([GOOD, GOOD])
    pyarrow.parquet.write_table(table, tmp_path / "plain.parquet")
    lines = "".join(json.dumps(GOOD) + "\n" for _ in range(2)).encode()
    cells = [list(GOOD), *[list(GOOD.values())] * 2]
    return {
        ".jsonl": lines, ".ndjson": lines, ".json": json.dumps([GOOD, GOOD]).encode(),
        ".csv": "\n".join(",".join(row) for row in cells).encode(),
        ".tsv": "\n".join("\t".join(row) for row in cells).encode(),
        ".parquet": (tmp_path / "plain.parquet").read_bytes(),
    }  # fmt: skip


@pytest.mark.parametrize("codec", ["", *CODECS])
def test_every_format_compressed_or_not(tmp_path, codec):
    for suffix, content in contents(tmp_path).items():
        path = tmp_path / f"rows{suffix}{codec}"
        path.write_bytes(CODECS.get(codec, bytes)(content))
        assert list(load_rows(path).rows) == [GOOD, GOOD], path.name
    (tmp_path / f"p.txt{codec}").write_bytes(CODECS.get(codec, bytes)(b"one\ntwo\n"))
    assert [row["prompt"] for _, row in load_text_prompts(str(tmp_path / f"p.txt{codec}"))] == ["one", "two"]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("damage", ["cut", "noise", "empty"])
def test_damaged_compressed_files(tmp_path, codec, damage):
    rng = random.Random(0)
    for suffix, content in contents(tmp_path).items():
        whole = CODECS[codec](content + rng.randbytes(3000) if suffix != ".parquet" else content)
        path = tmp_path / f"rows{suffix}{codec}"
        path.write_bytes(
            {"cut": whole[: len(whole) * 2 // 3], "noise": rng.randbytes(500), "empty": b""}[damage]
        )
        with pytest.raises(ValueError, match=r"rows\."):
            load_rows(path)


# -- anything at all -----------------------------------------------------------------------------------------------


def read(path: Path) -> None:
    """All that a reader may raise: sentences."""
    for load in (load_comparisons, load_image_comparisons, load_text_prompts):
        try:
            loaded = load(str(path))
        except (ValueError, OSError):
            continue
        if hasattr(loaded, "dropped"):
            write_dropped(loaded.dropped, path.with_suffix(".dropped"))
            write_report(loaded.report, path.with_suffix(".report"))


def mutated(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        where = rng.randrange(len(out) + 1)
        match rng.randrange(4):
            case 0:
                out[where : where + 1] = rng.randbytes(1)
            case 1:
                del out[where : where + rng.randint(1, 30)]
            case 2:
                out[where:where] = rng.choice(
                    [
                        b'"',
                        b"{",
                        b"[",
                        b"}",
                        b",",
                        b"\\ud83d",
                        b"null",
                        b"1e999",
                        b"NaN",
                        b"-",
                        b"\x00",
                        b"\xff",
                        b"9" * 5000,
                        DEEP.encode(),
                    ]
                )
            case 3:
                out[where:where] = out[rng.randrange(len(out) + 1) :][:50]
    return bytes(out)


def seeds(tmp_path: Path) -> dict[str, bytes]:
    chat = {
        "id": 1, "prompt": [{"role": "user", "content": "a"}], "chosen": [{"role": "assistant", "content": "b"}],
        "rejected": [{"role": "assistant", "content": [{"type": "text", "text": "c"}]}], "votes": [1, 2, 3], "weight": 0.5,
        "tools": [{"name": "f", "default": None}], "label": "tie",
    }  # fmt: skip
    plain = contents(tmp_path)
    more = "".join(json.dumps(row) + "\n" for row in (GOOD, chat, GOOD | {"votes": [1, 0, 0]})).encode()
    return plain | {".jsonl": more, ".json": b"[" + more.replace(b"\n", b",").rstrip(b",") + b"]"}


def fuzz(tmp_path: Path, rounds: int, seed: int) -> None:
    rng = random.Random(seed)
    for suffix, content in seeds(tmp_path).items():
        for n in range(rounds):
            path = tmp_path / f"rubbish-{n}{suffix}"
            data = rng.randbytes(rng.randint(0, 300)) if n % 10 == 9 else mutated(content, rng)
            path.write_bytes(data)
            try:
                read(path)
            except Exception as error:
                raise AssertionError(f"{suffix}: {type(error).__name__}: {error}: {data[:200]!r}") from error
            path.unlink()


def test_some_rubbish(tmp_path):
    fuzz(tmp_path, 25, seed=1)


@pytest.mark.slow  # a minute of other rubbish
def test_much_rubbish(tmp_path):
    fuzz(tmp_path, 1500, seed=2)
