"""A latent reward model: how well a noisy latent x_t fits a prompt, told by half of a diffusion model.

    V_down = concat_i average(down block i | prompt)         V_mid, V_mid0 = average(middle block | prompt, | "")
    V_enh  = V_mid0 + gs (V_mid - V_mid0)                    visual feature enhancement; gs = 1 is without
    score  = exp(tau) cos(W_v [V_down ; V_enh], W_t f_text)

No decoding and no prediction of x_0 is needed, so a candidate of a denoising step costs half a network call.
Source: "Diffusion Model as a Noise-Aware Latent Reward Model for Step-Level Preference Optimization" (NeurIPS 2025,
arXiv 2502.01051). Three families are known:

    family  image features                                text vector f_text
    sd      U-Net: down blocks, middle block              CLIP's end-of-text state
    sdxl    U-Net: down blocks, middle block              second CLIP's projected state; no W_t
    sd3     transformer: first blocks, mean of tokens     both CLIPs' projected states, mean of T5's; encoders frozen

What the paper leaves open for SD3 (where W_t leads, how T5 is pooled) is decided here.

Shapes: B latents; C, H, W theirs; V, M down and middle features; E the space where image and text meet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prefopt.modalities.image.models.denoiser import Conditions
from prefopt.modalities.image.models.latent_features import FirstBlocks, HalfUNet
from prefopt.modalities.image.models.latent_reward_config import JudgeConfig
from prefopt.modalities.image.models.latent_reward_files import load_judge, save_judge
from prefopt.modalities.image.models.latent_space import (
    LatentSpace,
    NoiseSchedule,
    check_same_latents,
    check_same_schedule,
)
from prefopt.modalities.image.models.text_conditions import TEXT_VECTOR, TextConditioner

TAU_INIT = 2.6592
TAU_MAX = math.log(100.0)
"""CLIP's bound on its temperature; beyond it tau gets no gradient."""


def enhance(v_mid_BM: Tensor, v_mid_empty_BM: Tensor, gs: float) -> Tensor:
    """Visual feature enhancement: the prompt's part of the middle features, `gs` fold."""
    return v_mid_BM + (gs - 1.0) * (v_mid_BM - v_mid_empty_BM)


def scaled_cosine(visual_BE: Tensor, text_BE: Tensor, tau: Tensor) -> Tensor:
    """exp(tau) cos(visual, text), row by row; tau is bounded by ln 100."""
    return tau.clamp(max=TAU_MAX).exp() * F.cosine_similarity(visual_BE, text_BE, dim=-1)


