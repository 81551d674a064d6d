"""Uploads to the hub, held against a local one: what arrives, what is asked before a run, and what is left when it fails."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from huggingface_hub import ModelCardData, constants

import prefopt
from conftest import ROWS
from fake_hub import TOKEN, FakeHub
from prefopt.cli.main import main
from prefopt.config import ConfigError
from prefopt.config.keys.publishing import PublishingKeys
from prefopt.hub import PushError, push
from prefopt.stages.folder import FREE, ONE_RUN
from prefopt.training.course import FREE_ON_RESUME
from processes import free_port
from stages.staged_rig import ROUNDS

OPTIONS: dict[str, Any] = {
    "max_steps": 1, "save_strategy": "no", "per_device_train_batch_size": 2, "sample_prompts": 0, "eval_size": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[FakeHub]:
    hub = FakeHub()
    yield hub
    hub.close()


@pytest.fixture
def hub(server: FakeHub, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """The hub that this process reaches, with somebody logged in."""
    server.reset()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return server


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return file


def train(model: Path, data: Path, folder: Path, **more: Any) -> prefopt.TrainResult:
    return prefopt.train("dpo", model=model, data=data, output_dir=str(folder), **{**OPTIONS, **more})


@pytest.fixture(scope="module")
def done(tiny_model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; copy it to change it."""
    return train(tiny_model, data, tmp_path_factory.mktemp("hub") / "mine").output_dir


