"""TRL's arguments: losses, trainers, what is told of each key."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from prefopt.config import ConfigError
from prefopt.config.foreign import tool_of
from prefopt.migration import Migration, arguments, migrate
from prefopt.migration import read as read_file

FILES = Path(__file__).parents[1] / "data" / "migration"
PLACE = {"model": "m", "data": "d"}


def moved(trainer: str | None = None, **given: Any) -> Migration:
    return migrate(given, "trl", trainer, PLACE)


def hyper(found: Migration, *keys: str) -> dict[str, Any]:
    return {key: found.config[key] for key in keys if key in found.config}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"loss_type": "sigmoid"}, {"method": "dpo", "beta": 0.1}),
        ({"loss_type": ["ipo"], "beta": 0.01}, {"method": "ipo", "beta": 0.01}),
        ({"loss_type": "sppo_hard"}, {"method": "sppo", "beta": 0.1}),
        ({"loss_type": "sigmoid_norm", "beta": 5}, {"method": "dpo", "margin": "average", "beta": 5}),
        ({"loss_type": "exo_pair", "label_smoothing": 1e-3}, {"method": "exo", "beta": 0.1, "label_smoothing": 1e-3}),
        ({"loss_type": "robust"}, {"method": "robust", "beta": 0.1, "label_smoothing": 0.0}),
        ({"loss_type": "discopop"}, {"method": "discopop", "beta": 0.1, "tau": 0.05}),
        ({"loss_type": "sft"}, {"method": "sft", "average": "batch"}),
        (
            {"loss_type": ["sigmoid", "sft"], "loss_weights": [1, 0.5]},
            {"method": "dpo+sft", "loss_weights": [1, 0.5], "average": "batch", "beta": 0.1},
        ),
        ({"loss_type": ["sigmoid"], "loss_weights": [0.5]}, {"method": "dpo", "loss_weights": [0.5], "beta": 0.1}),
        ({"loss_type": ["sigmoid"], "loss_weights": [1.0]}, {"method": "dpo", "beta": 0.1}),
        ({"loss_type": ["sigmoid", "sft"], "loss_weights": [0.5, 0]}, {"method": "dpo", "loss_weights": [0.5], "beta": 0.1}),
        (
            {"loss_type": ["hinge", "robust"], "label_smoothing": 0.1},
            {"method": "hinge+robust", "beta": 0.1, "label_smoothing": 0.1},
        ),
        ({"loss_type": "alphapo", "alpha": 0.25, "beta": 2.0}, {"method": "alpha_po", "alpha": 0.25, "beta": 2.0, "gamma": 0.5}),
        ({"loss_type": "alphapo", "alpha": 0.25, "cpo_alpha": 1.0}, {"method": "alpha_po", "alpha": 0.25, "beta": 0.1, "gamma": 0.5}),
        ({"loss_type": "alphapo"}, {"method": "simpo", "beta": 0.1, "gamma": 0.5}),
        ({"loss_type": ["sigmoid", "sigmoid_norm"]}, {"method": "dpo+sigmoid_norm", "beta": 0.1}),
        (
            {"loss_type": "sigmoid", "f_divergence_type": "js_divergence"},
            {"method": "f_dpo", "f": "js", "beta": 0.1},
        ),
        (
            {"loss_type": "sigmoid", "f_divergence_type": "FDivergenceType.ALPHA_DIVERGENCE", "f_alpha_divergence_coef": 0.7},
            {"method": "f_dpo", "f": "alpha", "alpha": 0.3, "beta": 0.1},
        ),
        ({"loss_type": "sigmoid", "ld_alpha": 0.5}, {"method": "ld_dpo", "a": 0.5, "beta": 0.1}),
        ({"loss_type": "sigmoid", "use_weighting": True, "beta": 0.01}, {"method": "wpo", "beta": 0.01}),
        ({"loss_type": "hinge", "ld_alpha": 0.5}, {"method": "hinge", "ld_alpha": 0.5, "beta": 0.1}),
        (
            {"loss_type": "sigmoid", "ld_alpha": 0.5, "use_weighting": True},
            {"method": "dpo", "ld_alpha": 0.5, "use_weighting": True, "beta": 0.1},
        ),
        (
            {"loss_type": ["sigmoid", "sft"], "use_weighting": True},
            {"method": "dpo+sft", "use_weighting": True, "average": "batch", "beta": 0.1},
        ),
        (
            {"loss_type": "sigmoid", "rpo_alpha": 0.2},
            {"method": "dpo+sft", "loss_weights": [1.0, 0.2], "average": "batch", "beta": 0.1},
        ),
        ({"loss_type": "aot_pair"}, {"method": "aot", "beta": 0.1, "label_smoothing": 0.0}),
        ({"loss_type": "kto"}, {"method": "kto", "beta": 0.1}),
        ({"desirable_weight": 1.0, "undesirable_weight": 1.33}, {"method": "kto", "beta": 0.1, "undesirable_weight": 1.33}),
        (
            {"loss_type": "tpo-l", "tpo_alpha": 0.05, "beta": 2},
            {"method": "tpo", "loss": "tpo-l", "tpo_alpha": 0.05, "tpo_l_gamma": 0.5, "average": "batch", "beta": 2},
        ),
        ({"loss_type": "apo_zero_unpaired"}, {"method": "apo_zero_unpaired", "beta": 0.1}),
        (
            {"loss_type": "hinge", "cpo_alpha": 0.5},
            {"method": "contrastive_po", "loss": "hinge", "alpha": 0.5, "average": "batch", "beta": 0.1},
        ),
        (
            {"loss_type": "simpo", "cpo_alpha": 0, "alpha": 0.2, "beta": 2},
            {"method": "alpha_po", "alpha": 0.2, "beta": 2, "gamma": 0.5},
        ),
        ({"loss_type": "simpo", "cpo_alpha": 0.0, "beta": 2}, {"method": "simpo", "beta": 2, "gamma": 0.5}),
        (
            {"loss_type": "simpo", "simpo_gamma": 1.0},
            {"method": "simpo+sft", "loss_weights": [1.0, 1.0], "average": "batch", "beta": 0.1, "gamma": 1.0},
        ),
    ],
)  # fmt: skip
def test_losses(given, expected):
    keys = (
        "method", "beta", "loss_weights", "average", "margin", "label_smoothing", "f", "alpha", "a", "tau", "gamma",
        "desirable_weight", "undesirable_weight", "lambda", "ld_alpha", "use_weighting", "loss", "tpo_alpha", "tpo_l_gamma",
    )  # fmt: skip
    assert hyper(moved(**given), *keys) == expected


def test_trainers_that_a_file_does_not_tell():
    assert hyper(moved("orpo", beta=0.25), "method", "lambda", "beta") == {"method": "orpo", "lambda": 0.25}
    assert moved("kto", beta=0.2).config["method"] == "kto"
    found = moved("cpo", cpo_alpha=0.5)
    assert found.config["method"].startswith("contrastive_po")
    assert found.config["average"] == "batch"
    assert any("--trainer" in line.why for line in moved(beta=0.2).of("to check"))
    assert not any("--trainer" in line.why for line in moved(loss_type="ipo").of("to check"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"loss_type": ["sigmoid", "kto_pair"]}, "kto_pair: prefopt knows no such loss"),
        ({"loss_type": ["sigmoid", "sft"], "loss_weights": [1]}, "2 losses and 1 loss_weights"),
        ({"loss_type": "hinge", "f_divergence_type": "js_divergence"}, "f_divergence_type with hinge"),
        ({"loss_type": "sigmoid", "f_divergence_type": "js"}, "needed one of reverse_kl, js_divergence"),
        ({"loss_type": "aot", "use_weighting": True}, "use_weighting with aot"),
        (
            {"loss_type": ["sigmoid", "robust"], "label_smoothing": 0.1},
            "only robust reads it, here dpo would, too",
        ),
        (
            {"loss_type": ["sigmoid_norm", "robust"], "label_smoothing": 0.1},
            "only robust reads it, here sigmoid_norm would, too",
        ),
        ({"num_generations": 8}, "num_generations is an argument of GRPOConfig"),
        (
            {"loss_type": "sigmoid", "datasets": [{"path": "a"}, {"path": "b"}]},
            "trains on one source, and there are 2",
        ),
        ({"loss_type": "sigmoid", "use_peft": True, "lora_task_type": "SEQ_CLS"}, "SEQ_CLS"),
    ],
)
def test_what_would_mean_something_else_is_refused(given, words):
    with pytest.raises(ConfigError, match=f"(?s)^this cannot be migrated: .*{words}"):
        migrate(given, "trl", None, {"model": "m"} | ({} if "datasets" in given else {"data": "d"}))


def test_all_reasons_at_once():
    with pytest.raises(ConfigError) as error:
        moved(loss_type=["sigmoid", "nope"], use_peft=True, lora_task_type="SEQ_CLS")
    assert len(str(error.value).splitlines()) == 3


def test_smoothing_that_sigmoid_does_not_read():
    found = moved(loss_type="sigmoid", label_smoothing=0.1)
    assert "label_smoothing" not in found.config
    assert "conservative DPO" in found.of("to check")[0].why


def test_adapters_dropout_is_off_there_too():
    """`disable_dropout` reaches the adapters, whose dropout TRL's default would be."""
    found = moved(loss_type="sigmoid", use_peft=True, lora_dropout=0.1)
    assert "lora_dropout" not in found.config
    assert [line.origin for line in found.of("left out")] == ["lora_dropout"]
    found = moved(loss_type="sigmoid", use_peft=True, lora_dropout=0.1, disable_dropout=False)
    assert found.config["lora_dropout"] == 0.1
    assert [line.origin for line in found.of("to check") if line.origin] == ["disable_dropout"]


