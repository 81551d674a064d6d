"""Completions of a policy on fixed prompts, with their log-probabilities under policy and reference.

The sampled sequence KL, mean of log pi(y|x) - log pi_ref(y|x) over y drawn from the policy at temperature 1, needs
scores of fresh text, so it cannot come from the reference cache.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from prefopt.generation.local import continuations
from prefopt.likelihoods.plan import EncodedText
from prefopt.likelihoods.rotary import companies, switch_of
from prefopt.likelihoods.tokens import TokenLikelihood


@dataclass(frozen=True)
class Generation:
    """One completion: its text as a reader sees it, and its tokens behind the prompt's."""

    text: str
    item: EncodedText
    ended: bool
    """Whether the model ended it by itself."""


@torch.no_grad()
def generate(
    model: Any,
    likelihood: TokenLikelihood,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    seed: int = 0,
    batch_size: int = 64,
) -> list[Generation]:
    """One completion a prompt, from the model's own distribution, whatever its generation configuration asks for.

    Args:
        model: a causal language model, unwrapped.
        likelihood: for its tokenizer.
        prompts: token ids, ready for generation.
        max_new_tokens: completions are cut there.
        temperature: of the softmax; 0 is greedy.
        seed: of the sampling; the global random state is left as found.
        batch_size: sequences at once.
    """
    device = next(model.parameters()).device
    out: dict[int, Generation] = {}
    lengths = [len(prompt) for prompt in prompts]
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        for chosen in companies(lengths, max_new_tokens, batch_size, switch_of(model)):
            drawn = continuations(
                model,
                [prompts[n] for n in chosen],
                likelihood.pad_token_id,
                likelihood.tokenizer.eos_token_id,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
            )
            for n, (tokens, ended) in zip(chosen, drawn, strict=True):
                out[n] = Generation(
                    text=likelihood.tokenizer.decode(tokens, skip_special_tokens=True).strip(),
                    item=EncodedText(array("i", [*prompts[n], *tokens]), len(prompts[n])),
                    ended=ended,
                )
    return [out[n] for n in range(len(prompts))]


@torch.no_grad()
def sequence_logps(
    model: nn.Module, likelihood: TokenLikelihood, items: Sequence[EncodedText], batch_size: int = 32
) -> list[float]:
    """log pi(y|x) of each item in nats."""
    device = next(model.parameters()).device
    scores: list[float] = []
    for start in range(0, len(items), batch_size):
        plan = likelihood.plan(items[start : start + batch_size]).to(device)
        scores += likelihood.score(model, plan).logp_N.tolist()
    return scores


def repetition(text: str) -> float:
    """Share of a text's word trigrams that occurred before in it; 0 for short texts."""
    words = text.split()
    trigrams = list(zip(words, words[1:], words[2:], strict=False))
    return 1 - len(set(trigrams)) / len(trigrams) if trigrams else 0.0
