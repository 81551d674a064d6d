"""Whole training steps of DPO on images and text: prefopt against TRL, in turn, each through its public entry, in float32 on a CPU.

    python benchmarks/vision_speed.py                        # both shapes of model, three alternations
    python benchmarks/vision_speed.py --model llava --rounds 1
    python benchmarks/vision_speed.py --ways prefopt-dpo prefopt-symmpo     # SymMPO's five branches beside two

Needs the `trl` extra. The models have the classes of LLaVA-1.5 and Qwen2.5-VL, a text model of 19 million parameters and a small
tower, random weights, 576 image tokens, 60 of text and 100 of answer. Each measurement is a process of its own that trains
`STEPS` steps; the first is not counted. Peak memory is the process's largest resident set. The tower is frozen on both sides,
the projector is trained. TRL refuses to precompute reference scores of vision data, so that prefopt's cache (its default) is
held against TRL's live reference, too.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from alternating import alternated, machine, measure, peak, steps_timed

STEPS = 4
BATCH = 2
TEXT, ANSWER, SIDE = 60, 100, {"llava": 336, "qwen": 672}
WORDS = 4096
MODELS = ("llava", "qwen")
WAYS = ("trl", "prefopt-live", "prefopt-dpo", "prefopt-symmpo")
LEARNING_RATE = 1e-5


def words_of(special: list[str], place: str) -> Any:
    """A tokenizer of which every token is a word, so that lengths are exact."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = ["<unk>", "<pad>", "</s>", "<s>", *(f"w{n}" for n in range(WORDS))]
    backend = Tokenizer(models.WordLevel({word: n for n, word in enumerate(known)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", pad_token="<pad>", eos_token="</s>", bos_token="<s>"
    )
    words.add_tokens(special, special_tokens=True)
    words.chat_template = (
        "{% for m in messages %}w1 {% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
        "{% if c['type'] == 'image' %}"
        + place
        + " {% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}"
        "{{ eos_token if m['role'] == 'assistant' else ' ' }}{% endfor %}{% if add_generation_prompt %}w1 {% endif %}"
    )
    return words


def make(name: str, folder: Path) -> None:
    """Save model, processor and rows."""
    import numpy as np
    import torch
    import transformers as t
    from PIL import Image

    text = {
        "hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6, "num_attention_heads": 6, "num_key_value_heads": 2,
        "vocab_size": 16384, "max_position_embeddings": 4096, "bos_token_id": 3, "eos_token_id": 2, "pad_token_id": 1,
    }  # fmt: skip
    torch.manual_seed(0)
    model: Any
    if name == "llava":
        words = words_of(["<image>"], "<image>")
        vision = {
            "model_type": "clip_vision_model", "hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 6,
            "num_attention_heads": 3, "image_size": 336, "patch_size": 14,
        }  # fmt: skip
        config: Any = t.LlavaConfig(
            vision_config=vision, text_config={"model_type": "llama", **text}, vision_feature_layer=-2,
            image_token_index=words.convert_tokens_to_ids("<image>"),
        )  # fmt: skip
        model = t.LlavaForConditionalGeneration(config)
        images = t.CLIPImageProcessorPil(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})
        kind = {"processor_class": "LlavaProcessor", "patch_size": 14, "num_additional_image_tokens": 1}
        kind["vision_feature_select_strategy"] = "default"
    else:
        special = ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"]
        words = words_of(special, "<|vision_start|><|image_pad|><|vision_end|>")
        names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
        vision = {
            "depth": 6, "hidden_size": 192, "intermediate_size": 768, "num_heads": 3, "patch_size": 14, "spatial_merge_size": 2,
            "temporal_patch_size": 2, "out_hidden_size": 384, "window_size": 112, "fullatt_block_indexes": [5],
        }  # fmt: skip
        rope = {"rope_type": "default", "mrope_section": [8, 12, 12], "rope_theta": 1e6}
        config = t.Qwen2_5_VLConfig(
            vision_config=vision, text_config={**text, "rope_parameters": rope},
            **dict(zip(names, map(words.convert_tokens_to_ids, special), strict=True)),
        )  # fmt: skip
        model = t.Qwen2_5_VLForConditionalGeneration(config)
        images = t.Qwen2VLImageProcessorPil(patch_size=14, min_pixels=56 * 56, max_pixels=672 * 672)
        kind = {"processor_class": "Qwen2_5_VLProcessor"}
    target = folder / "model"
    model.save_pretrained(target)
    words.save_pretrained(target)
    images.save_pretrained(target)
    (target / "processor_config.json").write_text(json.dumps(kind))
    rng, side = random.Random(0), SIDE[name]

    def said(count: int, role: str) -> list[dict[str, str]]:
        return [{"role": role, "content": " ".join(f"w{rng.randrange(WORDS)}" for _ in range(count))}]

    rows = []
    for n in range(STEPS * BATCH):
        for k in ("own", "other"):
            pixels = np.random.default_rng(2 * n + (k == "own")).integers(
                0, 256, (side, side, 3), dtype=np.uint8
            )
            Image.fromarray(pixels).save(folder / f"{n}-{k}.png")
        rows.append(
            {
                "images": [f"{n}-own.png"],
                "contrast_image": f"{n}-other.png",
                "prompt": said(TEXT - 3, "user"),
                **{side: said(ANSWER - 1, "assistant") for side in ("chosen", "rejected", "contrast_chosen")},
            }
        )
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def by_prefopt(folder: Path, method: str, **options: Any) -> list[float]:
    """Seconds of each step."""
    import prefopt

    seconds = steps_timed()
    prefopt.train(
        method,
        model=str(folder / "model"),
        data=str(folder / "rows.jsonl"),
        output_dir=str(folder / "run"),
        overwrite=True,
        eval_size=0,
        sample_prompts=0,
        save_strategy="no",
        num_train_epochs=1,
        max_length=None,
        per_device_train_batch_size=BATCH,
        learning_rate=LEARNING_RATE,
        warmup_steps=0,
        bf16=False,
        **options,
    )
    return seconds


def by_trl(folder: Path) -> list[float]:
    """Seconds of each step."""
    from datasets import Dataset
    from PIL import Image
    from transformers import AutoModelForImageTextToText, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    from prefopt.modalities.vision_language.processor import load_processor

    model = AutoModelForImageTextToText.from_pretrained(folder / "model")
    for name, parameter in model.named_parameters():
        if ("vision_tower" in name or "visual" in name) and "merger" not in name:
            parameter.requires_grad_(False)
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    data = Dataset.from_list(
        [
            {
                "images": [Image.open(folder / row["images"][0]).convert("RGB")],
                **{name: row[name] for name in ("prompt", "chosen", "rejected")},
            }
            for row in rows
        ]
    )
    seconds: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *args: Any, **options: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, *args: Any, **options: Any) -> None:
            seconds.append(time.perf_counter() - self.began)

    arguments = DPOConfig(
        output_dir=str(folder / "trl"), per_device_train_batch_size=BATCH, num_train_epochs=1, learning_rate=LEARNING_RATE,
        max_length=None, report_to="none", save_strategy="no", gradient_checkpointing=False, bf16=False, use_cpu=True,
        logging_steps=1,
    )  # fmt: skip
    trainer = DPOTrainer(
        model=model,
        args=arguments,
        processing_class=load_processor(str(folder / "model")),
        train_dataset=data,
        callbacks=[Clock()],
    )
    trainer.train()
    return seconds


