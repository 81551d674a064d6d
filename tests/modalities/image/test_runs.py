"""Runs on images: every method, references, resuming, and what plain diffusers makes of the trained model."""

from __future__ import annotations

import math
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from modalities.image.image_runs import LORA, QUIET, column, lines, note, pair, record, train, weights
from prefopt import methods, objectives
from prefopt.likelihoods.denoising import DenoisingLikelihood
from prefopt.likelihoods.latents import EncodedLatent
from prefopt.likelihoods.process import Process
from prefopt.modalities.image.models.denoiser import denoise
from prefopt.modalities.image.models.pipelines import load_pipeline
from prefopt.modalities.image.rows import load_image_comparisons
from prefopt.modalities.image.store import CachedImages
from prefopt.objectives.sides import Sides
from processes import kill_once_there, words

# ---- every method


OFFLINE = [
    name for name, m in methods.all_methods().items()
    if m.modality in ("any", "image") and name != "tr_dpo"  # moves its reference: training/test_moving_reference.py
]  # fmt: skip
# denoising errors differ by 1e-3 here; betas of texts would see nothing
OPTIONS: dict[str, dict[str, Any]] = {
    **{name: {} for name in ("sft", "mapo", "diffusion_dpo", "diffusion_kto")},
    "sppo": {"beta": 100.0},  # aims at a log-ratio of 1 / (2 beta): with 500 the first steps overshoot it
}
RISES = {"sft": "logps/chosen"}
FALLS = {"discopop"}  # see test_methods


def errors_by_hand(model: Path, data: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """-MSE of winners and losers in the first epoch."""
    loaded = load_pipeline(str(model))
    store = CachedImages(loaded, 32, "center")
    likelihood = DenoisingLikelihood(
        process=Process.from_scheduler(loaded.scheduler), network=partial(denoise, "sd"), store=store
    )
    sides = []
    for example in load_image_comparisons(data).examples:
        for slot, item in enumerate(example.items):
            ref, prompt = item.sample, item.condition["prompt"]
            store.add_images({ref.digest: ref})
            store.add_prompts([prompt])
            one = EncodedLatent(ref.digest, prompt, (0, 0, 0, 0, 0, 0), example.id, slot, 0)
            with torch.no_grad():
                sides.append(likelihood.score(loaded.model, likelihood.plan([one])).logp_N)
    return torch.cat(sides[0::2]), torch.cat(sides[1::2])


def start_by_hand(name: str, options: dict[str, Any], model: Path, data: Path) -> float:
    """The loss of two pairs before the first step: at zero margin, or without a reference at the errors themselves."""
    objective, outcome = objectives.get(name, **options), None
    rho_w, rho_l = logp_w, logp_l = torch.zeros(2), torch.zeros(2)
    if not objective.needs_reference or "logp" in objective.needs:
        logp_w, logp_l = errors_by_hand(model, data)
    if not objective.needs_reference:
        rho_w, rho_l = logp_w, logp_l
    one = torch.ones(2)
    sides = Sides(rho_w=rho_w, rho_l=rho_l, logp_w=logp_w, logp_l=logp_l, length_w=one, length_l=one)
    if objective.unpaired:
        outcome = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])
    state = objective.next_state(objective.initial_state(), objective.statistics(sides, outcome))
    return float(objective.losses(sides, outcome, state).mean())


@pytest.mark.parametrize("name", OFFLINE)
def test_method(name, sd, images_file, own_cache, tmp_path):
    data = images_file([pair(0), pair(1)])
    options = OPTIONS.get(name, {"beta": 500.0})
    result = train(name, sd, data, tmp_path / "run", max_steps=10, noise_epochs=1, **options)

    watched, losses = column(result, RISES.get(name, "rewards/margins")), column(result, "loss")
    assert len(losses) == 10
    assert losses[0] == pytest.approx(start_by_hand(name, options, sd, data), rel=1e-5, abs=1e-9)
    assert losses[-1] < losses[0]
    risen = watched[-1] - watched[0]
    least = 1e-5 if name == "mapo" else 1e-2  # whose beta of 0.1 is the scale of its rewards
    assert (-risen if name in FALLS else risen) > least, watched
    if objectives.get(name).needs_reference:
        assert watched[0] == pytest.approx(0, abs=1e-3)
        if "rewards/accuracies" in result.history[1]:
            # equal errors count one half, though rounding never leaves them quite equal
            assert column(result, "rewards/accuracies")[0] == 0.5
            assert column(result, "train_rows_rewards/accuracies")[0] == 0.5
            assert column(result, "rewards/accuracies")[-1] == (0 if name in FALLS else 1)


