"""Launchers that split rows over devices are refused: each process would be given examples of its own."""

from __future__ import annotations

import pytest

from prefopt.config import ConfigError
from prefopt.training.run import check_parallelism


@pytest.mark.parametrize("name", ["CP", "SP", "TP"])
def test_split_rows_are_refused(name):
    check_parallelism({f"PARALLELISM_CONFIG_{name}_SIZE": "1"})
    with pytest.raises(ConfigError, match=f"over 2 devices \\({name.lower()}_size=2\\)"):
        check_parallelism({f"PARALLELISM_CONFIG_{name}_SIZE": "2"})


def test_data_parallel_launchers_are_not():
    check_parallelism({"PARALLELISM_CONFIG_DP_SHARD_SIZE": "2"})
