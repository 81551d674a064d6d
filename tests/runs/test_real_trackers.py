"""Every tracker that Accelerate offers and that is installed here takes a whole run, without a network."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

from conftest import ROWS

OFFLINE = {
    "tensorboard": {},
    "aim": {},
    "clearml": {"CLEARML_OFFLINE_MODE": "1"},
    "comet_ml": {"COMET_START_ONLINE": "0"},
    "dvclive": {},
    "mlflow": {},
    "swanlab": {"SWANLAB_MODE": "offline"},
    "trackio": {},
    "wandb": {"WANDB_MODE": "offline"},
}


def test_all_of_accelerates_are_here():
    from accelerate.utils import LoggerType

    assert set(OFFLINE) == {str(x.value) for x in LoggerType} - {"all"}


@pytest.mark.slow
@pytest.mark.parametrize("name", OFFLINE)
def test_a_whole_run(name, tiny_model, rows_file, own_cache, tmp_path):
    if find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    given = [f"model={tiny_model}", f"data={rows_file(ROWS)}", "max_steps=3", "logging_steps=1", "eval_size=2",
             "sample_prompts=0", "output_dir=run", f"report_to={name}"]  # fmt: skip
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(
        [sys.executable, "-m", "prefopt", "train", "dpo", *given],
        cwd=tmp_path, capture_output=True, text=True, timeout=500, env={**os.environ, **OFFLINE[name], **home},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "warning: " not in done.stderr
    assert "after step 3" in done.stderr
