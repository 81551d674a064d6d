"""The field's evaluator against a step-by-step computation on released tensors, and the traps of its protocol."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from prefopt.motion.converting import convert_t2m_evaluator
from prefopt.motion.t2m_evaluator import T2MEvaluator
from prefopt.motion.tagged_words import TAGS, words_and_tags
from released_layouts import FEATURES, FRAMES, WORDS, plain_motion, plain_text, random_t2m, write_t2m

LENGTHS = [40, FRAMES, 8, 60]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_t2m(tmp_path_factory.mktemp("released"))


@pytest.fixture(scope="module")
def judge(files, tmp_path_factory) -> T2MEvaluator:
    out = convert_t2m_evaluator(**files, out=tmp_path_factory.mktemp("ours") / "judge")
    assert not [file for file in out.rglob("*") if file.suffix not in (".json", ".safetensors")]
    return T2MEvaluator.from_pretrained(out)


@pytest.fixture(scope="module")
def motions() -> torch.Tensor:
    """Physical units; NaN behind each end."""
    x = torch.randn(4, FRAMES, FEATURES, generator=torch.Generator().manual_seed(1))
    x[torch.arange(FRAMES) >= torch.tensor(LENGTHS)[:, None]] = torch.nan
    return x


def test_motions_as_step_by_step_and_in_order(judge, files, motions):
    mean, std = (torch.from_numpy(np.load(files[name])) for name in ("mean", "std"))
    found = judge.encode_motions(motions, torch.tensor(LENGTHS))
    for n, length in enumerate(LENGTHS):
        wanted = plain_motion(random_t2m(), (motions[n, :length] - mean) / std)
        assert torch.allclose(found[n], wanted, atol=1e-5)
    assert float((found[0] - found[3]).abs().max()) > 1e-2


CAPTIONS = {
    "a/DET person/NOUN wave/VERB": (["a", "person", "wave"], ["DET", "NOUN", "VERB"]),
    "walk/VERB left/ADV slowly/ADV and/CCONJ": (["walk", "left", "slowly", "and"], ["Act_VIP", "Loc_VIP", "Desc_VIP", "OTHER"]),
    "a/DET zebra/NOUN arm/NOUN": (["a", "unk", "arm"], ["DET", "OTHER", "Body_VIP"]),
    "and/or/NOUN odd/NUM": (["unk", "odd"], ["OTHER", "NUM"]),
    " ".join(["walk/VERB"] * 30): (["walk"] * 20, ["Act_VIP"] * 20),
}  # fmt: skip


def test_texts_as_step_by_step_and_in_order(judge, files):
    vectors = torch.from_numpy(np.load(files["glove"] / "our_vab_data.npy"))
    found = judge.encode_texts(list(CAPTIONS))
    for row, (words, tags) in zip(found, CAPTIONS.values(), strict=True):
        tags = [TAGS.index(tag) for tag in ["OTHER", *tags, "OTHER"]]
        wanted = plain_text(random_t2m(), vectors, ["sos", *words, "eos"], tags)
        assert torch.allclose(row, wanted, atol=1e-5)


def test_lengths_of_captions_are_the_true_ones():
    vocabulary = {word: n for n, word in enumerate(WORDS)}
    assert [len(words_and_tags(text, vocabulary)[0]) for text in CAPTIONS] == [5, 6, 5, 4, 22]


def test_a_motion_depends_on_nothing_behind_its_end_and_on_no_other(judge, motions):
    lengths = torch.tensor(LENGTHS)
    whole = judge.encode_motions(motions, lengths)
    for n, length in enumerate(LENGTHS):
        alone = judge.encode_motions(motions[n : n + 1, :length], lengths[n : n + 1])
        assert torch.allclose(alone[0], whole[n], atol=1e-6)
    assert torch.equal(judge.encode_motions(motions.nan_to_num(9.0), lengths), whole)
    # a last movement of less than four frames is left out, and contacts are not seen
    assert torch.equal(
        judge.encode_motions(motions[:1], torch.tensor([39])),
        judge.encode_motions(motions[:1], torch.tensor([36])),
    )
    touched = motions.clone()
    touched[..., -4:] = 99
    assert torch.equal(judge.encode_motions(touched, lengths), whole)
    touched[..., -5] = 99
    assert not torch.allclose(judge.encode_motions(touched, lengths), whole, atol=1e-3)


def test_large_sets_go_in_pieces_and_dropout_is_off(judge, motions, monkeypatch):
    lengths = torch.tensor(LENGTHS)
    wanted = judge.encode_motions(motions, lengths), judge.encode_texts(list(CAPTIONS))
    monkeypatch.setattr("prefopt.motion.t2m_evaluator.BATCH", 3)
    judge.train()
    found = judge.encode_motions(motions, lengths), judge.encode_texts(list(CAPTIONS))
    assert judge.training
    judge.eval()
    for a, b in zip(found, wanted, strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    assert judge.encode_texts([]).shape == judge.encode_motions(motions[:0], lengths[:0]).shape == (0, 8)


def test_plain_captions_by_their_tagged_form(judge):
    judge.tagged["A person waves."] = "a/DET person/NOUN wave/VERB"
    found = judge.encode_texts(["A person waves.", "a/DET person/NOUN wave/VERB"])
    assert torch.equal(found[0], found[1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda j: j.encode_texts(["a person walks"]), "'a person walks' has no parts of speech"),
        (lambda j: j.encode_texts(["a/DET person/"]), "no parts of speech"),
        (lambda j: j.encode_texts([""]), "no parts of speech"),
        (lambda j: j.encode_texts("a/DET"), "needed a list"),
        (lambda j: j.encode_motions(torch.zeros(1, 8, 259), torch.tensor([8])), "frames, 263"),
        (lambda j: j.encode_motions(torch.zeros(2, 8, 263), torch.tensor([8, 3])), "motion 1 has 3 frames; needed 4 or more"),
        (lambda j: j.encode_motions(torch.zeros(1, 200, 263), torch.tensor([200])), "length 200; needed 1 to 196"),
        (lambda j: j.encode_motions(torch.full((1, 8, 263), torch.nan), torch.tensor([8])), "motions 0 .* not finite"),
        (lambda j: T2MEvaluator(["a", "b"]), "without 'unk'"),
    ],
)  # fmt: skip
def test_what_cannot_be_judged_is_refused(judge, call, message):
    with pytest.raises(ValueError, match=message):
        call(judge)
