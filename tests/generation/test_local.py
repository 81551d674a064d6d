"""Sampling in this process: the right distribution, and nothing that depends on a request's company."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from conftest import ROWS
from prefopt.generation import LocalGenerator, Request, Response, Settings
from prefopt.generation.local import CountedGumbel
from prefopt.models.loading import load_model, load_tokenizer

SETTINGS = Settings(max_new_tokens=10, temperature=0.8, top_p=0.9, seed=3)


@pytest.fixture(scope="module")
def parts(tiny_model):
    return load_model(str(tiny_model), trainable=False).model, load_tokenizer(str(tiny_model))


def chat(text):
    return [{"role": "user", "content": text}]


REQUESTS = [Request(f"r{k}", chat(row["prompt"] * (k % 3 + 1)), n=2) for k, row in enumerate(ROWS)]


def drawn(parts, requests, settings=SETTINGS, batch_size=64):
    found = [r for batch in LocalGenerator(*parts, batch_size).generate(requests, settings) for r in batch]
    return {(r.id, r.sample): r for r in found}


def test_company_order_and_padding_do_not_matter(parts):
    together = drawn(parts, REQUESTS)
    assert len(together) == 2 * len(REQUESTS)
    assert drawn(parts, REQUESTS[::-1], batch_size=3) == together
    alone = {}
    for request in REQUESTS:
        for sample in request.samples:
            alone |= drawn(parts, [replace(request, n=1, first=sample)])
    assert alone == together
    assert len({r.text for r in together.values()}) > len(REQUESTS)  # samples differ from each other


def test_seeds_and_ids_matter(parts):
    first = drawn(parts, REQUESTS)
    assert drawn(parts, REQUESTS, replace(SETTINGS, seed=4)) != first
    renamed = drawn(parts, [replace(r, id="x" + r.id) for r in REQUESTS])
    assert [r.text for r in renamed.values()] != [r.text for r in first.values()]


def test_global_randomness_and_mode_are_left_alone(parts):
    model = parts[0]
    model.train()
    before = torch.random.get_rng_state()
    drawn(parts, REQUESTS[:2])
    assert torch.equal(torch.random.get_rng_state(), before)
    assert model.training
    model.eval()


def test_greedy_is_the_library_s_own(parts):
    model, tokenizer = parts
    request = Request("plain", "Sort: pear fig")
    found = drawn(parts, [request], Settings(max_new_tokens=8, temperature=0))["plain", 0]
    inputs = tokenizer("Sort: pear fig", return_tensors="pt")["input_ids"]
    whole = model.generate(input_ids=inputs, do_sample=False, max_new_tokens=8)[0, inputs.shape[1] :]
    text = tokenizer.decode(whole, skip_special_tokens=True)
    assert found == Response("plain", 0, text, len(whole), len(whole) < 8, tuple(whole.tolist()))


def test_what_else_the_template_takes_is_given_to_it(parts):
    model, tokenizer = parts[0], copy.deepcopy(parts[1])
    generator = LocalGenerator(model, tokenizer)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.content }}{% endfor %}{% if tools %} fig{% endif %}"
    )
    plain, with_tools = (
        Request("a", [{"role": "user", "content": "Sort: pear"}], template=template)
        for template in ({}, {"tools": [{"type": "function", "function": {"name": "look"}}]})
    )
    assert len(generator._encode(with_tools)) > len(generator._encode(plain))


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.6, 1.0), (1.0, 0.5)])
def test_first_tokens_have_the_models_distribution(parts, temperature, top_p):
    model, tokenizer = parts
    n = 4000
    settings = Settings(max_new_tokens=1, temperature=temperature, top_p=top_p)
    found = drawn(parts, [Request("a", "Sort: pear", n=n)], settings, batch_size=n)
    ids = tokenizer("Sort: pear", return_tensors="pt")["input_ids"]
    p_V = (model(input_ids=ids).logits[0, -1].float() / temperature).softmax(-1)
    order = p_V.argsort(descending=True)
    kept = order[: int((p_V[order].cumsum(0) < top_p).sum()) + 1] if top_p < 1 else order
    q_V = torch.zeros_like(p_V).index_put((kept,), p_V[kept] / p_V[kept].sum())
    counts: dict[str, int] = {}
    for response in found.values():
        counts[response.text] = counts.get(response.text, 0) + 1
    expected: dict[str, float] = {}
    for token, q in enumerate(q_V.tolist()):
        text = tokenizer.decode([token], skip_special_tokens=True)
        expected[text] = expected.get(text, 0) + q
    assert all(expected.get(text, 0) > 0 for text in counts)
    for text, q in expected.items():  # five standard errors
        assert abs(counts.get(text, 0) / n - q) < 5 * (q * (1 - q) / n) ** 0.5 + 1e-6, text


def test_noise_is_gumbel_and_counted():
    noise = CountedGumbel(range(50))
    first = noise(torch.zeros(50, 7, dtype=torch.long), torch.zeros(50, 4000))
    second = noise(torch.zeros(50, 8, dtype=torch.long), torch.zeros(50, 4000))
    for values in (first, second):
        assert values.mean().item() == pytest.approx(0.5772, abs=0.02)
        assert values.var().item() == pytest.approx(1.6449, abs=0.05)
    rows = torch.cat([first, second])
    correlation = torch.corrcoef(rows) - torch.eye(100)
    assert correlation.abs().max() < 6 / 4000**0.5
    other = CountedGumbel([9])(torch.zeros(1, 3, dtype=torch.long), torch.zeros(1, 4000))
    assert torch.equal(other[0], first[9])  # neither the width nor the other rows count
    assert not torch.equal(first[0, 1:], first[0, :-1])


@pytest.mark.parametrize(
    ("prompt", "settings", "words"),
    [
        ("", SETTINGS, ["empty prompt"]),
        ("Sort: pear", replace(SETTINGS, max_new_tokens=500), ["max_new_tokens=500", "128 positions"]),
    ],
)
def test_impossible_requests_are_refused_before_generation(parts, prompt, settings, words):
    with pytest.raises(ValueError, match=".*".join(words)):
        LocalGenerator(*parts).generate([Request("a", prompt)], settings)


def test_messages_need_a_chat_template(parts, tiny_model):
    plain = load_tokenizer(str(tiny_model))
    plain.chat_template = None
    with pytest.raises(ValueError, match="no chat template"):
        LocalGenerator(parts[0], plain).generate(REQUESTS, SETTINGS)


@pytest.mark.parametrize(
    "bad", [{"max_new_tokens": 0}, {"temperature": -1}, {"temperature": float("nan")}, {"top_p": 0}]
)
def test_settings_are_checked(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Settings(**bad)
