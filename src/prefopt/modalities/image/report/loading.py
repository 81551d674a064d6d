"""How a trained pipeline is loaded: plain diffusers; a judge needs prefopt."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefopt.modalities.image import LORA_FILE
from prefopt.modalities.image.report.kinds import is_judge
from prefopt.report.account import Loading
from prefopt.report.format import finite
from prefopt.report.load import Run
from prefopt.report.loading import base_code, base_model, folder_name, is_adapter, read_json


def loading(run: Run) -> Loading:
    """Python that loads the pipeline and draws with it."""
    folder = folder_name(run)
    if is_judge(run):
        return Loading(
            "prefopt",
            f"from prefopt import LatentRewardModel\n\njudge = LatentRewardModel.from_pretrained({folder})",
            "It is a judge of images and draws none: give it to a run as judge=lrm:DIR.",
            "This is a judge: it scores images and draws none. `judge=lrm:DIR` gives it to a run.",
            is_lora(run),
        )
    if is_lora(run):
        return Loading(
            "diffusers",
            code(run),
            "A LoRA for the base pipeline: plain diffusers loads it, without prefopt.",
            "This is a LoRA: plain diffusers loads it on top of its base pipeline. prefopt is not needed.",
            True,
        )
    return Loading(
        "diffusers",
        code(run),
        "A whole pipeline: plain diffusers loads it, without prefopt.",
        "It is a whole pipeline, which plain diffusers loads. prefopt is not needed.",
    )


def is_lora(run: Run) -> bool:
    """True where `model/` holds a LoRA of diffusers."""
    if (run.model_dir / "model_index.json").is_file():
        return False
    return is_adapter(run) or is_adapter(run, LORA_FILE)


def code(
    run: Run,
    load_lora: str = "pipe.load_lora_weights({folder})",
    imports: Sequence[str] = (),
    given: str = "",
    kind: str = "DiffusionPipeline",
    beside: str = "",
) -> str:
    """Python that loads the pipeline and uses it.

    Args:
        run: the run.
        load_lora: the line that puts adapters from `{folder}` on.
        imports: further ones.
        given: to the pipeline, beside the prompt.
        kind: class that loads it.
        beside: further arguments of its `from_pretrained`, where adapters are put on the model that the run started from.
    """
    folder = folder_name(run)
    imports = ["import torch", f"from diffusers import {kind}", *imports]
    adapter, base = is_lora(run), base_model(run)
    source, index = folder, run.model_dir / "model_index.json"
    if adapter:
        source = base_code(run)
        index = Path(str(run.of("manifest", "model", "source") or base)) / "model_index.json"
    if adapter and base.startswith("world:"):
        imports.append("from prefopt.worlds import get_world  # the base model is a world's own")
        source = f"get_world({json.dumps(base.removeprefix('world:'))}).model_dir()"
    # diffusers takes a part that the folder lacks for an accident, unless told
    absent = [f", {name}=None" for name, value in read_json(index).items() if _is_left_out(name, value)]
    more = beside if adapter else ""
    load = [f"pipe = {kind}.from_pretrained({source}{more}{''.join(absent)})"]
    if adapter:
        load.append(load_lora.format(folder=folder))
    return "\n".join(
        [
            *imports,
            "",
            *load,
            'pipe.to("cuda" if torch.cuda.is_available() else "cpu")',
            "",
            f'image = pipe("Your prompt"{given}{_sampling(run)}).images[0]',
            'image.save("image.png")',
        ]
    )


def _is_left_out(name: str, value: Any) -> bool:
    part = name.startswith(("text_encoder", "tokenizer"))
    return part and name.isidentifier() and isinstance(value, list) and not any(value)


def _sampling(run: Run) -> str:
    """The run's own settings as arguments; those that it left to the model are left to it here."""
    side = finite(run.of("config", "resolution"))
    settings = {
        "num_inference_steps": finite(run.of("samples", "settings", "num_inference_steps")),
        "guidance_scale": finite(run.of("samples", "settings", "guidance_scale")),
        "height": side,
        "width": side,
    }
    return "".join(f", {name}={value:g}" for name, value in settings.items() if value is not None)
