"""How to load a trained model without prefopt: what every modality's lines begin with."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from prefopt.models.revisions import hub_name
from prefopt.report.load import Run

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
ADAPTER_FILE = "adapter_config.json"


def folder_name(run: Run) -> str:
    """The model's folder as Python text, seen from beside the run's folder; or its id on the hub."""
    return json.dumps(run.published or f"{run.folder.resolve().name}/{run.model}")


def is_adapter(run: Run, file: str = ADAPTER_FILE) -> bool:
    """True where the model's folder holds an adapter in a file of this name, or the run trains one."""
    return (run.model_dir / file).is_file() or (run.model == "model" and bool(run.of("config", "use_peft")))


def base_model(run: Run) -> str:
    """What the adapter sits on, as peft recorded it; else what the run was started from."""
    return base_version(run)[0]


def base_version(run: Run) -> tuple[str, str | None]:
    """The same with its commit, where one was asked for."""
    recorded = read_json(run.folder / "model" / ADAPTER_FILE)
    if name := recorded.get("base_model_name_or_path"):
        return str(name), recorded.get("revision")
    source = str(run.of("manifest", "model", "source") or run.of("config", "model") or "base-model")
    return hub_name(Path(source)) or (source, None)


def base_code(run: Run) -> str:
    """The base model as arguments of `from_pretrained`; for readers on the hub, no folder of this machine."""
    base, revision = base_version(run)
    if run.published and not is_hub_id(run, base) and not base.startswith("world:"):
        base = f"path/to/{Path(base).name}"
    return json.dumps(base) + (f", revision={json.dumps(revision)}" if revision else "")


def is_hub_id(run: Run, source: str) -> bool:
    """Whether a source is the id of a model or data set on the hub, and no path, seen from here or from above the run."""
    places = [Path(), *run.folder.resolve().parents]
    return HUB_ID.fullmatch(source) is not None and not any((place / source).exists() for place in places)


def read_json(path: Path) -> dict[str, Any]:
    """A file's mapping; empty where there is none."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
