"""Answers from servers: a small one with accidents to order, and the real one of transformers."""

from __future__ import annotations

import json
import shutil
import sys
import time

import pytest

from generation.fake_server import FakeServer
from generation.real_server import free_port, transformers_serve
from prefopt.generation import Request, ServerGenerator, Settings, collect
from prefopt.generation.base import sample_seed

pytest.importorskip("openai", reason="talking to servers needs the extra `serving`")

SETTINGS = Settings(max_new_tokens=7, temperature=0.5, top_p=0.9, seed=2)


def requests(count=6):
    return [Request(f"r{k}", [{"role": "user", "content": f"say {k}"}], n=2) for k in range(count)]


def test_each_sample_is_asked_with_its_own_seed_and_the_settings(tmp_path):
    asked = [*requests(2), Request("plain", "Once upon", n=1)]
    with FakeServer() as server:
        found = collect(ServerGenerator(server.url, "tiny"), asked, SETTINGS, tmp_path / "j")
    seeds = [sample_seed(2, r.id, k, 31) for r in asked for k in r.samples]
    said = ["say 0", "say 0", "say 1", "say 1", "Once upon"]
    assert [r.text for r in found] == [f"{text} {seed}" for text, seed in zip(said, seeds, strict=True)]
    assert all((r.tokens, r.ended) == (3, True) for r in found)
    for body in server.bodies:
        assert (body["max_tokens"], body["temperature"], body["top_p"]) == (7, 0.5, 0.9)
    assert sorted(body["seed"] for body in server.bodies) == sorted(seeds)
    assert len(set(seeds)) == len(seeds)


def test_concurrency_is_bounded_and_used(tmp_path):
    with FakeServer(pause=0.05) as server:
        collect(ServerGenerator(server.url, "tiny", concurrency=3), requests(), SETTINGS, tmp_path / "j")
    assert server.most == 3


def test_a_server_out_of_sorts_is_asked_again(tmp_path):
    with FakeServer(fail_first=2) as server:
        found = collect(
            ServerGenerator(server.url, "tiny", concurrency=1), requests(1), SETTINGS, tmp_path / "j"
        )
    assert len(found) == 2
    with FakeServer(fail_first=99) as server, pytest.raises(ConnectionError, match="failed 2 times"):
        collect(ServerGenerator(server.url, "tiny", retries=1), requests(1), SETTINGS, tmp_path / "k")


def test_a_killed_server_loses_nothing(tmp_path):
    path = tmp_path / "j"
    with (
        FakeServer(die_after=5) as server,
        pytest.raises(ConnectionError, match=r"no server answers.*run again"),
    ):
        collect(ServerGenerator(server.url, "tiny", retries=0), requests(), SETTINGS, path)
    assert len(server.bodies) == 5
    assert len(path.read_text().splitlines()) == 1 + 5
    with FakeServer() as fresh:  # elsewhere, which is not another model
        found = collect(ServerGenerator(fresh.url, "tiny"), requests(), SETTINGS, path)
    assert len(found) == 12
    assert len(fresh.bodies) == 7


def test_errors_say_what_to_do(tmp_path):
    url = f"http://127.0.0.1:{free_port()}/v1"
    began = time.monotonic()
    with pytest.raises(ConnectionError, match=f"no server answers at {url}.*start one"):
        collect(ServerGenerator(url, "tiny"), requests(), SETTINGS, tmp_path / "j")
    assert time.monotonic() - began < 3  # without the pauses between retries
    with FakeServer() as server, pytest.raises(ValueError, match=r"knows no model 'other'.*no such model"):
        collect(ServerGenerator(server.url, "other"), requests(), SETTINGS, tmp_path / "j")
    with (
        FakeServer(pause=1.0) as server,
        pytest.raises(ConnectionError, match=r"within 0\.2 seconds, 1 times"),
    ):
        collect(
            ServerGenerator(server.url, "tiny", timeout=0.2, retries=0), requests(1), SETTINGS, tmp_path / "j"
        )
    with pytest.raises(ValueError, match="begins with http"):
        ServerGenerator("localhost:8000", "tiny")
    with pytest.raises(ValueError, match="concurrency >= 1"):
        ServerGenerator(url, "tiny", concurrency=0)


def test_without_the_client_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ValueError, match=r"pip install 'prefopt\[serving\]'"):
        ServerGenerator("http://localhost:1/v1", "tiny")


def test_a_server_that_does_not_draw_is_pointed_out(tmp_path):
    with (
        FakeServer(reply=lambda body: "same") as server,
        pytest.warns(UserWarning, match="seems not to draw"),
    ):
        collect(ServerGenerator(server.url, "tiny"), requests(), SETTINGS, tmp_path / "j")


# -- the server of transformers ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(tiny_model, tmp_path_factory):
    """Folder of a model that draws, and the address of a server."""
    folder = tmp_path_factory.mktemp("served")
    model = shutil.copytree(tiny_model, folder / "model")
    config = json.loads((model / "generation_config.json").read_text())
    (model / "generation_config.json").write_text(json.dumps(config | {"do_sample": True, "top_k": 0}))
    with transformers_serve(folder / "log", model) as url:
        yield str(model), url


def test_transformers_serve(served, tmp_path):
    model, url = served
    asked = [*requests(3), Request("plain", "Sort: pear fig", n=1)]
    settings = Settings(max_new_tokens=6, temperature=1.0, seed=1)
    found = collect(ServerGenerator(url, model, concurrency=1), asked, settings, tmp_path / "j")
    assert [(r.id, r.sample) for r in found] == [(r.id, k) for r in asked for k in r.samples]
    assert all(0 < r.tokens <= 6 for r in found)
    assert len({r.text for r in found}) > 3
    again = collect(ServerGenerator(url, model, concurrency=1), asked, settings, tmp_path / "k")
    assert again == found  # one request at a time: its seeds count
    with pytest.raises(ValueError, match="refuses a request"):
        collect(ServerGenerator(url, "no/such-model"), asked, settings, tmp_path / "l")


def test_transformers_serve_is_greedy_as_this_process_is(served, tmp_path):
    from prefopt.generation import LocalGenerator
    from prefopt.models.loading import load_model, load_tokenizer

    model, url = served
    greedy = Settings(max_new_tokens=6, temperature=0)
    asked = [Request(r.id, r.prompt) for r in requests(3)]
    there = collect(ServerGenerator(url, model), asked, greedy, tmp_path / "j")
    here = collect(
        LocalGenerator(load_model(model, trainable=False).model, load_tokenizer(model)),
        asked,
        greedy,
        tmp_path / "k",
    )
    assert [r.text for r in there] == [r.text for r in here]


def test_tools_are_refused_before_anything_is_asked(tmp_path):
    request = Request("a", [{"role": "user", "content": "say"}], template={"tools": [{"name": "look"}]})
    with FakeServer() as server, pytest.raises(ValueError, match="carries tools, which a server"):
        collect(ServerGenerator(server.url, "tiny"), [request], SETTINGS, tmp_path / "j")
    assert server.bodies == []
