"""How a trained text-to-motion model is loaded."""

from __future__ import annotations

import json

from prefopt.motion.lora import LORA_FILE
from prefopt.report.account import Loading
from prefopt.report.format import finite, items
from prefopt.report.load import Run
from prefopt.report.loading import base_code, base_model, folder_name, is_adapter

INDEX = "model_index.json"


def is_lora(run: Run) -> bool:
    """Whether `model/` holds adapters of a denoiser, or the run trains some."""
    if (run.model_dir / INDEX).is_file():
        return False
    return is_adapter(run, LORA_FILE)


def loading(run: Run) -> Loading:
    """Python that loads the pipeline, draws a motion and shows it."""
    if is_lora(run):
        return Loading(
            "prefopt",
            code(run),
            "Adapters of the denoiser, for the pipeline that the run started from.",
            "These are adapters of a denoiser; `load_lora` puts them on the pipeline that they were trained on.",
            True,
        )
    return Loading(
        "prefopt",
        code(run),
        "A whole pipeline, with its statistics and text encoder: prefopt.motion loads it by diffusers.",
        "It is a whole pipeline, with its statistics and text encoder; `prefopt.motion` loads it by diffusers.",
    )


def code(run: Run) -> str:
    """Python that loads the pipeline and uses it."""
    folder = folder_name(run)
    imports = ["from prefopt.motion.drawing import animate"]
    source = folder
    if is_lora(run):
        base = base_model(run)
        imports.append("from prefopt.motion.lora import load_lora")
        source = base_code(run)
        if base.startswith("world:"):
            source = f"get_world({json.dumps(base.removeprefix('world:'))}).model_dir()"
    imports.append("from prefopt.motion.pipeline import MotionPipeline")
    if source.startswith("get_world"):
        imports.append("from prefopt.worlds import get_world  # the base model is a world's own")
    load = [f"pipe = MotionPipeline.from_pretrained({source})"]
    if is_lora(run):
        load.append(f"load_lora(pipe, {folder})")
    return "\n".join(
        [
            *imports,
            "",
            *load,
            f"motions = pipe([{json.dumps(prompt(run), ensure_ascii=False)}], [{length(run)}]{_sampling(run)})",
            "positions = motions.positions()[0]  # (frames, joints, 3) in metres, y upwards",
            'animate(positions, motions.codec.skeleton, motions.fps, "motion.gif")',
        ]
    )


def prompt(run: Run) -> str:
    """A text that the model was sampled with; else one that many models know."""
    first = next((p for p in items(run.of("samples", "prompts")) if isinstance(p, dict)), {})
    return " ".join(str(first.get("prompt") or "a person walks forward").split())


def length(run: Run) -> int:
    """Frames of a motion that the model has drawn; else two seconds of HumanML3D's."""
    first = next((p for p in items(run.of("samples", "prompts")) if isinstance(p, dict)), {})
    drawn = next((g for g in items(first.get("generations")) if isinstance(g, dict)), {})
    return int(finite(drawn.get("length")) or 40)


def _sampling(run: Run) -> str:
    """The run's own settings as arguments."""
    names = ("num_inference_steps", "guidance_scale")
    values = {name: finite(run.of("samples", "settings", name)) for name in names}
    return "".join(f", {name}={value:g}" for name, value in values.items() if value is not None)
