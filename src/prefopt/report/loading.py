"""How to load the trained model without prefopt: the same lines for the report and the model card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prefopt.report.format import finite
from prefopt.report.load import Run

LORA_FILE = "pytorch_lora_weights.safetensors"


def is_adapter(run: Run) -> bool:
    """True where `model/` holds an adapter, of peft or of diffusers."""
    model = run.folder / "model"
    if run.images and (model / "model_index.json").is_file():
        return False
    held = any((model / name).is_file() for name in ("adapter_config.json", LORA_FILE))
    return held or bool(run.of("config", "use_peft"))


def has_model(run: Run) -> bool:
    """True where the run has left weights."""
    return any((run.folder / "model").glob("**/*.safetensors" if run.images else "*.safetensors"))


def library(run: Run) -> str:
    """What loads the model."""
    if run.judge:
        return "prefopt"
    if run.images:
        return "diffusers"
    return "peft" if is_adapter(run) else "transformers"


def auto_class(run: Run) -> str:
    """The transformers class to call: the auto class of causal models, else the class by its own name."""
    name = str(run.of("manifest", "model", "class") or "")
    if is_adapter(run):  # the manifest may name peft's wrapper
        name = name.removeprefix("Peft") if name.startswith("PeftModel") else name
    if not name.isidentifier() or name.endswith("ForCausalLM") or name.startswith("Model"):
        return "AutoModelForCausalLM"
    return name


def base_model(run: Run) -> str:
    """What the adapter sits on, as peft recorded it; else what the run was started from."""
    recorded = _json(run.folder / "model" / "adapter_config.json").get("base_model_name_or_path")
    return str(recorded or run.of("manifest", "model", "source") or run.of("config", "model") or "base-model")


def loading_code(run: Run) -> str:
    """Python that loads the model and uses it: plain transformers, peft or diffusers; a judge needs prefopt."""
    folder = json.dumps(f"{run.folder.resolve().name}/model")
    if run.judge:
        return f"from prefopt.modalities.image.models.latent_reward import LatentRewardModel\n\njudge = LatentRewardModel.from_pretrained({folder})"
    return _image_code(run, folder) if run.images else _text_code(run, folder)


def _text_code(run: Run, folder: str) -> str:
    name = auto_class(run)
    if is_adapter(run):
        base = json.dumps(base_model(run))
        load = [
            "from peft import PeftModel",
            f"from transformers import AutoTokenizer, {name}",
            "",
            f"folder = {folder}",
            "tokenizer = AutoTokenizer.from_pretrained(folder)",
            f"base = {name}.from_pretrained({base})",
            "model = PeftModel.from_pretrained(base, folder)",
        ]
    else:
        load = [
            f"from transformers import AutoTokenizer, {name}",
            "",
            f"folder = {folder}",
            "tokenizer = AutoTokenizer.from_pretrained(folder)",
            f"model = {name}.from_pretrained(folder)",
        ]
    return "\n".join(
        [
            *load,
            "",
            'inputs = tokenizer("Your prompt", return_tensors="pt")',
            "output = model.generate(**inputs, max_new_tokens=64)",
            "print(tokenizer.decode(output[0], skip_special_tokens=True))",
        ]
    )


def _image_code(run: Run, folder: str) -> str:
    imports = ["import torch", "from diffusers import DiffusionPipeline"]
    adapter, base = is_adapter(run), base_model(run)
    source, index = folder, run.folder / "model" / "model_index.json"
    if adapter:
        source, index = json.dumps(base), Path(base) / "model_index.json"
    if adapter and base.startswith("world:"):
        imports.append("from prefopt.worlds import get_world  # the base model is a world's own")
        source = f"get_world({json.dumps(base.removeprefix('world:'))}).model_dir()"
    # diffusers takes a part that the folder lacks for an accident, unless told
    absent = [f", {name}=None" for name, value in _json(index).items() if _is_left_out(name, value)]
    load = [f"pipe = DiffusionPipeline.from_pretrained({source}{''.join(absent)})"]
    if adapter:
        load.append(f"pipe.load_lora_weights({folder})")
    return "\n".join(
        [
            *imports,
            "",
            *load,
            'pipe.to("cuda" if torch.cuda.is_available() else "cpu")',
            "",
            f'image = pipe("Your prompt"{_sampling(run)}).images[0]',
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


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
