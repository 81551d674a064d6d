"""A geometric mixture of two models against the product of their distributions, all answers enumerated in float64."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, LogitsProcessorList

from prefopt.generation.base import Request, Settings
from prefopt.generation.local import LocalGenerator
from prefopt.generation.mixture import GeometricMixture, MixtureGenerator
from prefopt.models.loading import load_tokenizer

SIZE, LENGTH = 4, 3


def tiny(seed: int, vocabulary: int = SIZE, kind: str = "llama") -> Any:
    """Random; GPT-2's positions are learned, so it minds where padding puts a token."""
    shared = {"vocab_size": vocabulary, "initializer_range": 0.8, "bos_token_id": None, "eos_token_id": None}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if kind == "gpt2":
            model = GPT2LMHeadModel(GPT2Config(**shared, n_embd=16, n_layer=2, n_head=2, n_positions=32))
        else:
            sizes = {
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
            }
            model = LlamaForCausalLM(
                LlamaConfig(**shared, **sizes, max_position_embeddings=32, pad_token_id=0)
            )
    return model.double().eval()


def log_p(model: Any, ids: list[int]) -> torch.Tensor:
    """(V,) of the next token, one row alone, without cache or padding."""
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)


def by_hand(policy, reference, coef: float, prompt: list[int], answer: tuple[int, ...]) -> float:
    """log of the product over tokens of pi^(1-c) pi_ref^c / Z."""
    total = 0.0
    for k, token in enumerate(answer):
        sides = [log_p(model, [*prompt, *answer[:k]]) for model in (policy, reference)]
        mixed = (1 - coef) * sides[0] + coef * sides[1]
        total += float(mixed[token] - mixed.logsumexp(-1))
    return total


class Forced(GeometricMixture):
    """Follows given answers, and notes what the mixture thought of each token."""

    def __init__(self, reference, coef, lengths, answers):
        super().__init__(reference, coef, lengths)
        self.answers, self.total, self.place = (
            torch.tensor(answers),
            torch.zeros(len(answers), dtype=torch.float64),
            0,
        )

    def __call__(self, input_ids, scores):
        wanted = self.answers[:, self.place, None]
        self.place += 1
        # generate hands over float32
        log_BV = super().__call__(input_ids, scores).log_softmax(-1)
        self.total += log_BV.gather(-1, wanted)[:, 0]
        return torch.full_like(scores, -torch.inf).scatter(-1, wanted, 0.0)


def test_the_mixture_is_the_product_of_both_distributions():
    """Prompts of several lengths side by side, padded, with both caches: every answer has its probability, and they sum to 1."""
    policy, reference, coef = tiny(1), tiny(2, kind="gpt2"), 0.3
    prompts = [[1], [2, 3, 3], [3, 1]]
    answers = list(itertools.product(range(SIZE), repeat=LENGTH))
    rows = [(prompt, answer) for prompt in prompts for answer in answers]
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + p for p, _ in rows])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p, _ in rows])
    forced = Forced(reference, coef, [len(p) for p, _ in rows], [a for _, a in rows])
    policy.generate(
        input_ids=ids, attention_mask=mask, max_new_tokens=LENGTH, do_sample=False,
        logits_processor=LogitsProcessorList([forced]),
    )  # fmt: skip
    found = forced.total
    wanted = torch.tensor(
        [by_hand(policy, reference, coef, p, a) for p, a in rows[:: 1 + LENGTH]], dtype=torch.float64
    )
    torch.testing.assert_close(found[:: 1 + LENGTH], wanted, atol=1e-5, rtol=0)
    for mass in found.view(len(prompts), -1).exp().sum(-1):
        assert float(mass) == pytest.approx(1, abs=1e-5)


def test_both_ends_are_the_models_themselves(tiny_model: Path):
    """The draws too: noise belongs to the sample, whoever the logits are of."""
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer(str(tiny_model))
    policy = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    reference = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    with torch.no_grad():
        reference.lm_head.weight.add_(
            torch.randn(reference.lm_head.weight.shape, generator=torch.Generator().manual_seed(0))
        )
    requests = [Request("a", "Sort: red", n=3), Request("b", "Count: one two pear", n=2)]
    settings = Settings(max_new_tokens=6, seed=3)

    def answers(generator):
        return {(r.id, r.sample): r.text for batch in generator.generate(requests, settings) for r in batch}

    plain = [answers(LocalGenerator(model, tokenizer)) for model in (policy, reference)]
    assert plain[0] != plain[1]
    for coef, expected in ((0.0, plain[0]), (1.0, plain[1])):
        assert answers(MixtureGenerator(policy, tokenizer, reference, coef)) == expected
    between = answers(MixtureGenerator(policy, tokenizer, reference, 0.5, batch_size=1))
    assert between not in plain
    assert answers(MixtureGenerator(policy, tokenizer, reference, 0.5, batch_size=5)) == between


def test_refused():
    with pytest.raises(ValueError, match=r"in \[0, 1\]; given 1.5"):
        GeometricMixture(tiny(1), 1.5, [1])
    mixing = GeometricMixture(tiny(1, vocabulary=7), 0.5, [2])
    with pytest.raises(ValueError, match="the policy has 4 logits a token and the reference 7"):
        mixing(torch.tensor([[1, 2]]), torch.zeros(1, 4))
