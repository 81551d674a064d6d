"""Servers that are given a round's weights: adapters by vLLM's endpoints, anything by a command."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

import pytest

from generation.fake_server import FakeServer
from generation.real_server import free_port
from prefopt.generation.reload import check_reload, served
from prefopt.generation.server import ServerGenerator
from stages.staged_rig import WORDS, longest, rows, train, write

pytest.importorskip("openai", reason="talking to servers needs the extra `serving`")


@pytest.fixture
def adapter(tmp_path):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter/adapter_config.json").write_text("{}")
    (tmp_path / "adapter/adapter_model.safetensors").write_bytes(b"weights")
    return str(tmp_path / "adapter")


def test_adapters_are_loaded_under_their_folders_name_and_leave_again(adapter, tmp_path):
    with FakeServer(known="base", adapters=True) as server:
        check_reload(server.url, "lora")
        server.loaded[adapter] = b"of a round that was interrupted"
        with served(server.url, adapter, "lora", "base") as name:
            assert name == adapter
            assert server.loaded == {adapter: b"weights"}
        assert not server.loaded
        (tmp_path / "whole").mkdir()
        with served(server.url, str(tmp_path / "whole"), "lora", "no-such-name") as name:
            assert name == "base"  # what the server was started with
        (tmp_path / "adapter/adapter_model.safetensors").unlink()
        with (
            pytest.raises(ValueError, match=r"does not load the adapter .*No adapter found"),
            served(server.url, adapter, "lora", "base"),
        ):
            pass


def test_a_command_brings_the_weights(tmp_path):
    note = f"{sys.executable} -c \"import sys; open('{tmp_path}/asked', 'a').write(sys.argv[1])\" {{model}}"
    with FakeServer(known="/models/round 1") as server:
        check_reload(server.url, note)
        with served(server.url, "/models/round 1", note, "base") as name:
            assert name == "/models/round 1"
        assert (tmp_path / "asked").read_text() == "/models/round 1"
        fails = f"{sys.executable} -c 'raise SystemExit(\"out of memory\")' {{model}}"
        with (
            pytest.raises(ValueError, match="ended with 1: out of memory"),
            served(server.url, "m", fails, "base"),
        ):
            pass


def test_a_server_that_kept_its_port_is_not_taken_for_the_new_one(monkeypatch):
    monkeypatch.setattr("prefopt.generation.reload.GOING", 0.3)
    with (
        FakeServer(known="BASE") as server,
        pytest.raises(ValueError, match=r"serves BASE; needed /run/stages/2/served.*kept the port"),
        served(server.url, "/run/stages/2/served", "true {model}", "BASE"),
    ):
        pass


def test_a_server_that_a_command_starts_need_not_be_up_before(tiny_model, own_cache, tmp_path):
    data = write(tmp_path / "prompts.jsonl", [{"prompt": f"Sort: {word} red"} for word in WORDS])
    with pytest.raises(ValueError, match=r"generation_reload: false .*served ended with 1"):
        train(
            "online_dpo", tiny_model, data, tmp_path / "run", reward=longest, seed_pairs=0, eval_size=0,
            generation_server=f"http://127.0.0.1:{free_port()}/v1", generation_reload="false {model}",
        )  # fmt: skip


@pytest.fixture
def serve_sh(tmp_path, monkeypatch):
    """The script of the documentation in a folder of its own, on a free port, and a stand-in of vllm; ends what it started."""
    port = free_port()
    page = (Path(__file__).parents[2] / "docs/online.md").read_text("utf-8")
    script = re.search(r"```bash\n(#!/bin/bash\n# serve\.sh.*?)```", page, re.S)[1]
    (tmp_path / "serve.sh").write_text(script.replace("8000", str(port)).replace("{1..60}", "{1..3}"))
    (tmp_path / "vllm").write_text(
        f"#!{sys.executable}\nimport sys, time\nfrom generation.fake_server import FakeServer\n"
        "assert sys.argv[1] == 'serve' and sys.argv[3] == '--port'\n"
        "with FakeServer(int(sys.argv[4]), known=sys.argv[2], reply=lambda body: f' {body[\"seed\"]}'): time.sleep(120)\n"
    )
    for name in ("serve.sh", "vllm"):
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    monkeypatch.chdir(tmp_path)
    yield f"http://localhost:{port}/v1"
    if (tmp_path / "vllm.pid").exists():
        os.kill(int((tmp_path / "vllm.pid").read_text()), signal.SIGTERM)


@pytest.mark.slow
def test_the_documented_script_serves_each_rounds_folder(
    serve_sh, tiny_model, own_cache, tmp_path, monkeypatch
):
    """No server is up when it begins; one that it did not start is not replaced in silence."""
    prompts = [{"prompt": f"Sort: {a} {b}"} for a in WORDS[:4] for b in WORDS[4:]]
    given = {
        "reward": longest, "seed_pairs": 0, "eval_size": 0, "rounds": 2, "generation_server": serve_sh,
        "generation_reload": "./serve.sh {model}",
    }  # fmt: skip
    data, asked = write(tmp_path / "prompts.jsonl", prompts), []
    made = ServerGenerator.__init__
    monkeypatch.setattr(
        ServerGenerator, "__init__", lambda self, url, model: asked.append(model) or made(self, url, model)
    )
    train("online_dpo", tiny_model, data, tmp_path / "run", **given)
    assert asked == [str(tmp_path / f"run/stages/{n}/served") for n in (1, 2)]
    (tmp_path / "vllm.pid").rename(tmp_path / "other.pid")
    try:
        with pytest.raises(ValueError, match=r"ended with 1: port .* is taken by a server"):
            train("online_dpo", tiny_model, data, tmp_path / "again", **given)
    finally:
        (tmp_path / "other.pid").rename(tmp_path / "vllm.pid")


def test_refused():
    with FakeServer(known="base") as server:
        for how, message in {
            "lora": "has no /load_lora_adapter: start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True",
            "restart.sh": r"a command in which \{model\} stands",
            "no-such-program {model}": "there is no program 'no-such-program'",
            "'open {model}": "is no command",
        }.items():
            with pytest.raises(ValueError, match=message):
                check_reload(server.url, how)


@pytest.mark.slow
def test_rounds_hand_their_adapters_to_the_server(tiny_model, own_cache, tmp_path):
    data = write(
        tmp_path / "prompts.jsonl", [{"prompt": f"Sort: {a} {b}"} for a in WORDS[:4] for b in WORDS[4:]]
    )
    folder = tmp_path / "run"
    asked = []

    def reply(body):
        asked.append(body["model"])
        return f" {body['seed']}"

    with FakeServer(known=str(tiny_model), adapters=True, reply=reply) as server:
        train(
            "online_dpo", tiny_model, data, folder, reward=longest, seed_pairs=0, eval_size=0, use_peft=True, lora_r=2,
            generation_server=server.url, generation_reload="lora",
        )  # fmt: skip
    first, second = asked[:6], asked[6:]
    assert set(first) == {str(tiny_model)}, "nothing is trained yet"
    place = str(folder / "stages/2/served")
    assert set(second) == {place}
    assert [load for load in server.loads if load[1] == place] == [
        ("unload", place),
        ("load", place),
        ("unload", place),
    ]
    pace = next(line for line in rows(folder / "metrics.jsonl") if line["split"] == "generation")
    assert pace["sampled_tokens"] == 6 * 3  # as the server counts them
