"""Adapters of every kind: they begin as nothing, are gone when they are off, and mean in plain peft what was trained."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import prefopt
from conftest import ROWS, save_tiny_model
from prefopt.config import ConfigError, resolve
from prefopt.modalities.models import check_denoiser_settings, lora_settings
from prefopt.models.loading import load_model
from prefopt.models.peft_settings import KINDS, REFUSED, LoraSettings, peft_config, peft_settings
from prefopt.models.saving import save_model

IDS = torch.arange(24).reshape(2, 12)
SMALL: dict[str, dict[str, Any]] = {
    "IA3": {"target_modules": ["q_proj", "down_proj"]},
    "BOFT": {"boft_block_size": 4}, "C3A": {"block_size": 8}, "FOURIERFT": {"n_frequency": 20}, "LN_TUNING": {"target_modules": None},
    "MISS": {"r": 4}, "OFT": {"oft_block_size": 4, "r": 0}, "PSOFT": {"r": 4}, "ROAD": {"group_size": 8}, "SHIRA": {"r": 2},
    "TRAINABLE_TOKENS": {"token_indices": [5, 6, 7], "target_modules": None}, "WAVEFT": {"n_frequency": 20},
}  # fmt: skip
"""What each kind needs to fit on a tiny model."""
UNMERGED = {"BEFT": "no bias", "LILY": "not supported"}


def logits(model: Any, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=ids).logits


def base_of(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder)


def moved(model: nn.Module, by: float = 0.05) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(by * torch.randn(p.shape, generator=generator))
    return model.eval()


def settings(**given: Any) -> LoraSettings | None:
    config, _ = resolve({"method": "dpo", "model": "m", "data": "d", "use_peft": True, **given})
    return lora_settings(config)


@pytest.fixture(scope="module")
def tied(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama whose head is its embedding."""
    folder = tmp_path_factory.mktemp("tied") / "llama"
    config = AutoConfig.from_pretrained(tiny_model, tie_word_embeddings=True)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose head is its embedding."""
    return save_tiny_model(tmp_path_factory.mktemp("tied") / "gpt2", "gpt2")


# -- what is asked for -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [
    {"r": 4, "lora_alpha": 6, "use_rslora": True, "use_dora": True, "target_modules": ["q_proj", "v_proj"]},
    {"target_modules": "all-linear", "init_lora_weights": "pissa_niter_4", "lora_dropout": 0.1},
    {"layers_to_transform": [1], "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 3}, "target_modules": ["q_proj"]},
    {"bias": "lora_only", "modules_to_save": ["lm_head"], "exclude_modules": ["k_proj"], "target_modules": ["q_proj"]},
    {"trainable_token_indices": {"embed_tokens": [1, 2]}, "task_type": TaskType.CAUSAL_LM},
])  # fmt: skip
def test_objects_of_peft_come_back_from_their_mapping(given):
    config = LoraConfig(**given)
    mapping = json.loads(json.dumps(peft_settings(config)))
    found = settings(peft=mapping)
    assert found is not None
    again = peft_config(found, found.target_modules, "CAUSAL_LM")
    config.task_type = TaskType.CAUSAL_LM
    assert again.to_dict() == config.to_dict()


def test_objects_that_are_refused():
    with pytest.raises(TypeError, match="needed a configuration of peft"):
        peft_settings({"r": 8})
    with pytest.raises(ValueError, match="task_type=SEQ_CLS is for another kind of model"):
        peft_settings(LoraConfig(task_type="SEQ_CLS"))
    with pytest.raises(ValueError, match="eva needs passes over data before training"):
        peft_settings(LoraConfig(init_lora_weights="eva"))


WRONG = [
    ({"use_peft": False, "use_dora": True}, "use_dora: for adapters, and this run trains the weights"),
    ({"use_peft": False, "lora_r": 4}, "lora_r: for adapters"),
    ({"use_peft": False, "peft": {"bias": "all"}}, "peft: for adapters"),
    ({"peft": {"layers_to_transfrom": [1]}}, "LORA has no field 'layers_to_transfrom'; did you mean 'layers_to_transform'"),
    ({"peft": {"peft_type": "lohas"}}, "no peft_type 'LOHAS'; did you mean 'LOHA'"),
    ({"peft": {"peft_type": "IA3", "r": 4}}, "IA3 has no field 'r'"),
    ({"peft": {"peft_type": "LOHA"}, "lora_r": 4}, "lora_r is LoRA's, and peft_type=LOHA was asked for"),
    ({"peft": {"r": 8}, "lora_r": 4}, "lora_r=4 and peft: {r: 8} say different things"),
    ({"peft": {"use_dora": False}, "use_dora": True}, "use_dora=True and peft"),
    ({"peft": {"init_lora_weights": "pisa"}}, "there is no init_lora_weights 'pisa'; did you mean 'pissa'"),
    ({"peft": {"init_lora_weights": False}}, "begins as a random change"),
    ({"peft": {"init_lora_weights": "pissa"}, "use_dora": True}, "pissa and use_dora exclude each other"),
    ({"peft": {"layer_replication": [[0, 1], [0, 2]]}}, "makes another model, of which there is no reference"),
    ({"peft": {"alora_invocation_tokens": [3]}}, "rows here share prompts and are packed"),
    ({"peft": {"inference_mode": True}}, "inference_mode follows from the run"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "words"), WRONG)
def test_keys_that_cannot_be_honoured(given, words):
    with pytest.raises(ConfigError) as caught:
        settings(**given)
    assert words in str(caught.value)


@pytest.mark.parametrize(("peft", "words"), [
    ({"peft_type": "LOHA"}, "peft_type=LOHA: files of adapters for models that denoise hold LoRA's weights alone"),
    ({"bias": "all"}, "bias: files of adapters"),
    ({"modules_to_save": ["conv_in"]}, "modules_to_save: files of adapters"),
    ({"init_lora_weights": "pissa"}, "init_lora_weights: files of adapters"),
    ({"rank_pattern": {"to_q": 2}}, "rank_pattern: files of adapters"),
])  # fmt: skip
def test_what_images_and_motions_refuse(peft, words):
    config, _ = resolve({"method": "dpo", "model": "m", "data": "d", "use_peft": True, "peft": peft})
    with pytest.raises(ConfigError) as caught:
        check_denoiser_settings(config)
    assert words in str(caught.value)


def test_equal_values_and_defaults_are_no_contradiction():
    found = settings(lora_r=4, peft={"r": 4, "use_rslora": True})
    assert found == LoraSettings(r=4, fields={"use_rslora": True})
    assert settings(peft={"r": 8}) == LoraSettings(r=8)
    assert settings(use_bnb_nested_quant=False, load_in_4bit=True) == LoraSettings()


def test_every_kind_of_peft_is_known():
    """A new version of peft may bring others: they are refused by name until they were tried."""
    assert {kind.value for kind in PEFT_TYPE_TO_CONFIG_MAPPING} <= {
        *KINDS,
        *REFUSED,
    }  # an older peft has fewer
    for kind in REFUSED:
        with pytest.raises(ConfigError, match=f"peft_type={kind} cannot be trained here: it "):
            settings(peft={"peft_type": kind})


@pytest.mark.parametrize(("fields", "words"), [
    ({"modules_to_save": ["hat"]}, "lora_modules_to_save names hat, which this model has not.*lm_head"),
    ({"target_parameters": ["experts.gate"]}, "names experts.gate, which this model has not|cannot put adapters"),
    ({"layers_pattern": "layers"}, "layers_to_transform"),
    ({"modules_to_save": ["lm_head"], "ensure_weight_tying": True}, "ensure_weight_tying does nothing here: no tied modules"),
])  # fmt: skip
def test_names_that_the_model_has_not(fields, words, tiny_model):
    with pytest.raises(ValueError, match=words):
        load_model(str(tiny_model), lora=LoraSettings(r=2, target_modules=["q_proj"], fields=fields))


def test_adapters_that_begin_as_a_change_are_refused(tiny_model):
    lora = LoraSettings(
        kind="FOURIERFT", target_modules=["q_proj"], fields={"n_frequency": 20, "init_weights": False}
    )
    with pytest.raises(ValueError, match=r"FOURIERFT with .* begin as a change of the model"):
        load_model(str(tiny_model), lora=lora)


# -- every kind --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", [k if k in ("LORA", "IA3", "VERA") else pytest.param(k, marks=pytest.mark.slow) for k in KINDS]
)
def test_kinds(kind, tiny_model, tmp_path):
    fields = dict(SMALL.get(kind, {}))
    targets = fields.pop("target_modules", ["q_proj", "v_proj"])
    policy = load_model(str(tiny_model), lora=LoraSettings(kind=kind, target_modules=targets, fields=fields))
    start = logits(base_of(tiny_model))
    torch.testing.assert_close(logits(policy.model), start, rtol=0, atol=1e-5)
    flags = {name: p.requires_grad for name, p in policy.model.named_parameters()}
    end = logits(moved(policy.model))
    assert float((end - start).abs().max()) > 1e-3
    with policy.as_reference():
        torch.testing.assert_close(logits(policy.model), start, rtol=0, atol=1e-6)
    assert torch.equal(logits(policy.model), end)
    assert flags == {name: p.requires_grad for name, p in policy.model.named_parameters()}
    save_model(tmp_path / "saved", policy, AutoTokenizer.from_pretrained(tiny_model), None)
    plain = PeftModel.from_pretrained(base_of(tiny_model), tmp_path / "saved").eval()
    torch.testing.assert_close(logits(plain), end, rtol=0, atol=1e-6)
    if kind in UNMERGED:
        with pytest.raises(ValueError, match=f"of the kind {kind}, cannot be merged.*{UNMERGED[kind]}"):
            prefopt.merge(tmp_path / "saved")
        assert not (tmp_path / "saved-merged").exists()
        return
    assert prefopt.merge(tmp_path / "saved").difference < 1e-4
    torch.testing.assert_close(logits(base_of(tmp_path / "saved-merged")), end, rtol=0, atol=1e-4)


# -- runs --------------------------------------------------------------------------------------------------------

RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "tied heads": ("tied", {"lora_modules_to_save": ["embed_tokens"], "use_dora": True, "peft": {"ensure_weight_tying": True}}),
    "pissa": ("llama", {"use_rslora": True, "lora_modules_to_save": ["lm_head"], "peft": {"init_lora_weights": "pissa"}}),
    "SHIRA": ("llama", {"lora_target_modules": ["q_proj", "v_proj"], "peft": {"peft_type": "SHIRA", "r": 2}}),
    "experts": ("mixtral", {"lora_target_parameters": ["experts.gate_up_proj"]}),
    "untied copies": ("gpt2", {"lora_modules_to_save": ["wte", "lm_head"]}),
    "tokens": ("llama", {"peft": {"trainable_token_indices": [5, 6, 7, 20]}}),
    "tied tokens": ("tied", {"peft": {"trainable_token_indices": [5, 6, 7, 20], "ensure_weight_tying": True}}),
    "layers": ("llama", {"lora_target_modules": ["q_proj", "down_proj"], "peft": {
        "layers_to_transform": [1], "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"down_proj": 3}}}),
    "bias": ("gpt2", {"peft": {"bias": "lora_only"}}),
    "random pissa": ("llama", {"peft": {"init_lora_weights": "pissa_niter_4", "rank_pattern": {"q_proj": 2}}}),
    "olora": ("llama", {"peft": {"init_lora_weights": "olora"}}),
    "mica": ("llama", {"peft": {"init_lora_weights": "mica"}}),
    "orthogonal": ("llama", {"peft": {"init_lora_weights": "orthogonal"}}),
    **{kind: ("llama", {"peft": {"peft_type": kind}}) for kind in ("IA3", "LN_TUNING")},
    **{kind: ("llama", {"lora_target_modules": ["q_proj", "v_proj"], "peft": {"peft_type": kind, **SMALL.get(kind, {})}})
       for kind in ("LOHA", "LOKR", "OFT", "BOFT", "VERA", "FOURIERFT", "HRA", "RANDLORA", "C3A", "GRALORA")},
}  # fmt: skip
FAST = ("tied heads", "pissa")
OFF = {"pissa", "random pissa", "olora", "bias"}
"""Runs whose reference is not their model with its adapters off."""


@pytest.mark.parametrize("name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in RUNS])
def test_runs(name, tiny_model, tied, gpt2, rows_file, own_cache, tmp_path, monkeypatch):
    """They start from zero, resume to the same bits, and are in plain peft, and merged, what was trained."""
    architecture, more = RUNS[name]
    model = {"llama": tiny_model, "tied": tied, "gpt2": gpt2}.get(architecture)
    model = model or save_tiny_model(tmp_path / architecture, architecture)
    ended: list[torch.Tensor] = []

    def watched(folder: Path, policy: Any, *rest: Any) -> None:
        ended.append(logits(policy.model.eval()))
        save_model(folder, policy, *rest)

    monkeypatch.setattr("prefopt.modalities.text.setup.save_model", watched)
    rows, run = rows_file(ROWS), tmp_path / "run"

    def train(folder: Path, **other: Any) -> Any:
        given: dict[str, Any] = {
            "max_steps": 4, "save_steps": 2, "eval_size": 2, "learning_rate": 1e-2, "sample_prompts": 0, "logging_steps": 1,
            "per_device_train_batch_size": 4, "model": model, "use_peft": True, **more,
        }  # fmt: skip
        if "peft_type" not in more.get("peft", {}):
            given["lora_r"] = 4
        return prefopt.train("dpo", data=rows, output_dir=str(folder), **(given | other))

    history = train(run).history
    assert history[0]["eval_loss"] == pytest.approx(math.log(2), abs=1e-6)
    weights = (run / "model" / "adapter_model.safetensors").read_bytes()
    plain = PeftModel.from_pretrained(base_of(model), run / "model").eval()
    torch.testing.assert_close(logits(plain), ended[0], rtol=0, atol=1e-5)
    assert float((ended[0] - logits(base_of(model))).abs().max()) > 1e-3

    for folder in (run / "model", run / "checkpoints" / "step-00000004", own_cache):
        shutil.rmtree(folder)
    train(run, resume=True)
    assert (run / "model" / "adapter_model.safetensors").read_bytes() == weights

    assert prefopt.merge(run).stored < 1e-4
    torch.testing.assert_close(logits(base_of(run / "merged")), ended[0], rtol=0, atol=1e-4)

    if name in OFF:
        with pytest.raises(ConfigError, match="reference=adapter_off is not possible"):
            train(tmp_path / "off", reference="adapter_off")
        checks = json.loads((run / "record" / "manifest.json").read_text())["checks"]
        assert any("the reference is loaded from the files" in c["detail"] for c in checks)
    if name not in FAST or name in OFF:
        live = train(tmp_path / "live", reference="live").history
        assert live[-1]["eval_loss"] == pytest.approx(history[-1]["eval_loss"], abs=1e-6)
    if name not in FAST:
        again = train(
            tmp_path / "again", model=run / "model", max_steps=1,
            use_peft=False, peft=None, **{k: None for k in more if k.startswith("lora_")}, lora_r=16,
        ).history  # fmt: skip
        assert again[0]["eval_loss"] == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize("beginning", ["pissa", "olora", "mica"])
def test_a_folder_of_peft_that_takes_a_part_of_the_base(beginning, tiny_model, tmp_path):
    """A frozen starting adapter, loaded beside the trained one, would take from the base once more."""
    config = LoraConfig(r=4, init_lora_weights=beginning, task_type="CAUSAL_LM")
    start = moved(get_peft_model(base_of(tiny_model), config))
    start.save_pretrained(tmp_path / "adapter")
    loaded = load_model(str(tmp_path / "adapter"))
    torch.testing.assert_close(logits(loaded.model), logits(start), rtol=0, atol=1e-5)
    assert (loaded.not_off is not None) == (beginning != "mica")


def test_a_folder_of_peft_with_a_random_beginning(tiny_model, tmp_path):
    config = LoraConfig(r=4, init_lora_weights="pissa_niter_2", task_type="CAUSAL_LM")
    get_peft_model(base_of(tiny_model), config).save_pretrained(tmp_path / "adapter")
    for trainable in (True, False):
        with pytest.raises(ValueError, match="drawn anew whenever it is loaded"):
            load_model(str(tmp_path / "adapter"), trainable=trainable)


# -- embeddings of more tokens -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("architecture", "whole"), [
    pytest.param("llama", False, id="saved beside"),
    pytest.param("gpt2", True, id="tied, trained whole"),
    pytest.param("gpt2", False, id="tied, saved beside", marks=pytest.mark.slow),
    pytest.param("llama", True, id="trained whole", marks=pytest.mark.slow),
])  # fmt: skip
def test_adapters_with_more_tokens(architecture, whole, tiny_model, gpt2, rows_file, own_cache, tmp_path):
    """They are trained further, against their own start, and merged with every token."""
    source = gpt2 if architecture == "gpt2" else tiny_model
    ends = ["wte", "lm_head"] if architecture == "gpt2" else ["embed_tokens", "lm_head"]
    base = base_of(source)
    base.resize_token_embeddings(base.config.vocab_size + 8)
    config = LoraConfig(r=2, task_type="CAUSAL_LM", modules_to_save=ends if whole else None)
    start = moved(get_peft_model(base, config))
    start.save_pretrained(tmp_path / "adapter", save_embedding_layers=True)
    AutoTokenizer.from_pretrained(source).save_pretrained(tmp_path / "adapter")
    ids = torch.arange(base.config.vocab_size - 20, base.config.vocab_size)[None]
    expected = logits(start, ids)
    merged = prefopt.merge(tmp_path / "adapter")
    assert merged.difference < 1e-4
    torch.testing.assert_close(logits(base_of(merged.folder), ids), expected, rtol=0, atol=1e-4)
    result = prefopt.train(
        "dpo", model=tmp_path / "adapter", data=rows_file(ROWS), output_dir=str(tmp_path / "run"), max_steps=2, eval_size=2,
        sample_prompts=0, save_strategy="no", learning_rate=1e-2,
    )  # fmt: skip
    assert result.history[0]["eval_loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert result.history[-1]["eval_loss"] != pytest.approx(math.log(2), abs=1e-4)
    trained = load_model(str(result.model_dir), trainable=False).model
    whole_model = base_of(prefopt.merge(result.output_dir).folder)
    torch.testing.assert_close(logits(whole_model, ids), logits(trained, ids), rtol=0, atol=1e-4)
