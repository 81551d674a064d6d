"""`prefopt evaluate`, as a user runs it: in a process of its own."""

from __future__ import annotations

import json

import pytest

from generation.fake_server import FakeServer
from prefopt.worlds import get_world
from processes import assert_plain_error, fresh_prefopt, prefopt

SHORT = ["--max_new_tokens", "8", "--temperature", "1"]
PROMPTS = get_world("text").prompts(6, "test")


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "prompts.jsonl"
    rows = [{"prompt": [{"role": "user", "content": text}]} for text in PROMPTS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def right(tmp_path):
    """A file of right answers."""
    path = tmp_path / "right.jsonl"
    rows = [
        {"prompt": [{"role": "user", "content": text}], "answer": get_world("text").reference_answer(text)}
        for text in PROMPTS
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_right_answers_beat_a_random_model(tiny_model, data, right, tmp_path):
    out = tmp_path / "out"
    command = [
        "evaluate",
        right,
        "--baseline",
        tiny_model,
        "--data",
        "world:text",
        "--limit",
        "6",
        "--judge",
        "world:text",
    ]
    done = fresh_prefopt(tmp_path, *command, *SHORT, "--output", out)
    assert done.returncode == 0, done.stderr
    assert "length-controlled" in done.stdout
    assert "100.0 to 100.0" in done.stdout
    summary = json.loads((out / "evaluation.json").read_text())
    assert (summary["n"], summary["wins"], summary["win_rate"]["value"]) == (6, 6, 100.0)
    assert summary["lc_win_rate"]["value"] > 99
    assert summary["settings"]["baseline"] == str(tiny_model)
    rows = lines(out / "answers.jsonl")
    assert [row["prompt"][0]["content"] for row in rows] == PROMPTS
    assert all(row["preference"] == 1 for row in rows)
    before = (out / "baseline.journal.jsonl").read_bytes()
    assert prefopt(tmp_path, *command, *SHORT, "--output", out).returncode == 0
    assert (out / "baseline.journal.jsonl").read_bytes() == before  # nothing sampled twice
    assert lines(out / "answers.jsonl") == rows
    changed = prefopt(tmp_path, *command, *SHORT, "--seed", "1", "--output", out)
    assert_plain_error(changed, "baseline.journal.jsonl", "settings")
    # the answers of one evaluation are the baseline of another
    mirrored = prefopt(
        tmp_path, "evaluate", right, "--baseline", out / "answers.jsonl", "--data", data, "--judge", "world:text",
        "--output", tmp_path / "even",
    )  # fmt: skip
    assert mirrored.returncode == 0, mirrored.stderr
    assert json.loads((tmp_path / "even" / "evaluation.json").read_text())["win_rate"]["value"] == 50.0


def test_a_model_beside_itself_with_chosen_answers(tiny_model, data, tmp_path):
    rows = [row | {"chosen": [{"role": "assistant", "content": "fig"}]} for row in lines(data)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = prefopt(
        tmp_path, "evaluate", tiny_model, "--baseline", tiny_model, "--data", data, "--judge", "world:text", *SHORT,
        "--output", tmp_path / "out",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert summary["displacement"] == 0.0
    assert summary["identical_answers"] < 6  # each side draws for itself


def test_a_judge_and_a_model_behind_servers(data, right, tmp_path):
    pytest.importorskip("openai", reason="needs the extra `serving`")

    def reply(body):
        text = body["messages"][-1]["content"]
        if "[Answer A]" not in text:
            return "fig fig fig fig"
        return "B" if "fig fig" in text.split("[Answer A]")[1].split("[Answer B]")[0] else "A"

    with FakeServer(reply=reply) as server:
        done = prefopt(
            tmp_path, "evaluate", f"openai:tiny@{server.url}", "--baseline", right, "--data", data,
            "--judge", f"openai:tiny@{server.url}", "--output", tmp_path / "out",
        )  # fmt: skip
        assert len(server.bodies) == 6 + 12
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert (summary["win_rate"]["value"], summary["consistent_orders"], summary["unreadable"]) == (
        0.0,
        1.0,
        0,
    )
    assert "agree on 100%" in done.stdout


def test_a_function_of_a_file_judges(data, right, tmp_path):
    judge = tmp_path / "rules" / "rule.py"
    judge.parent.mkdir()
    judge.write_text("""
def short(prompt, answer):
    assert ":" in prompt
    return -len(answer)

def fails(prompt, answer):
    return {}[answer]
""")
    other = tmp_path / "other.jsonl"
    rows = lines(right)
    answers = [
        row["answer"] + ("!" if k < 2 else "" if k < 5 else "?")[: k != 2] for k, row in enumerate(rows)
    ]
    longer = [
        row | {"answer": text + " more" * (k % 2)}
        for k, (row, text) in enumerate(zip(rows, answers, strict=True))
    ]
    other.write_text("".join(json.dumps(row) + "\n" for row in longer))
    command = [
        "evaluate",
        right,
        "--baseline",
        other,
        "--data",
        data,
        "--output",
        tmp_path / "out",
        "--judge",
    ]
    done = prefopt(tmp_path, *command, f"{judge}:short")
    assert done.returncode == 0, done.stderr
    expected = [
        1.0 if len(a["answer"]) < len(b["answer"]) else 0.5 if len(a["answer"]) == len(b["answer"]) else 0.0
        for a, b in zip(rows, longer, strict=True)
    ]
    assert {0.5, 1.0} <= set(expected)
    assert [row["preference"] for row in lines(tmp_path / "out" / "answers.jsonl")] == expected
    assert_plain_error(prefopt(tmp_path, *command, f"{judge}:long"), "has no function 'long'")
    assert_plain_error(prefopt(tmp_path, *command, f"{judge}:fails"), "failed on prompt", "KeyError")
    assert_plain_error(prefopt(tmp_path, *command, "rules/none.py:short"), "there is no file rules/none.py")
    judge.write_text("import no_such_module")
    assert_plain_error(prefopt(tmp_path, *command, f"{judge}:short"), "cannot be run", "no_such_module")


def test_bad_input_is_told_before_anything_runs(tiny_model, data, right, tmp_path):
    def run(model=right, baseline=right, data=data, judge="world:text"):
        return prefopt(
            tmp_path,
            "evaluate",
            model,
            "--baseline",
            baseline,
            "--data",
            data,
            "--judge",
            judge,
            "--output",
            "out",
        )

    assert_plain_error(run(judge="gpt"), "no judge of texts is called 'gpt'", "openai:MODEL@URL")
    assert_plain_error(run(judge="openai:http://x"), "openai:MODEL@URL")
    assert_plain_error(
        run(judge="openai:m@http://127.0.0.1:9/v1"), "no server answers at http://127.0.0.1:9/v1"
    )
    assert_plain_error(run(data="prompt.jsonl"), "prompt.jsonl", "did you mean", "prompts.jsonl")
    assert_plain_error(run(model=tmp_path / "nothing"), "no model folder")
    assert_plain_error(run(baseline="world:picture"), "world:picture", "world:text")
    (tmp_path / "few.jsonl").write_text("\n".join(right.read_text().splitlines()[:4]))
    assert_plain_error(run(baseline=tmp_path / "few.jsonl"), "answers 4 of 6 prompts", PROMPTS[4][:20])
    (tmp_path / "other.jsonl").write_text('{"prompt": "Who are you?"}\n{"prompt": "And I?"}\n')
    assert_plain_error(run(data=tmp_path / "other.jsonl"), "cannot judge prompt 'prompt-1'")
    assert not (tmp_path / "out").exists()
