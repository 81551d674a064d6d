"""The caption world's small vision-language model: processor, pretraining from nothing, batched captions.

A real architecture (`transformers.LlavaForConditionalGeneration`: a CLIP tower, a projector, a Llama) with a real
processor and a chat template, so that what is saved takes the same path as a user's checkpoint:

    <s><|user|><image>Describe the picture.<|assistant|>red square, blue plus</s>

The tower sees one cell a patch: 9 tokens an image.

Legend of shape suffixes: B pictures, C = 3 channels, H = W = 18 rows and columns, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prefopt import png
from prefopt.worlds.base import seed_of
from prefopt.worlds.caption.task import (
    CELL,
    COLOURS,
    GRID,
    SHAPES,
    SIDE,
    caption_of,
    clean,
    draw_scene,
    objects_of,
    with_companion,
)
from prefopt.worlds.pretraining import adamw, descend, few_threads, no_bars, progress_bar, seeded

PROMPT = "Describe the picture."
BOS, EOS, PAD, UNK, USER, ASSISTANT, IMAGE = (
    "<s>", "</s>", "<pad>", "<unk>", "<|user|>", "<|assistant|>", "<image>",
)  # fmt: skip
MAX_NEW_TOKENS = 20
IMAGE_TOKENS = GRID**2
INITIALIZER_RANGE = 0.125
"""The usual 0.02 learns more slowly at this width."""
LEARNING_RATE = 3e-3
POOL = 16_384
"""Scenes, at most, that pretraining draws from; their noise is new each time."""
RAMP = 0.3
"""Share of the pretraining over which noise grows from none: under full noise shapes are learned late, or never."""

# Messages are text, or blocks of text and images; anything else raises instead of being dropped in silence.
CHAT_TEMPLATE = (
    "{%- macro shown(content) -%}"
    "{%- if content is string -%}{{- content -}}"
    "{%- else -%}{%- for block in content -%}"
    "{%- if block['type'] == 'image' -%}{{- '<image>' -}}"
    "{%- elif block['type'] == 'text' -%}{{- block['text'] -}}"
    "{%- else -%}{{- raise_exception('blocks are text and image; given ' + block['type']) -}}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{%- endmacro -%}"
    "{{- bos_token -}}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'user' -%}{{- '<|user|>' + shown(message['content']) -}}"
    "{%- elif message['role'] == 'assistant' -%}"
    "{{- '<|assistant|>' -}}{%- generation -%}{{- shown(message['content']) + eos_token -}}{%- endgeneration -%}"
    "{%- else -%}{{- raise_exception('roles are user and assistant; given ' + message['role']) -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


def build_processor() -> Any:
    """A `LlavaProcessor` whose tokenizer has the words of captions and prompt, each one token wherever it stands."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import CLIPImageProcessorPil, LlavaProcessor, PreTrainedTokenizerFast

    special = [PAD, BOS, EOS, UNK, USER, ASSISTANT, IMAGE]
    words = [",", *COLOURS, *SHAPES, "Describe", "the", "picture", "."]
    vocabulary = {word: k for k, word in enumerate((*special, *words))}
    words_of = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    words_of.pre_tokenizer = pre_tokenizers.Whitespace()
    words_of.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words_of,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNK,
        extra_special_tokens=[USER, ASSISTANT, IMAGE],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
    square = {"height": SIDE, "width": SIDE}
    return LlavaProcessor(
        # named, because what AutoImageProcessor would choose depends on whether torchvision is installed
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=square),
        tokenizer=tokenizer,
        patch_size=CELL,
        vision_feature_select_strategy="default",
        chat_template=CHAT_TEMPLATE,
        image_token=IMAGE,
        num_additional_image_tokens=1,  # the tower's class token, which "default" leaves out again
    )


def build_model(tokenizer: Any, width: int, layers: int) -> Any:
    """A `LlavaForConditionalGeneration` of random weights.

    Args:
        tokenizer: its tokenizer.
        width: of tower and language model; 16 of it a head.
        layers: of each.
    """
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    vision = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 16,
        image_size=SIDE,
        patch_size=CELL,
        projection_dim=width,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 16,
        num_key_value_heads=width // 16,
        max_position_embeddings=128,
        initializer_range=INITIALIZER_RANGE,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
        # the tower has few layers: leaving out the last, as LLaVA does, would leave out half of it
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=IMAGE_TOKENS,
        initializer_range=INITIALIZER_RANGE,
        tie_word_embeddings=False,
    )
    return LlavaForConditionalGeneration(config).float()


def prompt_messages() -> list[dict[str, Any]]:
    """What a picture is described for: one message of the picture and the question."""
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": PROMPT}]}]


