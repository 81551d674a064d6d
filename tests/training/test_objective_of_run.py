"""The objective of a run: what a configuration must give before anything is loaded."""

from __future__ import annotations

import pytest

from prefopt.config import ConfigError, resolve
from prefopt.objectives import VDPO
from prefopt.training.run import build_objective


@pytest.mark.parametrize("method", ["vdpo", "dpo+0.5*vdpo"])
def test_what_has_no_default_must_be_given(method: str) -> None:
    config, hyper = resolve({"method": method, "model": "m", "data": "d"})
    with pytest.raises(ConfigError, match=r"VDPO needs alpha.*alpha=\.\.\."):
        build_objective(config, hyper)


def test_and_then_stands() -> None:
    config, hyper = resolve({"method": "vdpo", "model": "m", "data": "d", "alpha": "0.5"})
    assert build_objective(config, hyper) == VDPO(alpha=0.5)
    config, hyper = resolve({"method": "vdpo", "model": "m", "data": "d", "alpha": "-1"})
    with pytest.raises(ConfigError, match="no gradient"):
        build_objective(config, hyper)
