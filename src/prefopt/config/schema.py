"""The schema of a configuration: typed, strict and flat, made of the groups in `keys/`."""

from __future__ import annotations

from typing import get_args

from pydantic import ConfigDict

from prefopt.config.keys.adapters import AdapterKeys, QuantizationKeys
from prefopt.config.keys.control import ControlKeys
from prefopt.config.keys.course import CourseKeys
from prefopt.config.keys.data import DataKeys
from prefopt.config.keys.denoising import DenoisingKeys
from prefopt.config.keys.density_ratio import DensityRatioKeys
from prefopt.config.keys.image import ImageKeys
from prefopt.config.keys.judge import JudgeKeys
from prefopt.config.keys.model import ModelKeys
from prefopt.config.keys.objective import ObjectiveKeys
from prefopt.config.keys.optimization import OptimizationKeys
from prefopt.config.keys.oracle import OracleKeys, SplitKeys
from prefopt.config.keys.publishing import PublishingKeys
from prefopt.config.keys.reference import ReferenceKeys
from prefopt.config.keys.reward_model import RewardModelKeys
from prefopt.config.keys.rounds import RoundKeys
from prefopt.config.keys.sampling import DrawingKeys, SamplingKeys
from prefopt.config.keys.scorer import ScorerKeys
from prefopt.config.keys.semi_online import SemiOnlineKeys
from prefopt.config.keys.stages import StageKeys
from prefopt.config.keys.vision import VideoKeys, VisionKeys
from prefopt.config.keys.what import WhatKeys

ALIASES = {
    "model_name_or_path": "model",
    "dataset_name": "data",
    "dataset_config": "data_config",
    "dataset_config_name": "data_config",
    "dataset_split": "split",
    "dataset_train_split": "split",
    "dataset_test_split": "eval_split",
    "loss_type": "method",
    "output": "output_dir",
    "resume_from_checkpoint": "resume",
    "per_device_batch_size": "per_device_train_batch_size",
    "batch_size": "per_device_train_batch_size",
    "epochs": "num_train_epochs",
    "lr": "learning_rate",
    "lr_scheduler": "lr_scheduler_type",
    "attn": "attn_implementation",
    "torch_dtype": "dtype",
    "evaluation_strategy": "eval_strategy",
    "revision": "model_revision",
    "use_bnb_nested_quant": "bnb_4bit_use_double_quant",
    "lambda": "lambda_",
    "num_frames": "video_frames",
    "sync_ref_model": "sync_reference",
    "ref_model_mixup_alpha": "reference_mixup_alpha",
    "ref_model_sync_steps": "reference_sync_steps",
    "fps": "video_fps",
}


class TrainConfig(
    PublishingKeys,
    CourseKeys,
    OptimizationKeys,
    ObjectiveKeys,
    ReferenceKeys,
    AdapterKeys,
    QuantizationKeys,
    ModelKeys,
    DataKeys,
    WhatKeys,
    ScorerKeys,
    DenoisingKeys,
    ImageKeys,
    ControlKeys,
    VisionKeys,
    VideoKeys,
    RewardModelKeys,
    DrawingKeys,
    SamplingKeys,
    SemiOnlineKeys,
    JudgeKeys,
    StageKeys,
    RoundKeys,
    OracleKeys,
    SplitKeys,
    DensityRatioKeys,
):
    """Everything that decides a run; saved, resolved, as `config.yaml`.

    A group of keys has its line here, so that type checkers know its keys; pydantic orders groups from the last line up.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


FIELD_NAMES = frozenset(TrainConfig.model_fields)
FLAGS = frozenset(
    k for k, f in TrainConfig.model_fields.items() if bool in (f.annotation, *get_args(f.annotation))
)