class LatentRewardModel(nn.Module):
    """The judge. Make one with `from_pipeline`, load a trained one with `from_pretrained`.

    Trainable: backbone, text encoders (frozen for sd3), `W_v`, `W_t`, `tau`. `config` may be replaced, for example
    by `dataclasses.replace(judge.config, timestep_range=(1, 951))` once the trained timesteps are known.

    Example:
        judge = LatentRewardModel.from_pipeline("stable-diffusion-v1-5/stable-diffusion-v1-5")
        conditions = judge.encode_prompts(["a red circle", "a blue square"])
        rows = torch.arange(2).repeat_interleave(4)  # four candidates a prompt
        score_B = judge.score(torch.randn(8, 4, 64, 64), 501, conditions, rows)
    """

    def __init__(
        self,
        backbone: HalfUNet | FirstBlocks,
        text: TextConditioner,
        config: JudgeConfig,
    ) -> None:
        super().__init__()
        if backbone.in_channels != config.latent_space.channels:
            raise ValueError(
                f"the network takes {backbone.in_channels} channels and the VAE makes {config.latent_space.channels}; "
                "needed a text-to-image model (inpainting and editing models have further inputs)"
            )
        self.config = config
        self.backbone = backbone
        self.text = text
        self.W_v = nn.Linear(backbone.down_dim + backbone.mid_dim, config.embed_dim, bias=False)
        self.W_t = None if config.family == "sdxl" else nn.Linear(text.width, config.embed_dim, bias=False)
        self.tau = nn.Parameter(torch.tensor(TAU_INIT))

    # -- score -----------------------------------------------------------------------------------------------

    def forward(
        self,
        x_t_BCHW: Tensor,
        t_B: Tensor | float,
        prompts: Sequence[str] | Conditions,
        rows: Tensor | None = None,
    ) -> Tensor:
        """`score`, from prompts or from conditions: the call for training, also when wrapped for many processes."""
        conditions = prompts if isinstance(prompts, Conditions) else self.encode_prompts(prompts)
        return self.score(x_t_BCHW, t_B, conditions, rows)

    def score(
        self, x_t_BCHW: Tensor, t_B: Tensor | float, conditions: Conditions, rows: Tensor | None = None
    ) -> Tensor:
        """How well noisy latents fit their prompts.

        Args:
            x_t_BCHW: noisy latents at level t (scaled and shifted as the diffusion model sees them), any dtype.
            t_B: timesteps, one a latent or one for all, within `config.timestep_range`.
            conditions: from `encode_prompts`.
            rows: (B,) which prompt a latent belongs to; None: latent i to prompt i.

        Returns:
            (B,) scores in single precision, between -exp(tau) and exp(tau).

        Raises:
            ValueError: wrong channels, a timestep outside the trained range, or latents without a prompt.
        """
        B = len(x_t_BCHW)
        if x_t_BCHW.ndim != 4 or x_t_BCHW.shape[1] != self.backbone.in_channels:
            raise ValueError(
                f"latents have shape {tuple(x_t_BCHW.shape)}; this judge reads (B, {self.backbone.in_channels}, H, W)"
            )
        if rows is not None and rows.shape != (B,):
            raise ValueError(f"rows has shape {tuple(rows.shape)}; needed ({B},), the prompt of each latent")
        if rows is None and len(conditions) != B:
            raise ValueError(
                f"{B} latents and {len(conditions)} prompts: give `rows`, the number of each latent's prompt"
            )
        t_B = self._timesteps(t_B, x_t_BCHW)
        own = (conditions if rows is None else conditions[rows]).tensors
        hidden, pooled = own["prompt_embeds"], own.get("pooled_prompt_embeds")
        down_BV, mid_BM = self.backbone(x_t_BCHW, t_B, hidden, pooled)
        if self.config.gs != 1:
            empty = self.text.empty().tensors
            hidden = empty["prompt_embeds"].expand(B, -1, -1)
            pooled = None if pooled is None else empty["pooled_prompt_embeds"].expand(B, -1)
            _, mid_empty_BM = self.backbone(x_t_BCHW, t_B, hidden, pooled, with_down=False)
            mid_BM = enhance(mid_BM, mid_empty_BM, self.config.gs)
        # differences between candidates are small beside the scores: half precision would blur them
        with torch.autocast(x_t_BCHW.device.type, enabled=False):
            visual_BE = F.linear(torch.cat([down_BV, mid_BM], 1), self.W_v.weight.float())
            text_BE = own[TEXT_VECTOR].float()
            if self.W_t is not None:
                text_BE = F.linear(text_BE, self.W_t.weight.float())
            return scaled_cosine(visual_BE, text_BE, self.tau.float())

    def _timesteps(self, t: Tensor | float, x_t_BCHW: Tensor) -> Tensor:
        low, high = self.config.timestep_range
        t = torch.as_tensor(t, device=x_t_BCHW.device)
        if t.ndim > 1 or (t.ndim == 1 and len(t) != len(x_t_BCHW)):
            raise ValueError(
                f"t has shape {tuple(t.shape)} for {len(x_t_BCHW)} latents; needed one, or one each"
            )
        if bool(((t < low) | (t > high)).any()):
            raise ValueError(
                f"timesteps from {t.min().item():g} to {t.max().item():g} were asked for; this judge was trained on "
                f"{low:g} to {high:g}. Clamp the timestep, or train a judge on the wider range"
            )
        return t.expand(len(x_t_BCHW))

    # -- prompts ---------------------------------------------------------------------------------------------

    def encode_prompts(self, prompts: Sequence[str]) -> Conditions:
        """What `score` needs of the prompts; see `text_conditions.TextConditioner.encode`."""
        return self.text.encode(prompts)

    # -- latent space ----------------------------------------------------------------------------------------

    def check_latent_space(self, pipeline_or_vae: Any) -> None:
        """Refuse to judge what this model cannot read.

        Args:
            pipeline_or_vae: a VAE; or a pipeline with `vae` and, if it has one, `scheduler`, which is checked too.

        Raises:
            ValueError: another latent space or noise schedule, with the facts of both.
        """
        vae = getattr(pipeline_or_vae, "vae", pipeline_or_vae)
        check_same_latents(self.config.latent_space, LatentSpace.of(vae))
        scheduler = getattr(pipeline_or_vae, "scheduler", None)
        if scheduler is not None:
            check_same_schedule(self.config.noise_schedule, NoiseSchedule.of(scheduler))

    # -- files -----------------------------------------------------------------------------------------------

    @classmethod
    def from_pipeline(
        cls,
        source: Any,
        *,
        gs: float = 7.5,
        text_projection: str | Path | None = None,
        embed_dim: int | None = None,
        feature_block: int | None = None,
        timestep_range: tuple[float, float] | None = None,
        dtype: str = "float32",
        seed: int = 0,
    ) -> LatentRewardModel:
        """An untrained judge from a text-to-image model.

        Args:
            source: diffusers pipeline: a folder, a hub id, or a loaded one, which is copied and stays as it is.
            gs: strength of the visual feature enhancement; 1 is without, at half the cost.
            text_projection: sd: CLIP checkpoint whose text projection starts W_t (the paper: CLIP ViT-L/14, of which
                SD 1.5's text encoder is the trunk). None: the encoder's own projection if it has one, else random.
            embed_dim: width in which image and text meet. None: the text projection's, else the text encoder's
                (sd) or the transformer's (sd3). Given by the second encoder for sdxl.
            feature_block: sd3: blocks to run; None: three quarters, 18 of SD3-medium's 24.
            timestep_range: what training will cover; None: all train timesteps.
            dtype: of backbone and text encoders, by name, "auto" as stored; the head is always single precision.
            seed: of the random starts, W_v ~ N(0, 0.02^2).

        Raises:
            FileNotFoundError: no pipeline there.
            ValueError: a model of an unknown family, or a projection that does not fit.
        """
        from prefopt.modalities.image.models.parts import load_parts, load_text_projection

        parts = load_parts(source, dtype)
        space, schedule = LatentSpace.of(parts.vae), NoiseSchedule.of(parts.scheduler)
        backbone: HalfUNet | FirstBlocks
        if parts.family == "sd3":
            feature_block = feature_block or max(1, round(0.75 * parts.network.config.num_layers))
            backbone = FirstBlocks(parts.network, feature_block)
        else:
            backbone = HalfUNet(parts.network, space.spatial_factor)
        start_EE = parts.text_projection_EE
        if text_projection is not None:
            start_EE = load_text_projection(text_projection)
        t5_width = parts.network.config.joint_attention_dim if parts.family == "sd3" else None
        text = TextConditioner(parts.family, parts.text_encoders, parts.tokenizers, t5_width)
        if parts.family == "sdxl":
            embed_dim = text.width
        elif embed_dim is None:
            own = text.width if parts.family == "sd" else backbone.mid_dim
            embed_dim = own if start_EE is None else start_EE.shape[0]
        last = schedule.num_train_timesteps - (not schedule.is_flow)
        config = JudgeConfig(
            family=parts.family,
            latent_space=space,
            noise_schedule=schedule,
            timestep_range=timestep_range or (0, last),
            gs=gs,
            embed_dim=embed_dim,
            feature_block=feature_block,
            base_model=str(source) if isinstance(source, str | Path) else None,
        )
        judge = cls(backbone, text, config)
        judge.reset_head(start_EE, seed)
        return judge

    @torch.no_grad()
    def reset_head(self, text_projection_EE: Tensor | None = None, seed: int = 0) -> None:
        """Start the projections: W_v ~ N(0, 0.02^2); W_t from a text projection, or ~ N(0, 1/width) as CLIP's own.

        Raises:
            ValueError: the text projection does not fit, or the model has no W_t.
        """
        generator = torch.Generator().manual_seed(seed)
        self.W_v.weight.copy_(0.02 * torch.randn(self.W_v.weight.shape, generator=generator))
        given = None if text_projection_EE is None else tuple(text_projection_EE.shape)
        if self.W_t is None:
            if given:
                raise ValueError("an sdxl judge has no W_t: leave the text projection out")
            return
        needed = tuple(self.W_t.weight.shape)
        if text_projection_EE is None:
            self.W_t.weight.copy_(torch.randn(needed, generator=generator) / math.sqrt(needed[1]))
        elif given == needed:
            self.W_t.weight.copy_(text_projection_EE)
        else:
            raise ValueError(
                f"the text projection has shape {given}; this judge needs {needed} (embed_dim, width of the text "
                "vector). Take the CLIP model whose text encoder the pipeline uses, set embed_dim, or leave it out"
            )

    def save_pretrained(self, folder: str | Path) -> None:
        """Write weights, configuration, text encoders and tokenizers; a finished folder appears at once.

        Raises:
            FileExistsError: the folder holds something other than a judge.
        """
        save_judge(self, Path(folder).expanduser())

    @classmethod
    def from_pretrained(cls, folder: str | Path, dtype: str = "auto") -> LatentRewardModel:
        """Load a judge that `save_pretrained` wrote, ready to score (`eval` mode).

        Args:
            folder: the folder.
            dtype: of backbone and text encoders, by name; "auto" as saved. The head stays in single precision.

        Raises:
            FileNotFoundError: no judge there.
            ValueError: weights and configuration do not belong together.
        """
        return load_judge(cls, Path(folder).expanduser(), dtype)