@pytest.mark.slow
def test_dropout_is_off_there_indeed():
    """What the sentence above rests on, by TRL and peft themselves."""
    trl = pytest.importorskip("trl.trainer.utils", reason="TRL is no dependency of the tests")
    import torch
    from peft import LoraConfig, get_peft_model

    model: Any = get_peft_model(
        torch.nn.Sequential(torch.nn.Linear(2, 2)), LoraConfig(target_modules=["0"], lora_dropout=0.5)
    )
    assert any(isinstance(m, torch.nn.Dropout) and m.p == 0.5 for m in model.modules())
    trl.disable_dropout_in_model(model)
    assert not any(isinstance(m, torch.nn.Dropout) and m.p for m in model.modules())


def test_what_the_model_is_loaded_with():
    inner = {"torch_dtype": "bfloat16", "attn_implementation": "sdpa", "use_kernels": True}
    found = moved(loss_type="sigmoid", model_init_kwargs=inner)
    assert hyper(found, "dtype", "attn_implementation") == {
        "dtype": "bfloat16",
        "attn_implementation": "sdpa",
    }
    assert "use_kernels" in found.of("left out")[0].why
    assert (
        "dtype" not in moved(loss_type="sigmoid", dtype="float32").config
    )  # prefopt's own where all is trained
    assert moved(loss_type="sigmoid", use_peft=True).config["dtype"] == "float32"


