"""Tiny random models of images and text, of real classes, saved as their own library saves them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

WORDS = [
    "what",
    "is",
    "in",
    "this",
    "picture",
    "?",
    "a",
    "red",
    "green",
    "blue",
    "cat",
    "dog",
    "sits",
    "stands",
    "on",
    "the",
    "mat",
    "and",
    "there",
    "are",
    "two",
    "three",
    "no",
    "it",
    "one",
    ".",
    "user",
    "assistant",
    "system",
    ":",
    "USER",
    "ASSISTANT",
    "describe",
    "image",
    "an",
    "old",
    "new",
    "house",
    "tree",
]
LLAVA_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }} : {% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}PLACE {% elif c['type'] == 'video' %}VIDEO {% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{ eos_token if m['role'] == 'assistant' else ' ' }}{% endfor %}{% if add_generation_prompt %}assistant : {% endif %}"
)


def tokenizer(special: list[str], place: str, video: str = "<video>", **named: str) -> Any:
    """Words, with the special tokens that a processor needs; `place` is where a template puts an image, `video` a video."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: n for n, token in enumerate(["<unk>", "<pad>", "</s>", "<s>", *WORDS])}
    built = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    built.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    built.decoder = decoders.Fuse()
    found = PreTrainedTokenizerFast(
        tokenizer_object=built, unk_token="<unk>", pad_token="<pad>", eos_token="</s>", bos_token="<s>",
        extra_special_tokens=named,
    )  # fmt: skip
    found.add_tokens(special, special_tokens=True)
    found.chat_template = LLAVA_TEMPLATE.replace("PLACE", place).replace("VIDEO", video)
    return found


def text_sizes(**more: Any) -> dict[str, Any]:
    return {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 128, "max_position_embeddings": 2048, "head_dim": 8,
        "bos_token_id": 3, "eos_token_id": 2, "pad_token_id": 1, **more,
    }  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """One class: what fills a folder with a model of it."""

    name: str
    build: Callable[[], tuple[Any, Any, Any, str, dict[str, Any]]]
    """Model, image processor, tokenizer, name of the processor's class, its own settings."""


def clip_vision() -> dict[str, Any]:
    return {
        "model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "image_size": 32, "patch_size": 8, "projection_dim": 32,
    }  # fmt: skip


def siglip_vision() -> dict[str, Any]:
    return clip_vision() | {"model_type": "siglip_vision_model"}


def llama(**more: Any) -> dict[str, Any]:
    return {"model_type": "llama", **text_sizes(**more)}


def llava() -> Any:
    import transformers as t

    words = tokenizer(["<image>"], "<image>")
    config = t.LlavaConfig(
        vision_config=clip_vision(), text_config=llama(), image_token_index=words.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-2,
    )  # fmt: skip
    images = t.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    settings = {
        "patch_size": 8,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
    }
    return t.LlavaForConditionalGeneration(config), images, words, "LlavaProcessor", settings


def llava_next() -> Any:
    import transformers as t

    words = tokenizer(["<image>"], "<image>")
    grid = [[32, 64], [64, 32], [64, 64]]
    config = t.LlavaNextConfig(
        vision_config=clip_vision(), text_config=llama(), image_token_index=words.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=grid, vision_feature_layer=-2,
    )  # fmt: skip
    images = t.LlavaNextImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, image_grid_pinpoints=grid
    )
    settings = {
        "patch_size": 8,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
    }
    return t.LlavaNextForConditionalGeneration(config), images, words, "LlavaNextProcessor", settings


def llava_onevision() -> Any:
    import transformers as t

    words = tokenizer(["<image>", "<video>"], "<image>")
    grid = [[32, 64], [64, 32], [64, 64]]
    config = t.LlavaOnevisionConfig(
        vision_config=siglip_vision(), text_config={"model_type": "qwen2", **text_sizes()}, image_grid_pinpoints=grid,
        image_token_index=words.convert_tokens_to_ids("<image>"), video_token_index=words.convert_tokens_to_ids("<video>"),
    )  # fmt: skip
    images = t.LlavaOnevisionImageProcessorPil(size={"height": 32, "width": 32}, image_grid_pinpoints=grid)
    settings = {"num_image_tokens": 16, "vision_feature_select_strategy": "full"}
    return (
        t.LlavaOnevisionForConditionalGeneration(config),
        images,
        words,
        "LlavaOnevisionProcessor",
        settings,
    )


