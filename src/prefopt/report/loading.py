"""How to load a trained model without prefopt: what every modality's lines begin with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prefopt.report.load import Run

ADAPTER_FILE = "adapter_config.json"


def folder_name(run: Run) -> str:
    """The model's folder as Python text, seen from beside the run's folder."""
    return json.dumps(f"{run.folder.resolve().name}/model")


def is_adapter(run: Run, file: str = ADAPTER_FILE) -> bool:
    """True where `model/` holds an adapter in a file of this name, or the run trains one."""
    return (run.folder / "model" / file).is_file() or bool(run.of("config", "use_peft"))


def base_model(run: Run) -> str:
    """What the adapter sits on, as peft recorded it; else what the run was started from."""
    recorded = read_json(run.folder / "model" / ADAPTER_FILE).get("base_model_name_or_path")
    return str(recorded or run.of("manifest", "model", "source") or run.of("config", "model") or "base-model")


def read_json(path: Path) -> dict[str, Any]:
    """A file's mapping; empty where there is none."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
