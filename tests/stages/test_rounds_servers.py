"""Rounds whose answers come from a server, and rounds whose judge is one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from generation.fake_server import FakeServer
from generation.real_server import free_port, transformers_serve
from prefopt.config import ConfigError
from prefopt.generation.server import ServerGenerator
from prefopt.stages.judging import mean_preferences
from stages.staged_rig import ROWS, Asked, longest, rows, train, weights, write

pytest.importorskip("openai", reason="talking to servers needs the extra `serving`")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write(tmp_path / "rows.jsonl", ROWS)


def numbered(body):
    return f" {body['seed']}"


@pytest.mark.slow
def test_transformers_serve_answers_for_each_rounds_model(tiny_model, data, own_cache, tmp_path, monkeypatch):
    """Drawn, not the likeliest token, and by the weights of the round before; nothing is sampled in this process."""
    asked = Asked(monkeypatch)
    folder = tmp_path / "run"
    with transformers_serve(tmp_path / "log") as url:
        train("spa", tiny_model, data, folder, generation_server=url, response_temperature=1.5)
    assert not asked.samples
    models = []
    for number in (1, 2):
        header, *answers = rows(folder / f"stages/{number}/answers.jsonl")
        models.append(header["model"])
        assert len(answers) == 6
        assert len({row["text"] for row in answers}) > 2
        assert all(0 < row["tokens"] <= 8 for row in answers)
    assert models[0] != models[1]
    served = json.loads((folder / "stages/1/served/generation_config.json").read_text())
    assert (served["do_sample"], served["top_k"]) == (True, 0)


def test_a_server_that_dies_in_a_round_loses_nothing(tiny_model, data, own_cache, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    made = ServerGenerator.__init__
    monkeypatch.setattr(
        ServerGenerator, "__init__", lambda self, url, model: made(self, url, model, retries=0)
    )
    with (
        FakeServer(die_after=4, reply=numbered, known=None) as server,
        pytest.raises(ConnectionError, match=r"no server answers.*run again to continue"),
    ):
        train("spa", tiny_model, data, folder, rounds=1, generation_server=server.url)
    assert len(server.bodies) == 4
    before = weights(folder / "stages/0/run")
    with FakeServer(port=server.port, reply=numbered, known=None) as again:
        train("spa", tiny_model, data, folder, rounds=1, generation_server=again.url, resume=True)
    assert len(again.bodies) == 2
    assert weights(folder / "stages/0/run") == before
    with FakeServer(port=server.port, reply=numbered, known=None) as whole:
        train("spa", tiny_model, data, tmp_path / "whole", rounds=1, generation_server=whole.url)
    assert weights(folder) == weights(tmp_path / "whole")


def long_one(body):
    """A judge that likes long answers and keeps to one word; of a certain prompt it has much to say."""
    asked = body["messages"][-1]["content"]
    if "Sort: blue apple" in asked:
        return "Both are fine answers in their way."
    first, second = (re.search(rf"\[Answer {side}\]\n(.*?)\n\n\[", asked, re.S)[1].strip() for side in "AB")
    return "tie" if len(first) == len(second) else "A" if len(first) > len(second) else "B"


def test_a_judge_behind_a_server_labels_the_rounds(tiny_model, data, own_cache, tmp_path):
    folder = tmp_path / "run"
    with FakeServer(reply=long_one, known="judge") as server:
        named = f"openai:judge@{server.url}"
        train("online_dpo", tiny_model, data, folder, rounds=1, responses=3, judge=named)
    prompts = {row["id"]: row["prompt"] for row in rows(folder / "stages/1/prompts.jsonl")}
    assert "Sort: blue apple" in prompts.values(), "the judge must meet what it has much to say of"
    expected = 0
    for row in rows(folder / "stages/1/labels.jsonl"):
        expected += len(row["answers"]) * (len(row["answers"]) - 1)  # every two, in both orders
        if prompts[row["id"]] == "Sort: blue apple":
            assert row["score"] is None
            continue
        lengths = [len(a.strip()) for a in row["answers"]]
        by_hand = [
            sum((a > b) + 0.5 * (a == b) for k, b in enumerate(lengths) if k != i) / (len(lengths) - 1)
            for i, a in enumerate(lengths)
        ]
        assert row["score"] == pytest.approx(by_hand)
    assert len(server.bodies) == expected
    told = json.loads((folder / "stages/1/round.json").read_text())
    assert told["dropped"]["unreadable_verdicts"] == 1
    for pair in rows(folder / "stages/1/pairs.jsonl"):
        assert len(pair["chosen"].strip()) > len(pair["rejected"].strip())
    assert len(rows(folder / "stages/1/verdicts.jsonl")) == 1 + expected


def test_a_judge_that_never_says_one_word(tiny_model, data, own_cache, tmp_path):
    with (
        FakeServer(reply=lambda body: "It depends.", known="judge") as server,
        pytest.raises(ValueError, match=r"verdicts of openai:judge@.* cannot be read.*verdicts\.jsonl"),
    ):
        train("online_dpo", tiny_model, data, tmp_path / "run", rounds=1, judge=f"openai:judge@{server.url}")


@pytest.mark.parametrize("key", ["judge", "generation_server"])
def test_servers_that_are_not_there_are_missed_at_once(key, tiny_model, data, own_cache, tmp_path):
    url = f"http://127.0.0.1:{free_port()}/v1"
    given = {"judge": f"openai:judge@{url}"} if key == "judge" else {"generation_server": url}
    with pytest.raises(ConnectionError, match=f"no server answers at {url}"):
        train("online_dpo", tiny_model, data, tmp_path / "run", reward=longest, **given)
    bad = {"judge": "openai:judge"} if key == "judge" else {"generation_server": "localhost:1"}
    with pytest.raises(ConfigError, match=f"{key}: .*(needed openai:MODEL@URL|begins with http)"):
        train("online_dpo", tiny_model, data, tmp_path / "run", reward=longest, **bad)
    assert not (tmp_path / "run").exists()


def test_mean_preferences():
    assert mean_preferences([1.0], 2) == [1.0, 0.0]
    assert mean_preferences([1.0, 1.0, 0.5], 3) == [1.0, 0.25, 0.25]
    assert mean_preferences([1.0, None, 0.5], 3) is None
    assert mean_preferences([], 1) == [0.0]
