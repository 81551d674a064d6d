"""Judges: strict reading, both orders, ties, and nothing asked twice."""

from __future__ import annotations

import pytest

from generation.fake_server import FakeServer
from prefopt.evaluation import contest
from prefopt.evaluation.judges import Duel, ScorerJudge, ServerJudge, read_verdict
from prefopt.worlds import get_world

DUELS = [Duel(f"d{k}", [{"role": "user", "content": "Sort: fig apple"}], "x" * k, "x" * 3) for k in range(6)]


def answers_of(body):
    text = body["messages"][-1]["content"]
    first = text.split("[Answer A]\n")[1].split("\n\n[Answer B]")[0]
    second = text.split("[Answer B]\n")[1].split("\n\n[Verdict]")[0]
    assert "Sort: fig apple" in text
    return first, second


def longer(body):
    first, second = answers_of(body)
    return "tie" if len(first) == len(second) else "A" if len(first) > len(second) else "B"


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        ("A", 1.0), ("b", 0.0), (" Tie.\n", 0.5), ("[[A]]", 1.0), ("**B**", 0.0), ('"tie"', 0.5), ("A is better", None),
        ("", None), ("AB", None), ("A or B", None), ("neither", None), ("Answer A", None), ("C", None),
    ],
)  # fmt: skip
def test_verdicts_are_read_strictly(reply, value):
    assert read_verdict(reply) == value


def test_scores_become_verdicts():
    judge = ScorerJudge(get_world("text").verify)
    duels = [
        Duel("better", "Sort: pear fig", "fig pear", "pear fig"),
        Duel("worse", [{"role": "user", "content": "Sort: pear fig"}], "pear fig", "fig pear"),
        Duel("even", "Sort: pear fig", "fig pear", "Fig, pear."),
    ]
    assert judge.preferences(duels) == [1.0, 0.0, 0.5]
    assert ScorerJudge(lambda p, a: len(a), margin=1).preferences(DUELS) == [0, 0, 0.5, 0.5, 0.5, 1]
    with pytest.raises(ValueError, match="'d0'"):
        ScorerJudge(lambda p, a: float("nan")).preferences(DUELS)


def test_both_orders_are_asked_once(tmp_path):
    pytest.importorskip("openai", reason="needs the extra `serving`")
    with FakeServer(reply=longer) as server:
        judge = ServerJudge(server.url, "tiny", tmp_path / "j")
        assert judge.preferences(DUELS) == [0, 0, 0, 0.5, 1, 1]
        assert (judge.unreadable, judge.consistent) == (0, 1.0)
        assert len(server.bodies) == 12
        assert {body["temperature"] for body in server.bodies} == {0.0}
        asked = [answers_of(body) for body in server.bodies]
        assert all((b, a) in asked for a, b in asked)
        again = ServerJudge(server.url, "tiny", tmp_path / "j")
        assert again.preferences(DUELS) == [0, 0, 0, 0.5, 1, 1]
        assert len(server.bodies) == 12
        with pytest.raises(ValueError, match="another prompt under the id 'd0/"):
            again.preferences([Duel("d0", "Sort: fig apple", "new", "answers")])


def test_a_judge_that_always_takes_the_first_answer_says_nothing(tmp_path):
    pytest.importorskip("openai", reason="needs the extra `serving`")
    with FakeServer(reply=lambda body: "A") as server:
        judge = ServerJudge(server.url, "tiny", tmp_path / "j")
        assert judge.preferences(DUELS) == [0.5] * 6
        assert judge.consistent == 0.0


def test_unreadable_replies_are_counted_not_guessed(tmp_path):
    pytest.importorskip("openai", reason="needs the extra `serving`")

    def reply(body):
        first, _ = answers_of(body)
        return "Both are nice, but A" if len(first) == 5 else longer(body)

    with FakeServer(reply=reply) as server:
        judge = ServerJudge(server.url, "tiny", tmp_path / "j")
        assert judge.preferences(DUELS) == [0, 0, 0, 0.5, 1, None]
        assert (judge.unreadable, judge.example) == (1, "Both are nice, but A")


def test_braces_in_answers_are_text(tmp_path):
    pytest.importorskip("openai", reason="needs the extra `serving`")
    seen = []
    with FakeServer(reply=lambda body: seen.append(answers_of(body)) or "tie") as server:
        judge = ServerJudge(server.url, "tiny", tmp_path / "j")
        judge.preferences([Duel("a", "Sort: fig apple", "{second} {} \\1", "{prompt}")])
    assert ("{second} {} \\1", "{prompt}") in seen
    with pytest.raises(ValueError, match=r"lacks \{second\}"):
        ServerJudge(server.url, "tiny", tmp_path / "k", instruction="{prompt} {first}")


def test_any_world_of_texts_can_judge(monkeypatch):
    monkeypatch.setattr(contest, "world_modality", {"world:verse": "text", "world:picture": "image"}.get)
    monkeypatch.setattr(contest, "world_of", lambda name: f"the world {name}")
    assert contest.text_world("world:verse") == "the world world:verse"
    with pytest.raises(ValueError, match="world:picture cannot be used here: needed a world of texts"):
        contest.text_world("world:picture")
