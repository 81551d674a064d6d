"""A reference that follows its policy: weights mixed into it now and then, those of adapters merged first.

A product of adapter factors is not linear in them, so mixing factors would not mix weights. What is mixed is the weights that
the policy computes with, into a reference without adapters.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

OF_PEFT = "base_model.model."


def plain_name(name: str, adapter: str | None) -> str:
    """A parameter's name as the model without adapters has it.

    Example:
        >>> plain_name("base_model.model.layers.0.q_proj.base_layer.weight", "default")
        'layers.0.q_proj.weight'
    """
    name = name.removeprefix(OF_PEFT).replace(f".modules_to_save.{adapter}", "")
    return name.replace(".base_layer", "").replace(".original_module", "")


def without_adapters(model: nn.Module) -> nn.Module:
    """A frozen model with its adapters merged into it."""
    adapters: Any = model
    if hasattr(adapters, "merge_and_unload"):
        model = adapters.merge_and_unload()
    return model.requires_grad_(False).eval()


def layers_by_base(policy: nn.Module) -> list[tuple[str, nn.Module, list[Any]]]:
    """Layers with adapters: the name of each one's own layer, that layer, and all that is wrapped around it."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    around: dict[int, list[Any]] = {}
    for module in policy.modules():
        if isinstance(module, BaseTunerLayer):
            around.setdefault(id(module.get_base_layer()), []).append(module)
    return [
        (name, module, around[id(module)]) for name, module in policy.named_modules() if id(module) in around
    ]


@contextlib.contextmanager
def merged(base: nn.Module, around: list[Any], adapter: str) -> Iterator[None]:
    """While open, a layer's own weights have its adapters in them; afterwards they are the same bits as before."""
    kept = [(p, p.data) for p in base.parameters()]
    done = [(layer, list(layer.merged_adapters)) for layer in around]
    for p, data in kept:
        p.data = data.clone()
    try:
        with torch.no_grad():
            for layer in reversed(around):  # from the inside
                layer.merge(adapter_names=[adapter])
        yield
    finally:
        for p, data in kept:
            p.data = data
        for layer, before in done:
            layer.merged_adapters[:] = before


class Mixing:
    """reference <- alpha policy + (1 - alpha) reference, over all weights that can differ.

    Args:
        reference: a frozen copy, without adapters; changed in place.
        policy: unwrapped; may have adapters, or be sharded.
        adapter: of the policy, None under full fine-tuning.
        alpha: share of the policy, in (0, 1].
        everything: whether weights that are not trained differ, too (another model was named as reference).

    Raises:
        ValueError: the two are not weights of one shape, or weights that nothing can be mixed into.
    """

    def __init__(
        self, reference: nn.Module, policy: nn.Module, adapter: str | None, alpha: float, everything: bool
    ) -> None:
        self.policy, self.adapter, self.alpha = policy, adapter, alpha
        known = dict(reference.named_parameters())
        moving = {plain_name(name, adapter) for name, p in policy.named_parameters() if p.requires_grad}
        if adapter is not None:
            moving &= known.keys()  # factors of adapters have no place of their own
            moving |= {
                plain_name(f"{name}.{part}", adapter)
                for name, base, _ in layers_by_base(policy)
                for part, _ in base.named_parameters()
            }
        if odd := sorted(moving - known.keys()):
            raise ValueError(f"the reference has no {', '.join(odd[:3])}, which the policy trains")
        self.weights = {name: p for name, p in known.items() if everything or name in moving}
        self._check()

    def _check(self) -> None:
        if self.adapter is not None and any(hasattr(p, "full_tensor") for p in self.policy.parameters()):
            raise ValueError("adapters of a sharded model cannot be merged layer by layer")
        shapes = {name: tuple(value.shape) for name, value in self._values()}
        for name, weight in self.weights.items():
            if not weight.is_floating_point():
                raise ValueError(f"{name} is quantized, and nothing can be mixed into it")
            if shapes.get(name) != tuple(weight.shape):
                found = f"of shape {shapes[name]}" if name in shapes else "missing"
                raise ValueError(
                    f"{name} of the reference has the shape {tuple(weight.shape)}, the policy's is {found}"
                )

    def _values(self) -> Iterator[tuple[str, Tensor]]:
        """The policy's weights by the reference's names, adapted layers first; in one order on every process."""
        seen: set[str] = set()
        for name, base, around in [] if self.adapter is None else layers_by_base(self.policy):
            with merged(base, around, str(self.adapter)):
                for part, value in base.named_parameters():
                    plain = plain_name(f"{name}.{part}", self.adapter)
                    seen.add(plain)
                    if plain in self.weights:
                        yield plain, value.detach()
        # the state dict, not the parameters: those of a sharded root module are whole between two passes
        values = self.policy.state_dict()
        held = {plain_name(name, self.adapter): name for name in values}
        held |= {plain_name(name, self.adapter): name for name in values if ".modules_to_save." in name}
        for plain in self.weights:
            if plain in held and plain not in seen:
                yield plain, values[held[plain]].detach()

    @torch.no_grad()
    def mix(self) -> None:
        """Move the reference once; every process of a sharded run takes part."""
        for name, value in self._values():
            target = self.weights[name]
            whole: Any = value
            value = whole.full_tensor() if hasattr(whole, "full_tensor") else value
            wide = torch.promote_types(target.dtype, torch.float32)  # half precision rounds small shares away
            target.copy_(torch.lerp(target.to(wide), value.to(target.device, wide), self.alpha))

    def state(self) -> dict[str, Tensor]:
        """For a checkpoint: the weights that move."""
        return {name: weight.detach().cpu().contiguous() for name, weight in self.weights.items()}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Back from a checkpoint.

        Raises:
            KeyError: it is of another reference.
        """
        for name, weight in self.weights.items():
            weight.copy_(state[name])
