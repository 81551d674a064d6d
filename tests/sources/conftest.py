"""Videos that several files of tests read."""

from __future__ import annotations

import pytest

from tiny_videos import ENCODINGS, encoded


@pytest.fixture(scope="session")
def files() -> dict[str, bytes]:
    """One video of 40 frames, 10 a second, in each encoding."""
    return {name: encoded(name) for name in ENCODINGS}