def model_folder(folder: Path, **config: Any) -> dict[str, Any]:
    """Prefopt's keys for a model with this config.json."""
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    return {"model": str(folder), "data": "d"}


@pytest.mark.parametrize(
    ("trainer", "given", "config", "expected"),
    [
        ("dpo", {"dtype": "auto"}, {"torch_dtype": "bfloat16"}, {"dtype": "bfloat16"}),
        ("dpo", {"torch_dtype": "auto"}, {"text_config": {"dtype": "float16"}}, {"dtype": "float16"}),
        ("dpo", {"model_init_kwargs": {"dtype": "auto"}}, {"dtype": "bfloat16"}, {"dtype": "bfloat16"}),
        ("dpo", {"dtype": "auto"}, {"dtype": "float32"}, {}),
        ("dpo", {"dtype": None}, {"dtype": "bfloat16"}, {}),
        ("dpo", {}, {"dtype": "bfloat16"}, {}),
        ("dpo", {"dtype": "auto", "use_peft": True}, {"dtype": "bfloat16"}, {}),
        (
            "dpo", {"dtype": "auto", "use_peft": True, "load_in_4bit": True}, {"dtype": "bfloat16"},
            {"bnb_4bit_compute_dtype": "bfloat16"},
        ),
        ("cpo", {}, {"dtype": "bfloat16"}, {"dtype": "bfloat16"}),
        ("orpo", {"torch_dtype": None}, {"dtype": "bfloat16"}, {}),
        ("tpo", {}, {"dtype": "bfloat16"}, {}),
    ],
)  # fmt: skip
def test_a_checkpoints_own_type(trainer, given, config, expected, tmp_path):
    """`auto` is float32 here where all weights are trained, and the checkpoint's type there; CPO's and ORPO's trainers take that."""
    found = migrate({"beta": 0.1, **given}, "trl", trainer, model_folder(tmp_path, **config))
    assert hyper(found, "dtype", "bnb_4bit_compute_dtype") == expected
    assert not any("config.json" in line.why for line in found.of("to check"))


