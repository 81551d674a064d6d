"""Prompts as points: how far they lie from each other decides which of them to label first, and how BCO weighs them.

Legend: N prompts, B of a batch, T tokens, D hidden width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from prefopt.comparisons import Example
from prefopt.config import TrainConfig
from prefopt.likelihoods.capability import causal_lm, trunk_of
from prefopt.likelihoods.rotary import companies, forgetful, switch_of
from prefopt.likelihoods.tokens import padding_within
from prefopt.modalities.text.start import folder_of, loaded
from prefopt.models.positions import likelihood_for


def prompt_embeddings(config: TrainConfig, examples: Sequence[Example]) -> np.ndarray:
    """(N, D) float32, the starting model's last hidden state at the last token of each prompt."""
    source = folder_of(config.model)
    likelihood = likelihood_for(source, config.max_length)
    kept = -(likelihood.positions or 0)  # of a longer prompt the end
    prompts = [likelihood.prompt_ids(e.items[0].condition)[kept:] for e in examples]
    if empty := [e.id for e, ids in zip(examples, prompts, strict=True) if not ids]:
        raise ValueError(f"seed_selection=farthest compares prompts, and that of row {empty[0]} has no token")
    network = loaded(config, source)
    try:
        return embedded(network, prompts, config.per_device_eval_batch_size, likelihood.pad_token_id)
    except NoTrunk:
        raise ValueError(
            f"seed_selection=farthest needs hidden states, and {config.model} does not say what gives them: use random"
        ) from None


class NoTrunk(ValueError):
    """A model that does not say what gives its hidden states."""


@torch.inference_mode()
def embedded(
    network: Any, prompts: Sequence[Sequence[int]], batch_size: int, pad_token_id: int
) -> np.ndarray:
    """(N, D) float32, a model's last hidden state at the last token of each prompt.

    Args:
        network: as it is on its device; dropout should be off.
        prompts: token ids, of each at least one.
        batch_size: prompts a forward pass.
        pad_token_id: behind the shorter ones.

    Raises:
        NoTrunk: it does not say what gives them.
    """
    inner = causal_lm(network)
    trunk = None if inner is None else trunk_of(inner)
    if trunk is None:
        raise NoTrunk("no module of the model is known to give hidden states")
    device = next(network.parameters()).device
    order = sorted(range(len(prompts)), key=lambda k: len(prompts[k]))
    found: dict[int, np.ndarray] = {}
    lengths = [len(prompts[k]) for k in order]
    for places in companies(lengths, 0, batch_size, switch_of(network)):
        batch = [order[n] for n in places]
        ids_BT = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(list(prompts[k])) for k in batch],
            batch_first=True,
            padding_value=padding_within(network, pad_token_id),
        )
        last_B = torch.tensor([len(prompts[k]) - 1 for k in batch])
        mask_BT = (torch.arange(ids_BT.shape[1]) <= last_B[:, None]).long()
        with forgetful(network):
            out = trunk(input_ids=ids_BT.to(device), attention_mask=mask_BT.to(device))
        hidden_BTD = out.last_hidden_state
        rows_BD = hidden_BTD[torch.arange(len(batch)), last_B].float().cpu().numpy()
        found.update(zip(batch, rows_BD, strict=True))
    return np.stack([found[k] for k in range(len(prompts))])
