"""The text world's small language model: tokenizer, pretraining from nothing, batched sampling.

A real architecture (`transformers.LlamaForCausalLM`) with a real fast tokenizer and a chat template, so that what is
saved takes the same path as a user's checkpoint:

    <s><|user|>Sort: pear fig apple<|assistant|>apple fig pear</s>

Legend of shape suffixes: B conversations of a batch, T tokens.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prefopt.worlds.pretraining import adamw, descend, no_bars, progress_bar, seeded

BOS, EOS, PAD, UNK, USER, ASSISTANT = "<s>", "</s>", "<pad>", "<unk>", "<|user|>", "<|assistant|>"
VOCAB_SIZE = 320
"""At most; every word of the lexicon is one token well before."""

PRINTABLE = [chr(c) for c in range(33, 127)]

# Other roles raise instead of being dropped in silence. No newline survives between the blocks.
CHAT_TEMPLATE = (
    "{{- bos_token -}}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'user' -%}{{- '<|user|>' + message['content'] -}}"
    "{%- elif message['role'] == 'assistant' -%}"
    "{{- '<|assistant|>' -}}{%- generation -%}{{- message['content'] + eos_token -}}{%- endgeneration -%}"
    "{%- else -%}{{- raise_exception('roles are user and assistant; given ' + message['role']) -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


def train_tokenizer(texts: Iterator[str], vocab_size: int) -> Any:
    """A byte-pair tokenizer trained on `texts`, as a `PreTrainedTokenizerFast` with the chat template.

    Every word starts with the mark "▁", also the first one after a special token, so a word is the same token
    wherever it stands and prompt and completion can be tokenized apart.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(prepend_scheme="always"), pre_tokenizers.Punctuation()]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    special = [PAD, BOS, EOS, UNK, USER, ASSISTANT]
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size, special_tokens=special, initial_alphabet=PRINTABLE, show_progress=False
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNK,
        additional_special_tokens=[USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def to_a_tenth(angle: float) -> float:
    """A cosine from 1 to 0.1; in single precision, in which the cached models were made."""
    return 0.55 + 0.45 * torch.cos(torch.tensor(angle)).item()


def prompt_text(tokenizer: Any, prompt: str) -> str:
    """The prompt in chat form, up to where the assistant speaks."""
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    return str(text)


def pretrain(
    folder: Path,
    *,
    seed: int,
    draw: Callable[[random.Random, float], tuple[str, str]],
    hidden_size: int,
    num_hidden_layers: int,
    steps: int,
    batch_size: int,
    learning_rate: float,
    progress: bool = True,
) -> None:
    """Train tokenizer and model from nothing on demonstrations; save both to `folder` (safetensors).

    Plain next-token cross-entropy on the assistant's tokens, AdamW, linear warm-up over 5 % of the steps, then a
    cosine to a tenth. Depends on nothing but the arguments: the global random state is neither read nor changed.

    Args:
        folder: an existing folder.
        seed: of the weights and of the demonstrations.
        draw: gives one (prompt, answer) from the generator and the share of the training done that it is handed.
        hidden_size: width; 32 of it a head.
        num_hidden_layers: depth.
        steps: optimizer steps.
        batch_size: conversations a step.
        learning_rate: peak.
        progress: show a bar if standard error is a terminal.
    """
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    tokenizer_rng = random.Random(f"tokenizer {seed}")
    tokenizer = train_tokenizer((" ".join(draw(tokenizer_rng, 1.0)) for _ in range(3000)), VOCAB_SIZE)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=num_hidden_layers,
        num_attention_heads=hidden_size // 32,
        num_key_value_heads=hidden_size // 32,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        initializer_range=0.06,  # learns these copying tasks about twice as fast as 0.02 at this width
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with seeded(seed):
        model = LlamaForCausalLM(config).float()
    optimizer, schedule = adamw(model.parameters(), learning_rate, steps, 0.98, to_a_tenth)
    rng = random.Random(f"demonstrations {seed}")
    model.train()
    with progress_bar("pretraining the text world's model", steps, progress) as advance:
        for step in range(steps):
            tokens_BT, labels_BT = _batch(tokenizer, [draw(rng, step / steps) for _ in range(batch_size)])
            # No attention mask: padding is on the right, and a causal model's real tokens never look there.
            hidden_BTH = model.model(input_ids=tokens_BT, use_cache=False).last_hidden_state
            scored_BT = labels_BT[:, 1:] >= 0
            loss = torch.nn.functional.cross_entropy(
                model.lm_head(hidden_BTH[:, :-1][scored_BT]), labels_BT[:, 1:][scored_BT]
            )
            descend(loss, model.parameters(), optimizer, schedule)
            advance(f"loss {loss.item():.2f}")
    model.eval()
    with no_bars(logging):
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def load(folder: Path) -> tuple[Any, Any]:
    """Model (float32, evaluation mode) and tokenizer from a folder."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    with no_bars(logging):
        return AutoModelForCausalLM.from_pretrained(folder).float().eval(), AutoTokenizer.from_pretrained(
            folder
        )


def _batch(tokenizer: Any, demonstrations: Sequence[tuple[str, str]]) -> tuple[Tensor, Tensor]:
    """(B, T) tokens and (B, T) labels, -100 outside the assistant's tokens."""
    prompts = tokenizer([prompt_text(tokenizer, p) for p, _ in demonstrations])["input_ids"]
    answers = tokenizer([answer + EOS for _, answer in demonstrations])["input_ids"]
    length = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
    tokens, labels = [], []
    for p, a in zip(prompts, answers, strict=True):
        fill = length - len(p) - len(a)
        tokens.append(p + a + [tokenizer.pad_token_id] * fill)
        labels.append([-100] * len(p) + a + [-100] * fill)
    return torch.tensor(tokens), torch.tensor(labels)


def sample_completions(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    per_prompt: int = 1,
    *,
    temperature: float = 1.0,
    max_new_tokens: int,
    seed: int = 0,
    batch_size: int = 512,
    progress: bool = False,
) -> list[list[str]]:
    """Completions drawn from the model itself, whatever its generation configuration asks for.

    Args:
        model: a causal language model; its mode (train, eval) is left as found.
        tokenizer: with a chat template.
        prompts: user messages.
        per_prompt: completions a prompt.
        temperature: of the softmax; 0 takes the most likely token (then all completions of a prompt are equal).
        max_new_tokens: completions are cut there.
        seed: the same seed gives the same completions; the global random state is left as found.
        batch_size: sequences generated at once.
        progress: show a bar if standard error is a terminal.

    Returns:
        For each prompt its completions.
    """
    from prefopt.generation.distribution import own_distribution

    if temperature < 0:
        raise ValueError(f"temperature must be 0 (greedy) or positive; given {temperature}")
    prompts_a_batch = max(1, batch_size // per_prompt)
    was_training = model.training
    completions: list[list[str]] = []
    starts = range(0, len(prompts), prompts_a_batch)
    model.eval()
    try:
        with (
            progress_bar("sampling completions", len(starts), progress) as advance,
            seeded(seed, model.device),
            torch.inference_mode(),
            own_distribution(
                model,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
            ) as own,
        ):
            for start in starts:
                texts = [
                    prompt_text(tokenizer, prompt) for prompt in prompts[start : start + prompts_a_batch]
                ]
                inputs = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left")
                inputs = {k: inputs[k].to(model.device) for k in ("input_ids", "attention_mask")}
                copies = per_prompt if temperature > 0 else 1
                own.num_return_sequences = copies
                tokens_BT = model.generate(**inputs, generation_config=own)
                new_BT = tokens_BT[:, inputs["input_ids"].shape[1] :]
                decoded = tokenizer.batch_decode(new_BT, skip_special_tokens=True)
                decoded = [text.strip() for text in decoded]
                for i in range(len(texts)):
                    group = decoded[i * copies : (i + 1) * copies]
                    completions.append(group if copies == per_prompt else group * per_prompt)
                advance("")
    finally:
        model.train(was_training)
    return completions
