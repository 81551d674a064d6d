"""Answers of a policy to prompts without labels, and how likely policy and reference find them.

With what is imported here, all that methods of several runs ask of a modality: see `prefopt.stages.answers`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from prefopt.comparisons import Item
from prefopt.config import ConfigError, TrainConfig
from prefopt.evaluation.answers import sequence_logps
from prefopt.files import link_or_copy, write_whole
from prefopt.generation.base import Request, Settings
from prefopt.generation.journal import collect
from prefopt.likelihoods.plan import EncodedText
from prefopt.likelihoods.tokens import TokenLikelihood
from prefopt.modalities.text.doubtful import read_pairs
from prefopt.modalities.text.oracle import check_oracle
from prefopt.modalities.text.prompt_embeddings import prompt_embeddings
from prefopt.modalities.text.rows import load_comparisons, row_of
from prefopt.modalities.text.start import check_start, folder_of, loaded, source_folder
from prefopt.models.identity import fingerprint, saved_fingerprint
from prefopt.models.loading import load_tokenizer
from prefopt.models.positions import likelihood_for
from prefopt.models.sources import check_causal
from prefopt.sources.prompts import NamedPrompt
from prefopt.sources.report import Dropped

__all__ = [
    "check_oracle",
    "load_comparisons",
    "prompt_embeddings",
    "read_pairs",
    "room_for_answers",
    "row_of",
    "sample",
    "score",
]

WHOLE_DISTRIBUTION = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}


def room_for_answers(
    config: TrainConfig, prompts: Sequence[NamedPrompt]
) -> tuple[list[NamedPrompt], list[Dropped]]:
    """Prompts that can be asked, and those that are too long for an answer behind them.

    Loads the tokenizer, and of the model its configuration alone.

    Raises:
        ConfigError: prompts with tools, which cannot be asked yet; messages without a chat template; no prompt fits.
    """
    if extra := sorted({k for _, condition in prompts for k in condition} - {"prompt"}):
        raise ConfigError(
            f"prompts carry {', '.join(extra)}, with which answers cannot be sampled yet: remove these columns"
        )
    source = folder_of(config.model)
    check_causal(source, trained=True, adapters=config.use_peft)
    tokenizer = load_tokenizer(source)
    check_start(config, tokenizer)
    if not tokenizer.chat_template and any(not isinstance(c["prompt"], str) for _, c in prompts):
        raise ConfigError(
            f"the prompts are messages but the tokenizer of {config.model} has no chat template: set "
            "tokenizer.chat_template and save it with the model, or give prompts as plain strings"
        )
    likelihood = likelihood_for(source, config.max_length, source_folder(config), tokenizer=tokenizer)
    positions = likelihood.positions
    limits = [config.max_length and config.max_length - 1]  # a place for a token to score
    limits.append(positions and positions - config.response_tokens)
    limit = min((x for x in limits if x is not None), default=None)
    kept, dropped = [], []
    for number, (name, condition) in enumerate(prompts, 1):
        length = len(likelihood.prompt_ids(condition))
        if length and (limit is None or length <= limit):
            kept.append((name, condition))
        else:
            told = f"the prompt has {length} tokens; needed 1 to {limit}, to leave room for an answer"
            dropped.append(Dropped(number, name, "prompt_length", told))
    if prompts and not kept:
        raise ConfigError(
            f"no prompt leaves room for an answer: needed at most {limit} tokens, from max_length={config.max_length}, "
            f"response_tokens={config.response_tokens} and the model's {positions} positions: lower response_tokens"
        )
    return kept, dropped


def sample(
    config: TrainConfig, model: str, prompts: Sequence[NamedPrompt], journal: Path, number: int
) -> list[list[Any]]:
    """`config.responses` answers a prompt, in the form of its rows: text, or a list of one message.

    Args:
        config: how to sample.
        model: folder of the policy.
        prompts: (id, condition).
        journal: answers that arrived are kept there; only missing ones are sampled.
        number: of the round; its answers have noise of their own.

    Raises:
        OSError, ValueError: see the generators.
    """
    requests = [
        Request(id=name, prompt=condition["prompt"], n=config.responses) for name, condition in prompts
    ]
    settings = Settings(
        max_new_tokens=config.response_tokens,
        temperature=config.response_temperature,
        top_p=config.response_top_p,
        seed=config.seed * 1000 + number,
    )
    generator: Any
    if config.generation_server is not None:
        from prefopt.generation.server import ServerGenerator

        folder = to_serve(Path(model), journal.parent / "served").resolve()
        generator = ServerGenerator(config.generation_server, str(folder))
        generator.identity = saved_fingerprint(folder)
    else:
        from prefopt.generation.local import LocalGenerator

        network = loaded(config, model)
        # answers of other weights, left by a round that was trained again, must not pass for this one's
        generator = LocalGenerator(
            network, load_tokenizer(model), config.per_device_eval_batch_size, identity=fingerprint(network)
        )
    found: dict[str, list[str]] = {name: [""] * config.responses for name, _ in prompts}
    for response in collect(generator, requests, settings, journal):
        found[response.id][response.sample] = response.text
    return [[as_sample(condition, text) for text in found[name]] for name, condition in prompts]


def to_serve(model: Path, folder: Path) -> Path:
    """A folder for servers that holds a saved model, linked, and asks to be drawn from its whole distribution.

    `transformers serve` takes the likeliest token, and of a draw the likeliest 50, unless the model's own configuration
    says otherwise, which a request cannot ask for; others read penalties there. The model's own folder stays as it was.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(model, partial, copy_function=link_or_copy)
    path = partial / "generation_config.json"
    values = json.loads(path.read_text("utf-8")) if path.exists() else {}
    ends = {k: v for k, v in values.items() if k in ("bos_token_id", "eos_token_id", "pad_token_id")}
    write_whole(path, json.dumps(ends | WHOLE_DISTRIBUTION, indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)
    return folder


def as_sample(condition: Mapping[str, Any], text: str) -> Any:
    """An answer in the form that its prompt asks for."""
    return text if isinstance(condition["prompt"], str) else [{"role": "assistant", "content": text}]


def score(
    config: TrainConfig, model: str, prompts: Sequence[NamedPrompt], answers: Sequence[Sequence[Any]]
) -> tuple[list[list[float]], list[list[float]]]:
    """Summed log-probabilities (nats) of all answers under the policy and under the starting model.

    Scored exactly as training will score them: by the same likelihood, cut to the same length, at temperature 1.

    Returns:
        A list a prompt, policy's and reference's.
    """
    reference = source_folder(config)
    likelihood = likelihood_for(model, config.max_length, reference, truncation_mode=config.truncation_mode)
    items = [
        likelihood.encode(Item(condition, answer))
        for (_, condition), row in zip(prompts, answers, strict=True)
        for answer in row
    ]
    sides = []
    for name in (model, reference):
        network = loaded(config, name)
        likelihood.adapt(network)
        found = iter(_scored(network, likelihood, items))
        del network
        sides.append([[next(found) for _ in row] for row in answers])
    return sides[0], sides[1]


def _scored(network: Any, likelihood: TokenLikelihood, items: list[EncodedText]) -> list[float]:
    device = next(network.parameters()).device
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
        return sequence_logps(network, likelihood, items)
