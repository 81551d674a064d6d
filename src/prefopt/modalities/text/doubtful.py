"""Pairs and how clearly the starting model tells their sides apart: what ComPO splits its data by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from prefopt.comparisons import Encoded
from prefopt.config import TrainConfig
from prefopt.evaluation.answers import sequence_logps
from prefopt.likelihoods.plan import EncodedText
from prefopt.likelihoods.tokens import TokenLikelihood
from prefopt.modalities.splits import read
from prefopt.modalities.text.encoding import encode_examples
from prefopt.modalities.text.oracle import moved_parameters
from prefopt.modalities.text.rows import load_comparisons, row_of
from prefopt.modalities.text.start import check_start, folder_of, loaded, source_folder
from prefopt.models.loading import load_tokenizer
from prefopt.models.positions import likelihood_for
from prefopt.objectives.base import Objective
from prefopt.sources.report import Dropped


@dataclass(frozen=True)
class Pairs:
    """See `prefopt.stages.answers.Pairs`; here encoded."""

    rows: list[dict[str, Any]]
    held_out: list[dict[str, Any]]
    dropped: list[Dropped]
    encoded: list[Encoded[EncodedText]]
    likelihood: TokenLikelihood
    source: str
    config: TrainConfig

    @property
    def lengths(self) -> list[float]:
        """Mean length of a pair's completions, in tokens."""
        return [sum(item.length for item in ends(e)) / 2 for e in self.encoded]

    def margins(self) -> list[float]:
        """log pi(chosen) - log pi(rejected) of each pair under the reference, in nats.

        Raises:
            ConfigError: nothing is named as `perturbed` says.
        """
        network = loaded(self.config, self.source)
        # a name that nothing has is found now, not after the first stage
        moved_parameters(network, self.config.perturbed)
        self.likelihood.adapt(network)
        logp_N2 = torch.tensor(
            sequence_logps(network, self.likelihood, [item for e in self.encoded for item in ends(e)]),
            dtype=torch.float64,
        ).view(-1, 2)
        margin_N: list[float] = (logp_N2[:, 0] - logp_N2[:, 1]).tolist()
        return margin_N


def read_pairs(config: TrainConfig, objective: Objective) -> Pairs:
    """Read and tokenize; nothing is written, no weights are loaded.

    Raises:
        ConfigError, ValueError, OSError: no usable pair.
    """
    parts = read(config, objective, load_comparisons)
    check_start(config, load_tokenizer(folder_of(config.model)))
    source = source_folder(config)
    likelihood = likelihood_for(source, config.max_length, truncation_mode=config.truncation_mode)
    train = encode_examples(parts.train, likelihood)
    examples = {e.id: e for e in parts.train.examples}
    return Pairs(
        rows=[row_of(examples[e.id]) for e in train.examples],
        held_out=[row_of(e) for e in parts.held_out.examples],
        dropped=train.dropped,
        encoded=train.examples,
        likelihood=likelihood,
        source=source,
        config=config,
    )


def ends(example: Encoded[EncodedText]) -> tuple[EncodedText, EncodedText]:
    """(chosen, rejected) of an encoded pair."""
    edge = example.comparisons[0]
    assert edge.second is not None, "reading gives pairs"
    return example.items[edge.first], example.items[edge.second]