# ---- references


@pytest.mark.slow  # the battery holds it, too
def test_references_agree(sd, images_file, own_cache, tmp_path):
    """Through epochs with their own noise and dropped prompts."""
    data = images_file([pair(n) for n in range(3)])
    options = {
        "max_steps": 9, "per_device_train_batch_size": 1, "eval_size": 1, "prompt_dropout": 0.4, "learning_rate": 1e-5,
    }  # fmt: skip

    def losses(folder: str, **more: Any) -> list[float]:
        result = train("diffusion_dpo", sd, data, tmp_path / folder, **options, **more)
        return [*column(result, "loss"), *column(result, "train_rows_loss")]

    live = losses("live", reference="live")
    assert len({round(x, 4) for x in live}) > 5  # it moves
    assert losses("auto") == live  # what is taken if nothing is said
    # rounding of errors near 1 in float32, times beta / 2
    assert losses("cached", reference="cached") == pytest.approx(live, rel=3e-3)
    off = losses("off", **LORA, reference="adapter_off")
    assert len({round(x, 4) for x in off}) > 5
    assert losses("lora-auto", **LORA) == off
    assert losses("lora-live", **LORA, reference="live") == pytest.approx(off, rel=3e-3)
    assert losses("lora-cached", **LORA, reference="cached") == pytest.approx(off, rel=3e-3)
    assert note(tmp_path / "lora-cached", "reference cache").startswith("all ")


def test_cached_scores_are_of_the_same_pixels(sd, images_file, own_cache, tmp_path):
    """42 x 40 pixels become 32 x 32 by cutting or by stretching; their sizes, which keys hold, are alike."""
    data = images_file([pair(n) for n in range(2)])
    for crop in ("center", "none"):
        cached = train("diffusion_dpo", sd, data, tmp_path / f"cached-{crop}", crop=crop, reference="cached")
        assert not note(tmp_path / f"cached-{crop}", "reference cache").startswith("all ")
        live = train("diffusion_dpo", sd, data, tmp_path / f"live-{crop}", crop=crop, reference="live")
        assert column(cached, "loss") == pytest.approx(column(live, "loss"), rel=3e-3)


# ---- resuming


RESUMED = {
    "max_steps": 12, "save_steps": 3, "save_total_limit": 4, "save_strategy": None, "learning_rate": 1e-5,
    "per_device_train_batch_size": 2, "lr_scheduler_type": "cosine", "warmup_steps": 2, "prompt_dropout": 0.3,
    "sample_prompts": 2, "num_inference_steps": 2, "eval_size": 1, "eval_steps": 4,
}  # fmt: skip


def train_and_kill(method: str, model: Path, data: Path, folder: Path, checkpoint: str) -> None:
    """SIGKILL as soon as the checkpoint is there."""
    given = {"model": model, "data": data, "output_dir": folder, **QUIET, **RESUMED}
    kill_once_there(folder / "checkpoints" / checkpoint, "train", method, *words(given))


@pytest.mark.slow  # the battery holds it, too
def test_killed_and_resumed_is_bit_identical(sd, images_file, own_cache, tmp_path):
    data = images_file([pair(n) for n in range(6)])
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    train("diffusion_dpo", sd, data, straight, **RESUMED)
    train_and_kill("diffusion_dpo", sd, data, killed, "step-00000003")
    assert not (killed / "model").exists()
    assert not (killed / "checkpoints" / "step-00000012").exists()
    train("diffusion_dpo", sd, data, killed, **RESUMED, resume=True)
    assert weights(killed) == weights(straight)
    assert lines(killed) == lines(straight)
    assert record(killed, "samples") == record(straight, "samples")
    assert note(killed, "latent cache").startswith("0 images and 0 prompts")


def test_resumed_adapters_and_statistics_are_bit_identical(sd, images_file, own_cache, tmp_path):
    data = images_file([pair(n) for n in range(6)])
    given = {**RESUMED, **LORA, "beta": 500.0}
    train("bco", sd, data, tmp_path, **given)
    expected, logged = weights(tmp_path), lines(tmp_path)
    shutil.rmtree(tmp_path / "model")
    for step in (9, 12):
        shutil.rmtree(tmp_path / "checkpoints" / f"step-{step:08d}")
    train("bco", sd, data, tmp_path, **given, resume=True)
    assert weights(tmp_path) == expected
    assert lines(tmp_path) == logged


# ---- what is saved


CLASSES = {
    "sd": diffusers.StableDiffusionPipeline,
    "sdxl": diffusers.StableDiffusionXLPipeline,
    "sd3": diffusers.StableDiffusion3Pipeline,
}
SLOW = pytest.mark.slow


