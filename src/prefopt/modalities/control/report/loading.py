"""How a trained ControlNet is loaded: plain diffusers."""

from __future__ import annotations

import json

from prefopt.modalities.image import LORA_FILE
from prefopt.modalities.image.report.loading import code as image_code
from prefopt.modalities.image.report.loading import is_lora
from prefopt.report.account import Loading
from prefopt.report.load import Run


def loading(run: Run) -> Loading:
    """Python that loads the pipeline and draws under a control image."""
    if is_lora(run):
        return Loading(
            "diffusers",
            code(run),
            "Adapters of the ControlNet: plain diffusers loads them, without prefopt.",
            "These are adapters of a ControlNet: plain diffusers loads them into the pipeline's. prefopt is not needed.",
            True,
        )
    return Loading(
        "diffusers",
        code(run),
        "A whole pipeline with its ControlNet: plain diffusers loads it, without prefopt.",
        "It is a whole pipeline with its ControlNet, which plain diffusers loads. prefopt is not needed.",
    )


def code(run: Run) -> str:
    """Python that loads the pipeline and uses it."""
    imports, beside = ["from PIL import Image"], {}
    net = run.of("config", "controlnet")
    if net and is_lora(run):  # the run started from a base pipeline and this
        imports.append("from diffusers import ControlNetModel")
        beside = {
            "kind": "AutoPipelineForText2Image",
            "beside": f", controlnet=ControlNetModel.from_pretrained({json.dumps(net)})",
        }
    return image_code(
        run,
        load_lora=f'pipe.controlnet.load_lora_adapter({{folder}}, weight_name="{LORA_FILE}", prefix=None)',
        imports=imports,
        given=', image=Image.open("control.png")',
        **beside,
    )