def test_a_type_that_cannot_be_told():
    found = moved(loss_type="sigmoid", dtype="auto")
    assert "dtype" not in found.config
    assert any(
        line.origin == "dtype" and "is not on this machine" in line.why for line in found.of("to check")
    )
    found = migrate({"loss_type": "sigmoid", "dtype": "auto"}, "trl", None, {**PLACE, "dtype": "bfloat16"})
    assert not any("is not on this machine" in line.why for line in found.of("to check"))


@pytest.mark.parametrize(
    ("trainer", "given", "config", "expected"),
    [
        ("dpo", {}, {"num_local_experts": 8, "router_aux_loss_coef": 0.02}, 0.02),
        ("kto", {}, {"text_config": {"num_experts": 8, "router_aux_loss_coef": 0.02}}, 0.02),
        ("dpo", {"router_aux_loss_coef": 0.5}, {"num_local_experts": 8, "router_aux_loss_coef": 0.02}, 0.5),
        ("dpo", {"router_aux_loss_coef": 0.0}, {"num_local_experts": 8, "router_aux_loss_coef": 0.02}, None),
        ("cpo", {}, {"num_local_experts": 8, "router_aux_loss_coef": 0.02}, None),
        (
            "cpo",
            {},
            {"num_local_experts": 8, "router_aux_loss_coef": 0.02, "output_router_logits": True},
            0.02,
        ),
        ("tpo", {}, {"num_local_experts": 8, "router_aux_loss_coef": 0.02}, None),
        ("dpo", {}, {"num_hidden_layers": 2}, None),
    ],
)
def test_experts_in_balance(trainer, given, config, expected, tmp_path):
    found = migrate({"beta": 0.1, **given}, "trl", trainer, model_folder(tmp_path, **config, dtype="float32"))
    assert found.config.get("router_aux_loss_coef") == expected
    assert not any("mixture of experts" in line.why for line in found.of("to check"))


def test_experts_that_cannot_be_told(tmp_path):
    for place in (PLACE, model_folder(tmp_path, n_routed_experts=8)):
        found = migrate({"loss_type": "sigmoid"}, "trl", None, place)
        assert any("mixture of experts" in line.why for line in found.of("to check"))
    assert not any("mixture of experts" in line.why for line in moved("tpo", beta=0.1).of("to check"))


def test_a_model_in_the_hubs_cache(tmp_path, monkeypatch):
    from huggingface_hub import constants

    snapshot = tmp_path / "models--owner--name" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (tmp_path / "models--owner--name" / "refs").mkdir()
    (tmp_path / "models--owner--name" / "refs" / "main").write_text("abc")
    model_folder(snapshot, dtype="bfloat16")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    given = {"loss_type": "sigmoid", "dtype": "auto", "model_name_or_path": "owner/name"}
    assert migrate(given, "trl", None, {"data": "d"}).config["dtype"] == "bfloat16"


def test_the_order_of_ktos_rows():
    assert any("order of the file" in line.why for line in moved("kto", beta=0.2).of("to check"))
    found = moved("kto", train_sampling_strategy="random")
    assert not any("order of the file" in line.why for line in found.of("to check"))


def test_a_source_among_datasets():
    source = {"path": "owner/name", "name": "en", "split": "train_prefs", "columns": ["prompt"]}
    found = migrate({"loss_type": "sigmoid", "datasets": [source]}, "trl", None, {"model": "m"})
    assert hyper(found, "data", "data_config", "split") == {
        "data": "owner/name",
        "data_config": "en",
        "split": "train_prefs",
    }
    assert "columns" in found.of("to check")[0].why


def test_numbers_that_yaml_takes_for_text():
    given = yaml.safe_load("loss_type: sigmoid\nlearning_rate: 5e-7\nweight_decay: 1e-2\n")
    found = moved(**given)
    assert hyper(found, "learning_rate", "weight_decay") == {"learning_rate": 5e-7, "weight_decay": 0.01}


def test_arguments_that_nobody_knows_are_told_loudly():
    found = moved(loss_type="sigmoid", betta=0.3, beta_schedule="linear")
    told = {line.origin: line.why for line in found.of("to check") if line.origin}
    assert set(told) == {"betta", "beta_schedule"}
    assert "did you mean 'beta'?" in told["betta"]


