"""Runs that sample while training: the judge's score rises, results load elsewhere, resuming is exact, mistakes are told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

import prefopt
import tiny_pipelines
from prefopt.config import ConfigError
from prefopt.likelihoods.process import Process
from prefopt.likelihoods.transition import inference_timesteps
from prefopt.modalities.image import offline as image_offline
from prefopt.modalities.image import online as image_online
from prefopt.modalities.image.judges import LatentJudge, PixelJudge
from prefopt.modalities.image.models.latent_reward import LatentRewardModel
from prefopt.training.loop import StopRun
from step_toy import SD

PROMPTS = [f"a thing number {n}" for n in range(4)]
SMALL: dict[str, Any] = {
    "num_inference_steps": 3, "candidates": 4, "prompts_per_step": 4, "guidance_scale": 1, "weight_decay": 0.0,
    "sample_prompts": 0, "save_strategy": "no", "logging_steps": 1, "eval_steps": 1000,
    "per_device_train_batch_size": 8,
}  # fmt: skip
STEPS: dict[str, Any] = {"threshold": 0.5, "threshold_rule": "quantile", "first_compared_step": 0}


# ---- a pipeline, prompts, a judge


@pytest.fixture(scope="module")
def sd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pipelines.tiny_sd(tmp_path_factory.mktemp("pipelines") / "sd")


@pytest.fixture(scope="module")
def clear_sd(sd: Path) -> Path:
    """A pipeline whose latents tell colours apart: nearly no spread of the posterior, and of the size of the noise."""
    folder = sd.with_name("clear")
    shutil.copytree(sd, folder)
    vae = diffusers.AutoencoderKL.from_pretrained(folder / "vae")
    with torch.no_grad():
        vae.quant_conv.weight[4:] = 0
        vae.quant_conv.bias[4:] = -12
    vae.register_to_config(scaling_factor=8.0)
    vae.save_pretrained(folder / "vae")
    return folder


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(PROMPTS))
    return path


def redness(prompts: Sequence[str], images_BCHW: Tensor) -> Tensor:
    """Red above the other channels; the factor makes gaps of a good size."""
    return 200 * (images_BCHW[:, 0] - images_BCHW[:, 1:].mean(1)).mean((1, 2))


@pytest.fixture
def red(monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    """Candidates and samples are judged by their redness."""
    judged_by(monkeypatch, redness)


def judged_by(monkeypatch: pytest.MonkeyPatch, score: Callable[[Sequence[str], Tensor], Tensor]) -> None:
    monkeypatch.setattr(image_online, "find_judge", lambda context, loaded: PixelJudge(score, loaded))
    monkeypatch.setattr(image_offline, "find_scorer", lambda context: score)


def train(method: str, model: Path, data: Path, folder: Path, **more: Any) -> prefopt.TrainResult:
    given = {**SMALL, **({} if method in ("d3po", "lrm") else STEPS), "judge": "redness", **more}
    return prefopt.train(method, model=model, data=data, output_dir=str(folder), **given)


def column(result: prefopt.TrainResult, name: str) -> list[float]:
    return [line[name] for line in result.history if name in line]


def drawn(folder: Path, adapters: Path | None = None) -> Tensor:
    """Images of plain diffusers on fixed noise."""
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    if adapters is not None:
        pipe.load_lora_weights(adapters)
    latents = torch.randn(len(PROMPTS), 4, 8, 8, generator=torch.Generator().manual_seed(7))
    images = pipe(
        PROMPTS,
        latents=latents,
        guidance_scale=1,
        num_inference_steps=3,
        output_type="np",
        height=32,
        width=32,
    ).images
    return torch.from_numpy(images).permute(0, 3, 1, 2)


# ---- learning

LEARNING: dict[str, dict[str, Any]] = {
    "spo": {"learning_rate": 3e-3, "beta": 500, "max_steps": 8},
    "gradspo": {"learning_rate": 3e-3, "beta": 100, "max_steps": 8, "ema_decay": 0.5},
    # two steps and eight images: credit for whole trajectories is spread thinly
    "d3po": {
        "learning_rate": 5e-3, "beta": 2, "max_steps": 4, "candidates": 8, "num_inference_steps": 2,
        "per_device_train_batch_size": 56,
    },
}  # fmt: skip


@pytest.mark.parametrize("method", LEARNING)
def test_the_judges_score_rises_and_adapters_load_in_plain_diffusers(method, sd, prompts, red, tmp_path):
    result = train(method, sd, prompts, tmp_path / "run", sample_prompts=4, **LEARNING[method])
    assert result.metrics["train_rows_reward"] > result.metrics["start_train_rows_reward"] + 0.5
    scores = column(result, "collect/score")
    assert np.mean(scores[-2:]) > np.mean(scores[:2]) + 0.5
    losses = column(result, "loss")
    if method != "d3po":  # several updates in its first round
        assert losses[0] == pytest.approx(np.log(2), abs=1e-5)
    files = [p.name for p in (tmp_path / "run" / "model").iterdir()]
    assert "pytorch_lora_weights.safetensors" in files
    before, after = drawn(sd), drawn(sd, tmp_path / "run" / "model")
    assert redness(PROMPTS, after).mean() > redness(PROMPTS, before).mean() + 0.5


# ---- latent reward models


def coloured(folder: Path, n: int) -> Path:
    """Pairs of a reddish and a bluish picture."""
    folder.mkdir()
    rng, rows = np.random.default_rng(0), []
    for k in range(n):
        row = {"prompt": PROMPTS[k % 4]}
        for side, channel in (("chosen", 0), ("rejected", 2)):
            pixels = rng.integers(0, 60, (32, 32, 3))
            pixels[..., channel] += 195
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{k}-{side}.png")
            row[f"{side}_image"] = f"{k}-{side}.png"
        rows.append(row)
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def judge_run(clear_sd: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, prefopt.TrainResult]:
    """A latent reward model trained on colours, and its run."""
    root = tmp_path_factory.mktemp("lrm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFOPT_CACHE", str(root / "cache"))
        result = prefopt.train(
            "lrm", model=clear_sd, data=coloured(root / "pairs", 24), output_dir=str(root / "run"), feature_scale=1,
            num_inference_steps=3, learning_rate=1e-3, weight_decay=0.0, lr_scheduler_type="constant",
            max_steps=30, per_device_train_batch_size=8, logging_steps=5, eval_steps=1000, eval_size=0.25,
            save_strategy="no",
        )  # fmt: skip
    return root / "run" / "model", result


def test_a_latent_judge_learns_and_loads(judge_run, clear_sd):
    folder, result = judge_run
    accuracies = {k: v for k, v in result.metrics.items() if k.startswith("eval_accuracy/t=")}
    assert accuracies.keys() == {f"eval_accuracy/t={t}" for t in (1, 334, 667)}
    assert accuracies["eval_accuracy/t=1"] == 1
    assert result.metrics["eval_loss"] < 0.3 < result.metrics["start_eval_loss"]
    judge = LatentRewardModel.from_pretrained(folder)
    assert judge.config.timestep_range == (1, 667)
    # by itself, on the two colours
    vae = diffusers.AutoencoderKL.from_pretrained(clear_sd / "vae")
    pixels = torch.full((2, 3, 32, 32), -0.75)
    pixels[0, 0] = pixels[1, 2] = 0.75
    with torch.no_grad():
        latents = 8.0 * vae.encode(pixels).latent_dist.mean
        red, blue = judge.score(
            latents, 1, judge.encode_prompts([PROMPTS[0]]), torch.zeros(2, dtype=torch.long)
        )
    assert red > blue


def test_lpo_by_a_latent_judge(judge_run, clear_sd, prompts, own_cache, tmp_path):
    """All weights trained; the pipeline that is left loads in plain diffusers."""

    def scores(folder: str, learning_rate: float) -> np.ndarray:
        result = train(
            "lpo", clear_sd, prompts, tmp_path / folder, judge=f"lrm:{judge_run[0]}", use_peft=False, beta=50,
            learning_rate=learning_rate, max_steps=6,
        )  # fmt: skip
        # the judge needs no prediction of the policy
        assert column(result, "collect/network_calls") == [3.0] * 6
        return np.array(column(result, "collect/score"))

    # a round's noise decides much of its score: against the same rounds of a policy that stays as it is
    gain = scores("run", 3e-4) - scores("still", 1e-12)
    assert gain[0] == 0
    assert (gain[1:] > 0).all()
    assert gain[1:].mean() > 0.5
    assert not torch.equal(drawn(tmp_path / "run" / "model"), drawn(clear_sd))


def test_a_judge_of_another_latent_space_is_refused(judge_run, prompts, own_cache, tmp_path):
    other = tiny_pipelines.tiny_sd(tmp_path / "other", seed=1)
    with pytest.raises(ValueError, match="latent space"):
        train("lpo", other, prompts, tmp_path / "run", judge=f"lrm:{judge_run[0]}", max_steps=1)


def test_a_latent_judge_encodes_prompts_once_and_stays_in_its_range(judge_run, monkeypatch):
    judge = LatentJudge(LatentRewardModel.from_pretrained(judge_run[0]))
    encoded: list[list[str]] = []
    encode = judge.model.encode_prompts
    monkeypatch.setattr(judge.model, "encode_prompts", lambda texts: encoded.append(texts) or encode(texts))
    x = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    told = ["red", "blue", "red", "blue"]
    first = judge(x, torch.tensor([0] * 4), told)
    assert torch.equal(first, judge(x, torch.tensor([1] * 4), told))  # 0 is below the trained range
    assert not torch.equal(first, judge(x, torch.tensor([334] * 4), told))
    assert torch.equal(judge(x, torch.tensor([999] * 4), told), judge(x, torch.tensor([667] * 4), told))
    assert encoded == [["red", "blue"]]
    alone = judge(x[1:2], torch.tensor([1]), ["blue"])
    assert alone.item() == pytest.approx(first[1].item(), rel=1e-4)


# ---- resuming


def without_times(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("rounds_left", [1, 3])
def test_resuming_is_exact(rounds_left, sd, prompts, red, tmp_path):
    """Weights, their average and the remembered gaps: everything that is left is the same bits."""
    options: dict[str, Any] = {
        "learning_rate": 1e-3, "max_steps": 4, "save_strategy": None, "save_steps": 1, "save_total_limit": 9,
        "prompts_per_step": 2, "num_inference_steps": 2, "ema_decay": 0.7, "candidates": 2,
        "lr_scheduler_type": "linear",
    }  # fmt: skip
    run = tmp_path / "run"
    train("gradspo", sd, prompts, run, **options)
    checkpoints = sorted((run / "checkpoints").iterdir())
    assert len(checkpoints) == 4
    feed = load_file(checkpoints[-1] / "feed.safetensors")
    assert {k.split("/")[0] for k in feed} == {"ema", "gaps"}
    assert feed["gaps/1"].shape == (8,)  # of 4 rounds with 2 prompts
    kept = tmp_path / "kept"
    shutil.copytree(run, kept)
    for checkpoint in checkpoints[4 - rounds_left :]:
        shutil.rmtree(checkpoint)
    shutil.rmtree(run / "model")
    train("gradspo", sd, prompts, run, resume=True, **options)
    for name in ("weights", "optimizer", "feed"):
        path = f"checkpoints/{checkpoints[-1].name}/{name}.safetensors"
        assert (run / path).read_bytes() == (kept / path).read_bytes(), name
    model = "model/pytorch_lora_weights.safetensors"
    assert (run / model).read_bytes() == (kept / model).read_bytes()
    assert without_times(run) == without_times(kept)


# ---- rounds without pairs, clipping


def test_rounds_without_a_pair_go_on_and_a_run_of_such_rounds_fails(
    sd, prompts, own_cache, monkeypatch, tmp_path, capsys, recwarn
):
    judged_by(monkeypatch, lambda prompts, images: torch.ones(len(images)))

    def logged(name: str) -> list[float]:
        lines = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
        return [line[name] for line in lines if name in line]

    options: dict[str, Any] = {
        "max_steps": 12, "prompts_per_step": 1, "candidates": 2, "num_inference_steps": 2, "threshold": 0.3,
        "threshold_rule": "sigma", "save_strategy": None, "learning_rate": 1e-3, "lr_scheduler_type": "linear",
    }  # fmt: skip
    with pytest.raises(StopRun, match="nothing was trained: none of the 12 steps"):
        train("spo", sd, prompts, tmp_path / "run", **options)
    assert logged("learning_rate") == pytest.approx([1e-3 * (1 - k / 12) for k in range(1, 13)])
    assert logged("collect/kept") == [0.0] * 12
    assert logged("collect/updates") == [0.0] * 12
    assert logged("loss") == []
    text = capsys.readouterr().err
    assert text.count("fewer than 1 % of the pairs passed the threshold in 10 rounds") == 1
    assert not (tmp_path / "run" / "model").exists()
    for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000012")
    before = without_times(tmp_path / "run")
    with pytest.raises(StopRun, match="nothing was trained"):
        train("spo", sd, prompts, tmp_path / "run", resume=True, **options)
    assert without_times(tmp_path / "run") == before
    assert not [w for w in recwarn if "lr_scheduler" in str(w.message)]  # the rate follows the rounds


def test_gradient_clipping_acts(sd, prompts, red, tmp_path):
    """In the released code of SPO and LPO the list of parameters is used up before clipping sees it."""

    def moved(folder: str, **options: Any) -> float:
        train(
            "spo", sd, prompts, tmp_path / folder, use_peft=False, optim="sgd", learning_rate=0.1,
            lr_scheduler_type="constant", max_steps=1, prompts_per_step=1, candidates=2, num_inference_steps=2,
            threshold=0.0, threshold_rule="sigma", last_compared_step=0, **options,
        )  # fmt: skip
        name = "unet/diffusion_pytorch_model.safetensors"
        start, end = load_file(sd / name), load_file(tmp_path / folder / "model" / name)
        return float(sum((end[k].double() - start[k].double()).square().sum() for k in start).sqrt())

    assert moved("clipped", max_grad_norm=0.5) == pytest.approx(0.05, rel=1e-3)
    assert moved("free", max_grad_norm=100) > 0.1


# ---- what is refused


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("diffusion_dpo", {"candidates": 8}, r"candidates: for methods that sample while training"),
        ("lrm", {"threshold": 0.2}, r"threshold: for methods that sample while training"),
        ("lrm", {"prompt_dropout": 0.1}, r"prompt_dropout: for denoising errors"),
        ("spo", {"reference": "cached"}, r"reference=cached is of no use to spo"),
        ("spo", {"judge": None}, r"spo needs a judge of candidates: judge=lrm:DIR"),
        ("lpo", {"feature_scale": 2.0}, r"feature_scale: for training reward models"),
        ("lpo", {"prompt_dropout": 0.1}, r"prompt_dropout: for denoising errors"),
        ("spo", {"anchor": "cached"}, r"anchor: for guided targets"),
        ("d3po", {"threshold": 0.1}, r"threshold: for comparing steps"),
        ("spo", {"threshold": [0.1, 0.2, 0.3]}, r"threshold is one number or \[low, high\]"),
        ("spo", {"threshold": 1.5}, r"threshold must lie in \[0, 1\)"),
        ("spo", {"eta": 0.0}, r"eta must be above 0"),
        ("spo", {"first_compared_step": 7}, r"there are 20 steps|there are 3 steps"),
    ],
)
def test_configurations_that_make_no_sense(
    method, options, message, sd, prompts, own_cache, tmp_path, monkeypatch
):
    if method in ("diffusion_dpo", "lrm"):
        given = {"judge": None}
    else:
        given = {**SMALL, **({} if method == "d3po" else STEPS), "judge": "redness", "max_steps": 1}
        monkeypatch.setattr(image_online, "find_judge", lambda context, loaded: PixelJudge(redness, loaded))
    given = {k: v for k, v in {**given, **options}.items() if v is not None}
    with pytest.raises((ConfigError, ValueError), match=message):
        prefopt.train(method, model=sd, data=prompts, output_dir=str(tmp_path / "run"), **given)


def test_a_missing_judge_is_told_before_the_model_is_loaded(sd, prompts, own_cache, tmp_path, monkeypatch):
    monkeypatch.setattr(image_online, "load_policy", lambda *_: pytest.fail("the model was loaded"))
    with pytest.raises(ConfigError, match="needs a judge"):
        prefopt.train("lpo", model=sd, data=prompts, output_dir=str(tmp_path / "run"))


def test_pure_noise_teaches_guided_targets_nothing():
    """A flow begins there, and the noise that it sees in pure noise is that noise whatever the network says."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    process, steps = Process.from_scheduler(scheduler), inference_timesteps(scheduler, 5)
    with pytest.raises(ConfigError, match=r"begins at pure noise.*first_compared_step=1"):
        image_online.check_noise_is_predicted(process, steps, 0)
    image_online.check_noise_is_predicted(process, steps, 1)
    diffusion = diffusers.DDIMScheduler(**SD)
    image_online.check_noise_is_predicted(
        Process.from_scheduler(diffusion), inference_timesteps(diffusion, 5), 0
    )
