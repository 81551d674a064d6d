"""The configuration of a run: one typed, strict, flat schema.

Names are TRL's and transformers' where they have one. A YAML file, `key=value` overrides and Python keywords all end
here; an unknown key is an error that names the nearest one. An objective's own hyper-parameters (`beta`, `nu`, ...)
stand beside the training keys; they are checked against the objective's fields.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from prefopt.config_keys import ImageKeys, OnlineKeys, OracleKeys, RewardKeys, RoundKeys, SplitKeys, StageKeys
from prefopt.config_values import conventional

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
    "lambda": "lambda_",
}

TRAINING_ROWS = "train_rows"
"""Split, and prefix of metrics, of evaluations in a run that holds nothing out; "eval" where something is held out."""


class ConfigError(ValueError):
    """A configuration that cannot be used; the message says what was given, what is needed and what to do."""


class TrainConfig(ImageKeys, RewardKeys, OnlineKeys, StageKeys, RoundKeys, OracleKeys, BaseModel):
    """Everything that decides a run; saved, resolved, as `config.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)

    method: str = Field(description="method or objective name; several joined by + are summed (dpo+0.2*sft)")
    model: str = Field(description="model folder or hub id; world:text for the bundled world's model")
    data: str = Field(description="comparisons: JSONL, parquet, CSV, datasets folder, hub id, or world:text")
    output_dir: str = Field(
        "runs/{method}", description="folder of the run; {method} and {seed} are filled in"
    )

    # data
    eval_data: str | None = Field(
        None, description="held-out comparisons; else a share of `data` is held out"
    )
    eval_size: float = Field(
        0.1, ge=0, description="held out of `data`: a share below 1, or a number of rows"
    )
    split: str = Field("train", description="split of `data` to train on")
    eval_split: str | None = Field(
        None, description="split of eval_data; None: its test or validation split, or else its only one"
    )
    rename_columns: Annotated[dict[str, str], BeforeValidator(lambda given: name_pairs(given))] = Field(
        {}, description="columns under another name, new by old: {query: prompt, label: verdict}"
    )
    ignore_columns: Annotated[list[str], BeforeValidator(lambda given: names(given))] = Field(
        [], description="columns that mean something else here and are not read: [label, id]"
    )
    data_config: str | None = Field(None, description="configuration name of a hub data set")
    max_length: int | None = Field(
        1024,
        description="most tokens of prompt and completion, at most the model's positions; the completion's end is cut",
    )
    max_examples: int | None = Field(None, ge=1, description="use only the first rows")
    template_date: date | None = Field(
        None,
        description="date, as 2026-03-01, for chat templates that print today's; None: the day the run began",
    )
    ties: Literal["drop", "as_win", "soft_half"] | None = Field(
        None, description="what ties mean to an objective without a tie term; required if there are any"
    )
    columns: list[str] = Field([], description="numeric columns passed on to the objective")
    label_noise: float = Field(
        0.0, ge=0, le=1, description="world data only: share of wins whose order is flipped"
    )

    # model
    dtype: Literal["auto", "float32", "bfloat16", "float16", "float64"] = Field(
        "auto", description="weights; auto: float32 for full fine-tuning, the checkpoint's under adapters"
    )
    bf16: bool | None = Field(None, description="bf16 autocast; None: on where the GPU supports it")
    attn_implementation: str | None = Field(
        None, description="attention of transformers: sdpa, eager, flash_attention_2"
    )
    gradient_checkpointing: bool | Literal["auto"] = Field(
        False,
        description="recompute activations in the backward pass: less memory; auto: if it would not fit",
    )
    torch_compile: bool = Field(
        False, description="compile norms and feed-forward parts: faster steps after a slow first one"
    )
    batch_layout: Literal["auto", "shared", "packed", "plain"] = Field(
        "auto",
        description="prompts shared by several completions and short rows packed, only packed, or one padded row "
        "an item; auto: the densest that the model is found to score rightly",
    )
    use_peft: bool = Field(False, description="train LoRA adapters instead of the weights")
    lora_r: int = Field(16, ge=1)
    lora_alpha: int = Field(32, ge=1)
    lora_dropout: float = Field(
        0.0, ge=0, lt=1, description="only 0 keeps policy and reference equal at the start"
    )
    lora_target_modules: list[str] | str | None = Field(
        None, description="None: peft's default for the architecture"
    )
    load_in_4bit: bool = Field(
        False, description="QLoRA: quantized base weights under adapters (needs the qlora extra)"
    )

    # reference
    reference: Literal["auto", "cached", "live", "adapter_off", "none"] = Field(
        "auto", description="auto: cached on disk; none for reference-free objectives"
    )
    reference_model: str | None = Field(
        None, description="another model as reference; default: the starting model"
    )

    # objective terms (its own hyper-parameters are free keys beside these)
    loss_weights: list[float] | None = Field(None, description="weights of the terms of a summed method")

    # optimization
    learning_rate: float = Field(1e-6, gt=0)
    optim: Literal["adamw", "rmsprop", "sgd"] = "adamw"
    adam_beta1: float = Field(0.9, ge=0, lt=1)
    adam_beta2: float = Field(0.999, ge=0, lt=1)
    adam_epsilon: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "linear"
    warmup_steps: int = Field(0, ge=0)
    warmup_ratio: float = Field(0.0, ge=0, le=1)
    max_grad_norm: float | None = Field(1.0, gt=0, description="None: no clipping")
    per_device_train_batch_size: int = Field(
        8, ge=1, description="examples in one forward pass on one device"
    )
    per_device_train_batch_tokens: Annotated[int, Field(ge=1)] | Literal["auto"] | None = Field(
        None,
        description="cut a step's examples into forward passes of at most so many tokens, longest first, instead of "
        "per_device_train_batch_size examples; auto: what fits into memory. The step's examples stay the same",
    )
    gradient_accumulation_steps: int = Field(1, ge=1)
    num_train_epochs: float = Field(1.0, gt=0)
    max_steps: int | None = Field(
        None,
        ge=1,
        description="stop after so many optimizer steps; overrides epochs. None, or -1: by num_train_epochs",
    )
    seed: int = Field(0, ge=0, lt=2**32, description="of data order, hold-out, samples and initial adapters")

    # evaluation, logging, checkpoints
    per_device_eval_batch_size: int = Field(16, ge=1)
    eval_steps: int | None = Field(
        None, ge=1, description="optimizer steps from one evaluation to the next; None: ten times a run"
    )
    logging_steps: int = Field(10, ge=1, description="optimizer steps from one line of metrics to the next")
    token_metrics: bool = Field(False, description="log entropy and mean_token_accuracy of scored tokens")
    save_steps: int | None = Field(
        None,
        ge=1,
        description="optimizer steps from one checkpoint to the next; None: at the end of every epoch",
    )
    save_total_limit: int = Field(2, ge=1, description="newest checkpoints to keep")
    save_checkpoints: bool = True
    resume: bool | str = Field(
        False, description="true: from the newest checkpoint of output_dir; or a checkpoint folder"
    )
    overwrite: bool = Field(False, description="replace a finished or unfinished run in output_dir")
    sample_prompts: int = Field(
        8, ge=0, description="fixed prompts to generate on, for samples and KL; 0 for none"
    )
    sample_max_new_tokens: int = Field(
        64, ge=1, description="of a sample; at most half of the model's positions"
    )
    sample_temperature: float = Field(1.0, gt=0)
    report_to: list[str] = Field(
        [],
        description="trackers by Accelerate's names, one or a list: tensorboard, wandb, ...; none for none",
    )
    run_name: str | None = None


FIELD_NAMES = frozenset(TrainConfig.model_fields)
FLAGS = frozenset(
    k for k, f in TrainConfig.model_fields.items() if bool in (f.annotation, *get_args(f.annotation))
)
IMAGE_FIELDS = frozenset(ImageKeys.model_fields)
REWARD_FIELDS = frozenset(RewardKeys.model_fields)
ONLINE_FIELDS = frozenset(OnlineKeys.model_fields)
STAGE_FIELDS = frozenset(StageKeys.model_fields)
ROUND_FIELDS = frozenset(RoundKeys.model_fields)
ORACLE_FIELDS = frozenset(OracleKeys.model_fields)
SPLIT_FIELDS = frozenset(SplitKeys.model_fields)
STAGED_FIELDS = STAGE_FIELDS | ROUND_FIELDS | ORACLE_FIELDS
IMAGE_RUN_FIELDS = IMAGE_FIELDS | REWARD_FIELDS | ONLINE_FIELDS
SPECIAL_FIELDS = IMAGE_RUN_FIELDS | STAGED_FIELDS
TEXT_FIELDS = frozenset(
    {
        "max_length", "template_date", "attn_implementation", "torch_compile", "batch_layout", "per_device_train_batch_tokens", "load_in_4bit",
        "lora_target_modules", "sample_max_new_tokens", "sample_temperature", "token_metrics",
    }
)  # fmt: skip
"""Keys that mean nothing to image models (their adapters are on the attention's projections)."""


def names(given: Any) -> Any:
    """A list of names, also of "a, b"; anything else as it is, for the schema to judge."""
    return [name for part in given.split(",") if (name := part.strip())] if isinstance(given, str) else given


def name_pairs(given: Any) -> Any:
    """Names by names, also of "old:new, old:new"; anything else as it is, for the schema to judge.

    Example:
        >>> name_pairs("query:prompt, better: chosen")
        {'query': 'prompt', 'better': 'chosen'}
    """
    if not isinstance(given, str):
        return given
    pairs = [tuple(name.strip() for name in part.split(":")) for part in names(given)]
    if any(len(pair) != 2 or not all(pair) for pair in pairs):
        raise ValueError(f"needed old:new pairs such as query:prompt; given {given!r}")
    return dict(pairs)


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean X?` for the closest known name, or an empty string."""
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def read_yaml(path: Path) -> dict[str, Any]:
    """A flat mapping from a YAML file."""
    import yaml

    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ConfigError(f"{path} is a pipe or a device: write the configuration to a file, and give that")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(values, dict) or not all(isinstance(k, str) for k in values):
        raise ConfigError(f"{path} must hold `key: value` lines at its top level")
    return values


def parse_overrides(arguments: Iterable[str]) -> dict[str, Any]:
    """`key=value`, `--key=value` and `--key value` as a mapping; values are read as YAML (numbers, lists, null)."""
    import yaml

    values: dict[str, Any] = {}
    waiting: str | None = None

    def put(key: str, value: Any) -> None:
        if key in values:
            raise ConfigError(f"{key} is given twice")
        values[key] = value

    for argument in arguments:
        left = argument.partition("=")[0].replace("-", "_") if "=" in argument else ""
        # a bare flag may stand before key=value: `--use_peft lora_r=4`
        another = left.isidentifier() and (left in FIELD_NAMES or left in ALIASES or waiting in FLAGS)
        if waiting is not None and not argument.startswith("--") and not another:
            key, text = waiting, argument
            waiting = None
        else:
            if waiting is not None:
                put(waiting, True)  # a bare --flag
                waiting = None
            key, equals, text = argument.removeprefix("--").partition("=")
            key = key.replace("-", "_")
            if not equals:
                if not argument.startswith("--"):
                    raise ConfigError(
                        f"{argument!r} is not an override; write key=value, for example beta=0.3"
                    )
                waiting = key
                continue
        try:
            put(key, yaml.safe_load(text) if text else "")
        except yaml.YAMLError as error:
            raise ConfigError(f"the value of {key}, {text!r}, cannot be read: {error}") from error
    if waiting is not None:
        put(waiting, True)
    return values


def canonical(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Replace aliases by the names used here; an alias beside its name is an error."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        name = ALIASES.get(key, key)
        if name in out:
            raise ConfigError(f"{where}: {key} and its other name {name} are both given")
        out[name] = value
    if isinstance(out.get("method"), list):  # TRL's loss_type is a list
        out["method"] = "+".join(map(str, out["method"]))
    return out


def resolve(*layers: Mapping[str, Any]) -> tuple[TrainConfig, dict[str, Any]]:
    """Merge layers (later wins) over the method's defaults into a configuration and objective hyper-parameters.

    Returns:
        The validated configuration, and the hyper-parameters given for the objective (already known to be its
        fields; their values are checked when it is built).

    Raises:
        ConfigError: unknown or misspelt key (naming the nearest), wrong type or range, missing method/model/data.
    """
    from prefopt import methods
    from prefopt.objectives import registry

    merged: dict[str, Any] = {}
    for layer in layers:
        merged |= canonical(layer, "configuration")
    if "method" not in merged:
        raise ConfigError(
            "no method is given: write `method: dpo_rk` in the file, or `prefopt train dpo_rk ...`"
        )
    merged["method"] = str(merged["method"])
    try:
        objective_fields = registry.hyperparameter_names(merged["method"])
        if merged.get("first") == "simpo":  # compo's first stage has a loss of its own
            objective_fields += registry.hyperparameter_names("simpo")
    except (KeyError, ValueError) as error:
        raise ConfigError(str(error.args[0])) from error
    defaults = methods.defaults(merged["method"])
    merged = {**canonical(defaults, "method defaults"), **merged}
    training = {k: v for k, v in merged.items() if k in FIELD_NAMES}
    rest = {k: v for k, v in merged.items() if k not in FIELD_NAMES}
    for key in rest:
        if key not in objective_fields:
            known = FIELD_NAMES | set(objective_fields) | set(ALIASES)
            raise ConfigError(
                f"unknown key {key!r}{nearest(key, known)} "
                f"({merged['method']} takes {', '.join(sorted({*objective_fields})) or 'no hyper-parameters'}; "
                "`prefopt methods NAME` lists every key)"
            )
    for key in ("model", "data"):
        if key not in training:
            raise ConfigError(
                f"no {key} is given: add `{key}: ...` to the file, or {key}=... on the command line"
            )
    try:
        return TrainConfig(**conventional(training, FLAGS)), rest
    except ValidationError as error:
        raise ConfigError("; ".join(map(refusal, error.errors()))) from error
    except ValueError as error:
        raise ConfigError(str(error)) from error


def refusal(error: Mapping[str, Any]) -> str:
    """One of pydantic's errors as a sentence: the key, what is wrong with its value, and what the key means."""
    key, problem = error["loc"][0], error["msg"]
    place = ".".join(map(str, error["loc"]))
    meaning = TrainConfig.model_fields[key].description if key in FIELD_NAMES else None
    text = f"{place}: {problem[0].lower()}{problem[1:]} (given {briefly(error['input'])})"
    return text if meaning is None else f"{text}. {key}: {meaning.replace('None', 'null')}"


