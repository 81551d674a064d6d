"""Answers of a model in this process: `generate` of transformers, with noise that belongs to the sample.

A draw from a softmax is the largest of logits plus Gumbel noise. The noise of a token is a hash of (sample's seed,
place, token), so it does not matter which other prompts share a batch, how far they are padded, or where a resumed
call begins. What is left of the batch are the last digits of the logits.

Where the same prompts are asked again and again in one order, as through a run, torch's own stream of random numbers does
as well, and is what figures of earlier versions were drawn from.

Legend: B rows of a batch, T places, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

from prefopt.generation.base import Request, Response, Settings, sample_seed
from prefopt.generation.distribution import own_distribution
from prefopt.likelihoods.flex import generating
from prefopt.likelihoods.positions import positions_in
from prefopt.likelihoods.rotary import companies, forgetful, switch_of
from prefopt.likelihoods.tokens import TokenLikelihood, padding_within


class LocalGenerator:
    """Answers from a causal language model.

    Args:
        model: unwrapped or a `PeftModel`, on its device; its mode (train, eval) is left as found.
        tokenizer: its tokenizer; requests of messages need its chat template.
        batch_size: sequences at once.
        identity: names the weights in journals, such as a folder or a digest; empty: not checked.
        counted: give each sample noise of its own; else the requests share one stream of it, in their order.
        likelihood: makes token ids of prompts; None: one of text.
        num_beams: continuations of a prompt that are followed at once; above 1, answers are the likeliest found.

    Raises:
        ValueError: batch_size or num_beams below 1.

    Example:
        >>> generator = LocalGenerator(model, tokenizer, batch_size=32)                     # doctest: +SKIP
        >>> batches = generator.generate([Request("a", "Once", n=4)], Settings(seed=1))     # doctest: +SKIP
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        batch_size: int = 64,
        identity: str = "",
        counted: bool = True,
        likelihood: TokenLikelihood | None = None,
        num_beams: int = 1,
    ) -> None:
        if batch_size < 1 or num_beams < 1:
            raise ValueError(
                f"batch_size and num_beams must be at least 1; given {batch_size} and {num_beams}"
            )
        self.num_beams = num_beams
        self.model, self.tokenizer, self.batch_size = model, tokenizer, batch_size
        self.identity, self.counted = identity, counted
        self.likelihood = likelihood or TokenLikelihood(tokenizer, None, positions_in(model.config))

    def generate(self, requests: Sequence[Request], settings: Settings) -> Iterator[list[Response]]:
        """Responses batch by batch, the longest prompts first where noise is counted.

        Raises:
            ValueError: top_p without counted noise, or draws by beams; messages without a chat template, a prompt without tokens, or one that leaves no room for
                `max_new_tokens` within the model's positions; before anything is generated.
        """
        if self.num_beams > 1 and settings.temperature > 0:
            raise ValueError(
                f"num_beams={self.num_beams} finds the likeliest answers, and temperature={settings.temperature:g} draws them: "
                "set temperature=0, or num_beams=1"
            )
        prompts = {request.id: self._encode(request) for request in requests}
        self._check_embedded(prompts)
        check_room(prompts, settings.max_new_tokens, self.likelihood.positions)
        rows = [(request, sample) for request in requests for sample in request.samples]
        if self.counted:
            # by id within a length, so that the same rows make up the same batches in any order
            rows.sort(key=lambda row: (-len(prompts[row[0].id]), row[0].id, row[1]))
            return self._batches(rows, prompts, settings)
        if settings.top_p < 1:
            raise ValueError(f"top_p={settings.top_p} needs counted noise")
        device = next(self.model.parameters()).device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(settings.seed)
            return iter(list(self._batches(rows, prompts, settings)))

    def _batches(
        self, rows: Sequence[tuple[Request, int]], prompts: dict[str, list[int]], settings: Settings
    ) -> Iterator[list[Response]]:
        lengths = [len(prompts[request.id]) for request, _ in rows]
        switch = switch_of(self.model)
        for chosen in companies(lengths, settings.max_new_tokens, self.batch_size, switch):
            batch = [rows[n] for n in chosen]
            names = [(request.id, sample) for request, sample in batch]
            drawn = continuations(
                self.model,
                [prompts[request.id] for request, _ in batch],
                self.likelihood.pad_token_id,
                self.tokenizer.eos_token_id,
                max_new_tokens=settings.max_new_tokens,
                processors=self.processors(
                    names, [len(prompts[request.id]) for request, _ in batch], settings
                ),
                temperature=0.0 if self.counted else settings.temperature,
                inputs=partial(self.inputs, [request for request, _ in batch]),
                num_beams=self.num_beams,
            )
            yield [
                Response(request.id, sample, self._text(request, tokens), len(tokens), ended, tuple(tokens))
                for (request, sample), (tokens, ended) in zip(batch, drawn, strict=True)
            ]

    def processors(
        self, rows: Sequence[tuple[str, int]], lengths: Sequence[int], settings: Settings
    ) -> list[LogitsProcessor]:
        """What the logits of a batch go through before the choice.

        Args:
            rows: (id, sample) of each row.
            lengths: of the prompts, in tokens.
            settings: how to draw.
        """
        return own_noise(settings, rows) if self.counted else []

    def inputs(self, requests: Sequence[Request], ids_BT: Tensor) -> dict[str, Tensor]:
        """What the model is given beside the (B, T) token ids of these requests, padded on the left."""
        return {}

    def _text(self, request: Request, tokens: list[int]) -> str:
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=True)
        return text if isinstance(request.prompt, str) else text.strip()

    def _encode(self, request: Request) -> list[int]:
        if not isinstance(request.prompt, str) and not self.tokenizer.chat_template:
            raise ValueError(
                f"request {request.id!r} holds messages but the tokenizer has no chat template: set "
                "tokenizer.chat_template, or give prompts as plain strings"
            )
        ids = self.likelihood.prompt_ids({"prompt": request.prompt, **request.template})
        if not ids:
            raise ValueError(
                f"request {request.id!r} becomes no tokens at all; give a prompt with text in it"
            )
        return ids

    def _check_embedded(self, prompts: Mapping[str, Sequence[int]]) -> None:
        rows = self.model.get_input_embeddings().weight.shape[0]
        for name, ids in prompts.items():
            if (top := max(ids)) >= rows:
                raise ValueError(
                    f"request {name!r} becomes the token {self.tokenizer.convert_ids_to_tokens(top)!r} (id {top}), and the "
                    f"model has embeddings for ids below {rows}: its tokenizer was enlarged, and it was not"
                )