def measured(way: str, folder: Path) -> dict[str, float]:
    """Median seconds of a step, and the peak of memory."""
    match way:
        case "trl":
            seconds = by_trl(folder)
        case "prefopt-live":
            seconds = by_prefopt(folder, "dpo", reference="live")
        case "prefopt-dpo":
            seconds = by_prefopt(folder, "dpo")
        case _:
            seconds = by_prefopt(folder, way.removeprefix("prefopt-"))
    return {"seconds": statistics.median(seconds[1:]), "peak_gb": peak()}


def table(name: str, runs: dict[str, list[dict[str, float]]]) -> list[str]:
    """Rows of the table, ratios against the first way, round by round."""
    first, *_ = runs
    lines = []
    for way, rounds in runs.items():
        ratios = sorted(a["seconds"] / b["seconds"] for a, b in zip(runs[first], rounds, strict=True))
        memory = statistics.median(
            b["peak_gb"] / a["peak_gb"] for a, b in zip(runs[first], rounds, strict=True)
        )
        seconds = statistics.median(r["seconds"] for r in rounds)
        lines.append(
            f"| {name} | {way} | {seconds:.2f} | {statistics.median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}] | "
            f"{statistics.median(r['peak_gb'] for r in rounds):.2f} | {memory:.2f} |"
        )
    return lines


def main() -> None:
    """Measure, or take one measurement."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=MODELS, action="append")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--way")
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    if given.way:
        sys.stdout.flush()
        print(json.dumps(measured(given.way, given.folder)))
        return
    print(f"{machine()}, trl {metadata.version('trl')}, transformers {metadata.version('transformers')}")
    print(
        f"{STEPS} steps of {BATCH} pairs; ratios are {given.ways[0]}'s seconds over a way's: median [range] over rounds"
    )
    print("| model | way | s a step | speed | peak GB | memory |\n|---|---|---|---|---|---|")
    for name in given.model or MODELS:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            make(name, folder)
            runs = alternated(
                given.ways,
                given.rounds,
                lambda way, at=folder: measure(__file__, way, at, given.threads, []),  # type: ignore[misc]
            )
        print("\n".join(table(name, runs)), flush=True)


if __name__ == "__main__":
    main()
