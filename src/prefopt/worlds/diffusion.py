"""What worlds of pictures share: the parts of a small Stable Diffusion that know no pictures, and sampling from one. Motions share its text encoder.

Legend of shape suffixes: B pictures, C channels, H rows, W columns, S tokens.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prefopt.cache import built_once
from prefopt.worlds.base import seed_of
from prefopt.worlds.pretraining import no_bars, progress_bar

CAPTION_DROPOUT = 0.1
"""Share of the captions that pretraining leaves empty, for classifier-free guidance."""
EMBEDDING_STD = 1.0


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No bars of transformers and diffusers for what takes a moment."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    with no_bars(diffusers_logging), no_bars(transformers_logging):
        yield


def build_tokenizer(words: Iterable[str], max_tokens: int) -> Any:
    """A `CLIPTokenizer` in whose vocabulary every word of the captions is one token; other text falls into bytes.

    Args:
        words: that captions are made of.
        max_tokens: of a caption, with its start and end.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(vocab_size=10_000, end_of_word_suffix="</w>", show_progress=False)
    trained.train_from_iterator([" ".join(sorted(set(words)))], trainer)
    learned = json.loads(trained.to_str())["model"]["merges"]
    characters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*characters, *(c + "</w>" for c in characters), *(left + right for left, right in learned)]
    vocabulary = {piece: k for k, piece in enumerate(dict.fromkeys(pieces))}
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocabulary[special] = len(vocabulary)
    return CLIPTokenizer(
        vocab=vocabulary, merges=[tuple(pair) for pair in learned], model_max_length=max_tokens
    )


def build_scheduler() -> Any:
    """DDIM with the settings of Stable Diffusion 1.5."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def build_text_encoder(tokenizer: Any, width: int) -> Any:
    """A `CLIPTextModel` of one layer with four heads."""
    from transformers import CLIPTextConfig, CLIPTextModel

    model = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=1,
            num_attention_heads=4,
            max_position_embeddings=tokenizer.model_max_length,
            projection_dim=width,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    # CLIP's 0.02 drowns in what attention adds to it: captions would take far longer to be understood
    torch.nn.init.normal_(model.get_input_embeddings().weight, std=EMBEDDING_STD)
    return model


def tokens_of(tokenizer: Any, texts: Sequence[str]) -> Tensor:
    """(B, S) token ids, padded to the full length as the pipeline pads them."""
    ids: Tensor = tokenizer(list(texts), padding="max_length", truncation=True, return_tensors="pt")[
        "input_ids"
    ]
    return ids


def kept_images(place: Path, make: Callable[[], Tensor]) -> Tensor:
    """(B, 3, H, W) pictures in [0, 1] at 8 bits a channel, as in a file: made once, then read from the cache.

    Args:
        place: folder in the cache.
        make: draws them.
    """
    from safetensors.torch import load_file, save_file

    def build(folder: Path) -> None:
        save_file({"images": make().mul(255).round().byte()}, folder / "images.safetensors")

    return load_file(built_once(place, build) / "images.safetensors")["images"].float() / 255


def sample_images(
    pipeline: Any,
    prompts: Sequence[str],
    *,
    seed: int = 0,
    controls_BCHW: Tensor | None = None,
    num_inference_steps: int = 20,
    eta: float = 1.0,
    guidance_scale: float = 2.0,
    batch_size: int = 256,
    progress: bool = False,
) -> Tensor:
    """(B, 3, 16, 16) pictures in [0, 1], on the CPU, one a prompt.

    Picture k depends on (`seed`, k, its prompt) alone, up to rounding: not on the others or the batch size.

    Args:
        pipeline: a `StableDiffusionPipeline`, plain or with a ControlNet; its modes (train, eval) and bar are left as found.
        prompts: captions.
        seed: of the noise, of the start and of each step.
        controls_BCHW: control images in [0, 1], for a pipeline that takes them.
        num_inference_steps: of the pipeline's scheduler.
        eta: of DDIM, in [0, 1].
        guidance_scale: of classifier-free guidance; 1 is none.
        batch_size: pictures made at once.
        progress: show a bar if standard error is a terminal.
    """
    modules = [module for module in pipeline.components.values() if isinstance(module, torch.nn.Module)]
    modes = [module.training for module in modules]
    bar = getattr(pipeline, "_progress_bar_config", {})
    starts = range(0, len(prompts), batch_size)
    images: list[Tensor] = []
    for module in modules:
        module.eval()
    pipeline.set_progress_bar_config(disable=True)
    try:
        with progress_bar("drawing pictures", len(starts), progress) as advance:
            for start in starts:
                batch = list(prompts[start : start + batch_size])
                controls = (
                    {} if controls_BCHW is None else {"image": controls_BCHW[start : start + batch_size]}
                )
                made = pipeline(
                    batch,
                    **controls,
                    num_inference_steps=num_inference_steps,
                    eta=eta,
                    guidance_scale=guidance_scale,
                    generator=[
                        torch.Generator().manual_seed(seed_of(f"{seed} {start + k}"))
                        for k in range(len(batch))
                    ],
                    output_type="pt",
                ).images
                images.append(made.float().cpu())
                advance("")
    finally:
        pipeline.set_progress_bar_config(**bar)
        for module, mode in zip(modules, modes, strict=True):
            module.train(mode)
    return torch.cat(images)
