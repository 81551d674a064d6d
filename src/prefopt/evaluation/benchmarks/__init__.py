"""Benchmarks of vision-language models, of hallucination and of long video: records in, figures out.

Each file is a benchmark: pure functions of records (`pope`, `chair`, `mlvu`, ...), and reading and writing of the
files that it is published in (`base.Benchmark`). Nothing here asks a model or a judge. `comparison.py` sets a model beside a
baseline.
"""

from __future__ import annotations

import importlib
from typing import cast

from prefopt.evaluation.benchmarks.base import Benchmark

BENCHMARKS = {
    "amber": "amber",
    "hallusionbench": "hallusion_bench",
    "longvideobench": "longvideobench",
    "lvbench": "lvbench",
    "mlvu": "mlvu",
    "mmhal": "mmhal",
    "mmstar": "mmstar",
    "mvbench": "mvbench",
    "object-halbench": "object_halbench",
    "pope": "pope",
    "videomme": "videomme",
}
"""Modules by the names of the command line."""


def find(name: str) -> Benchmark:
    """The benchmark of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in BENCHMARKS:
        raise ValueError(f"there is no benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
    return cast(Benchmark, importlib.import_module(f"{__name__}.{BENCHMARKS[name]}"))
