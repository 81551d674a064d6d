"""Positions that change with the length: a score depends on its own sequence alone, and is the model's own."""

from __future__ import annotations

import random
from array import array
from itertools import pairwise

import pytest
import torch
import transformers

from likelihoods.architectures import SMALL, VOCABULARY
from prefopt.generation import LocalGenerator, Request, Settings
from prefopt.likelihoods.plan import EncodedText
from prefopt.likelihoods.positions import positions_in
from prefopt.likelihoods.rotary import Switch, switch_of
from prefopt.likelihoods.tokens import TokenLikelihood
from prefopt.models.loading import load_tokenizer

FACTORS = {"short_factor": [1.0, 1.5, 2.0, 3.0], "long_factor": [2.0, 4.0, 8.0, 16.0]}
AFTER = 24


def longrope(name, **more):
    options = {**SMALL, **more, "max_position_embeddings": 96, "original_max_position_embeddings": AFTER}
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": AFTER, **FACTORS}
    mscale = {"short_mscale": 1.1, "long_mscale": 1.3} if name == "Phimoe" else {}
    return getattr(transformers, f"{name}Config")(**options, rope_parameters=rope | mscale)


def dynamic(name, **more):
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
    return getattr(transformers, f"{name}Config")(
        **{**SMALL, **more, "max_position_embeddings": AFTER}, rope_parameters=rope
    )


def by_layer(kind, other):
    ropes = {"full_attention": kind, "sliding_attention": other}
    return transformers.Gemma3TextConfig(
        **{**SMALL, "max_position_embeddings": AFTER}, head_dim=8, sliding_window=8,
        layer_types=["sliding_attention", "full_attention"], rope_parameters=ropes,
    )  # fmt: skip


PLAIN = {"rope_type": "default", "rope_theta": 1e4}
MODELS = {
    "phi3, longrope": (lambda: longrope("Phi3"), Switch(AFTER, varying=False)),
    "phimoe, longrope": (
        lambda: longrope("Phimoe", num_local_experts=2, num_experts_per_tok=1), Switch(AFTER, varying=False)
    ),
    "llama, dynamic": (lambda: dynamic("Llama"), Switch(AFTER, varying=True)),
    "qwen2, dynamic": (lambda: dynamic("Qwen2"), Switch(AFTER, varying=True)),
    "gemma3, dynamic in some layers": (
        lambda: by_layer({"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}, PLAIN), Switch(AFTER, varying=True)
    ),
    "llama": (lambda: transformers.LlamaConfig(**SMALL), None),
    "llama, linear": (
        lambda: transformers.LlamaConfig(
            **SMALL, rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}
        ), None
    ),
    "gpt2": (
        lambda: transformers.GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2),
        None,
    ),
}  # fmt: skip
SWITCHING = [name for name, (_, switch) in MODELS.items() if switch]
TOKENS = [5, 9, 23, 24, 25, 26, 40, 60, 61]


def of(config):
    model = transformers.AutoModelForCausalLM.from_config(config)
    if hasattr(config, "num_local_experts"):
        model.set_experts_implementation("eager")  # the other takes no float64
    return model.double().eval()


