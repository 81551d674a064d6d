"""A small language model, a short training loop, and sampled measures: what the `_lm` experiments share.

Model, prompts and scores are the bundled text world's. Each seed trains on its own block of prompts, so that seeds
are independent data, and is measured on the same held-out prompts, so that seeds and methods compare.

Shapes: N sequences, T completion tokens (end-of-sequence token included), V vocabulary, E comparisons.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from prefopt.objectives.base import Objective, apply_ties_policy, as_shares
from prefopt.reproduce.core import Asked

if TYPE_CHECKING:
    from prefopt.worlds.text.world import TextWorld


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything."""

    prompts: int = 250
    """Training prompts a seed; each gives a clear pair and a tie."""
    test_prompts: int = 200
    samples: int = 2
    """Samples a test prompt for score, KL and entropy."""
    epochs: int = 3
    batch: int = 32
    learning_rate: float = 2e-4
    world: tuple[tuple[str, Any], ...] = ()
    """Settings of the text world other than its defaults."""


FULL = Size()
QUICK = Size(
    prompts=24,
    test_prompts=16,
    samples=1,
    epochs=1,
    batch=16,
    world=(("hidden_size", 32), ("num_hidden_layers", 1), ("pretrain_steps", 60)),
)

Row = tuple[str, str, str, bool]
"""Prompt, chosen, rejected, is a tie."""


def text_world(size: Size) -> TextWorld:
    """The world of a size; its model is made once and cached."""
    from prefopt.worlds import get_world

    return get_world("text", **dict(size.world))


def rows(size: Size, seeds: int, seed: int | None) -> list[Row]:
    """Mined pairs of a seed's own block of training prompts; held-out pairs for None."""
    world = text_world(size)
    split: Literal["train", "test"] = "test" if seed is None else "train"
    count = size.test_prompts if seed is None else seeds * size.prompts
    # ids are SPLIT-PROMPT/KIND, numbered like the prompts
    block = range(count) if seed is None else range(seed * size.prompts, (seed + 1) * size.prompts)
    return [
        (
            row["prompt"][0]["content"],
            row["chosen"][0]["content"],
            row["rejected"][0]["content"],
            row["label"] == "tie",
        )
        for row in world.comparisons(count, split=split)
        if int(row["id"].split("/")[0].split("-")[1]) in block
    ]


def prepare(asked: Asked, label: str, size: Size) -> None:
    """Pretrain the model and sample the candidates, unless they are cached, before processes would race for it."""
    tick = asked.ticker(f"{label}: text world", 1)
    rows(size, asked.seeds, 0)
    rows(size, asked.seeds, None)
    tick()


def over_seeds(
    asked: Asked,
    label: str,
    one_run: Callable[..., Mapping[str, float]],
    settings: Iterable[tuple[Any, ...]],
    size: Size,
) -> dict[tuple[Any, ...], dict[str, list[float]]]:
    """Every measure of every setting, one value a seed: `one_run(*setting, seed, seeds, size)` in processes."""
    prepare(asked, label, size)
    jobs = [(*setting, seed, asked.seeds, size) for setting in settings for seed in range(asked.seeds)]
    found: dict[tuple[Any, ...], dict[str, list[float]]] = {}
    for (*setting, _, _, _), values in zip(
        jobs, asked.in_processes(f"{label}: language models", one_run, jobs), strict=True
    ):
        for name, value in values.items():
            found.setdefault(tuple(setting), {}).setdefault(name, []).append(value)
    return found


def chosen(size: Size) -> dict[str, Any]:
    """The numbers of a size, for the settings of an experiment."""
    return {
        "prompts_a_seed": size.prompts,
        "test_prompts": size.test_prompts,
        "samples_a_test_prompt": size.samples,
        "epochs": size.epochs,
        "batch": size.batch,
        "optimizer": f"AdamW {size.learning_rate:g}, warm-up over a tenth of the steps, gradient norm clipped at 1",
        "world": dict(size.world) or "text, default settings",
    }


@functools.cache
def reference(size: Size) -> tuple[Any, Any]:
    """The pretrained model, frozen, and its tokenizer; loaded once a process."""
    from prefopt.worlds.text import model as text_model

    model, tokenizer = text_model.load(text_world(size).model_dir(progress=False))
    return model.requires_grad_(False), tokenizer


def log_probs(model: Any, tokenizer: Any, texts: Sequence[tuple[str, str]]) -> tuple[Tensor, Tensor, Tensor]:
    """Next-token log-probabilities along completions.

    Args:
        model: a causal language model.
        tokenizer: with a chat template.
        texts: N pairs of prompt and completion.

    Returns:
        (N, T, V) log-probabilities at the completion's positions, (N, T) the completion's tokens ending in the
        end-of-sequence token, (N, T) 1.0 where there is one.
    """
    from prefopt.worlds.text.model import prompt_text

    prompts = tokenizer([prompt_text(tokenizer, p) for p, _ in texts])["input_ids"]
    answers = tokenizer([a + tokenizer.eos_token for _, a in texts])["input_ids"]
    pad, longest = tokenizer.pad_token_id, max(map(len, answers))
    width = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
    # padded on the right: a causal model never looks there from a real token, so no mask is needed
    tokens = torch.tensor(
        [p + a + [pad] * (width - len(p) - len(a)) for p, a in zip(prompts, answers, strict=True)]
    )
    token_NT = torch.tensor([a + [pad] * (longest - len(a)) for a in answers])
    mask_NT = torch.tensor([[1.0] * len(a) + [0.0] * (longest - len(a)) for a in answers])
    hidden = model.model(input_ids=tokens, use_cache=False).last_hidden_state
    start_N1 = torch.tensor([len(p) for p in prompts])[:, None]
    # the token at position t is predicted at t - 1
    at_NT = (start_N1 - 1 + torch.arange(longest)).clamp(max=width - 1)
    picked = hidden.gather(1, at_NT[..., None].expand(-1, -1, hidden.shape[-1]))
    return model.lm_head(picked).log_softmax(-1), token_NT, mask_NT


