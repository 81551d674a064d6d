"""The rows of the modality battery: what each modality is tried on. A new modality is a row here.

`vectors` is the modality of docs/add_a_modality.md, installed from that page.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import tiny_motions
import tiny_pipelines
import tiny_vision
from conftest import ROWS, save_tiny_model
from modalities.image.image_runs import picture, png

PAGE = Path(__file__).parents[2] / "docs" / "add_a_modality.md"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One modality.

    Attributes:
        name: of the modality.
        model: fills a folder with a tiny random model, as its own library saves it.
        data: fills a folder with rows, and returns what to give as `data`; pairs whose winner differs from the loser.
        again: loads what a run has left in `model/` with the library that the model is from, adapters merged into the
            start, and saves a whole model into a folder that is not there.
        options: learning rate and the like, with which 20 steps of dpo move the model.
        adapters: whether it takes LoRA adapters.
        foreign: keys that mean nothing to it, by value, with words of the reason.
        misspelt: a key and the one that was meant.
        form: what `prefopt check` calls its samples.
    """

    name: str
    model: Callable[[Path], Path]
    data: Callable[[Path], Path]
    again: Callable[[Path, Path, Path], None]
    options: Mapping[str, Any] = field(default_factory=dict)
    adapters: bool = True
    foreign: Mapping[str, tuple[Any, str]]
    misspelt: tuple[str, str]
    form: str


# -- text ----------------------------------------------------------------------------------------------------


def text_rows(folder: Path) -> Path:
    """Pairs under several prompts."""
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), "utf-8")
    return path


def by_transformers(run: Path, start: Path, folder: Path, model_class: str, words_class: str) -> None:
    """Plain transformers and peft: the Auto classes named load the run (with its adapter, merged) and save it again."""
    import transformers

    auto = getattr(transformers, model_class)
    if (run / "adapter_config.json").exists():
        from peft import PeftModel

        model = PeftModel.from_pretrained(auto.from_pretrained(start), run).merge_and_unload()
    else:
        model = auto.from_pretrained(run)
    model.save_pretrained(folder)
    getattr(transformers, words_class).from_pretrained(run).save_pretrained(folder)


def text_again(run: Path, start: Path, folder: Path) -> None:
    """Plain transformers and peft."""
    by_transformers(run, start, folder, "AutoModelForCausalLM", "AutoTokenizer")


# -- images --------------------------------------------------------------------------------------------------


def picture_rows(folder: Path, columns: Sequence[str]) -> Path:
    """Rows of pictures of noise, each with a prompt of its own."""
    rows = []
    for n in range(6):
        row = {"prompt": f"picture {n}"}
        for k, column in enumerate(columns):
            row[column] = f"{n}-{column}.png"
            (folder / row[column]).write_bytes(png(picture(len(columns) * n + k)))
        rows.append(row)
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def image_rows(folder: Path) -> Path:
    """Pairs of images."""
    return picture_rows(folder, ("chosen_image", "rejected_image"))


def image_again(run: Path, start: Path, folder: Path) -> None:
    """Plain diffusers."""
    from diffusers import DiffusionPipeline

    adapters = (run / "pytorch_lora_weights.safetensors").exists()
    pipe = DiffusionPipeline.from_pretrained(start if adapters else run, safety_checker=None)
    if adapters:
        pipe.load_lora_weights(run)
        pipe.fuse_lora()
        pipe.unload_lora_weights()
    pipe.save_pretrained(folder)


# -- control images ------------------------------------------------------------------------------------------


def control_rows(folder: Path) -> Path:
    """One image, explained by two others."""
    return picture_rows(folder, ("image", "chosen_condition", "rejected_condition"))


def control_again(run: Path, start: Path, folder: Path) -> None:
    """Plain diffusers."""
    from diffusers import DiffusionPipeline

    adapters = (run / "pytorch_lora_weights.safetensors").exists()
    pipe = DiffusionPipeline.from_pretrained(start if adapters else run, safety_checker=None)
    if adapters:
        pipe.controlnet.load_lora_adapter(run, weight_name="pytorch_lora_weights.safetensors", prefix=None)
        pipe.controlnet.fuse_lora()
        pipe.controlnet.unload_lora()
    pipe.save_pretrained(folder)


# -- motions -------------------------------------------------------------------------------------------------


def motion_rows(folder: Path) -> Path:
    """Pairs of motions of a stick figure."""
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in tiny_motions.stick_rows(6)), "utf-8")
    return path


def motion_again(run: Path, start: Path, folder: Path) -> None:
    """The pipeline's own class, and peft."""
    from prefopt.motion.lora import LORA_FILE, load_lora
    from prefopt.motion.pipeline import MotionPipeline

    adapters = (run / LORA_FILE).exists()
    pipe = MotionPipeline.from_pretrained(start if adapters else run)
    if adapters:
        load_lora(pipe, run)
        pipe.denoiser.fuse_lora()
        pipe.denoiser.unload_lora()
    pipe.save_pretrained(folder)


# -- images and text ------------------------------------------------------------------------------------------


def llava_model(folder: Path) -> Path:
    """LLaVA's class."""
    return tiny_vision.save_tiny("llava", folder)


