"""Contrastive training: golden value, what is a negative, what it changes and what not, and that it repeats."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

import tiny_pipelines
from prefopt.motion.retrieval_training import info_nce, train_pair
from tiny_pairs import pairs, stats

CASES = {c["name"]: c for c in json.loads((Path(__file__).parents[1] / "data/sopo.json").read_text())}
SMALL = {"embedding": 8, "width": 16, "layers": 1, "heads": 2, "feedforward": 32, "batch_size": 32}


def state(model):
    parts = (model.motion_encoder, model.text_projection, model.text_encoder)
    return torch.cat([p.detach().flatten() for part in parts for p in part.parameters()])


def test_golden_info_nce():
    given, expected = (CASES["infonce_filtered"][key] for key in ("inputs", "expected"))
    text, motion, sentence = (
        torch.tensor(given[k], dtype=torch.float64) for k in ("text", "motion", "sent_emb")
    )
    alike = normalize(sentence, dim=1) @ normalize(sentence, dim=1).T > 2 * given["threshold_selfsim"] - 1
    removed = (alike & ~torch.eye(len(text), dtype=torch.bool)).nonzero().tolist()
    assert removed == expected["masked_pairs"]
    found = info_nce(text, motion, given["temperature"], ~alike)
    assert float(found) == pytest.approx(expected["loss"], abs=1e-10)


def test_info_nce_is_cross_entropy_both_ways():
    generator = torch.Generator().manual_seed(0)
    text, motion = (torch.randn(7, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    logits = normalize(text, dim=1) @ normalize(motion, dim=1).T / 0.3
    own = torch.arange(7)
    wanted = (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2
    assert float(info_nce(text, motion * 9, 0.3)) == pytest.approx(float(wanted), abs=1e-12)


def test_info_nce_without_negatives_is_nothing():
    text = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = info_nce(
        text,
        torch.randn(3, 4, generator=torch.Generator().manual_seed(1)),
        keep_BB=torch.zeros(3, 3, dtype=torch.bool),
    )
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    assert float(text.grad.abs().max()) < 1e-5


def test_it_learns_and_repeats():
    given, losses = pairs(64, seed=1), []
    before = torch.random.get_rng_state()
    first = train_pair(
        *given,
        stats=stats(),
        steps=40,
        lr=5e-3,
        report=lambda step, loss: losses.append((step, loss)),
        **SMALL,
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    assert [step for step, _ in losses] == list(range(40))
    assert losses[-1][1] < 0.5 * losses[0][1]
    torch.rand(3)
    again = train_pair(*given, stats=stats(), steps=40, lr=5e-3, **SMALL)
    other = train_pair(*given, stats=stats(), steps=40, lr=5e-3, seed=1, **SMALL)
    assert torch.equal(state(first), state(again))
    assert not torch.allclose(state(first), state(other), atol=1e-2)
    assert not (first.motion_encoder.training)
    assert not (first.text_projection.training)
    assert not (first.text_encoder.training)


def first_loss(groups, captions=None) -> float:
    given, losses = pairs(32, seed=1), []
    train_pair(captions or given.captions, *given[1:3], groups, stats=stats(), steps=1,
               report=lambda step, loss: losses.append(loss), **SMALL)  # fmt: skip
    return losses[0]


def test_pairs_of_a_group_are_no_negatives():
    programs = pairs(32, seed=1).programs
    assert first_loss(programs) < first_loss(list(range(32))) - 0.05
    by_caption = first_loss(None)
    assert first_loss(programs) < by_caption < first_loss(list(range(32)))
    assert by_caption == first_loss(pairs(32, seed=1).captions)


@pytest.mark.parametrize("learns", [True, False])
def test_the_text_encoder_that_is_given_stays_as_it_is(learns):
    torch.manual_seed(0)
    encoder, tokenizer = tiny_pipelines.clip(), tiny_pipelines.clip_tokenizer()
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    model = train_pair(*pairs(32, seed=1), stats=stats(), text_encoder=encoder, tokenizer=tokenizer,
                       train_text_encoder=learns, steps=3, **SMALL)  # fmt: skip
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())
    changed = [
        key for key, value in model.text_encoder.state_dict().items() if not torch.equal(value, before[key])
    ]
    assert bool(changed) == learns


def test_known_and_learning_texts_are_embedded_alike():
    """The first loss is the same, whether texts are embedded once or in each batch."""
    torch.manual_seed(0)
    encoder, losses, given = tiny_pipelines.clip(), [], pairs(32, seed=1)
    order = torch.randperm(32, generator=torch.Generator().manual_seed(2))
    mixed = ([given.captions[n] for n in order], given.features_NFD[order], given.lengths_N[order])
    for learns in (True, False):
        train_pair(*mixed, stats=stats(), text_encoder=encoder, tokenizer=tiny_pipelines.clip_tokenizer(),
                   train_text_encoder=learns, steps=1, report=lambda step, loss: losses.append(loss), **SMALL)  # fmt: skip
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_the_small_text_encoder_knows_words_and_no_others():
    model = train_pair(*pairs(32, seed=1), stats=stats(), steps=1, **SMALL)
    known, same, strange, other = model.encode_texts(
        ["Someone walks left", "someone walks  left", "someone xyz left", "someone abc left"]
    )
    assert torch.equal(known, same)
    assert torch.equal(strange, other)
    assert not torch.allclose(known, strange)
    assert model.text_encoder.config.eos_token_id != 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"captions": ["a"] * 31}, "31 captions, 32 motions, 32 lengths"),
        ({"groups": [0] * 31}, "31 groups"),
        ({"groups": [0] * 32}, "needed two or more to tell apart"),
        ({"tokenizer": object()}, "belong together"),
        ({"lengths_N": torch.zeros(32, dtype=torch.int64)}, "motion 0 has the length 0"),
        ({"features_NFD": torch.full((32, 10, 6), torch.nan)}, "not finite"),
        ({"features_NFD": torch.zeros(32, 10, 5)}, "frames, 6"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused(change, message):
    given = dict(zip(("captions", "features_NFD", "lengths_N", "groups"), pairs(32, seed=1), strict=True))
    with pytest.raises(ValueError, match=message):
        train_pair(**{**given, **change}, stats=stats(), steps=1, **SMALL)


def test_of_several_captions_each_visit_takes_one():
    data = pairs(32, 0)
    one = train_pair(*data[:3], stats=stats(), steps=3, **SMALL)
    alone = train_pair([[text] for text in data.captions], *data[1:3], stats=stats(), steps=3, **SMALL)
    assert torch.equal(state(alone), state(one))
    more = [[text, text.replace("a person", "he"), "nobody"] for text in data.captions]
    many = train_pair(more, *data[1:3], stats=stats(), steps=3, **SMALL)
    # words of all captions are known, and learned from
    assert {"he", "nobody"} <= set(many.tokenizer.get_vocab())
    again = train_pair(more, *data[1:3], stats=stats(), steps=3, **SMALL)
    assert torch.equal(state(many), state(again))
    with pytest.raises(ValueError, match="motion 3 has no caption"):
        train_pair([*more[:3], [], *more[4:]], *data[1:3], stats=stats(), steps=1, **SMALL)


def test_words_of_every_caption_are_learned():
    data = pairs(32, 0)
    more = [[text, "nobody"] for text in data.captions]
    made = [train_pair(more, *data[1:3], stats=stats(), steps=n, **SMALL) for n in (0, 6)]
    word = made[0].tokenizer.get_vocab()["nobody"]
    before, after = (m.text_encoder.get_input_embeddings().weight[word] for m in made)
    assert float((before - after).detach().abs().max()) > 1e-3
