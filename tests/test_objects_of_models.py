"""Models, adapters and pipelines that a program has in memory train as their folders do."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

import prefopt
from conftest import ROWS
from prefopt.config import ConfigError

KEYS: dict[str, Any] = {
    "max_steps": 2, "sample_prompts": 0, "learning_rate": 1e-3, "per_device_train_batch_size": 4, "data": ROWS,
    "save_strategy": "no",
}  # fmt: skip


def run(out: Path, **given: Any) -> prefopt.TrainResult:
    return prefopt.train("dpo", output_dir=str(out), **{**KEYS, **given})


def manifest(out: Path) -> dict[str, Any]:
    return json.loads((out / "record" / "manifest.json").read_text("utf-8"))


def weights(result: prefopt.TrainResult) -> bytes:
    (file,) = result.model_dir.glob("*.safetensors")
    return file.read_bytes()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("objects")
        patch.setenv("PREFOPT_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def of_folder(tiny_model: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return weights(run(tmp_path_factory.mktemp("folder") / "run", model=tiny_model))


def changed(tiny_model: Path) -> Any:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.mul_(1.5)
    return model


def test_a_model_that_is_as_its_folder_is_that_folder(tiny_model, of_folder, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    result = run(tmp_path / "run", model=model)
    assert weights(result) == of_folder
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["model"] == str(tiny_model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_model_that_was_changed_is_kept_in_the_cache(tiny_model, of_folder, cache, tmp_path, capsys):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    result = run(tmp_path / "run", model=changed(tiny_model), tokenizer=tokenizer)
    assert weights(result) != of_folder
    told = manifest(tmp_path / "run")["model"]
    source = Path(told["source"])
    (note,) = [c for c in manifest(tmp_path / "run")["checks"] if c["name"] == "model in memory"]
    assert f"it is kept in {source}, which a run is resumed with" in note["detail"]
    assert note["detail"] in capsys.readouterr().err
    assert source.parent == cache / "given"
    assert source.name.startswith("LlamaForCausalLM-")
    assert told["class"] == "LlamaForCausalLM"
    kept = AutoModelForCausalLM.from_pretrained(source)
    assert torch.equal(
        kept.model.layers[0].mlp.down_proj.weight, changed(tiny_model).model.layers[0].mlp.down_proj.weight
    )
    again = run(tmp_path / "again", model=changed(tiny_model))  # its name_or_path has the tokenizer
    assert weights(again) == weights(result)
    assert len(list((cache / "given").glob("LlamaForCausalLM-*"))) == 1
    assert manifest(tmp_path / "again")["model"]["fingerprint"] == told["fingerprint"]


def test_a_model_as_reference_and_new_adapters_by_a_configuration(tiny_model, cache, tmp_path):
    from peft import LoraConfig, PeftModel

    result = run(
        tmp_path / "run",
        model=AutoModelForCausalLM.from_pretrained(tiny_model),
        reference_model=changed(tiny_model),
        peft_config=LoraConfig(r=2, lora_alpha=6, target_modules=["q_proj", "down_proj"]),
    )
    saved = json.loads((result.model_dir / "adapter_config.json").read_text())
    assert (saved["r"], saved["lora_alpha"], sorted(saved["target_modules"])) == (
        2,
        6,
        ["down_proj", "q_proj"],
    )
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["use_peft"] is True
    assert Path(config["reference_model"]).parent == cache / "given"
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), result.model_dir)

    # an adapter in memory is trained further, and its base is found again
    more = run(tmp_path / "more", model=model, tokenizer=AutoTokenizer.from_pretrained(tiny_model))
    straight = run(tmp_path / "straight", model=result.model_dir)
    assert weights(more) == weights(straight)
    base = json.loads((more.model_dir / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert Path(base) == tiny_model.resolve()


def test_an_adapter_names_the_source_of_weights_that_were_linked(tiny_model, cache, tmp_path):
    from peft import LoraConfig

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    result = run(tmp_path / "run", model=model, tokenizer=tokenizer, peft_config=LoraConfig(r=2))
    saved = json.loads((result.model_dir / "adapter_config.json").read_text())
    assert saved["base_model_name_or_path"] == str(tiny_model.resolve())
    assert result.load_model()[1].chat_template == tokenizer.chat_template


def test_keys_of_a_file_count_for_objects_too(tiny_model, cache, tmp_path):
    (tmp_path / "adapters.yaml").write_text("use_peft: true\n")
    (tmp_path / "wide.yaml").write_text("use_peft: true\ntorch_dtype: float32\n")
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)
    for name, dtype in (("adapters", "bfloat16"), ("wide", "float32")):
        run(tmp_path / name, model=model, config=tmp_path / f"{name}.yaml", max_steps=1)
        assert manifest(tmp_path / name)["model"]["dtype"] == dtype


def test_a_pipeline_in_memory(sd, cache, tmp_path):
    from diffusers import DiffusionPipeline
    from PIL import Image

    colours = [Image.new("RGB", (16, 16), name) for name in ("red", "blue", "green", "gold")]
    rows = [
        {"prompt": f"a {n}", "chosen_image": one, "rejected_image": other}
        for n, (one, other) in enumerate(itertools.pairwise(colours))
    ]
    given: dict[str, Any] = {
        "data": rows, "eval_size": 0, "sample_prompts": 0, "max_steps": 2, "per_device_train_batch_size": 2,
        "learning_rate": 1e-4, "resolution": 16, "save_strategy": "no",
    }  # fmt: skip
    pipe = DiffusionPipeline.from_pretrained(sd, safety_checker=None)
    one = prefopt.train("diffusion_dpo", model=pipe, output_dir=str(tmp_path / "a"), **given)
    other = prefopt.train("diffusion_dpo", model=sd, output_dir=str(tmp_path / "b"), **given)
    assert manifest(tmp_path / "a")["model"]["source"] == str(sd)
    name = "diffusion_pytorch_model.safetensors"
    files = [next(result.model_dir.rglob(name)) for result in (one, other)]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"model": 3}, "model is a int; needed a folder, a hub id, a PreTrainedModel"),
        ({"tokenizer": "t"}, "no model in memory to which it could belong"),
        ({"peft_config": "lora"}, "peft_config"),
        ({"data": {"prompt": ["a"]}}, r"data is a dict.*Dataset.from_dict"),
        ({"eval_data": {"easy": 3}}, "eval_data.easy is a int"),
        ({"eval_data": {"a/b": ROWS}}, "names a set in the names of metrics"),
    ],
)
def test_what_cannot_be_used_says_what_is_needed(given, words, tiny_model, cache, tmp_path):
    with pytest.raises(ConfigError, match=words):
        run(tmp_path / "run", **{"model": tiny_model, **given})
    assert not (tmp_path / "run").exists()


def test_a_model_without_a_tokenizer_is_refused(tiny_model, cache, tmp_path):
    model = changed(tiny_model)
    model.name_or_path = model.config._name_or_path = ""
    with pytest.raises(
        ConfigError, match=r"model: the LlamaForCausalLM comes without a tokenizer: give tokenizer"
    ):
        run(tmp_path / "run", model=model)