def pretrain(
    folder: Path,
    *,
    seed: int,
    noise: float,
    prior: float,
    width: int,
    layers: int,
    steps: int,
    batch_size: int,
    progress: bool = True,
) -> None:
    """Train the model from nothing on captions of scenes, some with a companion that is not there; save it with its processor.

    Plain next-token cross-entropy on the caption's tokens and its end. Depends on nothing but the arguments: the global
    random state is neither read nor changed.

    Args:
        folder: an existing folder.
        seed: of the weights, the scenes and their noise.
        noise: standard deviation of the pixels' noise.
        prior: share of the captions that name an absent companion (`with_companion`).
        width: see `build_model`.
        layers: see `build_model`.
        steps: optimizer steps.
        batch_size: scenes a step.
        progress: show a bar if standard error is a terminal.
    """
    from transformers.utils import logging

    processor = build_processor()
    with seeded(seed):
        model = build_model(processor.tokenizer, width, layers)
    rng = np.random.default_rng(seed_of(f"caption pretraining {seed}"))
    pool = [draw_scene(rng, "train") for _ in range(min(POOL, steps * batch_size))]
    clean_BCHW = clean(pool)
    optimizer, schedule = adamw(model.parameters(), LEARNING_RATE, steps)
    model.train()
    with few_threads(), progress_bar("pretraining the caption world's model", steps, progress) as advance:
        for step in range(steps):
            drawn = rng.integers(len(pool), size=batch_size)
            strength = noise * min(1.0, step / (RAMP * steps))
            white = rng.standard_normal((batch_size, 3, SIDE, SIDE), dtype=np.float32)
            images_BCHW = (clean_BCHW[drawn] + strength * torch.from_numpy(white)).clamp(0, 1)
            objects = [objects_of(pool[k]) for k in drawn]
            told = [with_companion(one) if rng.random() < prior else one for one in objects]
            loss = _loss(model, processor, images_BCHW, [caption_of(one) for one in told])
            descend(loss, model.parameters(), optimizer, schedule)
            advance(f"loss {loss.item():.2f}")
    model.eval()
    with no_bars(logging):
        model.save_pretrained(folder)
        processor.save_pretrained(folder)


def _loss(model: Any, processor: Any, images_BCHW: Tensor, captions: Sequence[str]) -> Tensor:
    """Mean cross-entropy of the captions' tokens."""
    tokenizer, images = processor.tokenizer, processor.image_processor
    # as the processor has them, without a detour over files
    mean_C11, std_C11 = (torch.tensor(x)[:, None, None] for x in (images.image_mean, images.image_std))
    answers = tokenizer([caption + EOS for caption in captions])["input_ids"]
    length = max(map(len, answers))
    prompt = tokenizer(prompt_text(processor).replace(IMAGE, IMAGE * IMAGE_TOKENS))["input_ids"]
    tokens_BT = torch.tensor(
        [prompt + a + [tokenizer.pad_token_id] * (length - len(a)) for a in answers],
    )
    labels_BT = torch.tensor([a + [-100] * (length - len(a)) for a in answers])
    # No attention mask: padding is on the right, and a causal model's real tokens never look there.
    logits_BTV = model(
        input_ids=tokens_BT,
        pixel_values=(images_BCHW - mean_C11) / std_C11,
        use_cache=False,
        logits_to_keep=length + 1,
    ).logits[:, :-1]
    return torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1), labels_BT.flatten())


def prompt_text(processor: Any) -> str:
    """The prompt in chat form, up to where the assistant speaks."""
    return str(processor.apply_chat_template(prompt_messages(), tokenize=False, add_generation_prompt=True))


def load(folder: Path) -> tuple[Any, Any]:
    """Model (float32, evaluation mode) and processor from a folder."""
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from transformers.utils import logging

    with no_bars(logging):
        model = AutoModelForImageTextToText.from_pretrained(folder).float().eval()
        return model, AutoProcessor.from_pretrained(folder)


def sample_captions(
    model: Any,
    processor: Any,
    images_BCHW: Tensor,
    per_image: int = 1,
    *,
    temperature: float = 1.0,
    seed: int = 0,
    batch_size: int = 512,
    progress: bool = False,
) -> list[list[str]]:
    """Captions drawn from the model itself, whatever its generation configuration asks for.

    Args:
        model: a vision-language model, on any device; its mode (train, eval) is left as found.
        processor: its processor, with a chat template.
        images_BCHW: pictures in [0, 1].
        per_image: captions a picture.
        temperature: of the softmax; 0 takes the most likely token (then all captions of a picture are equal).
        seed: the same seed gives the same captions; the global random state is left as found.
        batch_size: sequences generated at once.
        progress: show a bar if standard error is a terminal.

    Returns:
        For each picture its captions, cut at `MAX_NEW_TOKENS`.

    Raises:
        ValueError: a temperature below 0.
    """
    from PIL import Image

    from prefopt.generation.distribution import own_distribution

    if temperature < 0:
        raise ValueError(f"temperature must be 0 (greedy) or positive; given {temperature}")
    tokenizer, text = processor.tokenizer, prompt_text(processor)
    copies = per_image if temperature > 0 else 1
    batches = images_BCHW.split(max(1, batch_size // copies))
    was_training = model.training
    captions: list[list[str]] = []
    model.eval()
    try:
        with (
            progress_bar("sampling captions", len(batches), progress) as advance,
            seeded(seed, model.device),
            torch.inference_mode(),
            own_distribution(
                model,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
                max_new_tokens=MAX_NEW_TOKENS,
                temperature=temperature,
            ) as own,
        ):
            own.num_return_sequences = copies
            for batch in batches:
                pictures = [Image.fromarray(png.as_levels(image_CHW)) for image_CHW in batch]
                inputs = processor(
                    images=pictures,
                    text=[text] * len(pictures),
                    return_tensors="pt",
                    add_special_tokens=False,
                ).to(model.device)
                tokens_BT = model.generate(**inputs, generation_config=own)
                new_BT = tokens_BT[:, inputs["input_ids"].shape[1] :]
                decoded = [one.strip() for one in tokenizer.batch_decode(new_BT, skip_special_tokens=True)]
                for i in range(len(pictures)):
                    group = decoded[i * copies : (i + 1) * copies]
                    captions.append(group if copies == per_image else group * per_image)
                advance("")
    finally:
        model.train(was_training)
    return captions
