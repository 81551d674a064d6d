"""A reference that follows the policy (TR-DPO): where it goes, that it is scored where it is, and that it survives a kill."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import prefopt
from conftest import ROWS, save_tiny_model
from modalities.image.image_runs import pair
from modalities.image.image_runs import train as train_images
from prefopt.config import ConfigError
from processes import distributed, kill_once_there, words
from training.test_processes import SHARDED, arguments, final, losses, single

LOG2 = math.log(2)
OPTIONS = {
    "max_steps": 6, "save_steps": 2, "save_total_limit": 9, "per_device_train_batch_size": 2, "learning_rate": 1e-2,
    "lr_scheduler_type": "constant", "sample_prompts": 0, "eval_size": 2, "eval_steps": 100, "logging_steps": 1,
    "reference_sync_steps": 2,
}  # fmt: skip
LORA = {"use_peft": True, "lora_r": 2}


def train(
    model: Path, data: Path, folder: Path, method: str = "tr_dpo", **more: object
) -> prefopt.TrainResult:
    return prefopt.train(method, model=model, data=data, output_dir=str(folder), **{**OPTIONS, **more})


def checkpoint(folder: Path, step: int, name: str) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints" / f"step-{step:08d}" / f"{name}.safetensors")


@pytest.fixture(scope="module")
def straight(tiny_model, tmp_path_factory) -> Path:
    """A run of six steps whose reference moves at every second."""
    folder = tmp_path_factory.mktemp("moving")
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    train(tiny_model, data, folder / "run")
    return folder


def test_it_goes_where_the_paper_says(straight, tiny_model):
    """reference <- 0.6 policy + 0.4 reference, in float64 from the weights of the checkpoints alone."""
    start = load_file(tiny_model / "model.safetensors")
    expected = {name: value.double() for name, value in start.items()}
    for step in (2, 4, 6):
        policy, found = (checkpoint(straight / "run", step, name) for name in ("weights", "reference"))
        assert found.keys() == policy.keys()
        for name in found:
            expected[name] = 0.6 * policy[name].double() + 0.4 * expected[name]
            torch.testing.assert_close(found[name].double(), expected[name], rtol=0, atol=1e-6)
    assert max(float((found[k] - policy[k]).abs().max()) for k in found) > 1e-3


def test_numbers_are_against_the_reference_as_it_is(tiny_model, rows_file, tmp_path):
    """With a hard update after every step, no step begins with a margin; kl goes on from the start."""
    given = {
        key: value for key, value in OPTIONS.items() if key not in {"reference_sync_steps", "save_steps"}
    }
    given |= {"sync_ref_model": True, "ref_model_mixup_alpha": 1.0, "ref_model_sync_steps": 1}  # TRL's names
    given |= {"sample_prompts": 1, "sample_max_new_tokens": 4, "save_strategy": "no"}
    run = prefopt.train(
        "dpo", model=tiny_model, data=rows_file(ROWS), output_dir=str(tmp_path / "run"), **given
    )
    assert [line["loss"] for line in run.history if "loss" in line] == pytest.approx([LOG2] * 6, abs=1e-6)
    assert abs(run.metrics["eval_kl_to_reference"]) < 1e-6 < 0.01 < abs(run.metrics["eval_kl"])
    told = json.loads((run.output_dir / "record" / "manifest.json").read_text())["checks"]
    (said,) = [check["detail"] for check in told if check["name"] == "moving reference"]
    assert "every 1 steps" in said
    assert "kl is the distance to the model that the run began with" in said


def test_adapters_are_merged_into_it(tiny_model, rows_file, tmp_path):
    """A copy without adapters: after a hard update it scores as the policy does, and the policy is what it was."""
    run = train(
        tiny_model, rows_file(ROWS), tmp_path / "run", reference_mixup_alpha=1.0, reference_sync_steps=1,
        sample_prompts=1, sample_max_new_tokens=4, **LORA,
    )  # fmt: skip
    assert [line["loss"] for line in run.history if "loss" in line] == pytest.approx([LOG2] * 6, abs=1e-5)
    assert abs(run.metrics["eval_kl_to_reference"]) < 1e-4 < 0.01 < abs(run.metrics["eval_kl"])
    from peft import AutoPeftModelForCausalLM

    merged = AutoPeftModelForCausalLM.from_pretrained(run.model_dir).merge_and_unload().state_dict()
    found = checkpoint(run.output_dir, 6, "reference")
    assert found
    assert all("proj" in name for name in found)
    for name, value in found.items():
        torch.testing.assert_close(value, merged[name], rtol=0, atol=1e-6)


def same_run(one: Path, other: Path) -> None:
    (file,) = (one / "model").glob("*model.safetensors")
    assert (other / "model" / file.name).read_bytes() == file.read_bytes()
    assert losses(other) == losses(one)


@pytest.mark.parametrize("more", [{}, LORA], ids=["weights", "adapters"])
def test_resumed_is_bit_identical(more, straight, tiny_model, own_cache, tmp_path):
    data, expected = straight / "rows.jsonl", straight / "run"
    if more:
        expected = tmp_path / "straight"
        train(tiny_model, data, expected, **more)
    shutil.copytree(expected, tmp_path / "cut")
    for step in (4, 6):
        shutil.rmtree(tmp_path / "cut" / "checkpoints" / f"step-{step:08d}")
    shutil.rmtree(tmp_path / "cut" / "model")
    train(tiny_model, data, tmp_path / "cut", resume=True, **more)
    same_run(expected, tmp_path / "cut")


@pytest.mark.slow
def test_killed_and_resumed_is_bit_identical(straight, tiny_model, own_cache, tmp_path):
    given = {
        "model": tiny_model,
        "data": straight / "rows.jsonl",
        "output_dir": tmp_path / "killed",
        **OPTIONS,
    }
    kill_once_there(tmp_path / "killed" / "checkpoints" / "step-00000002", "train", "tr_dpo", *words(given))
    assert not (tmp_path / "killed" / "model").exists()
    train(tiny_model, straight / "rows.jsonl", tmp_path / "killed", resume=True)
    same_run(straight / "run", tmp_path / "killed")


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, LORA], ids=["weights", "adapters"])
def test_images_have_one_too(more, sd, images_file, own_cache, tmp_path):
    data = images_file([pair(n) for n in range(2)])
    given = {"learning_rate": 1e-3, "max_steps": 2, **more}
    moving = {"sync_reference": True, "reference_mixup_alpha": 1.0, "reference_sync_steps": 1}
    run = train_images("diffusion_dpo", sd, data, tmp_path / "moves", **given, **moving)
    assert losses(run.output_dir) == pytest.approx([LOG2] * 2, abs=1e-4 if more else 1e-6)
    still = train_images("diffusion_dpo", sd, data, tmp_path / "still", **given)
    assert abs(losses(still.output_dir)[-1] - LOG2) > 1e-3


REFUSED = {
    "cached": ({"reference": "cached"}, "reference=cached cannot: scores on disk are those of a reference that stays"),
    "adapters off": ({"reference": "adapter_off", **LORA}, "reference=adapter_off cannot: the policy without"),
    "quantized": ({"load_in_4bit": True, **LORA}, "load_in_4bit or load_in_8bit quantizes them"),
    "never": ({"reference_sync_steps": 6}, "would not move while training: the run has 6 steps, and reference_sync_steps=6"),
    "no reference": ({"method": "simpo", "sync_reference": True}, "simpo uses no reference that could move"),
    "steps alone": ({"method": "dpo", "reference_sync_steps": 3}, "^reference_sync_steps: .*sync_reference=true"),
    "alpha alone": ({"method": "dpo", "reference_sync_steps": 512, "reference_mixup_alpha": 0.5}, "^reference_mixup_alpha: "),
    "alpha 0": ({"reference_mixup_alpha": 0}, "reference_mixup_alpha: .*greater than 0"),
    "rounds": ({"method": "spa", "sync_reference": True}, "^sync_reference: for a single run, and spa is several"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_the_reason(name, tiny_model, rows_file, own_cache, tmp_path):
    more, words_of_it = REFUSED[name]
    given = {"method": "tr_dpo", **more}
    if given["method"] != "tr_dpo" and "reference_sync_steps" not in given:
        given["reference_sync_steps"] = 512 if not given.get("sync_reference") else 2
    with pytest.raises(ConfigError, match=words_of_it):
        train(tiny_model, rows_file(ROWS), tmp_path / "run", **given)
    assert not (tmp_path / "run" / "model").exists()


def test_another_model_as_reference_moves_or_is_refused(tiny_model, rows_file, own_cache, tmp_path):
    """Weights of one shape are mixed, all of them; those of another architecture cannot be."""
    from transformers import AutoModelForCausalLM

    data = rows_file(ROWS)
    other = AutoModelForCausalLM.from_pretrained(tiny_model)
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(1.1)
    other.save_pretrained(tmp_path / "other")
    for file in tiny_model.glob("token*"):
        shutil.copy(file, tmp_path / "other")
    given = {"reference_mixup_alpha": 1.0, "reference_sync_steps": 1, "max_steps": 2, **LORA}
    run = train(tiny_model, data, tmp_path / "run", reference_model=str(tmp_path / "other"), **given)
    first, second = losses(run.output_dir)[:2]
    assert abs(first - LOG2) > 1e-3
    assert second == pytest.approx(LOG2, abs=1e-5)
    save_tiny_model(tmp_path / "gpt2", "gpt2")
    with pytest.raises(ConfigError, match=r"sync_reference is not possible here: .*Leave it out"):
        train(tiny_model, data, tmp_path / "no", reference_model=str(tmp_path / "gpt2"))


def test_resume_of_a_run_whose_reference_stayed(straight, tiny_model, own_cache, tmp_path):
    shutil.copytree(straight / "run", tmp_path / "run")
    with pytest.raises(ConfigError, match=r"run with other .*sync_reference"):
        train(
            tiny_model,
            straight / "rows.jsonl",
            tmp_path / "run",
            "dpo",
            resume=True,
            reference_sync_steps=512,
        )


@pytest.mark.slow
def test_sharded(tiny_model, rows_file, own_cache, tmp_path):
    data = rows_file(ROWS)
    given = {"reference_sync_steps": 1, "eval_size": 0, "sync_reference": True}
    alone = single("dpo", tiny_model, data, tmp_path / "alone", per_device_train_batch_size=4, **given)
    script = tmp_path / "sharded.py"
    script.write_text(SHARDED)
    distributed(
        script, "dpo", *arguments(tiny_model, data, tmp_path / "two", per_device_train_batch_size=2, **given)
    )
    assert losses(alone) == pytest.approx(losses(tmp_path / "two"), rel=1e-5)
    one, other = (checkpoint(folder, 4, "reference") for folder in (alone, tmp_path / "two"))
    assert one.keys() == other.keys() == final(alone).keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-3, atol=2e-5)
