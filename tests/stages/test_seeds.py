"""Which rows have their labels used."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from stages.staged_rig import ROWS, rows, train, write


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write(tmp_path / "rows.jsonl", ROWS)


def labelled(folder: Path) -> list[str]:
    return [row["prompt"] for row in rows(folder / "stages/data/labelled.jsonl")]


def farthest_by_hand(model: Path, prompts: list[str], count: int) -> list[str]:
    """Each time the prompt whose nearest chosen one is farthest, of hidden states found one prompt at a time."""
    tokenizer, network = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model)
    points = []
    for prompt in prompts:
        with torch.no_grad():
            out = network(**tokenizer(prompt, return_tensors="pt"), output_hidden_states=True)
        points.append(out.hidden_states[-1][0, -1].numpy())
    unit = np.stack([p / np.linalg.norm(p) for p in points])
    distance, chosen = 1 - unit @ unit.T, [0]
    while len(chosen) < count:
        nearest = distance[chosen].min(0)
        nearest[chosen] = -1
        chosen.append(int(nearest.argmax()))
    return [prompts[k] for k in chosen]


def test_each_way_of_choosing(tiny_model, data, own_cache, tmp_path):
    found = {}
    for way in ("first", "random", "farthest"):
        train("spa", tiny_model, data, tmp_path / way, seed_selection=way, rounds=1, eval_size=0)
        found[way] = labelled(tmp_path / way)
        asked = {row["prompt"] for row in rows(tmp_path / way / "stages/data/prompts.jsonl")}
        assert len(found[way]) == 4
        assert asked == {row["prompt"] for row in ROWS} - set(found[way])
    prompts = [row["prompt"] for row in ROWS]
    assert found["first"] == prompts[:4]
    assert found["farthest"] == farthest_by_hand(tiny_model, prompts, 4)
    assert len({json.dumps(sorted(chosen)) for chosen in found.values()}) == 3


def test_random_ones_belong_to_the_seed(tiny_model, data, own_cache, tmp_path):
    found = []
    for number, seed in enumerate((1, 1, 2)):
        folder = tmp_path / str(number)
        train("spa", tiny_model, data, folder, seed_selection="random", seed=seed, rounds=0, eval_size=0)
        found.append(labelled(folder))
    assert found[0] == found[1] != found[2]
