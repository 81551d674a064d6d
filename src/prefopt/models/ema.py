"""An exponential moving average of the trained weights, and a way to compute with it for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from prefopt.models.loading import trainable_parameters


class EMA:
    """ema <- decay ema + (1 - decay) weights, once an update; the plain recursion, without a warm-up of the decay.

    Args:
        model: whose trainable parameters are averaged, adapters or all.
        decay: in [0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._parameters = trainable_parameters(model)
        self._average = [p.detach().clone() for p in self._parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Take the present weights into the average."""
        for average, p in zip(self._average, self._parameters, strict=True):
            average.lerp_(p.detach().to(average.dtype), 1 - self.decay)

    @contextlib.contextmanager
    def swapped_in(self) -> Iterator[None]:
        """While open, the model has the averaged weights; do not train meanwhile."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        # storage changes hands, nothing is copied
        for k, p in enumerate(self._parameters):
            p.data, self._average[k] = self._average[k], p.data

    def state(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        return {f"ema/{k}": average for k, average in enumerate(self._average)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Back from a checkpoint."""
        with torch.no_grad():
            for k, average in enumerate(self._average):
                average.copy_(state[f"ema/{k}"])
