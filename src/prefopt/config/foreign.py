"""Keys of other tools that mean nothing here, and what to do instead, in a sentence each.

`prefopt train` says these sentences when it refuses such a key, and `prefopt migrate` when it leaves one out. A key that
prefopt has, or will have under this name, is not in here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

LAUNCH = "processes, sharding and offloading are Accelerate's: describe them with `accelerate config`, start with `accelerate launch -m prefopt train FILE`"
REMOTE = "code out of a model's or data set's repository is never run; models whose classes are part of transformers need none"
LAYOUT = "prefopt shares prompts and packs rows by itself, in whatever way the model is found to score rightly (batch_layout)"
KERNELS = "another way of computing the same numbers, which prefopt does not use; it projects completion tokens alone, in pieces"
CLASSES = "classes of models and tokenizers are told by their own files"
PRECISION = (
    "what is computed in which type follows from dtype, bf16 and fp16 alone, in training and evaluation alike"
)
WORKERS = "rows are read and tokenized by one process, once; nothing to set"
TRACKER = (
    "trackers are named by report_to; projects, entities and keys are set by their own environment variables"
)
SECRET = "a secret belongs in no configuration: log in with `hf auth login`, or set the tool's environment variable"
GENERATION = (
    "for sampling in the tool's own online methods; here: sample_* of a run, response_* of online methods"
)
TEMPLATE = "conversations are written by the tokenizer's own chat template; save another one with the tokenizer, in the model's folder"
TOKENS = "a tokenizer is used as it lies in the model's folder: add tokens and resize the embeddings there, and save both"
LENGTHS = "there is one rule of truncation: prompt and completion together fit max_length, and the completion's end is cut"
OPTIMIZER = "prefopt has no such optimizer: see `optim` in the list of keys"
SFT = "for supervised fine-tuning or pretraining; comparisons score completions alone"
ONE_SOURCE = "data is one source: join several in one file or folder, or in Python (datasets.concatenate_datasets), and give that"
CACHE = "what is tokenized and scored is cached by content, in the folder that PREFOPT_CACHE names"
WHOLE = "rows are read whole, so that they can be checked, shuffled and repeated alike"
METRICS = "prefopt's own metrics are logged in every run (docs/run_folder.md)"
VERBOSE = "what a run says is its console, its metrics and its report; there are no levels"
PROFILE = "for looking at the speed of the tool itself"
EXPORT = "a run saves its model once, in safetensors, as <output_dir>/model"
UPLOAD = "the model is uploaded once, when its run has finished, to the main branch; checkpoints stay here (push_to_hub)"
MEASURE = "evaluation beside training is `prefopt evaluate`"
RESTORE = "checkpoints hold all that a run needs to go on as if it had not stopped (resume)"

_SAID: tuple[tuple[str, str], ...] = (
    (REMOTE, "trust_remote_code allow_custom_code"),
    (
        LAUNCH,
        "deepspeed fsdp fsdp_config fsdp_version fsdp_final_state_dict_type fsdp_min_num_params "
        "fsdp_transformer_layer_cls_to_wrap accelerator_config parallelism_config local_rank ddp ddp_backend ddp_timeout "
        "ddp_bucket_cap_mb ddp_broadcast_buffers ddp_find_unused_parameters ddp_static_graph ignore_bias_buffers device_map "
        "max_memory gpu_memory_limit world_size tensor_parallel_size context_parallel_size sequence_parallel_degree "
        "sequence_parallel_size dp_shard_size dp_replicate_size heads_k_stride ring_attn_func low_cpu_mem_usage offload_folder "
        "use_cpu no_cuda use_mps_device device use_ray ray_run_name ray_num_workers resources_per_worker placement_strategy "
        "ray_storage_path ray_storage_filesystem ray_init_kwargs use_ray num_gpus num_machines machine_rank main_process_ip "
        "quantization_device_map qlora_sharded_model_loading lora_on_cpu bnb_4bit_quant_storage",
    ),
    (
        LAYOUT,
        "packing padding_free sample_packing eval_sample_packing sample_packing_group_size sample_packing_bin_size "
        "sample_packing_sequentially multipack_real_batches neat_packing pad_to_sequence_len pad_to_multiple_of group_by_length "
        "length_column_name train_sampling_strategy batch_flattening dpo_padding_free use_logits_to_keep dpo_use_logits_to_keep "
        "curriculum_sampling auto_find_batch_size packing_strategy eval_packing",
    ),
    (
        KERNELS,
        "use_liger_kernel use_liger_loss liger_kernel_config enable_liger_kernel liger_rope liger_rms_norm liger_glu_activation "
        "liger_layer_norm liger_fused_linear_cross_entropy liger_cross_entropy liger_swiglu use_unsloth use_unsloth_gc "
        "unsloth_lora_mlp unsloth_lora_qkv unsloth_lora_o unsloth_rms_norm unsloth_rope unsloth_cross_entropy_loss lora_mlp_kernel "
        "lora_qkv_kernel lora_o_kernel flash_attn_cross_entropy flash_attn_rms_norm flash_attn_fuse_qkv flash_attn_fuse_mlp "
        "flash_optimum xformers_attention s2_attention shift_attn use_v1_kernels cut_cross_entropy chunked_cross_entropy "
        "use_kernels torch_compile_backend torch_compile_mode flex_attn_compile_kwargs torch_empty_cache_steps gc_steps "
        "activation_offloading torchdynamo jit_mode_eval use_ipex "
        "use_cache "
        "use_kv_cache use_reentrant_gc",
    ),
    (CLASSES, "use_fast_tokenizer tokenizer_use_fast tokenizer_legacy tokenizer_type model_type is_llama_derived_model is_mistral_derived_model is_falcon_derived_model is_qwen_derived_model is_encoder_decoder"),
    (PRECISION, "tf32 half_precision_backend fp16_backend fp16_opt_level bf16_full_eval fp16_full_eval upcast_layernorm upcast_lmhead_output embeddings_skip_upcast pure_bf16"),
    (
        WORKERS,
        "dataset_num_proc dataset_processes dataset_batch_size preprocessing_num_workers preprocessing_batch_size "
        "dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers dataloader_prefetch_factor "
        "dataloader_drop_last dataloader_multiprocessing_context dataloader_in_order remove_unused_columns label_names "
        "dataset_kwargs dataset_keep_in_memory dataset_shard_num dataset_shard_idx data_shared_file_system "
        "average_tokens_across_devices eval_accumulation_steps eval_do_concat_batches eval_use_gather_object batch_eval_metrics "
        ""
        "ignore_pad_token_for_loss "
        "label_pad_token_id padding_value precompute_ref_batch_size shuffle_merged_datasets strict dataset_exact_deduplication",
    ),
    (
        TRACKER,
        "wandb_entity wandb_watch wandb_log_model wandb_mode wandb_run_id wandb_project wandb_silent mlflow_tracking_uri "
        "mlflow_experiment_name mlflow_run_name hf_mlflow_log_artifacts comet_workspace comet_project_name comet_experiment_key "
        "comet_mode comet_online trackio_space_id trackio_bucket_id trackio_static_space_id trackio_project_name project "
        "swanlab_project swanlab_workspace swanlab_run_name swanlab_mode swanlab_logdir swanlab_lark_webhook_url use_swanlab "
        "logging_dir gradio_title",
    ),
    (SECRET, "hub_token hf_hub_token ms_hub_token om_hub_token swanlab_api_key swanlab_lark_secret hf_use_auth_token env"),
    (
        GENERATION,
        "use_vllm vllm vllm_mode vllm_server_host vllm_server_port vllm_server_base_url vllm_server_timeout "
        "vllm_gpu_memory_utilization vllm_tensor_parallel_size vllm_maxlen vllm_gpu_util vllm_enforce_eager vllm_config "
        "vllm_max_lora_rank vllm_model_impl vllm_group_port vllm_enable_sleep_mode vllm_structured_outputs_regex infer_backend "
        "infer_dtype generate_during_eval dpo_generate_during_eval generation_config generation_max_length "
        "generation_num_beams predict_with_generate max_new_tokens do_sample top_k top_p min_p temperature repetition_penalty "
        "generation_kwargs cache_implementation ds3_gather_for_generation eval_num_beams",
    ),
    (
        TEMPLATE,
        "template chat_template chat_template_jinja chat_template_path default_system default_system_message tool_format "
        "enable_thinking preserve_thinking reasoning_effort eot_tokens instance_prompt",
    ),
    (
        TOKENS,
        "special_tokens tokens added_tokens_overrides new_special_tokens add_tokens add_special_tokens resize_vocab "
        "resize_token_embeddings_to_32x mean_resizing_embeddings shrink_embeddings pad_token eos_token tokenizer_config "
        "tokenizer_name_or_path tokenizer_name split_special_tokens fix_untrained_tokens init_special_tokens "
        "new_special_tokens_config freeze_original_embeddings base_model_config",
    ),
    (LENGTHS, "max_prompt_length max_completion_length max_target_length max_prompt_len min_sample_len tool_max_length excess_length_strategy"),
    (
        OPTIMIZER,
        "optim_target_modules use_galore galore_target galore_rank galore_update_interval galore_scale galore_proj_type "
        "galore_layerwise use_apollo apollo_target apollo_rank apollo_update_interval apollo_scale apollo_proj apollo_proj_type "
        "apollo_scale_type apollo_layerwise apollo_scale_front use_badam badam_mode badam_start_block badam_switch_mode "
        "badam_switch_interval badam_update_ratio badam_mask_mode badam_verbose use_adam_mini use_muon loraplus_lr_ratio "
        "loraplus_lr_embedding embedding_lr embedding_lr_scale lr_groups torchdistx_path adam_beta3 adam_epsilon2 lr_quadratic_warmup "
        "cosine_min_lr_ratio cosine_constant_lr_ratio relora relora_steps relora_prune_ratio relora_prune_method relora_cpu_offload "
        "jagged_restart_steps lisa_n_layers lisa_step_interval lisa_layers_attribute",
    ),
    (
        SFT,
        "train_on_inputs train_on_prompt mask_history completion_only_loss assistant_only_loss roles_to_train train_on_eos "
        "neftune_noise_alpha noisy_embedding_alpha label_smoothing_factor pretraining_dataset use_dft_loss use_asft_loss "
        "asft_alpha use_eaft_loss eaft_alpha num_mtp_layers mtp_loss_weight pretrain_multipack_buffer_size "
        "pretrain_multipack_attn pretraining_sample_concatenation ppo_buffer_size ppo_epochs ppo_score_norm ppo_target "
        "ppo_whiten_rewards reward_model_adapters reward_model_quantization_bit reward_model_type num_labels process_reward_model",
    ),
    (ONE_SOURCE, "mix_strategy interleave_probs dataset_mixer dataset_mixture dataset_configs dataset_weights"),
    (CACHE, "dataset_prepared_path skip_prepare_dataset tokenized_path overwrite_cache cache_dir push_dataset_to_hub"),
    (WHOLE, "streaming dataset_streaming buffer_size"),
    (
        METRICS,
        "include_for_metrics include_inputs_for_metrics include_tokens_per_second include_num_input_tokens_seen prediction_loss_only "
        "skip_memory_metrics compute_accuracy include_effective_tokens_per_second model_adapter_name ref_adapter_name",
    ),
    (
        VERBOSE,
        "log_level log_level_replica log_on_each_node logging_nan_inf_filter logging_first_step disable_tqdm debug "
        "print_param_status loss_watchdog_threshold loss_watchdog_patience full_determinism is_preprocess",
    ),
    (PROFILE, "profiler_steps profiler_steps_start include_mfu"),
    (
        EXPORT,
        "save_safetensors save_only_model save_on_each_node enable_jit_checkpoint save_first_step export_dir export_size "
        "export_device export_legacy_format export_quantization_bit export_quantization_dataset "
        "export_quantization_nsamples export_quantization_maxlen merge_lora merge_method",
    ),
    (UPLOAD, "hub_strategy hub_always_push hub_revision"),
    (
        MEASURE,
        "eval_table_size eval_max_new_tokens eval_table_max_new_tokens do_bench_eval bench_dataset bench_split do_causal_lm_eval "
        "eval_causal_lm_metrics eval_on_each_dataset ",
    ),
    (RESTORE, "ignore_data_skip restore_callback_states_from_checkpoint auto_resume_from_checkpoints"),
)  # fmt: skip

FOREIGN: Mapping[str, str] = {
    **{name: sentence for sentence, names in _SAID for name in names.split()},
    "export_hub_model_id": "a merged model is uploaded by `prefopt push RUN/merged --id owner/name`",
    "plot_loss": "every run's report has its curves",
    "do_train": "training is `prefopt train`",
    "do_eval": "every run evaluates along the way, on what is held out",
    "do_predict": "answers of a model are judged by `prefopt evaluate`",
    "data_seed": "the order of the data follows from `seed`, like everything else that is random",
    "overwrite_output_dir": "a folder that holds a run is only replaced with `overwrite: true`, which you have to say yourself",
    "eval_delay": "evaluations come at even distances from the first step on (eval_steps)",
    "eval_on_start": "every run is measured before its first step",
    "disable_dropout": "dropout of the model is always off, so that policy and reference agree at the start",
    "reference_free": "methods without a reference are simpo, orpo, contrastive_po and others",
    "force_use_ref_model": "a reference beside adapters is `reference_model`",
    "max_samples": "write max_examples: the first rows of the data",
    "rl": "Axolotl's name of the method: write `method`",
    "finetuning_type": "LLaMA-Factory's word for adapters: write `use_peft: true` for lora",
    "adapter": "Axolotl's word for adapters: write `use_peft: true`, and `load_in_4bit: true` for qlora",
    "base_model": "Axolotl's name of `model`",
    "micro_batch_size": "Axolotl's name of `per_device_train_batch_size`",
    "num_epochs": "Axolotl's name of `num_train_epochs`",
    "sequence_len": "Axolotl's name of `max_length`",
    "val_set_size": "Axolotl's name of `eval_size`",
    "test_split_size": "TRL's name of `eval_size`",
    "dataset_splits": "alignment-handbook's name of `split`, and of `eval_split`",
    "auto_insert_empty_system_msg": "conversations are written as they are: add the system message to the data",
    "datasets": "a list of sources; " + ONE_SOURCE,
    "test_datasets": "a list of sources; held-out comparisons are `eval_data`",
    "dataset": "LLaMA-Factory's name of an entry of dataset_info.json: write the file or hub id itself as `data`",
    "eval_dataset": "held-out comparisons are `eval_data`: write the file or hub id itself",
    "dataset_dir": "LLaMA-Factory's folder of dataset_info.json: write the file itself as `data`",
    "media_dir": "paths of pictures start at the data file's folder",
    "cutoff_len": "LLaMA-Factory's name of `max_length`",
    "val_size": "LLaMA-Factory's name of `eval_size`",
    "lora_rank": "LLaMA-Factory's name of `lora_r`",
    "lora_target": "LLaMA-Factory's name of `lora_target_modules`; all: all-linear",
    "lora_target_linear": "write `lora_target_modules: all-linear`",
    "pref_beta": "LLaMA-Factory's name of `beta`",
    "pref_loss": "LLaMA-Factory's name of the loss: write `method`",
    "pref_ftx": "a likelihood term is a summand: `method: dpo+0.1*sft`",
    "rl_beta": "Axolotl's name of `beta`",
    "orpo_alpha": "Axolotl's name of `lambda` of orpo",
    "simpo_gamma": "TRL's name of `gamma` of simpo",
    "cpo_alpha": "TRL's name of `alpha` of contrastive_po",
    "kto_chosen_weight": "LLaMA-Factory's name of `desirable_weight`",
    "kto_rejected_weight": "LLaMA-Factory's name of `undesirable_weight`",
    "f_divergence_type": "f-divergences are `method: f_dpo` with `f: js`, `forward_kl` or `alpha`",
    "f_alpha_divergence_coef": "write `method: f_dpo` with `f: alpha`, and `alpha` 1 minus this number",
    "discopop_tau": "TRL's name of `tau` of discopop",
    "quantization_bit": "write `load_in_4bit: true` (or load_in_8bit)",
    "model_init_kwargs": "write what is in it as keys: dtype, attn_implementation, model_revision",
    "adapter_name_or_path": "an adapter to go on from is `model`: give its folder",
    "use_flash_attention_2": "write `attn_implementation: flash_attention_2`",
    "flash_attention": "write `attn_implementation: flash_attention_2`",
    "sdp_attention": "write `attn_implementation: sdpa`",
    "flex_attention": "write `attn_implementation: flex_attention`",
    "eager_attention": "write `attn_implementation: eager`",
    "flash_attn": "LLaMA-Factory's name of `attn_implementation`; fa2: flash_attention_2",
    "optimizer": "Axolotl's name of `optim`",
    "evals_per_epoch": "write eval_steps: steps, or a share of the run",
    "saves_per_epoch": "write save_steps: steps, or a share of the run",
    "wandb_name": "Axolotl's name of `run_name`",
    "use_wandb": "write `report_to: wandb`",
    "use_tensorboard": "write `report_to: tensorboard`",
    "use_mlflow": "write `report_to: mlflow`",
    "use_comet": "write `report_to: comet_ml`",
    "kto_desirable_weight": "Axolotl's name of `desirable_weight`",
    "kto_undesirable_weight": "Axolotl's name of `undesirable_weight`",
    "quantization_method": "bases are quantized by bitsandbytes: `load_in_4bit: true`",
    "quantization_type": "LLaMA-Factory's name of `bnb_4bit_quant_type`",
    "double_quantization": "LLaMA-Factory's name of `bnb_4bit_use_double_quant`",
    "bnb_config_kwargs": "write bnb_4bit_quant_type, bnb_4bit_use_double_quant and bnb_4bit_compute_dtype",
    "additional_target": "LLaMA-Factory's name of `lora_modules_to_save`",
    "disable_gradient_checkpointing": "write `gradient_checkpointing: false`, which is the default",
    "activation_checkpointing": "write `gradient_checkpointing`",
    "activation_checkpointing_kwargs": "write `gradient_checkpointing_kwargs`",
    "precompute_ref_log_probs": "a reference that stands still is scored once and cached anyway: `reference: cached` insists on it",
    "moe_aux_loss_coef": "LLaMA-Factory's name of `router_aux_loss_coef`",
    "dpo_label_smoothing": "write `label_smoothing`",
    "dpo_use_weighting": "weights by the policy's probability are `method: wpo`",
    "dpo_norm_loss": "averages a token are `margin: average` of dpo",
    "dpo_loss_type": "Axolotl's name of `method`",
    "dpo_loss_weights": "Axolotl's name of `loss_weights`",
    "dpo_beta": "an older name of `beta` in Axolotl",
    "lora_model_dir": "an adapter to go on from is `model`: give its folder",
    "ref_model": "write `reference_model`",
    "peft_use_dora": "Axolotl's name of `use_dora`",
    "peft_use_rslora": "Axolotl's name of `use_rslora`",
    "plugins": "code of plugins is not run here",
    "trainer_cls": "another trainer's code is not run here",
}  # fmt: skip
"""What to do instead, by key. Sentences begin in the middle and have no full stop, to stand behind `key: `."""

TOOLS: Mapping[str, frozenset[str]] = {
    "llamafactory": frozenset(
        [
            "finetuning_type",
            "pref_loss",
            "pref_beta",
            "pref_ftx",
            "lora_rank",
            "lora_target",
            "cutoff_len",
            "template",
            "dataset_dir",
            "quantization_bit",
            "kto_chosen_weight",
            "kto_rejected_weight",
        ]
    ),
    "axolotl": frozenset(
        [
            "base_model",
            "rl",
            "micro_batch_size",
            "sequence_len",
            "val_set_size",
            "adapter",
            "num_epochs",
            "sample_packing",
            "lora_target_linear",
            "dataset_prepared_path",
            "saves_per_epoch",
            "evals_per_epoch",
            "rl_beta",
            "orpo_alpha",
        ]
    ),
    "trl": frozenset(
        [
            "model_name_or_path",
            "dataset_name",
            "dataset_mixer",
            "dataset_mixture",
            "dataset_splits",
            "loss_type",
            "dataset_train_split",
            "dataset_test_split",
            "model_init_kwargs",
            "disable_dropout",
            "dataset_num_proc",
            "precompute_ref_log_probs",
            "ref_model_mixup_alpha",
            "f_divergence_type",
            "cpo_alpha",
            "logging_nan_inf_filter",
        ]
    ),
}
"""Keys by which a file of another tool is known."""
NAMES: Mapping[str, str] = {"trl": "TRL", "llamafactory": "LLaMA-Factory", "axolotl": "Axolotl"}
"""How the tools are spelt in sentences."""


def tool_of(keys: Iterable[str]) -> str | None:
    """Which tool's configuration has these keys; None if that cannot be told.

    The one that most of its marks are there of. LLaMA-Factory and Axolotl hand transformers' and TRL's names on, so that with as
    many marks it is one of them.

    Example:
        >>> tool_of(["base_model", "rl"]), tool_of(["model_name_or_path", "pref_loss"]), tool_of(["seed"])
        ('axolotl', 'llamafactory', None)
    """
    given = set(keys)
    found = {tool: len(marks & given) for tool, marks in TOOLS.items()}
    tool = max(found, key=lambda tool: (found[tool], tool != "trl"))
    return tool if found[tool] else None


def migration_hint(keys: Iterable[str]) -> str:
    """A sentence on `prefopt migrate` for keys of another tool; empty for others."""
    tool = tool_of(keys)
    if tool is None:
        return ""
    return f"Is this a configuration of {NAMES[tool]}? `prefopt migrate FILE` writes it as one of prefopt's"
