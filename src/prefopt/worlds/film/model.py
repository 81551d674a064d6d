"""The film world's small vision-language model: tokenizer and processor files, pretraining from nothing on short films.

A real architecture (`transformers.Qwen2_5_VLForConditionalGeneration`) with the files of a real processor and a chat template, so that
what is saved takes the same path as a user's checkpoint:

    <|user|><|vision_start|><|video_pad|>...<|vision_end|>ask red square<|assistant|>left early<|end|>

A film is one video of 2 frames a second: a temporal patch of 2 frames is 1 s and becomes one token, so a clip has two tokens. The tower
has no attention (depth 0): four patches a frame pair, joined by the merger. So a token depends on its own frame pair alone, whatever
film it stands in.

Legend of shape suffixes: B films, N clips, F = 4 frames a clip, H = W = 12 rows and columns, C = 3 channels, V = 2 N visual tokens,
Q = patches of 2 x 6 x 6 pixels, four a token, E = 216 numbers a patch, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from prefopt.worlds.film.task import (
    COLOURS,
    DESCRIBE,
    EVENTS,
    FPS,
    FRAMES,
    MOTIONS,
    SHAPES,
    SIDE,
)
from prefopt.worlds.pretraining import no_bars

BOS, EOS, PAD, UNK, USER, ASSISTANT = "<s>", "<|end|>", "<pad>", "<unk>", "<|user|>", "<|assistant|>"
VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"
IMAGE_PAD, VIDEO_PAD = "<|image_pad|>", "<|video_pad|>"
WORDS = (*COLOURS, *SHAPES, *MOTIONS, *EVENTS, DESCRIBE, "ask", "first", "or")

PAIR = 2
"""Frames a temporal patch: `temporal_patch_size`."""
PATCH = 6
"""Rows and columns of a patch; 2 x 2 of them are merged."""
MERGE = SIDE // PATCH
TOKENS = FRAMES // PAIR
"""Visual tokens a clip."""
SECONDS = PAIR / FPS
"""A temporal patch: what the model is told as `second_per_grid_ts`."""
MEAN, STD = 0.1, 1.0
"""Of the processors: a dark ground becomes about 0."""
INITIALIZER_RANGE = 0.1
"""The usual 0.02 learns to bind objects to what they do much more slowly at this width."""
ROPE = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [4, 2, 2]}
# Messages are text, or blocks of text, images and videos; anything else raises instead of being dropped in silence.
CHAT_TEMPLATE = (
    "{%- macro shown(content) -%}"
    "{%- if content is string -%}{{- content -}}"
    "{%- else -%}{%- for block in content -%}"
    "{%- if block['type'] == 'image' -%}{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}"
    "{%- elif block['type'] == 'video' -%}{{- '<|vision_start|><|video_pad|><|vision_end|>' -}}"
    "{%- elif block['type'] == 'text' -%}{{- block['text'] -}}"
    "{%- else -%}{{- raise_exception('blocks are text, image and video; given ' + block['type']) -}}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{%- endmacro -%}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'user' -%}{{- '<|user|>' + shown(message['content']) -}}"
    "{%- elif message['role'] == 'assistant' -%}"
    "{{- '<|assistant|>' -}}{%- generation -%}{{- shown(message['content']) + eos_token -}}{%- endgeneration -%}"
    "{%- else -%}{{- raise_exception('roles are user and assistant; given ' + message['role']) -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


# -- what the model is made of -------------------------------------------------------------------------------


def build_tokenizer() -> Any:
    """A tokenizer of the words of questions and answers, each one token wherever it stands."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    marks = [USER, ASSISTANT, VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD]
    vocabulary = {word: k for k, word in enumerate((PAD, BOS, EOS, UNK, *marks, *WORDS))}
    words_of = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    words_of.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words_of,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNK,
        extra_special_tokens={"image_token": IMAGE_PAD, "video_token": VIDEO_PAD}
        | {f"mark_{k}": mark for k, mark in enumerate(marks[:4])},
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def processor_files() -> dict[str, Any]:
    """The processor's files beside the tokenizer's, by name; its part for videos would need torchvision to be made here."""
    shared = {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [MEAN] * 3,
        "image_std": [STD] * 3,
        "merge_size": MERGE,
        "patch_size": PATCH,
        "resample": 3,
        "rescale_factor": 1 / 255,
        # both equal to a frame's pixels: nothing is resized, and a long film has the same frames as a short one
        "size": {"longest_edge": SIDE**2, "shortest_edge": SIDE**2},
        "temporal_patch_size": PAIR,
    }
    processor = {"processor_class": "Qwen2_5_VLProcessor"}
    return {
        # named, because what AutoImageProcessor would choose depends on whether torchvision is installed
        "preprocessor_config.json": shared | processor | {"image_processor_type": "Qwen2VLImageProcessorPil"},
        "video_preprocessor_config.json": shared
        | processor
        | {"video_processor_type": "Qwen2VLVideoProcessor", "do_sample_frames": False},
        "processor_config.json": processor,
    }