def made(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return of(MODELS[name][0]())


@pytest.fixture(scope="module", params=SWITCHING)
def model(request):
    return made(request.param)


def drawn():
    """Items on both sides of the switch; neighbours share a prompt."""
    rng = random.Random(0)
    items = []
    for n in TOKENS:
        prompt = [rng.randrange(3, VOCABULARY) for _ in range(4)]
        for length in (n, n + 7, 12):
            ids = prompt[:4] + [rng.randrange(3, VOCABULARY) for _ in range(length - 4)]
            items.append(EncodedText(array("i", ids[:length]), min(3, length - 1)))
    return items


def by_hand(model, item):
    """The whole sequence in a model that has read nothing before, without padding or neighbours."""
    fresh = of(model.config)
    fresh.load_state_dict(model.state_dict())
    with torch.no_grad():
        logp = fresh(input_ids=torch.tensor([list(item.ids)])).logits.log_softmax(-1)[0]
    return float(sum(logp[t - 1, item.ids[t]] for t in range(item.start, len(item.ids))))


@pytest.fixture(scope="module")
def expected(model):
    return torch.tensor([by_hand(model, item) for item in drawn()], dtype=torch.float64)


def likelihood_of(tiny_model, ability=None):
    likelihood = TokenLikelihood(load_tokenizer(str(tiny_model)), None)
    if ability is not None:
        likelihood.ability = ability
    return likelihood


@pytest.mark.parametrize("name", MODELS)
def test_the_switch_is_found(name):
    assert switch_of(made(name)) == MODELS[name][1]


def test_positions_reach_as_far_as_the_scaling(model):
    assert positions_in(model.config) == 96


@pytest.mark.parametrize("densest", ["shared", "packed", "plain", None])
def test_every_score_is_that_of_the_sequence_alone(model, expected, tiny_model, densest):
    likelihood = likelihood_of(tiny_model)
    if densest is not None:
        ability = likelihood.adapt(model, densest)
        assert ability.sharing == densest, ability.reasons
    items = drawn()
    orders = [
        list(range(len(items))),
        list(range(len(items)))[::-1],
        random.Random(1).sample(range(len(items)), len(items)),
    ]
    for order in orders:
        for size in (len(items), 4, 1):
            for start in range(0, len(items), size):
                part = order[start : start + size]
                with torch.no_grad():
                    found = likelihood.score(model, likelihood.plan([items[n] for n in part])).logp_N
                torch.testing.assert_close(found, expected[part], atol=1e-9, rtol=0)


def test_gradients_are_those_of_the_sequences_alone(model, tiny_model):
    likelihood = likelihood_of(tiny_model)
    likelihood.adapt(model)
    items = drawn()[:12]

    def gradient(batches):
        model.zero_grad()
        for batch in batches:
            likelihood.score(model, likelihood.plan(batch)).logp_N.sum().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    together, alone = gradient([items]), gradient([[item] for item in items])
    assert float((together - alone).norm()) < 1e-6 * float(alone.norm())  # norms count in float32


def test_the_models_own_modules_are_left_as_they_were(model, tiny_model):
    likelihood = likelihood_of(tiny_model)
    before = {k: b.clone() for k, b in model.named_buffers()}
    forwards = [m for m in model.modules() if "forward" in vars(m)]
    likelihood.adapt(model)
    with torch.no_grad():
        likelihood.score(model, likelihood.plan(drawn()))
    for k, b in model.named_buffers():
        assert torch.equal(b, before[k])
    assert [m for m in model.modules() if "forward" in vars(m)] == forwards


def test_what_was_read_before_in_other_ways_does_not_matter(tiny_model):
    for name in SWITCHING:
        model, item = made(name), drawn()[0]
        with torch.no_grad():
            model(input_ids=torch.arange(3, 90)[None])  # a dynamic model remembers this length
        likelihood = likelihood_of(tiny_model)
        with torch.no_grad():
            found = float(likelihood.score(model, likelihood.plan([item])).logp_N)
        assert found == pytest.approx(by_hand(model, item), abs=1e-9)


def test_answers_do_not_depend_on_company(model, tiny_model):
    tokenizer = load_tokenizer(str(tiny_model))
    settings = Settings(max_new_tokens=8, temperature=1.0, seed=3)
    texts = ["w", "red", "Sort: fig", "one two " * 6, "red fig " * 15, "blue " * 28]

    class Ids(LocalGenerator):
        def _encode(self, request):
            return [3 + i % 90 for i in super()._encode(request)]

        def _text(self, request, tokens):
            return str(tokens)

    def answers(requests, batch_size):
        found = [r for batch in Ids(model, tokenizer, batch_size).generate(requests, settings) for r in batch]
        return {r.id: r.text for r in found}

    requests = [Request(t, t) for t in texts]
    lengths = sorted(len(Ids(model, tokenizer)._encode(r)) for r in requests)
    assert lengths[0] + 8 < AFTER < lengths[-1]
    together = answers(requests, 6)
    alone: dict[str, str] = {}
    for request in requests[::-1]:
        alone |= answers([request], 1)
    assert alone == together


def test_samples_of_a_run_do_not_depend_on_the_order_of_their_prompts(model, tiny_model):
    tokenizer = load_tokenizer(str(tiny_model))
    settings = Settings(max_new_tokens=6, temperature=0)
    rng = random.Random(0)
    prompts = {str(n): [rng.randrange(3, VOCABULARY) for _ in range(n)] for n in (30, 4, 40, 6, 5)}

    class Given(LocalGenerator):
        def _encode(self, request):
            return prompts[request.id]

    def ids_of(names):
        generator = Given(model, tokenizer, counted=False)
        found = [r for batch in generator.generate([Request(n, n) for n in names], settings) for r in batch]
        return {r.id: r.ids for r in found}

    together = ids_of(prompts)
    for name in prompts:
        assert ids_of([name]) == {name: together[name]}


def test_lengths_of_one_kind():
    varying, two = Switch(8, varying=True), Switch(8, varying=False)
    lengths = torch.tensor([1, 8, 9, 20])
    assert varying.kinds(lengths).tolist() == [varying.kind(n) for n in lengths.tolist()] == [8, 8, 9, 20]
    assert two.kinds(lengths).tolist() == [two.kind(n) for n in lengths.tolist()] == [8, 8, 9, 9]
    assert all(a <= b for a, b in pairwise(two.kinds(lengths).tolist()))
