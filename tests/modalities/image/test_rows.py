"""What rows of images become: examples, drops with reasons, errors for what is wrong with all rows; and prompts."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from modalities.image.picture_files import CAT, COW, DOG, PAIR, PICK, SINGLE, save, write
from prefopt.comparisons import LOSE, TIE, WIN, Comparison, Encoded, Outcome, collate
from prefopt.modalities.image.rows import load_image_comparisons, looks_like_images
from prefopt.modalities.text.rows import load_comparisons
from prefopt.sources.collecting import Comparisons
from prefopt.sources.files import load_rows
from prefopt.sources.pictures import decode
from prefopt.sources.report import Dropped
from prefopt.sources.ties import apply_ties_policy
from prefopt.sources.unpaired import unpair


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))


def one(row: dict[str, Any], **options: Any) -> Comparisons:
    return load_image_comparisons([row], **options)


def bytes_of(loaded: Comparisons) -> list[list[bytes]]:
    return [[item.sample.read() for item in example.items] for example in loaded]


def why(row: dict[str, Any], good: dict[str, Any], **options: Any) -> tuple[str, str]:
    """Reason and detail for which `row` is dropped beside a good one."""
    loaded = load_image_comparisons([good, row], **options)
    assert len(loaded) == 1
    [drop] = loaded.dropped
    assert (drop.row, drop.id) == (2, "row-2")
    assert loaded.report.dropped == {drop.reason: 1}
    return drop.reason, drop.detail


# -- forms -------------------------------------------------------------------------------------------------


def test_a_pair() -> None:
    loaded = one(PAIR)
    [example] = loaded.examples
    assert [dict(item.condition) for item in example.items] == [{"prompt": "a cat"}] * 2
    assert bytes_of(loaded) == [[CAT, DOG]]
    assert example.comparisons == (Comparison(0, 1, WIN, 1.0, {}),)
    assert example.id == "row-1"


@pytest.mark.parametrize(
    ("label_0", "outcome", "first"),
    [(1.0, WIN, CAT), (0.0, WIN, DOG), (0.5, TIE, CAT), (1, WIN, CAT), (0, WIN, DOG)],
)
def test_pick_a_pic_as_published(label_0: float, outcome: Outcome, first: bytes) -> None:
    published = {
        **{"are_different": True, "best_image_uid": "u", "created_at": "2023", "has_label": True},
        **{"image_0_uid": "u", "image_0_url": "x", "image_1_uid": "v", "image_1_url": "y", "user_id": 1},
        **{
            "model_0": "a",
            "model_1": "b",
            "ranking_id": 3,
            "num_example_per_prompt": 4,
            "__index_level_0__": 9,
        },
    }
    loaded = one(PICK | published | {"label_0": label_0, "label_1": 1 - label_0})
    assert loaded.examples[0].comparisons == (Comparison(0, 1, outcome, 1.0, {}),)
    assert bytes_of(loaded)[0][0] == first
    assert not loaded.report.hints


def test_a_prompt_can_count_once_however_many_rows_it_has() -> None:
    rows = [PICK | {"num_example_per_prompt": 4}, PICK | {"num_example_per_prompt": 1, "weight": 3.0}]
    loaded = load_image_comparisons(rows, inverse_weight="num_example_per_prompt")
    assert [e.comparisons[0].weight for e in loaded] == [0.25, 3.0]
    assert [e.comparisons[0].weight for e in load_image_comparisons(rows)] == [1.0, 3.0]
    bad = PICK | {"num_example_per_prompt": 0}
    assert why(bad, rows[0], inverse_weight="num_example_per_prompt")[0] == "bad_weight"
    with pytest.raises(
        ValueError, match=r"no column 'num_examples_per_prompt' .*did you mean 'num_example_per_prompt'"
    ):
        load_image_comparisons(rows, inverse_weight="num_examples_per_prompt")


@pytest.mark.parametrize(
    ("changes", "outcome", "first"),
    [
        ({"label": "win"}, WIN, CAT),
        ({"label": "lose"}, WIN, DOG),
        ({"label": "tie"}, TIE, CAT),
        ({"is_tie": True}, TIE, CAT),
        ({"votes": [3, 1, 0]}, Outcome(0.75, 0.25, 0), CAT),
        ({"target": [0, 1, 0]}, WIN, DOG),
    ],
)
def test_outcomes_are_told_as_for_texts(changes: dict[str, Any], outcome: Outcome, first: bytes) -> None:
    loaded = one(PAIR | changes | {"score_chosen": 2.0, "score_rejected": 1.0})
    assert loaded.examples[0].comparisons[0].outcome == outcome
    assert bytes_of(loaded)[0][0] == first
    assert loaded.origins["row-1"][1:3] == ((2.0, 1.0) if first == CAT else (1.0, 2.0))
    texts = {"prompt": "p", "chosen": "a", "rejected": "b"} | changes
    assert load_comparisons([texts]).examples[0].comparisons[0].outcome == outcome


def test_single_images() -> None:
    rows = [
        SINGLE,
        SINGLE | {"image": DOG, "label": 0},
        SINGLE | {"image": COW, "label": False, "weight": 2.0},
    ]
    loaded = load_image_comparisons(rows)
    edges = [example.comparisons for example in loaded]
    assert edges == [
        (Comparison(0, None, WIN),),
        (Comparison(0, None, LOSE),),
        (Comparison(0, None, LOSE, 2.0),),
    ]
    assert loaded.report.comparisons["desirable"] == 1
    assert loaded.report.label_balance_hint


def test_the_rest_of_the_contract_takes_them() -> None:
    loaded = load_image_comparisons([PICK, PICK | {"label_0": 0.5}, PICK | {"label_0": 0.0}])
    batch = collate(Encoded(e.id, e.items, e.comparisons) for e in loaded)
    assert batch.edges.outcome_E3.tolist() == [[1, 0, 0], [0, 0, 1], [1, 0, 0]]
    kept = apply_ties_policy(loaded, "drop")
    assert [e.id for e in kept] == ["row-1", "row-3"]
    assert "images" in kept.report.own
    singles = unpair(kept)
    assert [(e.id, e.items[0].sample.read()) for e in singles][:2] == [
        ("row-1/chosen", CAT),
        ("row-1/rejected", DOG),
    ]


def test_weights_and_columns_ride_along() -> None:
    edge = one(PAIR | {"weight": 2, "gap": 0.5}, columns=["gap"]).examples[0].comparisons[0]
    assert (edge.weight, edge.columns) == (2.0, {"gap": 0.5})


# -- containers --------------------------------------------------------------------------------------------


PATHS = [
    {"prompt": "a cat", "chosen_image": "pics/cat.png", "rejected_image": "pics/dog.png", "label": "win"},
    {"prompt": "12", "chosen_image": "pics/cow.png", "rejected_image": "pics/dog.png", "label": "tie"},
]
EXPECTED = [[CAT, DOG], [COW, DOG]]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_paths_are_relative_to_the_data_file(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "pics", cat=CAT, dog=DOG, cow=COW)
    loaded = load_image_comparisons(write(tmp_path / f"pairs{suffix}", PATHS))
    assert bytes_of(loaded) == EXPECTED
    assert [e.comparisons[0].outcome for e in loaded] == [WIN, TIE]
    assert [e.items[0].condition["prompt"] for e in loaded] == ["a cat", "12"]
    monkeypatch.chdir(tmp_path)
    assert bytes_of(load_image_comparisons(PATHS)) == EXPECTED  # rows in memory: to the current folder
    assert bytes_of(load_image_comparisons(datasets.Dataset.from_list(PATHS))) == EXPECTED


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize("side", ["{}_file_name", "{}_image_file_name", "{}_image"])
def test_a_folder_of_images_with_a_metadata_file(tmp_path: Path, suffix: str, side: str) -> None:
    save(tmp_path / "pics", cat=CAT, dog=DOG, cow=COW)
    names = {f"{which}_image": side.format(which) for which in ("chosen", "rejected")}
    rows = [{names.get(name, name): value for name, value in row.items()} for row in PATHS]
    write(tmp_path / f"metadata{suffix}", rows)
    assert bytes_of(load_image_comparisons(tmp_path)) == EXPECTED
    with pytest.raises(ValueError, match=r"unknown split 'test': .* has 'train'"):
        load_image_comparisons(tmp_path, split="test")


def test_a_folder_of_images_with_splits(tmp_path: Path) -> None:
    for split, data in (("train", CAT), ("test", DOG)):
        save(tmp_path / split, a=data)
        write(tmp_path / split / "metadata.csv", [{"file_name": "a.png", "text": "a cat", "label": 1}])
    assert bytes_of(load_image_comparisons(tmp_path)) == [[CAT]]
    assert bytes_of(load_image_comparisons(tmp_path, split="test")) == [[DOG]]
    with pytest.raises(ValueError, match=r"unknown split 'valid': .* has 'test', 'train'"):
        load_image_comparisons(tmp_path, split="valid")


def test_a_folder_of_texts_with_a_metadata_file_is_still_one_of_texts(tmp_path: Path) -> None:
    write(tmp_path / "metadata.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "c"}])
    rows = load_rows(tmp_path)
    assert rows.kind == "datasets"  # which reads all data files of the folder, whatever they are called
    assert load_comparisons(tmp_path).examples[0].items[0].sample == "b"


def test_a_number_can_be_the_name_of_a_file(tmp_path: Path) -> None:
    for name, data in (("7", CAT), ("1e3", DOG)):
        (tmp_path / name).write_bytes(data)
    rows = [{"prompt": "p", "chosen_image": "7", "rejected_image": "1e3"}]
    assert bytes_of(load_image_comparisons(write(tmp_path / "pairs.csv", rows))) == [[CAT, DOG]]


def test_what_datasets_makes_of_such_a_folder_is_read_alike(tmp_path: Path) -> None:
    save(tmp_path, cat=CAT, dog=DOG)
    row = {"chosen_file_name": "cat.png", "rejected_file_name": "dog.png", "prompt": "a cat"}
    write(tmp_path / "metadata.jsonl", [row])
    made = datasets.load_dataset("imagefolder", data_dir=str(tmp_path), split="train")
    assert set(made.column_names) == {"chosen", "rejected", "prompt"}
    loaded = load_image_comparisons(made)
    assert bytes_of(loaded) == [[CAT, DOG]]
    assert [e.id for e in loaded] == [e.id for e in load_image_comparisons(tmp_path)]


@pytest.mark.parametrize("names", [("jpg_0", "jpg_1"), ("chosen_image", "rejected_image")])
@pytest.mark.parametrize("feature", [datasets.Value("binary"), datasets.Image()], ids=["binary", "image"])
def test_datasets_keep_their_images_on_disk(
    tmp_path: Path, names: tuple[str, str], feature: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"caption": "a cat", names[0]: a, names[1]: b, "label_0": 1.0} for a, b in EXPECTED]
    dataset = datasets.Dataset.from_list(rows)
    for name in names:
        dataset = dataset.cast_column(name, feature)
    dataset.save_to_disk(tmp_path / "saved")
    with monkeypatch.context() as context:
        context.setattr(datasets.Image, "decode_example", None)  # whoever decodes while reading, fails
        for source in (dataset, tmp_path / "saved", datasets.DatasetDict({"train": dataset})):
            loaded = load_image_comparisons(source)
            assert bytes_of(loaded) == EXPECTED
            assert not isinstance(loaded.examples[0].items[0].sample.source, bytes)
    assert dataset.column_names == list(rows[0])


def test_pillow_images_arrays_and_bytes_in_memory() -> None:
    image = Image.open(io.BytesIO(CAT))
    rows = [
        PAIR | {"chosen_image": value}
        for value in (CAT, {"bytes": CAT, "path": None}, image, np.array(image))
    ]
    loaded = load_image_comparisons(rows)
    shown = [np.asarray(decode(example.items[0].sample)) for example in loaded]
    assert all((other == shown[0]).all() for other in shown)


# -- ids ---------------------------------------------------------------------------------------------------


def test_ids_are_stable_and_unique() -> None:
    bad = PAIR | {"prompt": ""}
    assert [e.id for e in load_image_comparisons([PAIR, bad, PAIR])] == ["row-1", "row-3"]
    assert [e.id for e in load_image_comparisons([PAIR | {"id": "x"}, PAIR])] == ["x", "row-2"]
    repeated = load_image_comparisons([PAIR | {"id": "x"}, PAIR | {"id": "x"}])
    assert [e.id for e in repeated] == ["x", "x#2"]
    assert any("1 row(s) repeat an id" in hint.text for hint in repeated.report.hints)
    reasons = why(PAIR | {"id": 1.5}, PAIR)
    assert reasons[0] == "wrong_type"
    assert reasons[1].startswith("id is 1.5 (float); needed text or an integer (if id means something else")


# -- rows that cannot be used --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "reason", "detail"),
    [
        (PAIR | {"prompt": " "}, "empty_prompt", "prompt is empty"),
        (PAIR | {"prompt": None}, "missing_value", "prompt is absent"),
        (PAIR | {"prompt": [{"role": "user", "content": "a cat"}]}, "wrong_type", "prompt is .*needed text"),
        (PAIR | {"chosen_image": None}, "missing_value", "chosen_image is absent"),
        (PAIR | {"chosen_image": 3}, "wrong_type", "chosen_image is 3"),
        (PAIR | {"rejected_image": b""}, "broken_image", "rejected_image is empty"),
        (PAIR | {"rejected_image": CAT[:-30]}, "broken_image", "^rejected_image is damaged or cut short"),
        (PAIR | {"rejected_image": "no.png"}, "missing_image", "^rejected_image: .*no.png: no such file"),
        (PAIR | {"rejected_image": CAT}, "identical_sides", "nothing to learn"),
        (PAIR | {"rejected_image": CAT, "label": "tie"}, "identical_sides", "nothing to learn"),
        (PAIR | {"label": 1}, "unknown_label", "label is 1"),
        (PAIR | {"weight": 0}, "bad_weight", "weight is 0"),
        (PAIR | {"votes": [0, 0, 0]}, "bad_votes", "nobody voted"),
        (PICK | {"label_0": None}, "missing_value", "label_0 is absent; needed 0, 0.5 or 1"),
        (PICK | {"label_0": 0.7}, "unknown_label", "label_0 is 0.7; needed 0, 0.5 or 1"),
        (PICK | {"label_0": float("nan")}, "unknown_label", "label_0 is nan"),
        (PICK | {"label_0": "1"}, "wrong_type", "label_0 is '1'"),
        (PICK | {"label_1": 1.0}, "contradicting_labels", "label_0 is 1 and label_1 is 1.0"),
        (PICK | {"has_label": False}, "missing_value", "nobody judged this pair"),
        (PICK | {"jpg_1": b"GIF89a"}, "broken_image", "jpg_1 is"),
        (SINGLE | {"label": None}, "missing_value", "label is absent"),
        (SINGLE | {"label": "good"}, "unknown_label", "label is 'good'"),
        (SINGLE | {"label": 0.5}, "unknown_label", "label is 0.5"),
        (SINGLE | {"image": "no.png"}, "missing_image", "no such file"),
    ],
)
def test_rows_that_cannot_be_used_are_dropped_with_a_reason(
    row: dict[str, Any], reason: str, detail: str
) -> None:
    good = SINGLE if "image" in row else PICK if "jpg_0" in row else PAIR
    told = why(row, good)
    assert told[0] == reason
    assert re.search(detail, told[1])


def test_broken_cells_of_a_table_are_dropped_too(tmp_path: Path) -> None:
    rows = [PICK, PICK | {"jpg_0": CAT[:-30]}, PICK | {"jpg_1": None}]
    for feature in (datasets.Value("binary"), datasets.Image()):
        dataset = datasets.Dataset.from_list(rows).cast_column("jpg_0", feature).cast_column("jpg_1", feature)
        loaded = load_image_comparisons(dataset)
        assert [e.id for e in loaded] == ["row-1"]
        assert [(d.row, d.reason, d.detail[:5]) for d in loaded.dropped] == [
            (2, "broken_image", "jpg_0"),
            (3, "missing_value", "jpg_1"),
        ]


def test_damage_in_the_middle_needs_a_thorough_look() -> None:
    data = bytearray(CAT)
    data[len(data) // 2] ^= 0xFF
    rows = [PAIR, PAIR | {"chosen_image": bytes(data)}]
    assert len(load_image_comparisons(rows)) == 2
    loaded = load_image_comparisons(rows, thorough=True)
    assert (
        loaded.dropped[0][:3]
        if isinstance(loaded.dropped[0], tuple)
        else loaded.dropped[0].reason == "broken_image"
    )


def test_no_row_is_lost() -> None:
    rows = [PAIR, PAIR | {"chosen_image": b"x"}, PAIR | {"prompt": ""}, PAIR | {"rejected_image": "no.png"}]
    loaded = load_image_comparisons(rows)
    assert len(loaded) + len(loaded.dropped) == len(rows) == loaded.report.rows
    assert [drop.row for drop in loaded.dropped] == [2, 3, 4]
    assert loaded.dropped[1] == Dropped(3, "row-3", "empty_prompt", "prompt is empty")


# -- what is wrong with all rows -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"prompt": "a", "chosen_image": CAT, "rejectd_image": DOG},
            "for rejected_image, did you mean 'rejectd_image'",
        ),
        (
            {"promt": "a", "chosen_image": CAT, "rejected_image": DOG},
            "Missing: prompt; for prompt, did you mean 'promt'",
        ),
        ({"caption": "a", "jpg_0": CAT, "jpg_1": DOG}, "Missing: label_0"),
        ({"caption": "a", "jpg_0": CAT, "label_0": 1}, "Missing: jpg_1"),
        ({"prompt": "a", "image": CAT}, "Missing: label"),
        ({"file_name": "a.png", "label": 1}, r"in a metadata.jsonl, .*Missing: prompt"),
        (
            PAIR | {"chosen_image": "no.png"},
            r"no row of .* can be used: 1 missing_image \(first: row 1, .*no such file",
        ),
        (PAIR | {"chosen_image": b"x"}, "no row of .* can be used: 1 broken_image"),
    ],
)
def test_what_is_wrong_with_all_rows_is_an_error(row: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_image_comparisons([row])


@pytest.mark.parametrize(
    ("columns", "images"),
    [
        (["caption", "jpg_0", "jpg_1", "label_0"], True),
        (["prompt", "chosen_image", "rejected_image"], True),
        (["chosen_file_name", "rejected_file_name", "text"], True),
        (["prompt", "image", "label"], True),
        (["file_name", "text", "label"], True),
        (
            ["prompt", "rejected_image", "choosen_image"],
            True,
        ),  # so that the right loader tells what is missing
        (["prompt", "chosen", "rejected"], False),
        (["prompt", "chosen", "rejected", "image"], False),  # answers about an image
        (["prompt", "chosen", "rejected", "chosen_image", "rejected_image"], False),
        (["prompt", "completion", "label", "image"], False),
        (["prompt", "image", "chosen_condition", "rejected_condition"], False),
        (["prompt", "label"], False),
    ],
)
def test_image_data_is_recognised(columns: list[str], images: bool) -> None:
    assert looks_like_images(columns) == images
