"""E1 of `prefopt reproduce lpo`: the two judges, how they are trained, and how well they rank at each noise level.

    LRM     the library's latent reward model, trained by method `lrm`; reads x_t
    pixel   SPO's kind of judge: reads the decoded prediction of the clean picture, and knows the noise level; trained by
            the same loop, loss and comparisons, with the same noise for both pictures of a pair, as SPO's is

All start with the pipeline's text encoder. A judge made of a diffusion model has seen captioned pictures before; SPO's,
a CLIP, has too. So the pixel judge first learns to match the same pictures and captions as the diffusion model did; one
that did not is ranked beside it.

Legend: B pictures or latents, C = 3 channels, H = W = 16 rows and columns, E width in which picture and text meet.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prefopt.modalities.image.models.latent_reward import TAU_INIT, scaled_cosine
from prefopt.modalities.image.models.text_conditions import TEXT_VECTOR, TextConditioner
from prefopt.reproduce.lpo.world import (
    GUIDANCE,
    Cost,
    Meter,
    Size,
    assembled,
    folder_of,
    world_of_seed,
)

LRM, PIXEL, SCRATCH, EXACT = "LRM", "pixel judge", "pixel judge from scratch", "exact reward"
"""The last one reads the same predicted picture as the pixel judges: what a perfect judge of it would reach."""
JUDGE_RATES = {LRM: 5e-4, PIXEL: 1e-3, SCRATCH: 1e-3}
"""Peak learning rates; linear decay."""
FREQUENCIES = 16
Predict = Callable[[Tensor, Tensor, Sequence[str]], Tensor]
"""(x_t, t, prompts) -> pictures in [0, 1]"""


class PixelRewardModel(nn.Module):
    """A convolutional network on pictures and their noise level, and a text encoder; the score is a scaled cosine.

    Args:
        text: the text encoder.
        side: of the pictures.
        width: channels of the first layer.
        embed_dim: where picture and text meet.
    """

    def __init__(self, text: TextConditioner, side: int = 16, width: int = 32, embed_dim: int = 64) -> None:
        super().__init__()
        self.text = text
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.second = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.third = nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1)
        self.level = nn.Linear(2 * FREQUENCIES, 2 * width)
        self.hidden = nn.Linear(2 * width * (side // 4) ** 2, 4 * width)
        self.W_v = nn.Linear(4 * width, embed_dim, bias=False)
        self.W_t = nn.Linear(text.width, embed_dim, bias=False)
        self.tau = nn.Parameter(torch.tensor(TAU_INIT))
        self.predict: Predict | None = None
        """Makes pictures of noisy latents; needed by `forward` alone."""

    def forward(self, x_t_BCHW: Tensor, t_B: Tensor, prompts: Sequence[str]) -> Tensor:
        """(B,) scores of noisy latents, by way of the pictures predicted from them: the call for training."""
        assert self.predict is not None
        return self.score(self.predict(x_t_BCHW, t_B, prompts), t_B, prompts)

    def score(self, images_BCHW: Tensor, t_B: Tensor, prompts: Sequence[str]) -> Tensor:
        """(B,) scores of pictures in [0, 1] that were predicted from noise level t."""
        different = list(dict.fromkeys(prompts))
        rows = torch.tensor([different.index(prompt) for prompt in prompts])
        return scaled_cosine(self.seen(images_BCHW, t_B), self.told(different)[rows], self.tau)

    def table(self, images_BCHW: Tensor, t_B: Tensor, prompts: Sequence[str]) -> Tensor:
        """(B, B) scores of every picture for every prompt."""
        visual_BE, text_BE = (
            F.normalize(x, dim=-1) for x in (self.seen(images_BCHW, t_B), self.told(list(prompts)))
        )
        return self.tau.exp() * visual_BE @ text_BE.T

    def told(self, prompts: list[str]) -> Tensor:
        """(B, E) of prompts."""
        return self.W_t(self.text.encode(prompts).tensors[TEXT_VECTOR])

    def seen(self, images_BCHW: Tensor, t_B: Tensor) -> Tensor:
        """(B, E) of pictures."""
        rate_F = torch.exp(-math.log(1000.0) * torch.arange(FREQUENCIES) / FREQUENCIES)
        angle_BF = t_B[:, None].float() * rate_F
        level_BW = self.level(torch.cat([angle_BF.sin(), angle_BF.cos()], -1))
        h_BWHH = F.silu(self.first(2 * images_BCHW - 1))
        h_BWHH = F.silu(self.second(h_BWHH) + level_BW[:, :, None, None])
        h_BWHH = F.silu(self.third(h_BWHH) + level_BW[:, :, None, None])
        return self.W_v(F.silu(self.hidden(h_BWHH.flatten(1))))


@dataclasses.dataclass(frozen=True)
class StepAwareJudge:
    """The pixel judge for the library's collector.

    Attributes:
        model: scores pictures.
        loaded: its autoencoder decodes.
        highest: noisiest timestep it was trained on.
    """

    model: PixelRewardModel
    loaded: Any
    highest: int = 951
    sees: Literal["clean"] = "clean"

    @torch.no_grad()
    def __call__(self, x_BCHW: Tensor, t_B: Tensor, prompts: Sequence[str]) -> Tensor:
        """(B,) scores of predicted clean latents."""
        from prefopt.modalities.image.models.tensors import decode_latents

        return self.model.score(
            decode_latents(self.loaded, x_BCHW), t_B.clamp(min=1, max=self.highest), prompts
        )


def pipeline_of(seed: int, size: Size) -> Any:
    """The seed's pretrained pipeline, frozen."""
    from prefopt.modalities.image.models.pipelines import load_pipeline

    source = str(world_of_seed(seed, size).model_dir(progress=False))
    return load_pipeline(source, dtype="float32", trainable=False)


