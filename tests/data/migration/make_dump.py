"""The arguments that TRL dumps, as people find them beside a model: `python tests/data/migration/make_dump.py`, with trl installed."""

import json
from pathlib import Path

from trl import DPOConfig

ARGUMENTS = DPOConfig(
    output_dir="outputs/dpo", loss_type="robust", label_smoothing=0.1, beta=0.3, num_train_epochs=2, learning_rate=3e-6,
    sync_ref_model=False, bf16=False, use_cpu=True, warmup_steps=0.1, save_strategy="epoch", seed=7,
)  # fmt: skip

if __name__ == "__main__":
    text = json.dumps(ARGUMENTS.to_dict(), indent=1, default=str)
    Path(__file__).with_name("trl_dump.json").write_text(text + "\n", "utf-8")
