"""The Python face of a run: `prefopt.train`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefopt import objects
from prefopt.callbacks import ComputeMetrics, listening
from prefopt.config import ConfigError, read_yaml, resolve


@dataclass(frozen=True)
class TrainResult:
    """What a run left behind.

    Attributes:
        output_dir: the run's folder.
        metrics: newest value of every metric, by TRL's names where it has one; `start_eval_*` are the values before
            the first step.
        history: every line of metrics.jsonl.
    """

    output_dir: Path
    metrics: Mapping[str, float]
    history: list[dict[str, Any]] = field(repr=False)

    @property
    def model_dir(self) -> Path:
        """The trained model (or adapter), loadable by transformers (peft) or, of images, by diffusers."""
        return self.output_dir / "model"

    @property
    def report(self) -> Path:
        """The run's page."""
        return self.output_dir / "report.html"

    def load_model(self) -> Any:
        """What was trained, ready for inference, on the CPU.

        Returns:
            Of a run on text, model and tokenizer. Of a run on images, the diffusers pipeline (without its safety
            checker), adapters loaded into the one that the run started from; of `lrm`, the judge.

        Raises:
            OSError: the run saved no model, or the model that its adapters belong to has gone.

        Example:
            >>> model, tokenizer = prefopt.train("dpo", model=folder, data=rows).load_model()    # doctest: +SKIP
            >>> pipe = prefopt.train("diffusion_dpo", model=folder, data=rows).load_model()      # doctest: +SKIP
            >>> pipe("a red circle").images[0]                                                   # doctest: +SKIP
        """
        from prefopt import modalities

        return modalities.of_run(self.output_dir).part("trained").load(self.output_dir)


def train(
    method: str | None = None,
    *,
    model: Any = None,
    data: Any = None,
    eval_data: Any = None,
    tokenizer: Any = None,
    processor: Any = None,
    reference_model: Any = None,
    peft_config: Any = None,
    config: str | Path | None = None,
    reward: str | Callable[[Any, Any], float] | None = None,
    callbacks: Sequence[Any] = (),
    compute_metrics: ComputeMetrics | None = None,
    **options: Any,
) -> TrainResult:
    """Train a model on comparisons.

    Args:
        method: method or objective name, or a sum ("dpo+0.2*sft").
        model: folder saved by `save_pretrained`, hub id, or "world:text"; or a model in memory: `PreTrainedModel`,
            `PeftModel` (whose adapter is trained further), a diffusers pipeline. It stays as it is: what is trained is loaded
            from its source, or from a copy in the cache where it was changed since.
        data: file of rows (JSON lines, parquet, CSV, ...), `datasets` folder, hub id, or "world:text"; or rows in memory:
            a list of dicts, a generator of them, a `datasets` object (also streamed), a pandas or polars frame.
        eval_data: the same, to judge by, or several by name, `{"easy": rows, "hard": rows}`; else a share of `data` is
            held out.
        tokenizer: of a model in memory; None: that of its `name_or_path`.
        processor: the same, of a vision-language model.
        reference_model: the same as `model`; None: the starting model.
        peft_config: a configuration of peft, such as `LoraConfig(...)`, in place of the keys `lora_*` and `peft`.
        config: YAML file with any of the keys; keywords win over it.
        reward: reward of (prompt, completion) or of (prompt, image), (3, H, W) in [0, 1]; or, for images, the name of a
            scorer, as the key `reward` takes it ("pickscore:DIR"). Reported on samples through the run; trained on only by
            methods that ask a judge, of which a function is one.
        callbacks: told what happens, and may end the run: `prefopt.callbacks.Callback`s or transformers' `TrainerCallback`s.
        compute_metrics: more metrics of evaluations, from a `prefopt.callbacks.Evaluation`: held-out margins and samples.
        options: configuration keys and hyper-parameters of the objective (`beta=0.3`, `learning_rate=1e-5`, ...);
            `prefopt methods NAME` lists them.

    Returns:
        Paths, metrics, and the model on demand.

    Raises:
        prefopt.config.ConfigError: unknown key (naming the nearest), wrong value, nothing to train.
        ValueError, OSError: data or model that cannot be used.
        prefopt.hub.PushError: the run has finished, and its model could not be uploaded (`push_to_hub`).

    Example:
        >>> result = prefopt.train("dpo_rk", model="world:text", data="world:text", beta=0.3)  # doctest: +SKIP
        >>> result.metrics["eval_rewards/accuracies"]                                          # doctest: +SKIP
        >>> rows = [{"prompt": "1 + 1 =", "chosen": " 2", "rejected": " 3"}]
        >>> prefopt.train("dpo", model=folder, data=rows)                                      # doctest: +SKIP
    """
    from prefopt import stages
    from prefopt.modalities.fit import kind_for

    if isinstance(reward, str):
        options, reward = options | {"reward": reward}, None
    elif reward is not None and not callable(reward):
        raise ConfigError(
            f"reward must be a function of (prompt, sample), or the name of a scorer; given {type(reward).__name__}"
        )
    # an option given as None means None (max_grad_norm, clip_eps); only what is left out takes its default
    named = {
        "method": method,
        "model": model,
        "data": data,
        "eval_data": eval_data,
        "reference_model": reference_model,
    }
    given = {k: v for k, v in named.items() if v is not None} | options
    with contextlib.ExitStack() as stack:
        file = read_yaml(Path(config)) if config is not None else {}
        objects.take_peft_config(given, peft_config)
        objects.take_models(given, file, tokenizer, processor)
        for key in ("data", "eval_data"):
            if key in given:
                given[key] = objects.rows_under_a_name(key, given[key], stack)
        stack.enter_context(listening(callbacks, compute_metrics))
        texts = {k: str(v) if isinstance(v, Path) else v for k, v in given.items()}
        resolved, hyper = resolve(file, texts, kind_of=kind_for)
        outcome = stages.train(resolved, hyper, reward=reward)
    return TrainResult(outcome.output_dir, outcome.metrics, outcome.history)