def vision_rows(folder: Path) -> Path:
    """TRL's: a list of images, and conversations."""
    rows = []
    for n in range(6):
        name = f"{n}.png"
        (folder / name).write_bytes(png(picture(n)))
        answers = [[{"role": "assistant", "content": text}] for text in ("a red cat", "no blue dog")]
        prompt = [{"role": "user", "content": f"what is in picture {tiny_vision.WORDS[n]} ?"}]
        rows.append({"images": [name], "prompt": prompt, "chosen": answers[0], "rejected": answers[1]})
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def vision_again(run: Path, start: Path, folder: Path) -> None:
    """Plain transformers and peft."""
    by_transformers(run, start, folder, "AutoModelForImageTextToText", "AutoProcessor")


# -- the page ------------------------------------------------------------------------------------------------


def install_vectors(folder: Path) -> Path:
    """Write the page's package and its entry point into a folder for the Python path."""
    page = PAGE.read_text("utf-8")
    for name, code in re.findall(r"<!-- file: (\S+) -->\n```python\n(.*?)```", page, re.S):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(code, "utf-8")
    (point,) = re.findall(r"<!-- entry points -->\n```toml\n(.*?)```", page, re.S)
    group, target = re.fullmatch(r'\[project\.entry-points\."(.*)"\]\nvectors = "(.*)"\n', point).groups()  # type: ignore[union-attr]
    info = folder / "gaussian_vectors-1.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_text(f"[{group}]\nvectors = {target}\n", "utf-8")
    return folder


def vector_model(folder: Path) -> Path:
    """A matrix of zeros."""
    folder.mkdir()
    save_file({"weight": torch.zeros(2, 3)}, folder / "gaussian.safetensors")
    return folder


def vector_rows(folder: Path) -> Path:
    """Winners follow the condition, losers go the other way."""
    rng = random.Random(0)
    rows = []
    for _ in range(6):
        condition = [rng.gauss(0, 1) for _ in range(3)]
        better = [condition[0] + rng.gauss(0, 0.1), condition[1] + rng.gauss(0, 0.1)]
        rows.append(
            {"prompt_vector": condition, "chosen_vector": better, "rejected_vector": [-x for x in better]}
        )
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def vector_again(run: Path, start: Path, folder: Path) -> None:
    """A copy: its library is safetensors."""
    from safetensors.torch import load_file

    folder.mkdir()
    save_file(load_file(run / "gaussian.safetensors"), folder / "gaussian.safetensors")


BATTERY = [
    Row(
        name="text",
        model=save_tiny_model,
        data=text_rows,
        again=text_again,
        options={"learning_rate": 1e-3, "beta": 0.1, "sample_max_new_tokens": 4},
        foreign={
            "guidance_scale": (2.0, "for diffusion models"),
            "crop": ("none", "for image models"),
            "candidates": (3, "for diffusion models"),
            "rounds": (2, "for methods of several runs"),
        },
        misspelt=("max_lenght", "max_length"),
        form="text",
    ),
    Row(
        name="image",
        model=tiny_pipelines.tiny_sd,
        data=image_rows,
        again=image_again,
        options={"learning_rate": 5e-6, "beta": 500, "num_inference_steps": 2, "noise_epochs": 1},
        foreign={
            "max_length": (64, "for text models"),
            "load_in_4bit": (True, "for text models"),
            "candidates": (3, "for methods that sample while training"),
        },
        misspelt=("guidance_scal", "guidance_scale"),
        form="images",
    ),
    Row(
        name="control",
        model=tiny_pipelines.tiny_control,
        data=control_rows,
        again=control_again,
        options={"learning_rate": 2e-4, "beta": 5000, "num_inference_steps": 2, "noise_epochs": 1},
        foreign={
            "max_length": (64, "for text models"),
            "candidates": (3, "for methods that sample while training"),
        },
        misspelt=("guidance_scal", "guidance_scale"),
        form="control images",
    ),
    Row(
        name="motion",
        model=tiny_motions.tiny_mdm,
        data=motion_rows,
        again=motion_again,
        options={"learning_rate": 1e-3, "beta": 5.0, "num_inference_steps": 2, "noise_epochs": 1},
        foreign={
            "max_length": (64, "for text models"),
            "resolution": (64, "for image models"),
            "candidates": (3, "for methods that sample while training"),
            "tau_quantile": (0.3, "for semi-online pairs"),
        },
        misspelt=("guidance_scal", "guidance_scale"),
        form="motions",
    ),
    Row(
        name="vision_language",
        model=llava_model,
        data=vision_rows,
        again=vision_again,
        options={"learning_rate": 1e-3, "beta": 0.1, "sample_max_new_tokens": 4},
        foreign={
            "guidance_scale": (2.0, "for diffusion models"),
            "crop": ("none", "for image models"),
            "contrast_image": ("crop", "for objectives that contrast images"),
        },
        misspelt=("max_lenght", "max_length"),
        form="text under images",
    ),
    Row(
        name="vectors",
        model=vector_model,
        data=vector_rows,
        again=vector_again,
        options={"learning_rate": 0.05, "beta": 0.5},
        adapters=False,
        foreign={
            "max_length": (64, "for text models"),
            "guidance_scale": (2.0, "for diffusion models"),
            "use_peft": (True, "for models that take adapters"),
        },
        misspelt=("learning_rat", "learning_rate"),
        form="vectors",
    ),
]
