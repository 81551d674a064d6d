"""Training steps of LongVPO on 16 clips whose slots are drawn anew: with features of clips from disk against the tower in every step.

    python benchmarks/video_speed.py                       # both shapes of model, three alternations
    python benchmarks/video_speed.py --model smolvlm --rounds 1

Each measurement is a process of its own that trains `STEPS` steps through the public entry, in float32 on a CPU; the first step is
not counted. Tower and projector are frozen in all ways, the reference is cached. Clips are H.264 files. `--kept 0` says how many bytes
of prepared frames may stay in memory: the default is what a step of a large data set finds, none of its clips.

The models have random weights and the classes and proportions of SmolVLM2-256M (a tower that reads 16 patches a token and takes 3 to 4 times the
arithmetic of the language model's step) and of Qwen2.5-VL-3B (4 patches a token, 0.3 times).
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from alternating import alternated, machine, measure, peak, steps_timed
from vision_speed import words_of

STEPS = 4
CLIPS, FRAMES = 16, 2
TEXT, ANSWER = 30, 20
MODELS = ("smolvlm", "qwen")
WAYS = ("tower", "cached")


def make(name: str, folder: Path) -> None:
    """Save model, processor, clips and rows."""
    import torch
    import transformers as t

    torch.manual_seed(0)
    text = {
        "max_position_embeddings": 8192,
        "bos_token_id": 3,
        "eos_token_id": 2,
        "pad_token_id": 1,
        "vocab_size": 4200,
    }
    model: Any
    if name == "smolvlm":
        special = ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", "<video>"]
        words = words_of(special, "<image>")
        vision = {
            "model_type": "smolvlm_vision", "hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 6,
            "num_attention_heads": 3, "image_size": 256, "patch_size": 16,
        }  # fmt: skip
        small = {
            "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 5, "num_attention_heads": 4,
            "num_key_value_heads": 2,
        }  # fmt: skip
        config: Any = t.SmolVLMConfig(
            vision_config=vision, text_config={"model_type": "llama", **text, **small}, scale_factor=4,
            image_token_id=words.convert_tokens_to_ids("<image>"),
        )  # fmt: skip
        model = t.SmolVLMForConditionalGeneration(config)
        images = t.SmolVLMImageProcessorPil(size={"longest_edge": 256}, max_image_size={"longest_edge": 256})
        kind = {"processor_class": "SmolVLMProcessor", "image_seq_len": 16}
        videos = {
            "video_processor_type": "SmolVLMVideoProcessor", "size": {"longest_edge": 256},
            "max_image_size": {"longest_edge": 256},
        }  # fmt: skip
    else:
        special = ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"]
        words = words_of(special, "<|vision_start|><|image_pad|><|vision_end|>")
        names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
        vision = {
            "depth": 6, "hidden_size": 192, "intermediate_size": 512, "num_heads": 3, "patch_size": 14, "spatial_merge_size": 2,
            "temporal_patch_size": 2, "out_hidden_size": 384, "window_size": 112, "fullatt_block_indexes": [5],
        }  # fmt: skip
        rope = {"rope_type": "default", "mrope_section": [8, 12, 12], "rope_theta": 1e6}
        small = {
            "hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6, "num_attention_heads": 6,
            "num_key_value_heads": 2,
        }  # fmt: skip
        config = t.Qwen2_5_VLConfig(
            vision_config=vision, text_config={**text, **small, "rope_parameters": rope},
            **dict(zip(names, map(words.convert_tokens_to_ids, special), strict=True)),
        )  # fmt: skip
        model = t.Qwen2_5_VLForConditionalGeneration(config)
        images = t.Qwen2VLImageProcessorPil(patch_size=14, min_pixels=56 * 56, max_pixels=224 * 224)
        kind = {"processor_class": "Qwen2_5_VLProcessor"}
        videos = {
            "video_processor_type": "Qwen2VLVideoProcessor", "patch_size": 14, "merge_size": 2, "temporal_patch_size": 2,
            "size": {"shortest_edge": 56 * 56, "longest_edge": 224 * 224},
        }  # fmt: skip
    target = folder / "model"
    model.save_pretrained(target)
    words.save_pretrained(target)
    images.save_pretrained(target)
    (target / "processor_config.json").write_text(json.dumps(kind))
    (target / "video_preprocessor_config.json").write_text(json.dumps(videos))
    rng = random.Random(0)
    files = [film(folder / f"{n}.mp4", n) for n in range(CLIPS + 4)]

    def said(count: int, role: str) -> list[dict[str, str]]:
        return [{"role": role, "content": " ".join(f"w{rng.randrange(4000)}" for _ in range(count))}]

    rows = []
    for n in range(STEPS):
        clips = [{"source": files[k].name} for k in rng.sample(range(len(files)), len(files))]
        rows.append(
            {
                "video": clips[:CLIPS], "pool": clips[CLIPS:], "anchor": n, "pinned": n + 1, "reference_context": "anchor",
                "prompt": said(TEXT, "user"), "chosen": said(ANSWER, "assistant"), "rejected": said(ANSWER, "assistant"),
            }
        )  # fmt: skip
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def film(path: Path, seed: int) -> Path:
    """Two seconds of moving noise, 320 x 240."""
    import av
    import numpy as np

    drawn = np.random.default_rng(seed)
    pixels_HW3 = drawn.integers(0, 256, (240, 320, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for k in range(20):
            frame = av.VideoFrame.from_ndarray(np.roll(pixels_HW3, 4 * k, 1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def measured(way: str, folder: Path, kept: int) -> dict[str, float]:
    """Median seconds of a step, and the peak of memory."""
    import prefopt
    from prefopt.modalities.vision_language.kept import Kept

    begin = Kept.__init__
    Kept.__init__ = lambda self, most=kept: begin(self, most)  # type: ignore[method-assign]
    seconds = steps_timed()
    prefopt.train(
        "longvpo",
        model=str(folder / "model"),
        data=str(folder / "rows.jsonl"),
        output_dir=str(folder / "run"),
        overwrite=True,
        eval_size=0,
        sample_prompts=0,
        save_strategy="no",
        num_train_epochs=1,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=1,
        video_frames=FRAMES,
        freeze=["vision_tower", "projector"],
        cache_vision_features=way == "cached",
        bf16=False,
    )
    return {"seconds": statistics.median(seconds[1:]), "peak_gb": peak()}


def main() -> None:
    """Measure, or take one measurement."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=MODELS, action="append")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--kept", type=int, default=0)
    parser.add_argument("--way")
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    if given.way:
        sys.stdout.flush()
        print(json.dumps(measured(given.way, given.folder, given.kept)))
        return
    print(f"{machine()}, transformers {metadata.version('transformers')}, av {metadata.version('av')}")
    print(f"{CLIPS} clips of {FRAMES} frames a step; ratios are median [range] over rounds")
    print("| model | features | s a step | speed | peak GB |\n|---|---|---|---|---|")
    for name in given.model or MODELS:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            make(name, folder)
            runs = alternated(
                WAYS,
                given.rounds,
                lambda way, at=folder: measure(__file__, way, at, given.threads, ["--kept", str(given.kept)]),  # type: ignore[misc]
            )
        for way, rounds in runs.items():
            ratios = sorted(a["seconds"] / b["seconds"] for a, b in zip(runs["tower"], rounds, strict=True))
            told = f"{statistics.median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]"
            seconds, memory = (statistics.median(r[key] for r in rounds) for key in ("seconds", "peak_gb"))
            print(f"| {name} | {way} | {seconds:.2f} | {told} | {memory:.2f} |", flush=True)


if __name__ == "__main__":
    main()