def check_room(
    prompts: Mapping[str, Sequence[int]], max_new_tokens: int, positions: int | None, model: str = "the model"
) -> None:
    """Refuse prompts behind which answers would leave the model's positions.

    Args:
        prompts: token ids by id.
        max_new_tokens: of an answer.
        positions: of the model; None: not known.
        model: its name, for the message.

    Raises:
        ValueError: some have no room; says how many, and what would fit.
    """
    if positions is None:
        return
    over = [name for name, ids in prompts.items() if len(ids) + max_new_tokens > positions]
    if not over:
        return
    longest = max(prompts, key=lambda name: len(prompts[name]))
    room = positions - len(prompts[longest])
    lower = f"lower max_new_tokens to {room}, or leave" if room > 0 else "leave"
    raise ValueError(
        f"{len(over)} of {len(prompts)} prompts, such as {over[0]!r} with {len(prompts[over[0]])} tokens, and "
        f"max_new_tokens={max_new_tokens} more exceed the {positions} positions of {model}: {lower} long prompts out "
        f"(the longest, {longest!r}, has {len(prompts[longest])})"
    )


class CountedGumbel(LogitsProcessor):
    """Adds Gumbel noise to the logits of each row, a function of its seed, the place and the token.

    Args:
        seeds: one a row, in [0, 2**63).

    Example:
        >>> noise = CountedGumbel([7, 8])
        >>> first = noise(torch.zeros(2, 5, dtype=torch.long), torch.zeros(2, 10))
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self.seeds = list(seeds)
        self.width: int | None = None
        self.seeds_B1: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """(B, V) scores plus noise; places are counted from the first call on."""
        if self.width is None or self.seeds_B1 is None:
            self.width = input_ids.shape[1]
            self.seeds_B1 = torch.tensor(self.seeds, device=scores.device)[:, None]
        place = input_ids.shape[1] - self.width
        # a place gets a seed of its own first: seed + place alone would repeat the noise of a neighbouring seed
        keys_B1 = mixed(self.seeds_B1 + torch.tensor(place, device=scores.device) * GOLDEN)
        tokens_V = torch.arange(1, scores.shape[-1] + 1, device=scores.device) * GOLDEN
        bits_BV = mixed(keys_B1 + tokens_V)
        uniform_BV = ((bits_BV >> 40 & 0xFFFFFF).float() + 0.5) * 2.0**-24  # never 0 or 1
        return scores - torch.log(-torch.log(uniform_BV))


GOLDEN = -7046029254386353131  # 2**64 / golden ratio, as a signed integer


def mixed(x: Tensor) -> Tensor:
    """Integers whose bits look random, one to one (the finalizer of splitmix64, Steele et al. 2014).

    int64 wraps around as unsigned integers would; only shifts to the right need their sign bits cleared.
    """
    x = (x ^ (x >> 30 & (1 << 34) - 1)) * -4658895280553007687
    x = (x ^ (x >> 27 & (1 << 37) - 1)) * -7723592293110705685
    return x ^ (x >> 31 & (1 << 33) - 1)


def own_noise(settings: Settings, rows: Sequence[tuple[str, int]]) -> list[LogitsProcessor]:
    """What turns the greedy choice of `generate` into draws under these settings.

    Args:
        settings: how to draw.
        rows: (id, sample) of each row.
    """
    if settings.temperature == 0:
        return []
    processors: list[LogitsProcessor] = []
    if settings.temperature != 1:
        processors.append(TemperatureLogitsWarper(settings.temperature))
    if settings.top_p < 1:
        processors.append(TopPLogitsWarper(settings.top_p))
    return [*processors, CountedGumbel([sample_seed(settings.seed, *row) for row in rows])]


@torch.no_grad()
def continuations(
    model: Any,
    prompts: Sequence[Sequence[int]],
    pad_token_id: int,
    eos_token_id: int | None,
    *,
    max_new_tokens: int,
    processors: Sequence[LogitsProcessor] = (),
    temperature: float = 0.0,
    inputs: Callable[[Tensor], Mapping[str, Tensor]] = lambda ids_BT: {},
    num_beams: int = 1,
) -> list[tuple[list[int], bool]]:
    """One continuation a prompt, all at once, with a KV cache.

    Args:
        model: a causal language model, unwrapped; its mode and its generation configuration are left as found.
        prompts: token ids, each at least one.
        pad_token_id: fills shorter prompts on the left.
        eos_token_id: ends a continuation, as do those of the model's generation configuration, of which nothing else
            is used.
        max_new_tokens: continuations are cut there.
        processors: applied to the logits before the choice.
        temperature: of draws from the model's own distribution; 0 takes the largest logit after the processors.
        inputs: of padded ids, what else the model is given.
        num_beams: of a beam search; 1 for none.

    Returns:
        For each prompt the new tokens, up to and with an end token, and whether there was one.
    """
    device = next(model.parameters()).device
    width = max(map(len, prompts))
    pad_token_id = padding_within(model, pad_token_id)
    ids = torch.full((len(prompts), width), pad_token_id)
    mask = torch.zeros_like(ids)
    for n, prompt in enumerate(prompts):  # generation continues at the right edge
        ids[n, width - len(prompt) :] = torch.tensor(list(prompt))
        mask[n, width - len(prompt) :] = 1
    was_training = model.training
    if was_training:
        model.eval()
    try:
        with (
            generating(model),
            forgetful(model),
            own_distribution(
                model,
                pad_token_id=pad_token_id,
                eos_token_id=eos_token_id,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                num_beams=num_beams,
            ) as own,
        ):
            whole = model.generate(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                **{name: value.to(device) for name, value in inputs(ids).items()},
                generation_config=own,
                logits_processor=LogitsProcessorList(processors),
            )
            ends = own.eos_token_id or []
    finally:
        if was_training:
            model.train()
    out = []
    for row in whole[:, width:].tolist():
        stop = next((i for i, token in enumerate(row) if token in ends), None)
        out.append((row if stop is None else row[: stop + 1], stop is not None))
    return out