def logp(model: Any, tokenizer: Any, texts: Sequence[tuple[str, str]]) -> Tensor:
    """(N,) log-probability of each completion, its end included (nats)."""
    log_p_NTV, token_NT, mask_NT = log_probs(model, tokenizer, texts)
    return (log_p_NTV.gather(-1, token_NT[..., None])[..., 0] * mask_NT).sum(-1)


@torch.no_grad()
def logp_of_rows(model: Any, tokenizer: Any, data: Sequence[Row]) -> tuple[Tensor, Tensor]:
    """(E,) log-probabilities of chosen and of rejected sides."""
    chosen = logp(model, tokenizer, [(p, c) for p, c, _, _ in data])
    return chosen, logp(model, tokenizer, [(p, r) for p, _, r, _ in data])


def train(objective: Objective, data: Sequence[Row], size: Size, seed: int) -> Any:
    """A copy of the reference trained on `data`; an objective without a tie term counts ties as wins.

    AdamW without weight decay, linear warm-up over a tenth of the steps, then constant; gradient norm clipped at 1.
    """
    import copy

    start, tokenizer = reference(size)
    model = copy.deepcopy(start).requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=size.learning_rate, weight_decay=0.0)
    ref_w_E, ref_l_E = logp_of_rows(start, tokenizer, data)
    rng = random.Random(f"order {seed}")
    order = [k for _ in range(size.epochs) for k in rng.sample(range(len(data)), len(data))]
    batches = [order[i : i + size.batch] for i in range(0, len(order), size.batch)]
    for step, batch in enumerate(batches):
        texts = [(data[k][0], data[k][1]) for k in batch] + [(data[k][0], data[k][2]) for k in batch]
        both = logp(model, tokenizer, texts)
        rho_w_E, rho_l_E = both[: len(batch)] - ref_w_E[batch], both[len(batch) :] - ref_l_E[batch]
        outcome = as_shares(torch.tensor([data[k][3] for k in batch]), like=rho_w_E)
        if not objective.has_tie_term:
            outcome, _ = apply_ties_policy(outcome, "as_win")
        loss = objective(rho_w_E, rho_l_E, outcome).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = size.learning_rate * min(1.0, 10 * (step + 1) / len(batches))
        optimizer.step()
    return model.eval()


@dataclass(frozen=True, slots=True)
class Measured:
    """What samples of a policy say, over the held-out prompts."""

    score: float
    """Mean exact score, percent."""
    kl: float
    """Sequence KL from the reference, nats: full-vocabulary KL summed over the positions of sampled completions."""
    entropy: float
    """Predictive entropy, nats a token: mean over the positions of sampled completions, end included."""
    wins: float
    """Share of prompts and samples that beat the reference's sample at the same place, equal = half; percent."""
    distinct: float
    """Different completions among a prompt's samples, percent of the samples."""


@torch.no_grad()
def measure(model: Any, size: Size, seed: int) -> Measured:
    """Sample at temperature 1 and measure; every policy of a seed meets the same reference samples.

    Samples are scored as text, so tokens are those of the text tokenized anew.
    """
    start, tokenizer = reference(size)
    texts = sample(model, size, 2 * seed)
    scores, base = text_world(size).score_texts(*zip(*texts, strict=True)), reference_scores(size, seed)
    log_p_NTV, _, mask_NT = log_probs(model, tokenizer, texts)
    log_ref_NTV, _, _ = log_probs(start, tokenizer, texts)
    p_NTV = log_p_NTV.exp()
    kl_NT = (p_NTV * (log_p_NTV - log_ref_NTV)).sum(-1) * mask_NT
    entropy_NT = -(p_NTV * log_p_NTV).sum(-1) * mask_NT
    beats = [1.0 if a > b else 0.5 * (a == b) for a, b in zip(scores, base, strict=True)]
    return Measured(
        score=100 * sum(scores) / len(scores),
        kl=float(kl_NT.sum(-1).mean()),
        entropy=float((entropy_NT.sum(-1) / mask_NT.sum(-1)).mean()),
        wins=100 * sum(beats) / len(beats),
        distinct=100 * len(set(texts)) / len(texts),
    )


def sample(model: Any, size: Size, seed: int) -> list[tuple[str, str]]:
    """(prompt, completion) for `samples` completions of each held-out prompt, temperature 1."""
    from prefopt.worlds.text import model as text_model

    _, tokenizer = reference(size)
    world = text_world(size)
    prompts = world.prompts(size.test_prompts, "test")
    drawn = text_model.sample_completions(
        model,
        tokenizer,
        prompts,
        size.samples,
        max_new_tokens=world.max_new_tokens,
        seed=seed,
        progress=False,
    )
    return [(p, c) for p, group in zip(prompts, drawn, strict=True) for c in group]


@functools.cache
def reference_scores(size: Size, seed: int) -> list[float]:
    """Exact scores of the reference's samples."""
    texts = sample(reference(size)[0], size, 2 * seed + 1)
    return text_world(size).score_texts(*zip(*texts, strict=True))
