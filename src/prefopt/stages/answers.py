"""What a modality offers whose models answer prompts: the part `answers` of its folder, a module with these functions.

Methods of several runs ask for nothing else of a modality, so one that has the part has the methods.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from prefopt.config import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from prefopt.comparisons import Example
    from prefopt.config import TrainConfig
    from prefopt.modalities.base import Modality
    from prefopt.objectives.base import Objective
    from prefopt.sources.collecting import Comparisons
    from prefopt.sources.prompts import NamedPrompt
    from prefopt.sources.report import Dropped


class Pairs(Protocol):
    """Usable pairs before a split into clear and doubtful ones."""

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The pairs, as `row_of` writes them."""
        ...

    @property
    def held_out(self) -> list[dict[str, Any]]:
        """Pairs to judge by; none where nothing is held out."""
        ...

    @property
    def dropped(self) -> list[Dropped]:
        """Rows that could not be used."""
        ...

    @property
    def lengths(self) -> list[float]:
        """How long the two answers of each pair are on average, in the modality's unit."""
        ...

    def margins(self) -> list[float]:
        """log p(chosen) - log p(rejected) of each pair under the reference, in nats. Loads the model.

        Raises:
            ConfigError: the model has nothing that `perturbed` names.
        """
        ...


class Answers(Protocol):
    """Policies that are asked, and what they answer.

    An answer is what a row holds as `chosen`: text, or a list of one message where the prompt is a list of messages.
    """

    @property
    def load_comparisons(self) -> Callable[..., Comparisons]:
        """The modality's reader of rows; see `prefopt.modalities.splits.read`."""
        ...

    def row_of(self, example: Example) -> dict[str, Any]:
        """A pair as a row that `load_comparisons` reads back to the same example."""
        ...

    def room_for_answers(
        self, config: TrainConfig, prompts: Sequence[NamedPrompt]
    ) -> tuple[list[NamedPrompt], list[Dropped]]:
        """Prompts that can be asked, and those that are too long for an answer behind them. Loads no weights.

        Raises:
            ConfigError: prompts of a kind that cannot be asked; no prompt fits.
            ValueError: model or reference cannot be used.
        """
        ...

    def sample(
        self,
        config: TrainConfig,
        model: str,
        prompts: Sequence[NamedPrompt],
        journal: Path,
        number: int,
        wanted: range | None = None,
        opponent: str = "",
    ) -> list[list[Any]]:
        """Answers to each prompt.

        Args:
            config: how to sample.
            model: folder of the policy, or its source as configured.
            prompts: with their names.
            journal: answers that arrived are kept there; only missing ones are sampled.
            number: of the round; its answers have noise of their own.
            wanted: numbers of the samples; None: the first `config.responses`.
            opponent: who answers: "" the policy, "reference", or the "mixture" of both (`Method.opponent`).

        Raises:
            OSError, ValueError: a server went away, a journal of another run; what had arrived is kept.
        """
        ...

    def score(
        self,
        config: TrainConfig,
        model: str,
        prompts: Sequence[NamedPrompt],
        answers: Sequence[Sequence[Any]],
        ended: Sequence[Sequence[bool]],
    ) -> tuple[list[list[float]], list[list[float]]]:
        """Log-likelihoods of all answers, as training would score them; of those that were cut, without an end.

        Returns:
            A list a prompt, under the policy in the folder `model` and under the reference.
        """
        ...

    def prompt_embeddings(self, config: TrainConfig, examples: Sequence[Example]) -> np.ndarray:
        """(N, D) float32, a point for each example's prompt; near points are prompts of one kind.

        Raises:
            ValueError: the starting model has none to give.
        """
        ...

    def check_oracle(self, config: TrainConfig) -> None:
        """Raise ConfigError for settings that a comparison oracle on such a model cannot work with."""
        ...

    def read_pairs(self, config: TrainConfig, objective: Objective) -> Pairs:
        """The pairs of `config.data`. Writes nothing, loads no weights.

        Raises:
            ConfigError, ValueError, OSError: no usable pair.
        """
        ...


def answers_of(modality: Modality, model: str, method: str) -> Answers:
    """The part `answers` of a model's modality.

    Args:
        modality: of the model.
        model: folder, hub id or world, for the error.
        method: that asks for it, for the error.

    Raises:
        ConfigError: models of that modality answer no prompts.
    """
    try:
        part: Answers = modality.part("answers")
    except ModuleNotFoundError as error:
        if error.name != f"{modality.package}.answers":
            raise  # something that the part needs is not installed
        raise ConfigError(
            f"{method} trains models that answer prompts, and {model} is not one: its modality is {modality.name}"
        ) from None
    return part
