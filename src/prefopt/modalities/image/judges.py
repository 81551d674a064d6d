"""Judges of candidates while sampling: a latent reward model on noisy latents, or a scorer of images on predicted ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from prefopt.config import ConfigError, TrainConfig
from prefopt.modalities.base import Context
from prefopt.modalities.image.models.pipelines import LoadedPipeline, borrowed
from prefopt.modalities.image.models.tensors import decode_latents
from prefopt.modalities.image.samples import Scorer
from prefopt.sources.online import Judge
from prefopt.worlds import world_of


@dataclass
class LatentJudge:
    """A latent reward model: scores x_t' itself, at any noise level (arXiv 2502.01051).

    Attributes:
        model: `LatentRewardModel`, on the policy's device.
    """

    model: Any
    sees: Literal["noisy"] = "noisy"
    _known: tuple[tuple[str, ...], Any] | None = field(default=None, repr=False)

    @torch.no_grad()
    def __call__(self, x_BCHW: Tensor, t_B: Tensor, prompts: Sequence[str]) -> Tensor:
        """(B,) scores; timesteps (for flow models sigma T) are clipped to those the model was trained on."""
        low, high = self.model.config.timestep_range
        different = tuple(dict.fromkeys(prompts))
        if self._known is None or self._known[0] != different:  # the same prompts at every step of a round
            self._known = (different, self.model.encode_prompts(list(different)))
        place = {prompt: n for n, prompt in enumerate(different)}
        rows = torch.tensor([place[prompt] for prompt in prompts], device=x_BCHW.device)
        scores: Tensor = self.model.score(
            x_BCHW, t_B.clamp(min=low, max=high).to(x_BCHW.device), self._known[1], rows
        )
        return scores


@dataclass(frozen=True)
class PixelJudge:
    """A scorer of images, on the decoded prediction of the clean image (SPO's kind of judge, arXiv 2406.04314).

    Attributes:
        scorer: of images in [0, 1].
        loaded: decodes.
        batch_size: images decoded at a time.
    """

    scorer: Scorer
    loaded: LoadedPipeline
    batch_size: int = 16
    sees: Literal["clean"] = "clean"

    @torch.no_grad()
    def __call__(self, x_BCHW: Tensor, t_B: Tensor, prompts: Sequence[str]) -> Tensor:
        """(B,) scores of the decoded latents."""
        with borrowed(self.loaded, "vae"):
            images = [decode_latents(self.loaded, some) for some in x_BCHW.split(self.batch_size)]
        return self.scorer(prompts, torch.cat(images))


def judge_spec(config: TrainConfig) -> str:
    """The configured judge; a world's exact reward where the data come from one.

    Raises:
        ConfigError: none is named.
    """
    spec = config.judge or (config.data if world_of(config.data) is not None else None)
    if spec is None:
        raise ConfigError(
            f"{config.method} needs a judge of candidates: judge=lrm:DIR (a model trained by `prefopt train lrm`), "
            "judge=pickscore:DIR, judge=clip:DIR, ..., or prompts from a world"
        )
    return spec


def find_judge(context: Context, loaded: LoadedPipeline) -> Judge:
    """What `judge_spec` names, loaded.

    Raises:
        ConfigError: none is named.
        ValueError: a latent reward model of another latent space.
    """
    spec = judge_spec(context.config)
    if spec.startswith("lrm:"):
        from prefopt.modalities.image.models.latent_reward import LatentRewardModel

        model = LatentRewardModel.from_pretrained(spec.split(":")[1])  # lrm:DIR, or lrm:DIR:VAE
        with borrowed(loaded, "vae"):
            model.check_latent_space(loaded.pipe)  # and the noise schedule
        return LatentJudge(model.to(context.accelerator.device).eval().requires_grad_(False))
    from prefopt.modalities.image.scorers import get_scorer

    scorer: Any = get_scorer(spec, device=str(context.accelerator.device))
    return PixelJudge(scorer.score, loaded)
