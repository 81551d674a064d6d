"""Latent reward models of flow models: trained at noise levels, loaded, resumed, and obeyed by online methods."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

import prefopt
import tiny_pipelines
from modalities.image.image_runs import LORA, QUIET, column, lines, weights
from prefopt.config import ConfigError
from prefopt.likelihoods.process import Process
from prefopt.likelihoods.transition import inference_timesteps
from prefopt.modalities.image.models.latent_reward import LatentRewardModel
from prefopt.modalities.image.reward_model import steps_with_signal

LRM: dict[str, Any] = {
    **QUIET, "num_inference_steps": 4, "feature_scale": 2, "learning_rate": 2e-3, "max_steps": 12, "eval_size": 0.25,
    "per_device_train_batch_size": 8, "save_strategy": None, "save_steps": 4, "save_total_limit": 3,
}  # fmt: skip
ONLINE: dict[str, Any] = {
    **QUIET, "num_inference_steps": 4, "candidates": 4, "prompts_per_step": 4, "guidance_scale": 1,
    "threshold": 0.5, "threshold_rule": "quantile", "first_compared_step": 0, "per_device_train_batch_size": 12,
    "beta": 50, "max_steps": 4,
}  # fmt: skip
PROMPTS = [f"a thing number {n}" for n in range(4)]


@pytest.fixture(scope="module")
def sd3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a T5, whose dropout must not be heard; latents nearly without spread, and of the size of the noise."""
    folder = tiny_pipelines.tiny_sd3(tmp_path_factory.mktemp("pipelines") / "sd3", t5=True)
    vae = diffusers.AutoencoderKL.from_pretrained(folder / "vae")
    with torch.no_grad():
        vae.encoder.conv_out.weight[8:] = 0
        vae.encoder.conv_out.bias[8:] = -12
    vae.register_to_config(scaling_factor=8.0)
    vae.save_pretrained(folder / "vae")
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reddish pictures preferred to bluish ones."""
    folder = tmp_path_factory.mktemp("pairs")
    rng, rows = np.random.default_rng(0), []
    for k in range(24):
        row = {"prompt": PROMPTS[k % 4]}
        for side, channel in (("chosen", 0), ("rejected", 2)):
            pixels = rng.integers(0, 60, (32, 32, 3))
            pixels[..., channel] += 195
            row[f"{side}_image"] = f"{k}-{side}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(folder / row[f"{side}_image"])
        rows.append(json.dumps(row))
    (folder / "rows.jsonl").write_text("\n".join(rows))
    return folder / "rows.jsonl"


@pytest.fixture(scope="module")
def judged(
    sd3: Path, pairs: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, prefopt.TrainResult]:
    """A finished run of lrm."""
    root = tmp_path_factory.mktemp("lrm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFOPT_CACHE", str(root / "cache"))
        result = prefopt.train("lrm", model=str(sd3), data=str(pairs), output_dir=str(root / "run"), **LRM)
    return root / "run", result


def test_it_learns_and_loads(judged, sd3):
    folder, result = judged
    accuracies = {k: v for k, v in result.metrics.items() if k.startswith("eval_accuracy/t=")}
    assert accuracies.keys() == {f"eval_accuracy/t={t}" for t in (9, 602, 858)}  # not at 1000, noise alone
    assert accuracies["eval_accuracy/t=9"] == 1
    assert result.metrics["eval_loss"] < 0.4 < result.metrics["start_eval_loss"]

    judge, again = result.load_model(), LatentRewardModel.from_pretrained(folder / "model")
    assert again.config.timestep_range == pytest.approx((8.9286, 857.6923), rel=1e-4)
    x_BCHW = torch.randn(3, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for t in again.config.timestep_range:
            assert torch.equal(judge(x_BCHW, t, PROMPTS[:3]), again(x_BCHW, t, PROMPTS[:3]))
    # by itself, on the two colours
    vae = diffusers.AutoencoderKL.from_pretrained(sd3 / "vae")
    pixels = torch.full((2, 3, 32, 32), -0.75)
    pixels[0, 0] = pixels[1, 2] = 0.75
    with torch.no_grad():
        latents = again.config.latent_space.encode(vae, pixels)
        red, blue = again(latents, again.config.timestep_range[0], [PROMPTS[0]] * 2)
    assert red > blue


def test_resumed_is_bit_identical(judged, sd3, pairs, tmp_path, own_cache):
    resumed = tmp_path / "run"
    shutil.copytree(judged[0], resumed)
    shutil.rmtree(resumed / "model")
    for step in (8, 12):
        shutil.rmtree(resumed / "checkpoints" / f"step-{step:08d}")
    prefopt.train("lrm", model=str(sd3), data=str(pairs), output_dir=str(resumed), resume=True, **LRM)
    assert weights(resumed) == weights(judged[0])
    assert lines(resumed) == lines(judged[0])


@pytest.mark.parametrize(
    ("method", "options"),
    [("lpo", {**LORA, "learning_rate": 2e-2}), ("spo", {"use_peft": False, "learning_rate": 1e-3})],
)
def test_online_methods_obey_it(method, options, judged, sd3, tmp_path, own_cache):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(PROMPTS))

    def scores(name: str, **more: Any) -> np.ndarray:
        result = prefopt.train(
            method, model=str(sd3), data=str(prompts), output_dir=str(tmp_path / name), judge=f"lrm:{judged[0]}/model",
            **{**ONLINE, **options, **more},
        )  # fmt: skip
        assert column(result, "collect/network_calls") == [3.0] * 4  # of 4 steps, the last has no density
        return np.array(column(result, "collect/score"))

    # against the same rounds of a policy that stays as it is
    gain = scores("run") - scores("still", learning_rate=1e-12)
    assert gain[0] == 0
    assert (gain[1:] > 0).all()
    assert gain[-1] > 1


def test_noise_alone_is_not_judged():
    flow = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    process, steps_S2 = Process.from_scheduler(flow), inference_timesteps(flow, 4)
    found_S = steps_with_signal(process, steps_S2[:, 0])
    assert torch.equal(found_S, steps_S2[1:, 0])
    with pytest.raises(ConfigError, match="num_inference_steps=1 begins at pure noise"):
        steps_with_signal(process, steps_S2[:1, 0])
    diffusion = diffusers.DDIMScheduler(clip_sample=False, set_alpha_to_one=False)
    starts_S = inference_timesteps(diffusion, 4)[:, 0]
    assert torch.equal(steps_with_signal(Process.from_scheduler(diffusion), starts_S), starts_S)
