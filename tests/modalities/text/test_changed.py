"""Which tokens a correction changed, from the texts to what the objective sees."""

from __future__ import annotations

import random
from array import array
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from prefopt import objectives
from prefopt.comparisons import Comparison, Encoded, collate
from prefopt.config import ConfigError, resolve
from prefopt.likelihoods.plan import EncodedText, plan_rows
from prefopt.likelihoods.tokens import TokenLikelihood
from prefopt.modalities.text.changed import changed_tokens, with_changed
from prefopt.modalities.text.setup import Language, prepare
from prefopt.models.loading import load_tokenizer
from prefopt.training.batches import Known, join


@pytest.mark.parametrize(
    ("first", "second", "changed"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 4], ([0] * 4, [0] * 4)),
        ([1, 2, 3, 9, 4, 5, 6], [1, 2, 3, 4, 5, 6], ([0, 0, 0, 1, 0, 0, 0], [0] * 6)),
        ([1, 2, 9], [1, 2, 8], ([1, 1, 1], [1, 1, 1])),  # a run of two is chance
        ([1, 2, 3, 9, 4], [1, 2, 3, 8, 4], ([0, 0, 0, 1, 1], [0, 0, 0, 1, 1])),
        ([5, 6], [7], ([1, 1], [1])),
    ],
)
def test_runs_of_three_are_unchanged(first, second, changed) -> None:
    assert tuple(map(list, changed_tokens(first, second))) == changed


def test_frequent_tokens_of_long_answers_are_no_noise() -> None:
    """difflib drops what makes up more than a hundredth of 200 and more, unless told otherwise."""
    same = [k % 5 for k in range(300)]
    first, second = changed_tokens([*same, 77, *same], [*same, 88, *same])
    assert (sum(first), sum(second)) == (1, 1)
    assert first[300] == second[300] == 1


def test_what_is_left_unchanged_is_the_same_on_both_sides() -> None:
    draw = random.Random(0)
    for _ in range(50):
        sides = [[draw.randrange(3) for _ in range(draw.randrange(1, 30))] for _ in range(2)]
        masks = changed_tokens(*sides)
        kept = [[t for t, c in zip(s, m, strict=True) if not c] for s, m in zip(sides, masks, strict=True)]
        assert kept[0] == kept[1]


def example(*items: EncodedText, edges: int = 1) -> Encoded[EncodedText]:
    pairs = [Comparison(0, k + 1) for k in range(edges)]
    return Encoded("a", items, tuple(pairs))


def text(*ids: int, start: int = 1) -> EncodedText:
    return EncodedText(array("i", ids), start)


def test_prompts_do_not_count_and_padding_is_zero() -> None:
    (marked,) = with_changed([example(text(9, 1, 2, 3, 4), text(8, 8, 1, 2, 3, 5, 6, start=2))])
    assert [list(item.changed) for item in marked.items] == [[0, 0, 0, 1], [0, 0, 0, 1, 1]]
    plan = plan_rows([*marked.items, text(9, 1)], pad_token_id=0)
    assert plan.changed_NL.tolist() == [[0, 0, 0, 1, 0], [0, 0, 0, 1, 1], [0] * 5]
    assert plan_rows([text(9, 1)], pad_token_id=0).changed_NL is None


def test_an_answer_compared_with_several_is_refused() -> None:
    with pytest.raises(ConfigError, match="row a compares one answer with several others"):
        with_changed([example(text(1, 2), text(1, 3), text(1, 4), edges=2)])


def test_the_objective_sees_them(tiny_model: Path, rows_file) -> None:
    same = "red two blue one apple fig"
    rows = [
        {"prompt": f"Count {k}:", "chosen": f" {same} pear", "rejected": f" {same} two two"} for k in range(3)
    ]
    config = resolve({"method": "ddpo", "model": "m", "data": str(rows_file(rows)), "eval_size": 1})[0]
    likelihood = TokenLikelihood(load_tokenizer(str(tiny_model)), None)
    objective = objectives.get("ddpo")
    data = prepare(config, objective, likelihood, Language())
    assert len(data.held_out) == 1
    for examples in (data.train, data.held_out):
        batch = collate(examples)
        model = AutoModelForCausalLM.from_pretrained(tiny_model)
        scores = likelihood.score(model, likelihood.plan(batch.items))
        sides = join(Known(scores, torch.zeros_like(scores.logp_NL)), batch.edges, objective)
        shared = 0
        for changed_ET, length_E in zip(sides.both("changed"), sides.both("length"), strict=True):
            assert bool((changed_ET.sum(-1) < length_E).all())
            assert bool((changed_ET.sum(-1) > 0).all())
            shared += int((length_E - changed_ET.sum(-1)).sum())
        assert shared > 0
        plain = prepare(config, objectives.get("dpo"), likelihood, Language())
        assert all(item.changed is None for e in plain.train for item in e.items)
