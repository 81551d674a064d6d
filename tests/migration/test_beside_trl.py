"""A migrated configuration trains as TRL does with the file itself: losses, learning rates and number of steps, all defaults included.

All rows make one batch, so that their order does not matter.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import prefopt
from conftest import ROWS
from prefopt.migration import migrate

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
]
PLACE = {"bf16": False, "use_cpu": True, "per_device_train_batch_size": len(ROWS), "logging_steps": 1, "save_strategy": "no",
         "adam_epsilon": 1e-6}  # fmt: skip
"""Of both: a CPU, one batch, and an epsilon that keeps round-off from deciding steps."""


def by_trl(given: dict[str, Any], model: Path, folder: Path) -> list[dict[str, float]]:
    """What TRL logs at each step."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    arguments = DPOConfig(output_dir=str(folder), report_to="none", disable_tqdm=True, **given)
    trainer = DPOTrainer(str(model), args=arguments, train_dataset=Dataset.from_list(ROWS))
    trainer.train()
    return [line for line in trainer.state.log_history if "loss" in line]


@pytest.mark.parametrize(
    "given",
    [
        {"learning_rate": 1e-3},
        {
            "loss_type": "robust", "label_smoothing": 0.1, "beta": 0.3, "learning_rate": 2e-3, "num_train_epochs": 5,
            "lr_scheduler_type": "cosine", "warmup_steps": 0.4, "weight_decay": 0.1, "max_grad_norm": 0.5,
        },
        {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5], "learning_rate": 1e-3, "adam_beta2": 0.95},
        {"loss_type": "sigmoid_norm", "beta": 5.0, "learning_rate": 1e-3, "lr_scheduler_type": "constant", "max_grad_norm": 0},
    ],
    ids=["defaults", "robust", "sum", "averages"],
)  # fmt: skip
def test_the_same_run(given, tiny_model, rows_file, own_cache, tmp_path):
    pytest.importorskip("trl", reason="needs the extra `trl`")
    expected = by_trl({**PLACE, **given}, tiny_model, tmp_path / "trl")
    found = migrate(
        {**PLACE, **given, "model_name_or_path": str(tiny_model), "dataset_name": str(rows_file(ROWS))}, "trl"
    )
    (tmp_path / "prefopt.yaml").write_text(yaml.safe_dump(found.config), "utf-8")
    result = prefopt.train(
        config=tmp_path / "prefopt.yaml", output_dir=str(tmp_path / "run"), sample_prompts=0
    )
    steps = [line for line in result.history if "loss" in line]
    assert len(steps) == len(expected)
    for name in ("loss", "grad_norm"):
        ours, theirs = [line[name] for line in steps], [line[name] for line in expected]
        assert ours == pytest.approx(theirs, rel=2e-3, abs=1e-9), name
    # TRL logs the rate of the step, prefopt that of the next one
    rates = [line["learning_rate"] for line in steps][:-1]
    assert rates == pytest.approx([line["learning_rate"] for line in expected][1:], abs=1e-9)
