"""Every container gives the same rows, and every broken one says what is wrong and where."""

from __future__ import annotations

import csv
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet
import pytest

from prefopt.sources.files import load_rows

PAIRS = [
    {
        "prompt": "The sky is",
        "chosen": " blue,\nreally",
        "rejected": ' "green"',
        "votes": [3, 1, 0],
        "weight": 0.5,
    },
    {
        "prompt": "Grass is",
        "chosen": " [green]",
        "rejected": " blue\u2028!",
        "votes": [0, 0, 2],
        "weight": 2.0,
    },
]
TALKS = [
    {
        "prompt": [{"role": "user", "content": f"What is {n}?"}],
        "chosen": [{"role": "assistant", "content": "A number."}],
        "rejected": [{"role": "assistant", "content": "No idea."}],
    }
    for n in range(3)
]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What datasets reads out of folders is cached; not in the user's home."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))


def write(path: Path, rows: list[dict]) -> str:
    match path.suffix:
        case ".jsonl":
            path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
        case ".json":
            path.write_text(json.dumps(rows, indent=1), "utf-8")
        case ".csv":
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, rows[0])
                writer.writeheader()
                for row in rows:
                    writer.writerow({k: v if isinstance(v, str) else json.dumps(v) for k, v in row.items()})
        case ".parquet":
            pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
@pytest.mark.parametrize("rows", [PAIRS, TALKS], ids=["text", "conversations"])
def test_every_file_format_gives_the_same_rows(tmp_path: Path, suffix: str, rows: list[dict]) -> None:
    loaded = load_rows(write(tmp_path / f"pairs{suffix}", rows))
    assert list(loaded.rows) == rows
    assert list(loaded.numbers) == list(range(1, len(rows) + 1))
    assert set(loaded.columns) == set(rows[0])
    assert loaded.kind == suffix[1:]


def test_a_path_object_and_an_upper_case_suffix_work(tmp_path: Path) -> None:
    write(tmp_path / "pairs.jsonl", PAIRS)
    (tmp_path / "pairs.jsonl").rename(tmp_path / "PAIRS.JSONL")
    assert list(load_rows(tmp_path / "PAIRS.JSONL").rows) == PAIRS


def test_json_lines_skip_blank_lines_but_count_them_and_take_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"prompt": "a"}\r\n\r\n{"chosen": "b"}')
    rows = load_rows(path)
    assert list(rows) == [(1, {"prompt": "a"}), (3, {"chosen": "b"})]
    assert rows.columns == ("prompt", "chosen")
    assert rows.place == "line"


def test_json_lines_under_the_name_json(tmp_path: Path) -> None:
    (tmp_path / "pairs.json").write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    assert [row["prompt"] for row in load_rows(tmp_path / "pairs.json").rows] == ["a", "b"]


def test_csv_cells_get_types_and_text_stays_text(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(
        "id,prompt,chosen,rejected,label,is_tie,weight,votes\n"
        '007,12,"[1, 2]","[{""role"": ""assistant"", ""content"": ""x""}]",tie,True,nan,"[1, 0, 0]"\n'
        "8,,3.5,null,,,1e-1,\n"
    )
    first, second = load_rows(path).rows
    assert first["id"] == "007"
    assert (first["prompt"], first["chosen"]) == ("12", "[1, 2]")
    assert first["rejected"] == [{"role": "assistant", "content": "x"}]
    assert (first["label"], first["is_tie"], first["votes"]) == ("tie", True, [1, 0, 0])
    assert first["weight"] != first["weight"]
    assert second == {
        **{"id": "8", "prompt": "", "chosen": "3.5", "rejected": "null"},
        **{"label": None, "is_tie": None, "weight": 0.1, "votes": None},
    }


def test_csv_cells_longer_than_the_default_limit(tmp_path: Path) -> None:
    limit = 131072
    csv.field_size_limit(limit)
    path = write(tmp_path / "pairs.csv", [{"prompt": "a", "chosen": "x" * 200_000, "rejected": "y"}])
    assert len(load_rows(path).rows[0]["chosen"]) == 200_000
    assert csv.field_size_limit() == limit


def test_datasets_in_memory_saved_and_as_a_data_folder(tmp_path: Path) -> None:
    dataset = datasets.Dataset.from_list(PAIRS)
    assert list(load_rows(dataset).rows) == PAIRS
    dataset.save_to_disk(tmp_path / "saved")
    assert list(load_rows(str(tmp_path / "saved")).rows) == PAIRS
    splits = datasets.DatasetDict({"train": dataset, "test": dataset.select([1])})
    assert len(load_rows(splits, split="test")) == 1
    splits.save_to_disk(tmp_path / "splits")
    assert list(load_rows(tmp_path / "splits", split="test").rows) == PAIRS[1:]
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "train.jsonl", PAIRS)
    write(tmp_path / "data" / "test.jsonl", PAIRS[:1])
    assert list(load_rows(tmp_path / "data").rows) == PAIRS
    rows = load_rows(tmp_path / "data", split="test")
    assert (list(rows.rows), rows.columns, rows.kind) == (PAIRS[:1], tuple(PAIRS[0]), "datasets")
    for source in (splits, tmp_path / "splits", tmp_path / "data"):
        with pytest.raises(ValueError, match=r"unknown split 'valid'.*'test', 'train'"):
            load_rows(source, split="valid")


def test_a_list_of_rows() -> None:
    assert list(load_rows(PAIRS)) == [(1, PAIRS[0]), (2, PAIRS[1])]
    with pytest.raises(TypeError, match="row 2 of the list is a str"):
        load_rows([{}, "x"])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="data is a int"):
        load_rows(3)


