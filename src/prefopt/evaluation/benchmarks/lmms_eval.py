"""The same benchmarks by lmms-eval, which papers report: the command that asks a model, and the figures it wrote."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefopt.evaluation.benchmarks.base import read_json

TASKS = {
    "longvideobench": "longvideobench_val_v",
    "lvbench": "lvbench",
    "mlvu": "mlvu_dev",
    "mvbench": "mvbench",
    "videomme": "videomme",
}
WITH_SUBTITLES = {"longvideobench": "longvideobench_val_i", "videomme": "videomme_w_subtitle"}
ADAPTERS = {
    "internvl": ("internvl_hf", "num_frames"),
    "llava_onevision": ("llava_hf", "max_frames_num"),
    "qwen2_vl": ("qwen2_vl", "max_num_frames"),
    "qwen2_5_vl": ("qwen2_5_vl", "max_num_frames"),
    "qwen3_vl": ("qwen3_vl", "max_num_frames"),
    "qwen3_5": ("qwen3_5", "max_num_frames"),
}
"""By `model_type`: lmms-eval's name of the class, and of its argument for the number of frames."""


def command(model: str, benchmark: str, output: Path, frames: int, subtitles: bool = False) -> str:
    """The text of a shell script that runs lmms-eval (0.7) on a model.

    Args:
        model: folder of a whole model; of a run with adapters, the merged model.
        benchmark: as `prefopt evaluate` calls it.
        output: folder for lmms-eval's results.
        frames: of each video.
        subtitles: whether they are shown.

    Raises:
        ValueError: a benchmark or a model that has no counterpart there.
    """
    tasks = WITH_SUBTITLES if subtitles else TASKS
    if benchmark not in tasks:
        raise ValueError(
            f"{benchmark} has no task of lmms-eval{' with subtitles' if subtitles else ''} here; there are {', '.join(tasks)}"
        )
    folder = Path(model).expanduser()
    if (folder / "adapter_config.json").exists():
        raise ValueError(
            f"{model} is an adapter, which lmms-eval does not load: merge it into its model, and give that folder"
        )
    config = folder / "config.json"
    kind = str(read_json(config).get("model_type")) if config.exists() else None
    if kind not in ADAPTERS:
        raise ValueError(
            f"{model} has {f'model_type {kind}' if kind else 'no config.json'}; lmms-eval is known to read "
            f"{', '.join(ADAPTERS)}. Needed the folder of such a model"
        )
    adapter, argument = ADAPTERS[kind]
    words = (
        "lmms-eval", "--model", adapter, "--model_args", f"pretrained={folder},{argument}={frames}",
        "--tasks", tasks[benchmark], "--batch_size", "1", "--output_path", str(output), "--log_samples",
    )  # fmt: skip
    return f"#!/bin/sh\n# pip install lmms-eval; it downloads the benchmark's videos\n{shlex.join(words)}\n"


def read_results(path: Path) -> dict[str, dict[str, float]]:
    """Figures of a results file (`*_results.json`) by task; standard errors and what is no number are left out.

    Raises:
        ValueError: another file.

    Example:
        >>> read_results(Path("run_results.json"))["mlvu_dev"]                          # doctest: +SKIP
        {'mlvu_percetion_score': 71.2}
    """
    found = read_json(path)
    results = found.get("results") if isinstance(found, dict) else None
    if not isinstance(results, Mapping):
        raise ValueError(f"{path} has no `results`: needed the file *_results.json that lmms-eval writes")
    return {str(task): figures for task, row in results.items() if (figures := _figures(row))}


def _figures(row: Any) -> dict[str, float]:
    named = {str(name).rpartition("/")[2].partition(",")[0]: value for name, value in row.items()}
    return {
        name: float(value)
        for name, value in named.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and not name.endswith("_stderr")
    }
