"""Functions and objects of a user's own file, named FILE.py:NAME."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def object_of(name: str, role: str, what: str = "object") -> Any:
    """What `FILE.py:NAME` names; the file is run.

    Args:
        name: of the file and of something in it.
        role: what it is to be, for messages, such as "judge".
        what: kind of object that is expected, for messages.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file cannot be run, or has nothing of that name.
    """
    import importlib.util

    file, _, wanted = name.rpartition(":")
    path = Path(file).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}, which the {role} {name} names")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a user's file raises
        raise ValueError(f"{path} cannot be run: {type(error).__name__}: {error}") from error
    if not hasattr(module, wanted):
        raise ValueError(f"{path} has no {what} {wanted!r}, which the {role} {name} names")
    return getattr(module, wanted)