def test_a_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    write(tmp_path / "pairs.jsonl", PAIRS)
    write(tmp_path / "judged.csv", PAIRS)
    with pytest.raises(FileNotFoundError, match=r"did you mean .*pairs\.jsonl"):
        load_rows(tmp_path / "pair.jsonl")
    with pytest.raises(FileNotFoundError, match=r"did you mean .*judged\.csv"):
        load_rows(tmp_path / "judged.parquet")
    with pytest.raises(FileNotFoundError, match=r"the data files there are judged\.csv, pairs\.jsonl"):
        load_rows(tmp_path / "zzz.jsonl")
    with pytest.raises(FileNotFoundError, match="has no 'nowhere' in it"):
        load_rows(tmp_path / "nowhere" / "deep" / "pairs.jsonl")


def test_a_hub_id_that_cannot_be_loaded_says_both_things(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(FileNotFoundError, match=r"no file or folder nobody/nothing.*Couldn't reach the Hub"):
        load_rows("nobody/nothing")


def test_a_hub_id_goes_to_datasets_with_split_and_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(name: str, config: str | None, split: str) -> datasets.Dataset:
        asked.append((name, config, split))
        return datasets.Dataset.from_list(PAIRS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert list(load_rows("owner/name", split="test", config_name="binary").rows) == PAIRS
    assert asked == [("owner/name", "binary", "test")]


BROKEN = [
    ("pairs.jsonl", b'{"a": 1}\n{"a": 2,\n', r"line 2: not valid JSON \(.* at column"),
    ("pairs.jsonl", b'{"a": 1}\n\n[1]\n', r"line 3: a JSON array; each line must be one JSON object"),
    ("pairs.jsonl", b'{"a": 1}\nnull\n', r"line 2: a JSON null"),
    ("pairs.jsonl", b'{"a": "\xff"}\n', r"line 1: not UTF-8 at byte 7"),
    ("pairs.jsonl", b"\n \n", "is empty: it holds no rows"),
    ("pairs.jsonl", b"", "is empty: it holds no rows"),
    ("pairs.json", b'[{"a": 1},\n {"a": }]', r"line 2: not valid JSON"),
    ("pairs.json", b'[{"a": 1}, 3]', "row 2: a JSON number; needed an object"),
    ("pairs.json", b"[]", "is empty"),
    ("pairs.csv", b"", "is empty"),
    ("pairs.csv", b"prompt,chosen\n", "is empty"),
    (
        "pairs.csv",
        b"prompt,chosen\na,b\na,b,c\n",
        r"line 3: 3 cells under a header of 2; put text .* in double quotes",
    ),
    ("pairs.csv", b"prompt,chosen\na\n", r"line 2: 1 cells under a header of 2"),
    ("pairs.csv", b'prompt,chosen\na,"b\n', r"after line 1: not valid CSV .* left open"),
    ("pairs.csv", b"prompt,chosen\na,\xff\n", "not UTF-8"),
    ("pairs.csv", b"prompt,prompt\na,b\n", "two columns are named 'prompt'"),
    ("pairs.parquet", b"", "is empty"),
    ("pairs.parquet", b"PAR1 but not more", "not a complete parquet file"),
    ("pairs.txt", b"a", r"a text file has prompts alone; comparisons are needed, in one of .jsonl, .ndjson"),
    ("pairs.xlsx", b"a", r"files ending in '.xlsx' are not read; .* write its rows as JSON lines"),
    ("pairs.jsonl.zip", b"PK", r"an archive is not read: unpack it"),
]


@pytest.mark.parametrize(("name", "content", "message"), BROKEN)
def test_broken_files_say_what_is_wrong_and_where(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        load_rows(tmp_path / name)
    assert str(tmp_path / name) in str(error.value)


def test_a_parquet_file_that_was_cut_short(tmp_path: Path) -> None:
    path = Path(write(tmp_path / "pairs.parquet", PAIRS * 100))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match="may be cut short"):
        load_rows(path)


def test_an_empty_folder_and_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is an empty folder"):
        load_rows(tmp_path)
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(ValueError, match="could not read the folder"):
        load_rows(tmp_path)


def test_a_data_folder_with_a_corrupt_file(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"a": 1}\n{"a": \n')
    with pytest.raises(ValueError, match="datasets could not read it"):
        load_rows(tmp_path)


def test_a_split_that_a_single_file_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown split 'test': .* has one split, 'train'"):
        load_rows(write(tmp_path / "pairs.jsonl", PAIRS), split="test")


@contextmanager
def ordinary_user() -> Iterator[None]:
    """The superuser may read everything, so tests that run as root give that up for a moment."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.csv", "pairs.parquet"])
@pytest.mark.parametrize("closed", ["file", "folder"])
def test_no_permission(name: str, closed: str) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to other users, all the way up
        path = write(Path(folder) / name, PAIRS)
        os.chmod(path, 0 if closed == "file" else 0o644)
        os.chmod(folder, 0o755 if closed == "file" else 0o700 if os.geteuid() == 0 else 0)
        try:
            with ordinary_user(), pytest.raises(PermissionError, match=f"no permission to read .*{name}"):
                load_rows(path)
        finally:
            os.chmod(folder, 0o700)


def test_a_data_set_with_code_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "scripted"
    folder.mkdir()
    (folder / "scripted.py").write_text("raise SystemExit('this code was run')")
    with pytest.raises(ValueError, match=r"makes its rows by Python code of its own.*save the rows once"):
        load_rows(folder)
