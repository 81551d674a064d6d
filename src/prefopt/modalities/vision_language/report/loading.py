"""How a trained vision-language model is loaded: plain transformers and peft."""

from __future__ import annotations

from prefopt.modalities.text.report.loading import by_transformers
from prefopt.report.account import Loading
from prefopt.report.load import Run
from prefopt.report.loading import base_code, folder_name, is_adapter

CLASS = "AutoModelForImageTextToText"


def loading(run: Run) -> Loading:
    """Python that loads the model and asks it about an image."""
    return by_transformers(run, code(run))


def code(run: Run) -> str:
    """Python that loads the model and uses it."""
    folder = folder_name(run)
    if is_adapter(run):
        load = [
            "from peft import PeftModel",
            "from PIL import Image",
            f"from transformers import {CLASS}, AutoProcessor",
            "",
            f"folder = {folder}",
            "processor = AutoProcessor.from_pretrained(folder)",
            f"base = {CLASS}.from_pretrained({base_code(run)})",
            "model = PeftModel.from_pretrained(base, folder)",
        ]
    else:
        load = [
            "from PIL import Image",
            f"from transformers import {CLASS}, AutoProcessor",
            "",
            f"folder = {folder}",
            "processor = AutoProcessor.from_pretrained(folder)",
            f"model = {CLASS}.from_pretrained(folder)",
        ]
    return "\n".join(
        [
            *load,
            "",
            'content = [{"type": "image"}, {"type": "text", "text": "What is in this picture?"}]',
            'text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)',
            'inputs = processor(images=[Image.open("picture.png")], text=[text], return_tensors="pt")',
            "output = model.generate(**inputs, max_new_tokens=64)",
            "print(processor.decode(output[0], skip_special_tokens=True))",
        ]
    )
