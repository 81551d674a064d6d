"""How a trained ControlNet is loaded: plain diffusers."""

from __future__ import annotations

import json

from prefopt.modalities.image.report.loading import is_lora
from prefopt.report.account import Loading
from prefopt.report.load import Run
from prefopt.report.loading import base_model, folder_name


def loading(run: Run) -> Loading:
    """Python that loads the pipeline and draws under a control image."""
    adapter = is_lora(run)
    if adapter:
        return Loading(
            "diffusers",
            code(run, adapter),
            "Adapters of the ControlNet: plain diffusers loads them, without prefopt.",
            "These are adapters of a ControlNet: plain diffusers loads them into the pipeline's. prefopt is not needed.",
            adapter,
        )
    return Loading(
        "diffusers",
        code(run, adapter),
        "A whole pipeline with its ControlNet: plain diffusers loads it, without prefopt.",
        "It is a whole pipeline with its ControlNet, which plain diffusers loads. prefopt is not needed.",
    )


def code(run: Run, adapter: bool) -> str:
    """Python that loads the pipeline and uses it."""
    folder = folder_name(run)
    load = [f"pipe = DiffusionPipeline.from_pretrained({folder})"]
    if adapter:
        load = [
            f"pipe = DiffusionPipeline.from_pretrained({json.dumps(base_model(run))})",
            f'pipe.controlnet.load_lora_adapter({folder}, weight_name="pytorch_lora_weights.safetensors", prefix=None)',
        ]
    return "\n".join(
        [
            "import torch",
            "from diffusers import DiffusionPipeline",
            "from PIL import Image",
            "",
            *load,
            'pipe.to("cuda" if torch.cuda.is_available() else "cpu")',
            "",
            'image = pipe("Your prompt", image=Image.open("control.png")).images[0]',
            'image.save("image.png")',
        ]
    )
