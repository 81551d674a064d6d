"""A checkpoint that lacks weights, or holds others, does not train as if it were whole; nothing that it held is lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

import prefopt
from conftest import ROWS, save_tiny_model
from prefopt.models.loading import load_model
from processes import assert_plain_error, words
from processes import prefopt as command

WEIGHTS = "model.safetensors"
ADAPTER = "adapter_model.safetensors"


def edited(
    source: Path, folder: Path, change: Callable[[dict[str, torch.Tensor]], Any], file: str = WEIGHTS
) -> Path:
    """A copy of a folder with other tensors."""
    shutil.copytree(source, folder)
    tensors = load_file(folder / file)
    change(tensors)
    save_file(tensors, folder / file, metadata={"format": "pt"})
    return folder


def resaved(source: Path, folder: Path, kind: Any, **options: Any) -> Path:
    """As another class saves it, with its tokenizer."""
    shutil.copytree(source, folder)
    kind.from_pretrained(source, **options).save_pretrained(folder)
    return folder


def headless(source: Path, folder: Path) -> Path:
    return resaved(source, folder, AutoModel)


def reward_head(source: Path, folder: Path) -> Path:
    return resaved(source, folder, AutoModelForSequenceClassification, num_labels=1)


def a_layer_less(source: Path, folder: Path) -> Path:
    return edited(source, folder, lambda t: [t.pop(name) for name in list(t) if ".layers.1." in name])


def another_shape(source: Path, folder: Path) -> Path:
    name = "model.layers.0.mlp.up_proj.weight"
    return edited(source, folder, lambda t: t.update({name: torch.zeros(48, 32)}))


def value_head(source: Path, folder: Path) -> Path:
    return edited(source, folder, lambda t: t.update({"v_head.summary.weight": torch.zeros(1, 32)}))


BROKEN = {
    headless: r"lacks lm_head\.weight, which would start as random numbers\. It was saved as LlamaModel",
    reward_head: r"lacks lm_head\.weight.*holds score\.weight.*LlamaForSequenceClassification",
    a_layer_less: r"lacks model\.layers\.1\.\S+, .* and \d+ more",
    another_shape: r"up_proj\.weight is 48 x 32 in the file and 64 x 32 in the model",
    value_head: r"holds v_head\.summary\.weight, for which the model has no place and which would be lost",
}


@pytest.mark.parametrize("breaking", BROKEN, ids=lambda f: f.__name__)
@pytest.mark.parametrize("trainable", [True, False])
def test_weights_that_do_not_fit_are_named(breaking, trainable, tiny_model, tmp_path):
    folder = breaking(tiny_model, tmp_path / "broken")
    with pytest.raises(ValueError, match=BROKEN[breaking]) as caught:
        load_model(str(folder), trainable=trainable)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_a_reward_model_with_a_tied_head(tmp_path):
    """Its head is there, by way of the embedding; it is no language model all the same."""
    source = save_tiny_model(tmp_path / "gpt2", "gpt2")
    folder = reward_head(source, tmp_path / "reward")
    with pytest.raises(ValueError, match=r"holds score\.weight.*GPT2ForSequenceClassification"):
        load_model(str(folder))


@pytest.mark.parametrize("key", ["model", "reference_model"])
def test_a_run_stops_in_one_sentence(key, tiny_model, rows_file, own_cache, tmp_path):
    folder = headless(tiny_model, tmp_path / "headless")
    given = {"model": tiny_model, "data": rows_file(ROWS), "output_dir": tmp_path / "run", key: folder}
    done = command(tmp_path, "train", "dpo", "max_steps=1", *words(given))
    assert_plain_error(done, "lacks lm_head.weight")
    assert "LOAD REPORT" not in done.stderr
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen2", "mixtral", "bloom", "opt", "gpt_neox"])
def test_whole_checkpoints_load(architecture, tmp_path):
    """Tied heads, buffers and fused experts are no gaps."""
    folder = tmp_path / architecture
    if architecture in ("opt", "gpt_neox"):
        sizes: dict[str, Any] = {
            "vocab_size": 50,
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
        }
        if architecture == "opt":
            config: Any = transformers.OPTConfig(
                **sizes, ffn_dim=32, word_embed_proj_dim=32, max_position_embeddings=64
            )
        else:
            config = transformers.GPTNeoXConfig(**sizes, intermediate_size=32, max_position_embeddings=64)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    else:
        save_tiny_model(folder, architecture)
    loaded = load_model(str(folder))
    assert not loaded.left_out
    expected = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.model.state_dict().items())


def test_buffers_of_old_files_are_no_gaps(tmp_path):
    source = save_tiny_model(tmp_path / "gpt2", "gpt2")
    mask = {
        "transformer.h.0.attn.bias": torch.ones(1, 1, 128, 128),
        "h.1.attn.bias": torch.ones(1, 1, 128, 128),
    }
    folder = edited(source, tmp_path / "old", lambda t: t.update(mask))
    assert not load_model(str(folder)).left_out


# -- adapters ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def adapter(tiny_model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny_model), LoraConfig(r=2, task_type="CAUSAL_LM")
    )
    model.save_pretrained(folder)
    return folder


A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t.pop(A), r"lacks \S*layers\.0\.self_attn\.q_proj\.lora_A\S*weight"),
        (lambda t: t.update({A: torch.zeros(3, 32)}), r"q_proj\.lora_A\.\S+ is 3 x 32 in the file and 2 x 32"),
        (lambda t: t.update({A.replace("layers.0", "layers.7"): t[A].clone()}), r"holds \S*layers\.7\.self_attn\S+"),
        (lambda t: t.update({"base_model.model.score.weight": torch.zeros(1, 32)}), r"holds \S*score\.weight"),
    ],
    ids=["missing", "another shape", "another model's", "a reward head"],
)  # fmt: skip
@pytest.mark.parametrize("trainable", [True, False])
def test_adapters_that_do_not_fit(change, told, trainable, adapter, tmp_path):
    folder = edited(adapter, tmp_path / "broken", change, ADAPTER)
    with pytest.raises(ValueError, match=told):
        load_model(str(folder), trainable=trainable)


@pytest.mark.parametrize(
    "config",
    [
        {"use_dora": True},
        {"bias": "lora_only"},
        {"use_rslora": True, "target_modules": "all-linear"},
        {"layers_to_transform": [1]},
        {"modules_to_save": ["lm_head"]},
        {"trainable_token_indices": [1, 2]},
    ],
    ids=str,
)
def test_whole_adapters_load(config, tiny_model, tmp_path):
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny_model), LoraConfig(r=2, task_type="CAUSAL_LM", **config)
    )
    model.save_pretrained(tmp_path)
    load_model(str(tmp_path), trainable=False)


# -- what a causal language model has no part for ----------------------------------------------------------------


def composite(folder: Path, tiny_model: Path) -> Path:
    """A model that sees, with heads that predict several tokens: of both, a causal language model has nothing.

    Without what prepares images it is taken for a language model.
    """
    vocabulary = json.loads((tiny_model / "config.json").read_text())["vocab_size"]
    text = {
        "vocab_size": vocabulary, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "linear_num_key_heads": 2,
        "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
        "layer_types": ["linear_attention", "full_attention"], "max_position_embeddings": 128,
        "attention_dropout": 0.25,
    }  # fmt: skip
    vision = {
        "depth": 1, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32, "patch_size": 4,
        "num_position_embeddings": 16,
    }  # fmt: skip
    config = transformers.Qwen3_5Config(text_config=text, vision_config=vision)
    transformers.Qwen3_5ForConditionalGeneration(config).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    tensors = load_file(folder / WEIGHTS)
    tensors["mtp.layers.0.mlp.up_proj.weight"] = torch.randn(64, 32)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def test_what_the_model_has_no_part_for_is_kept(tiny_model, rows_file, own_cache, tmp_path):
    source = composite(tmp_path / "source", tiny_model)
    prefopt.train(
        "dpo", model=source, data=rows_file(ROWS), output_dir=str(tmp_path / "run"), max_steps=1, eval_size=2,
        sample_prompts=0, save_strategy="no", learning_rate=1e-2,
    )  # fmt: skip
    saved = tmp_path / "run" / "model"
    before, after = tensors_of(source), tensors_of(saved)
    assert before.keys() == after.keys()
    seeing = [name for name in before if "visual" in name or name.startswith("mtp")]
    assert len(seeing) > 3
    assert all(torch.equal(before[name], after[name]) for name in seeing)
    trained = "model.language_model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(before[trained], after[trained])
    whole, report = transformers.Qwen3_5ForConditionalGeneration.from_pretrained(
        saved, output_loading_info=True
    )
    assert not (report["missing_keys"])
    assert not (report["unexpected_keys"])
    assert not (report["mismatched_keys"])
    assert torch.equal(whole.model.language_model.layers[0].mlp.up_proj.weight, after[trained])
    assert torch.equal(load_model(str(saved)).model.model.layers[0].mlp.up_proj.weight, after[trained])
    configs = [json.loads((folder / "config.json").read_text()) for folder in (source, saved)]
    assert configs[0] == configs[1]


# -- other inputs of the same kinds ------------------------------------------------------------------------------------


def with_tensors(model: Path, folder: Path, more: dict[str, torch.Tensor]) -> Path:
    shutil.copytree(model, folder)
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | more, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(
    "more",
    [
        {"transformer.h.0.attn.masked_bias": torch.tensor(-1e4)},
        {"h.1.attn.masked_bias": torch.tensor(-1e9), "h.1.attn.bias": torch.ones(1, 1, 8, 8)},
        {"transformer.h.0.attn.attention.bias": torch.ones(1, 1, 8, 8, dtype=torch.uint8)},
        {"transformer.h.0.attn.causal_mask": torch.ones(1, 1, 8, 8, dtype=torch.bool)},
        {"transformer.h.0.attn.causal_mask": torch.ones(1, 1, 8, 8)},
        {"model.decoder.version": torch.tensor([3.0]), "model.embed_positions.weights": torch.ones(8, 4)},
    ],
)
def test_constants_that_old_files_hold_are_no_weights(more, tmp_path):
    folder = with_tensors(save_tiny_model(tmp_path / "gpt2", "gpt2"), tmp_path / "old", more)
    load_model(str(folder))
    with pytest.raises(ValueError, match=r"it holds transformer\.h\.0\.attn\.gate"):
        load_model(str(with_tensors(folder, tmp_path / "odd", {"transformer.h.0.attn.gate": torch.ones(4)})))


def test_damaged_weight_files_are_told_in_a_sentence(tiny_model, tmp_path):
    for name, content in (
        ("cut", (tiny_model / "model.safetensors").read_bytes()[:5000]),
        ("pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
    ):
        shutil.copytree(tiny_model, tmp_path / name)
        (tmp_path / name / "model.safetensors").write_bytes(content)
        with pytest.raises(ValueError, match=rf"weights of .*{name} are damaged or cut short"):
            load_model(str(tmp_path / name))
    shutil.copytree(tiny_model, tmp_path / "config")
    (tmp_path / "config" / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is not valid JSON"):
        load_model(str(tmp_path / "config"))


def test_what_a_configuration_adds_to_the_output_does_not_matter(tiny_model, rows_file, own_cache, tmp_path):
    """And is what it was in what is saved."""
    odd = tmp_path / "odd"
    shutil.copytree(tiny_model, odd)
    config = json.loads((odd / "config.json").read_text())
    changed = {"output_attentions": True, "output_hidden_states": True, "return_dict": False}
    (odd / "config.json").write_text(json.dumps(config | changed))
    out = {}
    for name, model in (("plain", tiny_model), ("odd", odd)):
        result = prefopt.train(
            "dpo",
            model=model,
            data=rows_file(ROWS),
            output_dir=str(tmp_path / name),
            max_steps=1,
            sample_prompts=0,
        )
        out[name] = result.metrics["loss"]
    assert out["odd"] == out["plain"]
    saved = json.loads((tmp_path / "odd" / "model" / "config.json").read_text())
    assert {k: saved[k] for k in changed} == changed


def test_a_head_that_the_file_holds_apart_is_saved_as_such(tmp_path):
    from transformers import AutoModelForCausalLM

    from prefopt.models.saving import save_model
    from prefopt.models.tokenizers import load_tokenizer

    model = save_tiny_model(tmp_path / "qwen2", "qwen2")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    loaded = load_model(str(model))
    ends = loaded.model.get_input_embeddings().weight, loaded.model.get_output_embeddings().weight
    save_model(tmp_path / "saved", loaded, load_tokenizer(str(model)), None)
    saved = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert saved["tie_word_embeddings"] is (ends[0] is ends[1])
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert torch.equal(again.get_output_embeddings().weight, ends[1])


def test_adapters_that_are_not_whole_or_not_ours(tiny_model, tmp_path):
    from prefopt.models.loading import LoraSettings

    empty = tmp_path / "adapter"
    empty.mkdir()
    values = {"peft_type": "LORA", "base_model_name_or_path": str(tiny_model), "task_type": "CAUSAL_LM"}
    (empty / "adapter_config.json").write_text(json.dumps(values))
    with pytest.raises(FileNotFoundError, match=r"has no weights: needed adapter_model\.safetensors"):
        load_model(str(empty))
    (empty / "adapter_config.json").write_text(json.dumps(values | {"base_model_name_or_path": "runs/base"}))
    with pytest.raises(FileNotFoundError, match=r"belongs to the model runs/base, which is no folder"):
        load_model(str(empty))
    with pytest.raises(ValueError, match=r"lora_target_modules=nosuch names no module .*q_proj"):
        load_model(str(tiny_model), lora=LoraSettings(target_modules="nosuch"))