QWEN = ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"]
QWEN_PLACE = "<|vision_start|><|image_pad|><|vision_end|>"
QWEN_VIDEO = QWEN_PLACE.replace("image", "video")


def qwen_ids(words: Any) -> dict[str, int]:
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    return {name: words.convert_tokens_to_ids(token) for name, token in zip(names, QWEN, strict=True)}


def qwen2_5_vl() -> Any:
    import transformers as t

    words = tokenizer(QWEN, QWEN_PLACE, QWEN_VIDEO)
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    vision = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 4, "patch_size": 8, "spatial_merge_size": 2,
        "temporal_patch_size": 2, "out_hidden_size": 32, "window_size": 32, "fullatt_block_indexes": [1],
    }  # fmt: skip
    config = t.Qwen2_5_VLConfig(
        vision_config=vision, text_config={**text_sizes(), "rope_parameters": rope}, **qwen_ids(words)
    )
    images = t.Qwen2VLImageProcessorPil(patch_size=8, min_pixels=16 * 16, max_pixels=64 * 64)
    return t.Qwen2_5_VLForConditionalGeneration(config), images, words, "Qwen2_5_VLProcessor", {}


def qwen3_vl() -> Any:
    import transformers as t

    words = tokenizer(QWEN, QWEN_PLACE, QWEN_VIDEO)
    rope = {
        "rope_type": "default",
        "mrope_section": [1, 1, 2],
        "rope_theta": 10000.0,
        "mrope_interleaved": True,
    }
    vision = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 4, "patch_size": 8, "spatial_merge_size": 2,
        "temporal_patch_size": 2, "out_hidden_size": 32, "deepstack_visual_indexes": [0], "num_position_embeddings": 64,
    }  # fmt: skip
    config = t.Qwen3VLConfig(
        vision_config=vision, text_config={**text_sizes(), "rope_parameters": rope}, **qwen_ids(words)
    )
    images = t.Qwen2VLImageProcessorPil(patch_size=8, min_pixels=16 * 16, max_pixels=64 * 64)
    return t.Qwen3VLForConditionalGeneration(config), images, words, "Qwen3VLProcessor", {}


IDEFICS = ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", "<video>"]


