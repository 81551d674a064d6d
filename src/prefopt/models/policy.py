"""The policy as training and references see it, whatever library its model comes from."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from torch import nn


class Policy(Protocol):
    """A model to train, and how to make it score as the reference."""

    @property
    def model(self) -> nn.Module:
        """The trained module."""
        ...

    @property
    def source(self) -> str:
        """Folder or hub id that it was loaded from."""
        ...

    @property
    def adapter(self) -> str | None:
        """Name of the trained adapter, None under full fine-tuning."""
        ...

    def as_reference(self) -> AbstractContextManager[None]:
        """While open, the model scores as before training: adapters off, or its frozen starting adapter on."""
        ...
