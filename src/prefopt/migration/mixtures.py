"""What TRL's files say of data: `dataset_name`, the sources of `datasets`, and alignment-handbook's `dataset_mixer` and `dataset_mixture`.

All of them become one source, and what of it is evaluated on. Rows that are held out there are held out here, whether they are
evaluated on or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefopt.config import ConfigError
from prefopt.migration.arguments import evaluation
from prefopt.migration.draft import GIVEN, Draft, as_list, said

NAMED = ("dataset_name", "dataset_config", "dataset_train_split", "dataset_test_split")
MIXED = ("dataset_mixer", "dataset_mixture", "dataset_splits", "dataset_configs")
JOIN = "Join them (datasets.concatenate_datasets(...).to_parquet(...)) and give the file: data=FILE"
SYSTEM = (
    "alignment-handbook put an empty system message before conversations that have none, where the chat template knows such messages "
    "(auto_insert_empty_system_msg); prefopt writes conversations as they are"
)


def data(draft: Draft) -> None:
    """The data set, and what is evaluated on."""
    strategy = draft.given.get("eval_strategy") or draft.given.get("evaluation_strategy") or "no"
    asked = strategy != "no"
    if "data" in draft.overrides:
        _of_other_data(draft, asked)
        draft.leave(
            GIVEN.format(key="data"), *(key for key in (*NAMED, "datasets", *MIXED) if draft.has(key))
        )
    elif draft.has("dataset_mixture"):
        mixture = draft.mapping("dataset_mixture")
        sources = mixture.get("datasets") or []
        if not isinstance(sources, list) or not all(isinstance(source, Mapping) for source in sources):
            raise ConfigError(
                f"dataset_mixture: datasets: needed a list of sources; given {said('', sources)}"
            )
        called = {"id": "path", "config": "name"}
        _one_of(
            draft,
            "dataset_mixture",
            [{called.get(name, name): value for name, value in source.items()} for source in sources],
            mixture.get("test_split_size"),
            asked,
        )
    elif sources := draft.entries("datasets"):
        _one_of(draft, "datasets", sources, draft.take("test_split_size"), asked)
    elif draft.has("dataset_mixer"):
        _mixer(draft, asked)
    else:
        _named(draft, asked)


def _of_other_data(draft: Draft, asked: bool) -> None:
    """Splits that the file names are those of the data that it names; a share of all of it is one of any data."""
    share = draft.take("test_split_size") if draft.has("datasets") else None
    if draft.has("dataset_mixture"):
        share = draft.mapping("dataset_mixture").get("test_split_size")
    if share is not None:
        origin = {"eval_size": ("test_split_size",)} if draft.has("test_split_size") else {}
        evaluation(draft, {"eval_size": share}, origin, "dataset_mixture's test_split_size")
        return
    if draft.has("test_split_size"):
        draft.leave("read only with datasets", "test_split_size")
    if not asked:
        evaluation(draft, {}, {}, NOTHING)
        return
    if not draft.overrides.keys() & {"eval_data", "eval_size", "eval_split"}:
        draft.check(
            "what was evaluated on is not known of this data: a tenth of its rows is held out, and not trained on. Say eval_data=FILE, "
            "eval_split=NAME or eval_size=N for something else"
        )
    split = "eval_split" in draft.overrides and "eval_data" not in draft.overrides
    evaluation(
        draft, {"eval_data": draft.overrides["data"]} if split else None, {}, "eval_split is of the same data"
    )


NOTHING = "TRL evaluates only with an eval_strategy; prefopt's share is 0.1"


def _one_of(
    draft: Draft, key: str, sources: list[dict[str, Any]], held_out: float | None, asked: bool
) -> None:
    """The one entry of a list of sources.

    Args:
        draft: of the file.
        key: that holds the list.
        sources: by `load_dataset`'s names, and `columns`, and `fraction` or `weight`.
        held_out: share or number of rows that are split off at random, and not trained on.
        asked: whether anything is evaluated along the way.
    """
    if len(sources) != 1:
        draft.refuse(f"{key}: prefopt trains on one source, and there are {len(sources)}. {JOIN}")
        return
    source = {name: value for name, value in sources[0].items() if value is not None}
    split = str(source.pop("split", "train"))
    files, others = source.pop("data_files", None), {}
    if isinstance(files, Mapping):
        others = {str(name): as_list(value) for name, value in files.items()}
        if split not in others:
            draft.refuse(f"{key}: data_files has no {split}; it has {', '.join(others)}")
            return
        files = others.pop(split)
    chosen = as_list(files)
    if len(chosen) > 1:
        draft.refuse(
            f"data_files: prefopt trains on one source; join the {len(chosen)} files, or give their folder"
        )
        return
    path = source.pop("path", None)
    draft.put("data", chosen[0] if chosen else path, key)
    if name := source.pop("name", None):
        draft.put("data_config", name, key)
    if split != "train" and not chosen:
        draft.put("split", split, key)
    source.pop("fraction", None)  # of one source, all of it
    _share(draft, key, source.pop("weight", 1.0), "drawn at random")
    if source:
        draft.check(
            f"of this source, {', '.join(source)} have no counterpart, and nothing was made of them", key
        )
    if unread := [name for name in (*NAMED, "dataset_splits", "dataset_configs") if draft.has(name)]:
        draft.leave(f"not read there beside {key}", *unread)
    tests = [file for name in ("test", "validation") for file in others.pop(name, [])]
    if held_out is not None:
        evaluation(
            draft, {"eval_size": held_out}, {"eval_size": (key if key != "datasets" else "test_split_size",)}
        )
    elif not asked:
        if tests:
            draft.check(
                f"nothing reads {', '.join(map(str, tests))} there without an eval_strategy: eval_data=FILE does here",
                key,
            )
        evaluation(draft, {}, {}, NOTHING)
        return
    elif len(tests) == 1:
        evaluation(draft, {"eval_data": tests[0]}, {"eval_data": (key,)})
    elif draft.overrides.keys() & {"eval_data", "eval_size"}:
        evaluation(draft, None, {})
    else:
        draft.refuse(
            f"{key}: it has nothing to evaluate on without test_split_size, and evaluation is asked for: say what to evaluate on, "
            "eval_data=FILE or eval_size=N, beside the file"
        )
    if held_out is not None and tests:
        draft.check(
            f"nothing reads {', '.join(map(str, tests))} there: rows are split off by test_split_size", key
        )


def _share(draft: Draft, key: str, share: Any, which: str) -> None:
    if isinstance(share, bool) or not isinstance(share, int | float):
        raise ConfigError(f"{key}: needed a share of each source; given {said('', share)}")
    if share != 1 and "max_examples" not in draft.overrides:
        draft.check(
            f"of this source, a share of {share:g} is trained on there, {which}; prefopt takes a number: max_examples=N",
            key,
        )


def _mixer(draft: Draft, asked: bool) -> None:
    """Data sets and their shares by name; splits are training's or evaluation's by their names."""
    mixer = draft.mapping("dataset_mixer")
    splits = [str(split) for split in as_list(draft.take("dataset_splits"))] or ["train", "test"]
    configs = as_list(draft.take("dataset_configs"))
    training = [split for split in splits if "train" in split]
    testing = [split for split in splits if "test" in split and split not in training]
    if len(mixer) != 1 or len(training) != 1 or (asked and len(testing) > 1):
        what = f"{len(mixer)} sources" if len(mixer) != 1 else f"the splits {', '.join(splits)}"
        draft.refuse(
            f"dataset_mixer: prefopt trains on one split of one source, and there are {what}. {JOIN}"
        )
        return
    ((name, share),) = mixer.items()
    draft.put("data", name, "dataset_mixer")
    if configs and configs[0]:
        draft.put("data_config", configs[0], "dataset_configs")
    origin = ("dataset_splits",) if draft.has("dataset_splits") else ()
    if training != ["train"]:
        draft.put("split", training[0], *origin)
    _share(draft, "dataset_mixer", share, "its first rows")
    if draft.take("auto_insert_empty_system_msg", True):
        draft.check(
            SYSTEM, *(["auto_insert_empty_system_msg"] if draft.has("auto_insert_empty_system_msg") else [])
        )
    if not asked:
        evaluation(draft, {}, {}, NOTHING)
    elif not testing and not draft.overrides.keys() & {"eval_data", "eval_size"}:
        draft.refuse(
            "dataset_splits names none to evaluate on, and evaluation is asked for: give eval_data=FILE or eval_size=N"
        )
    else:
        held = {"eval_data": draft.out.get("data"), "eval_split": testing[0] if testing else ""}
        why = "alignment-handbook evaluates on another split of the same data"
        evaluation(draft, held, {"eval_split": origin}, why)


def _named(draft: Draft, asked: bool) -> None:
    """A data set of the hub, or its folder, by its name."""
    draft.carry("data", "dataset_name")
    draft.carry("data_config", "dataset_config")
    draft.carry("split", "dataset_train_split", "train")
    if draft.has("test_split_size"):
        draft.leave("read only with datasets", "test_split_size")
    test = draft.take("dataset_test_split", "test")
    if not asked:
        draft.same += ["dataset_test_split"] * draft.has("dataset_test_split")
        evaluation(draft, {}, {}, NOTHING)
        return
    origin = {"eval_split": ("dataset_test_split",)} if draft.has("dataset_test_split") else {}
    evaluation(
        draft,
        {"eval_data": draft.out.get("data"), "eval_split": test},
        origin,
        "TRL evaluates on another split of the same data",
    )
