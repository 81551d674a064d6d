"""The journal: nothing is asked twice, nothing that arrived is lost, nothing that does not fit is reused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest

from prefopt.generation import Journal, Request, Response, Settings, collect

SETTINGS = Settings(max_new_tokens=5)
REQUESTS = [Request(f"r{k}", f"prompt {k}", n=2) for k in range(4)]


class Counting:
    """Answers with the prompt and the sample's number; fails after `die_after` batches of one."""

    identity = "counting"

    def __init__(self, die_after=None):
        self.asked, self.die_after = [], die_after

    def generate(self, requests, settings):
        for request in requests:
            for sample in request.samples:
                if self.die_after is not None and len(self.asked) >= self.die_after:
                    raise ConnectionError("gone")
                self.asked.append((request.id, sample))
                yield [Response(request.id, sample, f"{request.prompt}/{sample} \n", 3, True)]


def everything(requests=REQUESTS):
    return [Response(r.id, k, f"{r.prompt}/{k} \n", 3, True) for r in requests for k in r.samples]


def test_all_responses_in_order_and_none_asked_twice(tmp_path):
    path = tmp_path / "deep" / "journal.jsonl"
    first = Counting()
    assert collect(first, REQUESTS, SETTINGS, path) == everything()
    again = Counting()
    assert collect(again, REQUESTS[::-1], SETTINGS, path) == everything(REQUESTS[::-1])
    assert again.asked == []
    more = Counting()
    wider = [replace(r, n=3) for r in REQUESTS]
    assert collect(more, wider, SETTINGS, path) == everything(wider)
    assert more.asked == [(r.id, 2) for r in REQUESTS]


def test_holes_are_filled(tmp_path):
    path = tmp_path / "j"
    collect(Counting(), [Request("a", "p", n=5)], SETTINGS, path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[k] for k in (0, 2, 4)))  # samples 1 and 3
    hole = Counting()
    found = collect(hole, [Request("a", "p", n=5)], SETTINGS, path)
    assert [r.sample for r in found] == [0, 1, 2, 3, 4]
    assert hole.asked == [("a", 0), ("a", 2), ("a", 4)]


def test_what_arrived_before_a_failure_stays(tmp_path):
    path = tmp_path / "j"
    with pytest.raises(ConnectionError):
        collect(Counting(die_after=3), REQUESTS, SETTINGS, path)
    rest = Counting()
    assert collect(rest, REQUESTS, SETTINGS, path) == everything()
    assert len(rest.asked) == 2 * len(REQUESTS) - 3


@pytest.mark.parametrize("cut", [1, 20, "all but the last line end"])
def test_a_torn_last_line_is_asked_again(tmp_path, cut):
    path = tmp_path / "j"
    collect(Counting(), REQUESTS, SETTINGS, path)
    data = path.read_bytes()
    path.write_bytes(data[:-1] if isinstance(cut, str) else data[: -1 - cut])
    rest = Counting()
    assert collect(rest, REQUESTS, SETTINGS, path) == everything()
    assert rest.asked == [("r3", 1)]
    assert [json.loads(line) for line in path.read_text().splitlines()]  # whole again
    assert path.read_bytes() == data


def test_a_torn_header_is_no_journal(tmp_path):
    path = tmp_path / "j"
    path.write_bytes(b'{"settings": {"max_n')
    assert collect(Counting(), REQUESTS, SETTINGS, path) == everything()
    assert collect(Counting(die_after=0), REQUESTS, SETTINGS, path) == everything()


@pytest.mark.parametrize("garbage", ['{"id": "r0", "sam\n', "[1]\n", "\x00\x00\n", "\n", '{"id": "r0"}\n'])
def test_a_corrupt_middle_line_is_named(tmp_path, garbage):
    path = tmp_path / "j"
    collect(Counting(), REQUESTS, SETTINGS, path)
    lines = path.read_text().splitlines(keepends=True)
    lines[3] = garbage
    path.write_text("".join(lines))
    with pytest.raises(ValueError, match=r"j, line 4: "):
        collect(Counting(), REQUESTS, SETTINGS, path)


def test_what_does_not_fit_is_refused_before_anything_is_asked(tmp_path):
    path = tmp_path / "j"
    collect(Counting(), REQUESTS, SETTINGS, path)
    asked = Counting()
    with pytest.raises(ValueError, match=r"begun with settings.*max_new_tokens': 5.*now.*max_new_tokens': 6"):
        collect(asked, REQUESTS, replace(SETTINGS, max_new_tokens=6), path)
    with pytest.raises(ValueError, match=r"line 4: answers another prompt under the id 'r1'"):
        collect(asked, [REQUESTS[0], replace(REQUESTS[1], prompt="other")], SETTINGS, path)
    with pytest.raises(ValueError, match="two requests have the id 'r0'"):
        collect(asked, [REQUESTS[0], REQUESTS[0]], SETTINGS, tmp_path / "new")
    asked.identity = "another"
    with pytest.raises(ValueError, match="begun with model = 'counting'"):
        collect(asked, REQUESTS, SETTINGS, path)
    assert asked.asked == []


def test_left_out_responses_are_an_error(tmp_path):
    class Lazy(Counting):
        def generate(self, requests, settings):
            return super().generate(requests[:-1], settings)

    with pytest.raises(ValueError, match="Lazy left out 2 of 8"):
        collect(Lazy(), REQUESTS, SETTINGS, tmp_path / "j")


def test_texts_come_back_as_they_were(tmp_path):
    path = tmp_path / "j"
    odd = "a\u2028b\r\n\t\x0b\ud83d \U0001f600 \x00"
    with Journal(path, {}) as journal:
        journal.append([{"text": odd}])
    assert Journal(path, {}).lines == [(2, {"text": odd})]


def test_kill_9_loses_at_most_what_was_under_way(tmp_path):
    path = tmp_path / "j"
    code = """
        import os, signal, sys
        sys.path.insert(0, sys.argv[1])
        from test_journal import Counting, REQUESTS, SETTINGS
        from prefopt.generation import collect
        class Dying(Counting):
            def generate(self, requests, settings):
                for batch in super().generate(requests, settings):
                    if len(self.asked) == 6:
                        os.kill(os.getpid(), signal.SIGKILL)
                    yield batch
        collect(Dying(), REQUESTS, SETTINGS, sys.argv[2])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), os.path.dirname(__file__), str(path)], check=False
    )
    assert done.returncode == -signal.SIGKILL
    rest = Counting()
    assert collect(rest, REQUESTS, SETTINGS, path) == everything()
    assert rest.asked == [("r2", 1), ("r3", 0), ("r3", 1)]
