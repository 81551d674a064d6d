"""What cannot be trained is known from its configuration: one sentence, before data is read or weights are loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

import prefopt
from conftest import ROWS, save_tiny_model
from prefopt.modalities.image.models.pipelines import check_pipeline_source
from prefopt.models.loading import LoraSettings, adapter_base, load_model, load_tokenizer
from prefopt.models.quantized import Quantization
from prefopt.models.sources import check_causal
from processes import assert_plain_error
from processes import prefopt as command

SIZES: dict[str, Any] = {
    "vocab_size": 50, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
}  # fmt: skip


def change(folder: Path, name: str = "config.json", **values: Any) -> Path:
    file = folder / name
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
    return folder


def copy(source: Path, folder: Path, **values: Any) -> Path:
    shutil.copytree(source, folder)
    return change(folder, **values)


def adapter(base: Path, folder: Path, resize: int = 0, **settings: Any) -> Path:
    model = AutoModelForCausalLM.from_pretrained(base)
    if resize:
        model.resize_token_embeddings(model.config.vocab_size + resize)
    wrapped: Any = get_peft_model(model, LoraConfig(r=2, task_type="CAUSAL_LM", **settings))
    wrapped.save_pretrained(folder, **({"save_embedding_layers": True} if resize else {}))
    return folder


# -- kinds of models -----------------------------------------------------------------------------------------------


def t5(folder: Path) -> Path:
    config = transformers.T5Config(d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, vocab_size=50)
    transformers.T5ForConditionalGeneration(config).save_pretrained(folder)
    return folder


def vit(folder: Path) -> Path:
    config = transformers.ViTConfig(
        **{k: v for k, v in SIZES.items() if k != "vocab_size"}, image_size=8, patch_size=4
    )
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("make", "name"), [(t5, "T5ForConditionalGeneration"), (vit, "ViTForImageClassification")]
)
def test_other_classes(make, name, tiny_model, rows_file, tmp_path):
    folder = make(tmp_path / "model")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    told = ask("train", "dpo", f"model={folder}", f"data={rows_file(ROWS)}", f"output_dir={tmp_path / 'run'}")
    assert f"holds a {name}, which is no causal language model" in told
    assert len(told) < 600  # not a list of every class
    assert not (tmp_path / "run").exists()


def test_a_side_of_an_evaluation(tiny_model, tmp_path):
    """Before the other side has answered."""
    from prefopt.evaluation.contest import Prompted, check_side
    from prefopt.generation.base import Settings

    folder = t5(tmp_path / "model")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    check_side(str(tiny_model), [Prompted("a", "Sort: fig")], Settings(max_new_tokens=4))
    with pytest.raises(ValueError, match="which is no causal language model"):
        check_side(str(folder), [Prompted("a", "Sort: fig")], Settings(max_new_tokens=4))


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_model_that_sees_what_follows(kind, tiny_model, rows_file, own_cache, tmp_path):
    """Loads as a causal language model, and each token is predicted from itself."""
    folder = tmp_path / "model"
    names = {"bert": "BertForMaskedLM", "roberta": "RobertaForMaskedLM"}
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    config = transformers.AutoConfig.for_model(kind, **SIZES | {"vocab_size": len(tokenizer)}, pad_token_id=0)
    torch.manual_seed(0)
    getattr(transformers, names[kind])(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    with pytest.raises(ValueError, match=r"predicts tokens from those that follow.*is_decoder=true"):
        prefopt.train(
            "dpo", model=folder, data=rows_file(ROWS), output_dir=str(tmp_path / "run"), max_steps=1
        )


def ask(*arguments: str) -> str:
    """The error of a command that fails as it should."""
    done = command(Path(), *arguments)
    assert_plain_error(done)
    return done.stderr


# -- code of its own -----------------------------------------------------------------------------------------------


def test_remote_code(tiny_model, rows_file, tmp_path):
    folder = copy(
        tiny_model, tmp_path / "model", model_type="own_lm", auto_map={"AutoModelForCausalLM": "modeling.Own"}
    )
    (folder / "modeling.py").write_text("raise SystemExit('this code was run')")
    told = ask("train", "dpo", f"model={folder}", f"data={rows_file(ROWS)}", f"output_dir={tmp_path / 'run'}")
    assert "prefopt never runs such code (there is no trust_remote_code): upgrade transformers" in told
    assert "trust_remote_code=True" not in told
    with pytest.raises(ValueError, match="never runs such code"):
        load_model(str(folder))


def test_a_class_that_transformers_ships_needs_no_code(tiny_model, tmp_path):
    folder = copy(tiny_model, tmp_path / "model", auto_map={"AutoModelForCausalLM": "modeling.Own"})
    check_causal(str(folder))
    assert type(load_model(str(folder)).model).__name__ == "LlamaForCausalLM"


def test_an_unknown_class(tiny_model, tmp_path):
    folder = copy(tiny_model, tmp_path / "model", model_type="llama9")
    with pytest.raises(ValueError, match=r"of type 'llama9', which transformers \S+ does not know: upgrade"):
        check_causal(str(folder))


def test_a_tokenizer_with_code(tiny_model, tmp_path):
    folder = copy(tiny_model, tmp_path / "model", model_type="own_lm")
    (folder / "config.json").unlink()
    change(
        folder,
        "tokenizer_config.json",
        tokenizer_class="OwnTokenizer",
        auto_map={"AutoTokenizer": ["tok.Own", None]},
    )
    with pytest.raises(ValueError, match=r"tokenizer of .* never runs such code"):
        load_tokenizer(str(folder), alone=True)


def test_a_pipeline_with_code(tmp_path):
    (tmp_path / "model_index.json").write_text(
        json.dumps({"_class_name": ["pipeline", "OwnPipeline"], "unet": ["unet", "OwnUNet"]})
    )
    with pytest.raises(ValueError, match="never runs such code"):
        check_pipeline_source(str(tmp_path))
    (tmp_path / "model_index.json").write_text(
        json.dumps({"_class_name": "StableDiffusionPipeline", "unet": ["own_unet", "OwnUNet"]})
    )
    with pytest.raises(ValueError, match="never runs such code"):
        check_pipeline_source(str(tmp_path))


# -- quantized checkpoints -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"quant_method": "gptq", "bits": 4}, "quantized with gptq, which cannot be used here: .*optimum"),
        ({"quant_method": "awq", "bits": 4, "version": "gemm"}, "quantized with awq, which cannot be used here: .*gptqmodel"),
        ({"quant_method": "unheard_of"}, "quantized with unheard_of, which cannot be used here"),
    ],
    ids=["gptq", "awq", "unknown"],
)  # fmt: skip
def test_quantized_without_its_package(settings, told, tiny_model, rows_file, tmp_path):
    folder = copy(tiny_model, tmp_path / "model", quantization_config=settings)
    with pytest.raises(ValueError, match=told) as caught:
        prefopt.train(
            "dpo", model=folder, data=rows_file(ROWS), output_dir=str(tmp_path / "run"), use_peft=True
        )
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_quantized_weights_need_adapters(tiny_model, rows_file, own_cache, tmp_path):
    pytest.importorskip("bitsandbytes")
    model: Any = load_model(str(tiny_model), quantization=Quantization()).model
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    model.save_pretrained(folder)
    given = {"data": rows_file(ROWS), "max_steps": 1, "eval_size": 2, "sample_prompts": 0}
    with pytest.raises(ValueError, match="quantized weights cannot be trained: set use_peft=true"):
        prefopt.train("dpo", model=folder, output_dir=str(tmp_path / "no"), **given)
    result = prefopt.train("dpo", model=folder, output_dir=str(tmp_path / "yes"), use_peft=True, **given)
    assert result.history[0]["eval_loss"] == pytest.approx(0.6931, abs=1e-3)


# -- adapters ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", ["base", "../base", "./base"])
def test_a_relative_base_model(base, tiny_model, tmp_path, monkeypatch):
    """The folder that the adapter was made in is not the one that it is used in."""
    shutil.copytree(tiny_model, tmp_path / "work" / "base")
    folder = adapter(tiny_model, tmp_path / "work" / "out" / "adapter")
    change(folder, "adapter_config.json", base_model_name_or_path=base)
    for place in (tmp_path, tmp_path / "work", folder):
        monkeypatch.chdir(place)
        found = adapter_base(str(folder))
        assert found is not None
        assert Path(found).resolve() == tmp_path / "work" / "base"
        check_causal(str(folder))
    assert load_model(str(folder)).adapter == "default"


@pytest.mark.parametrize("base", ["../gone", "/no/where", "a/b/c"])
def test_a_base_model_that_is_not_there(base, tiny_model, rows_file, tmp_path):
    folder = change(
        adapter(tiny_model, tmp_path / "adapter"), "adapter_config.json", base_model_name_or_path=base
    )
    told = ask("train", "dpo", f"model={folder}", f"data={rows_file(ROWS)}", f"output_dir={tmp_path / 'run'}")
    assert f"belongs to the model {base}, and no model is" in told
    assert not (tmp_path / "run").exists()


def test_an_adapter_that_names_no_base_model(tiny_model, tmp_path):
    folder = change(
        adapter(tiny_model, tmp_path / "adapter"), "adapter_config.json", base_model_name_or_path=None
    )
    with pytest.raises(ValueError, match="does not say which model it belongs to"):
        check_causal(str(folder))


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])  # a head of its own, and a tied one
def test_an_adapter_with_embeddings_of_its_own(architecture, rows_file, own_cache, tmp_path):
    base = save_tiny_model(tmp_path / "base", architecture)
    folder = adapter(base, tmp_path / "adapter", resize=3)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["<a>", "<b>", "<c>"])
    tokenizer.save_pretrained(folder)
    rows = rows_file([row | {"chosen": row["chosen"] + " <b>"} for row in ROWS])
    result = prefopt.train(
        "dpo", model=folder, data=rows, output_dir=str(tmp_path / "run"), max_steps=1, eval_size=2, sample_prompts=1,
        sample_max_new_tokens=4, save_strategy="no", learning_rate=1e-2,
    )  # fmt: skip
    assert result.history[0]["eval_loss"] == pytest.approx(0.6931, abs=1e-4)
    before, after = (load_model(str(x), trainable=False).model for x in (folder, tmp_path / "run" / "model"))
    ends = [model.get_base_model().get_input_embeddings().weight for model in (before, after)]
    assert ends[0].shape[0] == len(tokenizer)
    assert torch.equal(*ends)


# -- heads that share the embedding's weights ----------------------------------------------------------------------


@pytest.mark.parametrize("targets", [["c_attn", "lm_head"], ["wte"], r".*(lm_head|c_attn)"])
def test_no_adapters_on_a_tied_head(targets, rows_file, own_cache, tmp_path):
    folder = save_tiny_model(tmp_path / "model", "gpt2")
    with pytest.raises(
        ValueError, match=r"embedding and head share their weights.*tie_word_embeddings=false"
    ) as caught:
        load_model(str(folder), lora=LoraSettings(r=2, target_modules=targets))
    assert ("transformer.wte" if targets == ["wte"] else "lm_head") in str(caught.value)


def test_an_adapter_on_a_tied_head_does_not_go_on(tmp_path):
    base = save_tiny_model(tmp_path / "model", "gpt2")
    folder = adapter(base, tmp_path / "adapter", target_modules=["lm_head"])
    with pytest.raises(ValueError, match="embedding and head share their weights"):
        load_model(str(folder))


def test_a_head_of_its_own_may_have_adapters(tiny_model):
    model: Any = load_model(
        str(tiny_model), lora=LoraSettings(r=2, target_modules=["lm_head", "q_proj"])
    ).model
    ids = torch.arange(12)[None]
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.fill_(0.1)
        expected = model(ids).logits
        torch.testing.assert_close(model.merge_and_unload()(ids).logits, expected, rtol=0, atol=1e-4)
