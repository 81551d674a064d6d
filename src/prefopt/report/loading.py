"""How to load the trained model without prefopt: the same lines for the report and the model card."""

from __future__ import annotations

import json

from prefopt.report.load import Run


def is_adapter(run: Run) -> bool:
    """True where `model/` holds a peft adapter."""
    return (run.folder / "model" / "adapter_config.json").is_file() or bool(run.of("config", "use_peft"))


def has_model(run: Run) -> bool:
    """True where the run has left weights."""
    return any((run.folder / "model").glob("*.safetensors"))


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
    try:
        recorded = json.loads((run.folder / "model" / "adapter_config.json").read_text("utf-8"))[
            "base_model_name_or_path"
        ]
    except (OSError, ValueError, KeyError, TypeError):
        recorded = None
    return str(recorded or run.of("manifest", "model", "source") or run.of("config", "model") or "base-model")


def loading_code(run: Run) -> str:
    """Python that loads the model and generates, with plain transformers (and peft for an adapter)."""
    folder = json.dumps(f"{run.folder.resolve().name}/model")
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
