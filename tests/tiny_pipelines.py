"""Random text-to-image pipelines of the real diffusers classes, small enough to build in a second without a network.

    folder = tiny_sd(tmp_path / "sd")      # StableDiffusionPipeline: 32 px images, 4x8x8 latents
    folder = tiny_sdxl(tmp_path / "xl")    # StableDiffusionXLPipeline: two text encoders, size conditioning
    folder = tiny_sd3(tmp_path / "sd3")    # StableDiffusion3Pipeline: MMDiT, flow matching, no T5 unless asked
    folder = tiny_control(tmp_path / "c")  # StableDiffusionControlNetPipeline on the weights of tiny_sd
    folder = tiny_control_xl(tmp_path / "x")  # StableDiffusionXLControlNetPipeline

Each function fills `folder` as `save_pretrained` does and returns it. Weights depend on `seed` alone. Defaults are those
of the released pipelines where they matter: betas, offsets, VAE scaling, 77 tokens, the first encoder's width beside
the second's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
WIDTH = 32  # of every text encoder
XL: dict[str, Any] = {
    "cross_attention_dim": 2 * WIDTH,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": WIDTH + 6 * 8,
}
"""Of SDXL's U-Net."""
VOCABULARY = 514  # 256 bytes, the same at a word's end, start, end


def tiny_sd(
    folder: Path, *, prediction_type: str = "epsilon", scheduler: str = "ddim", seed: int = 0
) -> Path:
    """StableDiffusionPipeline, 32 px; `prediction_type="v_prediction"` is what SD 2.1 uses.

    Args:
        folder: where to save; created.
        prediction_type: epsilon, v_prediction or sample.
        scheduler: "ddim" or "pndm" (what SD 1.5 ships).
        seed: of the weights.
    """
    import diffusers
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        pipeline = diffusers.StableDiffusionPipeline(
            vae=vae(scaling_factor=0.18215),
            text_encoder=clip(),
            tokenizer=clip_tokenizer(),
            unet=unet(cross_attention_dim=WIDTH),
            scheduler=scheduler_of(scheduler, prediction_type),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    return save(pipeline, folder)


def tiny_control(folder: Path, *, seed: int = 0) -> Path:
    """StableDiffusionControlNetPipeline, 32 px; its ControlNet already does something.

    Args:
        folder: where to save; created.
        seed: of the weights.
    """
    import diffusers
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = unet(cross_attention_dim=WIDTH)
        pipeline = diffusers.StableDiffusionControlNetPipeline(
            vae=vae(scaling_factor=0.18215),
            text_encoder=clip(),
            tokenizer=clip_tokenizer(),
            unet=network,
            controlnet=controlnet_of(network),
            scheduler=scheduler_of("ddim", "epsilon"),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    return save(pipeline, folder)


def tiny_control_xl(folder: Path, *, seed: int = 0) -> Path:
    """StableDiffusionXLControlNetPipeline, 32 px; its ControlNet already does something.

    Args:
        folder: where to save; created.
        seed: of the weights.
    """
    import diffusers
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = unet(**XL)
        pipeline = diffusers.StableDiffusionXLControlNetPipeline(
            vae=vae(scaling_factor=0.13025),
            text_encoder=clip(),
            text_encoder_2=clip(projection=True),
            tokenizer=clip_tokenizer(),
            tokenizer_2=clip_tokenizer(pad="!"),
            unet=network,
            controlnet=controlnet_of(network),
            scheduler=scheduler_of("euler", "epsilon"),
            add_watermarker=False,
        )
    return save(pipeline, folder)


def controlnet_of(network: Any) -> Any:
    """A ControlNet with a network's weights; the layers that a fresh one begins silent with are not."""
    import diffusers
    import torch

    controlnet = diffusers.ControlNetModel.from_unet(
        network, conditioning_embedding_out_channels=(8, 8, 16), conditioning_channels=3
    )
    for parameter in [p for p in controlnet.parameters() if not p.any()]:
        torch.nn.init.normal_(parameter, std=0.05)
    return controlnet


def tiny_sdxl(
    folder: Path, *, scheduler: str = "euler", force_zeros_for_empty_prompt: bool = True, seed: int = 0
) -> Path:
    """StableDiffusionXLPipeline, 32 px, time ids of 8 numbers each.

    Args:
        folder: where to save; created.
        scheduler: "euler" (what SDXL ships) or "ddim".
        force_zeros_for_empty_prompt: the pipeline's rule for the unconditional embedding.
        seed: of the weights.
    """
    import diffusers
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        pipeline = diffusers.StableDiffusionXLPipeline(
            vae=vae(scaling_factor=0.13025),
            text_encoder=clip(),
            text_encoder_2=clip(projection=True),
            tokenizer=clip_tokenizer(),
            tokenizer_2=clip_tokenizer(pad="!"),
            unet=unet(**XL),
            scheduler=scheduler_of(scheduler, "epsilon"),
            force_zeros_for_empty_prompt=force_zeros_for_empty_prompt,
            add_watermarker=False,
        )
    return save(pipeline, folder)


def tiny_sd3(folder: Path, *, t5: bool = False, shift: float = 3.0, seed: int = 0) -> Path:
    """StableDiffusion3Pipeline, 32 px, 8 latent channels with a shift.

    Args:
        folder: where to save; created.
        t5: with a tiny third text encoder; without, `text_encoder_3=None` as in the low-memory use of SD3.
        shift: of the timesteps, 3 in SD3.
        seed: of the weights.
    """
    import diffusers
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        pipeline = diffusers.StableDiffusion3Pipeline(
            transformer=diffusers.SD3Transformer2DModel(
                sample_size=8,
                patch_size=2,
                in_channels=8,
                out_channels=8,
                num_layers=2,
                attention_head_dim=8,
                num_attention_heads=4,
                joint_attention_dim=2 * WIDTH,
                caption_projection_dim=32,
                pooled_projection_dim=2 * WIDTH,
                pos_embed_max_size=16,
                qk_norm="rms_norm",
            ),
            scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=shift),
            vae=vae(
                latent_channels=8,
                scaling_factor=1.5305,
                shift_factor=0.0609,
                use_quant_conv=False,
                use_post_quant_conv=False,
            ),
            text_encoder=clip(projection=True),
            tokenizer=clip_tokenizer(),
            text_encoder_2=clip(projection=True),
            tokenizer_2=clip_tokenizer(pad="!"),
            text_encoder_3=t5_encoder() if t5 else None,
            tokenizer_3=t5_tokenizer() if t5 else None,
        )
    return save(pipeline, folder)


def save(pipeline: Any, folder: Path) -> Path:
    for module in pipeline.components.values():
        if hasattr(module, "parameters"):
            widen(module)
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def widen(module: Any) -> None:
    """Random biases and norms: zeros and ones, as freshly initialised, would hide a tensor that is never loaded."""
    import torch

    generator = torch.Generator().manual_seed(7)
    for parameter in module.parameters():
        if parameter.dim() < 2:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)


