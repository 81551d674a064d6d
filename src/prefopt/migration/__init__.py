"""Configurations of other tools as prefopt's: `prefopt migrate`.

A translator asks a file for each argument that it knows and says what becomes of it (`draft.py`); what nobody asked for is left
out with a reason (`prefopt.config.foreign`), or told to be unknown. Nothing of a file is passed over in silence.

| file | says |
|---|---|
| `trl.py`, `llamafactory.py`, `axolotl.py` | a tool's own arguments, and its defaults |
| `arguments.py`, `adapters.py` | what they have in common: transformers' arguments, LoRA |
| `losses.py` | TRL's losses as methods |
| `mixtures.py` | TRL's data sets, and alignment-handbook's |
| `datasets.py` | LLaMA-Factory's dataset_info.json, Axolotl's types of rows |
| `checkpoints.py` | what a model's config.json says |
| `reading.py`, `writing.py` | files there and here |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefopt.config import ConfigError, resolve
from prefopt.config.checking import objective_keys
from prefopt.config.foreign import NAMES, tool_of
from prefopt.config.resolving import canonical
from prefopt.migration.draft import FATES, Draft, Fate, Line, said
from prefopt.migration.reading import read
from prefopt.migration.writing import written

__all__ = ["FATES", "TOOLS", "Fate", "Line", "Migration", "migrate", "read", "said", "written"]

TOOLS = tuple(NAMES)


@dataclass(frozen=True)
class Migration:
    """A configuration of another tool as prefopt's.

    Attributes:
        tool: what wrote it, as in sentences.
        config: prefopt's keys.
        lines: what became of each key.
        same: keys that say nothing that prefopt would not do by itself.
    """

    tool: str
    config: dict[str, Any]
    lines: tuple[Line, ...]
    same: tuple[str, ...]

    def of(self, fate: Fate) -> list[Line]:
        """Lines of one fate."""
        return [line for line in self.lines if line.fate == fate]


def migrate(
    values: Mapping[str, Any],
    tool: str | None = None,
    trainer: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    place: Path = Path(),
) -> Migration:
    """Translate a configuration.

    Args:
        values: keys and values of the other tool.
        tool: of `TOOLS`; None: told by the keys.
        trainer: of TRL: dpo, kto, cpo, orpo or tpo; None: told by the losses.
        overrides: prefopt's keys that win over the file, such as `model` and `data`: it is not asked for what they say.
        place: folder of the file, for what lies beside it.

    Returns:
        Keys that `prefopt train` takes, and an account of every key that was given.

    Raises:
        ConfigError: the tool cannot be told, or the configuration cannot be migrated; all reasons at once.

    Example:
        >>> found = migrate({"loss_type": "sigmoid", "beta": 0.2, "bf16": True}, overrides={"model": "m", "data": "d"})
        >>> found.tool, found.config["method"], found.config["learning_rate"], found.config["num_train_epochs"]
        ('TRL', 'dpo', 1e-06, 3.0)
    """
    from prefopt.migration import axolotl, llamafactory, trl

    tool = tool or tool_of(values)
    if tool is None:
        raise ConfigError(
            f"these keys do not tell whose they are: say --from {', '.join(TOOLS)}. Given: {', '.join(list(values)[:8]) or 'none'}"
        )
    if "method" in values:
        raise ConfigError("this has a `method`, so it is prefopt's already: `prefopt train` reads it")
    overrides = canonical(overrides or {}, "command line")
    if "method" in overrides:
        try:
            objective_keys(str(overrides["method"]))
        except (KeyError, ValueError) as error:
            raise ConfigError(str(error.args[0])) from error
    draft = Draft(NAMES[tool], values, overrides)
    if tool == "trl":
        trl.translate(draft, trainer)
        draft.settle(trl.DEFAULTS)
    elif tool == "llamafactory":
        llamafactory.translate(draft, place)
        draft.settle(llamafactory.DEFAULTS)
    else:
        axolotl.translate(draft)
        draft.settle(axolotl.DEFAULTS)
    config = draft.out | overrides
    missing = [key for key in ("model", "data") if not config.get(key)]
    if missing:
        raise ConfigError(
            f"the file names no {' and no '.join(missing)}: say so on the command line, {' '.join(f'{key}=...' for key in missing)}"
        )
    resolve(config)
    return Migration(draft.tool, config, tuple(draft.lines), tuple(dict.fromkeys(draft.same)))
