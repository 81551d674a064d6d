"""Servers that are given a round's weights: adapters by vLLM's endpoints, anything by a command."""

from __future__ import annotations

import sys

import pytest

from generation.fake_server import FakeServer
from prefopt.generation.reload import check_reload, served
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
    with FakeServer(known="served") as server:
        check_reload(server.url, note)
        with served(server.url, "/models/round 1", note, "base") as name:
            assert name == "served"  # the only one
        assert (tmp_path / "asked").read_text() == "/models/round 1"
        fails = f"{sys.executable} -c 'raise SystemExit(\"out of memory\")' {{model}}"
        with (
            pytest.raises(ValueError, match="ended with 1: out of memory"),
            served(server.url, "m", fails, "base"),
        ):
            pass


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