def vae(**options: Any) -> Any:
    """Eight-fold smaller channels than the real one; a quarter of the image's width and height."""
    import diffusers

    return diffusers.AutoencoderKL(
        **{
            "down_block_types": ["DownEncoderBlock2D"] * 3,
            "up_block_types": ["UpDecoderBlock2D"] * 3,
            "block_out_channels": (8, 16, 16),
            "layers_per_block": 1,
            "latent_channels": 4,
            "norm_num_groups": 4,
            "sample_size": 32,
            **options,
        }
    )


def unet(**options: Any) -> Any:
    import diffusers

    return diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=4,
        norm_num_groups=4,
        **options,
    )


def scheduler_of(name: str, prediction_type: str) -> Any:
    import diffusers

    match name:
        case "ddim":
            return diffusers.DDIMScheduler(
                **BETAS, clip_sample=False, set_alpha_to_one=False, prediction_type=prediction_type
            )
        case "pndm":
            return diffusers.PNDMScheduler(
                **BETAS, skip_prk_steps=True, set_alpha_to_one=False, prediction_type=prediction_type
            )
        case "euler":
            return diffusers.EulerDiscreteScheduler(
                **BETAS, timestep_spacing="leading", prediction_type=prediction_type
            )
    raise ValueError(f"no scheduler named {name!r}: ddim, pndm or euler")


def clip(projection: bool = False) -> Any:
    import transformers

    config = transformers.CLIPTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=64,
        projection_dim=WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=77,
        bos_token_id=VOCABULARY - 2,
        eos_token_id=VOCABULARY - 1,
        pad_token_id=VOCABULARY - 1,
    )
    return (transformers.CLIPTextModelWithProjection if projection else transformers.CLIPTextModel)(config)


def clip_tokenizer(pad: str = "<|endoftext|>") -> Any:
    """One token a letter; a word's last letter is another token, as in CLIP."""
    import transformers
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return transformers.CLIPTokenizer(
        vocab={piece: i for i, piece in enumerate(pieces)}, merges=[], pad_token=pad, model_max_length=77
    )


def t5_encoder() -> Any:
    import transformers

    config = transformers.T5Config(
        vocab_size=200, d_model=2 * WIDTH, d_kv=8, d_ff=64, num_layers=2, num_heads=4, dropout_rate=0.1
    )
    return transformers.T5EncoderModel(config)


def t5_tokenizer() -> Any:
    import transformers

    pieces = ["<pad>", "</s>", "<unk>", "▁", *"abcdefghijklmnopqrstuvwxyz,."]
    return transformers.T5TokenizerFast(
        vocab=[(piece, 0.0 if i < 3 else -2.0) for i, piece in enumerate(pieces)],
        extra_ids=0,
        model_max_length=512,
    )
