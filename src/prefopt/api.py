"""The Python face of a run: `prefopt.train`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefopt.config import read_yaml, resolve


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
        """The trained model (or adapter), loadable by transformers (or peft)."""
        return self.output_dir / "model"

    @property
    def report(self) -> Path:
        """The run's page."""
        return self.output_dir / "report.html"

    def load_model(self) -> tuple[Any, Any]:
        """Model and tokenizer, ready for inference."""
        from prefopt.models.loading import load_model, load_tokenizer

        return load_model(str(self.model_dir), trainable=False).model, load_tokenizer(str(self.model_dir))


def train(
    method: str | None = None,
    *,
    model: str | Path | None = None,
    data: str | Path | None = None,
    config: str | Path | None = None,
    reward: Callable[[str, str], float] | None = None,
    **options: Any,
) -> TrainResult:
    """Train a model on comparisons.

    Args:
        method: method or objective name, or a sum ("dpo+0.2*sft").
        model: folder saved by `save_pretrained`, hub id, or "world:text".
        data: JSONL, parquet or CSV file, `datasets` folder, hub id, or "world:text".
        config: YAML file with any of the keys; keywords win over it.
        reward: reward of (prompt, completion), reported on samples through the run; never trained on.
        options: configuration keys and hyper-parameters of the objective (`beta=0.3`, `learning_rate=1e-5`, ...);
            `prefopt methods NAME` lists them.

    Returns:
        Paths, metrics, and the model on demand.

    Raises:
        prefopt.config.ConfigError: unknown key (naming the nearest), wrong value, nothing to train.
        ValueError, OSError: data or model that cannot be used.

    Example:
        >>> result = prefopt.train("dpo_rk", model="world:text", data="world:text", beta=0.3)  # doctest: +SKIP
        >>> result.metrics["eval_rewards/accuracies"]                                          # doctest: +SKIP
    """
    from prefopt.training.run import run

    # an option given as None means None (max_grad_norm, clip_eps); only what is left out takes its default
    given = {k: v for k, v in {"method": method, "model": model, "data": data}.items() if v is not None}
    named = {k: str(v) if isinstance(v, Path) else v for k, v in {**given, **options}.items()}
    resolved, hyper = resolve(read_yaml(Path(config)) if config is not None else {}, named)
    outcome = run(resolved, hyper, reward=reward)
    return TrainResult(outcome.output_dir, outcome.metrics, outcome.history)
