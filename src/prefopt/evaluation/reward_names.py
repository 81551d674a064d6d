"""Rewards of answers by name: a reward model, a function of a user's file, a world's verifier, or a weighted sum of these.

reward:DIR   FILE.py:NAME   world:text   0.7*reward:DIR+0.3*FILE.py:NAME
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefopt.evaluation.reward_models import REWARD_MODEL, RewardModel
from prefopt.evaluation.rewards import FunctionReward, TextReward, WeightedSum
from prefopt.evaluation.user_files import object_of
from prefopt.worlds import WORLD_PREFIX, world_modality, world_of

KNOWN = "reward:DIR, FILE.py:FUNCTION or world:text, or a weighted sum such as 0.7*reward:DIR+0.3*FILE.py:FUNCTION"
_WEIGHT = r"(?P<weight>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE]-?\d+)?)\*"
_PART = re.compile(rf"(?:{_WEIGHT})?(?P<name>.+)")
_BEGIN = re.compile(rf"(?:{_WEIGHT})|reward:|world:|openai:")


def parts_of(name: str) -> list[str]:
    """The parts of a sum. A + may be part of a path, so that a part begins where a weight, a kind of reward or a file does.

    Example:
        >>> parts_of("0.7*reward:models/a+b+0.3*rules.py:short+world:text")
        ['0.7*reward:models/a+b', '0.3*rules.py:short', 'world:text']
    """
    first, *others = re.sub(r"(\d[eE])\+(\d+\*)", r"\1\2", name).split("+")
    parts = [first]
    for piece in others:
        file, found, _ = piece.strip().partition(".py:")
        if _BEGIN.match(piece.strip()) or (found and Path(f"{file}.py").expanduser().is_file()):
            parts.append(piece)
        else:
            parts[-1] += f"+{piece}"
    return [part.strip() for part in parts]


def reward_named(name: str, role: str = "judge") -> TextReward:
    """A reward by name; see the head of the file. Files of functions are run, models are only looked at.

    Args:
        name: of one, or of a sum.
        role: key that names it, for messages.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: no such reward, a weight that is none, or a server within a sum.

    Example:
        >>> reward_named("world:text").scores(["Sort: pear fig apple"], ["apple fig pear"])
        [1.0]
    """
    given = [found for part in parts_of(name) if (found := _PART.fullmatch(part)) is not None]
    if len(given) == 1 and given[0]["weight"] is None:
        return _one(name.strip(), role)
    parts = [(float(found["weight"] or 1), _one(found["name"], role)) for found in given]
    if names := [reward.name for _, reward in parts if [r.name for _, r in parts].count(reward.name) > 1]:
        raise ValueError(f"{role}={name}: {names[0]} is named twice; add its weights up")
    return WeightedSum(tuple(parts), name)


def _one(name: str, role: str) -> TextReward:
    if name.startswith(REWARD_MODEL):
        return RewardModel(name.removeprefix(REWARD_MODEL))
    if ".py:" in name:
        return FunctionReward(function_of(name, role), name)
    if name.startswith("openai:"):
        raise ValueError(
            f"{role}={name}: a model behind a server compares answers two at a time and gives no rewards; needed {KNOWN}"
        )
    if name.startswith(WORLD_PREFIX) and world_modality(name) == "text":
        world: Any = world_of(name)
        return FunctionReward(world.verify, name)
    server = "; or openai:MODEL@URL, a model behind a server" if role == "judge" else ""
    raise ValueError(f"no {role} of texts is called {name!r}: needed {KNOWN}{server}")


def function_of(name: str, role: str = "judge") -> Callable[[str, str], float]:
    """The function that `FILE.py:FUNCTION` names; the file is run.

    Args:
        name: of the file and of a function in it.
        role: what it is to be, for messages.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file cannot be run, or has no such function.
    """
    found = object_of(name, role, "function")
    if not callable(found):
        raise ValueError(
            f"{name} is a {type(found).__name__} and no function; needed a score of (prompt, answer)"
        )

    def score(prompt: str, answer: str) -> float:
        try:
            return float(found(prompt, answer))
        except Exception as error:  # whatever a user's function raises
            raise ValueError(
                f"the {role} {name} failed on prompt {prompt[:40]!r} and answer {answer[:40]!r}: "
                f"{type(error).__name__}: {error}"
            ) from error

    return score