def idefics3() -> Any:
    import transformers as t

    rows = [f"<row_{r}_col_{c}>" for r in (1, 2, 3, 4) for c in (1, 2, 3, 4)]
    words = tokenizer([*IDEFICS, *rows], "<image>")
    config = t.Idefics3Config(
        vision_config=siglip_vision() | {"model_type": "idefics3_vision"}, text_config=llama(), scale_factor=2,
        image_token_id=words.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    images = t.Idefics3ImageProcessorPil(size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
    return (
        t.Idefics3ForConditionalGeneration(config),
        images,
        words,
        "Idefics3Processor",
        {"image_seq_len": 4},
    )


def smolvlm() -> Any:
    import transformers as t

    rows = [f"<row_{r}_col_{c}>" for r in (1, 2, 3, 4) for c in (1, 2, 3, 4)]
    words = tokenizer([*IDEFICS, *rows], "<image>")
    config = t.SmolVLMConfig(
        vision_config=siglip_vision() | {"model_type": "smolvlm_vision"}, text_config=llama(), scale_factor=2,
        image_token_id=words.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    images = t.SmolVLMImageProcessorPil(size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
    return t.SmolVLMForConditionalGeneration(config), images, words, "SmolVLMProcessor", {"image_seq_len": 4}


def internvl() -> Any:
    import transformers as t

    named = {
        "start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }  # fmt: skip
    words = tokenizer(list(named.values()), "<IMG_CONTEXT>", **named)
    vision = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": [32, 32],
        "patch_size": [8, 8],
    }  # fmt: skip
    config = t.InternVLConfig(
        vision_config=vision, text_config={"model_type": "qwen2", **text_sizes()},
        image_token_id=words.convert_tokens_to_ids("<IMG_CONTEXT>"), image_seq_length=4,
    )  # fmt: skip
    images = t.GotOcr2ImageProcessorPil(size={"height": 32, "width": 32}, crop_to_patches=False)
    return (
        t.InternVLForConditionalGeneration(config),
        images,
        words,
        "InternVLProcessor",
        {"image_seq_length": 4},
    )


def gemma3() -> Any:
    import transformers as t

    named = {
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    }
    words = tokenizer(list(named.values()), "<start_of_image>", **named)
    text = {
        "model_type": "gemma3_text",
        **text_sizes(),
        "sliding_window": 64,
        "layer_types": ["sliding_attention", "full_attention"],
    }
    config = t.Gemma3Config(
        vision_config=siglip_vision(), text_config=text, mm_tokens_per_image=4,
        image_token_id=words.convert_tokens_to_ids("<image_soft_token>"),
        boi_token_id=words.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_id=words.convert_tokens_to_ids("<end_of_image>"),
    )  # fmt: skip
    images = t.Gemma3ImageProcessorPil(size={"height": 32, "width": 32})
    return t.Gemma3ForConditionalGeneration(config), images, words, "Gemma3Processor", {"image_seq_length": 4}


def paligemma() -> Any:
    import transformers as t

    words = tokenizer(["<image>"], "<image>")
    config = t.PaliGemmaConfig(
        vision_config=siglip_vision(), text_config={"model_type": "gemma", **text_sizes()}, projection_dim=32,
        image_token_index=words.convert_tokens_to_ids("<image>"), hidden_size=32,
    )  # fmt: skip
    images = t.SiglipImageProcessorPil(size={"height": 32, "width": 32})
    images.image_seq_length = 16
    return t.PaliGemmaForConditionalGeneration(config), images, words, "PaliGemmaProcessor", {}


VIDEO_SETTINGS: dict[str, dict[str, Any]] = {
    "qwen2_5_vl": {
        "video_processor_type": "Qwen2VLVideoProcessor", "patch_size": 8, "temporal_patch_size": 2, "merge_size": 2,
        "size": {"shortest_edge": 16 * 16, "longest_edge": 48 * 48}, "cap_pixels_per_frame": False,
    },
    "qwen3_vl": {
        "video_processor_type": "Qwen3VLVideoProcessor", "patch_size": 8, "temporal_patch_size": 2, "merge_size": 2,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "cap_pixels_per_frame": False,
        "size": {"shortest_edge": 16 * 16, "longest_edge": 4 * 48 * 48},
    },
    "internvl": {"video_processor_type": "InternVLVideoProcessor", "size": {"height": 32, "width": 32}},
    "smolvlm": {
        "video_processor_type": "SmolVLMVideoProcessor", "max_image_size": {"longest_edge": 32},
        "size": {"longest_edge": 64}, "video_sampling": {"max_frames": 8, "fps": 1, "video_size": {"longest_edge": 64}},
    },
    "llava_onevision": {"video_processor_type": "LlavaOnevisionVideoProcessor", "size": {"height": 32, "width": 32}},
}  # fmt: skip
"""What `video_preprocessor_config.json` says of classes that read videos."""

KINDS = {
    build.__name__: build
    for build in (
        llava, llava_next, llava_onevision, qwen2_5_vl, qwen3_vl, idefics3, smolvlm, internvl, gemma3, paligemma,
    )
}  # fmt: skip


def save_tiny(name: str, folder: Path) -> Path:
    """A tiny random model of a class, with its processor, as files."""
    torch.manual_seed(0)
    model, images, words, processor, settings = KINDS[name]()
    with torch.no_grad():
        for parameter in model.parameters():  # as far from each other as trained ones: leaks must show
            if parameter.dim() > 1:
                parameter.normal_(0, 0.15)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    images.save_pretrained(folder)
    if settings or processor:
        file = folder / "processor_config.json"
        file.write_text(json.dumps({"processor_class": processor, **settings}))
    if name in VIDEO_SETTINGS:
        (folder / "video_preprocessor_config.json").write_text(json.dumps(VIDEO_SETTINGS[name]))
    return folder
