"""Two processes on images, sampling while training or training a judge, take the same steps as one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import prefopt
from modalities.image.image_runs import QUIET, lines, pair, record
from prefopt.modalities.image.models.latent_reward import LatentRewardModel
from processes import distributed, words

LRM: dict[str, Any] = {
    **QUIET, "num_inference_steps": 3, "feature_scale": 2, "max_steps": 3, "learning_rate": 1e-3, "bf16": False,
}  # fmt: skip
SPO: dict[str, Any] = {
    **QUIET, "num_inference_steps": 3, "candidates": 3, "guidance_scale": 1, "threshold": 0.01,
    "first_compared_step": 0, "max_steps": 3, "learning_rate": 1e-3, "beta": 50, "bf16": False,
}  # fmt: skip


def losses(folder: Path, name: str = "loss") -> list[float]:
    return [line[name] for line in lines(folder) if name in line]


def alone(method: str, model: Path, data: Path, folder: Path, **options: Any) -> Path:
    prefopt.train(method, model=str(model), data=str(data), output_dir=str(folder), **options)
    return folder


def together(method: str, model: Path, data: Path, folder: Path, **options: Any) -> Path:
    given = {"model": model, "data": data, "output_dir": folder, **options}
    distributed("-m", "prefopt", "train", method, *words(given))
    assert record(folder, "manifest")["machine"]["processes"] == 2
    return folder


def assert_same(one: Path, other: Path, name: str) -> None:
    assert losses(other) == pytest.approx(losses(one), rel=1e-4)
    assert losses(other, "grad_norm") == pytest.approx(losses(one, "grad_norm"), rel=1e-3)
    a, b = load_file(one / "model" / name), load_file(other / "model" / name)
    assert a.keys() == b.keys()
    for key in a:
        # Adam's first steps have the size of the learning rate whatever the gradient: signs of tiny ones may differ
        assert (a[key] - b[key]).abs().mean() < 1e-4, key


@pytest.mark.slow
@pytest.mark.parametrize("family", ["sdxl", "sd3"])
def test_a_judge(family, pipelines, images_file, own_cache, tmp_path):
    """Parameters that a score does not depend on would stop DistributedDataParallel."""
    model, data = pipelines(family), images_file([pair(n) for n in range(4)])
    one = alone("lrm", model, data, tmp_path / "one", per_device_train_batch_size=4, **LRM)
    two = together("lrm", model, data, tmp_path / "two", per_device_train_batch_size=2, **LRM)
    assert_same(one, two, "model.safetensors")
    judges = [LatentRewardModel.from_pretrained(folder / "model") for folder in (one, two)]
    x_BCHW = torch.randn(2, judges[0].backbone.in_channels, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        a, b = (j(x_BCHW, j.config.timestep_range[0], ["a", "b"]) for j in judges)
    torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-2)


def test_sampling_while_training(sd, images_file, own_cache, tmp_path):
    rows = images_file([pair(n) for n in range(4)])
    judge = alone("lrm", sd, rows, tmp_path / "judge", **{**LRM, "max_steps": 1}) / "model"
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(f"picture {n}" for n in range(6)))
    given = {**SPO, "judge": f"lrm:{judge}"}
    one = alone(
        "spo", sd, prompts, tmp_path / "one", prompts_per_step=4, per_device_train_batch_size=4, **given
    )
    two = together(
        "spo", sd, prompts, tmp_path / "two", prompts_per_step=2, per_device_train_batch_size=2, **given
    )
    for name in ("collect/score", "collect/kept", "collect/updates"):
        assert losses(two, name) == pytest.approx(losses(one, name), rel=1e-3), name
    assert losses(one, "collect/updates")[0] > 1
    assert_same(one, two, "pytorch_lora_weights.safetensors")
