"""Killed runs go on as if nothing had happened: the weights of the end are the same bits."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import prefopt
from prefopt.config import resolve
from prefopt.likelihoods import forward
from prefopt.runs.record import Record
from prefopt.training.loop import Loop
from processes import kill_once_there, words

ROWS = [
    {"prompt": f"Sort: {a} {b}", "chosen": f" {b} {a}", "rejected": f" {a} {b} {a}"}
    for a in ("red", "blue", "fig", "pear")
    for b in ("one", "two", "apple")
]
# KTO carries running statistics and bpo none; both must come back
OPTIONS = {
    "max_steps": 14,
    "save_steps": 3,
    "save_total_limit": 4,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 3,
    "sample_prompts": 2,
    "sample_max_new_tokens": 3,
    "eval_size": 2,
    "logging_steps": 1,
}


def train(method: str, model: Path, data: Path, folder: Path, **more: object) -> prefopt.TrainResult:
    return prefopt.train(method, model=model, data=data, output_dir=str(folder), **{**OPTIONS, **more})


def train_and_kill(
    method: str, model: Path, data: Path, folder: Path, checkpoint: str, **more: object
) -> None:
    """SIGKILL as soon as the checkpoint is there."""
    given = {"model": model, "data": data, "output_dir": folder, **OPTIONS, **more}
    kill_once_there(folder / "checkpoints" / checkpoint, "train", method, *words(given))


def weights(folder: Path) -> bytes:
    return (folder / "model" / "model.safetensors").read_bytes()


def lines(folder: Path) -> list[dict]:
    read = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    volatile = ("time", "runtime", "seconds")
    return [{k: v for k, v in line.items() if not any(word in k for word in volatile)} for line in read]


@pytest.mark.parametrize("method", ["bpo", "bco"])
def test_killed_and_resumed_is_bit_identical(method, tiny_model, rows_file, own_cache, tmp_path):
    data = rows_file(ROWS)
    straight = train(method, tiny_model, data, tmp_path / "straight")

    killed = tmp_path / "killed"
    train_and_kill(method, tiny_model, data, killed, "step-00000006")
    assert not (killed / "model").exists()
    kept = sorted(p.name for p in (killed / "checkpoints").glob("step-*"))
    assert "step-00000014" not in kept
    # a write that never finished, newer than everything
    half = killed / "checkpoints" / ".step-00000012.partial"
    half.mkdir(exist_ok=True)
    (half / "weights.safetensors").write_bytes(b"half")
    # and the newest complete one rots
    newest = max((killed / "checkpoints").glob("step-*"))
    payload = bytearray((newest / "weights.safetensors").read_bytes())
    payload[-3] ^= 0xFF
    (newest / "weights.safetensors").write_bytes(payload)

    resumed = train(method, tiny_model, data, killed, resume=True)
    assert weights(killed) == weights(tmp_path / "straight")
    assert resumed.metrics["loss"] == straight.metrics["loss"]
    assert lines(killed) == lines(tmp_path / "straight")


def test_resume_without_the_reference_cache(tiny_model, rows_file, tmp_path, monkeypatch):
    """The policy has moved: the reference must come from the source model again, not from the policy."""
    data = rows_file(ROWS)
    monkeypatch.setenv("PREFOPT_CACHE", str(tmp_path / "one"))
    train("dpo", tiny_model, data, tmp_path / "run")
    expected = weights(tmp_path / "run")
    for name in ("step-00000014", "step-00000012"):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / name)
    monkeypatch.setenv("PREFOPT_CACHE", str(tmp_path / "two"))
    train("dpo", tiny_model, data, tmp_path / "run", resume=True)
    assert weights(tmp_path / "run") == expected


def test_resume_of_another_run_is_refused(tiny_model, rows_file, own_cache, tmp_path):
    data = rows_file(ROWS)
    train("dpo", tiny_model, data, tmp_path / "run", max_steps=3)
    with pytest.raises(prefopt.config.ConfigError, match=r"other .*seed.*overwrite=true"):
        train("dpo", tiny_model, data, tmp_path / "run", max_steps=3, seed=1, resume=True)


def test_resume_lora(tiny_model, rows_file, own_cache, tmp_path):
    data = rows_file(ROWS)
    lora = {"use_peft": True, "lora_r": 2, "reference": "adapter_off"}
    train("dpo_rk", tiny_model, data, tmp_path / "run", **lora)
    path = tmp_path / "run" / "model" / "adapter_model.safetensors"
    expected = path.read_bytes()
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000014")
    os.remove(path)
    train("dpo_rk", tiny_model, data, tmp_path / "run", resume=True, **lora)
    assert path.read_bytes() == expected


DROPOUT = {"use_peft": True, "lora_r": 2, "lora_dropout": 0.3, "reference": "cached"}


@pytest.mark.parametrize("more", [{}, {"gradient_checkpointing": True}, {"batch_layout": "plain"}], ids=str)
@pytest.mark.parametrize("method", ["dpo_rk", "kto"])
def test_resume_with_dropout(method, more, tiny_model, rows_file, own_cache, tmp_path):
    """Dropout draws in training alone, not in the checks that only a fresh run makes."""
    data = rows_file(ROWS)
    given = {**DROPOUT, **more}
    train(method, tiny_model, data, tmp_path / "run", **given)
    path = tmp_path / "run" / "model" / "adapter_model.safetensors"
    expected, logged = path.read_bytes(), lines(tmp_path / "run")
    for name in ("step-00000014", "step-00000012"):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / name)
    os.remove(path)
    train(method, tiny_model, data, tmp_path / "run", resume=True, **given)
    assert path.read_bytes() == expected
    assert lines(tmp_path / "run") == logged


def test_killed_with_dropout(tiny_model, rows_file, own_cache, tmp_path):
    """SIGKILL in the middle, and the rest in another process."""
    data = rows_file(ROWS)
    train("dpo", tiny_model, data, tmp_path / "straight", **DROPOUT)
    train_and_kill("dpo", tiny_model, data, tmp_path / "killed", "step-00000006", **DROPOUT)
    train("dpo", tiny_model, data, tmp_path / "killed", resume=True, **DROPOUT)
    one, other = (tmp_path / name / "model" / "adapter_model.safetensors" for name in ("straight", "killed"))
    assert one.read_bytes() == other.read_bytes()


def test_recomputed_activations_see_the_same_dropout(tiny_model, rows_file, own_cache, tmp_path, monkeypatch):
    # what spares the last layer some places, and so some draws, is for kept activations only
    monkeypatch.setattr(forward, "balances_experts", lambda model: True)
    data = rows_file(ROWS)
    found = {}
    for name, more in {
        "kept": {}, "recomputed": {"gradient_checkpointing": True}, "none": {"lora_dropout": 0.0}, "seed": {"seed": 1},
    }.items():  # fmt: skip
        result = train("dpo", tiny_model, data, tmp_path / name, **{**DROPOUT, "max_steps": 5, **more})
        found[name] = [line["grad_norm"] for line in result.history if "grad_norm" in line]
    assert found["recomputed"] == pytest.approx(found["kept"], rel=1e-5)
    assert found["none"] != pytest.approx(found["kept"], rel=1e-2)
    assert found["seed"] != pytest.approx(found["kept"], rel=1e-2)


def test_every_pass_draws_its_own(tiny_model):
    """By seed, step, update of the step, micro-batch and process."""

    def draw(seed: int, step: int, part: int, micro_batch: int, process: int) -> float:
        loop = SimpleNamespace(
            config=SimpleNamespace(seed=seed),
            step=step,
            part=part,
            accelerator=SimpleNamespace(process_index=process),
        )
        Loop.count_randomness(loop, micro_batch)
        return float(torch.rand(()))

    places = list(itertools.product(range(3), repeat=5))
    drawn = [draw(*place) for place in places]
    assert len(set(drawn)) == len(places)
    assert [draw(*place) for place in places] == drawn


def test_resume_with_other_sample_prompts(tiny_model, rows_file, own_cache, tmp_path):
    """A key that a resumed run may change: prompts keep what was drawn on them, new ones come behind."""
    data, run, given = rows_file(ROWS), tmp_path / "run", {"eval_size": 5, "eval_steps": 5}

    def drawn() -> dict[str, list[int]]:
        found = json.loads((run / "record" / "samples.json").read_text())["prompts"]
        assert len({entry["prompt"] for entry in found}) == len(found)
        return {entry["prompt"]: [g["step"] for g in entry["generations"]] for entry in found}

    def go_on(sample_prompts: int) -> dict[str, list[int]]:
        for path in (run / "checkpoints").glob("step-*"):
            if int(path.name[5:]) > 6:
                shutil.rmtree(path)
        train("dpo", tiny_model, data, run, sample_prompts=sample_prompts, resume=True, **given)
        return drawn()

    train("dpo", tiny_model, data, run, **given)
    before = drawn()
    assert list(before.values()) == [[0, 5, 10, 14]] * 2
    more = go_on(4)  # from step 6
    assert list(more)[:2] == list(before)
    assert list(more.values()) == [[0, 5, 10, 14]] * 2 + [[10, 14]] * 2
    fewer = go_on(1)
    assert fewer == more
    assert go_on(0) == more
    assert (run / "report.html").exists()


def test_prompts_that_read_alike_keep_apart(tmp_path):
    config, _ = resolve({"method": "dpo", "model": "m", "data": "d"})
    record = Record(tmp_path, config, {}, main=False, resuming=False)
    for step, prompts in ((0, ["a", "a"]), (5, ["a", "b", "a", "a"])):
        record.samples({}, prompts, [{"step": step, "text": f"{step}-{n}"} for n in range(len(prompts))])
    texts = [(e["prompt"], [g["text"] for g in e["generations"]]) for e in record.read("samples")["prompts"]]
    assert texts == [("a", ["0-0", "5-0"]), ("a", ["0-1", "5-2"]), ("b", ["5-1"]), ("a", ["5-3"])]
