"""Which cases of the battery are long and tell little that others do not: control images are images with a network beside."""

from __future__ import annotations

import pytest

SLOW = {
    f"{test}[control]"
    for test in ("test_a_killed_run_goes_on_to_the_same_bits", "test_adapters", "test_two_processes_are_one")
}


@pytest.hookimpl(tryfirst=True)  # before marks select
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.name == "test_battery.py" and item.name in SLOW:
            item.add_marker(pytest.mark.slow)
