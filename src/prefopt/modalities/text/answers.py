"""Answers of a policy to prompts without labels, and how likely policy and reference find them.

With what is imported here, all that methods of several runs ask of a modality: see `prefopt.stages.answers`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from prefopt.comparisons import Item
from prefopt.config import ConfigError, TrainConfig
from prefopt.evaluation.answers import sequence_logps
from prefopt.files import link_or_copy, write_whole
from prefopt.generation.base import Request, Settings
from prefopt.generation.journal import collect
from prefopt.generation.reload import served
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

if TYPE_CHECKING:
    from prefopt.generation.local import LocalGenerator
    from prefopt.generation.server import ServerGenerator

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
    config: TrainConfig,
    model: str,
    prompts: Sequence[NamedPrompt],
    journal: Path,
    number: int,
    wanted: range | None = None,
    opponent: str = "",
) -> list[list[Any]]:
    """Answers to each prompt, in the form of its rows: text, or a list of one message.

    Args:
        config: how to sample.
        model: folder of the policy, or its source as configured.
        prompts: (id, condition).
        journal: answers that arrived are kept there; only missing ones are sampled.
        number: of the round; its answers have noise of their own.
        wanted: numbers of the samples; None: the first `config.responses`.
        opponent: who answers: "" the policy, "reference", or the "mixture" of both by `config.mixture_coef`.

    Raises:
        OSError, ValueError: see the generators.
    """
    wanted = range(config.responses) if wanted is None else wanted
    requests = [
        Request(id=name, prompt=condition["prompt"], n=len(wanted), first=wanted.start)
        for name, condition in prompts
    ]
    settings = Settings(
        max_new_tokens=config.response_tokens,
        temperature=config.response_temperature,
        top_p=config.response_top_p,
        seed=config.seed * 1000 + number,
    )
    asked = source_folder(config) if opponent == "reference" else folder_of(model)
    found: dict[str, dict[int, str]] = {name: {} for name, _ in prompts}
    with contextlib.ExitStack() as stack:
        generator: Any
        if config.generation_server is not None and opponent != "mixture":
            generator = stack.enter_context(generator_there(config, asked, journal))
        else:
            generator = generator_here(config, asked, opponent == "mixture")
        for response in collect(generator, requests, settings, journal):
            found[response.id][response.sample] = response.text
    return [[as_sample(condition, found[name][k]) for k in wanted] for name, condition in prompts]


@contextlib.contextmanager
def generator_there(config: TrainConfig, model: str, journal: Path) -> Iterator[ServerGenerator]:
    """A generator of a model that the server is asked for by its folder or hub id, or was given the weights of."""
    from prefopt.generation.server import ServerGenerator

    url = str(config.generation_server)
    asked = identity = model
    if Path(model).is_dir():
        # servers keep models by name: another one gets another folder
        name = "served" if journal.stem == "answers" else f"served-{journal.stem}"
        folder = to_serve(Path(model), journal.parent / name).resolve()
        asked, identity = str(folder), saved_fingerprint(folder)
    with contextlib.ExitStack() as stack:
        if config.generation_reload is not None:
            asked = stack.enter_context(served(url, asked, config.generation_reload, config.model))
        generator = ServerGenerator(url, asked)
        generator.identity = identity
        yield generator


def generator_here(config: TrainConfig, folder: str, mixture: bool) -> LocalGenerator:
    """A generator in this process of a model, or of its mixture with the reference."""
    from prefopt.generation.local import LocalGenerator

    network, tokenizer = loaded(config, folder), load_tokenizer(folder)
    # answers of other weights, left by a round that was trained again, must not pass for this one's
    identity, size = fingerprint(network), config.per_device_eval_batch_size
    if not mixture:
        return LocalGenerator(network, tokenizer, size, identity=identity)
    from prefopt.generation.mixture import MixtureGenerator

    reference = loaded(config, source_folder(config))
    identity = f"{identity}^{1 - config.mixture_coef:g} {fingerprint(reference)}^{config.mixture_coef:g}"
    return MixtureGenerator(network, tokenizer, reference, config.mixture_coef, size, identity=identity)


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
    config: TrainConfig,
    model: str,
    prompts: Sequence[NamedPrompt],
    answers: Sequence[Sequence[Any]],
    ended: Sequence[Sequence[bool]],
) -> tuple[list[list[float]], list[list[float]]]:
    """Summed log-probabilities (nats) of all answers under the policy and under the starting model.

    Scored exactly as training will score them: by the same likelihood, cut to the same length, at temperature 1.

    Returns:
        A list a prompt, policy's and reference's.
    """
    reference = source_folder(config)
    likelihood = likelihood_for(model, config.max_length, reference, truncation_mode=config.truncation_mode)
    items = [
        likelihood.encode(Item(condition, answer, ended=whole))
        for (_, condition), row, whole_row in zip(prompts, answers, ended, strict=True)
        for answer, whole in zip(row, whole_row, strict=True)
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
