"""Runs of `prefopt train` for papers: assembled from a configuration, without bars, evaluations or pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any


def assembled(options: Mapping[str, Any], change: Callable[[Any, Any], Any] | None = None) -> Any:
    """A run of `prefopt train`, ready for its loop's `fit`.

    Args:
        options: of the configuration; `output_dir` and `seed` among them. Nothing is sampled, and no checkpoint saved.
        change: given context and set-up, returns the set-up to use.

    Returns:
        `training.course.Course`.
    """
    from prefopt import modalities
    from prefopt.config import resolve
    from prefopt.modalities.base import Context
    from prefopt.runs.console import Console
    from prefopt.runs.record import Record
    from prefopt.runs.trackers import Trackers
    from prefopt.training.run import assemble, build_objective, make_accelerator

    config, hyper = resolve({"save_strategy": "no", "sample_prompts": 0, **options})
    objective = build_objective(config, hyper)
    accelerator, precision = make_accelerator(config, Path(config.output_dir))
    record = Record(Path(config.output_dir), config, hyper, main=True, resuming=False)
    console = Console(False)
    trackers = Trackers(config, hyper, accelerator, record.folder, False, console.say)
    modality = modalities.of_config(config)
    context = Context(modality, config, objective, accelerator, precision, record, console, None, trackers)
    setup = modality.part("setup").set_up(context)
    if change is not None:
        setup = change(context, setup)
    course = assemble(context, setup, None)
    course.loop.scorer.reference.policy_moved()
    return course


@contextmanager
def on_rows(rows: list[dict[str, Any]], **options: Any) -> Iterator[Any]:
    """A run on rows in memory, of which none is held out; its folder lasts as long as the context.

    Args:
        rows: to train on.
        options: of the configuration but `data`, `eval_size` and `output_dir`.

    Returns:
        `training.course.Course`; its loop's `fit` trains, its `save_model` writes.
    """
    from prefopt.sources import memory

    with TemporaryDirectory() as folder, memory.held("data", rows) as name:
        yield assembled({**options, "data": name, "eval_size": 0, "output_dir": str(Path(folder) / "run")})