@pytest.fixture(scope="module")
def adapters(tiny_model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of adapters."""
    return train(tiny_model, data, tmp_path_factory.mktemp("hub") / "lora", use_peft=True).output_dir


def front(hub: FakeHub, repo_id: str) -> dict[str, Any]:
    """The card's front matter, as the hub's own library reads it."""
    text = hub.repos[repo_id]["README.md"].decode()
    return ModelCardData(**yaml.safe_load(text.split("---\n")[1])).to_dict()


def body(hub: FakeHub, repo_id: str) -> str:
    return hub.repos[repo_id]["README.md"].decode().split("---\n", 2)[2]


def status(folder: Path) -> str:
    return json.loads((folder / "record" / "manifest.json").read_text())["status"]


def said(*words: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["push", *map(str, words)])
    return done.exit_code, done.output


def test_a_run_ends_on_the_hub(hub, tiny_model, data, tmp_path, capfd):
    """All of model/ and the card, in one commit, and nothing else."""
    run = train(tiny_model, data, tmp_path / "run", push_to_hub=True, hub_model_id="team/tiny").output_dir
    kept = {p.name: p.read_bytes() for p in (run / "model").iterdir()}
    there = hub.repos["team/tiny"]
    assert {n: d for n, d in there.items() if n != "README.md"} == kept | {
        ".gitattributes": b"*.safetensors filter=lfs"
    }
    assert hub.large  # the weights went as a large file
    assert len(hub.commits) == 1
    assert hub.private == {"team/tiny": False}
    assert f"hub:    {hub.url}/team/tiny" in capfd.readouterr().err
    card = front(hub, "team/tiny")
    assert card["library_name"] == "transformers"
    assert card["model_name"] == "tiny"
    assert card["pipeline_tag"] == "text-generation"
    assert card["tags"] == ["prefopt", "preference-optimization", "dpo", "arxiv:2305.18290"]
    assert (
        not {"base_model", "datasets", "license"} & card.keys()
    )  # a folder and a file of this machine; unknown
    text = body(hub, "team/tiny")
    assert 'folder = "team/tiny"' in text
    assert "report.html" not in text
    assert "config.yaml" not in text
    assert str(tmp_path.parent) not in text  # where the model and the data lie is nobody's business
    assert str(data.parent) not in text
    assert "| Source | rows.jsonl |" in text


def test_the_name_of_the_folder_and_a_private_repository(hub, done):
    code, text = said(done, "--private")
    assert (code, text) == (0, f"{hub.url}/me/mine: {len(hub.repos['me/mine']) - 1} files\n")
    assert hub.private == {"me/mine": True}
    assert "README.md" in hub.repos["me/mine"]


def test_what_the_run_says_wins_over_the_folders_name(hub, done, tmp_path):
    run = shutil.copytree(done, tmp_path / "other")
    values = yaml.safe_load((run / "config.yaml").read_text())
    values |= {"push_to_hub": True, "hub_model_id": "asked", "hub_private_repo": True}
    (run / "config.yaml").write_text(yaml.safe_dump(values))
    assert push(run).repo_id == "me/asked"
    assert hub.private == {"me/asked": True}
    assert push(run, "team/given").repo_id == "team/given"


def test_adapters_by_their_base_and_kind(hub, adapters, tmp_path):
    """A note where others cannot load the base; none where it is on the hub, to which the card then links."""
    pushed = push(adapters)
    assert len(pushed.notes) == 1
    assert "which only this machine has" in pushed.notes[0]
    card = front(hub, "me/lora")
    assert (card["library_name"], "base_model" in card) == ("peft", False)
    assert card["tags"] == ["prefopt", "preference-optimization", "dpo", "lora", "arxiv:2305.18290"]
    assert 'from_pretrained("path/to/llama")' in body(hub, "me/lora")
    run = shutil.copytree(adapters, tmp_path / "based")
    file = run / "model" / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "base_model_name_or_path": "owner/base"}))
    assert push(run / "model").notes == ()
    card = front(hub, "me/based")
    assert (card["base_model"], card["base_model_relation"]) == ("owner/base", "adapter")


@pytest.mark.parametrize("name", ["pytorch_lora_weights.safetensors", "motion_lora_weights.safetensors"])
def test_adapters_that_do_not_name_their_base(hub, done, tmp_path, name):
    """As those of images and motions do not: their run does."""
    run = shutil.copytree(done, tmp_path / "run")
    shutil.rmtree(run / "model")
    (run / "model").mkdir()
    (run / "model" / name).write_bytes(b"weights")
    pushed = push(run)
    assert pushed.files == (name, "README.md")
    assert "these are adapters of" in pushed.notes[0]
    values = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**values, "model": "owner/pipeline"}))
    assert push(run).notes == ()


def test_a_merged_model_replaces_its_adapter(hub, adapters, tmp_path):
    """Weights of what was there before go, other files stay."""
    run = shutil.copytree(adapters, tmp_path / "run")
    push(run, "me/mine")
    hub.repos["me/mine"]["LICENSE"] = b"mine"
    assert CliRunner().invoke(main, ["merge", str(run)]).exit_code == 0
    push(run / "merged", "me/mine")
    there = hub.repos["me/mine"]
    assert {"adapter_config.json", "adapter_model.safetensors"} & there.keys() == set()
    assert {"model.safetensors", "config.json", "LICENSE", "README.md"} <= there.keys()
    assert front(hub, "me/mine")["library_name"] == "transformers"
    assert "lora" not in front(hub, "me/mine")["tags"]
    assert "AutoModelForCausalLM.from_pretrained(folder)" in body(hub, "me/mine")


def test_a_merged_model_of_an_earlier_adapter_is_not_uploaded(hub, tiny_model, data, tmp_path):
    """A run that goes on leaves the merged folder alone; one that is replaced takes it away."""
    run = train(
        tiny_model, data, tmp_path / "run", use_peft=True, save_strategy="steps", save_steps=1
    ).output_dir
    prefopt.merge(run)
    longer = {"config": run / "config.yaml", "max_steps": 2}
    prefopt.train(**longer, resume=True, extend=True)
    with pytest.raises(ValueError, match=r"was not merged from .* as it is now: remove it, and merge again"):
        push(run / "merged", "me/mine")
    with pytest.raises(ValueError, match="is there already, of an earlier state of the run's model"):
        prefopt.merge(run)
    prefopt.train(**longer, overwrite=True)
    assert not (run / "merged").exists()


def test_a_folder_without_a_run(hub, tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "plain")
    push(folder)
    assert front(hub, "me/plain") == {
        "library_name": "transformers",
        "model_name": "plain",
        "tags": ["prefopt"],
    }
    (folder / "README.md").write_text("---\nlicense: mit\n---\nMine.\n")
    push(folder)
    assert hub.repos["me/plain"]["README.md"] == b"---\nlicense: mit\n---\nMine.\n"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"HF_HUB_OFFLINE": True}, "HF_HUB_OFFLINE=1 .* keeps huggingface_hub from the network: unset it"),
        (
            {"token": ""},
            "there is no token of the Hugging Face Hub: log in with `hf auth login`, or set HF_TOKEN",
        ),
        ({"token": "hf_wrong"}, "does not take the token .*log in anew"),
        ({"ENDPOINT": "http://127.0.0.1:9"}, "http://127.0.0.1:9 cannot be asked whose token this is"),
        ({"role": "read"}, "the token 'test' of me may only read"),
        ({"hub_model_id": "a/b/c"}, "hub_model_id=a/b/c is no name on the hub"),
        ({"hub_model_id": "me/a b"}, "hub_model_id=me/a b is no name on the hub"),
        (
            {"hub_model_id": None, "output_dir": "dpo+sft"},
            r"the folder's name, dpo\+sft, is no name on the hub",
        ),
        ({"hub_model_id": "you/mine"}, "belongs to you, and the token is me's, who may write to me, team"),
    ],
)
def test_what_would_keep_it_from_the_hub_stops_a_run_at_its_start(
    hub, done, tiny_model, data, tmp_path, monkeypatch, change, words
):
    for name in ("HF_HUB_OFFLINE", "ENDPOINT"):
        if name in change:
            monkeypatch.setattr(constants, name, change[name])
    if "token" in change:
        monkeypatch.setenv("HF_TOKEN", change["token"])
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    hub.role = change.get("role", "write")
    folder = tmp_path / change.get("output_dir", "run")
    given = {"hub_model_id": change.get("hub_model_id", "me/x")}
    with pytest.raises(
        ConfigError, match=rf"^push_to_hub=true: .*{words}.*upload later: prefopt push {folder.parent}"
    ):
        train(tiny_model, data, folder, push_to_hub=True, **given)
    assert not folder.exists()
    assert not hub.repos
    if "output_dir" not in change:
        with pytest.raises((PushError, ValueError), match=words):
            push(done, given["hub_model_id"])


def test_one_request_before_the_run_and_none_without_push_to_hub(
    hub, done, tiny_model, data, tmp_path, monkeypatch
):
    class Stopped(Exception):
        pass

    def stop(*_: Any) -> None:
        raise Stopped

    monkeypatch.setattr("prefopt.training.run.assemble", stop)
    with pytest.raises(Stopped):
        train(tiny_model, data, tmp_path / "run", push_to_hub=True, hub_model_id="me/x")
    assert hub.asked == ["GET /api/whoami-v2"]
    with pytest.raises(Stopped):
        train(tiny_model, data, tmp_path / "other")
    assert len(hub.asked) == 1


def test_keys_of_an_upload_need_one(tmp_path, tiny_model, data):
    with pytest.raises(
        ConfigError, match=r"hub_model_id: for a model that is uploaded, which push_to_hub=true asks for"
    ):
        train(tiny_model, data, tmp_path / "run", hub_model_id="me/x")


@pytest.mark.parametrize(("what", "code"), [("create", 403), ("commit", 500)])
def test_a_failed_upload_leaves_a_finished_run(hub, tiny_model, data, tmp_path, what, code):
    """And says how to try again, which works."""
    hub.fail[what] = code
    folder = tmp_path / "run"
    with pytest.raises(PushError) as error:
        train(tiny_model, data, folder, push_to_hub=True, hub_model_id="me/x", hub_private_repo=True)
    told = str(error.value)
    assert told.startswith(
        f"the run has finished, and is whole in {folder}, but its model is not on the hub: "
    )
    assert f"no {what} today" in told
    assert told.endswith(f". Try again: prefopt push {folder} --id me/x --private")
    assert "\n" not in told
    assert status(folder) == "finished"
    assert {"model", "report.html", "README.md"} <= {p.name for p in folder.iterdir()}
    hub.fail.clear()
    assert said(*told.partition("prefopt push ")[2].split())[0] == 0
    assert "model.safetensors" in hub.repos["me/x"]


def test_interrupted_while_uploading_is_finished_too(hub, tiny_model, data, tmp_path, monkeypatch):
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("prefopt.hub.commit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_model, data, tmp_path / "run", push_to_hub=True, hub_model_id="me/x")
    assert status(tmp_path / "run") == "finished"


def test_a_public_repository_is_not_taken_for_a_private_one(hub, done):
    push(done)
    code, text = said(done, "--private")
    assert code == 1
    assert "is there already, and is public: make it private in its settings, or give another name" in text
    assert len(hub.commits) == 1


def test_no_model_no_upload(hub, done, tmp_path):
    run = shutil.copytree(done, tmp_path / "run")
    manifest = run / "record" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "status": "running"}))
    assert "has not finished (running): go on with resume=true first" in said(run)[1]
    none = shutil.copytree(done, tmp_path / "none-left")
    shutil.rmtree(none / "model")
    assert "holds no weights" in said(none)[1]
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "holds no model: needed one of config.json" in said(empty)[1]
    plain = shutil.copytree(done / "model", tmp_path / "plain")
    (plain / "training_args.bin").write_bytes(b"")
    assert "holds pickles, which run code when they are read (training_args.bin)" in said(plain)[1]
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        push(tmp_path / "none")
    assert not hub.repos


def test_only_the_whole_of_several_runs_is_uploaded_and_all_may_be_resumed_with_it():
    keys = set(PublishingKeys.model_fields)
    assert keys <= ONE_RUN.keys()
    assert keys <= FREE
    assert keys <= FREE_ON_RESUME
    assert all(ONE_RUN[key] == PublishingKeys.model_fields[key].default for key in keys)


@pytest.mark.slow
def test_a_method_of_several_runs(hub, tiny_model, data, tmp_path):
    """One upload, at its end; and one more for a run that is resumed to be uploaded."""
    given = {**ROUNDS, "rounds": 1, "push_to_hub": True, "hub_model_id": "me/spa"}
    result = prefopt.train("spa", model=tiny_model, data=data, output_dir=str(tmp_path / "spa"), **given)
    assert len(hub.commits) == 1
    assert hub.repos["me/spa"]["model.safetensors"] == (result.model_dir / "model.safetensors").read_bytes()
    assert {"spa", "prefopt"} <= set(front(hub, "me/spa")["tags"])
    prefopt.train("spa", model=tiny_model, data=data, output_dir=str(tmp_path / "spa"), **given, resume=True)
    assert len(hub.commits) == 2
    run = train(tiny_model, data, tmp_path / "run", save_strategy="epoch").output_dir
    train(tiny_model, data, run, save_strategy="epoch", push_to_hub=True, hub_model_id="me/late", resume=True)
    assert "model.safetensors" in hub.repos["me/late"]


def test_the_runs_of_a_comparison_are_not_uploaded(tiny_model, data, tmp_path):
    given = ["dpo", "--model", tiny_model, "--data", data, "--output", tmp_path / "c", "push_to_hub=true"]
    done = CliRunner().invoke(main, ["compare", *map(str, given)])
    assert done.exit_code == 1
    assert "push_to_hub: the runs of a comparison are not uploaded" in done.output


@pytest.mark.slow
def test_the_commands_as_users_type_them(server, tiny_model, data, tmp_path):
    """Processes of their own, whose hub is named by the environment."""
    server.reset()
    environment = {
        **os.environ, "HF_ENDPOINT": server.url, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1",
    }  # fmt: skip
    words = [
        "train",
        "dpo",
        f"model={tiny_model}",
        f"data={data}",
        f"output_dir={tmp_path / 'run'}",
        "push_to_hub=true",
    ]
    words += [f"{key}={value}" for key, value in OPTIONS.items()]
    for command in (words, ["push", str(tmp_path / "run"), "--id", "team/again"]):
        subprocess.run([sys.executable, "-m", "prefopt", *command], env=environment, check=True, timeout=300)
    assert server.repos["me/run"].keys() == server.repos["team/again"].keys()
    words[4] = f"output_dir={tmp_path / 'other'}"
    server.fail["commit"] = 500
    failed = subprocess.run(
        [sys.executable, "-m", "prefopt", *words], env=environment, capture_output=True, timeout=300
    )
    assert failed.returncode == 1
    assert f"Try again: prefopt push {tmp_path / 'other'}".encode() in failed.stderr


@pytest.mark.slow
def test_of_two_processes_one_asks_and_uploads(server, tiny_model, data, tmp_path):
    """And where it cannot, the run is finished all the same."""
    environment = {
        **os.environ, "HF_ENDPOINT": server.url, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1",
        "ACCELERATE_USE_CPU": "true",
    }  # fmt: skip
    launch = [
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "--master_port",
        str(free_port()),
        "-m",
        "prefopt",
    ]
    for fail, code in (({}, 0), ({"commit": 500}, 1)):
        server.reset()
        server.fail.update(fail)
        run = tmp_path / f"run-{code}"
        words = [
            "train",
            "dpo",
            f"model={tiny_model}",
            f"data={data}",
            f"output_dir={run}",
            "push_to_hub=true",
        ]
        words += [f"{key}={value}" for key, value in OPTIONS.items()]
        done = subprocess.run(
            [sys.executable, "-m", *launch, *words],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert bool(done.returncode) == bool(code), done.stderr
        assert server.asked.count("GET /api/whoami-v2") == 2  # before the run, and before the upload
        assert len(server.commits) == 1 - code
        assert status(run) == "finished"
    assert f"Try again: prefopt push {run}" in done.stderr
