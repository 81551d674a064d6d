"""How long a row may be: the positions that a model was made for, by its configuration.

Beyond them learned positions end in an IndexError, and rotary ones in places that the model never saw.
"""

from __future__ import annotations

from typing import Any

NAMES = ("max_position_embeddings", "max_seq_len")
STRETCHED = ("linear", "dynamic", "yarn")  # kinds of rotary positions that reach further than the number says


def positions_in(config: Any) -> int | None:
    """Positions of a configuration of transformers; None where nothing bounds a row.

    Example:
        >>> from transformers import GPT2Config
        >>> positions_in(GPT2Config(n_positions=64))
        64
    """
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    if getattr(text, "alibi", False) is True:  # the distance counts, not the place
        return None
    named = (getattr(text, name, None) for name in NAMES)
    positions = next((n for n in named if isinstance(n, int) and n > 0), None)
    if positions is None:
        return None
    return max([positions, *(reach(rope, positions) for rope in rotary(text))])


def rotary(text: Any) -> list[dict[str, Any]]:
    """Parameters of rotary positions, one for each kind of layer."""
    found = getattr(text, "rope_parameters", None)
    if not isinstance(found, dict):
        return []
    nested = [value for value in found.values() if isinstance(value, dict)]
    return nested or [found]


def reach(rope: dict[str, Any], positions: int) -> int:
    """Positions that stretched rotary ones reach."""
    if rope.get("rope_type") not in STRETCHED:
        return positions
    return int((rope.get("factor") or 1.0) * (rope.get("original_max_position_embeddings") or positions))