def pretrain_pixel(seed: int, size: Size) -> PixelRewardModel:
    """A pixel judge that has learned to match pictures and captions: those that the diffusion model was pretrained on.

    SPO's judge starts from a CLIP; the loss is CLIP's, all pictures of one caption being right for it. Adam 1e-3,
    warmed up over a tenth of the steps (without it a seed learned nothing), decayed to 0 along a cosine.
    """
    world, model = world_of_seed(seed, size), new_pixel_model(seed, size)
    drawn = world.pretraining_pictures()
    place = {caption: k for k, caption in enumerate(dict.fromkeys(drawn.captions))}
    which_B = torch.tensor([place[caption] for caption in drawn.captions])
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    steps = size.pixel_pretraining

    def share(step: int) -> float:
        return min(1.0, 10 * (step + 1) / steps) * 0.5 * (1 + math.cos(math.pi * step / steps))

    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
    for _ in range(steps):
        some = torch.randint(len(which_B), (size.pixel_pretraining_batch,), generator=generator)
        captions = [drawn.captions[k] for k in some]
        score_BB = model.table(drawn.images_BCHW[some], torch.ones(len(some)), captions)
        right_BB = (which_B[some][:, None] == which_B[some]).float()
        right_BB /= right_BB.sum(1, keepdim=True)  # symmetric before, and rows of equal captions are equal
        loss = F.cross_entropy(score_BB, right_BB) + F.cross_entropy(score_BB.T, right_BB)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    return model


def new_pixel_model(seed: int, size: Size) -> PixelRewardModel:
    """An untrained one, with the pipeline's text encoder."""
    from prefopt.modalities.image.models.latent_reward import LatentRewardModel

    source = str(world_of_seed(seed, size).model_dir(progress=False))
    text = LatentRewardModel.from_pipeline(source).text
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PixelRewardModel(text)


def predictor(loaded: Any, process: Any, store: Any) -> Predict:
    """Pictures of the clean latents that the guided network predicts."""
    from prefopt.likelihoods.steps import GuidedNetwork
    from prefopt.modalities.image.models.denoiser import denoise
    from prefopt.modalities.image.models.tensors import decode_latents

    guided = GuidedNetwork(
        process=process,
        network=partial(denoise, loaded.family),
        conditions=store.conditions,
        scale=GUIDANCE,
    )

    @torch.no_grad()
    def predict(x_t_BCHW: Tensor, t_B: Tensor, prompts: Sequence[str]) -> Tensor:
        store.add_prompts(list(dict.fromkeys(prompts)))
        output_BCHW = guided(loaded.model, x_t_BCHW, t_B, guided.prepare(prompts))
        return decode_latents(loaded, process.x0(output_BCHW, x_t_BCHW, t_B))

    return predict


# -- training ------------------------------------------------------------------------------------------------


def lrm_run(seed: int, size: Size, root: Path, steps: int, change: Any = None, **options: Any) -> Any:
    """A run of method `lrm`: the library's example with another learning rate, and more comparisons."""
    return assembled(
        seed,
        size,
        root,
        "lrm",
        change,
        **{
            "feature_scale": 2.0,
            "learning_rate": JUDGE_RATES[LRM],
            "warmup_steps": 10,
            "weight_decay": 0.0,
            "per_device_train_batch_size": size.judge_batch,
            "max_steps": steps,
            **options,
        },
    )


def train_lrm(seed: int, size: Size, root: Path) -> Cost:
    """Train the latent judge, write it, and return what that took."""
    course = lrm_run(seed, size, root, size.judge_steps)
    judge, meter = course.setup.policy.model, Meter()
    meter.watch("half U-Net", judge.backbone)
    meter.watch("text encoder", judge.text.encoders[0])
    fit_judge(course, meter)
    judge.save_pretrained(folder_of(seed, root) / "lrm")
    return meter.cost()


