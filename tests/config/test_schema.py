"""The keys: their names, order, defaults and ranges."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from prefopt.config import ALIASES, FIELD_NAMES, ConfigError, TrainConfig, resolve

NEEDED = {"method": "dpo", "model": "m", "data": "d"}
# Public: scripts of users hold these. Adding one is fine; write it here. Renaming one needs an alias. The order is that of
# a saved configuration.
KEYS = [
    "density_ratio_weights",
    "prompt_sample_size",
    "min_density_ratio",
    "max_density_ratio",
    "split_margin",
    "split_rule",
    "noisy_pairs",
    "first",
    "perturbations",
    "radius",
    "radius_relative",
    "perturbed",
    "perturbation_sampler",
    "fast_sampling",
    "gate",
    "step_size",
    "keep_fraction",
    "lambda_g",
    "clip_sigma",
    "accept_check",
    "rounds",
    "seed_pairs",
    "seed_selection",
    "seed_epochs",
    "prompts",
    "prompts_per_round",
    "responses",
    "response_tokens",
    "response_temperature",
    "response_top_p",
    "generation_server",
    "generation_reload",
    "missing_eos_penalty",
    "mixture_coef",
    "accumulate",
    "train_reference",
    "epsilon",
    "group_size",
    "doubted_share",
    "stage",
    "stage2_data",
    "judge",
    "pairs",
    "tau_quantile",
    "similarity",
    "reuse_candidates",
    "candidate_steps",
    "candidate_guidance_scale",
    "candidates_at_once",
    "prompts_per_step",
    "threshold",
    "threshold_rule",
    "continue_from",
    "first_compared_step",
    "last_compared_step",
    "judge_timestep",
    "grad_scale",
    "temporal_weight",
    "average_noise",
    "anchor",
    "sampler",
    "ema_decay",
    "candidates",
    "eta",
    "feature_scale",
    "text_projection",
    "shared_noise",
    "consistency",
    "video_frames",
    "video_fps",
    "video_max_frames",
    "reference_context",
    "redraw_videos",
    "freeze",
    "lora_parts",
    "contrast_image",
    "cache_vision_features",
    "detector",
    "losing_condition",
    "condition_dropout",
    "consistency_timestep",
    "controlnet",
    "resolution",
    "crop",
    "prompt_dropout",
    "noise_epochs",
    "timestep_density",
    "error_weight",
    "error_scale",
    "guidance_scale",
    "num_inference_steps",
    "reward",
    "method",
    "model",
    "data",
    "output_dir",
    "eval_data",
    "eval_size",
    "split",
    "eval_split",
    "rename_columns",
    "ignore_columns",
    "data_config",
    "max_length",
    "truncation_mode",
    "max_examples",
    "template_date",
    "ties",
    "columns",
    "label_noise",
    "dtype",
    "model_revision",
    "save_dtype",
    "bf16",
    "fp16",
    "attn_implementation",
    "gradient_checkpointing",
    "gradient_checkpointing_kwargs",
    "torch_compile",
    "batch_layout",
    "router_aux_loss_coef",
    "use_peft",
    "lora_r",
    "lora_alpha",
    "lora_dropout",
    "lora_target_modules",
    "load_in_4bit",
    "load_in_8bit",
    "bnb_4bit_quant_type",
    "bnb_4bit_use_double_quant",
    "bnb_4bit_compute_dtype",
    "lora_target_parameters",
    "lora_modules_to_save",
    "use_rslora",
    "use_dora",
    "peft",
    "reference",
    "reference_model",
    "sync_reference",
    "reference_mixup_alpha",
    "reference_sync_steps",
    "loss_weights",
    "learning_rate",
    "optim",
    "optim_args",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "weight_decay",
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
    "warmup_steps",
    "warmup_ratio",
    "max_grad_norm",
    "per_device_train_batch_size",
    "per_device_train_batch_tokens",
    "per_device_train_batch_items",
    "gradient_accumulation_steps",
    "num_train_epochs",
    "max_steps",
    "seed",
    "per_device_eval_batch_size",
    "eval_strategy",
    "eval_steps",
    "logging_strategy",
    "logging_steps",
    "token_metrics",
    "save_strategy",
    "save_steps",
    "save_total_limit",
    "metric_for_best_model",
    "greater_is_better",
    "load_best_model_at_end",
    "early_stopping_patience",
    "early_stopping_threshold",
    "resume",
    "extend",
    "overwrite",
    "sample_prompts",
    "sample_max_new_tokens",
    "sample_temperature",
    "report_to",
    "run_name",
    "push_to_hub",
    "hub_model_id",
    "hub_private_repo",
]


def test_public_keys():
    assert list(TrainConfig.model_fields) == KEYS
    assert set(ALIASES.values()) <= set(KEYS) | {"lambda_"}


def test_no_objective_has_a_key_of_the_schema():
    """It would be taken for the schema's and never reach the objective."""
    from prefopt.objectives import names, registry

    clashes = {(n, k) for n in names() for k in registry.hyperparameter_names(n) if k in FIELD_NAMES}
    assert clashes == {("beta_dpo", "seed")}, "the run's seed, meant for both"


