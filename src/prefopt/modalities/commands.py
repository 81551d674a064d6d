"""What commands have in common, those of a modality's folder and the others."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import click


@contextlib.contextmanager
def errors_told(*also: type[Exception]) -> Iterator[None]:
    """Errors that a user can act on become one plain line; PREFOPT_DEBUG=1 shows where.

    Args:
        also: kinds of errors beside ValueError and OSError.
    """
    kinds: tuple[type[Exception], ...] = (ValueError, OSError, *also)
    try:
        yield
    except kinds as error:
        if "PREFOPT_DEBUG" in os.environ:
            raise
        raise click.ClickException(str(error)) from error
