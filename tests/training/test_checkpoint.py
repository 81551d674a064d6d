"""Checkpoints are whole or not there, hold what is trained and nothing else, and give it back exactly."""

from __future__ import annotations

import copy
import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from prefopt.training import checkpoint
from prefopt.training.checkpoint import CheckpointError

STATE = {"mean": torch.tensor([1.5, 2.5])}
TENSORS = {"weights.safetensors", "optimizer.safetensors", "objective.safetensors", "feed.safetensors"}
FEED = {"seen": torch.tensor([3.0])}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)


def train(model: nn.Module, optimizer: Any, steps: int) -> None:
    for k in range(steps):
        optimizer.zero_grad()
        (model(torch.full((2, 3), k + 1.0)) ** 2).sum().backward()
        optimizer.step()


def save(folder: Path, step: int, model: nn.Module, optimizer: Any, **options: Any) -> Path:
    given = {"main": True, "keep": 2, **options}
    return checkpoint.save(folder, step, model, optimizer, STATE, FEED, {"identity": {"seed": 0}}, **given)


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.fixture
def trained(tmp_path) -> tuple[nn.Module, Any, Path]:
    """Model, optimizer and their checkpoint after three steps."""
    model = network()
    optimizer = adamw(model)
    train(model, optimizer, 3)
    return model, optimizer, save(tmp_path / "checkpoints", 3, model, optimizer)


@pytest.mark.parametrize("kind", [adamw, lambda m: torch.optim.RMSprop(m.parameters(), lr=0.1)])
def test_training_goes_on_as_if_nothing_had_happened(tmp_path, kind):
    straight = network()
    optimizer = kind(straight)
    train(straight, optimizer, 3)
    path = save(tmp_path, 3, straight, optimizer)
    train(straight, optimizer, 2)

    resumed = network()
    other = kind(resumed)
    state, objective_state, feed_state = checkpoint.load(path, resumed, other)
    train(resumed, other, 2)
    assert same(resumed, straight)
    assert (state["step"], state["identity"]) == (3, {"seed": 0})
    for found, expected in ((objective_state, STATE), (feed_state, FEED)):
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in found)


def test_only_what_is_trained_is_kept(tmp_path):
    model = network()
    model[0].requires_grad_(False)
    path = save(tmp_path, 1, model, adamw(model))
    assert load_file(path / "weights.safetensors").keys() == {"1.weight", "1.bias"}
    assert {p.suffix for p in path.iterdir()} == {".safetensors", ".json"}  # no pickle


def test_wrappers_do_not_change_names(trained):
    model, _, path = trained
    wrapped = nn.Module()
    wrapped.module = network()
    with torch.no_grad():
        for p in wrapped.parameters():
            p.zero_()
    checkpoint.load(path, wrapped, adamw(wrapped))
    assert same(wrapped, model)
    wrapped_path = save(path.parent, 4, wrapped, adamw(wrapped))
    assert load_file(wrapped_path / "weights.safetensors").keys() == {n for n, _ in model.named_parameters()}


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2, bias=False)), r"1\.bias"),
        (nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 3)), "shapes differ"),
        (nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(2, 2)), r"2\.bias, 2\.weight"),
    ],
)
def test_another_model_is_refused_untouched(trained, other, words):
    before = copy.deepcopy(other)
    with pytest.raises(CheckpointError, match=f"other trainable parameters.*{words}"):
        checkpoint.load(trained[2], other, adamw(other))
    assert same(other, before)


def test_the_newest_ones_are_kept(trained):
    model, optimizer, path = trained
    for step in (4, 100, 20):
        save(path.parent, step, model, optimizer, keep=3)
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "step-00000004",
        "step-00000020",
        "step-00000100",
    ]
    save(path.parent, 101, model, optimizer, keep=1)
    assert [p.name for p in path.parent.iterdir()] == ["step-00000101"]


def test_the_newest_intact_one_is_found(trained):
    model, optimizer, path = trained
    folder = path.parent
    assert checkpoint.newest(folder.parent / "nothing") is None
    newer = save(folder, 4, model, optimizer, keep=9)
    assert checkpoint.newest(folder) == newer
    newer.rename(folder / ".step-00000005.partial")  # a write that never finished counts for nothing
    assert checkpoint.newest(folder) == path
    newer = save(folder, 6, model, optimizer, keep=9)
    (newer / "state.json").unlink()
    assert checkpoint.newest(folder) == path


@pytest.mark.parametrize("name", sorted(TENSORS))
@pytest.mark.parametrize("damage", ["one bit", "shorter", "gone"])
def test_damage_is_noticed(trained, name, damage):
    _, _, path = trained
    payload = (path / name).read_bytes()
    if damage == "gone":
        (path / name).unlink()
    else:
        changed = payload[:-1] if damage == "shorter" else payload[:-1] + bytes([payload[-1] ^ 1])
        (path / name).write_bytes(changed)
    with pytest.raises(CheckpointError, match="not a complete checkpoint" if damage == "gone" else name):
        checkpoint.read_state(path)
    assert checkpoint.newest(path.parent) is None
    with pytest.raises(CheckpointError):
        checkpoint.load(path, network(), adamw(network()))


@pytest.mark.parametrize("text", ["", "{", "{}", '{"files": {}, "step"'])
def test_a_damaged_state_is_noticed(trained, text):
    (trained[2] / "state.json").write_text(text)
    with pytest.raises(CheckpointError, match="not a complete checkpoint"):
        checkpoint.read_state(trained[2])


def test_a_full_disk_leaves_earlier_checkpoints(trained, monkeypatch):
    model, optimizer, path = trained

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"step 4 .*No space left.*resume=true"):
        save(path.parent, 4, model, optimizer)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert checkpoint.newest(path.parent) == path


def test_everything_is_flushed_before_the_name_appears(tmp_path, monkeypatch):
    model = network()
    flushed: list[str] = []
    fsync = os.fsync

    def watched(handle: int) -> None:
        flushed.append(os.readlink(f"/proc/self/fd/{handle}"))
        assert not any(p.name == "step-00000001" for p in tmp_path.iterdir()) or len(flushed) == 6
        fsync(handle)

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to tell which files are flushed")
    monkeypatch.setattr(os, "fsync", watched)
    save(tmp_path, 1, model, adamw(model))
    assert {Path(f).name for f in flushed} == TENSORS | {"state.json", tmp_path.name}


def test_other_processes_write_nothing(tmp_path):
    model = network()
    path = save(tmp_path / "checkpoints", 1, model, adamw(model), main=False)
    assert path.name == "step-00000001"
    assert not path.parent.exists()


def test_a_step_can_be_saved_again(trained):
    model, optimizer, path = trained
    with torch.no_grad():
        model[0].weight.zero_()
    (path.parent / ".step-00000003.partial").mkdir()
    (path.parent / ".step-00000003.partial" / "old.txt").write_text("of an interrupted write")
    save(path.parent, 3, model, optimizer)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert not (path / "old.txt").exists()
    assert not load_file(path / "weights.safetensors")["0.weight"].any()
    assert json.loads((path / "state.json").read_text())["step"] == 3