def test_defaults_that_results_depend_on():
    config = TrainConfig(**NEEDED)  # before a method's own defaults
    expected = {
        "max_length": 1024, "eval_size": 0.1, "learning_rate": 1e-6, "optim": "adamw", "adam_beta1": 0.9,
        "adam_beta2": 0.999, "adam_epsilon": 1e-8, "weight_decay": 0.0, "lr_scheduler_type": "linear",
        "warmup_steps": 0, "warmup_ratio": 0.0, "max_grad_norm": 1.0, "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 1, "num_train_epochs": 1.0, "max_steps": None, "seed": 0, "ties": None,
        "label_noise": 0.0, "dtype": "auto", "lora_r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "reference": "auto",
    }  # fmt: skip
    assert {key: getattr(config, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("eval_size", -0.1),
        ("label_noise", 1.1),
        ("label_noise", -0.1),
        ("max_examples", 0),
        ("lora_r", 0),
        ("lora_dropout", 1.0),
        ("adam_beta1", 1.0),
        ("adam_beta2", 1.0),
        ("adam_epsilon", 0),
        ("weight_decay", -1),
        ("warmup_ratio", 1.5),
        ("max_grad_norm", 0),
        ("per_device_train_batch_size", 0),
        ("gradient_accumulation_steps", 0),
        ("num_train_epochs", 0),
        ("save_total_limit", 0),
        ("sample_temperature", 0),
        ("ties", "keep"),
    ],
)
def test_values_out_of_range(key, value):
    with pytest.raises(ConfigError, match=f"^{key}: .*given {value!r}"):
        resolve(NEEDED, {key: value})


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("max_steps", 0, "or -1: by num_train_epochs"),
        ("max_steps", -2, "or -1: by num_train_epochs"),
        ("max_steps", 0.5, "valid integer"),
        ("eval_steps", 0, "null: ten times a run"),
        ("eval_steps", 2.5, "optimizer steps from one evaluation"),
        ("save_steps", 0, "null: at the end of every epoch"),
        ("save_steps", 1.5, "optimizer steps from one checkpoint"),
        ("logging_steps", 0, "optimizer steps from one line"),
        ("logging_steps", -0.1, "optimizer steps from one line"),
        ("save_total_limit", None, "newest checkpoints to keep"),
        ("num_train_epochs", -1, "greater than 0"),
        ("num_train_epochs", float("inf"), "finite"),
        ("num_train_epochs", float("nan"), "finite"),
        ("max_grad_norm", 0, "null: no clipping"),
        ("per_device_train_batch_tokens", 0, "greater than or equal to 1"),
        ("per_device_train_batch_tokens", -1, "greater than or equal to 1"),
        ("warmup_steps", 1.1, "share of the run below 1"),
        ("rounds", -1, "greater than or equal to 0"),
        ("seed_epochs", 0, "greater than 0"),
    ],
)
def test_values_that_would_do_nothing(key, value, words):
    with pytest.raises(ConfigError, match=rf"^{key}\b.*{words}"):
        resolve(NEEDED, {key: value})


def test_schema_is_strict_and_frozen():
    config, _ = resolve(NEEDED)
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 1
    with pytest.raises(ValidationError, match="betta"):
        TrainConfig(**NEEDED, betta=1)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_that_no_generator_takes(seed):
    with pytest.raises(ConfigError, match=rf"seed: input should be (greater|less) than .*given {seed}"):
        resolve(NEEDED, {"seed": seed})
