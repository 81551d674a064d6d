"""How a trained language model is loaded: plain transformers and peft."""

from __future__ import annotations

from prefopt.report.account import Loading
from prefopt.report.load import Run
from prefopt.report.loading import base_code, folder_name, is_adapter


def loading(run: Run) -> Loading:
    """Python that loads the model and writes with it."""
    return by_transformers(run, code(run))


def by_transformers(run: Run, code: str) -> Loading:
    """How a model of transformers, or an adapter of peft, is loaded by this code."""
    adapter = is_adapter(run)
    if adapter:
        return Loading(
            "peft",
            code,
            "An adapter for the base model: it loads with transformers and peft, without prefopt.",
            "This is an adapter: it loads on top of its base model with transformers and peft. prefopt is not needed.",
            adapter,
        )
    return Loading(
        "transformers",
        code,
        "It loads in plain transformers, without prefopt.",
        "It loads in plain transformers. prefopt is not needed.",
    )


def auto_class(run: Run) -> str:
    """The transformers class to call: the auto class of causal models, else the class by its own name."""
    name = str(run.of("manifest", "model", "class") or "")
    if is_adapter(run):  # the manifest may name peft's wrapper
        name = name.removeprefix("Peft") if name.startswith("PeftModel") else name
    if not name.isidentifier() or name.endswith("ForCausalLM") or name.startswith("Model"):
        return "AutoModelForCausalLM"
    return name


def code(run: Run) -> str:
    """Python that loads the model and uses it."""
    folder = folder_name(run)
    name = auto_class(run)
    if is_adapter(run):
        base = base_code(run)
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
