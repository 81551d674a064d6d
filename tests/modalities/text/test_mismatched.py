"""KTO's mismatched completions answer another prompt, whatever the order of rows."""

from __future__ import annotations

import json
import random
from array import array
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from prefopt import objectives
from prefopt.comparisons import Comparison, Encoded, Outcome
from prefopt.config import ConfigError, resolve
from prefopt.likelihoods.plan import EncodedText
from prefopt.likelihoods.tokens import TokenLikelihood
from prefopt.modalities.splits import PreparedData
from prefopt.modalities.text.mismatched import partners, with_mismatched
from prefopt.modalities.text.setup import Language, prepare
from prefopt.models.loading import load_tokenizer

CASES = Path(__file__).parents[2] / "data" / "cases"
EDGE = (Comparison(0, None, Outcome(1.0, 0.0, 0.0)),)


def single(name: str, ids: list[int], start: int = 1) -> Encoded[EncodedText]:
    return Encoded(name, (EncodedText(array("i", ids), start),), EDGE)


def prepared(tiny_model: Path, path: Path, method: str = "kto", **given: Any) -> PreparedData:
    config = resolve({"method": method, "model": "m", "data": str(path), **given})[0]
    likelihood = TokenLikelihood(load_tokenizer(str(tiny_model)), None)
    return prepare(config, objectives.get(method), likelihood, Language())


def foreign(tiny_model: Path, data: PreparedData, rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """(prompt, completion) of every mismatched item, as texts; each completion must be one of another prompt's."""
    tokenizer = load_tokenizer(str(tiny_model))
    decode = lambda ids: tokenizer.decode(list(ids), skip_special_tokens=True)  # noqa: E731
    answers: dict[str, set[str]] = {}
    for row in rows:
        key = decode(tokenizer(row["prompt"])["input_ids"])
        for side in ("chosen", "rejected", "completion"):
            if side in row:
                whole = tokenizer(row["prompt"] + row[side])["input_ids"]
                answers.setdefault(key, set()).add(
                    decode(whole[len(tokenizer(row["prompt"])["input_ids"]) :])
                )
    found = []
    for example in (*data.train, *data.held_out):
        (aside,) = example.aside
        prompt, completion = decode(aside.ids[: aside.start]), decode(aside.ids[aside.start :])
        assert prompt == decode(example.items[0].ids[: example.items[0].start])
        assert completion not in answers[prompt]
        assert any(completion in of for of in answers.values())
        found.append((prompt, completion))
    return found


@pytest.mark.parametrize("name", ["kto_pairs.jsonl", "kto_singles_adjacent.jsonl"])
@pytest.mark.parametrize("eval_size", [0, 4])
def test_neighbouring_rows_of_one_prompt_are_never_mixed(tiny_model, rows_file, name, eval_size):
    rows = [json.loads(line) for line in (CASES / name).open()]
    found = foreign(tiny_model, prepared(tiny_model, CASES / name, eval_size=eval_size), rows)
    if eval_size:
        return
    assert max(Counter(completion for _, completion in found).values()) == 1  # each completion once
    shuffled = rows[:]
    random.Random(0).shuffle(shuffled)
    other = foreign(tiny_model, prepared(tiny_model, rows_file(shuffled), eval_size=0), shuffled)
    assert sorted(found) == sorted(other)


def test_the_reference_point_is_that_of_other_prompts(tiny_model, tmp_path):
    """kto/z0 of the first step, against scores of the same completions by plain transformers."""
    from prefopt import train

    rows = [json.loads(line) for line in (CASES / "kto_pairs.jsonl").open()][:4]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    moved, other = tmp_path / "moved", AutoModelForCausalLM.from_pretrained(tiny_model)
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(1.2)
    other.save_pretrained(moved)
    result = train(
        "kto", model=str(tiny_model), reference_model=str(moved), data=str(path), eval_size=0, max_steps=1,
        per_device_train_batch_size=8, learning_rate=1e-9, sample_prompts=0, output_dir=str(tmp_path / "run"),
    )  # fmt: skip
    first = next(line for line in result.history if line["split"] == "train")
    policy = AutoModelForCausalLM.from_pretrained(tiny_model)

    def logp(model: Any, item: EncodedText) -> float:
        ids = torch.tensor([list(item.ids)])
        with torch.no_grad():
            logps = model(ids).logits[0, :-1].log_softmax(-1)
        return float(logps.gather(-1, ids[0, 1:, None])[item.start - 1 :].sum())

    asides = [e.aside[0] for e in prepared(tiny_model, path, eval_size=0).train]
    expected = sum(logp(policy, item) - logp(other, item) for item in asides) / len(asides)
    assert first["kto/z0"] == pytest.approx(max(expected, 0), abs=1e-3)
    assert expected > 0.05  # below zero it would be cut to zero


def test_one_prompt_is_refused_before_the_model_is_loaded(tiny_model):
    with pytest.raises(ConfigError, match=r"answer one prompt.*at least two prompts"):
        prepared(tiny_model, CASES / "one_prompt_60rows.jsonl")


def test_one_held_out_prompt_borrows_from_the_training_rows(tiny_model):
    data = prepared(tiny_model, CASES / "kto_pairs.jsonl", eval_size=1)
    rows = [json.loads(line) for line in (CASES / "kto_pairs.jsonl").open()]
    assert len(data.held_out) == 2
    foreign(tiny_model, data, rows)


@pytest.mark.parametrize("counts", [[1, 1], [1, 2, 3], [3, 3], [5, 1, 1], [1, 1, 7], [4, 2, 2], [2] * 9])
def test_partners_belong_to_another_prompt(counts):
    names = [(f"p{n}", bytes([k]), f"{n}-{k}") for n, count in enumerate(counts) for k in range(count)]
    random.Random(1).shuffle(names)
    found = partners(names)
    assert all(names[k][0] != names[j][0] for k, j in enumerate(found))
    if max(counts) * 2 <= len(names):
        assert sorted(found) == list(range(len(names)))
    else:  # as even as can be
        rest = len(names) - max(counts)
        assert max(Counter(found).values()) == -(-max(counts) // rest)


def test_completions_are_cut_to_the_limit():
    samples = [("a", single("1", [10, 10, 11], 2)), ("b", single("2", [20, 21, 22, 23]))]
    found = with_mismatched(samples, None)
    assert [list(e.aside[0].ids) for e in found] == [[10, 10, 21, 22, 23], [20, 11]]
    assert [e.aside[0].start for e in found] == [2, 1]
    assert list(with_mismatched(samples, 4)[0].aside[0].ids) == [10, 10, 21, 22]
    assert found[0].items == samples[0][1].items
    assert with_mismatched([], None) == []
