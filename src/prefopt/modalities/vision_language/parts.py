"""The parts of a vision-language model: vision tower, projector, language model. Which of them are trained, and how.

Classes of transformers name their parts alike, with few exceptions; a parameter belongs to the part whose name is in its path.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal, get_args

from torch import nn

from prefopt.config import ConfigError
from prefopt.likelihoods.capability import causal_lm

Part = Literal["language_model", "projector", "vision_tower"]
PARTS: tuple[Part, ...] = get_args(Part)
TOWERS = ("vision_tower", "vision_model", "visual", "vision_encoder", "image_encoder")
PROJECTORS = (
    "multi_modal_projector",
    "mm_projector",
    "connector",
    "image_newline",
    "merger",
    "deepstack_merger_list",
)


def part_of(name: str) -> Part:
    """The part that a module or parameter belongs to, by its path.

    >>> [part_of(n) for n in ("model.visual.blocks.0.mlp", "model.visual.merger.mlp", "lm_head.weight")]
    ['vision_tower', 'projector', 'language_model']
    """
    path = name.split(".")
    if any(step in PROJECTORS for step in path):
        return "projector"
    return "vision_tower" if any(step in TOWERS for step in path) else "language_model"


def freeze(model: nn.Module, parts: Collection[str]) -> None:
    """Leave some parts as they are.

    Raises:
        ConfigError: nothing is left to train.
    """
    for name, parameter in model.named_parameters():
        if part_of(name) in parts:
            parameter.requires_grad_(False)
    if not any(p.requires_grad for p in model.parameters()):
        raise ConfigError(f"freeze names every part ({', '.join(parts)}): leave one out")


def adapted_modules(
    parts: Collection[str], asked: Sequence[str] | str | None
) -> Callable[[nn.Module], Sequence[str]]:
    """Chooses the linear layers of some parts for adapters.

    Args:
        parts: to put adapters on.
        asked: endings of their names; None or "all-linear" for all of these parts but the head.
    """

    def choose(model: nn.Module) -> Sequence[str]:
        inner: Any = causal_lm(model) or model
        head = inner.get_output_embeddings()
        endings = (
            None
            if asked in (None, "all-linear")
            else [asked]
            if isinstance(asked, str)
            else list(asked or ())
        )
        found = [
            name
            for name, module in model.named_modules()
            if is_linear(module)
            and module is not head
            and part_of(name) in parts
            and (endings is None or any(name == ending or name.endswith(f".{ending}") for ending in endings))
        ]
        if not found:
            there = sorted(
                {
                    name.rpartition(".")[-1]
                    for name, m in model.named_modules()
                    if is_linear(m) and part_of(name) in parts
                }
            )
            raise ConfigError(
                f"no linear layer of {', '.join(parts)} is called {asked}; these parts have {', '.join(there) or 'none'}. Leave "
                "lora_target_modules out for all of them, or name other lora_parts"
            )
        return found

    return choose


def is_linear(module: nn.Module) -> bool:
    """A linear layer, quantized or not."""
    return isinstance(module, nn.Linear)
