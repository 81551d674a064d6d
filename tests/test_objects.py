"""Rows that a program has in memory train as the rows of a file do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pandas
import polars
import pytest
import yaml

import prefopt
from conftest import ROWS
from prefopt.config import ConfigError
from prefopt.modalities.text.rows import load_comparisons
from prefopt.sources import memory
from prefopt.sources.files import evaluation_split, load_rows, splits_of

BAD = {"prompt": "Sort: x", "chosen": "", "rejected": "y"}
MIXED = [{**ROWS[0], "weight": 2.0}, *ROWS[1:], BAD, ROWS[0]]  # datasets takes the columns of the first row


def run(model: Path, out: Path, **given: Any) -> prefopt.TrainResult:
    keys = {"max_steps": 2, "sample_prompts": 0, "learning_rate": 1e-3, "per_device_train_batch_size": 4}
    return prefopt.train("dpo", model=model, output_dir=str(out), **keys, **given)


def outcome(result: prefopt.TrainResult) -> tuple[Any, ...]:
    manifest = json.loads((result.output_dir / "record" / "manifest.json").read_text())
    dropped = (result.output_dir / "dropped.jsonl").read_text()
    weights = (result.model_dir / "model.safetensors").read_bytes()
    return manifest["data"]["fingerprint"], dropped, weights, result.metrics["eval_rewards/margins"]


@pytest.fixture(scope="module")
def from_file(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    folder = tmp_path_factory.mktemp("file")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in MIXED))
    return outcome(run(tiny_model, folder / "run", data=folder / "rows.jsonl"))


def frame_of_parquet(tmp_path: Path) -> pandas.DataFrame:
    pandas.DataFrame(MIXED).to_parquet(tmp_path / "rows.parquet")
    return pandas.read_parquet(tmp_path / "rows.parquet")


OBJECTS = {
    "list": (lambda tmp_path: MIXED, "list of 12 rows"),
    "dataset": (lambda tmp_path: datasets.Dataset.from_list(MIXED), "Dataset of 12 rows"),
    "dict": (
        lambda tmp_path: datasets.DatasetDict({"train": datasets.Dataset.from_list(MIXED)}),
        "DatasetDict of 12 train rows",
    ),
    "frame": (lambda tmp_path: pandas.DataFrame(MIXED), "DataFrame of 12 rows"),
    "parquet frame": (frame_of_parquet, "DataFrame of 12 rows"),
    "polars": (lambda tmp_path: polars.DataFrame(MIXED), "polars DataFrame of 12 rows"),
    "lazy polars": (lambda tmp_path: polars.LazyFrame(MIXED), "polars LazyFrame"),
    "stream": (lambda tmp_path: datasets.Dataset.from_list(MIXED).to_iterable_dataset(), "IterableDataset"),
    "generator": (lambda tmp_path: (row for row in MIXED), "generator of 12 rows"),
}


@pytest.mark.parametrize("kind", OBJECTS)
def test_an_object_trains_as_its_file_does(kind, from_file, tiny_model, tmp_path):
    make, described = OBJECTS[kind]
    result = run(tiny_model, tmp_path / "run", data=make(tmp_path))
    assert outcome(result) == from_file
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["data"] == f"memory:data/{described}"
    manifest = json.loads((tmp_path / "run" / "record" / "manifest.json").read_text())
    assert manifest["data"]["source"] == f"memory:data/{described}"
    assert json.loads((tmp_path / "run" / "dropped.jsonl").read_text())["reason"] == "empty_side"


def test_held_out_objects_and_their_splits(tiny_model, tmp_path):
    both = datasets.DatasetDict(
        {"train": datasets.Dataset.from_list(ROWS[:7]), "test": datasets.Dataset.from_list(ROWS[7:])}
    )
    result = run(tiny_model, tmp_path / "a", data=both, eval_data=both)
    other = run(tiny_model, tmp_path / "b", data=ROWS[:7], eval_data=pandas.DataFrame(ROWS[7:]))
    assert outcome(result)[2:] == outcome(other)[2:]
    counts = json.loads((tmp_path / "a" / "record" / "manifest.json").read_text())["data"]
    assert (counts["examples"], counts["eval_examples"]) == (7, 3)


def test_named_sets_have_metrics_of_their_own(tiny_model, tmp_path):
    """And all of them together those without a name, which are those of one set that holds all rows."""
    sets = {"easy": ROWS[6:8], "hard": pandas.DataFrame(ROWS[8:])}
    result = run(tiny_model, tmp_path / "run", data=ROWS[:6], eval_data=sets)
    one = run(tiny_model, tmp_path / "one", data=ROWS[:6], eval_data=ROWS[6:])
    for name in ("eval_loss", "eval_rewards/margins", "eval_rewards/accuracies"):
        assert result.metrics[name] == pytest.approx(one.metrics[name], rel=1e-6)
        parts = [result.metrics[name.replace("eval_", f"eval_{part}_")] for part in sets]
        assert sum(parts) / 2 == pytest.approx(one.metrics[name], rel=1e-5)
    easy = run(tiny_model, tmp_path / "easy", data=ROWS[:6], eval_data=ROWS[6:8])
    assert result.metrics["eval_easy_loss"] == pytest.approx(easy.metrics["eval_loss"], rel=1e-6)
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["eval_data"] == {
        "easy": "memory:eval_data.easy/list of 2 rows", "hard": "memory:eval_data.hard/DataFrame of 2 rows",
    }  # fmt: skip


def test_nested_cells_of_polars_are_those_of_the_rows():
    chat = [
        {
            "prompt": [{"role": "user", "content": "a"}],
            "chosen": [{"role": "assistant", "content": "b"}],
            "rejected": [{"role": "assistant", "content": "c", "name": "x"}],
        }
    ]
    item = load_comparisons(polars.DataFrame(chat)).examples[0].items[0]
    assert item.sample == [{"role": "assistant", "content": "b"}]


def test_a_run_on_an_object_is_resumed_with_it(tiny_model, tmp_path):
    whole = run(tiny_model, tmp_path / "whole", data=ROWS, num_train_epochs=2, save_steps=1)
    cut = tmp_path / "cut"
    with pytest.raises(RuntimeError, match="power cut"):
        run_until_step(tiny_model, cut, data=ROWS, num_train_epochs=2, save_steps=1)
    with pytest.raises(ConfigError, match=r"other data"):
        prefopt.train(config=cut / "config.yaml", data=ROWS[:5], resume=True)
    with pytest.raises(FileNotFoundError, match="memory of the program that wrote this configuration"):
        prefopt.train(config=cut / "config.yaml", resume=True)
    resumed = prefopt.train(config=cut / "config.yaml", data=ROWS, resume=True)
    assert outcome(resumed) == outcome(whole)


def run_until_step(model: Path, out: Path, **given: Any) -> None:
    from prefopt.training.loop import Loop

    fit, patch = Loop.update, pytest.MonkeyPatch()

    def update(loop: Any, examples: Any) -> None:
        if loop.step == 1:
            raise RuntimeError("power cut")
        fit(loop, examples)

    patch.setattr(Loop, "update", update)
    try:
        run(model, out, **given)
    finally:
        patch.undo()


def test_images_in_memory(tmp_path):
    from PIL import Image

    from prefopt.modalities.image.rows import load_image_comparisons

    red, blue = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    rows = [{"prompt": f"a {n}", "chosen_image": red, "rejected_image": blue} for n in range(3)]
    for image, name in ((red, "red"), (blue, "blue")):
        image.save(tmp_path / f"{name}.png")
    paths = pandas.DataFrame(rows).assign(
        chosen_image=str(tmp_path / "red.png"), rejected_image=str(tmp_path / "blue.png")
    )
    table = datasets.Dataset.from_list(
        [
            {**row, "chosen_image": str(tmp_path / "red.png"), "rejected_image": str(tmp_path / "blue.png")}
            for row in rows
        ]
    )
    table = table.cast_column("chosen_image", datasets.Image()).cast_column(
        "rejected_image", datasets.Image()
    )
    for given in (rows, paths, table):
        with memory.held("data", given) as name:
            loaded = load_image_comparisons(name)
        assert len(loaded) == 3
        assert loaded.report.own["images"]["sizes"] == {"8 x 8": 6}


def test_cells_that_pandas_and_arrow_change(tmp_path):
    frame = pandas.DataFrame([ROWS[0] | {"weight": 2.0}, ROWS[1], ROWS[2] | {"label": "tie"}])
    loaded = load_comparisons(frame)
    assert [e.comparisons[0].weight for e in loaded] == [2.0, 1.0, 1.0]
    assert loaded.report.comparisons["ties"] == 1
    chat = [
        {
            "prompt": [{"role": "user", "content": "a"}],
            "chosen": [{"role": "assistant", "content": "b"}],
            "rejected": [{"role": "assistant", "content": "c", "name": "x"}],
        }
    ]
    pandas.DataFrame(chat).to_parquet(tmp_path / "chat.parquet")
    item = load_comparisons(pandas.read_parquet(tmp_path / "chat.parquet")).examples[0].items[0]
    assert item.condition["prompt"] == [{"role": "user", "content": "a"}]
    assert item.sample == [{"role": "assistant", "content": "b"}]


def test_what_is_no_data_says_what_is_needed(tiny_model, tmp_path):
    with pytest.raises((TypeError, ConfigError), match=r"valid string|needed a path"):
        run(tiny_model, tmp_path / "run", data=3)
    with pytest.raises(TypeError, match="row 2 of the list is a str"):
        run(tiny_model, tmp_path / "run", data=[ROWS[0], "x"])
    with pytest.raises(ValueError, match="is empty"):
        run(tiny_model, tmp_path / "run", data=[])


def test_errors_show_few_rows(tiny_model, tmp_path):
    rows = [{"prompt": "x" * 50, "completion": "y"} for _ in range(2000)]
    with pytest.raises((ValueError, ConfigError)) as error:
        run(tiny_model, tmp_path / "run", data=rows)
    assert len(str(error.value)) < 1000
    with pytest.raises(ConfigError) as error:
        run(tiny_model, tmp_path / "run", data="d", columns={"a": rows})
    assert len(str(error.value)) < 1000


def test_names_are_forgotten_after_the_run(tiny_model, tmp_path):
    run(tiny_model, tmp_path / "run", data=ROWS)
    with pytest.raises(FileNotFoundError):
        load_rows("memory:data/list of 10 rows")
    with memory.held("data", ROWS[:1]) as name, memory.held("data", ROWS[1:2]) as same:
        assert name == same
        assert load_rows(name).rows == ROWS[1:2]


@pytest.mark.parametrize(
    ("splits", "trained", "wanted"),
    [
        (["train", "test"], "train", "test"),
        (["train", "validation", "test"], "train", "test"),
        (["train_prefs", "train_sft", "test_prefs", "test_sft"], "train_prefs", "test_prefs"),
        (["train", "dev"], None, "dev"),
        (["train"], "train", "train"),
        (["train", "extra"], None, "train"),
        (["default"], None, "default"),
        (["test", "validation"], "test", "validation"),
    ],
)
def test_the_split_to_judge_by(splits, trained, wanted):
    source = datasets.DatasetDict({name: datasets.Dataset.from_list(ROWS[:1]) for name in splits})
    assert splits_of(source) == splits
    assert evaluation_split(source, None, trained) == wanted


def test_other_containers_are_refused_with_what_is_taken(tiny_model, tmp_path):
    for key, value in (("data", {"train": ROWS}), ("data", b"rows"), ("eval_data", 3)):
        given = {"data": ROWS, key: value}
        with pytest.raises(ConfigError, match=rf"^{key} is a .*; needed a path, a hub id,.* a list of rows"):
            run(tiny_model, tmp_path / "run", **given)


def test_numbers_of_numpy_and_of_columns_with_a_gap_are_ids():
    import numpy as np

    rows = [row | {"id": np.int64(n)} for n, row in enumerate(ROWS[:3])]
    assert [e.id for e in load_comparisons(rows)] == ["0", "1", "2"]
    frame = pandas.DataFrame([ROWS[0] | {"id": 7}, ROWS[1], ROWS[2] | {"id": 9}])
    assert [e.id for e in load_comparisons(frame)] == ["7", "row-2", "9"]
    assert [d.reason for d in load_comparisons([*ROWS, ROWS[0] | {"id": 10**5000}]).dropped] == ["wrong_type"]


def test_arrays_within_the_cells_of_a_frame(tmp_path):
    call = {"type": "function", "function": {"name": "add", "arguments": "{}"}}
    parts = [{"type": "text", "text": "yes"}]
    chat = {
        "prompt": [{"role": "user", "content": "a"}],
        "chosen": [{"role": "assistant", "content": "b", "tool_calls": [call]}],
        "rejected": [{"role": "assistant", "content": "c", "tool_calls": None}],
    }
    pandas.DataFrame([chat]).to_parquet(tmp_path / "calls.parquet")
    pandas.DataFrame(
        [
            chat
            | {
                s: [{"role": "assistant", "content": [*parts, {"type": "text", "text": s}]}]
                for s in ("chosen", "rejected")
            }
        ]
    ).to_parquet(tmp_path / "parts.parquet")
    for name in ("calls", "parts"):
        path = tmp_path / f"{name}.parquet"
        assert load_comparisons(pandas.read_parquet(path)).examples == load_comparisons(path).examples