def build_model(tokenizer: Any, width: int, layers: int) -> Any:
    """A `Qwen2_5_VLForConditionalGeneration` of random weights.

    Args:
        tokenizer: its tokenizer.
        width: of tower and language model; 16 of it a head.
        layers: of the language model.
    """
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    heads = width // 16
    vision = {
        "depth": 0,
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_heads": heads,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": PAIR,
        "window_size": SIDE,
        "fullatt_block_indexes": [],
        # positions of a film grow by one a token
        "tokens_per_second": round(1 / SECONDS),
        "out_hidden_size": width,
        "initializer_range": INITIALIZER_RANGE,
    }
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "max_position_embeddings": 512,
        "initializer_range": INITIALIZER_RANGE,
        "rope_parameters": ROPE,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    names = {"image": IMAGE_PAD, "video": VIDEO_PAD, "vision_start": VISION_START, "vision_end": VISION_END}
    config = Qwen2_5_VLConfig(
        vision_config=vision,
        text_config=text,
        tie_word_embeddings=False,
        initializer_range=INITIALIZER_RANGE,
        **{f"{name}_token_id": tokenizer.convert_tokens_to_ids(token) for name, token in names.items()},
    )
    return Qwen2_5_VLForConditionalGeneration(config).float()


def patches_of(pixels_NFHWC: np.ndarray) -> Tensor:
    """(Q, E) `pixel_values_videos` of clips one behind the other, as `Qwen2VLVideoProcessor` makes them.

    Args:
        pixels_NFHWC: uint8.
    """
    x = (torch.from_numpy(pixels_NFHWC).float() / 255 - MEAN) / STD
    pairs = x.reshape(-1, PAIR, MERGE, PATCH, MERGE, PATCH, 3)  # token, frame, row, y, column, x, channel
    return pairs.permute(0, 2, 4, 6, 1, 3, 5).reshape(-1, 3 * PAIR * PATCH**2)


def grid_of(clips: int) -> Tensor:
    """(1, 3) `video_grid_thw` of a film of so many clips."""
    return torch.tensor([[TOKENS * clips, MERGE, MERGE]])


# -- reading a film and a text -------------------------------------------------------------------------------


class Texts(NamedTuple):
    """Texts of one layout: films of as many clips, as many words each.

    Attributes:
        tokens_BT: the whole conversation, places of visual tokens included.
        clips: of each film.
        answer: tokens at the end that are the answer's, its end included; 0 of a prompt alone.
    """

    tokens_BT: Tensor
    clips: int
    answer: int


def texts_of(tokenizer: Any, clips: int, prompts: Sequence[str], answers: Sequence[str] = ()) -> Texts:
    """Conversations about films, each with one question; without answers up to where the assistant speaks.

    Args:
        tokenizer: of the model.
        clips: of each film.
        prompts: equally long questions.
        answers: equally long answers.
    """
    numbers = tokenizer.get_vocab()

    def ids(words: Sequence[str]) -> list[int]:
        return [numbers[word] for word in words]

    before = ids([USER, VISION_START, *[VIDEO_PAD] * TOKENS * clips, VISION_END])
    said = [[*answer.split(), EOS] for answer in answers] or [[]] * len(prompts)
    rows = [
        before + ids([*prompt.split(), ASSISTANT, *answer])
        for prompt, answer in zip(prompts, said, strict=True)
    ]
    return Texts(torch.tensor(rows), clips, len(said[0]))