def run_folder(config: TrainConfig) -> Path:
    """The folder that `output_dir` names, method and seed filled in.

    Raises:
        ConfigError: something else stands in braces.
    """
    try:
        name = config.output_dir.format(method=config.method.replace("+", "-"), seed=config.seed)
    except (KeyError, IndexError, ValueError) as error:
        raise ConfigError(
            f"output_dir={config.output_dir}: only {{method}} and {{seed}} are filled in, and {error} is neither; write "
            "other braces twice"
        ) from None
    return Path(name).expanduser()


def briefly(value: Any) -> str:
    """A value as written in Python, cut where it is long: errors may be about all rows of a data set."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:80]}... ({type(value).__name__}, {len(text):,} characters)"


def dump(config: TrainConfig, hyper: Mapping[str, Any]) -> str:
    """The resolved configuration as YAML, readable back by `prefopt train`."""
    import yaml

    values = config.model_dump()
    own = {k: v for k, v in values.items() if k not in SPECIAL_FIELDS}
    # keys that belong to some runs only appear where they differ: elsewhere giving them is an error
    special = {k: values[k] for k in special_keys(config, SPECIAL_FIELDS)}
    objective = json.loads(json.dumps(hyper, default=str))
    return yaml.safe_dump({**own, **special, **objective}, sort_keys=False)


def special_keys(config: TrainConfig, fields: frozenset[str]) -> list[str]:
    """Those of `fields` that differ from their defaults, in the order of the schema."""
    schema = TrainConfig.model_fields
    return [k for k in schema if k in fields and getattr(config, k) != schema[k].default]


def refuse_keys(config: TrainConfig, fields: frozenset[str], why: str) -> None:
    """Raise ConfigError if any of `fields` was set: they mean nothing in this run."""
    if given := special_keys(config, fields):
        raise ConfigError(f"{', '.join(given)}: {why}. Leave {'it' if len(given) == 1 else 'them'} out")