def test_secrets_are_not_repeated():
    found = moved(loss_type="sigmoid", hub_token="hf_abc", env={"WANDB_API_KEY": "abc"})
    assert {line.given for line in found.of("left out")} == {"(not shown)"}


def test_secrets_within_values():
    inner = {"token": "hf_abc", "dtype": "bfloat16"}
    for given in (inner, json.dumps(inner)):
        found = moved(
            loss_type="sigmoid", model_init_kwargs=given, datasets=[{"path": "d", "token": "hf_abc"}]
        )
        assert found.config["dtype"] == "bfloat16"
        assert "hf_abc" not in str(found)
        assert "(not shown)" in str(found.lines)
    with pytest.raises(ConfigError, match="not shown") as error:
        moved(loss_type="sigmoid", model_init_kwargs=[inner])
    assert "hf_abc" not in str(error.value)


def test_uploads():
    keys = {"push_to_hub": True, "hub_model_id": "me/x", "hub_private_repo": True}
    found = moved(loss_type="sigmoid", **keys, hub_strategy="every_save", hub_token="hf_abc")
    assert {key: found.config[key] for key in keys} == keys
    why = {line.origin: line.why for line in found.of("left out")}
    assert "uploaded once" in why["hub_strategy"]
    assert "hf auth login" in why["hub_token"]
    found = moved(loss_type="sigmoid", **keys | {"push_to_hub": False})
    assert not keys.keys() & found.config.keys()
    assert {line.origin: line.why for line in found.of("left out")} == {
        "hub_model_id": "read only with push_to_hub",
        "hub_private_repo": "read only with push_to_hub",
    }


@pytest.mark.parametrize("name", sorted(str(p.relative_to(FILES)) for p in FILES.rglob("*") if p.suffix in (".yaml", ".json") and p.name != "dataset_info.json"))  # fmt: skip
def test_every_key_of_a_file_is_accounted_for(name):
    values = read_file(FILES / name)
    found = migrate(values, overrides=PLACE, place=(FILES / name).parent)
    told = {key for line in found.lines for key in line.origin.split(", ")} | set(found.same)
    assert set(values) <= told
    twice = set(found.same) & {key for line in found.lines for key in line.origin.split(", ")}
    assert not twice


def test_a_dump_of_all_arguments_is_short():
    """Of 150 arguments only those that differ from what both do by themselves are told one by one."""
    values = json.loads((FILES / "trl_dump.json").read_text("utf-8"))
    found = migrate(values, overrides=PLACE)
    assert len(values) > 130
    assert len(found.same) > 100
    assert not [line for line in found.lines if "knows no such argument" in line.why]
    assert {line.origin for line in found.of("left out")} == {"use_cpu", "save_total_limit"}


def test_transformers_defaults_are_what_they_are():
    """A default that has changed would be told as if a user had given it, or not be told where one has."""
    from transformers import TrainingArguments

    real = {
        field.name: field.default
        if field.default is not dataclasses.MISSING
        else field.default_factory()
        if field.default_factory is not dataclasses.MISSING
        else None
        for field in dataclasses.fields(TrainingArguments)
    }
    # of TRL, or as a dump has them
    dumped = {"accelerator_config", "hub_token", "pad_token", "pad_to_multiple_of", "padding_free"}
    for name, value in arguments.DEFAULTS.items():
        if name in real and name not in dumped:
            assert real[name] == value, name
    found = migrate(real | {"loss_type": "sigmoid"}, "trl", None, PLACE)
    assert not [line for line in found.lines if "knows no such argument" in line.why]
    assert not found.of("left out") or [line.origin for line in found.of("left out")] == ["save_total_limit"]


def test_whose_file_it_is():
    assert tool_of(["model_name_or_path", "dataset_name", "beta"]) == "trl"
    assert tool_of(["model_name_or_path", "finetuning_type", "template"]) == "llamafactory"
    assert tool_of(["base_model", "micro_batch_size"]) == "axolotl"
    with pytest.raises(ConfigError, match="say --from trl, llamafactory, axolotl"):
        migrate({"seed": 1})
    with pytest.raises(ConfigError, match="prefopt's already"):
        migrate({"method": "dpo", "loss_type": "sigmoid"})