def samples_of(folder: Path, step: int) -> np.ndarray:
    """What the policy in training drew at a step."""
    paths = sorted((folder / "record" / "images").glob(f"step-{step:06d}-*.png"))
    return np.stack([np.asarray(Image.open(path)) for path in paths]).astype(int)


@pytest.mark.parametrize(
    ("family", "lora"),
    [("sd", False), ("sdxl", False), ("sd3", False), ("sd", True),
     pytest.param("sdxl", True, marks=SLOW), pytest.param("sd3", True, marks=SLOW)],
)  # fmt: skip
def test_plain_diffusers_draws_the_samples_of_the_policy(
    family, lora, pipelines, images_file, own_cache, tmp_path
):
    source, run = pipelines(family), tmp_path / "run"
    train(
        "diffusion_dpo", source, images_file([pair(n) for n in range(2)]), run, learning_rate=1e-2 if lora else 1e-3,
        sample_prompts=2, num_inference_steps=3, guidance_scale=3.0, **(LORA if lora else {}),
    )  # fmt: skip
    absent = {"text_encoder_3": None, "tokenizer_3": None} if family == "sd3" else {}
    pipe = CLASSES[family].from_pretrained(source if lora else run / "model", **absent)
    if lora:
        assert [p.name for p in (run / "model").iterdir()] == ["pytorch_lora_weights.safetensors"]
        pipe.load_lora_weights(run / "model")
    pipe.set_progress_bar_config(disable=True)
    drawn = record(run, "samples")
    settings = drawn["settings"]
    found = [
        pipe(
            entry["prompt"], generator=torch.Generator().manual_seed(seed), height=32, width=32,
            num_inference_steps=settings["num_inference_steps"], guidance_scale=settings["guidance_scale"],
        ).images[0]
        for entry, seed in zip(drawn["prompts"], settings["seeds"], strict=True)
    ]  # fmt: skip
    found_NHWC = np.stack([np.asarray(image) for image in found]).astype(int)
    assert np.abs(found_NHWC - samples_of(run, 3)).max() <= 1  # of 255
    assert np.abs(found_NHWC - samples_of(run, 0)).max() > 20


def test_an_interrupted_save_keeps_the_old_model(sd, images_file, own_cache, tmp_path, monkeypatch):
    """A finished run that is resumed has nothing left to do but to save."""
    run, given = tmp_path / "run", {"save_strategy": None, "max_steps": 1}
    data = images_file([pair(0)])
    train("diffusion_dpo", sd, data, run, **given)
    saved = weights(run)
    (run / "model" / "old.txt").touch()

    copytree = shutil.copytree

    def fail(*args: Any, **options: Any) -> None:
        copytree(*args, **options)
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("prefopt.modalities.image.models.saving.shutil.copytree", fail)
        with pytest.raises(OSError, match="disk full"):
            train("diffusion_dpo", sd, data, run, **given, resume=True)
    assert weights(run) == saved
    CLASSES["sd"].from_pretrained(run / "model")
    assert (run / "model" / "old.txt").exists()
    train("diffusion_dpo", sd, data, run, **given, resume=True)  # what was left over is no obstacle
    assert weights(run) == saved
    assert not (run / "model" / "old.txt").exists()  # the new one takes the old one's place as a whole
    assert not [p.name for p in run.iterdir() if "partial" in p.name]


# ---- known faults of other implementations


def test_gradients_are_clipped(sd, images_file, own_cache, tmp_path):
    """SPO's and LPO's released code clips nothing; here the norm in the log is the one before."""
    data = images_file([pair(0), pair(1)])
    options = {"optim": "sgd", "learning_rate": 1e-3, "max_steps": 1}
    start = load_pipeline(str(sd)).model.state_dict()

    def run(folder: str, limit: float) -> tuple[float, float]:
        result = train("diffusion_dpo", sd, data, tmp_path / folder, max_grad_norm=limit, **options)
        end = load_pipeline(str(tmp_path / folder / "model")).model.state_dict()
        moved = math.sqrt(sum(float((end[k] - start[k]).double().square().sum()) for k in start))
        return column(result, "grad_norm")[0], moved

    norm, free = run("free", 1e9)
    assert norm > 1
    assert free == pytest.approx(1e-3 * norm, rel=1e-3)
    clipped_norm, clipped = run("clipped", 1e-2)
    assert clipped_norm == norm
    assert clipped == pytest.approx(1e-3 * 1e-2, rel=1e-2)
