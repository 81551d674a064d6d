"""A frozen base network and the ControlNet that steers it, called as one.

What the base network makes of x_t, timestep and prompt before any residual comes in (`halves.py`) is computed once for all
items that share these, and for policy and reference, whose base is one module. Whether a loaded network can be called in
halves is found by a trial, see `ControlledNetwork.adapt`; otherwise it is called plainly, and nothing is shared.

Legend: N items, M states (distinct x_t, timestep and prompt), C H W of the latents, S D of a prompt's embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prefopt.modalities.control.halves import Features, first_half, obstacle, second_half

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}
"""What rounding may do to an output when rows are computed in other company, in standard deviations of the output."""


class States:
    """Which items of a batch are one state to the base network, and what it made of these states.

    A plain object, so that wrappers of the model hand it on as it is. It belongs to one plan: features are right as long as
    latents, timesteps and prompts are.

    Args:
        state_N: number of each item's state; states are numbered as they come.
        device: of the plan.
    """

    def __init__(self, state_N: Sequence[int], device: torch.device) -> None:
        self.shared = len(set(state_N)) < len(state_N)
        first = [n for n, state in enumerate(state_N) if state not in state_N[:n]]
        self.first_M = torch.tensor(first, device=device)
        self.state_N = torch.tensor(state_N, device=device)
        self._kept: tuple[nn.Module, tuple[Any, ...], Features] | None = None

    def __len__(self) -> int:
        return len(self.first_M)

    def one_each(self, value_N: Tensor) -> Tensor:
        """From N rows to M."""
        return value_N[self.first_M] if self.shared else value_N

    def spread(self, value_M: Tensor) -> Tensor:
        """From M rows to N."""
        return value_M[self.state_N] if self.shared else value_M

    def features(
        self,
        base: nn.Module,
        x_NCHW: Tensor,
        t_N: Tensor,
        prompt_NSD: Tensor,
        added: Mapping[str, Tensor] | None,
    ) -> Features:
        """What this base network makes of the states; kept for its next call, and for no other network's."""
        how = (x_NCHW.dtype, prompt_NSD.dtype, autocast_to(x_NCHW.device))
        if self._kept is not None and self._kept[0] is base and self._kept[1] == how:
            return self._kept[2]
        if added is not None:
            added = {name: self.one_each(value) for name, value in added.items()}
        found = first_half(base, self.one_each(x_NCHW), self.one_each(t_N), self.one_each(prompt_NSD), added)
        self._kept = (base, how, found)
        return found


class ControlledNetwork(nn.Module):
    """A base network and the ControlNet that steers it, called as the base network is, with `control` beside.

    Args:
        base: frozen; its weights get no gradient, though gradients pass through its upper half.
        controlnet: trained.
    """

    def __init__(self, base: nn.Module, controlnet: nn.Module) -> None:
        super().__init__()
        self.base, self.controlnet = base, controlnet
        self.plain_because: str | None = "it was not tried"

    @property
    def config(self) -> Any:
        """The base network's."""
        return self.base.config

    def enable_gradient_checkpointing(self) -> None:
        """In both: gradients pass through the base network too."""
        for network in (self.base, self.controlnet):
            network.enable_gradient_checkpointing()  # type: ignore[operator]

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        control: Tensor,
        added_cond_kwargs: Mapping[str, Tensor] | None = None,
        states: States | None = None,
    ) -> Tensor:
        """The base network's output under a control image.

        Args:
            sample: (N, C, H, W) noised latents.
            timestep: (N,).
            encoder_hidden_states: (N, S, D) prompts.
            control: (N, 3, H, W) in [0, 1], in pixels.
            added_cond_kwargs: pooled embeddings and sizes (SDXL).
            states: of the N items; None calls the base network plainly.
        """
        down, mid = self.controlnet(
            sample, timestep, encoder_hidden_states=encoder_hidden_states, controlnet_cond=control,
            added_cond_kwargs=added_cond_kwargs, return_dict=False,
        )  # fmt: skip
        # asked anew: adapters and hooks may have come since the trial
        if states is not None and self.plain_because is None and obstacle(self.base) is None:
            found = states.features(self.base, sample, timestep, encoder_hidden_states, added_cond_kwargs)
            return second_half(self.base, found, states.spread, down, mid)
        output: Tensor = self.base(
            sample, timestep, encoder_hidden_states=encoder_hidden_states, added_cond_kwargs=added_cond_kwargs,
            down_block_additional_residuals=down, mid_block_additional_residual=mid, return_dict=False,
        )[0]  # fmt: skip
        return output

    @torch.no_grad()
    def adapt(self) -> str | None:
        """Find out whether the base network can be called in halves, and do so from now on; else returns why not.

        Three made-up items of two states are scored both ways, under the autocast that is in force.
        """
        self.plain_because = obstacle(self.base) or self._failure()
        return self.plain_because

    @property
    def account(self) -> str:
        """What the trial found, in a sentence."""
        if self.plain_because is None:
            return (
                "the base network reads a noised image once, for all its control images and for a reference that shares "
                "the base"
            )
        return f"the base network is called anew for every item and for the reference: {self.plain_because}"

    def _failure(self) -> str | None:
        training = self.training
        self.eval()
        try:
            given = made_up(self.base.config, self.controlnet.config)
            parameter = next(self.base.parameters())
            given = {
                name: value.to(parameter.device, None if name == "timestep" else parameter.dtype)
                for name, value in given.items()
            }
            named = {"text_embeds", "time_ids"} & given.keys()
            added = {name: given.pop(name) for name in named} or None
            states = States((0, 0, 1), parameter.device)
            plain_NCHW = self(**given, added_cond_kwargs=added).double()
            self.plain_because = None
            halves_NCHW = self(**given, added_cond_kwargs=added, states=states).double()
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            return f"the trial fails ({type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]})"
        finally:
            self.train(training)
        dtypes = {parameter.dtype, autocast_to(parameter.device) or parameter.dtype}
        tolerance = max(TOLERANCE.get(dtype, 0.1) for dtype in dtypes)
        off = float((halves_NCHW - plain_NCHW).abs().max() / plain_NCHW.std())
        if not off <= tolerance:  # also what is not a number
            return f"its halves give another output, off by up to {off:.2g} standard deviations"
        return None


def autocast_to(device: torch.device) -> torch.dtype | None:
    """The dtype that autocast has in force there; None for none."""
    kind = device.type
    on = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if on else None


def made_up(base: Any, controlnet: Any) -> dict[str, Tensor]:
    """Arguments for three items of two states, the first two under unlike control images.

    Args:
        base: configuration of the base network.
        controlnet: of the ControlNet.
    """
    made = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(3, *shape, generator=made)

    side = 2 ** len(base.block_out_channels)
    pixels = side * 2 ** (len(controlnet.conditioning_embedding_out_channels) - 1)
    width = base.cross_attention_dim
    given = {
        "sample": draw(base.in_channels, side, side),
        "timestep": torch.tensor([7, 7, 601]),
        "encoder_hidden_states": draw(8, width if isinstance(width, int) else width[0]),
        "control": draw(controlnet.conditioning_channels, pixels, pixels).sigmoid(),
    }
    if base.addition_embed_type == "text_time":
        pooled = base.projection_class_embeddings_input_dim - 6 * base.addition_time_embed_dim
        given |= {"text_embeds": draw(pooled), "time_ids": 64 * draw(6).abs()}
    for name in given.keys() - {"control"}:
        given[name][1] = given[name][0]
    return given
