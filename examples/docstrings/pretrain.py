"""A small Llama trained from nothing on docstrings: the model that preference training starts from.

    python examples/docstrings/pretrain.py --corpus runs/docstrings/data/corpus.txt --output runs/docstrings/start

A byte-pair tokenizer, then next-token prediction on texts of a signature and its docstring; both are saved with
`save_pretrained`, so the folder is like any other checkpoint of transformers.

Legend of shape suffixes: B texts of a batch, T tokens.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

LEARNING_RATE = 2e-3
MAX_LENGTH = 128
"""Tokens; longer texts lose their end."""


def make_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level byte-pair encoding, learned from the texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def make_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """1.3 million random parameters."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=2 * MAX_LENGTH,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def batches(n: int, size: int, rng: random.Random) -> Iterator[list[int]]:
    """Indices of the texts of each step, without end: every text once before any comes again."""
    while True:
        order = rng.sample(range(n), n)
        for start in range(0, n - size + 1, size):
            yield order[start : start + size]


def main() -> None:
    parser = argparse.ArgumentParser(description="Pretrain a small Llama on docstrings.")
    parser.add_argument("--corpus", type=Path, required=True, help="corpus.txt of make_pairs.py")
    parser.add_argument("--output", type=Path, required=True, help="folder for model and tokenizer")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--batch", type=int, default=32, help="texts a step")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if not arguments.corpus.is_file():
        parser.error(f"there is no file {arguments.corpus}: make it with examples/docstrings/make_pairs.py")
    texts = arguments.corpus.read_text(encoding="utf-8").split("\n\n")
    if len(texts) < arguments.batch:
        parser.error(f"{arguments.corpus} has {len(texts)} texts, fewer than a batch of {arguments.batch}")
    torch.manual_seed(arguments.seed)
    tokenizer = make_tokenizer(texts)
    model = make_model(tokenizer)
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{parameters / 1e6:.1f} million parameters, {len(texts)} texts")
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=arguments.steps, pct_start=0.1
    )
    order = batches(len(texts), arguments.batch, random.Random(arguments.seed))
    started = time.perf_counter()
    for step, chosen in zip(range(1, arguments.steps + 1), order, strict=False):
        batch = tokenizer(
            [texts[i] + tokenizer.eos_token for i in chosen],
            padding=True,
            truncation=True,
            max_length=MAX_LENGTH,
            return_tensors="pt",
        )
        ids_BT, mask_BT = batch["input_ids"], batch["attention_mask"]
        loss = model(ids_BT, attention_mask=mask_BT, labels=ids_BT.masked_fill(mask_BT == 0, -100)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == arguments.steps:
            print(f"step {step}: loss {loss.item():.2f}, {time.perf_counter() - started:.0f} s", flush=True)
    model.save_pretrained(arguments.output)
    tokenizer.save_pretrained(arguments.output)


if __name__ == "__main__":
    main()
