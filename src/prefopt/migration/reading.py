"""Files of other tools: YAML, or arguments dumped as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prefopt.config import ConfigError, read_yaml

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")


def read(path: Path) -> dict[str, Any]:
    """Keys and values of a file.

    Raises:
        ConfigError: it cannot be read, is a pickle, or holds no keys at its top level.
    """
    if path.suffix in PICKLES:
        raise ConfigError(
            f"{path} is a pickle, which runs code when it is read, and prefopt reads none. Where you trust it, dump the arguments "
            "as JSON: python -c \"import json, torch; print(json.dumps(torch.load('training_args.bin', "
            'weights_only=False).to_dict()))" > args.json'
        )
    if path.suffix != ".json":
        return read_yaml(path)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold one object of arguments by name")
    return values
