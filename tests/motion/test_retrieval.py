"""A pair of encoders of texts and motions: what it must not depend on, what it remembers, how it is saved, what it refuses."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
import transformers
from torchmetrics.functional.classification import binary_auroc

import tiny_pipelines
from prefopt.metrics.retrieval import ranking
from prefopt.motion.retrieval import MotionEncoder, MotionTextModel, TextProjection, separation
from prefopt.motion.retrieval_training import train_pair
from prefopt.motion.stats import MotionStats
from prefopt.motion.texts import text_width
from tiny_pairs import FRAMES, PROGRAMS, WIDTH, pairs, stats

SMALL = {"embedding": 8, "width": 16, "layers": 1, "heads": 2, "feedforward": 32}


@pytest.fixture(scope="module")
def trained() -> MotionTextModel:
    given = pairs(160, seed=1)
    return train_pair(*given, stats=stats(), steps=80, batch_size=32, lr=5e-3, **SMALL)


@pytest.fixture
def model() -> MotionTextModel:
    """Not trained."""
    return build(tiny_pipelines.clip(), tiny_pipelines.clip_tokenizer())


def build(text_encoder, tokenizer) -> MotionTextModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = {key: value for key, value in SMALL.items() if key != "embedding"}
        return MotionTextModel(
            MotionEncoder(features=WIDTH, max_frames=FRAMES, dropout=0.5, embedding=8, **sizes).eval(),
            TextProjection(text_width(text_encoder), 8).eval(),
            stats(),
            text_encoder.eval(),
            tokenizer,
        )


def bert():
    config = transformers.BertConfig(
        vocab_size=tiny_pipelines.VOCABULARY, hidden_size=24, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32,
    )  # fmt: skip
    return transformers.BertModel(config)


def test_matching_pairs_stand_out_on_new_motions(trained):
    new = pairs(96, seed=2)
    score = trained.score(*new[:3])
    assert float(score.min()) >= trained.range[0]
    assert float(score.max()) <= trained.range[1]
    assert separation(trained, *new[:3]) > 0.95
    # one motion of each program in a pool, each ranked first by its own text
    found = ranking(trained.encode_texts(new.captions), trained.encode_motions(*new[1:3]), pool=len(PROGRAMS))
    assert found.r_precision[0] > 0.9


def test_the_score_is_half_of_one_plus_the_cosine(model):
    given = pairs(5, seed=0)
    text, motion = model.encode_texts(given.captions), model.encode_motions(*given[1:3])
    cosine = torch.nn.functional.cosine_similarity(text, motion)
    assert torch.allclose(model.score(*given[:3]), (cosine + 1) / 2, atol=1e-6)
    for embedding in (text, motion):
        assert torch.allclose(embedding.norm(dim=1), torch.ones(5), atol=1e-6)


def test_a_motion_depends_on_nothing_behind_its_end_and_on_no_other(model):
    given = pairs(6, seed=0)
    whole = model.encode_motions(given.features_NFD, given.lengths_N)
    for n, length in enumerate(given.lengths_N.tolist()):
        alone = model.encode_motions(given.features_NFD[n : n + 1, :length], given.lengths_N[n : n + 1])
        assert torch.allclose(alone[0], whole[n], atol=1e-6)
    wider = torch.cat([given.features_NFD, torch.full((6, 5, WIDTH), 7.0)], 1)
    assert torch.allclose(model.encode_motions(wider, given.lengths_N), whole, atol=1e-6)
    shorter = model.encode_motions(given.features_NFD, given.lengths_N - 1)
    assert not torch.allclose(shorter, whole, atol=1e-3)


def test_the_order_of_frames_matters(model):
    x = torch.randn(1, FRAMES, WIDTH, generator=torch.Generator().manual_seed(0)) * 50 + 1000
    length = torch.tensor([FRAMES])
    assert not torch.allclose(
        model.encode_motions(x, length), model.encode_motions(x.flip(1), length), atol=1e-3
    )


def test_features_are_taken_in_physical_units(model):
    given = pairs(4, seed=0)
    other = build(model.text_encoder, model.tokenizer)
    other.stats.mean_D.zero_()
    other.stats.std_D.fill_(2.0)
    z = (given.features_NFD - 1000) / 50
    assert torch.allclose(
        other.encode_motions(z * 2, given.lengths_N), model.encode_motions(*given[1:3]), atol=1e-5
    )


def test_large_sets_go_in_pieces(model, monkeypatch):
    given = pairs(7, seed=0)
    whole = model.score(*given[:3])
    model.forget_texts()
    monkeypatch.setattr("prefopt.motion.retrieval.BATCH", 3)
    assert torch.allclose(model.score(*given[:3]), whole, atol=1e-6)
    assert model.score([], given.features_NFD[:0], given.lengths_N[:0]).shape == (0,)


@pytest.mark.parametrize(
    "encoder",
    [tiny_pipelines.clip, lambda: tiny_pipelines.clip(projection=True), bert],
    ids=["clip", "projected", "bert"],
)
def test_any_text_encoder_and_no_text_depends_on_others(encoder):
    model = build(encoder(), tiny_pipelines.clip_tokenizer())
    texts = ["walks", "a person turns left twice", "walks", "a person turns left"]
    together = model.encode_texts(texts)
    assert torch.equal(together[0], together[2])
    assert not torch.allclose(together[1], together[3], atol=1e-4)
    model.forget_texts()
    assert torch.allclose(model.encode_texts(texts[3:]), together[3:], atol=1e-5)
    assert model.encode_texts([]).shape == (0, 8)


def test_each_text_is_encoded_once(model):
    seen = []
    model.text_encoder.register_forward_hook(
        lambda module, args, kwargs, out: seen.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    model.encode_texts(["a", "b", "a"])
    model.encode_texts(["b", "c"])
    assert seen == [2, 1]
    model.forget_texts()
    model.encode_texts(["b"])
    assert seen == [2, 1, 1]


def test_dropout_is_off_and_modes_stay(model):
    given = pairs(3, seed=0)
    plain = model.encode_motions(*given[1:3])
    model.motion_encoder.train()
    assert torch.equal(model.encode_motions(*given[1:3]), plain)
    assert model.motion_encoder.training
    assert not model.text_encoder.training


def test_saved_and_loaded_scores_the_same(trained, tmp_path):
    given = pairs(8, seed=3)
    trained.save_pretrained(tmp_path / "pair")
    index = json.loads((tmp_path / "pair/model_index.json").read_text())
    assert index["_class_name"] == "MotionTextModel"
    assert not [file for file in (tmp_path / "pair").rglob("*") if file.suffix in (".bin", ".pt", ".pkl")]
    loaded = MotionTextModel.from_pretrained(tmp_path / "pair")
    assert torch.equal(loaded.score(*given[:3]), trained.score(*given[:3]))
    assert loaded.stats.config.name == "tiny"


def test_an_embedding_of_length_zero_counts_as_unlike(model):
    given = pairs(3, seed=0)
    for parameter in model.motion_encoder.project.parameters():
        parameter.data.zero_()
    with pytest.warns(UserWarning, match=r"motion embeddings \[0, 1, 2\] have the length 0"):
        assert model.score(*given[:3]).tolist() == [0.5, 0.5, 0.5]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build(model.text_encoder, model.tokenizer).score(*given[:3])


# -- separation ----------------------------------------------------------------------------------------------


class Table:
    """Scores by the place of the motion and its text's number."""

    def __init__(self, table: torch.Tensor) -> None:
        self.table = table

    def score(self, prompts, features_BFD, lengths_B):
        return self.table[features_BFD[:, 0, 0].long(), [int(text) for text in prompts]]