def features_of(model: Any, pixels_NFHWC: np.ndarray) -> Tensor:
    """(N, 2, D) features of clips; those of a film are its clips' one behind the other."""
    clips = len(pixels_NFHWC)
    inner = model.model
    out = inner.visual(
        patches_of(pixels_NFHWC).to(model.device), grid_thw=grid_of(clips).to(model.device)
    ).pooler_output
    return out.unflatten(0, (clips, TOKENS))


def hidden_of(model: Any, texts: Texts, features_BVD: Tensor, cache: Any = None) -> tuple[Tensor, Tensor]:
    """(B, T, D) last hidden states and (3, 1, T) positions: what the model itself makes of the same films, without a loop over them.

    Args:
        model: the world's, or one trained from it.
        texts: of one layout.
        features_BVD: of each film, V = 2 N.
        cache: of keys and values, filled if given.
    """
    tokens_BT = texts.tokens_BT.to(model.device)
    kind_1T = (tokens_BT[:1] == model.config.video_token_id).int() * 2
    position_31T, _ = model.model.get_rope_index(
        tokens_BT[:1],
        kind_1T,
        video_grid_thw=grid_of(texts.clips),
        second_per_grid_ts=torch.tensor([SECONDS]),
    )
    begins = int(kind_1T.argmax())
    embedded_BTD = model.get_input_embeddings()(tokens_BT)
    embedded_BTD = torch.cat(
        (
            embedded_BTD[:, :begins],
            features_BVD.to(embedded_BTD),
            embedded_BTD[:, begins + features_BVD.shape[1] :],
        ),
        dim=1,
    )
    found = model.model.language_model(
        inputs_embeds=embedded_BTD,
        position_ids=position_31T.expand(3, len(tokens_BT), -1),
        past_key_values=cache,
        use_cache=cache is not None,
    )
    return found.last_hidden_state, position_31T


def loss_of(model: Any, texts: Texts, features_BVD: Tensor) -> Tensor:
    """Mean cross-entropy of the answers' tokens and their end."""
    hidden_BTD, _ = hidden_of(model, texts, features_BVD)
    logits_BTV = model.lm_head(hidden_BTD[:, -texts.answer - 1 : -1])
    targets_BT = texts.tokens_BT[:, -texts.answer :].to(model.device)
    return torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten())


@torch.inference_mode()
def answered(
    model: Any, tokenizer: Any, features_BVD: Tensor, clips: int, prompts: Sequence[str], length: int
) -> list[str]:
    """The likeliest answers, token by token, cut at `length` tokens.

    Args:
        model: the world's, or one trained from it; in evaluation mode.
        tokenizer: of the model.
        features_BVD: of each film, V = 2 N.
        clips: of each film.
        prompts: a question each, equally long.
        length: of an answer, its end included.
    """
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config.get_text_config())
    hidden_BTD, position_31T = hidden_of(model, texts_of(tokenizer, clips, prompts), features_BVD, cache)
    last_31 = position_31T[:, :, -1:]
    drawn_B1 = model.lm_head(hidden_BTD[:, -1:]).argmax(2)
    found = [drawn_B1]
    for step in range(1, length):
        hidden_BTD = model.model.language_model(
            inputs_embeds=model.get_input_embeddings()(drawn_B1),
            position_ids=(last_31 + step).expand(3, len(prompts), 1),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        drawn_B1 = model.lm_head(hidden_BTD).argmax(2)
        found.append(drawn_B1)
    words = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    said = []
    for row in torch.cat(found, dim=1).tolist():
        row = row[: row.index(tokenizer.eos_token_id)] if tokenizer.eos_token_id in row else row
        said.append(" ".join(words[k] for k in row))
    return said


def load(folder: Path) -> tuple[Any, Any]:
    """Model (float32, evaluation mode) and tokenizer from a folder."""
    from transformers import AutoModelForImageTextToText, AutoTokenizer
    from transformers.utils import logging

    with no_bars(logging):
        model = AutoModelForImageTextToText.from_pretrained(folder).float().eval()
        return model, AutoTokenizer.from_pretrained(folder)
