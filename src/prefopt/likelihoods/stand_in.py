"""Another function in place of a module's own forward pass, for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def standing_in(module: Any, forward: Callable[..., Any]) -> Iterator[None]:
    """Within it, the module's forward is another function."""
    own = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own