def train_pixel(seed: int, size: Size, root: Path, name: str) -> Cost:
    """The same for a pixel judge, `PIXEL` or `SCRATCH`; its pretraining is not counted, as the U-Net's is not."""
    from safetensors.torch import save_file

    from prefopt.modalities.image.reward_model import JudgePolicy

    loaded, meter = pipeline_of(seed, size), Meter()

    def change(context: Any, setup: Any) -> Any:
        model = pretrain_pixel(seed, size) if name == PIXEL else new_pixel_model(seed, size)
        likelihood = setup.likelihood
        model.predict = predictor(loaded, likelihood.process, likelihood.store)
        return dataclasses.replace(
            setup, policy=JudgePolicy(model, str(loaded.folder)), probe=lambda reference: None
        )

    course = lrm_run(
        seed, size, root, size.pixel_steps, change, shared_noise=True, learning_rate=JUDGE_RATES[name]
    )
    model = course.setup.policy.model
    watch_pixel(meter, model, loaded)
    meter.watch("U-Net", loaded.model)
    fit_judge(course, meter)
    save_file(model.state_dict(), pixel_file(seed, root, name))
    return meter.cost()


def watch_pixel(meter: Meter, model: PixelRewardModel, loaded: Any) -> None:
    """Count the pixel judge's networks."""
    for layer in ("first", "second", "third", "hidden"):
        meter.watch(f"pixel judge, {layer} layer", getattr(model, layer))
    meter.watch("text encoder", model.text.encoders[0])
    meter.watch("decoder", loaded.vae.decoder)


def fit_judge(course: Any, meter: Meter) -> None:
    """Train to the end."""
    meter.start()
    course.loop.fit(lambda: None)
    meter.stop()


def load_lrm(seed: int, root: Path) -> Any:
    """The trained latent judge as the collector's judge."""
    from prefopt.modalities.image.judges import LatentJudge
    from prefopt.modalities.image.models.latent_reward import LatentRewardModel

    model = LatentRewardModel.from_pretrained(folder_of(seed, root) / "lrm")
    return LatentJudge(model.eval().requires_grad_(False))


def pixel_file(seed: int, root: Path, name: str) -> Path:
    """Weights of a pixel judge."""
    return folder_of(seed, root) / f"{name}.safetensors"


def load_pixel(seed: int, size: Size, root: Path, name: str = PIXEL) -> StepAwareJudge:
    """A trained pixel judge as the collector's judge."""
    from safetensors.torch import load_file

    model = new_pixel_model(seed, size)
    model.load_state_dict(load_file(pixel_file(seed, root, name)))
    return StepAwareJudge(model.eval().requires_grad_(False), pipeline_of(seed, size))


# -- accuracy ------------------------------------------------------------------------------------------------


class Ranking(NamedTuple):
    """How judges rank held-out pairs.

    Attributes:
        right: judge -> timestep -> for each pair 1 where the truly better picture scores higher, 1/2 for equal scores.
    """

    right: dict[str, dict[int, tuple[float, ...]]]

    def accuracy(self, judge: str, t: int) -> float:
        """Share of pairs."""
        return math.fsum(self.right[judge][t]) / len(self.right[judge][t])


@torch.no_grad()
def rank(seed: int, size: Size, root: Path) -> Ranking:
    """Both judges and the exact reward on the same noisy latents, noise independent between pictures of a pair."""
    from prefopt.comparisons import collate

    course = lrm_run(seed, size, root, 1, max_examples=size.held_out)
    likelihood, world = course.setup.likelihood, world_of_seed(seed, size)
    lrm = load_lrm(seed, root)
    pixel, scratch = (load_pixel(seed, size, root, name) for name in (PIXEL, SCRATCH))
    predict = predictor(pixel.loaded, likelihood.process, likelihood.store)
    pairs = [e for e in course.setup.data.held_out if e.comparisons[0].outcome.tie < 0.5]
    right: dict[str, dict[int, tuple[float, ...]]] = {name: {} for name in (LRM, PIXEL, SCRATCH, EXACT)}
    for t in size.timesteps:
        found: dict[str, list[float]] = {name: [] for name in right}
        for start in range(0, len(pairs), 64):
            batch = collate(likelihood.at(e, -1) for e in pairs[start : start + 64])
            plan = likelihood.plan_at(batch.items, t)
            images = predict(plan.x_NCHW, plan.t_N, plan.prompts)
            scores = {
                LRM: lrm(plan.x_NCHW, plan.t_N, plan.prompts),
                PIXEL: pixel.model.score(images, plan.t_N, plan.prompts),
                SCRATCH: scratch.model.score(images, plan.t_N, plan.prompts),
                EXACT: world.rewards(plan.prompts, images)["utility"],
            }
            for name, score_N in scores.items():
                gap_E = score_N[batch.edges.first_E] - score_N[batch.edges.second_E]
                found[name] += ((gap_E > 0).double() + 0.5 * (gap_E == 0).double()).tolist()
        for name, values in found.items():
            right[name][t] = tuple(values)
    return Ranking(right)
