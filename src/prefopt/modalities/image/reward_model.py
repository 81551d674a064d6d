"""Training a latent reward model on image comparisons: the judge that LPO samples with.

Timesteps are those that samplers of the model visit: train timesteps, or noise levels of a flow model. The paper's
released code has the former only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prefopt.comparisons import Encoded, collate
from prefopt.config import ConfigError
from prefopt.likelihoods.process import Process
from prefopt.likelihoods.reward import RewardLikelihood
from prefopt.likelihoods.transition import inference_timesteps
from prefopt.machine import memory
from prefopt.modalities.base import Context, Setup
from prefopt.modalities.image.models.latent_reward import LatentRewardModel
from prefopt.modalities.image.models.pipelines import check_pipeline_source, load_pipeline
from prefopt.modalities.image.offline import encode_data, make_store, read_data
from prefopt.modalities.image.online import stochastic
from prefopt.modalities.models import model_folder, weight_dtype

PROBED = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Places along the judge's timesteps, cleanest first, at which held-out accuracy is logged."""


@dataclass(frozen=True)
class JudgePolicy:
    """A reward model as the thing to train; it has no reference."""

    model: nn.Module
    source: str
    adapter: None = None

    def as_reference(self) -> contextlib.AbstractContextManager[None]:
        """There is none."""
        raise ValueError("a reward model is trained without a reference")


def set_up(context: Context) -> Setup:
    """Pairs first, then the pipeline's latents, then the judge made of its network.

    Raises:
        ConfigError, ValueError, OSError: see `image.setup.set_up`.
    """
    config, accelerator = context.config, context.accelerator
    if config.use_peft:
        raise ConfigError("use_peft is not possible for lrm: the whole judge is trained")
    if config.save_dtype != "auto":
        raise ConfigError(
            "save_dtype is not possible for lrm: a judge is saved as it was trained; LatentRewardModel.from_pretrained takes a dtype"
        )
    source = model_folder(config.model, accelerator)
    check_pipeline_source(source)
    split, report, dropped = read_data(context)
    loaded = load_pipeline(source, dtype=weight_dtype(config), trainable=False).to(accelerator.device)
    store = make_store(context, loaded)
    process = Process.from_scheduler(loaded.scheduler)
    steps_S2 = inference_timesteps(stochastic(loaded.scheduler), config.num_inference_steps)
    timesteps_S = steps_with_signal(process, steps_S2[:, 0])
    told_S = process.model_timestep(timesteps_S)
    likelihood = RewardLikelihood(
        process=process,
        store=store,
        timesteps_S=timesteps_S,
        seed=config.seed,
        shared_noise=config.shared_noise,
        noise_epochs=config.noise_epochs,
    )
    data = encode_data(context, split, report, dropped, store, likelihood, prompts=False)
    judge = LatentRewardModel.from_pipeline(
        source,
        gs=config.feature_scale,
        text_projection=config.text_projection,
        timestep_range=(told_S.min().item(), told_S.max().item()),
        dtype=weight_dtype(config),
        seed=config.seed,
    ).to(accelerator.device)
    if config.gradient_checkpointing:
        judge.backbone.network.enable_gradient_checkpointing()
    del loaded

    def save(folder: Path, state: dict[str, Tensor] | None) -> None:
        if state is not None:
            judge.load_state_dict(state)
        judge.save_pretrained(folder)

    return Setup(
        policy=JudgePolicy(judge, config.model),
        likelihood=likelihood,
        data=data,
        load_reference=lambda: judge,
        reference_kind="none",
        forecast=lambda resident: memory.forecast_without_activations(
            judge, optim=config.optim, reference_resident=resident
        ),
        probe=lambda reference: Prober(context, judge, likelihood, data.held_out),
        save=save,
    )


def steps_with_signal(process: Process, starts_S: Tensor) -> Tensor:
    """Timesteps at which something of the image is left: samplers of flow models begin at noise alone.

    Raises:
        ConfigError: there is none.
    """
    timesteps_S = starts_S[process.alpha(starts_S) > 0]
    if not len(timesteps_S):
        raise ConfigError(
            f"num_inference_steps={len(starts_S)} begins at pure noise and goes nowhere else, so that there is nothing "
            "to judge: set 2 or more"
        )
    return timesteps_S


@dataclass(frozen=True)
class Prober:
    """In place of samples: held-out accuracy by noise level.

    Attributes:
        context: of the run.
        judge: unwrapped.
        likelihood: noises the images.
        held_out: comparisons to rank.
    """

    context: Context
    judge: LatentRewardModel
    likelihood: RewardLikelihood
    held_out: Sequence[Encoded[Any]]

    @torch.no_grad()
    def take(self, step: int, label: str) -> dict[str, float]:
        """`accuracy/t=T` for some timesteps: decisive pairs whose winner scores higher, an equal score one half."""
        decisive = [e for e in self.held_out if e.comparisons[0].outcome.tie < 0.5]
        if not decisive:
            return {}
        size = self.context.config.per_device_eval_batch_size
        device = self.context.accelerator.device
        found: dict[str, float] = {}
        self.judge.eval()
        by_noise_S = self.likelihood.timesteps_S.sort().values
        told_S = self.likelihood.process.model_timestep(by_noise_S)
        for share in PROBED:
            place = round(share * (len(by_noise_S) - 1))
            right = 0.0
            for start in range(0, len(decisive), size):
                batch = collate(self.likelihood.at(e, -1) for e in decisive[start : start + size])
                with self.context.accelerator.autocast():
                    plan = self.likelihood.plan_at(batch.items, by_noise_S[place].item()).to(device)
                    score_N = self.likelihood.score(self.judge, plan).logp_N.cpu()
                gap_E = score_N[batch.edges.first_E] - score_N[batch.edges.second_E]
                right += float((gap_E > 0).double().sum() + 0.5 * (gap_E == 0).double().sum())
            found[f"accuracy/t={told_S[place].item():.0f}"] = right / len(decisive)
        self.judge.train()
        return found
