"""Lists of prompts for methods that make their own samples."""

from __future__ import annotations

import os
from pathlib import Path

import datasets
import pytest

from modalities.image.picture_files import CAT, write
from prefopt.modalities.image.rows import load_prompts


def test_prompts_of_every_form(tmp_path: Path) -> None:
    texts = ["a cat", "12", "a dog"]
    expected = [("row-1", "a cat"), ("row-2", "12"), ("row-3", "a dog")]
    (tmp_path / "p.txt").write_text("\ufeffa cat\r\n12\n  a dog \n", "utf-8")
    write(tmp_path / "p.json", [{"caption": text, "trainset_idx": n} for n, text in enumerate(texts)])
    for suffix, column in ((".jsonl", "prompt"), (".csv", "caption"), (".parquet", "text")):
        write(tmp_path / f"p{suffix}", [{column: text} for text in texts])
    for name in os.listdir(tmp_path):
        assert list(load_prompts(tmp_path / name)) == expected, name
    rows = [{"caption": text, "jpg_0": CAT} for text in texts]
    assert list(load_prompts(rows)) == list(load_prompts(datasets.Dataset.from_list(rows))) == expected
    assert load_prompts(rows)[1:] == expected[1:]
    assert load_prompts(rows)[0].prompt == "a cat"
    assert list(load_prompts([{"id": "x", "prompt": "a cat"}])) == [("x", "a cat")]


def test_lines_keep_their_numbers_and_their_characters(tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_text("\n\na cat\u2028really\n\na dog", "utf-8")
    assert list(load_prompts(path)) == [("row-3", "a cat\u2028really"), ("row-5", "a dog")]


def test_prompts_that_cannot_be_used(tmp_path: Path) -> None:
    loaded = load_prompts(
        [{"prompt": "a"}, {"prompt": " "}, {"prompt": 3}, {"prompt": None}, {"prompt": "a"}]
    )
    assert [prompt.id for prompt in loaded] == ["row-1", "row-5"]
    assert [(d.row, d.reason) for d in loaded.dropped] == [
        (2, "empty_prompt"),
        (3, "wrong_type"),
        (4, "missing_value"),
    ]
    for source, message in [
        ([{"promt": "a"}], "has the columns promt; needed prompt or caption; did you mean 'promt'"),
        ([{"prompt": ""}], "no row of .* can be used: 1 empty_prompt"),
    ]:
        with pytest.raises(ValueError, match=message):
            load_prompts(source)
    assert [p.id for p in load_prompts([{"prompt": "a", "id": 1}, {"prompt": "b", "id": 1}])] == ["1", "1#2"]
    (tmp_path / "p.txt").write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"p\.txt: not UTF-8 at byte 0"):
        load_prompts(tmp_path / "p.txt")
    (tmp_path / "p.txt").write_bytes(b"\n \n")
    with pytest.raises(ValueError, match=r"p\.txt is empty"):
        load_prompts(tmp_path / "p.txt")
    with pytest.raises(FileNotFoundError, match=r"did you mean .*p\.txt"):
        load_prompts(tmp_path / "pp.txt")
