"""Prompts as the networks of Stable Diffusion families take them, with one more vector for a latent reward model.

    family  prompt_embeds                    pooled_prompt_embeds        text_vector
    sd      last layer                       none                        end-of-text state
    sdxl    both encoders, last but one      second encoder, projected   the same
    sd3     both CLIPs, last but one; T5     both CLIPs, projected       the same, and the mean of T5's tokens

Unlike a pipeline's own encoding, gradients reach the encoders, and the empty prompt is always encoded (SDXL pipelines
may use zeros). Shapes: N prompts, P tokens, D, F, E the three widths.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prefopt.modalities.image.models.denoiser import Conditions, Family

SUFFIXES = ("", "_2", "_3")
"""Of the text encoders and tokenizers in a diffusers pipeline."""
T5_TOKENS = 256
TEXT_VECTOR = "text_vector"
"""Name of the judge's own condition, (N, E)."""


class TextConditioner(nn.Module):
    """Text encoders with their tokenizers, without dropout; sd3's encoders are frozen, as are layers that nothing reads.

    Args:
        family: sd, sdxl or sd3.
        encoders: CLIP text models, one (sd) or two (with projection: sdxl, sd3); sd3's third is a T5 encoder or None.
        tokenizers: one each.
        t5_width: sd3: width of the token states.
    """

    def __init__(
        self, family: Family, encoders: Sequence[Any], tokenizers: Sequence[Any], t5_width: int | None = None
    ) -> None:
        super().__init__()
        self.family = family
        for suffix, encoder in zip(SUFFIXES, encoders, strict=False):
            setattr(self, f"text_encoder{suffix}", encoder)
            if encoder is not None and family == "sd3":
                encoder.requires_grad_(False)
        if family == "sdxl":  # of the first encoder the states before its last layer are read
            trunk = getattr(encoders[0], "text_model", encoders[0])
            trunk.encoder.layers[-1].requires_grad_(False)
            trunk.final_layer_norm.requires_grad_(False)
        self.tokenizers = list(tokenizers)
        self.t5_width = t5_width
        self._empty: tuple[tuple[Any, ...], Conditions] | None = None
        self._warned = False

    @property
    def encoders(self) -> list[Any]:
        """The text encoders; None where a pipeline came without its T5."""
        return [
            getattr(self, f"text_encoder{suffix}")
            for suffix, _ in zip(SUFFIXES, self.tokenizers, strict=False)
        ]

    @property
    def width(self) -> int:
        """E, of the text vector."""
        encoders = self.encoders
        if self.family == "sd":
            return int(encoders[0].config.hidden_size)
        if self.family == "sdxl":
            return int(encoders[1].config.projection_dim)
        clip = sum(int(encoder.config.projection_dim) for encoder in encoders[:2])
        return clip + (0 if encoders[2] is None else int(encoders[2].config.d_model))

    def encode(self, prompts: Sequence[str]) -> Conditions:
        """Conditions of some prompts, with gradients to the encoders where they are trained.

        Texts are cut to the encoders' length, with one warning.

        Raises:
            TypeError: given one text instead of a list.
        """
        if isinstance(prompts, str):
            raise TypeError(f"prompts must be a list of texts; given one text, {prompts[:40]!r}")
        encode = {"sd": self._encode_sd, "sdxl": self._encode_sdxl, "sd3": self._encode_sd3}[self.family]
        with torch.set_grad_enabled(torch.is_grad_enabled() and self._trained()):
            return encode(list(prompts))

    def empty(self) -> Conditions:
        """Conditions of the empty prompt.

        Kept between calls, unless gradients flow into it or the encoders' weights changed.
        """
        if torch.is_grad_enabled() and self._trained():
            return self.encode([""])
        tensors = list(self.parameters())
        # a tensor made in inference mode cannot serve a later backward pass
        key = (
            *(tensors[0].data_ptr(), tensors[0].dtype, torch.is_inference_mode_enabled()),
            sum(p._version for p in tensors),
        )
        if self._empty is None or self._empty[0] != key:
            self._empty = (key, self.encode([""]))
        return self._empty[1]

    def train(self, mode: bool = True) -> TextConditioner:
        """As `nn.Module.train`, but encoders stay in eval mode: scores must repeat, and T5 comes with dropout.

        Also forgets the empty prompt: some optimizers change weights without a trace.
        """
        self._empty = None
        super().train(mode)
        for encoder in self.encoders:
            if encoder is not None:
                encoder.eval()
        return self

    def _trained(self) -> bool:
        return any(p.requires_grad for p in self.parameters())

    def _ids(self, n: int, prompts: list[str], length: int | None = None) -> tuple[Tensor, Tensor]:
        """Token ids and mask for encoder n, (N, P) each."""
        tokenizer, encoder = self.tokenizers[n], self.encoders[n]
        if length is None:
            length = min(int(tokenizer.model_max_length), int(encoder.config.max_position_embeddings))
        if not self._warned:
            lengths = [len(ids) for ids in tokenizer(prompts, verbose=False).input_ids]
            if longest := sum(n_tokens > length for n_tokens in lengths):
                self._warned = True
                warnings.warn(
                    f"{longest} of {len(prompts)} prompts have more than {length} tokens: the judge reads their start",
                    stacklevel=4,
                )
        batch = tokenizer(
            prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        device = next(self.parameters()).device
        return batch.input_ids.to(device), batch.attention_mask.to(device)

    def _clip(self, n: int, prompts: list[str]) -> Any:
        return self.encoders[n](self._ids(n, prompts)[0], output_hidden_states=True)

    def _encode_sd(self, prompts: list[str]) -> Conditions:
        out = self._clip(0, prompts)
        return Conditions({"prompt_embeds": out.last_hidden_state, TEXT_VECTOR: out.pooler_output})

    def _encode_sdxl(self, prompts: list[str]) -> Conditions:
        first, second = self._clip(0, prompts), self._clip(1, prompts)
        hidden_NPD = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], -1)
        pooled_NF = second.text_embeds
        return Conditions(
            {"prompt_embeds": hidden_NPD, "pooled_prompt_embeds": pooled_NF, TEXT_VECTOR: pooled_NF}
        )

    def _encode_sd3(self, prompts: list[str]) -> Conditions:
        first, second = self._clip(0, prompts), self._clip(1, prompts)
        clip_NPD = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], -1)
        pooled_NF = torch.cat([first.text_embeds, second.text_embeds], -1)
        width = self.t5_width or clip_NPD.shape[-1]
        text = [pooled_NF]
        t5 = self.encoders[2]
        if t5 is None:  # as the pipeline does without it
            t5_NPD = clip_NPD.new_zeros(len(prompts), T5_TOKENS, width)
        else:
            ids, mask = self._ids(2, prompts, T5_TOKENS)
            t5_NPD = t5(ids)[0]
            mask_NP1 = mask[..., None].to(t5_NPD.dtype)
            text.append((t5_NPD * mask_NP1).sum(1) / mask_NP1.sum(1))
        clip_NPD = F.pad(clip_NPD, (0, width - clip_NPD.shape[-1]))
        hidden_NPD = torch.cat([clip_NPD, t5_NPD], 1)
        return Conditions(
            {
                "prompt_embeds": hidden_NPD,
                "pooled_prompt_embeds": pooled_NF,
                TEXT_VECTOR: torch.cat(text, -1),
            }
        )