def test_separation_is_torchmetrics_area_under_the_curve():
    count = 10
    table = torch.randint(4, (count, count), generator=torch.Generator().manual_seed(0)).double() + torch.eye(
        count
    )
    motions = torch.arange(count).float()[:, None, None]
    found = separation(
        Table(table),
        [str(n) for n in range(count)],
        motions,
        torch.ones(count, dtype=torch.int64),
        rotations=9,
    )
    own = torch.eye(count, dtype=torch.bool)
    wanted = binary_auroc(torch.cat([table[own], table[~own]]) / 10, torch.arange(count**2) < count)
    assert found == pytest.approx(float(wanted), abs=1e-6)
    assert 0.5 < found < 0.9


def test_separation_leaves_out_equal_texts():
    """Texts 0 and 1 by turns: a motion with its own text in another row is no wrong pair."""
    table = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    motions = torch.tensor([0.0, 1.0] * 4)[:, None, None]
    lengths = torch.ones(8, dtype=torch.int64)
    assert separation(Table(table), ["0", "1"] * 4, motions, lengths) == 1.0
    assert separation(Table(-table), ["0", "1"] * 4, motions, lengths) == 0.0
    assert separation(Table(0 * table), ["0", "1"] * 4, motions, lengths) == 0.5
    with pytest.raises(ValueError, match="two or more different texts"):
        separation(Table(table), ["0"] * 8, motions, lengths)
    with pytest.raises(ValueError, match="not finite"):
        separation(Table(table * torch.nan), ["0", "1"] * 4, motions, lengths)


def test_separation_finds_wrong_units(trained):
    """What the released code of SoPo did: features that are z-scores already."""
    given = pairs(64, seed=4)
    assert separation(trained, *given[:3]) > 0.9
    assert separation(trained, given.captions, (given.features_NFD - 1000) / 50, given.lengths_N) < 0.7


# -- what is refused -----------------------------------------------------------------------------------------

X, N = torch.zeros(2, FRAMES, WIDTH), torch.tensor([FRAMES, 3])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.encode_texts("walk"), "needed a list of texts"),
        (lambda m: m.score(["a"], X, N), "1 texts for 2 motions"),
        (lambda m: m.encode_motions(X[..., 1:], N), r"needed \(motions, frames, 6\)"),
        (lambda m: m.encode_motions(X, N[:1]), "a length of each"),
        (lambda m: m.encode_motions(X, torch.tensor([3, 0])), "motion 1 has the length 0"),
        (lambda m: m.encode_motions(X[:, :4], torch.tensor([5, 4])), "motion 0 has the length 5; needed 1 to 4"),
        (lambda m: m.encode_motions(X.repeat(1, 2, 1), torch.tensor([3, 11])), "needed 1 to 10, of 20 frames given and 10"),
        (lambda m: m.encode_motions(X + torch.tensor([0, torch.inf])[:, None, None], N), r"motions 1 \(1 of 2\)"),
    ],
)  # fmt: skip
def test_what_cannot_be_judged_is_refused(model, call, message):
    with pytest.raises(ValueError, match=message):
        call(model)


def test_parts_of_different_models_are_refused(model):
    parts = model.components
    with pytest.raises(ValueError, match="6 features a frame and the statistics 7"):
        MotionTextModel(**{**parts, "stats": MotionStats.of("stick", [0.0] * 7, [1.0] * 7, fps=8)})
    with pytest.raises(ValueError, match="width 8 and texts of 9"):
        MotionTextModel(**{**parts, "text_projection": TextProjection(32, 9)})
