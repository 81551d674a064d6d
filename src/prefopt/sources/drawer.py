"""Whole samples of a denoising model, many in one go, each by noise of its own.

Legend: B conditions, N samples, S reverse steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prefopt.likelihoods.denoising import DenoisingLikelihood
from prefopt.likelihoods.latents import EncodedLatent
from prefopt.likelihoods.process import counted_noise
from prefopt.likelihoods.steps import GuidedNetwork, transition

FULL = 0.85
"""Share of a forward pass on a CPU that must not be padding."""


@dataclass(frozen=True, kw_only=True)
class Drawer:
    """Draws whole samples with a model, all candidates of a batch in one go, those of very different extents by themselves.

    Attributes:
        likelihood: of the run: its network, process and conditions.
        steps_S2: (S, 2) times and next times, descending; from `transition.inference_timesteps`.
        eta: noise of a reverse step; 0 draws by the start's noise alone.
        guidance_scale: of classifier-free guidance, both halves in one forward pass; 1: none.
        at_once: samples of a forward pass at most; None: all.
    """

    likelihood: DenoisingLikelihood
    steps_S2: Tensor
    eta: float = 1.0
    guidance_scale: float = 1.0
    at_once: int | None = None

    @torch.no_grad()
    def draw(
        self, model: nn.Module, items: Sequence[EncodedLatent], names: Sequence[str], round_: int
    ) -> Tensor:
        """(N, ...) latents on the CPU, float32, in the shape of the store; each depends on its name, round and condition alone.

        Args:
            model: the network, in eval mode.
            items: whose conditions (and lengths) are used.
            names: of the samples, from which their noise follows.
            round_: of the noise.

        Raises:
            ValueError: samples that are no numbers.
        """
        on_cpu = next(model.parameters()).device.type == "cpu"
        parts = self.together(items, FULL if on_cpu else 0.0)
        drawn_N = torch.cat(
            [self._some(model, [items[n] for n in part], [names[n] for n in part], round_) for part in parts]
        )
        order_N = torch.tensor([n for part in parts for n in part])
        return drawn_N[order_N.argsort()]

    def together(self, items: Sequence[EncodedLatent], full: float) -> list[list[int]]:
        """Places of the samples of each forward pass: those of about one extent, the largest first.

        Args:
            items: to draw for.
            full: share of a pass that must not be padding. On a CPU a pass costs what is in it; accelerators would rather have
                all in one.
        """
        elements = [math.prod(self.likelihood.extent([item])) for item in items]
        parts: list[list[int]] = []
        for n in sorted(range(len(items)), key=lambda n: -elements[n]):
            alike = bool(parts) and elements[n] >= full * elements[parts[-1][0]]
            if alike and len(parts[-1]) < (self.at_once or len(items)):
                parts[-1].append(n)
            else:
                parts.append([n])
        return parts

    def _some(
        self, model: nn.Module, items: Sequence[EncodedLatent], names: Sequence[str], round_: int
    ) -> Tensor:
        likelihood = self.likelihood
        device = next(model.parameters()).device
        shape, extent = likelihood.store.shape, likelihood.extent(items)
        part = tuple(slice(0, n) for n in extent)

        def noise(place: str) -> Tensor:
            # the beginning of a whole latent's, so that it does not depend on what else is in the batch
            some = (extent[0], *shape[1:])
            drawn = [
                counted_noise(likelihood.seed, f"{place} of {name}", round_, some)[1][part] for name in names
            ]
            return torch.stack(drawn).to(device)

        guided = GuidedNetwork(
            process=likelihood.process,
            network=likelihood.network,
            conditions=lambda prompts: likelihood.conditions(
                [*items] * (len(prompts) // len(items)), prompts
            ),
            scale=self.guidance_scale,
        )
        conditions = {k: v.to(device) for k, v in guided.prepare([item.prompt for item in items]).items()}
        x_N = noise("start")
        for s, (t, t_prev) in enumerate(self.steps_S2.tolist()):
            t_N = torch.full((len(items),), t, dtype=self.steps_S2.dtype)
            t_prev_N = torch.full((len(items),), t_prev, dtype=self.steps_S2.dtype)
            output_N = guided(model, x_N, t_N, conditions)
            step = transition(likelihood.process, output_N, x_N, t_N, t_prev_N, self.eta)
            silent = not bool((step.std_B > 0).any())
            x_N = step.mean_BCHW if silent else step.sample(noise(f"step {s}"))
        x_N = x_N.float().cpu()
        if not bool(x_N.isfinite().all()):
            bad = names[int((~x_N.isfinite().flatten(1).all(1)).nonzero()[0])]
            raise ValueError(f"the model's sample {bad} is not finite: it has diverged")
        whole_N = x_N.new_zeros(len(items), *shape)
        whole_N[(slice(None), *part)] = x_N
        return whole_N
